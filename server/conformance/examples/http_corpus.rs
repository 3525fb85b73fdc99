//! Writes the requests of every small case to a file of its own: seeds for a fuzzer.
//!
//! `cargo run -p barewire-conformance --example corpus -- DIRECTORY`

use std::path::PathBuf;
use std::{env, fs, io};

use barewire_conformance::{Case, cases};

fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| io::Error::other("usage: corpus DIRECTORY"))?;
    fs::create_dir_all(&directory)?;
    for (index, case) in cases()
        .iter()
        .filter(|case| Case::is_small(case))
        .enumerate()
    {
        fs::write(directory.join(format!("case-{index:03}")), &case.requests)?;
    }
    Ok(())
}
