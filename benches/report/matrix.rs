//! What a report measures: a small TOML file.
//!
//! Every server, ours or not, is a command line, so that none of them is a special case and the
//! report can print exactly what was run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The matrix: every server × every route it has × every number of connections, in rounds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Interleaved rounds of each cell. Medians need at least three.
    pub rounds: u32,
    /// Load before a measurement begins, in seconds; whole ones, as wrk has no others.
    pub warm_up_s: u32,
    /// Length of one measurement, in seconds.
    pub measure_s: u32,
    /// Numbers of open connections, over all load machines together.
    pub connections: Vec<u32>,
    /// Share of one core that may belong to processes of neither side before a round is repeated.
    #[serde(default = "five_percent")]
    pub foreign_share_max: f64,
    /// The server that the others are compared with, round by round.
    pub baseline: String,
    /// What makes the load: every cell is measured with each of them, in turn. Left out, it is wrk, and our own as
    /// well where the lab has only one core for wrk and the kernel that receives for it.
    #[serde(default)]
    pub loads: Vec<LoadName>,
    /// Open loops: every route is also asked at these parts of the rate that all servers reach, with the first number
    /// of connections. In the lab only, as wrk has no open loop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed_rates: Vec<f64>,
    /// The servers.
    #[serde(rename = "server")]
    pub servers: Vec<Server>,
    /// The routes.
    #[serde(rename = "route")]
    pub routes: Vec<Route>,
}

/// A program that makes load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadName {
    /// `wrk`, over the kernel's sockets.
    #[default]
    Wrk,
    /// `barewire load`, past the kernel; in the lab only, and only requests that are all alike.
    Barewire,
}

impl LoadName {
    /// How the report calls it.
    pub fn words(self) -> &'static str {
        match self {
            LoadName::Wrk => "wrk",
            LoadName::Barewire => "barewire load",
        }
    }
}

/// A server under test.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// How the report calls it.
    pub name: String,
    /// Program and arguments. `{barewire}`, `{interface}`, `{address}`, `{port}`, `{tls_port}`, `{cores}` (a list),
    /// `{core_count}`, `{work}` (a directory of its own), `{certificate}` and `{key}` (PEM files) are filled in.
    pub command: Vec<String>,
    /// Routes it has, by name; all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<String>>,
    /// Files to write into `{work}` first, by name, with the same placeholders in their text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, String>,
    /// Its cores look busy even when they are not: it polls.
    #[serde(default)]
    pub polls: bool,
    /// What a fair reader should know was not tuned on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_tuned: Vec<String>,
}

/// A request that is repeated, and the answer that is right.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// How the report calls it.
    pub name: String,
    /// The request's target.
    pub path: String,
    /// The request's method.
    #[serde(default = "get")]
    pub method: String,
    /// The request's body. `{i}` is replaced by a running number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Whether it is asked in TLS, at `{tls_port}`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub tls: bool,
    /// Whether it is asked by HTTP/2, which only our own load does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub http2: bool,
    /// Requests in flight on one connection: by HTTP/2 in streams.
    #[serde(default = "one")]
    pub pipeline: u32,
    /// The body that a right answer has; any body if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_body: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn is_false(flag: &bool) -> bool {
    !flag
}

fn one() -> u32 {
    1
}

fn five_percent() -> f64 {
    0.05
}

impl Matrix {
    /// Reads and checks a matrix.
    pub fn read(path: &Path) -> Result<Matrix> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the matrix {}", path.display()))?;
        let matrix: Matrix =
            toml::from_str(&text).with_context(|| format!("{} is no matrix", path.display()))?;
        matrix
            .check()
            .with_context(|| format!("{} cannot be measured", path.display()))?;
        Ok(matrix)
    }

    /// Keeps only the servers and routes that are named; unknown names are errors.
    pub fn select(&mut self, servers: &[String], routes: &[String]) -> Result<()> {
        for name in servers {
            ensure!(
                self.servers.iter().any(|server| server.name == *name),
                "there is no server `{name}` in the matrix, only {}",
                list(self.servers.iter().map(|server| &server.name))
            );
        }
        for name in routes {
            ensure!(
                self.routes.iter().any(|route| route.name == *name),
                "there is no route `{name}` in the matrix, only {}",
                list(self.routes.iter().map(|route| &route.name))
            );
        }
        if !servers.is_empty() {
            self.servers.retain(|server| servers.contains(&server.name));
        }
        if !routes.is_empty() {
            self.routes.retain(|route| routes.contains(&route.name));
        }
        if !self
            .servers
            .iter()
            .any(|server| server.name == self.baseline)
        {
            self.baseline.clone_from(&self.servers[0].name);
        }
        Ok(())
    }

    /// The cells in the order in which they are measured, without their rounds.
    pub fn cells(&self) -> impl Iterator<Item = (&Route, u32, Vec<&Server>)> {
        self.routes.iter().flat_map(move |route| {
            self.connections.iter().map(move |&connections| {
                let servers = self.servers.iter().filter(|server| server.has(route));
                (route, connections, servers.collect())
            })
        })
    }

    /// Fills in the loads if they were left out.
    pub fn choose_loads(&mut self, in_lab: bool, client_cores: usize) {
        if self.loads.is_empty() {
            self.loads.push(LoadName::Wrk);
            let can = self.routes.iter().any(Route::is_always_the_same);
            if in_lab && client_cores == 1 && can {
                self.loads.push(LoadName::Barewire);
            }
        }
    }

    /// What makes the load on `route`.
    pub fn loads(&self, route: &Route) -> impl Iterator<Item = LoadName> {
        let (ours, wrk) = (route.is_always_the_same(), !route.http2);
        let loads: &[LoadName] = match self.loads.as_slice() {
            [] => &[LoadName::Wrk],
            loads => loads,
        };
        let loads = loads.iter().copied();
        loads.filter(move |&load| match load {
            LoadName::Wrk => wrk,
            LoadName::Barewire => ours,
        })
    }

    fn check(&self) -> Result<()> {
        for route in &self.routes {
            ensure!(
                self.loads(route).next().is_some(),
                "no load of `loads` can ask for route `{}`: add \"wrk\", or \"barewire\" for HTTP/2",
                route.name
            );
        }
        ensure!(self.rounds >= 1, "`rounds` must be at least 1");
        ensure!(self.warm_up_s <= 600, "`warm_up_s` must be at most 600");
        ensure!(
            (1..=3600).contains(&self.measure_s),
            "`measure_s` must be between 1 and 3600"
        );
        ensure!(
            self.fixed_rates
                .iter()
                .all(|share| (0.01..=0.99).contains(share)),
            "`fixed_rates` are parts of a limit, between 0.01 and 0.99"
        );
        ensure!(!self.servers.is_empty(), "there is no [[server]]");
        ensure!(!self.routes.is_empty(), "there is no [[route]]");
        ensure!(
            !self.connections.is_empty() && !self.connections.contains(&0),
            "`connections` needs numbers above 0"
        );
        unique("server", self.servers.iter().map(|server| &server.name))?;
        unique("route", self.routes.iter().map(|route| &route.name))?;
        ensure!(
            self.servers
                .iter()
                .any(|server| server.name == self.baseline),
            "the baseline `{}` is none of the servers",
            self.baseline
        );
        for server in &self.servers {
            ensure!(
                !server.command.is_empty(),
                "server `{}` has no command",
                server.name
            );
            for name in server.routes.iter().flatten() {
                ensure!(
                    self.routes.iter().any(|route| route.name == *name),
                    "server `{}` has a route `{name}` that is not in the matrix",
                    server.name
                );
            }
        }
        for route in &self.routes {
            ensure!(
                route.path.starts_with('/'),
                "route `{}`: the path must begin with '/'",
                route.name
            );
            ensure!(
                (1..=1024).contains(&route.pipeline),
                "route `{}`: `pipeline` must be between 1 and 1024",
                route.name
            );
        }
        Ok(())
    }
}

impl Route {
    /// Whether all requests are alike, so that our own load can make them.
    pub fn is_always_the_same(&self) -> bool {
        self.body.is_none()
    }
}

impl Server {
    /// Whether it is measured on `route`.
    pub fn has(&self, route: &Route) -> bool {
        self.routes
            .as_ref()
            .is_none_or(|routes| routes.contains(&route.name))
    }
}

fn unique<'a>(kind: &str, names: impl Iterator<Item = &'a String>) -> Result<()> {
    let mut seen = std::collections::HashSet::new();
    for name in names {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(plain),
            "{kind} `{name}`: a name has letters, digits, '-', '_' and '.' only"
        );
        if !seen.insert(name) {
            bail!("there are two {kind}s called `{name}`");
        }
    }
    Ok(())
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = r#"
        rounds = 3
        warm_up_s = 1
        measure_s = 2
        connections = [64]
        baseline = "a"
        [[server]]
        name = "a"
        command = ["a", "{port}"]
        [[server]]
        name = "b"
        command = ["b"]
        routes = ["plaintext"]
        [[route]]
        name = "plaintext"
        path = "/plaintext"
        [[route]]
        name = "json"
        path = "/json"
    "#;

    fn parse(text: &str) -> Result<Matrix> {
        let matrix: Matrix = toml::from_str(text)?;
        matrix.check()?;
        Ok(matrix)
    }

    #[test]
    fn a_server_is_measured_only_on_the_routes_it_has() {
        let matrix = parse(SMALL).unwrap();
        let cells: Vec<_> = matrix
            .cells()
            .map(|(route, _, servers)| (route.name.as_str(), servers.len()))
            .collect();
        assert_eq!(cells, [("plaintext", 2), ("json", 1)]);
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, complaint) in [
            ("rounds = 3", "rounds = 0", "`rounds`"),
            (
                "rounds = 3",
                "rounds = 3\nfixed_rates = [1.5]",
                "`fixed_rates`",
            ),
            ("rounds = 3", "round = 3", "unknown field `round`"),
            ("name = \"b\"", "name = \"a\"", "two servers called `a`"),
            ("baseline = \"a\"", "baseline = \"c\"", "baseline `c`"),
            ("[\"plaintext\"]", "[\"plain\"]", "route `plain`"),
            ("\"/json\"", "\"json\"", "begin with '/'"),
        ] {
            let error = format!("{:#}", parse(&SMALL.replace(from, to)).unwrap_err());
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn our_own_load_joins_wrk_where_that_has_one_core_only() {
        let loads = |text: &str, in_lab, cores| {
            let mut matrix = parse(text).unwrap();
            matrix.choose_loads(in_lab, cores);
            matrix.loads
        };
        assert_eq!(loads(SMALL, true, 1), [LoadName::Wrk, LoadName::Barewire]);
        assert_eq!(loads(SMALL, true, 2), [LoadName::Wrk]);
        assert_eq!(loads(SMALL, false, 1), [LoadName::Wrk]);
        let said = SMALL.replace("warm_up_s", "loads = [\"wrk\"]\nwarm_up_s");
        assert_eq!(loads(&said, true, 1), [LoadName::Wrk]);
    }

    #[test]
    fn selecting_moves_the_baseline_if_it_must() {
        let mut matrix = parse(SMALL).unwrap();
        assert!(matrix.select(&["c".to_owned()], &[]).is_err());
        matrix
            .select(&["b".to_owned()], &["json".to_owned()])
            .unwrap();
        assert_eq!(matrix.baseline, "b");
        assert_eq!(matrix.routes.len(), 1);
    }

    #[test]
    fn the_matrices_of_the_repository_are_sound() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("report");
        for name in [
            "client.toml",
            "default.toml",
            "kernel.toml",
            "quick.toml",
            "small.toml",
        ] {
            Matrix::read(&directory.join(name)).unwrap();
        }
    }
}
