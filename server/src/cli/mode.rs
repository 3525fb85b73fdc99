//! Where the XDP program runs, as `serve` and `load` are told.

use clap::ValueEnum;

/// Where the XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// In the driver if it can, else generic
    Auto,
    /// In the driver, or not at all
    Native,
    /// In the kernel's stack
    Generic,
}
