//! Trust between our node and the reference's, each asking, answering and taking back.

use pilot_interop::{Node, Stage, until};

fn both() -> (Stage, Node, Node) {
    let stage = Stage::open();
    let ours = stage.ours("ours");
    let theirs = stage.reference("theirs");
    (stage, ours, theirs)
}

fn ask_and_approve(asking: &Node, asked: &Node) {
    asking.ctl(&["handshake", &asked.id().to_string(), "let us work together"]);
    until("the request arrives", || asked.is_asked_by(asking).then_some(()));
    asked.ctl(&["approve", &asking.id().to_string()]);
    until("the asking side trusts", || asking.trusts(asked).then_some(()));
    until("the asked side trusts", || asked.trusts(asking).then_some(()));
}

#[test]
fn the_reference_asks_and_ours_approves() {
    let (_stage, ours, theirs) = both();
    ask_and_approve(&theirs, &ours);
    let request = ours.ctl(&["ping", &theirs.address(), "--count", "1"]);
    assert!(request["results"][0]["rtt_ms"].is_number(), "{request}");
    ours.assert_sealed_to(&theirs);
    theirs.assert_sealed_to(&ours);
}

#[test]
fn ours_asks_and_the_reference_approves() {
    let (_stage, ours, theirs) = both();
    ask_and_approve(&ours, &theirs);
    let answer = theirs.ctl(&["ping", &ours.address(), "--count", "1"]);
    assert!(answer["results"][0]["rtt_ms"].is_number(), "{answer}");
    ours.assert_sealed_to(&theirs);
    theirs.assert_sealed_to(&ours);
}

#[test]
fn two_requests_that_cross_are_trust() {
    let (_stage, ours, theirs) = both();
    ours.ctl(&["handshake", &theirs.id().to_string(), "mine"]);
    theirs.ctl(&["handshake", &ours.id().to_string(), "theirs"]);
    until("both trust each other", || (ours.trusts(&theirs) && theirs.trusts(&ours)).then_some(()));
}

#[test]
fn a_request_carries_its_reason_in_both_directions() {
    let (_stage, ours, theirs) = both();
    for (asking, asked) in [(&ours, &theirs), (&theirs, &ours)] {
        asking.ctl(&["handshake", &asked.id().to_string(), "pair up for the nightly build"]);
        let pending = until("the request arrives", || {
            let pending = asked.ctl(&["pending"]);
            let row = pending["pending"].as_array()?.iter().find(|row| row["node_id"] == asking.id())?;
            Some(row.clone())
        });
        assert_eq!(pending["justification"], "pair up for the nightly build", "{pending}");
        asked.ctl(&["reject", &asking.id().to_string(), "not today"]);
        assert!(!asked.is_asked_by(asking));
    }
}

#[test]
fn a_private_node_of_ours_is_silent_to_a_reference_it_does_not_trust() {
    let (_stage, ours, theirs) = both();
    let refused = theirs.try_ctl(&[
        "send-message",
        &ours.address(),
        "--data",
        "hello",
        "--no-auto-handshake",
        "--timeout",
        "3s",
    ]);
    refused.expect_err("there is no trust yet");
    assert!(ours.inbox().is_empty());
}

#[test]
fn trust_that_is_taken_back_is_gone_on_both_sides() {
    let (_stage, ours, theirs) = both();
    ask_and_approve(&theirs, &ours);
    ours.ctl(&["untrust", &theirs.id().to_string()]);
    assert!(!ours.trusts(&theirs));
    until("the reference has heard of it", || (!theirs.trusts(&ours)).then_some(()));
    theirs
        .try_ctl(&[
            "send-message",
            &ours.address(),
            "--data",
            "hello",
            "--no-auto-handshake",
            "--timeout",
            "3s",
        ])
        .expect_err("there is no trust any more");
    assert!(ours.inbox().is_empty());
}

#[test]
fn a_reference_that_takes_trust_back_is_no_longer_trusted() {
    let (_stage, ours, theirs) = both();
    ask_and_approve(&ours, &theirs);
    theirs.ctl(&["untrust", &ours.id().to_string()]);
    until("ours has heard of it", || (!ours.trusts(&theirs)).then_some(()));
}
