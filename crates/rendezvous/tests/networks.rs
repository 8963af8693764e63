//! Networks: who is told of their members, what ends by itself, what operators see, and the directory of agents.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{Agent, World, about, refusal, rotate};
use pilot_wire::{
    Addr, NetworkId, NodeId,
    registry::{
        AuditQuery, Card, CardQuery, Envelope, JoinNetwork, MemberQuery, Members, MembersQuery, Membership,
        NetworkUpdate, NoticeKind, OwnNetwork, PolicyUpdate, Provision, PublishCard, PublishedCard,
        RemoveCard, Request, Response, Sent, SetKeyExpiry, SetMemberExpiry,
    },
};
use serde_json::json;
use std::time::Duration;

fn join(world: &mut World, agent: &Agent, network_id: NetworkId) {
    let join =
        JoinNetwork { node_id: agent.id, network_id, token: "sekrit".to_owned(), ..JoinNetwork::default() };
    assert!(matches!(world.by(agent, Request::JoinNetwork(join)), Response::JoinNetwork(_)));
}

fn leave(world: &mut World, agent: &Agent, network_id: NetworkId) {
    let leave = Membership { node_id: agent.id, network_id, ..Membership::default() };
    assert!(matches!(world.by(agent, Request::LeaveNetwork(leave)), Response::LeaveNetwork { .. }));
}

fn own(world: &mut World, agent: &Agent) -> Vec<OwnNetwork> {
    match world.by(agent, Request::OwnNetworks(about(agent.id))) {
        Response::OwnNetworks { networks } => networks,
        other => panic!("{other:?}"),
    }
}

fn members(world: &mut World, agent: &Agent, network_id: NetworkId, since: &str) -> Members {
    let query =
        MembersQuery { node_id: agent.id, network_id, since: since.to_owned(), ..MembersQuery::default() };
    match world.by(agent, Request::ListMembers(query)) {
        Response::ListMembers(members) => members,
        other => panic!("{other:?}"),
    }
}

fn nodes(members: &Members) -> Vec<NodeId> {
    members.members.iter().map(|member| member.node_id).collect()
}

#[test]
fn a_member_is_told_the_others_with_their_keys_and_then_what_changed() {
    let mut world = World::new();
    let (a, mut b, c) = (world.agent(1), world.agent(2), world.agent(3));
    let id = world.create_network(&a, "team", "open");
    join(&mut world, &b, id);
    let all = members(&mut world, &a, id, "");
    assert!(all.complete);
    assert_eq!(nodes(&all), [a.id, b.id]);
    assert_eq!(all.members[1].public_key, Some(b.identity.public()));
    assert_eq!(own(&mut world, &a)[0].version, all.version, "one request tells whether the other is needed");

    join(&mut world, &c, id);
    let news = members(&mut world, &a, id, &all.version);
    assert!(!news.complete);
    assert_eq!((nodes(&news), news.left.clone()), (vec![c.id], vec![]));
    leave(&mut world, &c, id);
    let new_key = common::identity(9);
    assert!(matches!(world.by(&b, rotate(b.id, &new_key)), Response::RotateKey(_)));
    b.identity = new_key;
    let news = members(&mut world, &a, id, &news.version);
    assert_eq!((nodes(&news), news.left.clone()), (vec![b.id], vec![c.id]));
    assert_eq!(news.members[0].public_key, Some(b.identity.public()));
    let news = members(&mut world, &a, id, &news.version);
    assert_eq!((nodes(&news), news.left.clone()), (vec![], vec![]));

    let query = MembersQuery { node_id: c.id, network_id: id, ..MembersQuery::default() };
    assert!(refusal(&world.by(&c, Request::ListMembers(query))).contains("not a member"));
    world.restart();
    let a = world.agent(1);
    assert!(members(&mut world, &a, id, &news.version).complete, "versions of another life mean nothing");
}

#[test]
fn members_are_told_at_once_that_one_was_kicked_and_so_is_the_one() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let id = world.create_network(&a, "team", "open");
    join(&mut world, &b, id);
    let ears: Vec<_> = [&a, &b]
        .into_iter()
        .map(|agent| {
            own(&mut world, agent);
            let ear = world.connect("198.51.100.77:1");
            world.listen(agent, ear);
            assert_eq!(world.reply(ear), None, "nothing is new");
            ear
        })
        .collect();
    let kick = MemberQuery { network_id: id, node_id: a.id, target_node_id: b.id };
    assert!(matches!(world.by(&a, Request::KickMember(kick)), Response::KickMember { .. }));
    for ear in ears {
        assert_eq!(world.told(ear).unwrap().kinds, [NoticeKind::Networks]);
    }
    assert!(own(&mut world, &b).is_empty());
    assert_eq!(own(&mut world, &a)[0].members, 1);
}

#[test]
fn a_network_can_have_a_number_of_ones_own_choice_but_no_number_twice() {
    let mut world = World::new();
    let a = world.agent(1);
    let create = |name: &str, number| {
        Request::CreateNetwork(pilot_wire::registry::CreateNetwork {
            node_id: a.id,
            name: name.to_owned(),
            network_id: NetworkId(number),
            ..Default::default()
        })
    };
    let number = |response: Response| match response {
        Response::CreateNetwork { network_id, .. } => network_id.0,
        other => panic!("{other:?}"),
    };
    assert_eq!(number(world.as_admin(a.conn, create("data-agents", 9))), 9);
    assert_eq!(number(world.as_admin(a.conn, create("next", 0))), 10);
    for taken in [5, 9, 10] {
        let answer = world.as_admin(a.conn, create("again", taken));
        assert!(refusal(&answer).contains("cannot be had"), "{taken}");
    }
    let delete = NetworkUpdate { network_id: NetworkId(10), ..NetworkUpdate::default() };
    world.as_admin(a.conn, Request::DeleteNetwork(delete));
    world.restart();
    assert!(refusal(&world.as_admin(a.conn, create("again", 10))).contains("cannot be had"));
}

#[test]
fn a_membership_that_was_given_an_end_ends() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let id = world.create_network(&a, "team", "open");
    join(&mut world, &b, id);
    let end = |agent: &Agent, target_node_id, expires_at: &str| {
        Request::SetMemberExpiry(SetMemberExpiry {
            network_id: id,
            node_id: agent.id,
            target_node_id,
            expires_at: expires_at.to_owned(),
        })
    };
    // The clock starts on 2026-11-18 at 11:06:40.
    assert!(refusal(&world.by(&b, end(&b, b.id, "2027-01-01T00:00:00Z"))).contains("role"));
    assert!(refusal(&world.by(&a, end(&a, b.id, "2026-01-01T00:00:00Z"))).contains("in the future"));
    assert!(refusal(&world.by(&a, end(&a, b.id, "soon"))).contains("RFC 3339"));
    assert!(refusal(&world.by(&a, end(&a, a.id, "2027-01-01T00:00:00Z"))).contains("owner"));
    let answer = world.by(&a, end(&a, b.id, "2026-11-18T11:08:00Z"));
    assert!(matches!(answer, Response::SetMemberExpiry { expires_at: Some(_), .. }), "{answer:?}");
    world.restart();
    let (a, b) = (world.agent(1), world.agent(2));
    assert!(own(&mut world, &b)[0].expires_at.is_some());
    world.pass(Duration::from_secs(79));
    assert!(world.may_resolve(&a, b.id));
    world.pass(Duration::from_secs(1));
    assert!(!world.may_resolve(&a, b.id));
    assert!(own(&mut world, &b).is_empty());
}

#[test]
fn a_key_that_has_ended_keeps_its_node_alive_no_longer() {
    let mut world = World::new();
    let (a, stranger) = (world.agent(1), world.agent(2));
    let expiry = |agent: &Agent, expires_at: &str| {
        let expires_at = expires_at.to_owned();
        Request::SetKeyExpiry(SetKeyExpiry { node_id: agent.id, expires_at, ..SetKeyExpiry::default() })
    };
    assert_eq!(
        refusal(&world.by(&stranger, expiry(&stranger, "2027-01-01T00:00:00Z"))),
        "enterprise feature: key expiry requires enterprise network membership"
    );
    world.create_network(&a, "corp", "open");
    assert!(refusal(&world.by(&a, expiry(&a, "2037-01-01T00:00:00Z"))).contains("cannot exceed 10 years"));
    assert!(refusal(&world.by(&a, expiry(&a, "2020-01-01T00:00:00Z"))).contains("must be in the future"));
    assert!(matches!(
        world.by(&a, expiry(&a, "2026-11-18T11:10:00Z")),
        Response::SetKeyExpiry { expires_at: Some(at), .. } if at == "2026-11-18T11:10:00Z"
    ));
    let beat = |agent: &Agent| Request::Heartbeat(about(agent.id));
    assert!(matches!(world.by(&a, beat(&a)), Response::Heartbeat { key_expiry_warning: Some(_), .. }));
    world.pass(Duration::from_secs(200));
    let ended = format!("node {}: key expired at 2026-11-18T11:10:00Z", a.id);
    assert_eq!(refusal(&world.by(&a, beat(&a))), ended);
    let again = common::register(&a.identity, "0.0.0.0:4000");
    assert_eq!(refusal(&world.by(&a, again)), ended, "nor does a new registration");
    // Another key is not concerned.
    let new_key = common::identity(9);
    assert!(matches!(world.by(&a, rotate(a.id, &new_key)), Response::RotateKey(_)));
    let a = Agent { identity: new_key, ..a };
    assert!(matches!(world.by(&a, beat(&a)), Response::Heartbeat { key_expiry_warning: None, .. }));
    match world.by(&a, Request::GetKeyInfo(about(a.id))) {
        Response::GetKeyInfo(info) => {
            assert_eq!((info.rotate_count, info.expires_at), (1, None));
            assert_eq!(info.created_at, "2026-11-18T11:06:40Z");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_audit_log_tells_the_operator_who_did_what_and_survives_a_restart() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let id = world.create_network(&a, "team", "token");
    join(&mut world, &b, id);
    let refused = JoinNetwork { node_id: b.id, network_id: id, ..JoinNetwork::default() };
    refusal(&world.by(&b, Request::JoinNetwork(refused)));
    let kick = MemberQuery { network_id: id, node_id: a.id, target_node_id: b.id };
    world.by(&a, Request::KickMember(kick));
    world.create_network(&a, "other", "open");
    world.restart();
    let query = Request::GetAuditLog(AuditQuery { network_id: id, limit: 0 });
    let a = world.agent(1);
    assert_eq!(refusal(&world.ask(a.conn, query.clone())), "invalid admin token");
    let Response::GetAuditLog { entries } = world.as_admin(a.conn, query) else { panic!("no log") };
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(
        actions,
        ["member.kicked", "network.joined", "network.created"],
        "newest first, what was done only"
    );
    assert_eq!(entries[0].details, format!("target_node={}", b.id));
    assert_eq!(entries[1].node_id, Some(b.id));
    // A ring: the oldest make room.
    for round in 0..1100 {
        let description = Sent::Given(round.to_string());
        let update = PolicyUpdate { network_id: id, description, ..PolicyUpdate::default() };
        world.as_admin(a.conn, Request::SetNetworkPolicy(update));
    }
    world.restart();
    let query = Request::GetAuditLog(AuditQuery { network_id: NetworkId::BACKBONE, limit: 5000 });
    let conn = world.connect("198.51.100.1:1");
    let Response::GetAuditLog { entries } = world.as_admin(conn, query) else { panic!("no log") };
    assert_eq!(entries.len(), 1000);
    assert!(entries.iter().all(|entry| entry.action == "network.policy_changed"));
}

#[test]
fn a_blueprint_makes_a_network_once_and_brings_it_in_line_after_that() {
    let mut world = World::new();
    let (boss, worker) = (world.agent(1), world.agent(2));
    let blueprint = json!({
        "name": "corp", "join_rule": "token", "join_token": "sekrit", "enterprise": true,
        "policy": {"max_members": 50, "allowed_ports": [1001, 1002]},
        "roles": [{"node_id": boss.id, "role": "owner"}]
    });
    let provision = |blueprint: &serde_json::Value| {
        Request::ProvisionNetwork(Provision { blueprint: blueprint.clone().into() })
    };
    let stranger = world.connect("203.0.113.50:1");
    assert_eq!(refusal(&world.ask(stranger, provision(&blueprint))), "invalid admin token");
    let Response::ProvisionNetwork { network_id, created, .. } =
        world.as_admin(stranger, provision(&blueprint))
    else {
        panic!("not provisioned")
    };
    assert!(created);
    join(&mut world, &worker, network_id);
    join(&mut world, &boss, network_id);
    assert_eq!(own(&mut world, &boss)[0].role, pilot_wire::registry::Role::Owner);
    assert_eq!(own(&mut world, &worker)[0].allowed_ports, [1001, 1002]);
    let mut changed = blueprint.clone();
    changed["policy"] = json!({"description": "ours"});
    let Response::ProvisionNetwork { network_id: same, created, .. } =
        world.as_admin(stranger, provision(&changed))
    else {
        panic!("not provisioned")
    };
    assert_eq!((same, created), (network_id, false));
    let status = world.as_admin(stranger, Request::GetProvisionStatus {});
    let Response::GetProvisionStatus { networks } = status else { panic!("no status") };
    assert_eq!(networks[0].max_members, Some(50), "what the blueprint leaves out stays");
    for (field, value, reason) in [
        ("identity_provider", json!({"type": "oidc"}), "this registry has none"),
        ("roles", json!([{"external_id": "alice", "role": "admin"}]), "identity provider"),
        ("policy", json!({"max_members": 1}), "already has 2 members"),
        ("name", json!("Not A Name"), "invalid network name"),
    ] {
        let mut wrong = blueprint.clone();
        wrong[field] = value;
        assert!(refusal(&world.as_admin(stranger, provision(&wrong))).contains(reason), "{field}");
    }
}

#[test]
fn what_the_registry_leaves_to_others_is_refused_in_words() {
    for kind in ["set_idp_config", "directory_sync", "set_webhook", "set_audit_export", "validate_token"] {
        let error = Envelope::parse(format!("{{\"type\":\"{kind}\"}}").as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{kind}: unsupported")), "{error}");
    }
}

// The directory.

fn card(agent: &Agent, network: NetworkId, name: &str, seq: u64) -> Card {
    let address = Addr { network, node: agent.id };
    Card { name: name.to_owned(), node: agent.id, address, network, seq, ..Card::default() }
}

fn publish(world: &mut World, agent: &Agent, card: &Card) -> Response {
    let card_text = card.to_text();
    let request = PublishCard {
        node_id: agent.id,
        network_id: card.network,
        card: card_text,
        ..PublishCard::default()
    };
    world.by(agent, Request::PublishCard(request))
}

fn search(world: &mut World, agent: &Agent, query: CardQuery) -> Vec<PublishedCard> {
    match world.ask(agent.conn, Request::ListCards(query)) {
        Response::ListCards { cards, .. } => cards,
        other => panic!("{other:?}"),
    }
}

fn names(cards: &[PublishedCard]) -> Vec<String> {
    cards.iter().map(|found| Card::parse(&found.card).unwrap().name).collect()
}

#[test]
fn cards_are_found_by_label_and_by_words_in_the_order_of_how_well_they_fit() {
    let mut world = World::new();
    let (a, b, stranger) = (world.agent(1), world.agent(2), world.agent(3));
    let id = world.create_network(&a, "data-agents", "open");
    join(&mut world, &b, id);
    let cards = [
        Card {
            description: "Local time and zone of cities, such as Berlin".to_owned(),
            tags: vec!["time".to_owned(), "geo".to_owned()],
            ..card(&a, id, "world-clock", 1)
        },
        Card {
            description: "Forecasts; mentions the clock".to_owned(),
            tags: vec!["weather".to_owned(), "geo".to_owned()],
            ..card(&b, id, "weather", 1)
        },
        Card { tags: vec!["clock".to_owned()], ..card(&b, id, "tower", 2) },
    ];
    for (agent, card) in [&a, &b, &b].into_iter().zip(&cards) {
        let answer = publish(&mut world, agent, card);
        assert!(matches!(answer, Response::PublishCard { .. }), "{answer:?}");
    }
    let ask = |text: &str, tag: &str, any| CardQuery {
        network_id: id,
        text: text.to_owned(),
        tag: tag.to_owned(),
        any,
        ..CardQuery::default()
    };
    let mut found = |query| names(&search(&mut world, &b, query));
    assert_eq!(found(ask("", "", false)), ["tower", "weather", "world-clock"]);
    assert_eq!(
        found(ask("CLOCK", "", false)),
        ["world-clock", "tower", "weather"],
        "name, then tag, then text"
    );
    assert_eq!(found(ask("clock berlin", "", false)), ["world-clock"], "all words");
    assert_eq!(found(ask("weather in Berlin", "", false)), Vec::<String>::new());
    assert_eq!(found(ask("weather in Berlin", "", true))[..2], ["world-clock", "weather"], "any word");
    assert_eq!(found(ask("", "geo", false)), ["weather", "world-clock"]);
    assert_eq!(found(CardQuery { limit: 1, offset: 1, ..ask("", "", false) }), ["weather"]);
    let foreign = world.ask(stranger.conn, Request::ListCards(ask("", "", false)));
    assert!(refusal(&foreign).contains("shown to its members"));
    assert!(matches!(
        world.as_admin(stranger.conn, Request::ListCards(ask("", "", false))),
        Response::ListCards { total: 3, .. }
    ));

    world.restart();
    let (a, b) = (world.agent(1), world.agent(2));
    let kept = search(&mut world, &a, ask("", "", false));
    assert_eq!(kept.len(), 3, "cards are kept");
    for found in &kept {
        let key = if found.node_id == a.id { a.identity.public() } else { b.identity.public() };
        let verify = |text: &[u8], signature: &_| pilot_crypto::verify(&key, text, signature);
        found.open(id, verify).unwrap();
        assert!(found.open(NetworkId(77), verify).is_err(), "nor is it good for another network");
    }
    leave(&mut world, &b, id);
    assert_eq!(
        names(&search(&mut world, &a, ask("", "", false))),
        ["world-clock"],
        "who leaves takes its cards"
    );
}

#[test]
fn only_the_node_itself_changes_its_cards_and_no_old_card_comes_back() {
    let mut world = World::new();
    let (a, b, stranger) = (world.agent(1), world.agent(2), world.agent(3));
    let id = world.create_network(&a, "data-agents", "open");
    join(&mut world, &b, id);
    assert!(refusal(&publish(&mut world, &stranger, &card(&stranger, id, "x", 1))).contains("not a member"));
    assert!(refusal(&publish(&mut world, &b, &card(&a, id, "x", 1))).contains("it is of node"));
    assert!(refusal(&publish(&mut world, &a, &card(&a, id, "Not A Name", 1))).contains("invalid card"));
    let first = card(&a, id, "clock", 5);
    let request =
        PublishCard { node_id: a.id, network_id: id, card: first.to_text(), ..PublishCard::default() };
    let captured = a.signed(Request::PublishCard(request.clone()));
    assert!(matches!(world.ask(a.conn, captured.clone()), Response::PublishCard { seq: 5, .. }));
    let forged =
        b.signed(Request::PublishCard(PublishCard { card: card(&a, id, "clock", 6).to_text(), ..request }));
    assert_eq!(refusal(&world.ask(b.conn, forged)), "signature verification failed");
    let second = Card { description: "better".to_owned(), ..card(&a, id, "clock", 6) };
    assert!(matches!(publish(&mut world, &a, &second), Response::PublishCard { seq: 6, .. }));
    assert!(refusal(&world.ask(b.conn, captured.clone())).contains("not higher"));
    let remove = RemoveCard {
        node_id: a.id,
        network_id: id,
        name: "clock".to_owned(),
        seq: 7,
        ..RemoveCard::default()
    };
    assert_eq!(
        refusal(&world.ask(b.conn, b.signed(Request::RemoveCard(remove.clone())))),
        "signature verification failed"
    );
    assert!(matches!(world.by(&a, Request::RemoveCard(remove)), Response::RemoveCard { .. }));
    world.restart();
    let a = world.agent(1);
    assert!(refusal(&world.ask(a.conn, captured)).contains("not higher"), "not after its removal either");
}

#[test]
fn the_directory_has_bounds() {
    let mut world = World::new();
    let a = world.agent(1);
    let id = world.create_network(&a, "data-agents", "open");
    for number in 0..16 {
        let answer = publish(&mut world, &a, &card(&a, id, &format!("agent-{number}"), number + 1));
        assert!(matches!(answer, Response::PublishCard { .. }), "{answer:?}");
    }
    assert!(refusal(&publish(&mut world, &a, &card(&a, id, "one-more", 99))).contains("too many cards"));
    assert!(matches!(publish(&mut world, &a, &card(&a, id, "agent-3", 100)), Response::PublishCard { .. }));
    let long = Card { description: "x".repeat(9000), ..card(&a, id, "agent-3", 101) };
    assert!(refusal(&publish(&mut world, &a, &long)).contains("max 8192"));
}
