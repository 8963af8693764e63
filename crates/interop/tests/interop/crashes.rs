//! A process that dies and comes back finds everything as it was, whoever it talks to.

use pilot_interop::{Node, Pair, until};

fn message_arrives(from: &Node, to: &Node, text: &str) {
    until("a message arrives", || {
        from.try_ctl(&["send-message", &to.address(), "--data", text, "--timeout", "5s"]).ok()
    });
    assert!(to.inbox().iter().any(|message| message["data"] == text));
}

#[test]
fn the_reference_daemon_crashes_and_both_go_on() {
    let mut pair = Pair::trusting();
    message_arrives(&pair.theirs, &pair.ours, "before");
    pair.theirs.crash_and_restart();
    assert!(pair.theirs.trusts(&pair.ours));
    message_arrives(&pair.ours, &pair.theirs, "after, from ours");
    message_arrives(&pair.theirs, &pair.ours, "after, from theirs");
    pair.assert_sealed();
}

#[test]
fn our_daemon_crashes_and_both_go_on() {
    let mut pair = Pair::trusting();
    message_arrives(&pair.theirs, &pair.ours, "before");
    pair.ours.crash_and_restart();
    assert!(pair.ours.trusts(&pair.theirs));
    assert!(pair.ours.inbox().iter().any(|message| message["data"] == "before"));
    message_arrives(&pair.theirs, &pair.ours, "after, from theirs");
    message_arrives(&pair.ours, &pair.theirs, "after, from ours");
    pair.assert_sealed();
}

#[test]
fn our_rendezvous_crashes_and_keeps_every_address() {
    let mut pair = Pair::trusting();
    message_arrives(&pair.theirs, &pair.ours, "before");
    pair.stage.crash_and_restart_rendezvous();
    message_arrives(&pair.theirs, &pair.ours, "while the tunnels are warm");
    // A node that starts again registers with the key that the store has kept.
    pair.theirs.crash_and_restart();
    pair.ours.crash_and_restart();
    message_arrives(&pair.ours, &pair.theirs, "after");
    pair.assert_sealed();
}
