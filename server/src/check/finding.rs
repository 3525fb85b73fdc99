//! What was found: one line for each thing that was looked at.

use std::fmt;

use serde::Serialize;

/// Everything that was looked at, in order.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// One for each thing.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How it is.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What that costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<String>,
    /// The command that mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// The server would start, but something is lost.
    Warning,
    /// The server would not start.
    Error,
}

impl Report {
    /// Whether `serve` would start.
    pub fn would_start(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.level < Level::Error)
    }

    /// Notes something that is as it should be.
    pub(super) fn ok(&mut self, check: &'static str, found: impl fmt::Display) {
        self.add(check, Level::Ok, found, None, None);
    }

    /// Notes something that costs `costs`, and the command that changes it.
    pub(super) fn warn(
        &mut self,
        check: &'static str,
        found: impl fmt::Display,
        costs: &str,
        mend: impl Into<Option<String>>,
    ) {
        self.add(
            check,
            Level::Warning,
            found,
            Some(costs.into()),
            mend.into(),
        );
    }

    /// Notes what would keep the server from starting. The message of the error has the cure.
    pub(super) fn error(&mut self, check: &'static str, found: impl fmt::Display) {
        self.add(check, Level::Error, found, None, None);
    }

    fn add(
        &mut self,
        check: &'static str,
        level: Level,
        found: impl fmt::Display,
        costs: Option<String>,
        mend: Option<String>,
    ) {
        self.findings.push(Finding {
            check,
            level,
            found: found.to_string(),
            costs,
            mend,
        });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .findings
            .iter()
            .map(|finding| finding.check.len())
            .max();
        let width = width.unwrap_or(0);
        for finding in &self.findings {
            let level = match finding.level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Error => "error",
            };
            writeln!(f, "{level:8} {:width$}  {}", finding.check, finding.found)?;
            for (what, text) in [("costs", &finding.costs), ("mend", &finding.mend)] {
                if let Some(text) = text {
                    writeln!(f, "{:8} {:width$}  {what}: {text}", "", "")?;
                }
            }
        }
        f.write_str(match self.would_start() {
            true => "serve would start\n",
            false => "serve would not start\n",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_keeps_the_server_from_starting() {
        let mut report = Report::default();
        report.ok("kernel", "Linux 6.18");
        report.warn("offloads", "GRO is on", "frames", Some("ethtool".into()));
        assert!(report.would_start());
        report.error("interface", "there is none");
        assert!(!report.would_start());
        assert_eq!(
            report.to_string(),
            "ok       kernel     Linux 6.18\n\
             warning  offloads   GRO is on\n                    \
             costs: frames\n                    \
             mend: ethtool\n\
             error    interface  there is none\n\
             serve would not start\n"
        );
    }
}
