//! The interface: whether its traffic can be taken, and how well.

use barewire_xdp::interface::{Interface, Settings, XdpFeatures, XdpState};
use barewire_xdp::redirect::{
    Mode, ModeChoice, ONE_BUFFER_MTU_MAX, Redirect, RedirectError, missing_capabilities,
};
use barewire_xdp::xsk::{Outcome, XskError, XskLink, ZeroCopy};

use super::finding::Report;
use crate::site::Site;
use barewire_http::Responder;
use barewire_xdp::{Prepared, XdpConfig, XdpError};

/// A configuration that fits its interface.
pub(super) struct Bound {
    pub prepared: Prepared,
    /// What opening a queue yields; `None` if that could not be tried.
    pub queue: Option<Outcome>,
}

pub(super) fn run(config: &XdpConfig, report: &mut Report) -> Option<Bound> {
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

    privileges(&prepared, report);
    let state = interface.xdp().unwrap_or(XdpState {
        program_id: None,
        features: None,
    });
    let mode = mode(config.mode, interface, &state, report);
    mtu(&prepared, mode, report);
    let queue = match state.program_id {
        // The queues are somebody's: to try one would be to disturb.
        Some(_) => None,
        None => try_queue(config, &prepared, mode, report),
    };
    if let Ok(settings) = interface.settings() {
        rings(interface, &settings, report);
        offloads(interface, mode, &settings, report);
        spread(interface, &settings, report);
    }
    Some(Bound { prepared, queue })
}

/// Which part of the configuration an error is about.
fn part_of(error: &XdpError) -> &'static str {
    match error {
        XdpError::Interface(_) => "interface",
        XdpError::NoAddress(_) | XdpError::Local(_) => "addresses",
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

/// Loads the program, as `serve` does, and lets go of it.
fn privileges(prepared: &Prepared, report: &mut Report) {
    if missing_capabilities().is_empty() {
        report.ok("capabilities", "all that the bypass needs");
    }
    match Redirect::load(&prepared.targets, prepared.interface.rx_queues) {
        Ok(_) => report.ok("XDP program", "the kernel accepts it"),
        Err(error @ RedirectError::Privileges { .. }) => report.error("capabilities", error),
        Err(error) => report.error("XDP program", error),
    }
}

/// Where the program would run, and whether the interface is free for it.
fn mode(choice: ModeChoice, interface: &Interface, state: &XdpState, report: &mut Report) -> Mode {
    match state.program_id {
        None => report.ok("other programs", "none is attached"),
        Some(_) => report.error(
            "other programs",
            RedirectError::Occupied {
                interface: interface.name.clone(),
            },
        ),
    }
    let has_native = state.features.map(
        |XdpFeatures {
             native, redirect, ..
         }| native && redirect,
    );
    let driver = if interface.driver.is_empty() {
        "none"
    } else {
        &interface.driver
    };
    match (choice, has_native) {
        (ModeChoice::Generic, _) => {
            report.ok("mode", "generic, as asked");
            Mode::Generic
        }
        (ModeChoice::Native, Some(false)) => {
            report.error(
                "mode",
                RedirectError::NoNative {
                    interface: interface.name.clone(),
                    driver: interface.driver.clone(),
                },
            );
            Mode::Native
        }
        (_, Some(true)) => {
            report.ok("mode", format!("native: driver {driver} runs XDP programs"));
            Mode::Native
        }
        (_, None) => {
            report.warn(
                "mode",
                "this kernel does not say what the driver can (Linux 6.3 does)",
                "nothing; serve says what it got",
                None,
            );
            Mode::Native
        }
        (ModeChoice::Auto, Some(false)) => {
            report.warn(
                "mode",
                format!("generic: driver {driver} does not run XDP programs"),
                "a kernel packet buffer for each frame; several times slower than native mode",
                None,
            );
            Mode::Generic
        }
    }
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
