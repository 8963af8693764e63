//! What two nodes do when they meet: agree on trust, send a message, move data.

use std::thread::sleep;
use std::time::{Duration, Instant};

use pilot_interop::{Node, PATIENCE, until};

use crate::lab::Lab;
use crate::path::Way;

/// Pause between two looks at something whose time is measured.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

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
    while !to.inbox().iter().any(|message| message["data"] == text) {
        assert!(begin.elapsed() < PATIENCE, "gave up waiting until `{text}` arrives at {}", to.name());
        sleep(LOOK_AGAIN);
    }
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

/// As [`echo`], and asserts by the counters of the rendezvous's machine that the data took this way, whatever the
/// daemons say of it.
#[track_caller]
pub fn echo_by(way: Way, lab: &Lab, from: &Node, to: &Node, megabytes: u32) -> f64 {
    let before = lab.rendezvous().traffic();
    let rate = echo(from, to, megabytes);
    let relayed = lab.rendezvous().traffic().since(before).bytes_in;
    // Out and back, both through the beacon or none of it.
    let whole = u64::from(megabytes) << 21;
    match way {
        Way::Direct => assert!(relayed < whole / 10, "{relayed} bytes went through the beacon"),
        Way::Relay => assert!(relayed > whole, "only {relayed} bytes went through the beacon"),
    }
    rate
}
