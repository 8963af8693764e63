//! What two nodes do when they meet: agree on trust, send a message, move data.

use std::time::{Duration, Instant};

use pilot_interop::{Node, until};

/// Lets `a` ask `b` for trust, which must approve by itself, and waits until both trust each other.
#[track_caller]
pub fn agree(a: &Node, b: &Node) {
    a.ctl(&["handshake", &b.id().to_string(), "to meet in the lab"]);
    until("both trust each other", || (a.trusts(b) && b.trusts(a)).then_some(()));
}

/// Sends a message and waits until it lies in the other's inbox. Says how long that took.
#[track_caller]
pub fn deliver(from: &Node, to: &Node, text: &str) -> Duration {
    let begin = Instant::now();
    let sending = from.start_ctl(&["send-message", &to.address(), "--data", text]);
    let what = format!("the message `{text}` arrives at {}", to.name());
    until(&what, || to.inbox().iter().any(|message| message["data"] == text).then_some(()));
    let took = begin.elapsed();
    sending.data();
    took
}

/// Moves megabytes to the other's echo service and back; the command compares every byte. Says how many megabytes per
/// second went each way.
#[track_caller]
pub fn echo(from: &Node, to: &Node, megabytes: u32) -> f64 {
    let bench = from.ctl(&["bench", &to.address(), &megabytes.to_string()]);
    assert_eq!(bench["complete"], true, "{bench}");
    bench["total_mbps"].as_f64().unwrap_or_default()
}
