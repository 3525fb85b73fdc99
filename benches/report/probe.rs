//! One request with curl, from where the load comes from.

use anyhow::{Context, Result, ensure};

use crate::command::output;
use crate::matrix::Route;
use crate::site::LoadMachine;

/// Asks for `route` once and looks at the whole answer.
pub fn check(machine: &LoadMachine, route: &Route, url: &str) -> Result<()> {
    const MARK: &str = "\nBAREWIRE ";
    let mut words: Vec<String> = ["curl", "-sS", "--max-time", "2", "-X", &route.method]
        .map(str::to_owned)
        .into();
    if let Some(body) = &route.body {
        words.extend(["-H", "Content-Type: application/json", "--data-binary"].map(str::to_owned));
        words.push(body.replace("{i}", "0"));
    }
    // Who answers is certain: we have started it.
    let version = if route.http2 { "--http2" } else { "--http1.1" };
    words.extend(["--insecure", version].map(str::to_owned));
    words.extend(["-w".to_owned(), format!("{MARK}%{{http_code}}")]);
    words.push(format!("{url}{}", route.path));
    let answer = output(machine.command(&words)?)?;
    let (body, status) = answer
        .rsplit_once(MARK)
        .with_context(|| format!("curl printed {answer:?}"))?;
    ensure!(status == "200", "it answered with status {status}");
    if let Some(expected) = &route.expect_body {
        ensure!(
            body == expected,
            "its body is {body:?} and should be {expected:?}"
        );
    }
    Ok(())
}
