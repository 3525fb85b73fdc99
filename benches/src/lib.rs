//! criterion benches of every hot part of barewire; see `benches/README.md`.

pub mod traffic;
