//! Preflight: whether the bypass would start on an interface, and what would slow it down.
//!
//! Nothing is changed: the program is loaded but not attached, a queue is bound for a moment only if
//! nobody has the interface, and everything else is read. What is decided at start is decided here by
//! the same code ([`XdpConfig::prepare`](barewire_xdp::XdpConfig), the program's loader, the
//! queue's `open`), so the two cannot disagree.

mod bypass;
mod finding;
mod host;

pub use finding::{Finding, Level, Report};

use crate::confine::Confinement;
use barewire_tls::IdentityError;
use barewire_xdp::XdpConfig;

/// Looks at everything that `serve` would need with this configuration, to run as `user` in the end. `certificates`:
/// what became of reading those for TLS, if it is to be served.
pub fn run(
    config: &XdpConfig,
    user: Option<&str>,
    certificates: Option<Result<(), IdentityError>>,
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
    if let Some(bound) = bypass::run(config, &mut report) {
        host::memory(&bound, &mut report);
        host::processors(&bound.prepared, &mut report);
    }
    report
}
