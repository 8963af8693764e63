//! The owner's rules with whole daemons: what a peer sees, and what programs never see.

use std::time::{Duration, Instant};

use crate::common::{Daemon, Home, Rendezvous, befriend, within};
use crate::streams::Pair;
use pilot_client::ipc::{Call, Status};
use pilot_client::policy::{
    Audience, Field, Limit, PortRules, Question, Rules, Target, Topics, Verdict, Who,
};
use pilot_client::{Client, Error, NewTask, Outgoing};
use pilot_wire::dataexchange::RequestTag;
use pilot_wire::ipc::Code;
use pilot_wire::{Addr, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: Port = Port(5000);

async fn clients(pair: &Pair) -> (Client, Client) {
    (client(&pair.a).await, client(&pair.b).await)
}

async fn client(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

fn node(daemon: &Daemon) -> Target {
    Target::Peer(Who::Node(daemon.node()))
}

fn rules(json: &str) -> Rules {
    serde_json::from_str(json).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    let error = result.unwrap_err();
    assert!(error.to_string().contains("refused by policy"), "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_denied_port_looks_closed_to_the_peer_and_the_program_hears_nothing() {
    let pair = Pair::of_friends().await;
    let (a, b) = clients(&pair).await;
    let mut listener = b.listen(PORT).await.unwrap();
    b.decide_ports(node(&pair.a), Verdict::Deny, "7,1001,1002,5000".parse().unwrap()).await.unwrap();
    for port in [PORT, Port::ECHO, Port::DATA_EXCHANGE, Port::EVENT_STREAM] {
        let refused = within("the answer", a.dial(pair.b.at(port))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Refused, "{port}: {refused}");
        // With data in its first packet as well.
        let refused = within("the answer", a.dial_with(pair.b.at(port), b"secret")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Refused, "{port}: {refused}");
    }
    // The first stream that the program accepts is the first that was allowed.
    b.unset_policy(node(&pair.a), vec![Field::Ports]).await.unwrap();
    let mut near = within("the dial", a.dial(pair.b.at(PORT))).await.unwrap();
    near.write_all(b"allowed").await.unwrap();
    near.finish().await.unwrap();
    let mut far = within("the stream", listener.accept()).await.unwrap();
    let mut text = String::new();
    within("the text", far.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "allowed");
}

#[tokio::test]
async fn only_the_ports_that_a_node_may_use_are_open_to_it_and_own_programs_are_not_asked() {
    let pair = Pair::of_friends().await;
    let (a, b) = clients(&pair).await;
    let _listener = b.listen(PORT).await.unwrap();
    b.set_policy(
        Target::All,
        Rules { ports: Some(PortRules::only("7".parse().unwrap())), ..Rules::default() },
    )
    .await
    .unwrap();
    within("echo", a.dial(pair.b.at(Port::ECHO))).await.unwrap();
    let refused = within("the answer", a.dial(pair.b.at(PORT))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Refused);
    within("its own port", b.dial(pair.b.at(PORT))).await.unwrap();
    within("a port of the other", b.dial(pair.a.at(Port::ECHO))).await.unwrap();
    // The one who may, by a rule of its own.
    b.set_audience("5000".parse().unwrap(), Audience::Only(vec![node(&pair.a)])).await.unwrap();
    within("the dial", a.dial(pair.b.at(PORT))).await.unwrap();
}

#[tokio::test]
async fn datagrams_to_a_denied_port_reach_no_program() {
    let pair = Pair::of_friends().await;
    let (a, b) = clients(&pair).await;
    let (denied, open) = (b.datagrams(Port(6000)).unwrap(), b.datagrams(Port(6001)).unwrap());
    b.decide_ports(Target::All, Verdict::Deny, "6000".parse().unwrap()).await.unwrap();
    let counted = async || b.policy().await.unwrap().peers.first().map_or(0, |peer| peer.refused);
    within("a datagram that is refused", async {
        // Datagrams may be lost; nothing else tells that one has come.
        while counted().await == 0 {
            a.send_datagram(pair.b.at(Port(6000)), b"denied").await.unwrap();
        }
    })
    .await;
    b.unset_policy(Target::All, Vec::new()).await.unwrap();
    within("datagrams", async {
        let mut first = None;
        while first.is_none() {
            a.send_datagram(pair.b.at(Port(6001)), b"open").await.unwrap();
            a.send_datagram(pair.b.at(Port(6000)), b"allowed").await.unwrap();
            first = tokio::time::timeout(Duration::from_millis(200), denied.recv_from()).await.ok();
        }
        assert_eq!(first.unwrap().unwrap().1, "allowed");
        assert_eq!(open.recv_from().await.unwrap().1, "open");
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_open_ends_when_it_is_no_longer_allowed() {
    let pair = Pair::of_friends().await;
    let (a, b) = clients(&pair).await;
    let mut listener = b.listen(PORT).await.unwrap();
    let mut near = a.dial(pair.b.at(PORT)).await.unwrap();
    let mut far = within("the stream", listener.accept()).await.unwrap();
    let mut other = a.dial(pair.b.at(Port::ECHO)).await.unwrap();
    b.decide_ports(node(&pair.a), Verdict::Deny, PORT.into()).await.unwrap();
    let told = within("the end", far.read(&mut [0; 8])).await.unwrap_err();
    assert!(told.to_string().contains("do not allow the peer here any more"), "{told}");
    within("the end at the peer", near.read(&mut [0; 8])).await.unwrap_err();
    other.write_all(b"still here").await.unwrap();
    let mut echoed = [0; 10];
    within("echo", other.read_exact(&mut echoed)).await.unwrap();
}

#[tokio::test]
async fn messages_that_the_rules_do_not_take_are_refused_with_the_reason_and_not_kept() {
    let pair = Pair::of_friends().await;
    let (a, b) = clients(&pair).await;
    let to = Addr::backbone(pair.b.node());
    b.set_policy(node(&pair.a), rules(r#"{"max_message":10,"max_file":0,"requests":false}"#)).await.unwrap();
    let long = a.send_message(to, Outgoing::text("eleven text")).await;
    assert!(refusal(long).ends_with("a message of 11 bytes, longer than 10"));
    let mut request = Outgoing::text("a request");
    request.extension.request = Some(RequestTag { deadline_ms: 1000, ..RequestTag::default() });
    assert!(refusal(a.send_message(to, request).await).ends_with("requests are not taken"));
    a.send_message(to, Outgoing::text("ten letter")).await.unwrap();
    let mail = b.read_message(None).await.unwrap();
    assert_eq!(mail.message.data.as_deref(), Some("ten letter"));
    // Nothing was counted against anybody else, and the owner sees what happened.
    let counts = b.policy().await.unwrap().peers;
    assert_eq!((counts[0].node, counts[0].refused, counts[0].slowed), (pair.a.node(), 2, 0));
    b.unset_policy(node(&pair.a), Vec::new()).await.unwrap();
    b.set_policy(Target::All, rules(r#"{"messages_per_min":0}"#)).await.unwrap();
    assert!(refusal(a.send_message(to, Outgoing::text("x")).await).contains("not taken"));
}

#[tokio::test]
async fn a_rate_slows_a_sender_down_and_loses_nothing() {
    const ALLOWED: u64 = 60;
    let pair = Pair::of_friends().await;
    let (a, b) = clients(&pair).await;
    let to = Addr::backbone(pair.b.node());
    b.set_policy(node(&pair.a), Rules { messages_per_min: Some(Limit::Of(ALLOWED)), ..Rules::default() })
        .await
        .unwrap();
    let mut courier = a.courier(to).await.unwrap();
    let start = Instant::now();
    for number in 0..ALLOWED + 2 {
        within("the answer", courier.send(&Outgoing::text(number.to_string()))).await.unwrap();
    }
    // One a second after the first sixty, less what the first sixty took.
    assert!(start.elapsed() >= Duration::from_millis(1900), "{:?}", start.elapsed());
    let counts = b.policy().await.unwrap().peers;
    assert!(counts[0].slowed >= 1 && counts[0].refused == 0, "{counts:?}");
}

#[tokio::test]
async fn a_broken_file_closes_the_node_and_says_so_until_it_is_mended() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    befriend(&a, &b).await;
    let config = b.config.clone();
    b.stop().await;
    let path = config.home.join("policy.json");
    std::fs::write(&path, r#"{"version":1,"all":{"max_mesage":1}}"#).unwrap();
    let b = Daemon::start(config).await;
    let (at_a, at_b) = (client(&a).await, client(&b).await);
    for port in [Port::ECHO, Port::DATA_EXCHANGE, Port::EVENT_STREAM] {
        let refused = within("the answer", at_a.dial(b.at(port))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Refused, "{port}: {refused}");
        within("its own port", at_b.dial(b.at(port))).await.unwrap();
    }
    let status: Status = at_b.call(Call::Status).await.unwrap();
    assert!(status.policy_broken.unwrap().contains("max_mesage"));
    assert_eq!(at_b.health().await.unwrap().status, "policy_broken");
    assert!(at_b.policy().await.unwrap().broken.is_some());
    let test = at_b.test_policy(a.node(), Question::Port { port: Port::ECHO }).await.unwrap();
    assert!(!test.allowed);
    let unchanged = at_b.set_policy(Target::All, rules(r#"{"tasks":false}"#)).await.unwrap_err();
    assert_eq!(unchanged.code(), Code::PermissionDenied);

    std::fs::write(&path, r#"{"version":1,"all":{"max_message":1}}"#).unwrap();
    assert_eq!(at_b.reload_policy().await.unwrap().broken, None);
    within("echo", at_a.dial(b.at(Port::ECHO))).await.unwrap();
    assert_eq!(at_b.health().await.unwrap().status, "ok");
    assert_eq!(at_b.policy_of(a.node()).await.unwrap().max_message.value, Limit::Of(1));
}

#[tokio::test]
async fn rules_outlive_the_daemon_and_groups_hold_for_their_members() {
    let pair = Pair::of_friends().await;
    let b = client(&pair.b).await;
    let print = {
        let trusted = b.trusted().await.unwrap();
        trusted[0].public_key.as_ref().map(pilot_client::policy::KeyPrint::from).unwrap()
    };
    let group: pilot_client::policy::GroupName = "workers".parse().unwrap();
    let members = b.add_to_group(group.clone(), Who::Key(print)).await.unwrap();
    assert_eq!(members, [Who::Key(print)]);
    let topics = Topics::new(["jobs.*"]).unwrap();
    b.set_policy(Target::Group(group.clone()), Rules { publish: Some(topics), ..Rules::default() })
        .await
        .unwrap();
    let config = pair.b.config.clone();
    let (a, home) = (pair.a, pair.homes);
    pair.b.kill().await;
    let again = Daemon::start(config).await;
    let b = client(&again).await;
    let ask = async |topic: &str| {
        let question = Question::Publish { topic: topic.to_owned() };
        b.test_policy(a.node(), question).await.unwrap()
    };
    assert!(ask("jobs.one").await.allowed);
    let refused = ask("news").await;
    assert_eq!((refused.allowed, refused.from), (false, vec![Target::Group(group.clone())]));
    assert_eq!(b.remove_from_group(group, None).await.unwrap(), []);
    assert!(ask("news").await.allowed);
    assert_eq!(b.reset_policy().await.unwrap().book, pilot_client::policy::Book::default());
    drop(home);
}

#[tokio::test]
async fn tasks_and_a_mailbox_are_for_those_who_may() {
    let pair = Pair::of_friends().await;
    let (a, b) = clients(&pair).await;
    b.task_settings(Some(true), None).await.unwrap();
    b.allow_mailbox(pair.a.node(), None, None).await.unwrap();
    b.set_policy(node(&pair.a), rules(r#"{"tasks":false,"mailbox":false}"#)).await.unwrap();
    let new = || NewTask::new("count these four words").answered_within(crate::common::PATIENCE);
    let task = within("the answer", a.submit_task(Addr::backbone(pair.b.node()), new())).await;
    assert!(format!("{task:?}").contains("refused by policy: tasks are not taken"), "{task:?}");
    let refused = within("the answer", a.use_mailbox(pair.b.node())).await.unwrap_err();
    assert!(refused.to_string().contains("refused by policy: messages are not kept"), "{refused}");
    b.unset_policy(node(&pair.a), Vec::new()).await.unwrap();
    within("the answer", a.use_mailbox(pair.b.node())).await.unwrap();
    let (waiting, _) = b.task_queue().await.unwrap();
    assert!(waiting.is_empty(), "{waiting:?}");
}
