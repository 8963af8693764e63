//! `pilotctl doctor`.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl doctor\n  pilotctl doctor --json\n  pilotctl doctor || echo 'see above'"
)]
pub(crate) struct Args {}

mod daemon;
mod machine;

use std::fmt;

use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{humane, style};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, and could be better or soon will not.
    Remark,
    /// Something does not work because of it.
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    /// The class of the fault.
    #[serde(skip)]
    code: Option<Code>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, found: found.into(), advice: None, code: None }
    }

    fn remark(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { check, verdict: Verdict::Remark, found: found.into(), advice, code: None }
    }

    fn fault(check: &'static str, code: Code, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let advice = Some(advice.into());
        Self { check, verdict: Verdict::Fault, found: found.into(), advice, code: Some(code) }
    }
}

#[derive(Serialize)]
struct Report {
    findings: Vec<Finding>,
    faults: usize,
    remarks: usize,
}

impl Report {
    fn of(findings: Vec<Finding>) -> Self {
        let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        let (faults, remarks) = (count(Verdict::Fault), count(Verdict::Remark));
        Self { findings, faults, remarks }
    }

    /// That of the first fault: the others mostly follow from it.
    fn code(&self) -> Option<Code> {
        self.findings.iter().find_map(|finding| finding.code)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            let mark = match finding.verdict {
                Verdict::Ok => style::good("✓"),
                Verdict::Remark => style::strong("!"),
                Verdict::Fault => style::bad("✗"),
            };
            writeln!(f, "{mark} {:<12} {}", finding.check, humane::printable(&finding.found))?;
            if let Some(advice) = &finding.advice {
                writeln!(f, "  {:<12} {} {advice}", "", style::faint("→"))?;
            }
        }
        match (self.faults, self.remarks) {
            (0, 0) => write!(f, "nothing is wrong"),
            (0, remarks) => write!(f, "it works; {}", humane::count(remarks, "remark")),
            (faults, 0) => write!(f, "{}", humane::count(faults, "fault")),
            (faults, remarks) => {
                write!(f, "{}, {}", humane::count(faults, "fault"), humane::count(remarks, "remark"))
            }
        }
    }
}

/// `pilotctl doctor`: looks at everything that this machine can tell, and prints it in any case; the exit status is that
/// of the first fault.
pub(crate) async fn run(ctx: &Context, _: &Args) -> Result<Output, Failure> {
    let mut findings = machine::look(ctx);
    findings.extend(daemon::look(ctx).await);
    let report = Report::of(findings);
    let code = report.code();
    let output = Output::of(report);
    Ok(match code {
        Some(code) => output.exiting_as(code),
        None => output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_decides_and_all_are_shown() {
        let report = Report::of(vec![
            Finding::ok("settings", "none: defaults"),
            Finding::remark("space", "500 MB are free", "make room"),
            Finding::fault("daemon", Code::NotRunning, "does not run", "pilotctl daemon start"),
            Finding::fault("key", Code::Internal, "gone\u{1b}[2J", "restore it"),
        ]);
        assert_eq!(report.code(), Some(Code::NotRunning));
        insta::assert_snapshot!(anstream::adapter::strip_str(&report.to_string()).to_string(), @r"
        ✓ settings     none: defaults
        ! space        500 MB are free
                       → make room
        ✗ daemon       does not run
                       → pilotctl daemon start
        ✗ key          gone [2J
                       → restore it
        2 faults, 1 remark
        ");
        assert_eq!(
            Report::of(vec![Finding::ok("space", "much")]).to_string().lines().last(),
            Some("nothing is wrong")
        );
    }
}
