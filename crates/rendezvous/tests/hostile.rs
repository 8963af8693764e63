//! Whatever is sent, the registry and the beacon go on, and what the registry writes can be read back.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{World, about, identity, register};
use pilot_rendezvous::beacon;
use pilot_wire::{
    NodeId,
    registry::{Envelope, Request},
};
use proptest::{collection::vec, prelude::*};
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

/// A value for any field: mostly of the kind that some request expects.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (0_u32..5).prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        2 => "[a-z#-]{0,4}".prop_map(Value::from),
        1 => "\\PC{0,40}".prop_map(Value::from),
        1 => Just(Value::Null),
        1 => vec("[a-zB#]{0,34}", 0..12).prop_map(Value::from),
        1 => vec(any::<u32>(), 0..12).prop_map(Value::from),
        1 => Just(json!({"version": 1, "rules": [1]})),
        1 => prop::sample::select(vec!["open", "token", "invite", "adm", "{\"version\":1,\"rules\":[{}]}"])
            .prop_map(Value::from),
    ]
}

/// A request of a known type with arbitrary fields, signed by one of the nodes as if it meant it.
fn request() -> impl Strategy<Value = (Value, u8)> {
    let kinds = vec![
        "register",
        "heartbeat",
        "deregister",
        "lookup",
        "resolve",
        "resolve_hostname",
        "set_visibility",
        "set_hostname",
        "set_tags",
        "rotate_key",
        "report_trust",
        "revoke_trust",
        "check_trust",
        "request_handshake",
        "poll_handshakes",
        "respond_handshake",
        "await_notices",
        "punch",
        "beacon_register",
        "beacon_list",
        "list_networks",
        "list_nodes",
        "create_network",
        "delete_network",
        "rename_network",
        "set_network_enterprise",
        "join_network",
        "leave_network",
        "invite_to_network",
        "poll_invites",
        "respond_invite",
        "kick_member",
        "promote_member",
        "demote_member",
        "transfer_ownership",
        "get_member_role",
        "set_member_tags",
        "get_member_tags",
        "set_network_policy",
        "get_network_policy",
        "set_expr_policy",
        "get_expr_policy",
    ];
    let fields = [
        "node_id",
        "peer_id",
        "requester_id",
        "from_node_id",
        "to_node_id",
        "node_a",
        "node_b",
        "network_id",
        "inviter_id",
        "target_node_id",
        "new_owner_id",
        "hostname",
        "name",
        "tags",
        "public",
        "accept",
        "enterprise",
        "join_rule",
        "token",
        "admin_token",
        "max_members",
        "allowed_ports",
        "description",
        "expr_policy",
        "rules",
        "listen_addr",
        "justification",
        "timeout_ms",
        "beacon_id",
        "addr",
        "new_public_key",
        "public_key",
        "lan_addrs",
        "owner",
        "version",
        "relay_only",
        "network_admin_token",
    ];
    let values = vec(value(), fields.len());
    (prop::sample::select(kinds), values, any::<bool>(), 1_u8..4).prop_map(
        move |(kind, values, admin, signer)| {
            let mut object: Map<String, Value> =
                fields.iter().zip(values).map(|(field, value)| ((*field).to_owned(), value)).collect();
            object.insert("type".to_owned(), kind.into());
            if admin {
                object.insert("admin_token".to_owned(), "adm".into());
            }
            if signer == 3 {
                object.insert("new_public_key".to_owned(), identity(77).public().to_base64().into());
                object.insert("public_key".to_owned(), identity(78).public().to_base64().into());
            }
            (Value::Object(object), signer)
        },
    )
}

proptest! {
    // Each case is a registry's life of up to forty signed requests.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_requests_in_any_order_leave_a_registry_that_can_be_restored(
        requests in vec((request(), 0_u64..200), 1..40)
    ) {
        let mut world = World::new();
        let agents = [world.agent(1), world.agent(2), world.agent(3)];
        for ((object, signer), pause) in requests {
            let Ok(Envelope { request, admin_token, .. }) = Envelope::parse(object.to_string().as_bytes()) else {
                continue;
            };
            let signed = request.sign_with(|text| identity(signer).sign(text));
            let agent = &agents[usize::from(signer) % agents.len()];
            let is_wait = matches!(signed, Request::AwaitNotices(_));
            world.send(agent.conn, Envelope::with_token(signed, admin_token));
            prop_assert!(world.reply(agent.conn).is_some() || is_wait, "every request is answered");
            world.pass(Duration::from_secs(pause));
            while world.reply(agent.conn).is_some() {}
        }
        let counts = world.state.node_counts();
        world.restart();
        prop_assert_eq!(world.state.node_counts(), counts);
        prop_assert!(world.state.take_changes().is_empty(), "a restart changes nothing");
    }

    #[test]
    fn any_datagrams_in_any_order_leave_a_beacon_within_its_bounds(
        datagrams in vec((vec(any::<u8>(), 0..40), 0_u8..4, 0_u64..100), 0..80)
    ) {
        let config = beacon::Config { max_nodes: 8, ..beacon::Config::default() };
        let mut state = beacon::State::new(config);
        let mut now = Instant::now();
        for (mut datagram, from, pause) in datagrams {
            if let Some(first) = datagram.first_mut() {
                *first %= 12;
            }
            now += Duration::from_secs(pause);
            let from = format!("192.0.2.{from}:1000").parse().unwrap();
            state.handle_datagram(now, from, &datagram);
            let mut sent = 0;
            while let Some(train) = state.poll_transmit() {
                sent += train.content.len();
            }
            prop_assert!(sent <= 3 * datagram.len(), "no amplifier: {} bytes for {}", sent, datagram.len());
            prop_assert!(state.len() <= 8);
        }
    }
}

#[test]
fn a_node_cannot_grow_what_the_registry_keeps_of_it_without_bound() {
    let mut world = World::new();
    let a = world.agent(1);
    let long = "x".repeat(100_000);
    let json = json!({
        "type": "register", "public_key": a.identity.public(), "listen_addr": "0.0.0.0:1", "owner": long,
        "version": long, "hostname": long, "lan_addrs": vec!["192.168.1.1:1"; 10_000],
    });
    let envelope = Envelope::parse(json.to_string().as_bytes()).unwrap();
    world.ask(a.conn, a.signed(envelope.request));
    let record = world.disk.get(&pilot_rendezvous::registry::Key::Node(a.id)).unwrap();
    assert!(serde_json::to_vec(record).unwrap().len() < 2000);
    assert!(matches!(
        world.ask(a.conn, Request::Lookup(about(NodeId(1)))),
        pilot_wire::registry::Response::Lookup(_)
    ));
    world.ask(a.conn, register(&a.identity, &long));
}
