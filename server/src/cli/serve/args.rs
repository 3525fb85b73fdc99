//! The arguments of `barewire serve`: every limit and deadline there is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use barewire_service::deadline::Deadlines;
use barewire_service::seats::Seats;
use barewire_tcp::config::{DirectPath, StackConfig, WhenFull};
use barewire_tls::TlsLimits;
use clap::builder::{RangedI64ValueParser, RangedU64ValueParser};
use clap::error::ErrorKind;
use clap::{ArgGroup, Args, Command, ValueEnum, value_parser};
use ipnet::IpNet;

#[cfg(feature = "faults")]
use super::bad_wire::BadWire;
use super::teleport::TeleportArgs;
use crate::cli::config::{ConfigArgs, Sources};
use crate::cli::list::List;
use crate::cli::logging::LogArgs;
use crate::cli::mode::ModeName;
use crate::confine::Seccomp;
use crate::events::EventsConfig;
use crate::events::membership::{NODE_BYTES_MAX, is_node_name};
use crate::fleet::{FleetConfig, NEWCOMERS_MAX};
use crate::operate::admin::AdminAddress;
use barewire_http::files::{Directory, DirectoryConfig, DirectoryError};
use barewire_http::{Http2Limits, Limits, Surplus};

/// The smallest receive buffer: less holds no head that browsers send.
const RECEIVE_BUFFER_BYTES_MIN: usize = 1024;
/// The smallest limit on heads: less refuses every request.
const HEAD_BYTES_MIN: usize = 256;
/// Room for a head in a receive buffer that is made for a body.
const HEAD_BESIDE_BODY_BYTES: usize = 8 * 1024;

/// Arguments of `barewire serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    pub config: ConfigArgs,
    #[command(flatten)]
    pub place: PlaceArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub teleport: TeleportArgs,
    #[command(flatten)]
    pub link: LinkArgs,
    #[command(flatten)]
    pub tcp: TcpArgs,
    #[command(flatten)]
    pub kernel: KernelArgs,
    #[command(flatten)]
    pub uring: UringArgs,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    #[command(flatten)]
    pub deadline: DeadlineArgs,
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub http2: Http2Args,
    #[command(flatten)]
    pub files: FileArgs,
    #[command(flatten)]
    pub event: EventArgs,
    #[command(flatten)]
    pub fleet: FleetArgs,
    #[command(flatten)]
    pub operation: OperationArgs,
    #[command(flatten)]
    pub privilege: PrivilegeArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

/// Which stack, and where it serves.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Stack and address")]
pub struct PlaceArgs {
    /// Network stack [default: xdp with --interface, else epoll]
    #[arg(long, value_enum)]
    pub stack: Option<StackName>,

    /// Interface whose queues AF_XDP takes over for the served port, by name or alternative name
    #[arg(long, value_name = "IFACE", conflicts_with = "listen")]
    pub interface: Option<String>,

    /// TCP port to serve
    #[arg(long, default_value_t = 8080, value_parser = value_parser!(u16).range(1..), conflicts_with = "listen")]
    pub port: u16,

    /// Address of the interface to serve; repeat it for more [default: all the interface has, except link-local ones]
    #[arg(long, value_name = "ADDR")]
    pub address: Vec<IpAddr>,

    /// Address and port of the kernel stacks; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,

    /// Cores to serve on, as in 0,2 or 0-3; each gets one pinned thread
    #[arg(long, value_name = "auto|LIST", default_value_t)]
    pub cores: List,

    /// Poll the NIC's queue for so long before sleeping (SO_BUSY_POLL); helps with NICs, costs a core
    #[arg(long, value_name = "US", value_parser = value_parser!(u32).range(1..))]
    pub busy_poll_us: Option<u32>,

    /// Serve the routes that tests and fuzzers use as well: streams and echoes of any length
    #[arg(long)]
    pub test_routes: bool,
}

/// TLS, beside plain text.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Serve TLS as well, with the certificate in this PEM file, and its chain behind it; repeat it, with a --tls-key
    /// each, for more hosts (SNI) or another kind of key. Files are read again when they change, and at SIGHUP
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Vec<PathBuf>,

    /// The key of the certificate with the same place in the order: PEM, without a passphrase
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Vec<PathBuf>,

    /// TCP port to serve TLS on, at the addresses of --port
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = value_parser!(u16).range(1..), conflicts_with = "tls_listen")]
    pub tls_port: u16,

    /// Address and port of the kernel stacks for TLS; port 0 takes a free one [default: the address of --listen, and
    /// --tls-port]
    #[arg(long, value_name = "ADDR:PORT", requires = "tls_certificate")]
    pub tls_listen: Option<SocketAddr>,

    /// Serve TLS to nobody but clients with a certificate that leads to one in this PEM file (mTLS)
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_client_ca: Option<PathBuf>,

    /// Handshakes of TLS that may go on at once, per core; a connection beyond is reset
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value_t = TlsLimits::default().handshakes_max)]
    pub tls_handshakes_max: u32,

    /// Handshakes of TLS that may begin within a second, per core, so that they leave it time for requests; a connection
    /// beyond is reset
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value_t = TlsLimits::default().handshakes_per_second)]
    pub tls_handshakes_per_second: u32,
}

impl TlsArgs {
    /// Whether TLS is served.
    pub fn is_wanted(&self) -> bool {
        !self.tls_certificate.is_empty()
    }
}

/// A network stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StackName {
    /// Ours, on AF_XDP: the kernel never sees the connections
    Xdp,
    /// The kernel's, with readiness events
    Epoll,
    /// The kernel's, with io_uring
    Uring,
}

/// What only the bypass has: its queues.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "AF_XDP (--stack xdp)")]
pub struct LinkArgs {
    /// Wait for the interface if it is not there, and again whenever it goes away (systemd: NotifyAccess=all)
    #[arg(long)]
    pub wait_for_interface: bool,

    /// Receive queues to take, spread over the cores; what arrives by others is lost
    #[arg(long, value_name = "auto|LIST", default_value_t)]
    pub queues: List,

    /// Queues that may appear while serving (ethtool -L): so many are prepared for, with the memory of a queue each
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(..=64))]
    pub spare_queues: u32,

    /// Let only these connect, as in 192.0.2.0/24 or 2001:db8::1; repeat it for more. What others send is dropped
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub allow: Vec<IpNet>,

    /// Let these not connect, allowed or not; repeat it for more
    #[arg(long, value_name = "PREFIX", value_parser = prefix)]
    pub deny: Vec<IpNet>,

    /// Serve the port although the kernel serves it for another process, which then gets nothing of it from the interface
    #[arg(long)]
    pub steal_port: bool,

    /// Where the XDP program runs: in the driver (native), or in the kernel's stack (generic, slower)
    #[arg(long, value_enum, default_value_t = ModeName::Auto)]
    pub mode: ModeName,

    /// Whether the NIC reads and writes our memory itself, or the kernel copies every frame
    #[arg(long, value_enum, default_value_t = ZeroCopyName::Auto)]
    pub zero_copy: ZeroCopyName,

    /// What an idle core does: never sleep (spin), or spin for --spin-us and then sleep (adaptive)
    #[arg(long, value_enum, default_value_t = WaitName::Adaptive)]
    pub wait: WaitName,

    /// How long an idle core spins before it sleeps, with --wait adaptive
    #[arg(long, value_name = "US", default_value_t = 50)]
    pub spin_us: u32,

    /// Frames to receive into, per queue, a power of two; what arrives when all are in use is lost
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub rx_ring_frames: u32,

    /// Frames to send from, per queue, a power of two
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub tx_ring_frames: u32,

    /// Run the driver's receive loop on our core (SO_PREFER_BUSY_POLL), so many frames at a time
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..))]
    pub busy_poll_budget_frames: Option<u16>,

    /// Spoil the frames of all queues, as in seed=7,loss=100,reorder=50 (of 1,000 frames); for tests
    #[cfg(feature = "faults")]
    #[arg(long, value_name = "FAULTS")]
    pub test_faults: Option<BadWire>,
}

/// Whether frames are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ZeroCopyName {
    /// Zero-copy if the driver can
    Auto,
    /// Zero-copy, or not at all
    On,
    /// Copy
    Off,
}

/// What a core does when there is nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitName {
    /// Looks again, for ever
    Spin,
    /// Spins for a while, then sleeps
    Adaptive,
}

/// What only the bypass has: its TCP.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TCP (--stack xdp)")]
pub struct TcpArgs {
    /// Half-open connections per core; SYNs beyond are answered with cookies, 0: all of them
    /// [default: 1024, at most half of --connections]
    #[arg(long, value_name = "N")]
    pub half_open_max: Option<u32>,

    /// Connections in TIME-WAIT per core, beside --connections; beyond, the oldest gives way
    #[arg(long, value_name = "N", default_value_t = StackConfig::default().time_wait)]
    pub time_wait_max: u32,

    /// smoltcp sockets per core, with buffers, for connections that are not served directly; as many as --connections
    /// where the direct path is off
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(2..), default_value_t = StackConfig::default().sockets)]
    pub sockets: u32,

    /// What happens to a new connection when all --connections are in use: evict ends the one that has waited
    /// longest for its peer, refuse drops the new one
    #[arg(long, value_name = "WHAT", default_value = "evict")]
    pub when_full: WhenFull,

    /// Connections that one source may have, on all cores together, once they are established; 0: any number
    #[arg(long, value_name = "N", default_value_t = StackConfig::default().source_connections)]
    pub source_connections_max: u32,

    /// Bits of an IPv4 address that are a source for --source-connections-max
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=32), default_value_t = StackConfig::default().source_prefix_ipv4_bits)]
    pub source_prefix_ipv4_bits: u32,

    /// Bits of an IPv6 address that are a source for --source-connections-max
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=128), default_value_t = StackConfig::default().source_prefix_ipv6_bits)]
    pub source_prefix_ipv6_bits: u32,

    /// Least segment size that a peer may ask for; a smaller one is taken as this
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(48..=536), default_value_t = StackConfig::default().mss_min)]
    pub mss_min: u16,

    /// How long TIME-WAIT lasts
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = StackConfig::default().time_wait_ms)]
    pub time_wait_ms: u32,

    /// Longest time between retransmissions of a connection, and between zero-window probes
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32).range(1_000..=60_000), default_value_t = StackConfig::default().rto_max_ms)]
    pub rto_max_ms: u32,

    /// Shortest time between retransmissions of a connection that is served directly
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32).range(1..=1_000), default_value_t = StackConfig::default().rto_min_ms)]
    pub rto_min_ms: u32,

    /// Give timestamps (RFC 7323) to peers that offer them: 12 bytes of each segment, for protection against sequence
    /// numbers that wrap around within a segment's lifetime (PAWS)
    #[arg(long)]
    pub timestamps: bool,

    /// What one connection that is served directly may have in flight and queued, as far as the core's memory for it goes
    #[arg(long, value_name = "N", value_parser = bytes(), default_value_t = StackConfig::default().send_queue_bytes_max)]
    pub send_queue_bytes_max: usize,

    /// Largest receive window of a connection that is served directly
    #[arg(long, value_name = "N", value_parser = bytes(), default_value_t = StackConfig::default().receive_window_bytes_max)]
    pub receive_window_bytes_max: usize,

    /// Which established connections are served in place, without a smoltcp socket: always, never, or random:SEED
    /// for tests
    #[arg(long, value_name = "WHICH", default_value = "always")]
    pub direct_path: DirectPath,

    /// Longest IP packet to send, and what the announced segment size follows from [default: the interface's MTU]
    #[arg(long, value_name = "N", value_parser = mtu())]
    pub mtu: Option<usize>,

    /// What to do with received checksums; trust them only if the NIC verifies them
    #[arg(long, value_enum, default_value_t = ChecksumsName::Auto)]
    pub checksums: ChecksumsName,

    /// RSTs per second and core for segments that belong to no connection
    #[arg(long, value_name = "N", default_value_t = StackConfig::default().resets_per_second)]
    pub resets_per_second: u32,

    /// Challenge ACKs (RFC 5961) per second and core
    #[arg(long, value_name = "N", default_value_t = StackConfig::default().challenge_acks_per_second)]
    pub challenge_acks_per_second: u32,

    /// ACKs in TIME-WAIT per second and core
    #[arg(long, value_name = "N", default_value_t = StackConfig::default().time_wait_acks_per_second)]
    pub time_wait_acks_per_second: u32,
}

/// What to do with received checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ChecksumsName {
    /// Verify them, and on a virtual interface take those that a sender on this machine left to its device
    Auto,
    /// Verify them
    Verify,
    /// Trust them
    Trust,
}

/// What only the kernel stacks have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Kernel stacks (--stack epoll, --stack uring)")]
pub struct KernelArgs {
    /// Connections that wait to be accepted, per core; the kernel caps it at net.core.somaxconn
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = value_parser!(i32).range(1..))]
    pub backlog: i32,

    /// Hand a connection over only when its first data is there, or after so long (TCP_DEFER_ACCEPT)
    #[arg(long, value_name = "S", value_parser = value_parser!(u32).range(1..))]
    pub defer_accept_s: Option<u32>,

    /// Keep the NIC's interrupts off while we poll (SO_PREFER_BUSY_POLL)
    #[arg(long)]
    pub prefer_busy_poll: bool,
}

/// What only io_uring has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "io_uring (--stack uring)")]
pub struct UringArgs {
    /// Let a kernel thread look for submissions, which sleeps after so long without any (SQPOLL)
    #[arg(long, value_name = "MS", value_parser = ms())]
    pub sqpoll_idle_ms: Option<u32>,

    /// Send replies of at least so many bytes without copying them
    #[arg(long, value_name = "N", value_parser = bytes())]
    pub zero_copy_bytes_min: Option<usize>,

    /// Buffers per core into which the kernel receives, a power of two
    #[arg(long, value_name = "N", value_parser = power_of_two, default_value_t = 512)]
    pub ring_buffers: u16,

    /// Length of each of them
    #[arg(long, value_name = "N", value_parser = bytes(), default_value_t = 4096)]
    pub ring_buffer_bytes: usize,
}

/// What connections may take.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connections")]
pub struct ConnectionArgs {
    /// Connections that each core holds at most; further ones wait or are dropped, and counted
    /// [default: 8192 on xdp, 4096 on epoll and uring]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub connections: Option<u32>,

    /// Connections that all cores hold together at most, exactly, as in 25000. Connections that shake hands for TLS
    /// have limits of their own [default: any number]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub connections_total: Option<u32>,

    /// What becomes of connections beyond --connections-total
    #[arg(long, value_enum, default_value_t = SurplusName::Answer)]
    pub connections_surplus: SurplusName,

    /// Receive buffer of a connection; a head, and with it the body that a route reads as a whole, has to fit
    /// [default: 8192 on xdp, 16384 on epoll and uring, and more where --head-bytes-max or --body-bytes-max asks for it]
    #[arg(long, value_name = "N", value_parser = at_least(RECEIVE_BUFFER_BYTES_MIN))]
    pub receive_buffer_bytes: Option<usize>,

    /// Send buffer of a connection [default: 16384 on xdp, 32768 on epoll and uring]
    #[arg(long, value_name = "N", value_parser = bytes())]
    pub send_buffer_bytes: Option<usize>,
}

/// What becomes of connections that are too many for all cores together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SurplusName {
    /// They are answered: 503 with Retry-After, or GOAWAY of HTTP/2
    Answer,
    /// They are left without a word: on AF_XDP their SYNs are dropped, elsewhere they are reset once they ask something
    Drop,
}

/// Deadlines.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Deadlines")]
pub struct DeadlineArgs {
    /// From the SYN to the end of the handshake (AF_XDP)
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().half_open_ms)]
    pub half_open_timeout_ms: u32,

    /// From there to the end of the handshake of TLS
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().handshake_ms)]
    pub tls_handshake_timeout_ms: u32,

    /// For the first byte of the next request on a connection that is kept alive
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().idle_ms)]
    pub idle_timeout_ms: u32,

    /// From a request's first byte to the end of its head
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().head_ms)]
    pub head_timeout_ms: u32,

    /// From the end of a request's head to the end of its body
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().body_ms)]
    pub body_timeout_ms: u32,

    /// For the peer to take at least --send-bytes-min of what waits to be sent
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().send_ms)]
    pub send_timeout_ms: u32,

    /// Bytes that a peer has to take in each --send-timeout-ms: the slowest rate at which it may read
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value_t = Deadlines::default().send_bytes_min)]
    pub send_bytes_min: u32,

    /// From the last byte sent to the end of the connection
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().close_ms)]
    pub close_timeout_ms: u32,

    /// For the peer to acknowledge anything of what was sent; then retransmission gives up
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Deadlines::default().user_timeout_ms)]
    pub user_timeout_ms: u32,

    /// For all connections to end after SIGTERM, say, or `barewire stop`; what is left is reset
    #[arg(long, value_name = "MS", value_parser = value_parser!(u32), default_value_t = 10_000)]
    pub drain_timeout_ms: u32,
}

/// What a request may cost.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Requests")]
pub struct RequestArgs {
    /// Request line and header fields together; 431 beyond [default: 16384, or what the receive buffer holds]
    #[arg(long, value_name = "N", value_parser = at_least(HEAD_BYTES_MIN))]
    pub head_bytes_max: Option<usize>,

    /// The request target; 414 beyond
    #[arg(long, value_name = "N", value_parser = bytes(), default_value_t = Limits::default().target_bytes_max)]
    pub target_bytes_max: usize,

    /// Number of header fields; 431 beyond
    #[arg(long, value_name = "N", value_parser = up_to(4096), default_value_t = Limits::default().headers_max)]
    pub headers_max: usize,

    /// A body that a route reads as a whole; 413 beyond [default: 65536, or what the receive buffer holds]
    #[arg(long, value_name = "N", value_parser = bytes())]
    pub body_bytes_max: Option<usize>,
}

/// What HTTP/2 connections may cost, beside what requests may.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "HTTP/2")]
pub struct Http2Args {
    /// Whether connections that begin with the preface of HTTP/2 are served as such
    #[arg(long, value_enum, default_value_t = OnOff::On)]
    pub http2: OnOff,

    /// HTTP/2 connections per core; further ones are told so and closed. Each takes 8 KiB, and one for each request that waits
    #[arg(long, value_name = "N", value_parser = up_to(1 << 20), default_value_t = Http2Limits::default().connections_max)]
    pub http2_connections_max: usize,

    /// Streams of a connection that are open at once; further ones are refused
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=10_000), default_value_t = Http2Limits::default().streams_max)]
    pub http2_streams_max: u32,

    /// Bytes of a request's body that a client may send ahead
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1 << 24), default_value_t = Http2Limits::default().stream_window_bytes)]
    pub http2_stream_window_bytes: u32,

    /// The same for all streams of a connection together
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(65_535..=1 << 30), default_value_t = Http2Limits::default().connection_window_bytes)]
    pub http2_connection_window_bytes: u32,

    /// Table in which a client has header fields remembered, per connection
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(0..=65_536), default_value_t = Http2Limits::default().header_table_bytes)]
    pub http2_header_table_bytes: usize,

    /// Bodies and heads that come in pieces and are put together at once, per core; further streams are refused
    #[arg(long, value_name = "N", value_parser = up_to(1 << 20), default_value_t = Http2Limits::default().buffers_max)]
    pub http2_buffers_max: usize,

    /// Bytes of responses that are copied for a connection because its client has no window for them; further streams
    /// are refused
    #[arg(long, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(0..=1 << 30), default_value_t = Http2Limits::default().waiting_bytes_max)]
    pub http2_waiting_bytes_max: usize,

    /// CONTINUATION frames of one head; the connection ends beyond
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value_t = Http2Limits::default().continuations_max)]
    pub http2_continuations_max: u32,

    /// Streams that may be reset within 30 seconds, by either side; the connection ends beyond
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value_t = Http2Limits::default().resets_max)]
    pub http2_resets_max: u32,

    /// Frames within 30 seconds that bring nothing forward, as SETTINGS and PING; the connection ends beyond
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..), default_value_t = Http2Limits::default().control_frames_max)]
    pub http2_control_frames_max: u32,

    /// For a stream, to get the rest of its request, or to have at least 1024 bytes of its response taken
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Http2Limits::default().stream_ms)]
    pub http2_stream_timeout_ms: u32,

    /// For the next request on a connection, whatever else is sent on it
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = Http2Limits::default().idle_ms)]
    pub http2_idle_timeout_ms: u32,
}

/// Whether something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// Yes
    On,
    /// No
    Off,
}

/// A directory whose files are served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Files")]
pub struct FileArgs {
    /// Serve the files in this directory; see --directory-prefix
    #[arg(long, value_name = "DIR")]
    pub directory: Option<PathBuf>,

    /// Path below which the directory is served; / serves it at the root, beside the other routes
    #[arg(long, value_name = "PATH", default_value = "/static")]
    pub directory_prefix: String,

    /// File that is served for a directory itself; an empty name serves none
    #[arg(long, value_name = "NAME", default_value = "index.html")]
    pub directory_index: String,

    /// Files up to this size are kept in memory; larger ones are read from disk for each request
    #[arg(long, value_name = "N", value_parser = bytes(), default_value_t = DirectoryConfig::default().kept_file_bytes_max)]
    pub directory_kept_file_bytes_max: usize,

    /// Memory that each core may take for files
    #[arg(long, value_name = "N", value_parser = bytes(), default_value_t = DirectoryConfig::default().kept_bytes_max)]
    pub directory_kept_bytes_max: usize,
}

impl FileArgs {
    /// The directory, if one shall be served.
    ///
    /// # Errors
    ///
    /// If it cannot be.
    pub fn open(&self) -> Result<Option<Directory>, DirectoryError> {
        let config = DirectoryConfig {
            index: Some(self.directory_index.clone()).filter(|index| !index.is_empty()),
            kept_file_bytes_max: self.directory_kept_file_bytes_max,
            kept_bytes_max: self.directory_kept_bytes_max,
            ..DirectoryConfig::default()
        };
        let open = |path: &PathBuf| Directory::open(path, config);
        self.directory.as_ref().map(open).transpose()
    }
}

/// Limits of the event counts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Events (POST /event, GET /stats)")]
pub struct EventArgs {
    /// Different users that are counted, 24 bytes each; a new one beyond is answered with 507
    #[arg(long, visible_alias = "max-users", value_name = "N", value_parser = up_to(1 << 32), default_value_t = EventsConfig::new(1).users_max)]
    pub users_max: usize,

    /// Users that each core remembers by itself, to stay off what the cores share; 32 to 64 bytes each
    #[arg(long, value_name = "N", value_parser = up_to(1 << 32), default_value_t = EventsConfig::new(1).users_seen_max)]
    pub users_seen_max: usize,

    /// Longest userId, in bytes of UTF-8; 400 beyond
    #[arg(long, value_name = "N", value_parser = bytes(), default_value_t = EventsConfig::new(1).user_id_bytes_max)]
    pub user_id_bytes_max: usize,

    /// Let POST /reset forget all events, those of the whole fleet with --counts-through; doubles the memory for users
    #[arg(long)]
    pub allow_reset: bool,

    /// Go on with the counts in this file, and write them there at the end
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
}

/// Counting together with other servers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fleet (events of several servers together; docs/fleet.md)")]
pub struct FleetArgs {
    /// Publish event counts to this Redis or Valkey, and answer GET /stats?scope=fleet with those of all servers that do:
    /// redis://[USER:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, unix:///PATH[?pass=PASSWORD]. Doubles the memory for
    /// users
    #[arg(long, value_name = "URL")]
    pub counts_through: Option<String>,

    /// What the names of the fleet's keys begin with
    #[arg(long, value_name = "NAME", default_value = "barewire", value_parser = name)]
    pub counts_prefix: String,

    /// Name of this server in the fleet [default: the one that --state has, or the host's with random digits]
    #[arg(long, value_name = "NAME", requires = "counts_through", value_parser = name)]
    pub node: Option<String>,

    /// What GET /stats answers with where the request does not say ?scope=server or ?scope=fleet
    #[arg(long, value_enum, default_value_t = Scope::Server)]
    pub stats_scope: Scope,

    /// Whether to start although the engine does not answer; to serve all the same takes the --state of a server that
    /// has reached it once
    #[arg(long, value_enum, default_value_t = AtStart::Refuse)]
    pub counts_at_start: AtStart,

    /// Time between two publications; what a crash loses at most of the fleet's counts
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = 100)]
    pub counts_interval_ms: u32,

    /// Time between two readings of what all servers published
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = 100)]
    pub counts_read_interval_ms: u32,

    /// How long the engine may take for an answer
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = 1_000)]
    pub counts_timeout_ms: u32,

    /// Servers that have not published for so long are called silent
    #[arg(long, value_name = "MS", value_parser = ms(), default_value_t = 5_000)]
    pub counts_silent_ms: u32,

    /// Certificates (PEM) to which the engine's has to lead, with rediss://
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/ssl/certs/ca-certificates.crt"
    )]
    pub counts_ca: PathBuf,
}

/// Whose events are counted in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// This server's
    Server,
    /// Those of all servers
    Fleet,
}

/// What a server does whose engine does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AtStart {
    /// It does not start
    Refuse,
    /// It serves, and publishes later
    Serve,
}

impl FleetArgs {
    /// How to take part in a fleet, if that is wanted.
    pub fn config(&self) -> Option<FleetConfig> {
        let ms = |ms: u32| Duration::from_millis(ms.into());
        Some(FleetConfig {
            url: self.counts_through.clone()?,
            ca: self.counts_ca.clone(),
            prefix: self.counts_prefix.clone(),
            node: self.node.clone(),
            interval: ms(self.counts_interval_ms),
            read_interval: ms(self.counts_read_interval_ms),
            timeout: ms(self.counts_timeout_ms),
            silent: ms(self.counts_silent_ms),
            serve_without: self.counts_at_start == AtStart::Serve,
        })
    }
}

/// What the process keeps once it serves.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Least privilege")]
pub struct PrivilegeArgs {
    /// Become this user, with its groups, once everything is open [default: stay who started it]
    ///
    /// Capabilities are given up in any case, and no program can be started.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,

    /// What happens to a system call that no server needs once it has started
    #[arg(long, value_enum, default_value_t)]
    pub seccomp: Seccomp,
}

/// How the server is operated.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Operation")]
pub struct OperationArgs {
    /// Control socket for `barewire status`, `top` and `stop`, which only its owner and root may open;
    /// auto: PORT.sock in /run/barewire (root) or $XDG_RUNTIME_DIR/barewire
    #[arg(long, value_name = "auto|off|PATH", default_value = "auto")]
    pub control: String,

    /// Go on in place of the server at the control socket, with its listeners or interface, connections and counts; it
    /// serves on until everything here has started. Same --stack, addresses, --cores and queues (docs/fleet.md)
    #[arg(long)]
    pub take_over: bool,

    /// End once a server that was started in the background has taken over: for ExecReload= of a unit
    #[arg(long, requires = "take_over")]
    pub detach: bool,

    /// Answer GET /metrics, for Prometheus, at this address; a port alone: on the loopback interface
    #[arg(long, value_name = "[ADDR:]PORT")]
    pub admin_listen: Option<AdminAddress>,
}

impl ServeArgs {
    /// The stack that was asked for, or that follows from the rest.
    pub fn stack(&self) -> StackName {
        let implied = if self.place.interface.is_some() {
            StackName::Xdp
        } else {
            StackName::Epoll
        };
        self.place.stack.unwrap_or(implied)
    }

    /// Refuses options that contradict each other in ways that clap cannot see. What a file says and
    /// this stack does not need is left alone: the file may be for several.
    ///
    /// # Errors
    ///
    /// The first contradiction, as clap reports its own.
    pub fn check(&self, sources: &Sources, command: &mut Command) -> Result<(), clap::Error> {
        let place = &self.place;
        let missing = match self.stack() {
            StackName::Xdp if place.interface.is_none() => {
                Some("--stack xdp needs an interface to take over: add --interface IFACE")
            }
            _ if place.interface.is_none() && sources.is_given("address") => {
                Some("--address is one of an interface: add --interface IFACE")
            }
            _ if self.fleet.stats_scope == Scope::Fleet && self.fleet.counts_through.is_none() => {
                Some("--stats-scope fleet needs --counts-through")
            }
            _ if self.kernel.prefer_busy_poll && place.busy_poll_us.is_none() => {
                Some("--prefer-busy-poll needs --busy-poll-us")
            }
            _ if self.operation.take_over && self.operation.control == "off" => Some(
                "--take-over needs the control socket of the server before: leave out --control off",
            ),
            _ => None,
        };
        if let Some(missing) = missing {
            return Err(command.error(ErrorKind::MissingRequiredArgument, missing));
        }
        let (certificates, keys) = (&self.tls.tls_certificate, &self.tls.tls_key);
        if certificates.len() != keys.len() {
            let unpaired = format!(
                "each --tls-certificate needs its --tls-key, in the same order: there are {} and {}",
                certificates.len(),
                keys.len()
            );
            return Err(command.error(ErrorKind::WrongNumberOfValues, unpaired));
        }
        if self.tls.is_wanted() && self.listens_twice() {
            let same = format!(
                "TLS and plain text cannot share {}: choose another --tls-port or --tls-listen",
                match self.stack() {
                    StackName::Xdp => format!("port {}", self.place.port),
                    StackName::Epoll | StackName::Uring => self.listen().to_string(),
                }
            );
            return Err(command.error(ErrorKind::ArgumentConflict, same));
        }
        if let Some(address) = self.teleport.teleport_listen
            && address.port() != 0
            && (address == self.listen() || self.tls.is_wanted() && address == self.tls_listen())
        {
            let same = format!(
                "teleport and HTTP cannot share {address}: choose another --teleport-listen"
            );
            return Err(command.error(ErrorKind::ArgumentConflict, same));
        }
        if let Some(narrow) = self.narrow_buffer() {
            return Err(command.error(ErrorKind::ValueValidation, narrow));
        }
        let given = |key: &String| sources.is_given(key);
        if let Some(option) = self.foreign(command).into_iter().find(given) {
            let stack = self
                .stack()
                .to_possible_value()
                .map(|value| value.get_name().to_owned())
                .unwrap_or_default();
            let conflict = format!(
                "--{option} has no meaning for the stack {stack}: leave it out, or choose another --stack"
            );
            return Err(command.error(ErrorKind::ArgumentConflict, conflict));
        }
        Ok(())
    }

    /// What one request takes of a receive buffer, as far as it was configured.
    fn request_bytes(&self) -> usize {
        let request = &self.request;
        match (request.head_bytes_max, request.body_bytes_max) {
            (head, Some(body)) => body + head.unwrap_or(HEAD_BESIDE_BODY_BYTES),
            (head, None) => head.unwrap_or(0),
        }
    }

    /// The receive buffer of a connection, where the stack's own is `default`.
    pub fn receive_buffer_bytes(&self, default: usize) -> usize {
        let given = self.connection.receive_buffer_bytes;
        given.unwrap_or(default.max(self.request_bytes()))
    }

    /// Why no receive buffer holds what requests may have, if none does.
    fn narrow_buffer(&self) -> Option<String> {
        const MAX: usize = StackConfig::RECEIVE_BUFFER_BYTES_MAX;

        let needed = self.request_bytes();
        let asked = match (self.request.head_bytes_max, self.request.body_bytes_max) {
            (Some(head), Some(body)) => {
                format!("--head-bytes-max {head} and --body-bytes-max {body}")
            }
            (None, Some(body)) => {
                format!("--body-bytes-max {body}, and a head of {HEAD_BESIDE_BODY_BYTES} with it,")
            }
            (head, None) => format!("--head-bytes-max {}", head?),
        };
        match self.connection.receive_buffer_bytes {
            Some(given) if given < needed => Some(format!(
                "--receive-buffer-bytes {given} does not hold {asked} at once: make it {needed}, or leave it out"
            )),
            _ if self.stack() == StackName::Xdp && needed > MAX => Some(format!(
                "{asked} take {needed} bytes of a receive buffer, of which the stack xdp gives a connection at most {MAX}: \
                 lower them"
            )),
            _ => None,
        }
    }

    /// The settings that have no meaning for the stack.
    pub fn foreign(&self, command: &Command) -> Vec<String> {
        let groups: &[&str] = match self.stack() {
            StackName::Xdp => &["KernelArgs", "UringArgs", "TeleportArgs"],
            StackName::Epoll => &["LinkArgs", "TcpArgs", "UringArgs"],
            StackName::Uring => &["LinkArgs", "TcpArgs"],
        };
        let groups = command
            .get_groups()
            .filter(|group| groups.contains(&group.get_id().as_str()));
        let ids: Vec<_> = groups.flat_map(ArgGroup::get_args).collect();
        let of_groups = command
            .get_arguments()
            .filter(|arg| ids.contains(&arg.get_id()));
        let mut foreign: Vec<_> = of_groups
            .filter_map(|arg| arg.get_long().map(str::to_owned))
            .collect();
        match self.stack() {
            StackName::Xdp => foreign.extend(["listen".into(), "tls-listen".into()]),
            StackName::Epoll | StackName::Uring => {
                foreign.extend(["interface".into(), "address".into()]);
            }
        }
        foreign
    }

    /// Where a kernel stack listens.
    pub fn listen(&self) -> SocketAddr {
        self.place
            .listen
            .unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.place.port))
    }

    /// Where a kernel stack listens for TLS.
    pub fn tls_listen(&self) -> SocketAddr {
        let same_address = SocketAddr::new(self.listen().ip(), self.tls.tls_port);
        self.tls.tls_listen.unwrap_or(same_address)
    }

    fn listens_twice(&self) -> bool {
        match self.stack() {
            StackName::Xdp => self.place.port == self.tls.tls_port,
            StackName::Epoll | StackName::Uring => {
                self.listen() == self.tls_listen() && self.listen().port() != 0
            }
        }
    }

    /// The deadlines of connections, for every stack.
    pub fn deadlines(&self) -> Deadlines {
        let args = &self.deadline;
        Deadlines {
            half_open_ms: args.half_open_timeout_ms,
            handshake_ms: args.tls_handshake_timeout_ms,
            idle_ms: args.idle_timeout_ms,
            head_ms: args.head_timeout_ms,
            body_ms: args.body_timeout_ms,
            send_ms: args.send_timeout_ms,
            send_bytes_min: args.send_bytes_min,
            close_ms: args.close_timeout_ms,
            user_timeout_ms: args.user_timeout_ms,
        }
    }

    /// How long connections may take to end after a signal.
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.deadline.drain_timeout_ms.into())
    }

    /// What a request may cost.
    pub fn limits(&self) -> Limits {
        let (args, defaults) = (&self.request, Limits::default());
        Limits {
            head_bytes_max: args.head_bytes_max.unwrap_or(defaults.head_bytes_max),
            target_bytes_max: args.target_bytes_max,
            headers_max: args.headers_max,
            body_bytes_max: args.body_bytes_max.unwrap_or(defaults.body_bytes_max),
            ..defaults
        }
    }

    /// The seats of all cores together; `None`: there may be any number of connections.
    pub fn seats(&self) -> Option<Arc<Seats>> {
        self.connection.connections_total.map(Seats::new)
    }

    /// What becomes of connections that have no seat.
    pub fn surplus(&self) -> Surplus {
        match self.connection.connections_surplus {
            SurplusName::Answer => Surplus::Answer,
            SurplusName::Drop => Surplus::Drop,
        }
    }

    /// What HTTP/2 connections may cost; `None`: there are none.
    pub fn http2(&self) -> Option<Http2Limits> {
        let args = &self.http2;
        (args.http2 == OnOff::On).then_some(Http2Limits {
            connections_max: args.http2_connections_max,
            streams_max: args.http2_streams_max,
            stream_window_bytes: args.http2_stream_window_bytes,
            waiting_bytes_max: args.http2_waiting_bytes_max,
            connection_window_bytes: args.http2_connection_window_bytes,
            header_table_bytes: args.http2_header_table_bytes,
            continuations_max: args.http2_continuations_max,
            buffers_max: args.http2_buffers_max,
            resets_max: args.http2_resets_max,
            control_frames_max: args.http2_control_frames_max,
            stream_ms: args.http2_stream_timeout_ms,
            idle_ms: args.http2_idle_timeout_ms,
        })
    }

    /// What the events of `cores` may take.
    pub fn events(&self, cores: usize) -> EventsConfig {
        let args = &self.event;
        EventsConfig {
            cores,
            users_max: args.users_max,
            users_seen_max: args.users_seen_max,
            user_id_bytes_max: args.user_id_bytes_max,
            reset_allowed: args.allow_reset,
            newcomers_max: self
                .fleet
                .counts_through
                .as_ref()
                .map_or(0, |_| NEWCOMERS_MAX),
            relays: self.operation.take_over,
        }
    }
}

/// An address is the prefix of itself.
fn prefix(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(IpAddr::into);
    text.parse().or_else(|_| address()).map_err(|_| {
        "has to be an address or a prefix, as in 192.0.2.0/24 or 2001:db8::/32".to_owned()
    })
}

fn name(text: &str) -> Result<String, String> {
    match is_node_name(text) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "has to be at most {NODE_BYTES_MAX} letters, digits, '.', '_' and '-'"
        )),
    }
}

fn power_of_two(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(number) if number.is_power_of_two() => Ok(number),
        _ => Err("has to be a power of two, at most 32768".into()),
    }
}

fn ms() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..)
}

fn mtu() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(StackConfig::MTU_MIN as u64..=StackConfig::MTU_MAX as u64)
}

fn bytes() -> RangedU64ValueParser<usize> {
    at_least(1)
}

fn at_least(min: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(min as u64..=1 << 30)
}

fn up_to(max: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=max as u64)
}
