//! The argument of `--test-faults`: the faults that the wire injects.

use std::str::FromStr;

use barewire_tcp::link::faulty::Faults;
use thiserror::Error;

/// Faults of a wire, written as `key=number,…`; see [`BadWire::KEYS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BadWire {
    pub faults: Faults,
    /// Decides which frames they hit.
    pub seed: u64,
}

/// Why a text does not describe a wire.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("'{0}' is no fault: write KEY=NUMBER,… with the keys {keys}", keys = BadWire::KEYS.join(", "))]
pub struct NoFault(String);

impl BadWire {
    /// The fields of [`Faults`] without their unit where that is frames of 1,000, and `seed`.
    pub const KEYS: [&str; 10] = [
        "seed",
        "loss",
        "burst",
        "burst_frames",
        "duplicate",
        "corrupt",
        "reorder",
        "reorder_delay_us",
        "delay_us",
        "jitter_us",
    ];

    fn set(&mut self, assignment: &str) -> Option<()> {
        let (key, value) = assignment.split_once('=')?;
        let faults = &mut self.faults;
        let field = match key.trim() {
            "seed" => {
                self.seed = value.trim().parse().ok()?;
                return Some(());
            }
            "loss" => &mut faults.loss_permille,
            "burst" => &mut faults.burst_permille,
            "burst_frames" => &mut faults.burst_frames,
            "duplicate" => &mut faults.duplicate_permille,
            "corrupt" => &mut faults.corrupt_permille,
            "reorder" => &mut faults.reorder_permille,
            "reorder_delay_us" => &mut faults.reorder_delay_us,
            "delay_us" => &mut faults.delay_us,
            "jitter_us" => &mut faults.jitter_us,
            _ => return None,
        };
        *field = value.trim().parse().ok()?;
        Some(())
    }
}

impl FromStr for BadWire {
    type Err = NoFault;

    fn from_str(text: &str) -> Result<Self, NoFault> {
        let mut wire = BadWire::default();
        for assignment in text.split(',') {
            wire.set(assignment)
                .ok_or_else(|| NoFault(assignment.to_owned()))?;
        }
        Ok(wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_sets_its_field() {
        let texts = BadWire::KEYS.map(|key| format!("{key}=3"));
        let wires = texts.map(|text| text.parse::<BadWire>().unwrap());
        assert!(wires.iter().all(|wire| *wire != BadWire::default()));
        let both: BadWire = "loss=100, seed=7".parse().unwrap();
        assert_eq!((both.seed, both.faults.loss_permille), (7, 100));
    }

    #[test]
    fn what_is_no_fault_is_named() {
        for text in ["", "loss", "lost=3", "loss=-1", "seed=7,,loss=1"] {
            let error = text.parse::<BadWire>().unwrap_err().to_string();
            assert!(error.contains("loss, burst"), "{error}");
        }
    }
}
