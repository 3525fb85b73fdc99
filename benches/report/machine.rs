//! What the machine was when a report was made: everything a figure may depend on.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use crate::command::{barewire, output, repository};
use crate::load;
use crate::site::Site;

/// The machine and its settings, as found; what could not be read is left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Facts in the order of display: (group, name, value).
    pub facts: Vec<Fact>,
    /// Whole outputs of the tools that show the interface, by command.
    pub details: BTreeMap<String, String>,
}

/// One line of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// `cpu`, `system`, `network` or `software`.
    pub group: String,
    /// What it is.
    pub name: String,
    /// What it was.
    pub value: String,
}

/// sysctls that a network benchmark depends on.
const SYSCTLS: [&str; 14] = [
    "net.core.somaxconn",
    "net.core.busy_poll",
    "net.core.busy_read",
    "net.core.netdev_budget",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_max_syn_backlog",
    "kernel.numa_balancing",
    "vm.nr_hugepages",
];

/// What tells one build of barewire from another.
pub const BINARY: &str = "barewire's SHA-256";

/// What is shown of the kernel's command line.
pub const COMMAND_LINE: &str = "kernel command line";

/// Switches of the kernel's command line that a network benchmark depends on. Others may name disks, hosts,
/// addresses or keys, which do not belong into a report.
const KERNEL_SWITCHES: [&str; 33] = [
    "amd_iommu",
    "amd_pstate",
    "clocksource",
    "cpufreq.default_governor",
    "default_hugepagesz",
    "hugepages",
    "hugepagesz",
    "idle",
    "init_on_alloc",
    "init_on_free",
    "intel_idle.max_cstate",
    "intel_iommu",
    "intel_pstate",
    "iommu",
    "iommu.passthrough",
    "iommu.strict",
    "irqaffinity",
    "isolcpus",
    "maxcpus",
    "mitigations",
    "nohz",
    "nohz_full",
    "nokaslr",
    "nosmt",
    "nosoftlockup",
    "nr_cpus",
    "pcie_aspm",
    "preempt",
    "processor.max_cstate",
    "rcu_nocbs",
    "skew_tick",
    "transparent_hugepage",
    "tsc",
];

/// Those switches of a kernel's command line that are in [`KERNEL_SWITCHES`].
pub fn known_switches(command_line: &str) -> String {
    let words = command_line.split_ascii_whitespace();
    let known = words.filter(|word| {
        let name = word.split_once('=').map_or(*word, |(name, _)| name);
        KERNEL_SWITCHES.contains(&name)
    });
    known.collect::<Vec<_>>().join(" ")
}

impl Machine {
    /// Looks at everything.
    pub fn inspect(site: &Site) -> Machine {
        let mut facts = Facts::default();
        cpu(&mut facts);
        system(&mut facts, site);
        network(&mut facts, site);
        software(&mut facts, site);
        let interface = &site.record.interface;
        let details = [
            format!("ethtool -i {interface}"),
            format!("ethtool -l {interface}"),
            format!("ethtool -g {interface}"),
            format!("ethtool -c {interface}"),
            format!("ethtool -k {interface}"),
            format!("ip -details link show {interface}"),
        ]
        .into_iter()
        .filter_map(|command| {
            let words: Vec<&str> = command.split(' ').collect();
            let shown = site.ask_server(&words);
            (!shown.is_empty()).then_some((command, shown))
        })
        .collect();
        Machine {
            facts: facts.0,
            details,
        }
    }

    /// The first fact called `name`.
    pub fn fact(&self, name: &str) -> Option<&str> {
        let fact = self.facts.iter().find(|fact| fact.name == name)?;
        Some(&fact.value)
    }
}

#[derive(Default)]
struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, group: &str, name: impl Into<String>, value: impl Into<String>) {
        let value = value.into().trim().to_owned();
        if !value.is_empty() {
            self.0.push(Fact {
                group: group.to_owned(),
                name: name.into(),
                value,
            });
        }
    }
}

fn cpu(facts: &mut Facts) {
    let info = read("/proc/cpuinfo");
    let field = |name: &str| {
        info.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map_or(String::new(), |(_, value)| value.trim().to_owned())
    };
    facts.add("cpu", "model", field("model name"));
    facts.add("cpu", "microcode", field("microcode"));
    let online = read("/sys/devices/system/cpu/online");
    facts.add("cpu", "cores online", online);
    let isolated = read("/sys/devices/system/cpu/isolated");
    facts.add("cpu", "cores isolated", or(isolated, "none"));
    let smt = read("/sys/devices/system/cpu/smt/active");
    facts.add(
        "cpu",
        "SMT active",
        smt.replace('1', "yes").replace('0', "no"),
    );
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    facts.add("cpu", "governor", or(governor, "not controlled here"));
    let virtual_machine = if field("flags").contains("hypervisor") {
        "yes"
    } else {
        "no"
    };
    facts.add("cpu", "virtual machine", virtual_machine);
    let mut mitigations: Vec<String> = Vec::new();
    if let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/vulnerabilities") {
        for entry in entries.flatten() {
            let state = read(&entry.path().display().to_string());
            if state.starts_with("Mitigation") {
                mitigations.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
    }
    mitigations.sort();
    facts.add(
        "cpu",
        "mitigations active",
        or(mitigations.join(", "), "none"),
    );
}

fn system(facts: &mut Facts, site: &Site) {
    facts.add("system", "kernel", read("/proc/sys/kernel/osrelease"));
    let command_line = read("/proc/cmdline");
    facts.add("system", COMMAND_LINE, known_switches(&command_line));
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().unwrap_or_default();
    facts.add("system", "memory", memory.replace("MemTotal:", "").trim());
    for name in SYSCTLS {
        facts.add("system", name, site.ask_server(&["sysctl", "-n", name]));
    }
}

fn network(facts: &mut Facts, site: &Site) {
    let record = &site.record;
    facts.add("network", "site", &record.kind);
    facts.add("network", "interface", &record.interface);
    let driver = site.ask_server(&["ethtool", "-i", &record.interface]);
    let driver = driver.lines().next().unwrap_or_default();
    facts.add("network", "driver", driver.replace("driver:", ""));
    let queues = site.ask_server(&["ethtool", "-l", &record.interface]);
    let current: Vec<&str> = queues
        .lines()
        .skip_while(|line| !line.starts_with("Current"))
        .skip(1)
        .map(str::trim)
        .filter(|line| !line.ends_with("n/a") && !line.ends_with('0'))
        .collect();
    let current = current.join(", ").replace('\t', " ");
    facts.add("network", "queues", current);
    let link = site.ask_server(&["ip", "link", "show", "dev", &record.interface]);
    let mut words = link.split_whitespace().skip_while(|word| *word != "mtu");
    facts.add("network", "MTU", words.nth(1).unwrap_or_default());
    if record.kind == "lab" {
        facts.add(
            "network",
            "NAPI",
            "threaded at both ends, pinned to each side's cores; TSO and GSO off",
        );
    }
}

fn software(facts: &mut Facts, site: &Site) {
    let mut version = std::process::Command::new(barewire());
    version.arg("--version");
    facts.add("software", "barewire", output(version).unwrap_or_default());
    let mut revision = std::process::Command::new("git");
    revision
        .args(["describe", "--always", "--dirty"])
        .current_dir(repository());
    facts.add("software", "revision", output(revision).unwrap_or_default());
    let mut sum = std::process::Command::new("sha256sum");
    sum.arg(barewire());
    let sum = output(sum).unwrap_or_default();
    let sum = sum.split_whitespace().next().unwrap_or_default();
    facts.add("software", BINARY, sum);
    let profile = barewire();
    let profile = profile.parent().and_then(std::path::Path::file_name);
    let profile = profile.map(|profile| profile.to_string_lossy().into_owned());
    facts.add("software", "build", profile.unwrap_or_default());
    let mut rustc = std::process::Command::new("rustc");
    rustc.arg("--version");
    facts.add("software", "rustc", output(rustc).unwrap_or_default());
    for machine in &site.load_machines {
        let name = format!("wrk on {}", machine.name());
        facts.add("software", name, load::version(machine));
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| String::new(), |text| text.trim().to_owned())
}

fn or(text: String, otherwise: &str) -> String {
    if text.is_empty() {
        otherwise.to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_switches_of_the_command_line_are_published() {
        let line = "BOOT_IMAGE=/vmlinuz root=UUID=1-2 ip=10.0.0.1 mitigations=off nosmt token=secret isolcpus=2-3";
        assert_eq!(known_switches(line), "mitigations=off nosmt isolcpus=2-3");
    }
}
