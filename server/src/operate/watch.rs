//! What goes wrong, in the log, however often it does: one line in an interval.
//!
//! No core logs because a peer misbehaves: that would be a way to keep it busy. The cores count, and
//! somebody else says now and then what was counted.

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
            before = after;
        }
    };
    thread::Builder::new().name("watch".into()).spawn(report)?;
    Ok(())
}

/// What has grown, as `part.name=times`.
fn grown(before: &[Drops], after: &[Drops]) -> Option<String> {
    let times = |drop: &Drops| {
        let mut known = before.iter();
        let known = known.find(|known| known.part == drop.part && known.name == drop.name);
        drop.count
            .saturating_sub(known.map_or(0, |known| known.count))
    };
    let grown: Vec<_> = after
        .iter()
        .filter(|drop| times(drop) > 0)
        .map(|drop| format!("{}.{}={}", drop.part, drop.name, times(drop)))
        .collect();
    (!grown.is_empty()).then(|| grown.join(" "))
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
}
