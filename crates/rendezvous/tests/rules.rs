//! What the registry grants and refuses, and what it remembers. Numbers like S3 name the weaknesses of the reference
//! in the protocol's specification (registry, section 23).
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{ADMIN, START, World, about, identity, pair, punch, refusal, register, rotate};
use pilot_wire::{
    NodeId,
    registry::{
        Envelope, Handshakes, Invite, InviteAnswer, JoinNetwork, MemberQuery, NetworkQuery, NoticeKind,
        Register, Request, ResolveHostname, Response, SetTags,
    },
};
use std::time::Duration;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// Numbers and keys.

#[test]
fn a_key_keeps_its_number_for_ever() {
    let mut world = World::new();
    let a = world.agent(1);
    let b = world.agent(2);
    assert_eq!((a.id, b.id), (NodeId(1), NodeId(2)));
    world.by(&a, Request::Deregister(about(a.id)));
    world.pass(secs(1000));
    world.restart();
    let c = world.agent(3);
    assert_eq!(c.id, NodeId(3), "numbers of nodes that are gone are not given away");
    assert_eq!(world.agent(1).id, a.id);
    assert_eq!(world.agent(2).id, b.id);
}

#[test]
fn one_key_cannot_pass_for_two() {
    let mut world = World::new();
    let victim = world.agent(2);
    let canonical = victim.identity.public().to_base64();
    for text in
        [format!("{canonical}\n"), canonical.replace("Q=", "R=").replace("0=", "1=").replace("w=", "x=")]
    {
        if text == canonical {
            continue;
        }
        let json =
            serde_json::json!({"type": "register", "public_key": text, "listen_addr": "127.0.0.1:1002"});
        let envelope = Envelope::parse(json.to_string().as_bytes()).unwrap();
        let conn = world.connect("192.0.2.1:1");
        let reply = world.ask(conn, envelope);
        assert!(refusal(&reply).starts_with("invalid public key"), "S4: {reply:?}");
    }
}

#[test]
fn the_key_of_another_node_cannot_be_rotated_to() {
    let mut world = World::new();
    let attacker = world.agent(1);
    let victim = world.agent(2);
    let reply = world.by(&attacker, rotate(attacker.id, &victim.identity));
    assert_eq!(refusal(&reply), "new_public_key is already bound to another node", "S3");
    world.by(&victim, Request::Deregister(about(victim.id)));
    let reply = world.by(&attacker, rotate(attacker.id, &victim.identity));
    assert_eq!(
        refusal(&reply),
        "new_public_key is already bound to another node",
        "S3, while the victim is away"
    );
    assert_eq!(world.register(&victim), victim.id);
}

#[test]
fn a_rotated_key_takes_over_and_the_old_one_is_a_stranger() {
    let mut world = World::new();
    let mut a = world.agent(1);
    let old = identity(1);
    assert!(matches!(world.by(&a, rotate(a.id, &identity(9))), Response::RotateKey(_)));
    a.identity = identity(9);
    assert!(matches!(world.by(&a, Request::Heartbeat(about(a.id))), Response::Heartbeat { .. }));
    let beat = Request::Heartbeat(about(a.id)).sign_with(|text| old.sign(text));
    assert_eq!(refusal(&world.ask(a.conn, beat)), "signature verification failed");
    world.restart();
    assert_eq!(world.agent(9).id, a.id);
    assert_ne!(world.agent(1).id, a.id);
}

#[test]
fn the_older_text_of_a_rotation_is_accepted_too() {
    let mut world = World::new();
    let a = world.agent(1);
    let mut request = rotate(a.id, &identity(9));
    let text = pilot_wire::registry::signed_text::rotate_key_uncovered(a.id);
    *request.signature_mut().unwrap() = a.identity.sign(text.as_bytes()).into();
    assert!(matches!(world.ask(a.conn, request), Response::RotateKey(_)));
}

#[test]
fn an_owner_text_leads_to_no_node() {
    let mut world = World::new();
    let claim = |seed: u8| {
        Request::Register(Register {
            public_key: identity(seed).public().into(),
            owner: "bob@example.com".to_owned(),
            listen_addr: "0.0.0.0:1".to_owned(),
            ..Register::default()
        })
    };
    let conn = world.connect("192.0.2.1:1");
    for (seed, id) in [(1, NodeId(1)), (2, NodeId(2))] {
        match world.ask(conn, claim(seed)) {
            Response::Register(registered) => assert_eq!(registered.node_id, id, "S1"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_has_signed_must_go_on_signing() {
    let mut world = World::new();
    let a = world.agent(1);
    let stranger = world.connect("203.0.113.9:1");
    let reply = world.ask(stranger, register(&a.identity, "0.0.0.0:6666"));
    assert_eq!(refusal(&reply), "node 1: unsigned registration cannot modify a signature-verified key", "S2");
    let forged = register(&a.identity, "0.0.0.0:6666").sign_with(|text| identity(2).sign(text));
    assert_eq!(refusal(&world.ask(stranger, forged)), "registration: signature verification failed");
}

#[test]
fn the_address_is_where_the_node_is_seen_with_the_port_it_names() {
    let mut world = World::new();
    let conn = world.connect("[::ffff:203.0.113.9]:55555");
    for (listen_addr, stored) in [
        ("10.1.2.3:4001", "203.0.113.9:4001"),
        ("[::]:9", "203.0.113.9:9"),
        ("", ""),
        ("x", ""),
        ("h:99999", ""),
        ("h:0", ""),
    ] {
        match world.ask(conn, register(&identity(1), listen_addr)) {
            Response::Register(registered) => assert_eq!(registered.observed_addr, stored, "{listen_addr}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn new_identities_from_one_address_are_limited_and_known_ones_are_not() {
    let mut world = World::new();
    let conn = world.connect("203.0.113.9:1");
    let mut granted = 0;
    while matches!(world.ask(conn, register(&identity(granted), "0.0.0.0:1")), Response::Register(_)) {
        granted += 1;
    }
    assert_eq!(granted, 60);
    assert!(matches!(world.ask(conn, register(&identity(0), "0.0.0.0:2")), Response::Register(_)));
    let elsewhere = world.connect("203.0.113.10:1");
    assert!(matches!(world.ask(elsewhere, register(&identity(200), "0.0.0.0:1")), Response::Register(_)));
    world.pass(secs(2));
    assert!(matches!(world.ask(conn, register(&identity(201), "0.0.0.0:1")), Response::Register(_)));
}

// Presence.

#[test]
fn a_silent_node_is_forgotten_after_five_minutes_and_a_beating_one_is_not() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.publish(&b);
    for _ in 0..6 {
        world.pass(secs(60));
        assert!(matches!(world.by(&a, Request::Heartbeat(about(a.id))), Response::Heartbeat { .. }));
    }
    assert_eq!(refusal(&world.resolve(&a, b.id)), "node 2: node not found");
    assert_eq!(world.state.node_counts(), (1, 2));
}

#[test]
fn nobody_expires_because_the_registry_was_away() {
    let mut world = World::new();
    let a = world.agent(1);
    world.name(&a, "alpha");
    world.now += secs(3600);
    world.restart();
    world.pass(secs(290));
    assert_eq!(world.state.node_counts(), (1, 1), "its silence counts from the restart");
    world.pass(secs(20));
    assert_eq!(world.state.node_counts(), (0, 1));
}

#[test]
fn only_the_node_itself_signs_for_it() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    for request in [
        Request::Heartbeat(about(b.id)),
        Request::Deregister(about(b.id)),
        Request::PollHandshakes(about(b.id)),
        Request::SetTags(SetTags { node_id: b.id, ..SetTags::default() }),
        Request::ReportTrust(pair(b.id, a.id)),
        rotate(b.id, &identity(7)),
    ] {
        assert_eq!(refusal(&world.by(&a, request.clone())), "signature verification failed", "{request:?}");
        assert_eq!(refusal(&world.ask(b.conn, request)), "signature required for authenticated node");
    }
}

// Names, visibility and privacy.

#[test]
fn a_name_belongs_to_one_node_and_is_free_when_it_goes() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.name(&a, "alpha");
    assert_eq!(refusal(&world.name(&b, "alpha")), "hostname \"alpha\" already in use by node 1");
    assert!(matches!(world.name(&a, "alpha"), Response::SetHostname { .. }), "its own name");
    world.by(&a, Request::Deregister(about(a.id)));
    assert!(matches!(world.name(&b, "alpha"), Response::SetHostname { .. }));
    world.restart();
    world.publish(&b);
    assert_eq!(world.find(b.conn, "alpha"), Some(b.id));
}

#[test]
fn a_private_node_is_found_by_its_exact_name_by_whoever_is_registered() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.name(&a, "alpha");
    let nobody = world.connect("203.0.113.50:1");
    assert_eq!(world.find(nobody, "alpha"), None);
    assert_eq!(world.find(a.conn, "alpha"), Some(a.id), "itself");
    assert_eq!(world.find(b.conn, "alpha"), Some(a.id));
    assert!(!world.may_resolve(&b, a.id), "but not where it is");
    world.publish(&a);
    assert_eq!(world.find(nobody, "alpha"), Some(a.id));
}

#[test]
fn guesses_of_names_are_limited_and_names_of_acquaintances_are_not() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.name(&a, "alpha");
    for guess in 0..100 {
        assert_eq!(world.find(b.conn, &format!("guess-{guess}")), None);
    }
    let request = ResolveHostname { hostname: "alpha".to_owned() };
    let reply = world.ask(b.conn, Request::ResolveHostname(request));
    assert!(refusal(&reply).starts_with("rate limited"), "{reply:?}");
    world.request_trust(&a, b.id);
    assert_eq!(world.find(b.conn, "alpha"), Some(a.id), "it has introduced itself");
}

#[test]
fn a_second_connection_of_a_node_is_known_by_its_address() {
    let mut world = World::new();
    let (a, _b) = (world.agent(1), world.agent(2));
    world.name(&a, "alpha");
    let second = world.connect("198.51.100.2:50001");
    assert_eq!(world.find(second, "alpha"), Some(a.id), "node 2 is at that address");
    let neighbour = world.connect("198.51.100.1:50001");
    assert_eq!(world.find(neighbour, "alpha"), None, "that node 1 is there does not mean that it asks");
    world.restart();
    let second = world.connect("198.51.100.2:50002");
    assert_eq!(world.find(second, "alpha"), Some(a.id), "before anybody has signed anything");
    world.by(&a, Request::Heartbeat(about(a.id)));
    world.pass(secs(299));
    world.agent(1);
    world.pass(secs(1));
    assert_eq!(world.find(second, "alpha"), None, "node 2 is gone");
}

#[test]
fn a_stranger_learns_the_key_of_a_private_node_and_nothing_else() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.name(&a, "alpha");
    let stranger = world.connect("203.0.113.50:1");
    let look = |world: &mut World, conn| match world.ask(conn, Request::Lookup(about(a.id))) {
        Response::Lookup(record) => record,
        other => panic!("{other:?}"),
    };
    let record = look(&mut world, stranger);
    assert_eq!(record.public_key, a.identity.public());
    assert_eq!((record.hostname, record.real_addr, record.last_seen_unix), (None, None, None));
    world.request_trust(&a, b.id);
    assert_eq!(look(&mut world, b.conn).hostname.as_deref(), Some("alpha"), "it has introduced itself");
    world.publish(&a);
    assert!(look(&mut world, stranger).real_addr.is_some());
}

#[test]
fn the_address_of_a_private_node_is_told_to_trusted_peers_only() {
    let mut world = World::new();
    let (a, b, c) = (world.agent(1), world.agent(2), world.agent(3));
    assert!(!world.may_resolve(&b, a.id));
    assert_eq!(
        refusal(&world.resolve(&b, a.id)),
        "resolve denied: node 1 is private (establish mutual trust first)"
    );
    world.report_trust(&b, a.id);
    assert!(!world.may_resolve(&b, a.id), "S6: one side alone opens nothing");
    let reply = world.by(&b, punch(b.id, a.id, b.id));
    assert!(refusal(&reply).contains("private"), "S7: {reply:?}");
    world.report_trust(&a, b.id);
    assert!(world.may_resolve(&b, a.id));
    assert!(world.may_resolve(&a, b.id));
    assert!(matches!(world.by(&b, punch(b.id, a.id, b.id)), Response::Punch(_)));
    assert!(!world.may_resolve(&c, a.id));
    world.revoke_trust(&a, b.id);
    assert!(!world.may_resolve(&b, a.id));
    world.report_trust(&a, b.id);
    assert!(!world.may_resolve(&b, a.id), "after a revocation both must consent again");
}

#[test]
fn where_a_node_is_that_wants_to_be_relayed_is_told_to_nobody() {
    let beacons = [
        (None, ""),
        (Some("203.0.113.1:9001"), "203.0.113.1:9001"),
        (Some("0.0.0.0:9001"), "192.0.2.100:9001"),
    ];
    for (beacon, told) in beacons {
        let mut world = World::new();
        let beacon = beacon.map(|addr| addr.parse().unwrap());
        let config = pilot_rendezvous::registry::Config { beacon, ..common::config() };
        let clock = pilot_rendezvous::Clock::new(world.now, std::time::UNIX_EPOCH);
        world.state = pilot_rendezvous::registry::State::new(config, clock);
        let (a, b) = (world.agent(1), world.agent(2));
        let shy = Register {
            public_key: a.identity.public().into(),
            listen_addr: "0.0.0.0:1".to_owned(),
            lan_addrs: vec!["192.168.1.5:4000".to_owned()],
            relay_only: true,
            ..Register::default()
        };
        world.publish(&a);
        assert!(world.state.may_introduce(b.id, a.id));
        world.by(&a, Request::Register(shy));
        assert!(!world.state.may_introduce(b.id, a.id));
        assert!(!world.state.may_introduce(a.id, b.id));
        match world.resolve(&b, a.id) {
            Response::Resolve(resolved) => {
                assert_eq!((resolved.real_addr.as_str(), resolved.lan_addrs.len()), (told, 0));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn who_trusts_whom_is_told_to_the_two() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.report_trust(&a, b.id);
    world.report_trust(&b, a.id);
    let stranger = world.connect("203.0.113.50:1");
    let ask = Request::CheckTrust(pair(a.id, b.id));
    assert_eq!(world.ask(a.conn, ask.clone()), Response::CheckTrust { trusted: true });
    assert_eq!(world.ask(b.conn, ask.clone()), Response::CheckTrust { trusted: true });
    assert_eq!(world.ask(stranger, ask), Response::CheckTrust { trusted: false });
}

// Handshakes.

#[test]
fn a_request_for_trust_and_its_answer_open_both_nodes() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    assert!(matches!(world.request_trust(&a, b.id), Response::RequestHandshake { .. }));
    let inbox = world.poll(&b);
    let [request] = inbox.requests.as_slice() else { panic!("{inbox:?}") };
    assert_eq!((request.from_node_id, request.justification.as_str()), (a.id, "please"));
    assert_eq!((request.public_key, request.timestamp), (Some(a.identity.public()), START));
    world.answer_trust(&b, a.id, true);
    assert!(world.may_resolve(&a, b.id));
    assert!(world.may_resolve(&b, a.id));
    let inbox = world.poll(&a);
    let [verdict] = inbox.responses.as_slice() else { panic!("{inbox:?}") };
    assert_eq!((verdict.from_node_id, verdict.accept), (b.id, true));
    assert_eq!(world.poll(&a), Handshakes::default());
}

#[test]
fn nobody_is_accepted_who_has_not_asked() {
    let mut world = World::new();
    let (victim, attacker) = (world.agent(1), world.agent(2));
    let reply = world.answer_trust(&attacker, victim.id, true);
    assert_eq!(refusal(&reply), "no pending handshake request from node 1", "S0");
    assert_eq!(world.poll(&victim), Handshakes::default());
    assert!(!world.may_resolve(&attacker, victim.id));
}

#[test]
fn a_request_can_be_answered_after_a_restart_and_after_it_was_fetched() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.request_trust(&a, b.id);
    world.poll(&b);
    world.by(&b, Request::Heartbeat(about(b.id)));
    world.restart();
    let b = world.agent(2);
    assert!(matches!(world.answer_trust(&b, a.id, true), Response::RespondHandshake { .. }));
}

#[test]
fn an_answer_counts_once_and_cannot_be_turned_round() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.request_trust(&a, b.id);
    world.answer_trust(&b, a.id, true);
    assert!(matches!(world.answer_trust(&b, a.id, true), Response::RespondHandshake { .. }), "said again");
    let turned = world.answer_trust(&b, a.id, false);
    assert!(
        refusal(&turned).contains("already been answered"),
        "S5: the signature does not cover the answer"
    );
    assert_eq!(world.poll(&a).responses.len(), 1);
    assert!(world.may_resolve(&a, b.id));
}

#[test]
fn a_rejected_request_is_no_consent() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.request_trust(&a, b.id);
    world.answer_trust(&b, a.id, false);
    world.report_trust(&b, a.id);
    assert!(!world.may_resolve(&b, a.id));
    assert!(matches!(world.request_trust(&a, b.id), Response::RequestHandshake { .. }), "it may ask again");
}

#[test]
fn an_inbox_takes_one_request_of_each_node_and_a_hundred_in_all() {
    let mut world = World::new();
    let target = world.agent(250);
    for seed in 0..100 {
        let agent = world.agent(seed);
        assert!(matches!(world.request_trust(&agent, target.id), Response::RequestHandshake { .. }));
        let again = world.request_trust(&agent, target.id);
        assert!(refusal(&again).starts_with("handshake request already pending"));
    }
    let late = world.agent(200);
    assert_eq!(refusal(&world.request_trust(&late, target.id)), "handshake inbox full for node 1");
}

#[test]
fn what_was_fetched_on_a_connection_that_broke_comes_again() {
    let mut world = World::new();
    let (a, mut b) = (world.agent(1), world.agent(2));
    world.request_trust(&a, b.id);
    assert_eq!(world.poll(&b).requests.len(), 1);
    world.notices.clear();
    world.reconnect(&mut b, "198.51.100.2:50002");
    assert_eq!(world.notices, [b.id]);
    assert_eq!(world.poll(&b).requests.len(), 1, "D5: the reply may not have arrived");
    assert_eq!(world.poll(&b), Handshakes::default(), "the next request shows that it did");
    world.reconnect(&mut b, "198.51.100.2:50003");
    assert_eq!(world.poll(&b), Handshakes::default());
}

#[test]
fn what_was_not_surely_received_survives_a_crash() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.request_trust(&a, b.id);
    assert_eq!(world.poll(&b).requests.len(), 1);
    world.restart();
    let b = world.agent(2);
    assert_eq!(world.poll(&b).requests.len(), 1);
}

#[test]
fn a_client_that_never_shows_receipt_gets_an_item_three_times() {
    let mut world = World::new();
    let (a, mut b) = (world.agent(1), world.agent(2));
    world.request_trust(&a, b.id);
    for port in 1..=3 {
        assert_eq!(world.poll(&b).requests.len(), 1);
        world.reconnect(&mut b, &format!("198.51.100.2:{port}"));
    }
    assert_eq!(world.poll(&b), Handshakes::default());
}

#[test]
fn a_waiting_node_is_told_at_once() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let ear = world.connect("198.51.100.2:50001");
    world.wait(&b, ear, secs(60));
    assert_eq!(world.reply(ear), None);
    world.request_trust(&a, b.id);
    assert_eq!(world.reply(ear), Some(common::notices(true)));
    assert_eq!(world.notices, [b.id], "and through the beacon");
    world.wait(&b, ear, secs(60));
    assert_eq!(world.reply(ear), Some(common::notices(true)), "it has not fetched it yet");
    world.poll(&b);
    world.wait(&b, ear, secs(60));
    world.pass(secs(59));
    assert_eq!(world.reply(ear), None);
    world.pass(secs(1));
    assert_eq!(world.reply(ear), Some(common::notices(false)));
}

#[test]
fn a_node_waits_on_four_connections_at_most_and_no_longer_than_four_minutes() {
    let mut world = World::new();
    let a = world.agent(1);
    let ears: Vec<_> = (0..5).map(|port| world.connect(&format!("198.51.100.1:{port}"))).collect();
    for ear in &ears {
        world.wait(&a, *ear, secs(4000));
    }
    assert_eq!(world.reply(ears[0]), Some(common::notices(false)));
    world.pass(secs(240));
    assert_eq!(world.reply(ears[4]), Some(common::notices(false)));
}

// Networks.

#[test]
fn members_of_a_network_see_each_other() {
    let mut world = World::new();
    let (a, b, c) = (world.agent(1), world.agent(2), world.agent(3));
    let network_id = world.create_network(&a, "team", "token");
    let join = |node_id, token: &str| {
        let token = token.to_owned();
        Request::JoinNetwork(JoinNetwork { node_id, network_id, token, ..JoinNetwork::default() })
    };
    assert_eq!(refusal(&world.by(&b, join(b.id, "guess"))), "invalid token for network 1");
    assert!(!world.may_resolve(&a, b.id));
    assert!(matches!(world.by(&b, join(b.id, "sekrit")), Response::JoinNetwork(_)));
    assert!(world.may_resolve(&a, b.id));
    world.restart();
    let (a, b, c2) = (world.agent(1), world.agent(2), world.agent(3));
    assert!(world.may_resolve(&a, b.id), "memberships are kept");
    let members = Request::ListNodes(NetworkQuery { network_id });
    assert!(matches!(world.ask(b.conn, members.clone()), Response::ListNodes { nodes } if nodes.len() == 2));
    assert!(refusal(&world.ask(c2.conn, members)).contains("shown to its members"));
    assert_eq!(c.id, c2.id);
}

#[test]
fn an_invitation_is_announced_and_leads_into_the_network() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let network_id = world.create_network(&a, "corp", "invite");
    let invite = Invite { inviter_id: a.id, network_id, target_node_id: b.id, ..Invite::default() };
    assert!(matches!(world.by(&a, Request::InviteToNetwork(invite)), Response::InviteToNetwork { .. }));
    assert_eq!(world.notices, [b.id]);
    match world.by(&b, Request::PollInvites(about(b.id))) {
        Response::PollInvites { invites } => assert_eq!(invites.len(), 1),
        other => panic!("{other:?}"),
    }
    let yes = InviteAnswer { node_id: b.id, network_id, accept: true, ..InviteAnswer::default() };
    assert!(matches!(
        world.by(&b, Request::RespondInvite(yes)),
        Response::RespondInvite { accepted: true, .. }
    ));
    assert!(world.may_resolve(&b, a.id));
}

#[test]
fn a_role_counts_only_for_who_has_proven_to_have_it() {
    let mut world = World::new();
    let (owner, member) = (world.agent(1), world.agent(2));
    let network_id = world.create_network(&owner, "corp", "open");
    let join = JoinNetwork { node_id: member.id, network_id, ..JoinNetwork::default() };
    world.by(&member, Request::JoinNetwork(join));
    let kick = |node_id| Request::KickMember(MemberQuery { network_id, node_id, target_node_id: member.id });
    let stranger = world.connect("203.0.113.50:1");
    assert!(refusal(&world.ask(stranger, kick(owner.id))).contains("has not proven its identity"), "S9");
    assert!(refusal(&world.ask(member.conn, kick(owner.id))).contains("has not proven its identity"), "S9");
    assert!(refusal(&world.ask(member.conn, kick(member.id))).contains("has role \"member\""));
    assert_eq!(
        refusal(&world.ask(stranger, Envelope::with_token(kick(owner.id), "guess"))),
        "invalid admin token"
    );
    assert!(matches!(world.ask(owner.conn, kick(owner.id)), Response::KickMember { .. }));
}

#[test]
fn without_a_token_of_the_operator_nobody_creates_networks() {
    let config = pilot_rendezvous::registry::Config::default();
    let mut world = World::new();
    let founder = world.agent(1);
    world.state = pilot_rendezvous::registry::State::restore(
        config,
        pilot_rendezvous::Clock::new(world.now, std::time::UNIX_EPOCH),
        world.disk.clone(),
    )
    .unwrap();
    let request = Request::CreateNetwork(pilot_wire::registry::CreateNetwork {
        node_id: founder.id,
        name: "team".to_owned(),
        ..Default::default()
    });
    for admin_token in ["", ADMIN] {
        let envelope = Envelope::with_token(request.clone(), admin_token);
        assert_eq!(refusal(&world.ask(founder.conn, envelope)), "network creation is disabled");
    }
}

#[test]
fn a_beacon_is_announced_from_this_machine_or_by_the_operator() {
    let mut world = World::new();
    let announce = Request::BeaconRegister(pilot_wire::registry::BeaconRegister {
        beacon_id: 7,
        addr: "192.0.2.1:9001".to_owned(),
    });
    let stranger = world.connect("203.0.113.50:1");
    assert!(refusal(&world.ask(stranger, announce.clone())).contains("this machine"), "S11");
    assert!(matches!(world.as_admin(stranger, announce), Response::BeaconRegister { .. }));
    let count = |world: &mut World| match world.ask(stranger, Request::BeaconList {}) {
        Response::BeaconList { beacons } => beacons.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(&mut world), 1);
    world.pass(secs(60));
    assert_eq!(count(&mut world), 0);
}

// News without asking.

fn friends(world: &mut World, a: &common::Agent, b: &common::Agent) {
    for (from, to) in [(a, b), (b, a)] {
        let report = Request::ReportTrust(pair(from.id, to.id));
        assert!(matches!(world.by(from, report), Response::ReportTrust {}));
    }
}

#[test]
fn who_listens_is_told_of_a_friend_that_moved_and_of_no_stranger() {
    let mut world = World::new();
    let (a, b, c) = (world.agent(1), world.agent(2), world.agent(3));
    friends(&mut world, &a, &b);
    let ear = world.connect("198.51.100.1:50001");
    world.listen(&a, ear);
    assert_eq!(world.told(ear), None);
    world.ask(c.conn, c.signed(register(&c.identity, "203.0.113.3:4001")));
    assert_eq!(world.told(ear), None, "a stranger");
    world.ask(b.conn, b.signed(register(&b.identity, "203.0.113.2:4001")));
    let told = world.told(ear).unwrap();
    assert_eq!((told.kinds, told.peers, told.waiting), (vec![NoticeKind::Peers], vec![b.id], false));
    // Between two questions changes are gathered.
    world.ask(b.conn, b.signed(register(&b.identity, "203.0.113.2:4002")));
    world.listen(&a, ear);
    assert_eq!(world.told(ear).unwrap().peers, [b.id]);
    world.ask(b.conn, b.signed(register(&b.identity, "203.0.113.2:4002")));
    world.listen(&a, ear);
    assert_eq!(world.told(ear), None, "it has not moved");
}

#[test]
fn who_listens_is_told_of_trust_that_begins_and_ends() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let ear = world.connect("198.51.100.1:50001");
    world.listen(&a, ear);
    friends(&mut world, &b, &a);
    world.listen(&a, ear);
    let revoke = Request::RevokeTrust(pair(b.id, a.id));
    assert!(matches!(world.by(&b, revoke), Response::RevokeTrust {}));
    let told = world.told(ear).unwrap();
    assert_eq!((told.kinds, told.trust), (vec![NoticeKind::Trust], vec![b.id]));
}

#[test]
fn a_handshake_is_told_as_one_and_older_daemons_hear_of_the_inbox_only() {
    let mut world = World::new();
    let (a, b, c) = (world.agent(1), world.agent(2), world.agent(3));
    friends(&mut world, &a, &c);
    let (ear, old) = (world.connect("198.51.100.1:50001"), world.connect("198.51.100.1:50002"));
    world.listen(&a, ear);
    world.wait(&a, old, secs(60));
    world.ask(c.conn, c.signed(register(&c.identity, "203.0.113.3:4001")));
    assert_eq!(world.told(ear).unwrap().peers, [c.id]);
    assert_eq!(world.reply(old), None);
    world.listen(&a, ear);
    world.request_trust(&b, a.id);
    let told = world.told(ear).unwrap();
    assert_eq!((told.waiting, told.kinds), (true, vec![NoticeKind::Handshake]));
    assert_eq!(world.reply(old), Some(common::notices(true)));
}

#[test]
fn more_news_than_can_be_named_are_told_as_such_and_none_is_kept_for_who_is_gone() {
    let mut world = World::new();
    let a = world.agent(255);
    let ear = world.connect("198.51.100.1:50001");
    world.listen(&a, ear);
    let others: Vec<_> = (0..250).map(|seed| world.agent(seed)).collect();
    for other in &others {
        friends(&mut world, &a, other);
    }
    for other in &others {
        world.ask(other.conn, other.signed(register(&other.identity, "203.0.113.3:4001")));
    }
    while world.told(ear).is_some() {}
    world.listen(&a, ear);
    let told = world.told(ear).unwrap();
    assert!(told.more && told.peers.len() + told.trust.len() <= 256, "{told:?}");
    world.state.close(ear);
    world.ask(others[0].conn, others[0].signed(register(&others[0].identity, "203.0.113.3:4002")));
    let again = world.connect("198.51.100.1:50002");
    world.listen(&a, again);
    assert_eq!(world.told(again), None);
}
