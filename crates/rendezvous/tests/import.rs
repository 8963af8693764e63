//! Snapshots of the reference, written after spec/registry.md 15, become a registry in which everybody is who they were.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    client::{Client, Server, fill, local},
    identity,
};
use pilot_crypto::Sha256;
use pilot_rendezvous::{
    import::{self, ImportError},
    registry::{
        Key, Record,
        record::{Counters, JoinRule},
    },
};
use pilot_wire::{
    NetworkId, NodeId,
    registry::{Request, Response, Role},
};
use serde_json::{Value, json};

const NOW: u64 = 1_795_300_000;

fn key(seed: u8) -> String {
    identity(seed).public().to_base64()
}

/// As the February version writes them (15.1). Node 2 has gone; 1 and 3 are there.
fn february() -> Value {
    json!({
        "next_node": 6,
        "next_net": 1,
        "nodes": {
            "1": { "id": 1, "owner": "ann@example.com", "public_key": key(1), "real_addr": "203.0.113.5:4000",
                   "networks": [0], "public": true, "last_seen": "2026-11-21T08:34:44Z", "hostname": "ann",
                   "tags": ["weather"], "polo_score": 7 },
            "3": { "id": 3, "public_key": key(3), "networks": [0], "last_seen": "2026-11-21T08:34:44Z" },
        },
        "networks": { "0": { "id": 0, "name": "backbone", "join_rule": "open", "members": [1, 3],
                             "created": "2026-11-21T08:34:44Z" } },
        "trust_pairs": ["1:2", "1:9"],
        "pub_key_idx": { key(1): 1, key(2): 2, key(3): 3 },
        "handshake_inbox": { "1": [ { "from_node_id": 3, "justification": "let me in",
                                      "timestamp": "2026-11-21T08:34:44.123456789Z" } ] },
        "handshake_responses": { "3": [ { "from_node_id": 1, "accept": true, "timestamp": "2026-11-21T08:34:44Z" } ] },
    })
}

fn read(snapshot: &Value) -> (Vec<(Key, Record)>, import::Report) {
    import::read(snapshot.to_string().as_bytes(), NOW, false).unwrap()
}

fn record(records: &[(Key, Record)], key: Key) -> &Record {
    &records.iter().find(|(other, _)| *other == key).unwrap_or_else(|| panic!("no {key:?}")).1
}

#[test]
fn a_february_snapshot_keeps_numbers_names_trust_and_inboxes() {
    let (records, report) = read(&february());
    assert_eq!((report.nodes, report.departed, report.networks), (2, 1, 0));
    assert_eq!((report.trust_links, report.waiting), (1, 2));
    assert_eq!(report.left_out, ["the trust pair \"1:9\": a node of it is not known"]);
    let Record::Counters(counters) = record(&records, Key::Counters) else { panic!() };
    assert_eq!(*counters, Counters { next_node: 6, next_network: 1 });
    for (one, other) in [(1, 2), (2, 1)] {
        let Record::Consents { peers } = record(&records, Key::Consents(NodeId(one))) else { panic!() };
        assert!(peers.contains(&NodeId(other)), "both have consented");
    }

    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("r.redb");
    fill(&store.clone().into(), records).unwrap();
    let server = Server::start(local(&store));
    let registry = server.bound.registry;
    // Node 2 is back, and is who it was; so are the others.
    assert_eq!(Client::registered(registry, identity(2)).id, NodeId(2));
    let mut ann = Client::registered(registry, identity(1));
    assert_eq!(ann.id, NodeId(1));
    let Response::Lookup(seen) = ann.ask(Request::Lookup(common::about(NodeId(1)))) else { panic!() };
    assert_eq!(
        (seen.hostname.as_deref(), seen.tags.as_slice()),
        (Some("ann"), ["weather".to_owned()].as_slice())
    );
    assert_eq!((seen.polo_score, seen.public), (7, true));
    let Response::PollHandshakes(inbox) = ann.ask(Request::PollHandshakes(common::about(NodeId(1)))) else {
        panic!()
    };
    assert_eq!(inbox.requests.len(), 1);
    assert_eq!(inbox.requests[0].justification, "let me in");
    let stranger = Client::registered(registry, identity(99));
    assert_eq!(stranger.id, NodeId(6), "and new ones get new numbers");
}

/// As version 1.9 writes them (15.2).
fn later() -> Value {
    let mut snapshot = february();
    snapshot["version"] = 1.into();
    snapshot["nodes"]["3"]["lan_addrs"] = json!(["192.168.1.3:4000"]);
    snapshot["nodes"]["3"]["version"] = "v1.18.0".into();
    snapshot["nodes"]["3"]["key_rotated"] = "2026-11-21T07:31:47Z".into();
    snapshot["next_net"] = 4.into();
    snapshot["networks"]["3"] = json!({
        "id": 3, "name": "market", "join_rule": "token", "token": "open-sesame", "members": [1, 3, 8],
        "created": "2026-11-21T08:34:44Z", "enterprise": true, "member_roles": { "1": "owner", "3": "admin" },
        "member_tags": { "3": ["seller"] }, "policy": { "max_members": 5, "allowed_ports": [80], "description": "d" },
        "admin_token": "net-admin", "rules": null, "request_count": 12,
    });
    snapshot["invite_inbox"] =
        json!({ "2": [ { "network_id": 3, "inviter_id": 1, "timestamp": "2026-11-21T08:34:44Z" } ] });
    snapshot["audit_log"] = json!([{ "action": "x" }]);
    snapshot
}

#[test]
fn networks_come_with_roles_tags_policy_and_tokens_as_digests() {
    let (records, report) = read(&later());
    assert_eq!(report.networks, 1);
    assert!(report.left_out.iter().any(|what| what.contains("member 8")), "{report:?}");
    let Record::Network(network) = record(&records, Key::Network(NetworkId(3))) else { panic!() };
    assert!(matches!(&network.join_rule, JoinRule::Token { digest } if digest.len() == 64));
    assert!(network.admin_token.as_ref().is_some_and(|digest| digest.len() == 64));
    assert_eq!(network.members.len(), 2);
    assert_eq!(network.members[&NodeId(1)].role, Role::Owner);
    assert_eq!(network.members[&NodeId(3)].role, Role::Admin);
    assert_eq!(network.members[&NodeId(3)].tags, ["seller"]);
    assert_eq!((network.policy.max_members, network.policy.allowed_ports.as_slice()), (5, [80].as_slice()));
    let Record::Inbox(inbox) = record(&records, Key::Inbox(NodeId(2))) else { panic!() };
    assert_eq!(inbox.invites[0].network, NetworkId(3));
    let Record::Node(node) = record(&records, Key::Node(NodeId(3))) else { panic!() };
    assert_eq!(node.key_since, 1_795_246_307);
    let Record::Counters(counters) = record(&records, Key::Counters) else { panic!() };
    assert_eq!(counters.next_network, 4);
}

/// The text with its checksum as the last member, as the reference writes it.
fn with_checksum(snapshot: &Value) -> String {
    let text = snapshot.to_string();
    let sum: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{},\"checksum\":\"{sum}\"}}", text.strip_suffix('}').unwrap())
}

#[test]
fn a_wrong_checksum_is_refused_unless_it_is_to_be_ignored() {
    let text = with_checksum(&later());
    let (_, report) = import::read(text.as_bytes(), NOW, false).unwrap();
    assert!(report.checked);
    let edited = text.replace("\"ann\"", "\"eve\"");
    assert!(matches!(import::read(edited.as_bytes(), NOW, false), Err(ImportError::Checksum)));
    let (_, report) = import::read(edited.as_bytes(), NOW, true).unwrap();
    assert!(!report.checked && report.left_out[0].contains("checksum"), "{report:?}");
}

#[test]
fn what_does_not_fit_is_left_out_and_said() {
    let mut snapshot = february();
    snapshot["nodes"]["4"] = json!({ "id": 4, "public_key": key(4), "hostname": "ann" });
    snapshot["nodes"]["5"] = json!({ "id": 5, "public_key": "no key" });
    snapshot["nodes"]["7"] = json!({ "id": 7, "public_key": key(1), "tags": ["not a label"] });
    snapshot["pub_key_idx"][key(20)] = 12.into();
    snapshot["pub_key_idx"][key(21)] = 12.into();
    let (records, report) = read(&snapshot);
    for what in ["hostname \"ann\" of node 4", "node 5: its key", "node 7: node 1 has", "node 12: 2 keys"] {
        assert!(report.left_out.iter().any(|left| left.contains(what)), "{what}: {report:?}");
    }
    let Record::Counters(counters) = record(&records, Key::Counters) else { panic!() };
    assert_eq!(counters.next_node, 13, "a number that was given out is never given again");
    let folder = tempfile::tempdir().unwrap();
    fill(&folder.path().join("r.redb").into(), records).unwrap();
}

#[test]
fn the_recorded_snapshot_of_an_empty_registry_has_nothing_to_take() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../wire/tests/vectors/registry.json")).unwrap();
    let frames = vectors["replication_feb2026"]["frames"].as_array().unwrap();
    let text = frames
        .iter()
        .filter_map(|frame| frame["raw"].as_str())
        .find(|raw| raw.contains("next_node"))
        .unwrap();
    let frame: Value = serde_json::from_str(text).unwrap();
    let read = import::read(frame["snapshot"].to_string().as_bytes(), NOW, false);
    assert!(matches!(read, Err(ImportError::Empty)), "{read:?}");
    for text in ["", "[]", "{}", "{\"next_node\":\"x\"}"] {
        assert!(
            matches!(import::read(text.as_bytes(), NOW, false), Err(ImportError::Unreadable(_))),
            "{text}"
        );
    }
}
