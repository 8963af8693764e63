//! The exchanges recorded from the reference's registry of generation 1.9, against ours. Where ours answers otherwise
//! it is listed here, with the reason; an entry that is no longer needed fails the test.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::World;
use pilot_rendezvous::registry::ConnId;
use pilot_wire::registry::{Envelope, RequestError, Response};
use serde_json::Value;

/// Requests this registry does not know: they are for operators of a public registry, and no node asks for them.
const UNKNOWN: &[&str] = &[
    "set_external_id",
    "get_identity",
    "directory_sync",
    "directory_status",
    "set_webhook",
    "get_webhook",
    "get_webhook_dlq",
    "set_identity_webhook",
    "set_audit_export",
    "get_audit_export",
    "set_idp_config",
    "get_idp_config",
    "validate_token",
    "submit_badge",
    "subscribe_replication",
];

/// Answered otherwise on purpose.
const DIFFERENCES: &[(&str, &str)] = &[
    ("register listen_addr w/o port", "the port of a TCP connection says nothing about where UDP is heard"),
    (
        "register same owner, new key (owner_key_update / takeover)",
        "a text anybody may write leads to no node (S1)",
    ),
    ("lookup after owner takeover", "node 2 still has its key, and its name is not for strangers"),
    ("resolve_hostname private, no requester", "the connection has proven to be node 2 (P2)"),
    ("heartbeat no signature right after a verified one", "nobody keeps another node alive (S14)"),
    (
        "respond_handshake reject (same signature valid)",
        "a request is answered once; the signature could be replayed",
    ),
    ("poll_handshakes with responses", "the second answer was refused"),
    ("resolve private after one-sided report_trust", "trust takes the consent of both (S6)"),
    ("punch (leaks private endpoints)", "tells no more than resolve (S7)"),
    ("list_networks", "one node more, because the takeover was a registration"),
    ("list_nodes backbone admin", "one node more"),
    ("list_networks (after)", "one node more"),
    ("rotate_key (v1.18 challenge, signed by current key)", "both texts are accepted"),
    ("update_polo_score", "scores follow from what both sides of a task have signed"),
    ("update_polo_score fractional", "scores follow from what both sides of a task have signed"),
    ("set_polo_score", "scores follow from what both sides of a task have signed"),
    ("re-register deregistered key (reclaimed_identity)", "a key that has signed must sign (S2)"),
    ("set_key_expiry bad", "the text tells how a time is written"),
    ("provision_network", "roles by external_id need an identity provider"),
    ("get_provision_status", "that network was not made"),
    ("get_audit_log", "what there is no such thing for was not done"),
    ("lookup reclaimed (hostname/tags/visibility/score reset)", "it was not registered again"),
];

#[test]
fn the_registry_answers_as_the_reference_does_except_where_it_must_not() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../wire/tests/vectors/registry.json")).unwrap();
    let mut world = World::new();
    let conn = world.connect("127.0.0.1:60348");
    let mut compared = 0;
    let mut surprises = Vec::new();
    for entry in vectors["sequence_v1_9"].as_array().unwrap() {
        let (request, recorded) = (&entry["request"], &entry["response"]);
        let label = entry["label"].as_str().unwrap();
        if !request.is_object() || !recorded.is_object() || entry["replay"] == false {
            continue;
        }
        let ours = answer(&mut world, conn, request);
        if UNKNOWN.contains(&request["type"].as_str().unwrap_or_default()) {
            assert_eq!(ours["type"], "error", "{label}");
            continue;
        }
        compared += 1;
        let listed = DIFFERENCES.iter().any(|(known, _)| *known == label);
        if says_the_same(&ours, recorded) == listed {
            surprises.push(format!("{label} (listed: {listed})\n  recorded {recorded}\n  ours     {ours}"));
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    assert!(compared > 150, "{compared}");
}

fn answer(world: &mut World, conn: ConnId, request: &Value) -> Value {
    let response = match Envelope::parse(request.to_string().as_bytes()) {
        Ok(envelope) => world.ask(conn, envelope),
        Err(
            error @ (RequestError::UnknownType(_) | RequestError::Unsupported(_) | RequestError::Invalid(_)),
        ) => Response::error(error.to_string()),
        Err(error @ RequestError::Malformed(_)) => panic!("{error}"),
    };
    serde_json::from_slice(&response.to_json()).unwrap()
}

/// True if everything recorded stands in ours, apart from times. A refusal that the reference did not explain may be
/// explained.
fn says_the_same(ours: &Value, recorded: &Value) -> bool {
    const IGNORED: &[&str] = &[
        "polo_score",
        "task_exec",
        "external_id",
        "time",
        "timestamp",
        "created",
        "created_at",
        "last_seen",
    ];
    match (ours, recorded) {
        (Value::Object(ours), Value::Object(recorded)) => {
            if recorded.get("error").is_some_and(|text| text == "request failed") {
                return ours.contains_key("error");
            }
            recorded.iter().all(|(field, value)| {
                let is_empty = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
                IGNORED.contains(&field.as_str())
                    || ours.get(field).map_or_else(|| is_empty(value), |mine| says_the_same(mine, value))
            })
        }
        (Value::Array(ours), Value::Array(recorded)) => {
            ours.len() == recorded.len()
                && ours.iter().zip(recorded).all(|(ours, value)| says_the_same(ours, value))
        }
        (Value::Array(ours), Value::Null) => ours.is_empty(),
        (ours, recorded) => ours == recorded,
    }
}
