//! Each command line, and the reference's Python library, drive the other side's daemon.

use std::fs;

use pilot_interop::{Node, Pair, Stage, until};

/// What a person does with a node, done with the other side's command line on both nodes of a trusting pair.
fn the_other_command_line_drives(node: &Node, peer: &Node) {
    let info = node.foreign_ctl(&["info"]);
    assert_eq!(info["node_id"], node.id(), "{info}");
    assert_eq!(info["address"].as_str(), Some(node.address().as_str()), "{info}");
    assert_eq!(info["hostname"], node.name(), "{info}");

    let answer = node.foreign_ctl(&["ping", &peer.address(), "--count", "2"]);
    assert!(answer["results"][1]["rtt_ms"].is_number(), "{answer}");

    let row = until("the peer is listed", || {
        let peers = node.foreign_ctl(&["peers"]);
        peers["peers"].as_array()?.iter().find(|row| row["node_id"] == peer.id()).cloned()
    });
    assert_eq!((&row["encrypted"], &row["authenticated"]), (&true.into(), &true.into()), "{row}");

    let trust = node.foreign_ctl(&["trust"]);
    assert_eq!(trust["trusted"][0]["node_id"], peer.id(), "{trust}");

    node.foreign_ctl(&["send-message", &peer.address(), "--data", "driven by another hand"]);
    assert!(peer.inbox().iter().any(|message| message["data"] == "driven by another hand"));

    let echoed = node.foreign_ctl(&["connect", &peer.address(), "7", "--message", "echo"]);
    assert_eq!(echoed["response"], "echo", "{echoed}");

    let mut found = node.foreign_ctl(&["find", peer.name()]);
    assert_eq!(found["node_id"].take(), peer.id());

    node.foreign_ctl(&["set-hostname", "renamed"]);
    until("the new name shows", || (node.foreign_ctl(&["info"])["hostname"] == "renamed").then_some(()));
    let visibility = node.foreign_ctl(&["set-public"]);
    assert_eq!(visibility["visibility"], "public", "{visibility}");
    node.foreign_ctl(&["set-private"]);

    let connections = node.foreign_ctl(&["connections"]);
    assert!(connections["total"].is_number(), "{connections}");

    let file = node.home().join("small.txt");
    fs::write(&file, "a small file").expect("a file can be written");
    node.foreign_ctl(&["send-file", &peer.address(), &file.to_string_lossy()]);
    let received = fs::read_dir(peer.received()).expect("something was received").filter_map(Result::ok);
    assert!(received.filter_map(|entry| fs::read(entry.path()).ok()).any(|bytes| bytes == b"a small file"));
}

#[test]
fn the_reference_command_line_drives_our_daemon() {
    let pair = Pair::trusting();
    the_other_command_line_drives(&pair.ours, &pair.theirs);
}

#[test]
fn our_command_line_drives_the_reference_daemon() {
    let pair = Pair::trusting();
    the_other_command_line_drives(&pair.theirs, &pair.ours);
}

#[test]
fn the_reference_command_line_reads_the_inbox_and_files_of_our_daemon() {
    let pair = Pair::trusting();
    pair.theirs.ctl(&["send-message", &pair.ours.address(), "--data", "for the inbox"]);
    let inbox = pair.ours.foreign_ctl(&["inbox"]);
    let row = &inbox["messages"][0];
    assert_eq!(row["preview"], "for the inbox", "{inbox}");
    let id = row["id"].as_str().expect("a message has an id");
    let message = pair.ours.foreign_ctl(&["inbox", "read", id]);
    assert!(message.to_string().contains("for the inbox"), "{message}");

    let file = pair.stage.folder().join("notes.txt");
    fs::write(&file, "notes").expect("a file can be written");
    pair.theirs.ctl(&["send-file", &pair.ours.address(), &file.to_string_lossy()]);
    let received = pair.ours.foreign_ctl(&["received"]);
    assert_eq!(received["files"][0]["bytes"], 5, "{received}");
}

fn the_other_command_line_manages_trust(asking: &Node, asked: &Node) {
    asking.foreign_ctl(&["handshake", &asked.id().to_string(), "driven"]);
    until("the request arrives", || {
        let pending = asked.foreign_ctl(&["pending"]);
        pending["pending"].as_array()?.iter().any(|row| row["node_id"] == asking.id()).then_some(())
    });
    asked.foreign_ctl(&["approve", &asking.id().to_string()]);
    until("both trust each other", || (asking.trusts(asked) && asked.trusts(asking)).then_some(()));
    asked.foreign_ctl(&["untrust", &asking.id().to_string()]);
    until("trust is gone on both sides", || (!asking.trusts(asked) && !asked.trusts(asking)).then_some(()));
}

#[test]
fn a_request_of_ours_is_handled_with_the_other_command_lines() {
    let stage = Stage::open();
    the_other_command_line_manages_trust(&stage.ours("ours"), &stage.reference("theirs"));
}

#[test]
fn a_request_of_the_reference_is_handled_with_the_other_command_lines() {
    let stage = Stage::open();
    the_other_command_line_manages_trust(&stage.reference("theirs"), &stage.ours("ours"));
}

/// A listener and a dialer, written as the package's documentation shows them.
const PYTHON_TOUR: &str = r#"
import os, sys, threading
from pilotprotocol import Driver
socket, peer, port = os.environ["PILOT_SOCKET"], sys.argv[1], int(sys.argv[2])
with Driver(socket) as driver:
    info = driver.info()
    assert info["encrypt"], info
    assert [row["node_id"] for row in driver.trusted_peers()["trusted"]], "somebody is trusted"
    with driver.dial(f"{peer}:7") as conn:
        conn.write(b"hello from python")
        echoed = b""
        while len(echoed) < 17:
            echoed += conn.read(4096)
        assert echoed == b"hello from python", echoed
    answer = driver.send_message(peer, b"a message from python", "text")
    assert "ACK" in str(answer), answer
    with driver.listen(port) as listener:
        print("listening", flush=True)
        with listener.accept() as conn:
            data = conn.read(4096)
            conn.write(b"python heard " + data)
print("done")
"#;

#[test]
fn the_reference_python_library_drives_our_daemon() {
    let pair = Pair::trusting();
    let said = std::thread::scope(|scope| {
        let script = scope.spawn(|| pair.ours.python(PYTHON_TOUR, &[&pair.theirs.address(), "2000"]));
        let answer = until("the script listens and answers", || {
            let words =
                ["connect", &pair.ours.address(), "2000", "--message", "the reference", "--timeout", "10s"];
            let answer = pair.theirs.try_ctl(&words).ok();
            assert!(answer.is_some() || !script.is_finished(), "the script has ended");
            answer
        });
        assert_eq!(answer["response"], "python heard the reference", "{answer}");
        script.join().expect("the script succeeds")
    });
    assert!(said.contains("done"), "{said}");
    assert!(pair.theirs.inbox().iter().any(|message| message["data"] == "a message from python"));
    pair.assert_sealed();
}
