//! What goes wrong, in the log, however often it does: one line in an interval.
//!
//! No core logs what a peer does wrong: a peer could keep it busy with that. The cores count, and
//! another thread logs from time to time what was counted.

use std::io;
use std::thread;
use std::time::Duration;

use super::Instruments;
use super::status::Drops;

/// Logs in each `interval` what was dropped or refused in it, if anything was, from a thread that lives
/// as long as the process.
///
/// # Errors
///
/// If there are no more threads.
pub fn watch(instruments: Instruments, interval: Duration) -> io::Result<()> {
    let mut before = instruments.drops();
    let report = move || {
        loop {
            thread::sleep(interval);
            let after = instruments.drops();
            if let Some(line) = grown(&before, &after) {
                tracing::info!("dropped or refused in {} s: {line}", interval.as_secs());
            }
            for alarm in alarms(&before, &after) {
                tracing::error!("{alarm}");
            }
            before = after;
        }
    };
    thread::Builder::new().name("watch".into()).spawn(report)?;
    Ok(())
}

/// What has grown, as `part.name=times`.
fn grown(before: &[Drops], after: &[Drops]) -> Option<String> {
    let grown: Vec<_> = after
        .iter()
        .filter(|drop| times(before, drop) > 0)
        .map(|drop| format!("{}.{}={}", drop.part, drop.name, times(before, drop)))
        .collect();
    (!grown.is_empty()).then(|| grown.join(" "))
}

/// What has grown although it does not on a healthy interface, with its cure.
fn alarms(before: &[Drops], after: &[Drops]) -> Vec<String> {
    let alarm = |drop: &Drops| {
        let times = times(before, drop);
        let cure = ALARMS.iter().find(|(name, _)| *name == drop.name)?.1;
        (times > 0).then(|| format!("{times} times {}: {cure}", drop.name))
    };
    after.iter().filter_map(alarm).collect()
}

/// Counters that tell of the interface, not of a peer, and what to do about them.
const ALARMS: [(&str, &str); 2] = [
    (
        "discard_truncated",
        "frames arrive shorter than their IP headers say. Unless somebody forges them, the driver cuts frames: \
         serve with --zero-copy off, and with an MTU of at most 1500",
    ),
    (
        "passed_no_socket",
        "frames for this server arrive on receive queues that it does not serve, and are refused. Restart it after \
         `ethtool -L`, or keep traffic off those queues: `ethtool -X IFACE equal N` with N as the number of served queues",
    ),
];

/// How often `drop` has happened since `before`.
fn times(before: &[Drops], drop: &Drops) -> u64 {
    let mut known = before.iter();
    let known = known.find(|known| known.part == drop.part && known.name == drop.name);
    drop.count
        .saturating_sub(known.map_or(0, |known| known.count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(counts: &[(&str, u64)]) -> Vec<Drops> {
        let drop = |&(name, count): &(&str, u64)| Drops {
            part: "tcp".into(),
            name: name.into(),
            count,
            help: String::new(),
        };
        counts.iter().map(drop).collect()
    }

    #[test]
    fn only_what_has_grown_is_said() {
        let before = drops(&[("a", 5), ("b", 1)]);
        assert_eq!(grown(&before, &before), None);
        let after = drops(&[("a", 5), ("b", 4), ("c", 2)]);
        assert_eq!(grown(&before, &after).unwrap(), "tcp.b=3 tcp.c=2");
    }
    #[test]
    fn an_interface_that_loses_frames_is_an_alarm() {
        let before = drops(&[("discard_truncated", 5), ("a", 1)]);
        assert!(alarms(&before, &before).is_empty());
        let after = drops(&[("discard_truncated", 7), ("a", 2), ("passed_no_socket", 1)]);
        let alarms = alarms(&before, &after);
        assert_eq!(alarms.len(), 2, "{alarms:?}");
        assert!(alarms[0].starts_with("2 times discard_truncated: "));
    }
}
