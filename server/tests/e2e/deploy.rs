//! What is shipped beside the program is true of it: alerts, the dashboard, the Kubernetes manifest, the manual.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::operate::{Operated, SCRAPE, answer};
use crate::privileges::in_the_lab::NEEDED;
use crate::server::BAREWIRE;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    fs::read_to_string(directory().join(name)).unwrap()
}

/// The metrics that a text names; `barewire_xsk_*` names none.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("barewire_") && !word.ends_with('_'))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word))
        .collect()
}

/// The expressions of the dashboard.
fn expressions(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap());
    targets
        .map(|target| target["expr"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_metric_of_the_alerts_and_of_the_dashboard_exists() {
    let Some(lab) = crate::bypass::lab() else {
        return;
    };
    let bypass = Operated::start(|control| {
        crate::bypass::serve(&lab, &["--control", control, "--admin-listen", "0"])
    });
    let admin = bypass.admin();
    let kernel = Operated::on("epoll", &[]);
    let scraped = [
        lab.server(|| answer(admin, SCRAPE)),
        answer(kernel.admin(), SCRAPE),
    ]
    .concat();
    let existing: BTreeSet<_> = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let (alerts, dashboard) = (read("alerts.yml"), read("grafana.json"));
    let named = metrics_in(&alerts);
    assert!(named.len() > 10, "{named:?}");
    let missing: Vec<_> = named.difference(&existing).collect();
    assert!(missing.is_empty(), "alerts.yml: {missing:?}");
    let expressions = expressions(&serde_json::from_str(&dashboard).unwrap()).join("\n");
    let named = metrics_in(&expressions);
    assert!(named.len() > 20, "{named:?}");
    let missing: Vec<_> = named.difference(&existing).collect();
    assert!(missing.is_empty(), "grafana.json: {missing:?}");
}

#[test]
fn prometheus_understands_the_rules_and_each_alert_fires_when_it_should() {
    let directory = directory();
    // The dashboard's expressions as rules, for they are in the same language.
    let scratch = tempfile::tempdir().unwrap();
    let dashboard = scratch.path().join("dashboard.yml");
    let rules: Vec<_> = expressions(&serde_json::from_str(&read("grafana.json")).unwrap())
        .iter()
        .enumerate()
        .map(|(number, expression)| {
            let expression = expression
                .replace("$__rate_interval", "1m")
                .replace("$instance", ".*");
            json!({"record": format!("dashboard:{number}"), "expr": expression})
        })
        .collect();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&dashboard, groups.to_string()).unwrap();

    for (what, file) in [
        (["check", "rules"], dashboard),
        (["check", "config"], directory.join("prometheus.yml")),
        (["test", "rules"], directory.join("alerts.test.yml")),
    ] {
        match Command::new("promtool").args(what).arg(&file).output() {
            Err(error) => return eprintln!("SKIPPED: no promtool here: {error}"),
            Ok(verdict) => assert!(verdict.status.success(), "{}: {verdict:?}", file.display()),
        }
    }
}

#[test]
fn the_manifest_and_the_guide_grant_what_the_bypass_needs_and_no_more() {
    let needed = NEEDED.join(",");
    let manifest = read("kubernetes.yaml");
    let granted = manifest
        .lines()
        .find_map(|line| line.trim().strip_prefix("add: [")?.strip_suffix(']'));
    assert_eq!(
        granted.unwrap().replace(' ', "").to_lowercase(),
        needed,
        "kubernetes.yaml"
    );
    let guide = read("README.md");
    let mut commands = 0;
    for line in guide.lines().filter(|line| line.contains("--cap-add")) {
        let granted = line.split_once("--cap-add ").unwrap().1.split(' ').next();
        assert_eq!(granted, Some(&*needed), "{line}");
        commands += 1;
    }
    assert!(commands > 0);
    let explained: Vec<_> = guide
        .lines()
        .filter(|line| line.ends_with("| ready |"))
        .map(|line| line.split('`').nth(1).unwrap().to_lowercase())
        .collect();
    assert_eq!(explained, NEEDED);
}

#[test]
fn every_subcommand_has_its_page_in_the_manual() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(BAREWIRE);
    command.args(["generate", "man"]).arg(directory.path());
    assert!(command.status().unwrap().success());

    let help = Command::new(BAREWIRE).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split_once("Commands:\n").unwrap().1;
    let commands: Vec<_> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty() && *name != "help")
        .collect();
    assert!(commands.contains(&"serve"), "{commands:?}");
    for name in commands {
        let page = directory.path().join(format!("barewire-{name}.1"));
        let text = fs::read_to_string(&page).unwrap();
        assert!(text.contains(".SH OPTIONS"), "{name}: {text}");
    }
}
