//! What `barewire --version` says: enough to know which program a bug report is about.

/// The stacks that are built in.
const FEATURES: &[&str] = &[
    #[cfg(feature = "xdp")]
    "xdp",
    #[cfg(feature = "epoll")]
    "epoll",
    #[cfg(feature = "uring")]
    "uring",
];

/// Version, revision, features, and what `sha256sum xdp-prog/barewire-xdp.o` says of the XDP program.
///
/// The revision is what `BAREWIRE_REVISION` said when it was built; scripts/package sets it. The build does not ask git:
/// it would have to run again after every commit.
pub(super) fn describe() -> String {
    [
        env!("CARGO_PKG_VERSION").to_owned(),
        format!(
            "revision: {}",
            option_env!("BAREWIRE_REVISION").unwrap_or("not recorded")
        ),
        format!("features: {}", FEATURES.join(", ")),
        #[cfg(feature = "xdp")]
        format!(
            "XDP program: sha256 {}",
            sha256(barewire_xdp::redirect::OBJECT)
        ),
    ]
    .join("\n")
}

#[cfg(feature = "xdp")]
fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    let digits = Sha256::digest(bytes);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}
