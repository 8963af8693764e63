//! The released reference where UDP does not pass: in its compat mode, over the web to our beacon.

use std::fs;

use pilot_interop::{Node, Pair, Stage, until};

/// Messages, a stream and a file from one to the other, sealed and through the beacon.
fn reaches(from: &Node, to: &Node) {
    let text = format!("from {}", from.name());
    from.ctl(&["send-message", &to.address(), "--data", &text]);
    assert!(to.inbox().iter().any(|message| message["data"] == text.as_str()));
    let echoed = from.ctl(&["connect", &to.address(), "7", "--message", "echo"]);
    assert_eq!(echoed["response"], "echo", "{echoed}");
    let file = from.home().join(format!("{}.bin", from.name()));
    let content: Vec<u8> = (0..2_000_000_u32).map(|i| (i % 253) as u8).collect();
    fs::write(&file, &content).expect("a file can be written");
    from.ctl(&["send-file", &to.address(), &file.to_string_lossy()]);
    let received = fs::read_dir(to.received()).expect("something was received").filter_map(Result::ok);
    assert!(received.filter_map(|entry| fs::read(entry.path()).ok()).any(|bytes| bytes == content));
    from.assert_sealed_to(to);
}

fn is_relayed(node: &Node, peer: &Node) {
    let peers = node.ctl(&["peers"]);
    let rows = peers["peers"].as_array().expect("peers are listed");
    let row = rows.iter().find(|row| row["node_id"] == peer.id()).expect("the peer is listed");
    assert_eq!(row["relay"], true, "{row}");
}

#[test]
fn the_reference_on_the_web_and_ours_on_udp_reach_each_other_through_our_beacon() {
    let stage = Stage::open();
    let (ours, theirs) = (stage.ours("ours"), stage.reference_on_the_web("theirs"));
    let pair = Pair::befriended(stage, ours, theirs);
    for (from, to) in pair.directions() {
        reaches(from, to);
        is_relayed(from, to);
    }
    pair.assert_sealed();
}

#[test]
fn both_on_the_web_reach_each_other() {
    let stage = Stage::open();
    let (ours, theirs) = (stage.ours_on_the_web("ours"), stage.reference_on_the_web("theirs"));
    let pair = Pair::befriended(stage, ours, theirs);
    for (from, to) in pair.directions() {
        reaches(from, to);
        is_relayed(from, to);
    }
    assert_eq!(pair.ours.ctl(&["info"])["transport"], "web");
}

#[test]
fn ours_on_the_web_and_the_reference_on_udp_reach_each_other() {
    let stage = Stage::open();
    let (ours, theirs) = (stage.ours_on_the_web("ours"), stage.reference("theirs"));
    let pair = Pair::befriended(stage, ours, theirs);
    for (from, to) in pair.directions() {
        reaches(from, to);
    }
}

#[test]
fn the_reference_comes_back_over_the_web_when_the_rendezvous_was_killed() {
    let stage = Stage::open();
    let (ours, theirs) = (stage.ours("ours"), stage.reference_on_the_web("theirs"));
    let mut pair = Pair::befriended(stage, ours, theirs);
    reaches(&pair.ours, &pair.theirs);
    pair.stage.crash_and_restart_rendezvous();
    let (id, words) = (pair.theirs.address(), "after the crash");
    until("a message arrives again", || {
        pair.ours.try_ctl(&["send-message", &id, "--data", words]).ok()?;
        pair.theirs.inbox().iter().any(|message| message["data"] == words).then_some(())
    });
}
