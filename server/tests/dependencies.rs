//! The dependencies that ARCHITECTURE.md allows: between crates, and those that only the program has; and that it
//! names every module.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The crates of the workspace that a library may use, itself not among them.
const ALLOWED: &[(&str, &[&str])] = &[
    ("barewire-memory", &[]),
    ("barewire-service", &[]),
    ("barewire-tcp", &["barewire-memory", "barewire-service"]),
    ("barewire-http", &["barewire-service"]),
    ("barewire-kernel", &["barewire-service"]),
    ("barewire-tls", &["barewire-service"]),
    ("barewire-teleport", &["barewire-service"]),
    (
        "barewire-xdp",
        &["barewire-memory", "barewire-service", "barewire-tcp"],
    ),
    (
        "barewire-proxy",
        &[
            "barewire-http",
            "barewire-service",
            "barewire-teleport",
            "barewire-tls",
        ],
    ),
    (
        "barewire-load",
        &[
            "barewire-http",
            "barewire-service",
            "barewire-tcp",
            "barewire-tls",
            "barewire-xdp",
        ],
    ),
];

/// What no library has: how a program is told what to do, and how it tells what it does.
const OF_THE_PROGRAM: &[&str] = &[
    "anyhow",
    "clap",
    "crossterm",
    "indicatif",
    "prometheus",
    "seccompiler",
    "signal-hook",
    "toml",
    "tracing-subscriber",
];

/// What opens descriptors, which a stack without I/O must not.
const OF_THE_SYSTEM: &[&str] = &["aya", "libc", "nix", "rustix", "xsk-rs"];

/// The dependencies of each package, those for its tests left out.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(cargo.status.success(), "{cargo:?}");
    let metadata: Value = serde_json::from_slice(&cargo.stdout).expect("cargo prints JSON");
    let name = |value: &Value| value["name"].as_str().expect("all have names").to_owned();
    let packages = metadata["packages"].as_array().expect("a list").iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().expect("a list").iter();
            let kept = all.filter(|dependency| dependency["kind"] != "dev");
            (name(package), kept.map(name).collect())
        })
        .collect()
}

#[test]
fn dependencies_between_crates_run_downwards_only() {
    let dependencies = dependencies();
    for (library, allowed) in ALLOWED {
        let used = &dependencies[*library];
        let ours = used.iter().filter(|name| name.starts_with("barewire"));
        for name in ours {
            assert!(
                allowed.contains(&&**name),
                "{library} must not depend on {name}"
            );
        }
    }
}

#[test]
fn libraries_have_nothing_that_is_for_the_program() {
    let dependencies = dependencies();
    for (library, _) in ALLOWED {
        for name in OF_THE_PROGRAM {
            let has_it = dependencies[*library].iter().any(|used| used == name);
            assert!(!has_it, "{library} depends on {name}");
        }
    }
}

#[test]
fn the_tcp_stack_opens_nothing() {
    let dependencies = dependencies();
    for name in OF_THE_SYSTEM {
        let has_it = dependencies["barewire-tcp"].iter().any(|used| used == name);
        assert!(!has_it, "barewire-tcp depends on {name}");
    }
}

/// A new module gets a line in ARCHITECTURE.md: without it, readers do not find what is there already.
#[test]
fn every_module_is_described() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("it is there");
    let (_, modules) = text
        .split_once("## Modules")
        .expect("it describes the modules");
    let mut missing = Vec::new();
    for section in modules.split("\n### ").skip(1) {
        let (heading, rest) = section.split_once('\n').expect("a section has a table");
        let Some((folder, _)) = heading.split_once(": ") else {
            continue;
        };
        let words: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
        let sources = root.join(folder).join("src");
        for entry in fs::read_dir(&sources).expect("a crate has sources") {
            let path = entry.expect("it can be read").path();
            let name = path.file_stem().and_then(|name| name.to_str());
            let name = name.expect("sources have names in ASCII");
            if !["lib", "main", "tests"].contains(&name) && !words.contains(&name) {
                missing.push(format!("{folder}/src/{name}"));
            }
        }
    }
    assert!(missing.is_empty(), "not in ARCHITECTURE.md: {missing:?}");
}
