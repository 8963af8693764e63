//! The system's own tools: `ip` and `nft`.

use std::io::Write;
use std::process::{Command, Output, Stdio};

/// Seconds that a tool may take. They take milliseconds; a kernel that is still clearing up may make them wait.
const PATIENCE: &str = "30";

/// Runs a tool with something to read and returns what it printed.
///
/// # Panics
/// When it fails: a network that is not as described would prove nothing.
#[track_caller]
pub(crate) fn tool(program: &str, arguments: &[&str], input: &str) -> String {
    let output = attempt(program, arguments, input);
    assert!(
        output.status.success(),
        "{program} {}: {}{}\n{input}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a tool whose failure is expected at times.
#[track_caller]
pub(crate) fn attempt(program: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new("timeout")
        .args([PATIENCE, program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("the input is a pipe");
    // A tool that does not read to the end says why, and that is looked at.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap_or_else(|error| panic!("{program}: {error}"))
}
