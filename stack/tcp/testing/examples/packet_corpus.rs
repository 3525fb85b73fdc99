//! Writes the seeds of the fuzz target `packet` to a folder; `scripts/fuzz` calls it.

use std::path::PathBuf;

use barewire_tcp_testing::fuzzing::packet_corpus;

fn main() -> std::io::Result<()> {
    let folder = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| ".".into()));
    for (name, input) in packet_corpus() {
        std::fs::write(folder.join(name), input)?;
    }
    Ok(())
}
