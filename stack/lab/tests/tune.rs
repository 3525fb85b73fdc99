//! `scripts/tune` on the server's end of a lab: what it changes it puts back, whatever stops it.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{env, process};

use barewire_lab::{Lab, SERVER_DEVICE};

const TUNE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/tune");

/// What belongs to the interface or its namespace, and not to the machine that runs the test.
const OF_THE_LAB: &str =
    "queues,rings,coalescing,offloads,irq-affinity,rss,xps,busy-poll,qdisc,sysctls";

/// For one core: this turns several knobs of a lab with two queues.
const ONE_CORE: &[&str] = &["--cores", "0", "--busy-poll", "--only", OF_THE_LAB];

/// Some of what is tuned belongs to the host, so one test tunes at a time.
static TURNS: Mutex<()> = Mutex::new(());

/// A lab, and a directory for the journal.
struct Bench {
    lab: Lab,
    directory: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Bench {
    fn up() -> Option<Bench> {
        let turn = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = Lab::up(&["--queues", "2"])?;
        let directory = env::temp_dir().join(format!("barewire-tune-{}", process::id()));
        fs::create_dir_all(&directory).unwrap();
        // Something to switch off.
        lab.server_runs(&["ethtool", "-K", SERVER_DEVICE, "gro", "on"]);
        Some(Bench {
            lab,
            directory,
            _turn: turn,
        })
    }

    /// Runs `scripts/tune VERB` with more arguments, and programs of `path` before the system's.
    fn tune(&self, verb: &str, arguments: &[&str], path: &Path) -> Output {
        let path = format!("{}:{}", path.display(), env::var("PATH").unwrap());
        let mut command = self.lab.server_command();
        command.args(["env", &format!("PATH={path}")]);
        command.arg(format!("BAREWIRE_STATE_DIR={}", self.directory.display()));
        command.args([TUNE, verb, "--interface", SERVER_DEVICE]);
        command.args(arguments).output().unwrap()
    }

    #[track_caller]
    fn tunes(&self, verb: &str, arguments: &[&str]) -> String {
        let output = self.tune(verb, arguments, Path::new("/nothing"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{verb}: {text}{errors}");
        text
    }

    /// What ethtool and sysctl say, and the files that tune writes.
    fn settings(&self) -> String {
        let commands = format!(
            "for o in k l g c x; do ethtool -$o {SERVER_DEVICE}; done
             sysctl -a --ignore --pattern '^(net|vm.nr_hugepages|kernel.numa_balancing)'
             tc qdisc show dev {SERVER_DEVICE}
             cd /sys/class/net/{SERVER_DEVICE} && grep -r . queues napi_defer_hard_irqs gro_flush_timeout threaded
             true"
        );
        self.lab
            .server_runs(&["sh", "-c", &format!("{{ {commands}; }} 2>&1")])
    }

    fn has_journal(&self) -> bool {
        let mut files = fs::read_dir(&self.directory).unwrap().flatten();
        files.any(|file| file.file_name().to_string_lossy().starts_with("tune-"))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[test]
fn what_was_applied_is_reverted_to_the_byte() {
    let Some(bench) = Bench::up() else { return };
    let before = bench.settings();

    let applied = bench.tunes("apply", ONE_CORE);
    for changed in [
        "ethtool -L bw-s0 rx 1",
        "ethtool -K bw-s0 generic-receive-offload off",
        "somaxconn",
        "xps_cpus",
        "gro_flush_timeout",
    ] {
        assert!(applied.contains(changed), "{changed}: {applied}");
    }
    assert_ne!(bench.settings(), before);
    // A second time there is nothing to do, and what was there first is not forgotten.
    assert!(!bench.tunes("apply", ONE_CORE).contains("change"));
    assert!(bench.tunes("check", ONE_CORE).ends_with("0 to change\n"));

    bench.tunes("revert", &[]);
    assert_eq!(bench.settings(), before);
    assert!(!bench.has_journal());
    assert!(bench.tunes("revert", &[]).contains("nothing to revert"));
}

#[test]
fn a_kill_in_the_middle_can_be_reverted() {
    let Some(bench) = Bench::up() else { return };
    let before = bench.settings();
    let bin = bench.directory.join("bin");
    fs::create_dir_all(&bin).unwrap();
    for (order, third) in [
        ("before", "kill -9 $PPID; exit"),
        ("after", "\"$real\" \"$@\"; kill -9 $PPID; exit"),
    ] {
        // An ethtool that kills its caller, before or after it has made its third change.
        let script = format!(
            "#!/bin/sh
             real=$(PATH=/usr/sbin:/sbin:/usr/bin:/bin command -v ethtool)
             case $1 in -L | -K)
                 echo >>{count}
                 [ $(wc -l <{count}) -lt 3 ] || {{ {third}; }} ;;
             esac
             exec \"$real\" \"$@\"",
            count = bench.directory.join(order).display(),
        );
        fs::write(bin.join("ethtool"), script).unwrap();
        fs::set_permissions(bin.join("ethtool"), Permissions::from_mode(0o755)).unwrap();

        let killed = bench.tune("apply", ONE_CORE, &bin);
        assert_eq!(killed.status.signal(), Some(9), "{order}: {killed:?}");
        assert_ne!(bench.settings(), before, "{order}");
        assert!(bench.has_journal());

        bench.tunes("revert", &[]);
        assert_eq!(bench.settings(), before, "{order}");
    }
}

/// An ethtool with the part of a driver that no driver here has: an indirection table of eight entries, filters in
/// numbered slots, none for ports if `refuses` exists, and, if `contexts` exists, RSS contexts. Its state is files
/// beside it.
const STEERING_ETHTOOL: &str = r#"#!/bin/bash
cd "$(dirname "$0")" || exit
option=$1 interface=$2
shift 2
table() { echo "RX flow hash indirection table"; for ((i = 0; i < 8; i++)); do echo "  $i: $(sed -n "$((i % $(wc -l <"$1") + 1))p" "$1")"; done; }
spread() {
    if [ "$1" = equal ]; then seq 0 $(($2 - 1)); return; fi
    shift
    local queue=0 share
    for share; do [ "$share" = 0 ] || echo $queue; queue=$((queue + 1)); done
}
if [ -e refuses ] && [ "$option" = -N ]; then exit 1; fi
case "$option $*" in
    "-k ") echo "ntuple-filters: $(cat ntuple)" ;;
    "-K ntuple-filters "*) echo "$2" >ntuple ;;
    "-x ") table table ;;
    "-x context 5") [ -e context ] && table context ;;
    "-X context new "*) [ -e contexts ] || exit 1; shift 2; spread "$@" >context; echo "New RSS context is 5" ;;
    "-X context 5 delete") ls rule-* >/dev/null 2>&1 && exit 1; rm context ;;
    "-X "*) spread "$@" >table ;;
    "-n rule "*) cat "rule-$2" ;;
    "-N delete "*) rm "rule-$2" ;;
    "-N flow-type "*" action "*) printf 'Dest port: %s mask: 0x0\nAction: Direct to queue %s\n' "$4" "$6" >"rule-$8" ;;
    "-N flow-type "*" context "*) printf 'Dest port: %s mask: 0x0\nRSS Context ID: %s\nAction: Direct to queue 0\n' "$4" "$6" >"rule-$8" ;;
    *) exit 1 ;;
esac
"#;

#[test]
fn a_port_is_steered_to_the_queues_that_are_served_and_the_rest_is_left_alone() {
    let Some(bench) = Bench::up() else { return };
    let bin = bench.directory.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::write(bin.join("ethtool"), STEERING_ETHTOOL).unwrap();
    fs::set_permissions(bin.join("ethtool"), Permissions::from_mode(0o755)).unwrap();
    fs::write(bin.join("ntuple"), "off\n").unwrap();
    fs::write(bin.join("table"), "0\n1\n").unwrap();
    let state = || {
        let files = fs::read_dir(&bin).unwrap().flatten();
        let mut state: Vec<_> = files
            .map(|file| (file.file_name(), fs::read_to_string(file.path()).unwrap()))
            .collect();
        state.sort();
        state
    };
    let tune = |verb: &str, arguments: &[&str]| {
        let output = bench.tune(verb, &[arguments, &["--only", "rss"]].concat(), &bin);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let read = |file: &str| fs::read_to_string(bin.join(file)).unwrap();
    let port = ["--port", "8080"];
    let before = state();

    // One queue: a filter for each address family.
    tune("apply", &[&port[..], &["--queues", "1"]].concat());
    for rule in ["rule-0", "rule-1"] {
        let rule = read(rule);
        assert!(
            rule.contains("8080") && rule.ends_with("queue 1\n"),
            "{rule}"
        );
    }
    assert_eq!(
        (read("ntuple"), read("table")),
        ("on\n".into(), "0\n1\n".into())
    );
    assert!(tune("check", &[&port[..], &["--queues", "1"]].concat()).ends_with("0 to change\n"));
    tune("revert", &[]);
    assert_eq!(state(), before);

    // Several, and a driver without contexts: all traffic goes there.
    tune("apply", &[&port[..], &["--queues", "1,0"]].concat());
    assert_eq!(read("table"), "0\n1\n");
    tune("revert", &[]);
    tune("apply", &["--queues", "1"]);
    assert_eq!(read("table"), "1\n");
    assert!(tune("check", &["--queues", "1"]).ends_with("0 to change\n"));
    tune("revert", &[]);
    assert_eq!(state(), before);

    // A driver whose filters are for other things.
    fs::write(bin.join("refuses"), "").unwrap();
    let with_refusal = state();
    let applied = tune("apply", &[&port[..], &["--queues", "1"]].concat());
    assert!(
        applied.contains("refuses filters for a port: all traffic is led"),
        "{applied}"
    );
    assert_eq!(read("table"), "1\n");
    tune("revert", &[]);
    assert_eq!(state(), with_refusal);
    fs::remove_file(bin.join("refuses")).unwrap();

    // With contexts, the port alone.
    fs::write(bin.join("contexts"), "").unwrap();
    let before = state();
    tune("apply", &[&port[..], &["--queues", "0-1"]].concat());
    assert_eq!(read("context"), "0\n1\n");
    assert!(read("rule-0").contains("RSS Context ID: 5"));
    assert!(tune("check", &[&port[..], &["--queues", "0-1"]].concat()).ends_with("0 to change\n"));
    tune("revert", &[]);
    assert_eq!(state(), before);

    let beyond = bench.tune("apply", &["--queues", "2", "--only", "rss"], &bin);
    assert_eq!(beyond.status.code(), Some(1));
}

#[test]
fn a_dry_run_and_a_check_change_nothing_of_the_host_either() {
    let Some(bench) = Bench::up() else { return };
    let before = bench.settings();
    let more = ["--huge-pages", "1048576"];
    let printed = bench.tunes("apply", &[&["--dry-run"], &more[..]].concat());
    for part in [
        "echo 1048576 >/proc/sys/vm/nr_hugepages",
        "== irqbalance",
        "== governor",
        "== numa",
        "isolcpus=",
        "mitigations=off",
        "ONLY where",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let check = bench.tune("check", &more, Path::new("/nothing"));
    assert_eq!(
        check.status.code(),
        Some(1),
        "there is something to change: {check:?}"
    );
    assert_eq!(bench.settings(), before);
    assert!(!bench.has_journal());
}

#[test]
fn wrong_use_is_told_from_failure() {
    let Some(bench) = Bench::up() else { return };
    for (arguments, code, part) in [
        (&["--only", "everything"][..], 2, "no such stage"),
        (&["--cores", "x"], 2, "0-3"),
        (&["--cores", "4000"], 1, "no CPU 4000"),
        (&["--port", "0"], 2, "not a port"),
        (&["--queues", "x"], 2, "0-3"),
        (&["--fast"], 2, "--fast"),
    ] {
        let output = bench.tune("apply", arguments, Path::new("/nothing"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(part), "{arguments:?}: {errors}");
    }
    assert!(!bench.has_journal());
}
