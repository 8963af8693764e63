//! Messages, files and events between whole daemons, through the client that applications use.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a step that fails or an answer of another kind is the test's failure, in helpers too"
)]

#[path = "daemon/common.rs"]
mod common;

use std::time::{Duration, SystemTime};

use common::{Daemon, Home, Rendezvous, befriend, within};
use pilot_client::ipc::Code;
use pilot_client::mailbox::{List, Reply, Request};
use pilot_client::{Addr, Client, EventStream, MessageKind, Outgoing, Received, Transport};
use pilot_daemon::Config;

/// Two daemons that trust each other.
struct Pair {
    a: Daemon,
    b: Daemon,
    rendezvous: Rendezvous,
    homes: [Home; 2],
}

impl Pair {
    async fn of_friends() -> Self {
        let rendezvous = Rendezvous::start().await;
        let homes = [Home::new(), Home::new()];
        let a = Daemon::start(homes[0].config(&rendezvous)).await;
        let b = Daemon::start(homes[1].config(&rendezvous)).await;
        befriend(&a, &b).await;
        Self { a, b, rendezvous, homes }
    }
}

async fn client(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

fn addr(daemon: &Daemon) -> Addr {
    Addr::backbone(daemon.node())
}

/// The same home, socket and UDP port, as a service manager restarts a daemon.
fn again(config: &Config, listen: std::net::SocketAddr) -> Config {
    let mut config = config.clone();
    config.listen = listen;
    config
}

async fn next(events: &mut EventStream) -> Received {
    within("an event", events.next()).await
}

/// What is sent ahead of the receiver's word, and so perhaps twice: 128 chunks.
const WINDOW: u64 = 128 * 49_152;

#[tokio::test]
async fn messages_of_every_kind_arrive_both_ways_and_exactly() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    for (from, to) in [(a, b), (b, a)] {
        let (sender, receiver) = (client(from).await, client(to).await);
        for (kind, name, data) in [
            (MessageKind::Text, "TEXT", &b"process this"[..]),
            (MessageKind::Json, "JSON", br#"{"k":1}"#),
            (MessageKind::Binary, "BINARY", b"\x00\xff\x80bin"),
            (MessageKind::Text, "TEXT", b""),
            (MessageKind::Text, "TEXT", b"\xff\xfe"),
        ] {
            let receipt = sender.send_message(addr(to), Outgoing::new(kind, data)).await.unwrap();
            assert_eq!(receipt.ack, format!("ACK {name} {} bytes", data.len()));
            let mail = receiver.read_message(None).await.unwrap();
            assert_eq!(mail.message.body().unwrap(), data);
            assert_eq!(mail.message.kind, name);
            assert_eq!(mail.message.from, addr(from));
            assert_eq!(mail.message.message_id, Some(receipt.message_id));
        }
    }
}

#[tokio::test]
async fn a_question_gets_its_answer_and_a_repetition_is_stored_once() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let (asking, answering) = (client(a).await, client(b).await);
    let sent_at = SystemTime::now();
    let question = asking.send_message(addr(b), Outgoing::text("2 + 2?")).await.unwrap();
    let waiting = asking.wait_reply(b.node(), &question.message_id, sent_at, Duration::from_secs(20));
    let answer = async {
        let asked = answering.read_message(None).await.unwrap();
        let id = asked.message.message_id.unwrap();
        answering.send_message(asked.message.from, Outgoing::text("4").in_reply_to(id)).await.unwrap();
    };
    let (reply, ()) = tokio::join!(waiting, answer);
    let reply = reply.unwrap().unwrap();
    assert_eq!(reply.message.body().unwrap(), b"4");
    assert_eq!(reply.message.reply_to, Some(question.message_id.clone()));

    let repeated = Outgoing { message_id: Some(question.message_id), ..Outgoing::text("2 + 2?") };
    assert!(asking.send_message(addr(b), repeated).await.unwrap().duplicate);
    let list = Request::List(List::default());
    let Reply::Messages { total, .. } = answering.mailbox(list).await.unwrap() else { panic!() };
    assert_eq!(total, 1);
}

#[tokio::test]
async fn who_waits_for_an_answer_gets_it_though_its_daemon_was_killed_meanwhile() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let asking = client(&a).await;
    let sent_at = SystemTime::now();
    let question = asking.send_message(addr(&b), Outgoing::text("2 + 2?")).await.unwrap();
    let (from, id, to) = (b.node(), question.message_id.clone(), addr(&a));
    let waiting =
        tokio::spawn(async move { asking.wait_reply(from, &id, sent_at, Duration::from_secs(20)).await });
    let config = again(&a.config, a.running.listen);
    a.kill().await;
    let _a = Daemon::start(config).await;
    let answer = Outgoing::text("4").in_reply_to(question.message_id);
    within("the answer", client(&b).await.send_message(to, answer)).await.unwrap();
    let reply = waiting.await.unwrap().unwrap().unwrap();
    assert_eq!(reply.message.body().unwrap(), b"4");
}

#[tokio::test]
async fn a_node_sends_messages_to_itself() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let client = client(&daemon).await;
    client.send_message(addr(&daemon), Outgoing::text("note to self")).await.unwrap();
    assert_eq!(client.read_message(None).await.unwrap().message.from, addr(&daemon));
}

#[tokio::test]
async fn the_inbox_and_trust_are_the_same_after_kills() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let sender = client(&a).await;
    sender.send_message(addr(&b), Outgoing::text("before")).await.unwrap();
    let config = again(&b.config, b.running.listen);
    let to = addr(&b);
    b.kill().await;
    let b = Daemon::start(config).await;
    within("a message to the new process", sender.send_message(to, Outgoing::text("after"))).await.unwrap();
    let list = Request::List(List::default());
    let Reply::Messages { messages, .. } = client(&b).await.mailbox(list).await.unwrap() else { panic!() };
    let previews: Vec<_> = messages.iter().filter_map(|entry| entry.preview.as_deref()).collect();
    assert_eq!(previews, ["before", "after"]);
}

fn write_file(home: &Home, bytes: usize) -> (std::path::PathBuf, Vec<u8>) {
    let data: Vec<u8> = (0..bytes).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let path = home.path().join("data.bin");
    std::fs::write(&path, &data).unwrap();
    (path, data)
}

fn received(home: &Home) -> Vec<Vec<u8>> {
    std::fs::read_dir(home.path().join("received"))
        .unwrap()
        .filter_map(|file| std::fs::read(file.unwrap().path()).ok())
        .collect()
}

#[tokio::test]
async fn a_file_arrives_whole() {
    let Pair { a, b, homes, .. } = &Pair::of_friends().await;
    let (path, data) = write_file(&homes[0], 5_000_000);
    let mut seen = Vec::new();
    let sending = client(a).await;
    let receipt = within("the file", sending.send_file(addr(b), &path, |progress| seen.push(progress.done)))
        .await
        .unwrap();
    assert_eq!(receipt.transport, Transport::FileStream);
    assert_eq!((receipt.bytes, receipt.bytes_sent, receipt.bytes_resumed), (5_000_000, 5_000_000, 0));
    assert!(seen.is_sorted() && seen.last() == Some(&5_000_000));
    assert!(received(&homes[1]) == [data]);
}

#[tokio::test]
async fn an_empty_file_and_one_of_a_single_byte_arrive() {
    let Pair { a, b, homes, .. } = &Pair::of_friends().await;
    for length in [0, 1] {
        let (path, _) = write_file(&homes[0], length);
        let receipt = client(a).await.send_file(addr(b), &path, |_| {}).await.unwrap();
        assert_eq!(receipt.bytes, length as u64);
    }
    let mut lengths: Vec<usize> = received(&homes[1]).iter().map(Vec::len).collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 1]);
}

#[tokio::test]
async fn a_file_goes_on_by_itself_when_the_receiver_is_killed_in_the_middle() {
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends().await;
    let (path, data) = write_file(&homes[0], 16_000_000);
    let (half, is_half) = tokio::sync::oneshot::channel();
    let mut half = Some(half);
    let sender = client(&a).await;
    let to = addr(&b);
    let sending = tokio::spawn(async move {
        let progress = |progress: pilot_client::Progress| {
            if progress.done > 8_000_000
                && let Some(half) = half.take()
            {
                half.send(()).unwrap();
            }
        };
        sender.send_file(to, &path, progress).await
    });
    within("half of the file", is_half).await.unwrap();
    let config = again(&b.config, b.running.listen);
    b.kill().await;
    let _b = Daemon::start(config).await;
    let receipt = tokio::time::timeout(Duration::from_secs(60), sending).await.unwrap().unwrap().unwrap();
    assert!(receipt.bytes_sent <= 16_000_000 + WINDOW, "{receipt:?}");
    assert!(received(&homes[1]) == [data]);
}

#[tokio::test]
async fn a_file_goes_on_by_itself_when_the_senders_own_daemon_is_killed_in_the_middle() {
    let Pair { a, b, rendezvous: _rendezvous, homes } = Pair::of_friends().await;
    let (path, data) = write_file(&homes[0], 16_000_000);
    let (half, is_half) = tokio::sync::oneshot::channel();
    let mut half = Some(half);
    let sender = client(&a).await;
    let to = addr(&b);
    let sending = tokio::spawn(async move {
        let progress = |progress: pilot_client::Progress| {
            if progress.done > 8_000_000
                && let Some(half) = half.take()
            {
                half.send(()).unwrap();
            }
        };
        sender.send_file(to, &path, progress).await
    });
    within("half of the file", is_half).await.unwrap();
    let config = again(&a.config, a.running.listen);
    a.kill().await;
    let _a = Daemon::start(config).await;
    let receipt = tokio::time::timeout(Duration::from_secs(60), sending).await.unwrap().unwrap().unwrap();
    assert!(receipt.bytes_sent <= 16_000_000 + WINDOW, "{receipt:?}");
    assert!(received(&homes[1]) == [data]);
}

#[tokio::test]
async fn a_peer_with_too_many_connections_is_refused_the_next_and_keeps_the_others() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let sender = client(a).await;
    let mut couriers = Vec::new();
    for _ in 0..16 {
        let mut courier = sender.courier(addr(b)).await.unwrap();
        within("a message", courier.send(&Outgoing::text("x"))).await.unwrap();
        couriers.push(courier);
    }
    let refused = within("the refusal", sender.send_message(addr(b), Outgoing::text("x"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Closed);
    within("a message", couriers[0].send(&Outgoing::text("x"))).await.unwrap();
    couriers.clear();
    within("a place", async { while sender.send_message(addr(b), Outgoing::text("x")).await.is_err() {} })
        .await;
}

#[tokio::test]
async fn a_missing_file_and_an_unknown_peer_are_told_apart() {
    let Pair { a, b, homes, .. } = &Pair::of_friends().await;
    let sender = client(a).await;
    let missing = sender.send_file(addr(b), &homes[0].path().join("nothing"), |_| {}).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let nobody = sender.send_message(Addr::backbone(pilot_client::NodeId(4711)), Outgoing::text("x")).await;
    assert!(nobody.is_err());
}

#[tokio::test]
async fn events_reach_who_trusts_the_publisher_by_pattern_and_with_their_source() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut at_a = client(a).await.open_event_stream().await.unwrap();
    let mut at_b = client(b).await.open_event_stream().await.unwrap();
    let results = at_a.subscribe("agent-b.>").await.unwrap();
    assert!(results.confirmed);
    assert_eq!(results.brokers, 1);
    at_b.subscribe("tasks.*").await.unwrap();
    at_a.publish("tasks.one", "do it").await.unwrap();
    let task = next(&mut at_b).await;
    assert_eq!((task.topic.as_str(), &task.payload[..]), ("tasks.one", &b"do it"[..]));
    assert_eq!(task.publisher, Some(addr(a)));
    at_b.publish("other.topic", "no").await.unwrap();
    at_b.publish("agent-b.results.one", "done").await.unwrap();
    let result = next(&mut at_a).await;
    assert_eq!((result.topic.as_str(), result.broker), ("agent-b.results.one", Some(addr(b))));
}

#[tokio::test]
async fn events_at_a_target_go_through_its_broker() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let at_a = client(a).await;
    let mut listening = at_a.open_event_stream_at(addr(b));
    listening.subscribe("news").await.unwrap();
    let mut publishing = at_a.open_event_stream_at(addr(b));
    publishing.publish("news", "hello").await.unwrap();
    publishing.settle().await.unwrap();
    assert_eq!(next(&mut listening).await.payload, "hello");
}

#[tokio::test]
async fn a_subscription_is_renewed_when_either_daemon_comes_back() {
    let Pair { a, b, rendezvous: _rendezvous, homes: _homes } = Pair::of_friends().await;
    let mut at_a = client(&a).await.open_event_stream().await.unwrap();
    at_a.subscribe("news").await.unwrap();

    let config = again(&b.config, b.running.listen);
    b.kill().await;
    let b = Daemon::start(config).await;
    assert_eq!(heard_again(&b, &mut at_a).await.broker, Some(addr(&b)));

    let config = again(&a.config, a.running.listen);
    a.kill().await;
    let _a = Daemon::start(config).await;
    heard_again(&b, &mut at_a).await;
}

/// Publishes until it is heard: nobody tells a publisher when a subscriber has come back.
async fn heard_again(publisher: &Daemon, listening: &mut EventStream) -> Received {
    let mut publishing = client(publisher).await.open_event_stream().await.unwrap();
    let publishing = async {
        loop {
            publishing.publish("news", "again").await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        received = next(listening) => received,
        () = publishing => panic!("publishing ended"),
    }
}
