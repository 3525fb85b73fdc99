//! What the program and the process that loads it agree on: map names, layouts and reasons.
//!
//! Compiled into both, so that neither can drift from the other. No dependencies, no `std`.

/// Name of the program.
pub const PROGRAM: &str = "barewire";

/// Name of the `XSKMAP`: receive queue → AF_XDP socket.
pub const SOCKETS_MAP: &str = "SOCKETS";

/// Name of the array with one [`Served`].
pub const SERVED_MAP: &str = "SERVED";

/// Name of the array of [`PORT_WORDS`] `u64`: bit `port % 64` of word `port / 64`, little-endian bit order.
pub const PORTS_MAP: &str = "PORTS";

/// Name of the per-CPU array of `u64`, indexed by [`Verdict`].
pub const VERDICTS_MAP: &str = "VERDICTS";

/// Name of the LPM trie of the IPv4 prefixes that may connect; it counts once [`Served::allow`] is set.
pub const ALLOW_IPV4_MAP: &str = "ALLOW_IPV4";

/// As [`ALLOW_IPV4_MAP`], for IPv6.
pub const ALLOW_IPV6_MAP: &str = "ALLOW_IPV6";

/// Name of the LPM trie of the IPv4 prefixes that may not connect; it counts once [`Served::deny`] is set.
pub const DENY_IPV4_MAP: &str = "DENY_IPV4";

/// As [`DENY_IPV4_MAP`], for IPv6.
pub const DENY_IPV6_MAP: &str = "DENY_IPV6";

/// How many addresses of each family can be served.
pub const ADDRESSES_MAX: usize = 64;

/// Words of the port bitmap: one bit for each of 65,536 ports.
pub const PORT_WORDS: u32 = 65_536 / 64;

/// The addresses whose TCP is redirected, and whether it matters where it comes from. All of them are served on all
/// ports of the bitmap.
///
/// Addresses are as on the wire (network byte order), loaded as native integers.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Served {
    /// Entries of `ipv4` in use.
    pub ipv4_count: u32,
    /// Entries of `ipv6` in use.
    pub ipv6_count: u32,
    /// Not zero: who is in no allowed prefix of either family is denied.
    pub allow: u32,
    /// Not zero: who is in a denied prefix is denied, allowed or not.
    pub deny: u32,
    /// Four octets each.
    pub ipv4: [u32; ADDRESSES_MAX],
    /// Sixteen octets each, in two halves.
    pub ipv6: [[u64; 2]; ADDRESSES_MAX],
}

/// What happened to a frame, and why. The value is the index of its counter.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Handed to the AF_XDP socket of the receiving queue.
    Redirected = 0,
    /// Passed: for us, but the receiving queue has no socket. The kernel will refuse it.
    NoSocket = 1,
    /// Passed: neither IPv4 nor IPv6 after at most one 802.1Q tag (ARP, LLDP, ...).
    NotIp = 2,
    /// Passed: IP, but not TCP (ICMP, neighbour discovery, UDP, ...), nor [`Verdict::RedirectedTooBig`].
    NotTcp = 3,
    /// Passed: a fragment, the first included; the kernel reassembles.
    Fragment = 4,
    /// Passed: IPv6 with an extension header.
    ExtensionHeader = 5,
    /// Passed: TCP to an address that is not served.
    OtherAddress = 6,
    /// Passed: TCP to a served address, but to a port that is not.
    OtherPort = 7,
    /// Passed: TCP to a served address and port in a frame to a group of hosts (broadcast, multicast).
    GroupAddressed = 8,
    /// Passed: shorter than its own headers say, or an impossible IP header.
    Malformed = 9,
    /// Handed to the AF_XDP socket of the receiving queue: a router says that what the server sent is too
    /// big for the path.
    RedirectedTooBig = 10,
    /// Dropped: TCP to a served address and port from somebody who may not connect.
    Denied = 11,
}

impl Verdict {
    /// All verdicts; each stands at the index that is its value.
    pub const ALL: [Verdict; 12] = [
        Verdict::Redirected,
        Verdict::NoSocket,
        Verdict::NotIp,
        Verdict::NotTcp,
        Verdict::Fragment,
        Verdict::ExtensionHeader,
        Verdict::OtherAddress,
        Verdict::OtherPort,
        Verdict::GroupAddressed,
        Verdict::Malformed,
        Verdict::RedirectedTooBig,
        Verdict::Denied,
    ];

    /// A name for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Redirected => "redirected",
            Verdict::NoSocket => "passed_no_socket",
            Verdict::NotIp => "passed_not_ip",
            Verdict::NotTcp => "passed_not_tcp",
            Verdict::Fragment => "passed_fragment",
            Verdict::ExtensionHeader => "passed_extension_header",
            Verdict::OtherAddress => "passed_other_address",
            Verdict::OtherPort => "passed_other_port",
            Verdict::GroupAddressed => "passed_group_addressed",
            Verdict::Malformed => "passed_malformed",
            Verdict::RedirectedTooBig => "redirected_too_big",
            Verdict::Denied => "dropped_denied",
        }
    }

    /// One sentence for people.
    pub const fn help(self) -> &'static str {
        match self {
            Verdict::Redirected => "Frames handed to the AF_XDP socket of the receiving queue.",
            Verdict::NoSocket => {
                "Frames for us on a queue without a socket; the kernel refuses them."
            }
            Verdict::NotIp => "Frames passed to the kernel: neither IPv4 nor IPv6.",
            Verdict::NotTcp => "Frames passed to the kernel: IP, but not TCP.",
            Verdict::Fragment => "Frames passed to the kernel: IP fragments, the first included.",
            Verdict::ExtensionHeader => {
                "Frames passed to the kernel: IPv6 with an extension header."
            }
            Verdict::OtherAddress => "Frames passed to the kernel: TCP to an address not served.",
            Verdict::OtherPort => "Frames passed to the kernel: TCP to a port not served.",
            Verdict::GroupAddressed => {
                "Frames passed to the kernel: TCP by broadcast or multicast."
            }
            Verdict::Malformed => {
                "Frames passed to the kernel: truncated or impossible IP headers."
            }
            Verdict::RedirectedTooBig => {
                "ICMP messages handed to the AF_XDP socket: a packet of ours is too big for its path."
            }
            Verdict::Denied => {
                "Frames dropped: for us, from a source that is denied or not allowed."
            }
        }
    }
}
