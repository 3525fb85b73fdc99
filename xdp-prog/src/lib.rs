//! The XDP program: what the server serves goes to its AF_XDP sockets, everything else to the kernel.
//!
//! ```text
//!  frame ─▶ Ethernet ─▶ one 802.1Q tag? ─▶ IPv4 / IPv6 ─▶ TCP? ─▶ whole? ─▶ our address? ─▶ our port? ─▶ may it?
//!              │                               │            │         │           │             │           │ no: XDP_DROP
//!              └───────── no at any step: XDP_PASS, counted by reason ────────────┴─────────────┘           │
//!                                             yes: XDP_REDIRECT to SOCKETS[rx queue], or pass without one ◀─┘
//! ```
//!
//! One kind of message about what the server sent is redirected as well: "too big" (ICMP type 3 code 4,
//! ICMPv6 type 2) to a served address, whose quoted packet is TCP from that address and a served port.
//! There is no copy: the kernel does not hear of it, and learns the path's MTU for connections of its
//! own from the messages that quote those. All other ICMP stays with the kernel, echo requests included.
//!
//! It decides where a frame goes, not whether it is any good: lengths, flags and checksums are the
//! stack's to judge. What is not clearly the server's is the kernel's (ssh, ping, ARP, neighbour discovery,
//! fragments). Nothing is dropped here but segments for the server from a source that may not connect:
//! who is in a denied prefix, or in none of the allowed ones where there are any. No answer tells them why.
//!
//! The NIC must leave 802.1Q tags in the frame (`ethtool -K IFACE rxvlan off`): the answer carries
//! the tag that the request carried, and a stripped tag is not there to see.

#![no_std]

pub mod contract;

use core::mem::size_of;

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{map, xdp};
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, PerCpuArray, XskMap};
use aya_ebpf::programs::XdpContext;

use contract::{ADDRESSES_MAX, PORT_WORDS, Served, Verdict};

/// AF_XDP sockets by receive queue. The loader sets how many queues there are.
#[map]
static SOCKETS: XskMap = XskMap::with_max_entries(1, 0);

/// The served addresses, in slot 0.
#[map]
static SERVED: Array<Served> = Array::with_max_entries(1, 0);

/// The served ports, as a bitmap.
#[map]
static PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// Prefixes that may connect, and those that may not. The loader sets how many there are.
#[map]
static ALLOW_IPV4: LpmTrie<Ipv4, u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static ALLOW_IPV6: LpmTrie<Ipv6, u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static DENY_IPV4: LpmTrie<Ipv4, u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);
#[map]
static DENY_IPV6: LpmTrie<Ipv6, u8> = LpmTrie::with_max_entries(1, BPF_F_NO_PREALLOC);

/// An address as it is on the wire.
type Ipv4 = u32;
type Ipv6 = [u64; 2];

/// How many frames met which fate, by [`Verdict`].
#[map]
static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Verdict::ALL.len() as u32, 0);

/// Entry point: once per received frame, in the driver (native) or the stack's front door (generic).
///
/// With fragments (Linux 5.18): drivers that have them then run it whatever the MTU is. It looks at headers only, which
/// are in the first fragment.
#[xdp(frags)]
pub fn barewire(frame: XdpContext) -> u32 {
    let (verdict, action) = match classify(&frame) {
        Ok(taken) => {
            // SAFETY: the kernel passes a valid context for the duration of the call.
            let queue = unsafe { (*frame.ctx).rx_queue_index };
            match SOCKETS.redirect(queue, u64::from(XDP_PASS)) {
                Ok(redirect) => (taken, redirect),
                Err(pass) => (Verdict::NoSocket, pass),
            }
        }
        Err(Verdict::Denied) => (Verdict::Denied, XDP_DROP),
        Err(reason) => (reason, XDP_PASS),
    };
    if let Some(count) = VERDICTS.get_ptr_mut(verdict as u32) {
        // SAFETY: a slot of this CPU's own copy; XDP programs do not interrupt each other on a CPU.
        unsafe { *count += 1 };
    }
    action
}

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_8021Q: u16 = 0x8100;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// As what the server takes this frame, [`Verdict::Redirected`] or [`Verdict::RedirectedTooBig`]; if it
/// does not, why.
#[inline(always)]
fn classify(frame: &XdpContext) -> Result<Verdict, Verdict> {
    let (ethertype, ip) = match load_be16(frame, 12)? {
        ETHERTYPE_8021Q => (load_be16(frame, 16)?, 18),
        ethertype => (ethertype, 14),
    };
    match ethertype {
        ETHERTYPE_IPV4 => classify_ipv4(frame, ip),
        ETHERTYPE_IPV6 => classify_ipv6(frame, ip),
        _ => Err(Verdict::NotIp),
    }
}

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_ICMPV6: u8 = 58;

/// RFC 791. `ip` is the offset of the header.
#[inline(always)]
fn classify_ipv4(frame: &XdpContext, ip: usize) -> Result<Verdict, Verdict> {
    let version_and_length: u8 = load(frame, ip)?;
    let header_len = usize::from(version_and_length & 0x0f) * 4;
    if version_and_length >> 4 != 4 || header_len < 20 {
        return Err(Verdict::Malformed);
    }
    match load::<u8>(frame, ip + 9)? {
        PROTOCOL_TCP => {}
        PROTOCOL_ICMP => return classify_icmp(frame, ip, header_len),
        _ => return Err(Verdict::NotTcp),
    }
    // More fragments, or an offset.
    if load_be16(frame, ip + 6)? & 0x3fff != 0 {
        return Err(Verdict::Fragment);
    }
    let source: Ipv4 = load(frame, ip + 12)?;
    let destination: Ipv4 = load(frame, ip + 16)?;
    let served = SERVED.get(0).ok_or(Verdict::OtherAddress)?;
    if !contains(&served.ipv4, served.ipv4_count, &destination) {
        return Err(Verdict::OtherAddress);
    }
    let taken = classify_tcp(frame, ip + header_len)?;
    match may_connect(served, Key::new(32, source), &ALLOW_IPV4, &DENY_IPV4) {
        true => Ok(taken),
        false => Err(Verdict::Denied),
    }
}

/// RFC 8200. `ip` is the offset of the header.
#[inline(always)]
fn classify_ipv6(frame: &XdpContext, ip: usize) -> Result<Verdict, Verdict> {
    if load::<u8>(frame, ip)? >> 4 != 6 {
        return Err(Verdict::Malformed);
    }
    match load::<u8>(frame, ip + 6)? {
        PROTOCOL_TCP => {}
        44 => return Err(Verdict::Fragment),
        // Hop-by-hop, routing, ESP, authentication, destination, mobility, HIP, shim6.
        0 | 43 | 50 | 51 | 60 | 135 | 139 | 140 => return Err(Verdict::ExtensionHeader),
        PROTOCOL_ICMPV6 => return classify_icmpv6(frame, ip),
        _ => return Err(Verdict::NotTcp),
    }
    let source: Ipv6 = load(frame, ip + 8)?;
    let destination: Ipv6 = load(frame, ip + 24)?;
    let served = SERVED.get(0).ok_or(Verdict::OtherAddress)?;
    if !contains(&served.ipv6, served.ipv6_count, &destination) {
        return Err(Verdict::OtherAddress);
    }
    let taken = classify_tcp(frame, ip + 40)?;
    match may_connect(served, Key::new(128, source), &ALLOW_IPV6, &DENY_IPV6) {
        true => Ok(taken),
        false => Err(Verdict::Denied),
    }
}

/// RFC 9293. `tcp` is the offset of the header.
#[inline(always)]
fn classify_tcp(frame: &XdpContext, tcp: usize) -> Result<Verdict, Verdict> {
    if !is_served(load_be16(frame, tcp + 2)?) {
        return Err(Verdict::OtherPort);
    }
    // A TCP connection has one peer (RFC 1122, 4.2.3.10), and an answer would carry the group as its source.
    // All of the address: a load of its first byte alone gets a bounds check that LLVM simplifies
    // to one that the verifier does not follow.
    let [group, ..]: [u8; 6] = load(frame, 0)?;
    if group & 1 != 0 {
        return Err(Verdict::GroupAddressed);
    }
    Ok(Verdict::Redirected)
}

/// Whether the lists let this source in. Without lists no trie is looked into.
#[inline(always)]
fn may_connect<A>(served: &Served, source: Key<A>, allow: &LpmTrie<A, u8>, deny: &LpmTrie<A, u8>) -> bool {
    (served.deny == 0 || deny.get(&source).is_none()) && (served.allow == 0 || allow.get(&source).is_some())
}

/// RFC 792 and RFC 1191, section 4: destination unreachable, fragmentation needed. The server's own packets
/// have no options. A fragment, or a message cut short, is the kernel's.
#[inline(always)]
fn classify_icmp(frame: &XdpContext, ip: usize, header_len: usize) -> Result<Verdict, Verdict> {
    let icmp = ip + header_len;
    // First what lies at a fixed place: behind a check of what lies at one that varies, LLVM leaves out
    // its own, and the verifier does not follow.
    let destination: u32 = load(frame, ip + 16)?;
    if load_be16(frame, ip + 6)? & 0x3fff != 0 || load::<[u8; 2]>(frame, icmp)? != [3, 4] {
        return Err(Verdict::NotTcp);
    }
    let quoted: [u8; 24] = load(frame, icmp + 8)?;
    let source: u32 = load(frame, icmp + 8 + 12)?;
    let served = SERVED.get(0).ok_or(Verdict::NotTcp)?;
    let is_ours = quoted[0] == 0x45
        && quoted[9] == PROTOCOL_TCP
        && source == destination
        && contains(&served.ipv4, served.ipv4_count, &source)
        && is_served(u16::from_be_bytes([quoted[20], quoted[21]]));
    match is_ours {
        true => Ok(Verdict::RedirectedTooBig),
        false => Err(Verdict::NotTcp),
    }
}

/// RFC 4443, section 3.2: packet too big.
#[inline(always)]
fn classify_icmpv6(frame: &XdpContext, ip: usize) -> Result<Verdict, Verdict> {
    let icmp = ip + 40;
    if load::<u8>(frame, icmp)? != 2 {
        return Err(Verdict::NotTcp);
    }
    let quoted: [u8; 44] = load(frame, icmp + 8)?;
    let destination: [u64; 2] = load(frame, ip + 24)?;
    let source: [u64; 2] = load(frame, icmp + 8 + 8)?;
    let served = SERVED.get(0).ok_or(Verdict::NotTcp)?;
    let is_ours = quoted[0] >> 4 == 6
        && quoted[6] == PROTOCOL_TCP
        && source == destination
        && contains(&served.ipv6, served.ipv6_count, &source)
        && is_served(u16::from_be_bytes([quoted[40], quoted[41]]));
    match is_ours {
        true => Ok(Verdict::RedirectedTooBig),
        false => Err(Verdict::NotTcp),
    }
}

#[inline(always)]
fn is_served(port: u16) -> bool {
    match PORTS.get(u32::from(port >> 6)) {
        Some(word) => word >> (port & 63) & 1 != 0,
        None => false,
    }
}

#[inline(always)]
fn contains<T: PartialEq>(entries: &[T; ADDRESSES_MAX], count: u32, wanted: &T) -> bool {
    entries.iter().take(count as usize).any(|entry| entry == wanted)
}

#[inline(always)]
fn load_be16(frame: &XdpContext, offset: usize) -> Result<u16, Verdict> {
    load(frame, offset).map(u16::from_be)
}

/// The integer, or array of them, at `offset`, if the frame reaches that far.
#[inline(always)]
fn load<T: Copy>(frame: &XdpContext, offset: usize) -> Result<T, Verdict> {
    let start = frame.data() + offset;
    if start + size_of::<T>() > frame.data_end() {
        return Err(Verdict::Malformed);
    }
    // SAFETY: [start, start + size_of::<T>()) was just seen to lie within the frame, which the
    // kernel's verifier proves again, and T is made of integers, valid for any bytes.
    Ok(unsafe { (start as *const T).read_unaligned() })
}

/// Declared so that the kernel lets the program call GPL-only helpers.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
pub static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier rejects a program that could come here.
    loop {}
}
