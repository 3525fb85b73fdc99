//! Where a report is measured: the lab on this machine, or a NIC with load machines behind it.
//!
//! Both are the same to the rest: a prefix that runs a command where the server belongs, and one
//! or more that run it where the load belongs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::command::{command, join, output, repository, run};
use crate::matrix::Route;

/// Where servers and load run, and how they reach each other.
pub struct Site {
    /// What is recorded about it.
    pub record: SiteRecord,
    /// The machines that make the load.
    pub load_machines: Vec<LoadMachine>,
    lab: Option<Lab>,
}

/// The lab's client end.
pub const LOAD_INTERFACE: &str = "bw-c0";

/// What a reader has to know about the site.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct SiteRecord {
    /// `lab` or `network`.
    pub kind: String,
    /// The interface that the servers use.
    pub interface: String,
    /// The address that the load asks.
    pub address: String,
    /// The port that the load asks.
    pub port: u16,
    /// Cores that the servers are confined to.
    pub server_cores: Vec<usize>,
    /// Cores of this machine that the load is confined to; none if it runs elsewhere.
    pub client_cores: Vec<usize>,
    /// How the load is reached, a command each.
    pub load_machines: Vec<String>,
}

/// A machine, or a namespace, that makes load.
pub struct LoadMachine {
    prefix: Vec<String>,
    /// The prefix is a remote shell, which splits the command once more.
    through_shell: bool,
    /// Threads that it is asked to use.
    pub threads: u32,
}

/// A lab of scripts/lab that is taken down when dropped.
struct Lab {
    script: PathBuf,
}

/// The lab's name: `report`, or what `LAB` says.
fn lab_name() -> String {
    std::env::var("LAB").unwrap_or_else(|_| "report".to_owned())
}

impl Site {
    /// Makes a threaded lab: `server_cores` and `client_cores` share nothing.
    pub fn lab(server_cores: Vec<usize>, client_cores: Vec<usize>, port: u16) -> Result<Site> {
        ensure!(
            !server_cores.is_empty() && !client_cores.is_empty(),
            "the lab needs at least one core for the server and one for the load"
        );
        let lab = Lab {
            script: repository().join("scripts/lab"),
        };
        let up = lab.command(&[
            "up",
            "--threaded",
            "--queues",
            &server_cores.len().max(1).to_string(),
            "--server-cores",
            &join(&server_cores),
            "--client-cores",
            &join(&client_cores),
        ]);
        run(up).context("the lab could not be made")?;
        let threads = client_cores.len() as u32;
        let mut prefix = vec!["taskset".to_owned(), "-c".to_owned(), join(&client_cores)];
        prefix.extend(lab.words("client"));
        Ok(Site {
            record: SiteRecord {
                kind: "lab".to_owned(),
                interface: "bw-s0".to_owned(),
                address: "10.77.0.2".to_owned(),
                port,
                server_cores,
                client_cores,
                load_machines: vec!["the lab's client namespace".to_owned()],
            },
            load_machines: vec![LoadMachine {
                prefix,
                through_shell: false,
                threads,
            }],
            lab: Some(lab),
        })
    }

    /// A real interface, with the load behind the command prefixes `clients`.
    pub fn network(
        interface: String,
        address: String,
        port: u16,
        server_cores: Vec<usize>,
        clients: &[String],
        threads: u32,
    ) -> Result<Site> {
        ensure!(
            Path::new("/sys/class/net").join(&interface).exists(),
            "there is no interface `{interface}`; `ip -brief link` lists them"
        );
        ensure!(
            !clients.is_empty(),
            "an interface needs a load machine: --client \"ssh HOST\""
        );
        let load_machines = clients
            .iter()
            .map(|client| {
                let prefix = shlex::split(client)
                    .filter(|words| !words.is_empty())
                    .with_context(|| format!("--client `{client}` is no command"))?;
                Ok(LoadMachine {
                    prefix,
                    through_shell: true,
                    threads,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Site {
            record: SiteRecord {
                kind: "network".to_owned(),
                interface,
                address,
                port,
                server_cores,
                client_cores: Vec::new(),
                load_machines: clients.to_vec(),
            },
            load_machines,
            lab: None,
        })
    }

    /// A command that runs `words` where the server belongs, on the server's cores.
    pub fn server_command(&self, words: &[String]) -> Command {
        let cores = join(&self.record.server_cores);
        let mut all = vec!["taskset".to_owned(), "-c".to_owned(), cores];
        if let Some(lab) = &self.lab {
            all.extend(lab.words("server"));
        }
        all.extend_from_slice(words);
        self.environment(command(&all))
    }

    /// Puts kernel threads where they belong after a server took the interface.
    pub fn settle(&self) -> Result<()> {
        match &self.lab {
            Some(lab) => run(lab.command(&["pin"])).context("NAPI threads could not be pinned"),
            None => Ok(()),
        }
    }

    /// Puts kernel threads where they belong once the load has taken its own interface.
    pub fn settle_load(&self) -> Result<()> {
        const TAKE_MAX: Duration = Duration::from_secs(5);
        let words = ["ip", "link", "show", "dev", LOAD_INTERFACE].map(str::to_owned);
        let deadline = Instant::now() + TAKE_MAX;
        for machine in &self.load_machines {
            // A load that fails instead says why when it has ended.
            while Instant::now() < deadline
                && !output(machine.command(&words)?)?.contains("prog/xdp")
            {
                sleep(Duration::from_millis(5));
            }
        }
        self.settle()
    }

    /// Fails if an XDP program is still attached to the interface.
    pub fn ensure_no_xdp(&self) -> Result<()> {
        let interface = &self.record.interface;
        let words = ["ip", "link", "show", "dev", interface].map(str::to_owned);
        let shown = output(self.server_command(&words))?;
        ensure!(
            !shown.contains("prog/xdp"),
            "an XDP program is still attached to {interface}: `ip link set dev {interface} xdp off` removes it"
        );
        Ok(())
    }

    /// The port for TLS, beside the one for plain text.
    pub fn tls_port(&self) -> u16 {
        self.record.port.wrapping_add(1)
    }

    /// `http://address:port`, or with https, with an IPv6 address in brackets.
    pub fn url(&self, route: &Route) -> String {
        let SiteRecord { address, port, .. } = &self.record;
        let (scheme, port) = match route.tls {
            true => ("https", self.tls_port()),
            false => ("http", *port),
        };
        match address.contains(':') {
            true => format!("{scheme}://[{address}]:{port}"),
            false => format!("{scheme}://{address}:{port}"),
        }
    }

    /// Reads what `words` print where the server belongs; empty if they cannot be run.
    pub fn ask_server(&self, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let mut command = self.server_command(&words);
        command.stderr(Stdio::null());
        command.output().map_or_else(
            |_| String::new(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
    }

    fn environment(&self, mut command: Command) -> Command {
        if self.lab.is_some() {
            command.env("LAB", lab_name());
        }
        command
    }
}

impl LoadMachine {
    /// A command that runs `words` on the load machine.
    pub fn command(&self, words: &[String]) -> Result<Command> {
        let mut all = self.prefix.clone();
        if self.through_shell {
            let quoted = shlex::try_join(words.iter().map(String::as_str))
                .context("a NUL byte cannot be sent through a shell")?;
            all.push(quoted);
        } else {
            all.extend_from_slice(words);
        }
        let mut command = command(&all);
        command.env("LAB", lab_name());
        Ok(command)
    }

    /// How the report calls it.
    pub fn name(&self) -> String {
        if self.through_shell {
            self.prefix.join(" ")
        } else {
            "the lab's client".to_owned()
        }
    }
}

impl Lab {
    fn words(&self, verb: &str) -> [String; 2] {
        [self.script.display().to_string(), verb.to_owned()]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.script);
        command.args(arguments).env("LAB", lab_name());
        command
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = run(self.command(&["down"])) {
            eprintln!("report: the lab could not be taken down: {error:#}");
        }
    }
}
