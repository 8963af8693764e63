//! The reference's daemon and command line on networks of our registry, beside ours.

use pilot_interop::{Node, OPERATOR, Stage, until};
use serde_json::Value;

/// Runs the reference's command line with the operator's token.
fn as_operator(node: &Node, words: &[&str]) -> Result<Value, String> {
    let words = [&["--json"], words].concat();
    let output =
        node.command(&words).env("PILOT_ADMIN_TOKEN", OPERATOR).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(format!("{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    }
    let document: Value = serde_json::from_str(text.trim()).map_err(|error| format!("{error}: {text}"))?;
    Ok(document["data"].clone())
}

#[track_caller]
fn operator(node: &Node, words: &[&str]) -> Value {
    as_operator(node, words).unwrap_or_else(|error| panic!("{error}"))
}

fn numbers(rows: &Value) -> Vec<u64> {
    rows.as_array().into_iter().flatten().filter_map(|row| row["node_id"].as_u64()).collect()
}

#[test]
fn the_reference_creates_joins_lists_and_leaves_a_network() {
    let stage = Stage::open();
    let (a, b) = (stage.reference("ref-a"), stage.reference("ref-b"));
    let id = a.id().to_string();
    let made =
        operator(&a, &["network", "create", "--name", "team", "--join-rule", "open", "--node-id", &id]);
    assert_eq!((&made["network_id"], &made["name"]), (&1.into(), &"team".into()), "{made}");
    let refused = a.try_ctl(&["network", "create", "--name", "other", "--node-id", &id]).unwrap_err();
    assert_eq!(refused.code(), "auth_required");
    let joined = b.ctl(&["network", "join", "1"]);
    assert_eq!(joined["address"], format!("1:0001.{:04X}.{:04X}", b.id() >> 16, b.id() & 0xFFFF), "{joined}");
    let members = a.ctl(&["network", "members", "1"]);
    assert_eq!(numbers(&members["nodes"]), [u64::from(a.id()), u64::from(b.id())], "{members}");
    let list = b.ctl(&["network", "list"]);
    assert_eq!(list["networks"][1]["members"], 2, "{list}");
    b.ctl(&["network", "leave", "1"]);
    assert!(b.try_ctl(&["network", "members", "1"]).is_err());
    assert_eq!(a.ctl(&["network", "list"])["networks"][1]["members"], 1);
}

#[test]
fn the_reference_administrates_an_enterprise_network() {
    let stage = Stage::open();
    let (a, b) = (stage.reference("ref-a"), stage.reference("ref-b"));
    let (owner, member) = (a.id().to_string(), b.id().to_string());
    let create =
        ["network", "create", "--name", "corp", "--join-rule", "invite", "--enterprise", "--node-id", &owner];
    operator(&a, &create);
    a.ctl(&["network", "invite", "1", &member]);
    let invites = until("the invitation arrives", || {
        let invites = b.ctl(&["network", "invites"]);
        invites["invites"].as_array().is_some_and(|all| !all.is_empty()).then_some(invites)
    });
    assert_eq!(invites["invites"][0]["network_id"], 1, "{invites}");
    b.ctl(&["network", "accept", "1"]);
    assert_eq!(operator(&a, &["network", "role", "1", &member])["role"], "member");
    assert_eq!(operator(&a, &["network", "promote", "1", &member])["role"], "admin");
    assert_eq!(operator(&a, &["network", "demote", "1", &member])["role"], "member");
    assert_eq!(operator(&a, &["network", "rename", "1", "inc"])["name"], "inc");
    let policy = operator(&a, &["network", "policy", "1"]);
    assert_eq!(policy["max_members"], 0, "{policy}");
    operator(&a, &["network", "policy", "1", "--set", "max_members=5"]);
    operator(&a, &["network", "kick", "1", &member]);
    let audit = operator(&a, &["extras", "audit", "--network", "1"]);
    assert_eq!(audit["entries"][0]["action"], "member.kicked", "{audit}");
    let status = operator(&a, &["extras", "provision-status"]);
    assert_eq!(status["networks"][0]["name"], "inc", "{status}");
    let refused = as_operator(&a, &["extras", "audit-export", "get"]).unwrap_err();
    assert!(refused.contains("unsupported"), "{refused}");
    assert_eq!(operator(&a, &["network", "delete", "1"])["network_id"], 1);
}

#[test]
fn ours_and_the_reference_talk_as_members_of_one_network() {
    let stage = Stage::open();
    let (ours, theirs) = (stage.ours("ours"), stage.reference("theirs"));
    let id = theirs.id().to_string();
    operator(
        &theirs,
        &["network", "create", "--name", "team", "--join-rule", "token", "--token", "s3", "--node-id", &id],
    );
    assert!(ours.try_ctl(&["network", "join", "team", "--token", "guess"]).is_err());
    ours.ctl(&["network", "join", "team", "--token", "s3"]);
    assert!(ours.trusts(&theirs), "{}", ours.ctl(&["trust"]));
    // The reference asks before it sends; a fellow member is answered without its owner.
    theirs.ctl(&["handshake", &ours.id().to_string(), "fellow member"]);
    until("the reference is answered", || theirs.trusts(&ours).then_some(()));
    theirs.ctl(&["send-message", &ours.address(), "--data", "hello", "--type", "text"]);
    until("the message arrives", || {
        ours.inbox().iter().any(|message| message["data"] == "hello").then_some(())
    });
    assert!(ours.ctl(&["pending"])["pending"].as_array().is_some_and(Vec::is_empty));
    ours.ctl(&["send-message", &theirs.address(), "--data", "and back", "--now"]);
    until("the answer arrives", || {
        theirs.inbox().iter().any(|message| message["data"] == "and back").then_some(())
    });
    ours.ctl(&["network", "leave", "team"]);
    assert!(!ours.trusts(&theirs), "it ends with the membership");
}
