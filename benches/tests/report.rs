//! The report generator against real servers in a lab of its own, and against everything that goes wrong.
//!
//! Needs root, the lab's tools, wrk and a `barewire` beside the binary; says so and passes where they
//! are missing, since scripts/test makes sure that they are not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// The threaded lab's NAPI threads are told apart by the interface's name only, so one lab at a time.
static ONE_LAB: Mutex<()> = Mutex::new(());

#[test]
fn a_small_matrix_becomes_a_page_with_visible_plots() {
    let Some(bench) = Bench::new("page") else {
        return;
    };
    let output = bench.run(&bench.matrix(SERVER, ROUTE), &[]);
    assert!(output.status.success(), "{}", text(&output));
    let report = bench.only_report();
    for file in ["report.html", "report.md", "results.json"] {
        assert!(report.join(file).exists(), "{file} is missing");
    }
    let results = results(&report);
    let rounds = results["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        let requests = round["load"]["requests"].as_u64().unwrap();
        let served = round["counted"]["served"].as_u64().unwrap();
        // The server also answered the warm-up and the checks.
        assert!(requests > 0 && served > requests, "{requests} of {served}");
    }
    assert!(report.join("raw/epoll-plaintext-8-1.txt").exists());
    let chart = |kind: &str| fs::read(report.join(format!("charts/plaintext-throughput.{kind}")));
    assert!(chart("png").unwrap().starts_with(b"\x89PNG"));
    let csv = String::from_utf8(chart("csv").unwrap()).unwrap();
    assert!(
        csv.starts_with("server,connections,median_per_s") && csv.contains("\nepoll,8,"),
        "{csv}"
    );
    expect_links_to_lead_somewhere(&report);
    bench.assert_clean();

    let compared = bench
        .report()
        .args(["--compare"])
        .args([&report, &report])
        .output()
        .unwrap();
    assert!(text(&compared).contains("within the noise"));

    // The same figures on another machine: said before any percentage.
    let elsewhere = bench.directory.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut other = results.clone();
    other["host"] = "elsewhere".into();
    fs::write(elsewhere.join("results.json"), other.to_string()).unwrap();
    let compared = bench
        .report()
        .args(["--compare"])
        .args([&report, &elsewhere])
        .output()
        .unwrap();
    let compared = text(&compared);
    let remark = compared.find("are not comparable").unwrap();
    assert!(remark < compared.find('%').unwrap(), "{compared}");
    look_at(&report, &bench.directory);
}

#[test]
fn what_goes_wrong_is_said_and_cleaned_up() {
    let Some(bench) = Bench::new("wrong") else {
        return;
    };
    let silent = "command = [\"sleep\", \"100\"]";
    let dying = "command = [\"sh\", \"-c\", \"echo no port for me >&2; exit 3\"]";
    let wrong_body = ROUTE.replace("Hello, World!", "Goodbye");
    let wrong_path = ROUTE.replace("/plaintext", "/nowhere");
    for (server, route, complaints) in [
        (silent, ROUTE, ["gives no right answer", "epoll"]),
        (dying, ROUTE, ["no port for me", "exit status: 3"]),
        (SERVER, wrong_body.as_str(), ["Hello, World!", "should be"]),
        (SERVER, wrong_path.as_str(), ["status 404", "/nowhere"]),
    ] {
        let output = bench.run(&bench.matrix(server, route), &[]);
        assert!(!output.status.success());
        for complaint in complaints {
            assert!(text(&output).contains(complaint), "{}", text(&output));
        }
        bench.assert_clean();
        assert_eq!(fs::read_dir(bench.output()).unwrap().count(), 0);
    }
}

/// Every link of the page, within it and to files beside it.
fn expect_links_to_lead_somewhere(report: &Path) {
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    let links: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(links.len() > 10, "{links:?}");
    for link in links {
        match link.strip_prefix('#') {
            Some(id) => assert!(
                page.contains(&format!("id=\"{id}\"")),
                "{link} leads nowhere"
            ),
            None => assert!(report.join(link).exists(), "{link} leads nowhere"),
        }
    }
}

#[test]
fn a_round_that_fails_is_tried_again_and_what_cannot_be_measured_costs_nothing_else() {
    let Some(bench) = Bench::new("again") else {
        return;
    };
    // Its first process ends in the middle of the measurement, and it has no other route.
    let marker = bench.directory.join("was-here");
    let serve = "{barewire} serve --stack epoll --listen {address}:{port} --cores {cores}";
    let server = format!(
        "command = [\"sh\", \"-c\", \"if [ -e {marker} ]; then exec {serve}; fi; touch {marker}; exec timeout 1.5 {serve}\"]",
        marker = marker.display()
    );
    let routes = format!("{ROUTE}\n[[route]]\nname = \"other\"\npath = \"/nowhere\"");
    let matrix = bench.matrix(&server, &routes);
    let output = bench.run(&matrix, &["--title", "A <title>", "--author", "Somebody"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let said = text(&output);
    assert!(
        said.contains("the report is partial") && said.contains("--resume"),
        "{said}"
    );
    let report = bench.only_report();
    let results = results(&report);
    assert_eq!(results["rounds"].as_array().unwrap().len(), 2);
    assert_eq!(results["failed"].as_array().unwrap().len(), 1);
    assert!(
        results["repeated"][0]
            .as_str()
            .unwrap()
            .contains("ended with"),
        "{results}"
    );
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    for part in [
        "This report is partial",
        "status 404",
        "A &lt;title&gt;",
        "Somebody",
    ] {
        assert!(page.contains(part), "{part}");
    }
    bench.assert_clean();
}

#[test]
fn rounds_that_others_disturb_are_kept_and_marked_if_told_so() {
    let Some(bench) = Bench::new("busy") else {
        return;
    };
    let matrix = bench.matrix(SERVER, ROUTE);
    let picky = fs::read_to_string(&matrix).unwrap();
    fs::write(
        &matrix,
        picky
            .replace("max = 100", "max = 0.01")
            .replace("rounds = 2", "rounds = 1"),
    )
    .unwrap();
    let hog = bench.directory.join("hog");
    fs::copy("/bin/sh", &hog).unwrap();
    // Ahead of what else may use the cores, of which only the first few are named.
    let mut hog = Command::new("nice")
        .args(["-n", "-10", "taskset", "-c", "0"])
        .arg(&hog)
        .args(["-c", "while :; do :; done"])
        .spawn()
        .unwrap();
    let output = bench.run(&matrix, &["--allow-busy"]);
    hog.kill().unwrap();
    hog.wait().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report = bench.only_report();
    let results = results(&report);
    let who = results["rounds"][0]["busy_with"].as_str().unwrap();
    assert!(who.contains("hog (pid"), "{who}");
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    assert!(page.contains("while other processes used its cores"));
    bench.assert_clean();
}

fn results(report: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(report.join("results.json")).unwrap()).unwrap()
}

#[test]
fn a_missing_wrk_is_named() {
    let Some(bench) = Bench::new("wrk") else {
        return;
    };
    // Everything but wrk.
    let tools = bench.directory.join("tools");
    fs::create_dir_all(&tools).unwrap();
    for directory in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            if entry.file_name() != "wrk" {
                let _ = std::os::unix::fs::symlink(entry.path(), tools.join(entry.file_name()));
            }
        }
    }
    let output = bench
        .measure(&bench.matrix(SERVER, ROUTE))
        .env("PATH", &tools)
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(
        text(&output).contains("apt-get install wrk"),
        "{}",
        text(&output)
    );
    bench.assert_clean();
}

#[test]
fn an_interrupted_run_keeps_what_it_has_and_can_be_resumed() {
    let Some(bench) = Bench::new("ctrl-c") else {
        return;
    };
    let matrix = bench.matrix(SERVER, ROUTE);
    let three = fs::read_to_string(&matrix).unwrap();
    fs::write(&matrix, three.replace("rounds = 2", "rounds = 3")).unwrap();
    let report = bench
        .measure(&matrix)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let first = || {
        let reports = fs::read_dir(bench.output()).ok()?;
        let report = reports.flatten().next()?;
        let second_round = report.path().join("raw/epoll-plaintext-8-2.txt");
        second_round.exists().then_some(())
    };
    for _ in 0..1200 {
        if first().is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&report);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = report.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    let page = fs::read_to_string(bench.only_report().join("report.html")).unwrap();
    assert!(page.contains("This run was interrupted"));
    bench.assert_clean();

    let report = bench.only_report();
    let before = results(&report);
    let kept = before["rounds"].as_array().unwrap();
    assert!((1..3).contains(&kept.len()), "{before}");
    let resumed = bench
        .report()
        .arg("--resume")
        .arg(&report)
        .output()
        .unwrap();
    assert!(resumed.status.success(), "{}", text(&resumed));
    let after = results(&report);
    let rounds = after["rounds"].as_array().unwrap();
    assert_eq!((rounds.len(), &rounds[..kept.len()]), (3, kept.as_slice()));
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    assert!(!page.contains("This run was interrupted"));
    bench.assert_clean();
}

#[test]
fn a_full_disk_is_said() {
    let Some(bench) = Bench::new("full") else {
        return;
    };
    let small = bench.directory.join("small");
    fs::create_dir_all(&small).unwrap();
    let mount = |arguments: &[&str]| Command::new("mount").args(arguments).arg(&small).status();
    if !mount(&["-t", "tmpfs", "-o", "size=8k", "tmpfs"]).is_ok_and(|status| status.success()) {
        eprintln!("skipped: a small disk cannot be mounted");
        return;
    }
    let output = bench.run(
        &bench.matrix(SERVER, ROUTE),
        &["--output", small.to_str().unwrap()],
    );
    let unmounted = Command::new("umount").arg(&small).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    assert!(!output.status.success());
    assert!(
        text(&output).contains("No space left on device"),
        "{}",
        text(&output)
    );
    bench.assert_clean();
}

const SERVER: &str = r#"command = ["{barewire}", "serve", "--stack", "epoll", "--listen", "{address}:{port}", "--cores", "{cores}"]"#;
const ROUTE: &str = r#"path = "/plaintext"
expect_body = "Hello, World!""#;

/// A directory and a lab of one test's own.
struct Bench {
    directory: PathBuf,
    lab: String,
    _turn: std::sync::MutexGuard<'static, ()>,
}

impl Bench {
    /// `None`, and why, where reports cannot be measured.
    fn new(name: &str) -> Option<Bench> {
        let report = Path::new(env!("CARGO_BIN_EXE_report"));
        let missing = if !rustix::process::geteuid().is_root() {
            Some("root")
        } else if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
            Some("a second core")
        } else if !report.with_file_name("barewire").exists() {
            Some("target/debug/barewire: run the tests of the whole workspace")
        } else {
            None
        };
        if let Some(missing) = missing {
            eprintln!("skipped: this needs {missing}");
            return None;
        }
        let turn = ONE_LAB
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let lab = format!("report-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(format!("barewire-{lab}"));
        fs::create_dir_all(directory.join("reports")).unwrap();
        Some(Bench {
            directory,
            lab,
            _turn: turn,
        })
    }

    fn output(&self) -> PathBuf {
        self.directory.join("reports")
    }

    fn matrix(&self, server: &str, route: &str) -> PathBuf {
        let path = self.directory.join("matrix.toml");
        let text = format!(
            "rounds = 2\nwarm_up_s = 1\nmeasure_s = 1\nconnections = [8]\nbaseline = \"epoll\"\n\
             foreign_share_max = 100\nloads = [\"wrk\"]\n[[server]]\nname = \"epoll\"\n{server}\n\
             [[route]]\nname = \"plaintext\"\n{route}\n"
        );
        fs::write(&path, text).unwrap();
        path
    }

    fn report(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_report"));
        command.env("LAB", &self.lab).stdin(Stdio::null());
        command
    }

    fn measure(&self, matrix: &Path) -> Command {
        let mut command = self.report();
        command.arg("--matrix").arg(matrix);
        command.arg("--output").arg(self.output());
        command
    }

    fn run(&self, matrix: &Path, more: &[&str]) -> Output {
        let mut command = self.report();
        command.arg("--matrix").arg(matrix);
        if !more.contains(&"--output") {
            command.arg("--output").arg(self.output());
        }
        command.args(more).output().unwrap()
    }

    fn only_report(&self) -> PathBuf {
        let mut reports = fs::read_dir(self.output()).unwrap();
        let report = reports.next().unwrap().unwrap().path();
        assert!(reports.next().is_none(), "there is more than one report");
        report
    }

    /// No lab, and with it no server and no load, is left.
    fn assert_clean(&self) {
        for side in ["client", "server"] {
            let namespace = format!("/run/netns/bw-{side}-{}", self.lab);
            assert!(!Path::new(&namespace).exists(), "{namespace} is left");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Opens the page in headless Chromium, wide and narrow: no complaint, and the plots' colours show.
fn look_at(report: &Path, directory: &Path) {
    for width in [1400, 400] {
        let picture = directory.join(format!("{width}.png"));
        let profile = directory.join("profile");
        let chromium = Command::new("chromium")
            .args("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run".split(' '))
            .args(
                "--disable-background-networking --disable-component-update --disable-sync"
                    .split(' '),
            )
            .args(["--hide-scrollbars", "--enable-logging=stderr", "--v=0"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(format!("--window-size={width},2400"))
            .arg(format!("--screenshot={}", picture.display()))
            .arg(format!("file://{}", report.join("report.html").display()))
            .stdin(Stdio::null())
            .output();
        let Ok(chromium) = chromium else {
            eprintln!("skipped: the page is not looked at without chromium");
            return;
        };
        let said = text(&chromium);
        assert!(!said.contains("CONSOLE"), "the page complains: {said}");
        let colors = series_colors(&picture);
        assert!(colors > 1000, "only {colors} pixels of the first series");
    }
}

/// How many pixels have the colour of the first series in a light page.
fn series_colors(picture: &Path) -> usize {
    let file = std::io::BufReader::new(fs::File::open(picture).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let size = info.color_type.samples();
    let of_series = |pixel: &&[u8]| pixel.starts_with(&[0x0b, 0x6b, 0xcb]);
    pixels.chunks(size).filter(of_series).count()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}
