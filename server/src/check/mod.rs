//! Preflight: whether the bypass would start on an interface, and what would slow it down.
//!
//! What is decided at start is decided here by the same code, so the two cannot disagree: [`XdpConfig::prepare`], then
//! [`XdpConfig::take`], which attaches the program and reserves the port, and the queue's `open`. All of it is given
//! back at once. No frame is taken meanwhile, but drivers may set themselves up anew when a program comes or goes, which
//! costs a NIC its link for a moment; where that must not happen, it only predicts ([`run`] with `attaches` false). Everything
//! else is read.

mod bypass;
mod finding;
mod host;

pub use finding::{Finding, Level, Report};

use crate::confine::Confinement;
use barewire_tls::IdentityError;
use barewire_xdp::XdpConfig;

/// Looks at everything that `serve` would need with this configuration, to run as `user` in the end. `certificates`:
/// what became of reading those for TLS, if it is to be served. `attaches`: takes the interface for a moment.
pub fn run(
    config: &XdpConfig,
    user: Option<&str>,
    certificates: Option<Result<(), IdentityError>>,
    attaches: bool,
) -> Report {
    let mut report = Report::default();
    host::kernel(&mut report);
    if let Some(user) = user {
        match Confinement::may_become(user) {
            Ok(()) => report.ok("user", user),
            Err(error) => report.error("user", error),
        }
    }
    match certificates {
        Some(Ok(())) => report.ok("certificates", "can be served"),
        Some(Err(error)) => report.error("certificates", error),
        None => {}
    }
    if let Some(bound) = bypass::run(config, attaches, &mut report) {
        host::memory(&bound, &mut report);
        host::processors(&bound.prepared, &mut report);
    }
    report
}
