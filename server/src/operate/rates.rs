//! What happened per second between two readings of the same server.

use super::status::{CoreRates, Rates, Status};

impl Rates {
    /// What happened from `before` to `after`; `None` if they are not of the same server, or of the
    /// same moment.
    pub fn between(before: &Status, after: &Status) -> Option<Rates> {
        let interval_s = after.server.uptime_s - before.server.uptime_s;
        let is_same = before.server.pid == after.server.pid
            && before
                .server
                .started_unix_s
                .abs_diff(after.server.started_unix_s)
                <= 1;
        if !is_same || interval_s <= 0.0 {
            return None;
        }
        let span = Span {
            before,
            after,
            interval_s,
        };
        let cpus = after.server.cpus.iter().enumerate();
        Some(Rates {
            interval_s,
            all: span.rates(None, None),
            cores: cpus
                .map(|(core, &cpu)| span.rates(Some(core), Some(cpu)))
                .collect(),
        })
    }
}

/// The time between two readings.
struct Span<'a> {
    before: &'a Status,
    after: &'a Status,
    interval_s: f64,
}

impl Span<'_> {
    fn rates(&self, core: Option<usize>, cpu: Option<usize>) -> CoreRates {
        let per_s = |counters: &[(&str, &str)]| {
            let grown = counters
                .iter()
                .map(|(part, name)| self.grown(part, name, core));
            grown.sum::<u64>() as f64 / self.interval_s
        };
        let has_frames = self.after.counters.iter().any(|group| group.part == "link");
        let frames = |name| has_frames.then(|| per_s(&[("link", name)]));
        CoreRates {
            core,
            cpu,
            requests_per_s: self.requests(core) as f64 / self.interval_s,
            connections_per_s: per_s(&[("tcp", "passive_opens"), ("connections", "accepted")]),
            rx_frames_per_s: frames("rx_frames"),
            tx_frames_per_s: frames("tx_frames"),
            rx_bytes_per_s: per_s(&[("link", "rx_bytes"), ("connections", "received_bytes")]),
            tx_bytes_per_s: per_s(&[("link", "tx_bytes"), ("connections", "sent_bytes")]),
            busy: self.busy(core),
        }
    }

    fn grown(&self, part: &str, name: &str, core: Option<usize>) -> u64 {
        let after = self.after.sum(part, name, core);
        after.saturating_sub(self.before.sum(part, name, core))
    }

    fn requests(&self, core: Option<usize>) -> u64 {
        let of_status = |status: &Status| -> u64 {
            let groups = status.counters.iter();
            groups
                .filter(|group| group.part == "http" && (core.is_none() || group.core == core))
                .flat_map(|group| &group.values)
                .filter(|(name, _)| name.starts_with("responses_"))
                .map(|(_, count)| count)
                .sum()
        };
        of_status(self.after).saturating_sub(of_status(self.before))
    }

    fn busy(&self, core: Option<usize>) -> Option<f64> {
        let [busy, idle, asleep] =
            ["busy_ns", "idle_ns", "asleep_ns"].map(|name| self.grown("worker", name, core));
        let all = busy + idle + asleep;
        (all > 0).then(|| busy as f64 / all as f64)
    }
}
