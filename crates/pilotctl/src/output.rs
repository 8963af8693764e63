//! What a command hands back and the one place where it becomes text or JSON.
//!
//! A report is a serde struct with a [`Display`]: the same fields reach people and programs. Text may carry
//! ANSI styles; they are removed unless stdout is a terminal and `NO_COLOR` is unset.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::{Code, Failure};

/// How results are printed, from `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// The result of a command that succeeded.
pub(crate) struct Output {
    shown: Option<Box<dyn Report>>,
    code: Option<Code>,
}

impl Output {
    /// A report to print at the end.
    pub(crate) fn of(report: impl Report + 'static) -> Self {
        Output { shown: Some(Box::new(report)), code: None }
    }

    /// Everything was printed while the command ran.
    pub(crate) fn streamed() -> Self {
        Output { shown: None, code: None }
    }

    /// The report is printed as a success, but the exit status tells scripts of `code` (`daemon status` of a
    /// daemon that is down).
    #[must_use]
    pub(crate) fn exiting_as(mut self, code: Code) -> Self {
        self.code = Some(code);
        self
    }
}

/// Anything that can be printed both ways.
pub(crate) trait Report {
    fn json(&self) -> Result<Value, serde_json::Error>;
    fn text(&self) -> String;
}

impl<T: Serialize + Display> Report for T {
    fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::to_value(self)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// Prints the end of a command and says what the process exits with.
pub(crate) fn finish(format: Format, result: Result<Output, Failure>) -> u8 {
    let result = result.and_then(|output| {
        if let Some(report) = output.shown {
            print_report(format, report.as_ref())?;
        }
        Ok(output.code)
    });
    match result {
        Ok(code) => code.map_or(0, Code::exit_status),
        Err(failure) => {
            print_failure(format, &failure);
            failure.code.exit_status()
        }
    }
}

fn print_report(format: Format, report: &dyn Report) -> Result<(), Failure> {
    match format {
        Format::Text => line(&report.text()),
        Format::Json => {
            let data = report.json().map_err(|e| Failure::internal(format!("encoding the result: {e}")))?;
            line(&json!({ "status": "ok", "data": data }).to_string())
        }
    }
}

fn print_failure(format: Format, failure: &Failure) {
    // Nobody is left to be told when stderr or stdout is closed; the exit status still says it.
    match format {
        Format::Json => {
            let document = json!({ "status": "error", "code": failure.code, "message": failure.message });
            drop(line(&with_optional(document, failure).to_string()));
        }
        Format::Text => drop(write_stderr(failure)),
    }
}

fn with_optional(mut document: Value, failure: &Failure) -> Value {
    if let Some(hint) = &failure.hint {
        document["hint"] = json!(hint);
    }
    if let Some(data) = &failure.data {
        document["data"] = data.clone();
    }
    document
}

fn write_stderr(failure: &Failure) -> io::Result<()> {
    let mut err = anstream::stderr().lock();
    writeln!(err, "{} {}", crate::style::bad("error:"), failure.message)?;
    if let Some(hint) = &failure.hint {
        writeln!(err, "{} {hint}", crate::style::strong("hint:"))?;
    }
    Ok(())
}

/// One result of a command that goes on: a line of text or one JSON object.
pub(crate) fn item(format: Format, report: &impl Report) -> Result<(), Failure> {
    match format {
        Format::Text => line(&report.text()),
        Format::Json => {
            let value = report.json().map_err(|e| Failure::internal(format!("encoding the result: {e}")))?;
            line(&value.to_string())
        }
    }
}

/// Bytes for stdout exactly as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|e| closed(&e))
}

fn line(text: &str) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(|e| closed(&e))
}

/// A reader that has seen enough (`| head -1`) is no failure, and nobody is left to be told anything.
fn closed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Failure::io("writing to stdout", error)
}

/// A remark for people on stderr ("listening on port 1000"); programs that asked for JSON are spared it.
pub(crate) fn note(format: Format, text: &str) {
    if format == Format::Text {
        drop(writeln!(anstream::stderr().lock(), "{text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_error_carries_code_message_and_hint() {
        let failure = Failure::new(Code::NotFound, "no node is called `x`").hint("look");
        let document = with_optional(json!({"status": "error", "code": failure.code}), &failure);
        assert_eq!(document, json!({"status": "error", "code": "not_found", "hint": "look"}));
    }
}
