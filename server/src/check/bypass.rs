//! The interface: whether its traffic can be taken, and how well.

use barewire_tcp::packet::ChecksumPolicy;
use barewire_xdp::interface::{Interface, Settings};
use barewire_xdp::redirect::{
    Mode, ModeChoice, ONE_BUFFER_MTU_MAX, Redirect, RedirectError, missing_capabilities,
};
use barewire_xdp::xsk::{Outcome, XskError, XskLink, ZeroCopy};

use super::finding::Report;
use crate::site::Site;
use barewire_http::Responder;
use barewire_xdp::{Checksums, MERGED_BY_SENDERS, Prepared, Taken, XdpConfig, XdpError};

/// A configuration that fits its interface.
pub(super) struct Bound {
    pub prepared: Prepared,
    /// What opening a queue yields; `None` if that could not be tried.
    pub queue: Option<Outcome>,
}

pub(super) fn run(config: &XdpConfig, attaches: bool, report: &mut Report) -> Option<Bound> {
    let prepared = match config.prepare::<Responder<Site>>() {
        Ok(prepared) => prepared,
        Err(error) => {
            report.error(part_of(&error), error);
            return None;
        }
    };
    let interface = &prepared.interface;
    report.ok("interface", interface);
    addresses(&prepared, report);
    queues(config, &prepared, report);
    if missing_capabilities().is_empty() {
        report.ok("capabilities", "all that the bypass needs");
    }
    // Kept until the queue was tried: in which mode it is bound depends on it, and some drivers set themselves up anew.
    let taken = match attaches {
        true => Some(take(config, &prepared, report)),
        false => None,
    };
    let mode = match &taken {
        Some(taken) => taken.as_ref().map(|taken| taken.mode),
        None => foretell(config, &prepared, report),
    };
    let queue = mode.and_then(|mode| {
        mtu(&prepared, mode, report);
        try_queue(config, &prepared, mode, report)
    });
    drop(taken);
    checksums(config, &prepared, report);
    if let (Some(mode), Ok(settings)) = (mode, interface.settings()) {
        rings(interface, &settings, report);
        offloads(interface, mode, &settings, report);
        spread(interface, &settings, report);
    }
    Some(Bound { prepared, queue })
}

/// Which part of the configuration an error is about.
fn part_of(error: &XdpError) -> &'static str {
    match error {
        XdpError::Interface(_) | XdpError::Loopback(_) | XdpError::NotEthernet { .. } => {
            "interface"
        }
        XdpError::NoAddress { .. } | XdpError::Local(_) => "addresses",
        XdpError::Redirect(error) => match error {
            RedirectError::Privileges { .. } | RedirectError::PortPrivileged { .. } => {
                "capabilities"
            }
            RedirectError::Occupied { .. } => "other programs",
            RedirectError::PortInUse { .. } | RedirectError::Reserve { .. } => "port",
            RedirectError::TooManyAddresses { .. } => "addresses",
            RedirectError::NoNative { .. }
            | RedirectError::FewReceiveQueues { .. }
            | RedirectError::NoQueuesLeft { .. }
            | RedirectError::MtuTooLarge { .. }
            | RedirectError::Attach { .. } => "mode",
            _ => "XDP program",
        },
        XdpError::AddedQueues { .. } => "queues and cores",
        XdpError::Plan(_) | XdpError::Pin(_) => "queues and cores",
        XdpError::VlanTags { .. } => "offloads",
        _ => "limits",
    }
}

fn addresses(prepared: &Prepared, report: &mut Report) {
    let addresses: Vec<_> = prepared.addresses.iter().map(ToString::to_string).collect();
    report.ok("addresses", addresses.join(", "));
}

fn queues(config: &XdpConfig, prepared: &Prepared, report: &mut Report) {
    let (plan, interface) = (&prepared.plan, &prepared.interface);
    let shares = plan.cores.iter().map(|core| {
        let queues: Vec<_> = core.queues.iter().map(u32::to_string).collect();
        format!("CPU {} serves {}", core.cpu, queues.join(", "))
    });
    report.ok("queues and cores", shares.collect::<Vec<_>>().join("; "));
    for advice in plan.advice(interface, &config.ports) {
        report.warn("queues and cores", advice, "connections or a core", None);
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    if interface.driver == "virtio_net"
        && interface.rx_queues as usize + cpus <= interface.rx_queues_max as usize
    {
        report.warn(
            "queues and cores",
            "the driver adds queues that cannot serve when the XDP program is attached, unless all are in use",
            "the start",
            format!(
                "ethtool -L {} combined {}",
                interface.name, interface.rx_queues_max
            ),
        );
    }
    if plan.cores.iter().any(|core| core.queues.len() > 1) {
        report.warn(
            "queues and cores",
            format!(
                "{} queues for {} cores",
                interface.rx_queues,
                plan.cores.len()
            ),
            "a look at each queue in every turn of a core",
            format!(
                "ethtool -L {} combined {}",
                interface.name,
                plan.cores.len()
            ),
        );
    }
}

/// Takes the interface as `serve` does.
fn take(config: &XdpConfig, prepared: &Prepared, report: &mut Report) -> Option<Taken> {
    let interface = &prepared.interface;
    let taken = match config.take(prepared) {
        Ok(taken) => taken,
        Err(error) => {
            report.error(part_of(&error), error);
            return None;
        }
    };
    report.ok(
        "XDP program",
        "the kernel accepts it, and attaches it for a moment",
    );
    let port = config.ports.first().copied().unwrap_or_default();
    match &taken.stolen[..] {
        [] => report.ok("port", format!("{port} is free")),
        stolen => {
            for (address, holder) in stolen {
                let found = format!("{address} is served by {holder}");
                let costs = "the clients that it has at this interface";
                report.warn("port", found, costs, None);
            }
        }
    }
    let driver = driver(interface);
    match (&taken.not_native, taken.mode) {
        (Some(reason), _) => report.warn(
            "mode",
            format!("generic, as native mode is refused: {reason}"),
            GENERIC_COSTS,
            None,
        ),
        (None, Mode::Native) => {
            report.ok("mode", format!("native: driver {driver} runs XDP programs"));
        }
        (None, Mode::Generic) => report.ok("mode", "generic, as asked"),
    }
    Some(taken)
}

const GENERIC_COSTS: &str =
    "a kernel packet buffer for each frame; several times slower than native mode";

fn driver(interface: &Interface) -> &str {
    match interface.driver.is_empty() {
        true => "none",
        false => &interface.driver,
    }
}

/// Where the program would run, as far as that is seen without attaching it; `None` if it would not.
fn foretell(config: &XdpConfig, prepared: &Prepared, report: &mut Report) -> Option<Mode> {
    let interface = &prepared.interface;
    match Redirect::load(&prepared.targets, interface.rx_queues) {
        Ok(_) => report.ok("XDP program", "the kernel accepts it"),
        Err(error) => {
            let error = error.into();
            report.error(part_of(&error), error);
            return None;
        }
    }
    let state = interface.xdp().ok();
    if state.is_some_and(|state| state.program_id.is_some()) {
        let interface = interface.name.clone();
        report.error("other programs", RedirectError::Occupied { interface });
        return None;
    }
    let features = state.and_then(|state| state.features);
    let has_native = features.map(|features| features.native && features.redirect);
    let driver = driver(interface);
    match (config.mode, has_native) {
        (ModeChoice::Generic, _) => {
            report.ok("mode", "generic, as asked");
            Some(Mode::Generic)
        }
        (ModeChoice::Native, Some(false)) => {
            let (interface, driver) = (interface.name.clone(), interface.driver.clone());
            report.error("mode", RedirectError::NoNative { interface, driver });
            None
        }
        (_, Some(true)) => {
            report.ok("mode", format!("native: driver {driver} runs XDP programs"));
            Some(Mode::Native)
        }
        (_, None) => {
            report.warn(
                "mode",
                "this kernel does not say what the driver can (Linux 6.3 does)",
                "nothing; serve says what it got",
                None,
            );
            Some(Mode::Native)
        }
        (ModeChoice::Auto, Some(false)) => {
            let found = format!("generic: driver {driver} does not run XDP programs");
            report.warn("mode", found, GENERIC_COSTS, None);
            Some(Mode::Generic)
        }
    }
}

/// Senders on this machine leave checksums to devices that do not complete them.
fn checksums(config: &XdpConfig, prepared: &Prepared, report: &mut Report) {
    let found = match (prepared.stack.checksums, config.checksums) {
        (ChecksumPolicy::VerifyOrPartial, _) => {
            "verified, but where senders on this machine leave them to their devices"
        }
        (ChecksumPolicy::Trust, _) => "not verified, as asked",
        (ChecksumPolicy::Verify, Checksums::Verify) if prepared.interface.is_virtual() => {
            let found = "those that senders on this machine leave to their devices are refused";
            let costs = "every connection of a container or guest beside this one, unless its transmit checksums are off";
            let mend = "serve with --checksums auto".to_owned();
            return report.warn("checksums", found, costs, mend);
        }
        (ChecksumPolicy::Verify, _) => "verified",
    };
    report.ok("checksums", found);
}

/// Binds the first queue for a moment, exactly as `serve` does.
fn try_queue(
    config: &XdpConfig,
    prepared: &Prepared,
    mode: Mode,
    report: &mut Report,
) -> Option<Outcome> {
    let interface = &prepared.interface;
    let &queue = prepared.plan.cores.first()?.queues.first()?;
    let outcome = match XskLink::open(interface, queue, mode, &config.xsk) {
        Ok(link) => link.outcome(),
        Err(error) => {
            let check = match error {
                XskError::NoZeroCopy { .. } => "zero-copy",
                _ => "queue",
            };
            report.error(check, error);
            return None;
        }
    };
    match (config.xsk.zero_copy, mode) {
        _ if outcome.zero_copy => report.ok("zero-copy", format!("queue {queue} has it")),
        (ZeroCopy::Off, _) => report.ok("zero-copy", "copy, as asked"),
        (_, mode) => {
            let found = match mode {
                Mode::Generic => "copy: generic mode has no zero-copy".to_owned(),
                Mode::Native => format!(
                    "queue {queue} has none: driver {}{}",
                    interface.driver,
                    zero_copy_conditions(interface)
                ),
            };
            let costs = "a copy of each frame by the kernel";
            report.warn("zero-copy", found, costs, None);
        }
    }
    Some(outcome)
}

/// What a driver that has zero-copy asks for.
fn zero_copy_conditions(interface: &Interface) -> &'static str {
    match interface.driver.as_str() {
        "virtio_net" => {
            " has it since Linux 6.13, if the host offers VIRTIO_F_ACCESS_PLATFORM (QEMU: iommu_platform=on,disable-legacy=on)"
        }
        "igb" => " has it since Linux 6.14",
        _ => "",
    }
}

/// Frames are half pages or pages; in native mode, drivers that do not spread a frame over several buffers refuse more
/// than one holds.
fn mtu(prepared: &Prepared, mode: Mode, report: &mut Report) {
    /// What fits into half a page, beside the headroom.
    const HALF_PAGE_MTU_MAX: usize = 1774;
    let (mtu, name) = (prepared.interface.mtu, &prepared.interface.name);
    let mend = format!("ip link set dev {name} mtu 1500");
    if mode == Mode::Native && mtu > ONE_BUFFER_MTU_MAX {
        let found = format!("{mtu}: packets of up to {} bytes", prepared.stack.mtu);
        let costs =
            "zero-copy, and native mode, where the driver does not spread packets over buffers";
        report.warn("MTU", found, costs, mend);
    } else if mtu > HALF_PAGE_MTU_MAX {
        let found = format!("{mtu} does not fit into frames of half a page");
        report.warn("MTU", found, "twice the memory for frames", mend);
    } else {
        report.ok("MTU", mtu);
    }
}

fn rings(interface: &Interface, settings: &Settings, report: &mut Report) {
    let Some(rings) = settings.rings else {
        return report.ok("rings", "the driver has none to set");
    };
    let found = format!(
        "{} of {} to receive, {} of {} to send",
        rings.rx, rings.rx_max, rings.tx, rings.tx_max
    );
    if rings.rx >= rings.rx_max.min(1024) && rings.tx >= rings.tx_max.min(1024) {
        return report.ok("rings", found);
    }
    let (rx, tx) = (rings.rx_max.min(4096), rings.tx_max.min(4096));
    report.warn(
        "rings",
        found,
        "frames, while a core is elsewhere for a moment",
        format!("ethtool -G {} rx {rx} tx {tx}", interface.name),
    );
}

fn offloads(interface: &Interface, mode: Mode, settings: &Settings, report: &mut Report) {
    let name = &interface.name;
    if settings.lro == Some(true) {
        report.warn(
            "offloads",
            "LRO is on",
            "most drivers refuse native mode then; what is merged does not fit into a frame",
            format!("ethtool -K {name} lro off"),
        );
    }
    if settings.gro == Some(true) && mode == Mode::Generic {
        report.warn(
            "offloads",
            "GRO is on in generic mode",
            "what is merged does not fit into a frame and is lost",
            interface
                .receivers()
                .iter()
                .map(|receiver| format!("ethtool -K {receiver} gro off"))
                .collect::<Vec<_>>()
                .join("; "),
        );
    } else if settings.lro != Some(true) {
        report.ok("offloads", "none that hurts");
    }
    if mode == Mode::Generic && interface.is_virtual() {
        let costs = "a retransmission timeout for each piece of an upload";
        report.warn("offloads of others", MERGED_BY_SENDERS, costs, None);
    }
}

fn spread(interface: &Interface, settings: &Settings, report: &mut Report) {
    let Some(table) = &settings.hashed_to else {
        return report.ok("RSS", "the driver does not tell how it spreads flows");
    };
    let share = |queue| table.iter().filter(|&&entry| entry == queue).count();
    let shares: Vec<_> = (0..interface.rx_queues).map(share).collect();
    let (least, most) = (shares.iter().min(), shares.iter().max());
    if let (Some(&least), Some(&most)) = (least, most)
        && most - least > 1
    {
        return report.warn(
            "RSS",
            format!(
                "queues get between {least} and {most} of {} parts of the flows",
                table.len()
            ),
            "cores that wait while others are full",
            format!(
                "ethtool -X {} equal {}",
                interface.name, interface.rx_queues
            ),
        );
    }
    report.ok(
        "RSS",
        format!(
            "flows are spread evenly over {} queues",
            interface.rx_queues
        ),
    );
}
