//! From arguments to the configuration of the bypass.

use barewire_service::service::Service;
use barewire_tcp::config::{ConfigError, StackConfig};
use barewire_xdp::redirect::{ModeChoice, Sources};
use barewire_xdp::worker::Wait;
use barewire_xdp::xsk::{BusyPoll, XskConfig, ZeroCopy};

use super::args::{ChecksumsName, ServeArgs, WaitName, ZeroCopyName};
use crate::cli::mode::ModeName;
use crate::site::Site;
use barewire_http::Responder;
use barewire_xdp::{Checksums, XdpConfig};

/// The stack on `interface` as `args` ask for it.
///
/// # Errors
///
/// If a limit is out of its bounds.
pub fn stack(args: &ServeArgs, interface: &str) -> Result<XdpConfig, ConfigError> {
    let defaults = XdpConfig::new(interface, args.place.port);
    let link = &args.link;
    let mut config = XdpConfig {
        addresses: args.place.address.clone(),
        queues: link
            .queues
            .numbers()
            .iter()
            .map(|&queue| queue as u32)
            .collect(),
        spare_queues: link.spare_queues,
        cores: args.place.cores.numbers().to_vec(),
        mode: match link.mode {
            ModeName::Auto => ModeChoice::Auto,
            ModeName::Native => ModeChoice::Native,
            ModeName::Generic => ModeChoice::Generic,
        },
        sources: Sources {
            allow: link.allow.clone(),
            deny: link.deny.clone(),
        },
        steals_ports: link.steal_port,
        checksums: match args.tcp.checksums {
            ChecksumsName::Auto => Checksums::Auto,
            ChecksumsName::Verify => Checksums::Verify,
            ChecksumsName::Trust => Checksums::Trust,
        },
        mtu: args.tcp.mtu,
        xsk: XskConfig {
            rx_ring_frames: link.rx_ring_frames,
            tx_ring_frames: link.tx_ring_frames,
            zero_copy: match link.zero_copy {
                ZeroCopyName::Auto => ZeroCopy::Auto,
                ZeroCopyName::On => ZeroCopy::On,
                ZeroCopyName::Off => ZeroCopy::Off,
            },
            busy_poll: busy_poll(args),
        },
        wait: match link.wait {
            WaitName::Spin => Wait::Spin,
            WaitName::Adaptive => Wait::Adaptive {
                spin_us: link.spin_us,
            },
        },
        // The supervisor keeps the deadline, for all stacks alike.
        drain_ms: u32::MAX,
        stack: limits(args, defaults.stack.clone()),
        #[cfg(feature = "faults")]
        faults: link.test_faults.map(|wire| (wire.faults, wire.seed)),
        ..defaults
    };
    if args.tls.is_wanted() {
        config.ports.push(args.tls.tls_port);
    }
    config.stack.validate(Responder::<Site>::REPLY_BYTES_MIN)?;
    Ok(config)
}

fn limits(args: &ServeArgs, defaults: StackConfig) -> StackConfig {
    let (tcp, connection) = (&args.tcp, &args.connection);
    let connections = connection.connections.unwrap_or(defaults.connections);
    StackConfig {
        connections,
        half_open: tcp
            .half_open_max
            .unwrap_or(defaults.half_open.min(connections / 2)),
        sockets: tcp.sockets,
        when_full: tcp.when_full,
        source_connections: tcp.source_connections_max,
        source_prefix_ipv4_bits: tcp.source_prefix_ipv4_bits,
        source_prefix_ipv6_bits: tcp.source_prefix_ipv6_bits,
        mss_min: tcp.mss_min,
        time_wait: tcp.time_wait_max,
        time_wait_ms: tcp.time_wait_ms,
        receive_buffer_bytes: args.receive_buffer_bytes(defaults.receive_buffer_bytes),
        send_buffer_bytes: connection
            .send_buffer_bytes
            .unwrap_or(defaults.send_buffer_bytes),
        send_queue_bytes_max: tcp.send_queue_bytes_max,
        receive_window_bytes_max: tcp.receive_window_bytes_max,
        deadlines: args.deadlines(),
        rto_max_ms: tcp.rto_max_ms,
        rto_min_ms: tcp.rto_min_ms,
        timestamps: tcp.timestamps,
        direct_path: tcp.direct_path,
        resets_per_second: tcp.resets_per_second,
        challenge_acks_per_second: tcp.challenge_acks_per_second,
        time_wait_acks_per_second: tcp.time_wait_acks_per_second,
        ..defaults
    }
}

/// Either option asks for it; the other one then has its default.
fn busy_poll(args: &ServeArgs) -> Option<BusyPoll> {
    let (timeout_us, budget_frames) = (args.place.busy_poll_us, args.link.busy_poll_budget_frames);
    let defaults = BusyPoll::default();
    (timeout_us.is_some() || budget_frames.is_some()).then_some(BusyPoll {
        timeout_us: timeout_us.unwrap_or(defaults.timeout_us),
        budget_frames: budget_frames.unwrap_or(defaults.budget_frames),
    })
}
