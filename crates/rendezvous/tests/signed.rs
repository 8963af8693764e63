//! What nodes sign as a whole: records, seals, changes of keys, and the numbers that follow from keys.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{Agent, START, World, about, identity, refusal, register};
use pilot_crypto::{
    DERIVED_FROM, Identity, derived_numbers, open_change, open_record, sign_change, sign_record,
};
use pilot_wire::{
    NodeId, PublicKey,
    record::{ChangedBy, KeyChange, NodeRecord, RecordSeq, SignedChange, SignedRecord},
    registry::{
        Envelope, Lookup, PublishRecord, Request, Response, RotateKey, Sent, SetHostname, SetVisibility,
        seal::seal,
    },
};
use std::time::Duration;

/// A number of `after` milliseconds after the start.
fn seq(after: u64) -> RecordSeq {
    RecordSeq(START * 1000 + after)
}

fn record(agent: &Agent, after: u64) -> NodeRecord {
    NodeRecord {
        node: agent.id,
        seq: seq(after),
        hostname: format!("agent-{}", agent.id),
        public: false,
        relay_only: false,
        task_exec: true,
        endpoints: vec!["203.0.113.9:4000".parse().unwrap()],
        lan: Vec::new(),
        tags: vec!["gpu".to_owned()],
        recovery: None,
    }
}

fn publishing(by: &Identity, record: &NodeRecord) -> Request {
    let text = sign_record(by, record).to_text();
    Request::PublishRecord(PublishRecord { node_id: record.node, record: text })
}

fn publish(world: &mut World, agent: &Agent, record: &NodeRecord) -> Response {
    world.ask(agent.conn, publishing(&agent.identity, record))
}

fn lookup(world: &mut World, asker: &Agent, node: NodeId) -> Lookup {
    match world.by(asker, Request::Lookup(about(node))) {
        Response::Lookup(found) => found,
        other => panic!("{other:?}"),
    }
}

/// The request as it comes out of the socket, sealed with this number.
fn sealed(agent: &Agent, request: Request, seq: RecordSeq) -> Envelope {
    let json = agent.signed(request).to_json();
    Envelope::parse(&seal(&json, seq, |bytes| agent.identity.sign(bytes)).unwrap()).unwrap()
}

fn naming(agent: &Agent, name: &str) -> Request {
    Request::SetHostname(SetHostname {
        node_id: agent.id,
        hostname: name.to_owned(),
        ..SetHostname::default()
    })
}

/// Both consent to be found by the other.
fn befriend(world: &mut World, a: &Agent, b: &Agent) {
    world.report_trust(a, b.id);
    world.report_trust(b, a.id);
}

#[test]
fn a_record_is_passed_on_as_it_was_signed_to_those_who_may_know_where_its_node_is() {
    let mut world = World::new();
    let (a, b, stranger) = (world.agent(1), world.agent(2), world.agent(3));
    befriend(&mut world, &a, &b);
    let said = record(&a, 1);
    assert_eq!(publish(&mut world, &a, &said), Response::PublishRecord { node_id: a.id, seq: seq(1) });
    world.restart();
    let (a, b, stranger) = (back(&mut world, a), back(&mut world, b), back(&mut world, stranger));

    let found = lookup(&mut world, &b, a.id);
    let signed = SignedRecord::from_text(&found.record.unwrap()).unwrap();
    assert_eq!(open_record(&signed, &a.identity.public()).unwrap(), said);
    assert_eq!((found.hostname.as_deref(), &found.tags[..]), (Some(said.hostname.as_str()), &said.tags[..]));
    assert!(found.task_exec);
    let Response::Resolve(resolved) = world.resolve(&b, a.id) else { panic!() };
    assert_eq!(resolved.record, Some(signed.to_text()));
    assert_eq!(lookup(&mut world, &stranger, a.id).record, None);
}

/// A client that comes again after the registry was started anew.
fn back(world: &mut World, mut agent: Agent) -> Agent {
    agent.conn = world.connect(&format!("198.51.100.{}:50001", agent.identity.public().as_bytes()[0]));
    world.register(&agent);
    agent
}

#[test]
fn a_record_that_is_old_forged_or_of_another_changes_nothing() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let said = record(&a, 10);
    publish(&mut world, &a, &said);

    let again = publish(&mut world, &a, &NodeRecord { hostname: "other".to_owned(), ..said.clone() });
    assert!(refusal(&again).contains("is not above"), "{again:?}");
    let older = publish(&mut world, &a, &NodeRecord { seq: seq(9), ..said.clone() });
    assert!(refusal(&older).contains("is not above"), "{older:?}");
    let forged = publishing(&b.identity, &NodeRecord { seq: seq(11), ..said.clone() });
    let forged = world.ask(b.conn, forged);
    assert!(refusal(&forged).contains("not signed by the key"), "{forged:?}");
    let mut of_another = publishing(&a.identity, &NodeRecord { node: b.id, seq: seq(11), ..said.clone() });
    if let Request::PublishRecord(request) = &mut of_another {
        request.node_id = a.id;
    }
    assert!(refusal(&world.ask(a.conn, of_another)).contains("of node"));
    let future = NodeRecord { seq: seq(3_600_000), ..said.clone() };
    assert!(refusal(&publish(&mut world, &a, &future)).contains("future"));

    let found = lookup(&mut world, &a, a.id);
    assert_eq!(found.hostname, Some(said.hostname.clone()));
    let signed = SignedRecord::from_text(&found.record.unwrap()).unwrap();
    assert_eq!(open_record(&signed, &a.identity.public()).unwrap(), said);
}

#[test]
fn a_record_whose_name_is_taken_is_refused_as_a_whole() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    world.name(&b, "bob");
    let wish = NodeRecord { hostname: "bob".to_owned(), public: true, ..record(&a, 1) };
    assert!(refusal(&publish(&mut world, &a, &wish)).contains("already in use"));
    let found = lookup(&mut world, &a, a.id);
    assert_eq!((found.hostname, found.public, found.record), (None, false, None));
}

#[test]
fn who_has_sealed_once_must_seal_and_no_seal_counts_twice() {
    let mut world = World::new();
    let a = world.agent(1);
    let request = sealed(&a, naming(&a, "first"), seq(1));
    assert!(matches!(world.ask(a.conn, request.clone()), Response::SetHostname { .. }));
    assert!(matches!(
        world.ask(a.conn, sealed(&a, naming(&a, "second"), seq(2))),
        Response::SetHostname { .. }
    ));

    // What somebody saw on the way, said again.
    assert!(refusal(&world.ask(a.conn, request)).contains("is not above"));
    let unsealed = world.by(&a, naming(&a, "third"));
    assert!(refusal(&unsealed).contains("seal is required"), "{unsealed:?}");
    world.restart();
    let conn = world.connect("198.51.100.1:50001");
    let unsealed = world.ask(conn, a.signed(naming(&a, "third")));
    assert!(refusal(&unsealed).contains("seal is required"), "{unsealed:?}");
    let listen = a.signed(register(&a.identity, "0.0.0.0:4001"));
    assert!(refusal(&world.ask(conn, listen)).contains("seal is required"));
    let as_operator = Envelope::with_token(naming(&a, "by-operator"), common::ADMIN);
    assert!(matches!(world.ask(conn, as_operator), Response::SetHostname { .. }));
    // Asking and signs of life need none.
    assert!(matches!(world.ask(conn, a.signed(Request::Heartbeat(about(a.id)))), Response::Heartbeat { .. }));
}

#[test]
fn a_seal_is_worth_nothing_on_an_altered_request_by_another_or_from_the_future() {
    let mut world = World::new();
    let (a, b) = (world.agent(1), world.agent(2));
    let mut altered = sealed(&a, naming(&a, "first"), seq(1));
    if let Some(seal) = &mut altered.seal {
        seal.bytes =
            String::from_utf8(seal.bytes.clone().split_off(25)).unwrap().replace("first", "worst").into();
    }
    assert!(refusal(&world.ask(a.conn, altered)).contains("does not fit"));
    let json = a.signed(naming(&a, "first")).to_json();
    let by_another = seal(&json, seq(1), |bytes| b.identity.sign(bytes)).unwrap();
    assert!(refusal(&world.ask(a.conn, Envelope::parse(&by_another).unwrap())).contains("does not fit"));
    let future = sealed(&a, naming(&a, "first"), seq(3_600_000));
    assert!(refusal(&world.ask(a.conn, future)).contains("future"));
    // None of these counted: the node need not seal yet.
    assert!(matches!(world.by(&a, naming(&a, "plain")), Response::SetHostname { .. }));
}

#[test]
fn a_visibility_cannot_be_flipped_back_by_repeating_what_was_said() {
    let mut world = World::new();
    let a = world.agent(1);
    let visible =
        |public| Request::SetVisibility(SetVisibility { node_id: a.id, public, ..SetVisibility::default() });
    let opened = sealed(&a, visible(true), seq(1));
    world.ask(a.conn, opened.clone());
    world.ask(a.conn, sealed(&a, visible(false), seq(2)));
    let thief = world.connect("203.0.113.66:1");
    refusal(&world.ask(thief, opened));
    // The short signature of the protocol covers no value; without a seal it is worth nothing here.
    refusal(&world.ask(thief, a.signed(visible(true))));
    assert!(!lookup(&mut world, &a, a.id).public);
}

#[test]
fn a_number_follows_from_the_key_and_comes_back_at_another_registry() {
    let (mut here, mut there) = (World::new(), World::new());
    let derived = |world: &mut World, seed: u8| {
        let conn = world.connect(&format!("198.51.100.{seed}:50000"));
        let mut agent = Agent { identity: identity(seed), conn, id: NodeId::UNSET };
        let Request::Register(mut request) = register(&agent.identity, "0.0.0.0:4000") else { panic!() };
        request.derived = true;
        match world.ask(conn, agent.signed(Request::Register(request))) {
            Response::Register(registered) => agent.id = registered.node_id,
            other => panic!("{other:?}"),
        }
        agent
    };
    let plain = here.agent(9);
    assert_eq!(plain.id, NodeId(1), "nodes that do not ask for it are numbered in order");
    let a = derived(&mut here, 1);
    let first = derived_numbers(&a.identity.public()).next().unwrap();
    assert_eq!(a.id, first);
    assert!(a.id.0 >= DERIVED_FROM);
    assert_eq!(derived(&mut there, 1).id, a.id);
    assert_eq!(derived(&mut here, 1).id, a.id);
    assert_eq!(here.agent(10).id, NodeId(2));
    here.restart();
    assert_eq!(derived(&mut here, 1).id, a.id);
    assert_eq!(here.agent(11).id, NodeId(3));
}

struct Changing {
    world: World,
    a: Agent,
    new: Identity,
    recovery: Identity,
}

/// A node with a record that names a recovery key.
fn changing() -> Changing {
    let mut world = World::new();
    let a = world.agent(1);
    let recovery = identity(99);
    let said = NodeRecord { recovery: Some(recovery.public()), ..record(&a, 1) };
    assert!(matches!(publish(&mut world, &a, &said), Response::PublishRecord { .. }));
    Changing { world, a, new: identity(50), recovery }
}

impl Changing {
    fn change(&self, by: ChangedBy, after: u64) -> KeyChange {
        let (old, new) = (self.a.identity.public(), self.new.public());
        KeyChange { node: self.a.id, old, new, seq: seq(after), by }
    }

    fn rotate(&mut self, signer: &Identity, change: &KeyChange) -> Response {
        let text = sign_change(signer, &self.new, change).to_text();
        let request = RotateKey {
            node_id: self.a.id,
            new_public_key: Sent::Given(self.new.public()),
            change: text,
            ..RotateKey::default()
        };
        self.world.by(&self.a, Request::RotateKey(request))
    }

    fn key(&mut self) -> PublicKey {
        let conn = self.world.connect("192.0.2.7:7");
        match self.world.ask(conn, Request::Lookup(about(self.a.id))) {
            Response::Lookup(found) => found.public_key,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_node_known_by_its_record_changes_its_key_in_a_form_that_its_peers_can_check() {
    let mut test = changing();
    let old = test.a.identity.public();
    let plain = RotateKey {
        node_id: test.a.id,
        new_public_key: Sent::Given(test.new.public()),
        ..RotateKey::default()
    };
    let plain = test.world.by(&test.a, Request::RotateKey(plain));
    assert!(refusal(&plain).contains("required"), "{plain:?}");
    let change = test.change(ChangedBy::Old, 2);
    let signer = test.a.identity.clone();
    assert!(matches!(test.rotate(&signer, &change), Response::RotateKey(_)));
    assert_eq!(test.key(), test.new.public());

    let conn = test.world.connect("192.0.2.7:8");
    let Response::Lookup(found) = test.world.ask(conn, Request::Lookup(about(test.a.id))) else { panic!() };
    let shown = SignedChange::from_text(&found.key_changes[0]).unwrap();
    assert_eq!(open_change(&shown, &old, None).unwrap(), change);
    assert_eq!(found.record, None, "what the old key said counts no longer");
    // The new key speaks from here on, above what the old one said.
    test.a.identity = test.new.clone();
    let low = record(&test.a, 2);
    assert!(refusal(&publish(&mut test.world, &test.a, &low)).contains("is not above"));
    let high = record(&test.a, 3);
    assert!(matches!(publish(&mut test.world, &test.a, &high), Response::PublishRecord { .. }));
}

#[test]
fn a_lost_key_is_replaced_by_the_recovery_key_named_before_also_while_the_node_is_away() {
    let mut test = changing();
    test.world.pass(Duration::from_secs(400));
    let change = test.change(ChangedBy::Recovery, 2);
    let thief = identity(66);
    let stolen = test.rotate(&thief, &change);
    assert!(refusal(&stolen).contains("not signed by the key"), "{stolen:?}");
    let recovery = test.recovery.clone();
    assert!(matches!(test.rotate(&recovery, &change), Response::RotateKey(_)));
    assert!(refusal(&test.rotate(&recovery, &change)).contains("another key"), "once is enough");
    test.a.identity = test.new.clone();
    assert_eq!(test.world.register(&test.a), test.a.id, "the number is the new key's");
}

#[test]
fn nobody_recovers_a_node_that_named_no_recovery_key() {
    let mut world = World::new();
    let a = world.agent(1);
    publish(&mut world, &a, &record(&a, 1));
    let (new, recovery) = (identity(50), identity(99));
    let mut test = Changing { world, a, new, recovery };
    let change = test.change(ChangedBy::Recovery, 2);
    let recovery = test.recovery.clone();
    let answer = test.rotate(&recovery, &change);
    assert!(refusal(&answer).contains("none was named"), "{answer:?}");
}
