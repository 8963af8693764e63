//! The event stream between whole daemons: restarts, the past, publishers that wait, three nodes at once.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    reason = "a step that fails or an answer of another kind is the test's failure, in helpers too"
)]

#[path = "daemon/common.rs"]
mod common;
#[path = "../../client/examples/two_agents.rs"]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "its parts are used, not its `main`")]
mod two_agents;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Daemon, Home, Rendezvous, befriend, within};
use pilot_client::{Addr, Client, EventStream, Overflow, Received, SubscribeOptions};
use pilot_wire::ipc::LinkState;
use two_agents::{Planner, Task, Worker};

/// Nodes that all trust each other.
struct World {
    _rendezvous: Rendezvous,
    homes: Vec<Home>,
    nodes: Vec<Option<Daemon>>,
}

impl World {
    async fn of(count: usize) -> Self {
        let rendezvous = Rendezvous::start().await;
        let homes: Vec<Home> = (0..count).map(|_| Home::new()).collect();
        let mut nodes = Vec::new();
        for home in &homes {
            nodes.push(Some(Daemon::start(home.config(&rendezvous)).await));
        }
        let world = Self { _rendezvous: rendezvous, homes, nodes };
        for one in 0..count {
            for other in one + 1..count {
                befriend(world.node(one), world.node(other)).await;
            }
        }
        world
    }

    fn node(&self, index: usize) -> &Daemon {
        self.nodes[index].as_ref().unwrap()
    }

    fn addr(&self, index: usize) -> Addr {
        Addr::backbone(self.node(index).node())
    }

    async fn client(&self, index: usize) -> Client {
        Client::connect_to(&self.node(index).config.socket).await.unwrap()
    }

    async fn events(&self, index: usize) -> EventStream {
        self.client(index).await.open_event_stream().await.unwrap()
    }

    async fn kill(&mut self, index: usize) -> pilot_daemon::Config {
        let daemon = self.nodes[index].take().unwrap();
        // The same home, socket and UDP port, as a service manager restarts a daemon.
        let mut config = daemon.config.clone();
        config.listen = daemon.running.listen;
        daemon.kill().await;
        config
    }

    /// `kill -9`, and a new process in its place.
    async fn restart(&mut self, index: usize) {
        let config = self.kill(index).await;
        self.nodes[index] = Some(Daemon::start(config).await);
    }
}

async fn next(events: &mut EventStream) -> Received {
    within("an event", events.next()).await
}

fn text(received: &Received) -> String {
    String::from_utf8(received.payload.to_vec()).unwrap()
}

async fn texts(events: &mut EventStream, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(text(&next(events).await));
    }
    texts
}

/// Publishes when the own daemon is there, now or later.
async fn publish(events: &mut EventStream, topic: &str, payload: String) {
    while events.publish(topic, payload.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Publishes numbers until it is dropped.
fn publish_numbers(
    mut events: EventStream,
    topic: &'static str,
) -> (Arc<AtomicU32>, tokio::task::JoinHandle<()>) {
    let next = Arc::new(AtomicU32::new(0));
    let shared = Arc::clone(&next);
    let task = tokio::spawn(async move {
        loop {
            let number = shared.load(Ordering::Relaxed);
            publish(&mut events, topic, number.to_string()).await;
            shared.store(number + 1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    (next, task)
}

#[tokio::test]
async fn an_event_says_who_published_it_when_and_where_it_stands() {
    let world = World::of(2).await;
    world.client(1).await.set_hostname("agent-b").await.unwrap();
    let mut at_a = world.events(0).await;
    let mut at_b = world.events(1).await;
    at_a.subscribe("news").await.unwrap();
    let before = std::time::SystemTime::now();
    at_b.publish("other", "no").await.unwrap();
    at_b.publish("news", "one").await.unwrap();
    let event = next(&mut at_a).await;
    assert_eq!((event.publisher, event.broker), (Some(world.addr(1)), Some(world.addr(1))));
    assert_eq!((event.seq, event.replayed, event.lost), (Some(2), false, 0));
    assert!(event.time >= before && event.time <= std::time::SystemTime::now());
}

#[tokio::test]
async fn the_last_events_of_all_trusted_nodes_come_first_and_the_next_follow() {
    let world = World::of(3).await;
    for index in [1, 2] {
        let mut events = world.events(index).await;
        for topic in ["jobs.a", "other", "jobs.b"] {
            events.publish(topic, format!("{topic} of {index}")).await.unwrap();
        }
        events.settle().await.unwrap();
        let client = world.client(index).await;
        within("the broker", async { while client.events_status().await.unwrap().history.newest < 3 {} })
            .await;
    }
    let mut late = world.events(0).await;
    let options = SubscribeOptions { replay: 3, ..SubscribeOptions::default() };
    assert_eq!(late.subscribe_with("jobs.*", options).await.unwrap().brokers, 2);
    assert_eq!(texts(&mut late, 3).await, ["jobs.b of 1", "jobs.a of 2", "jobs.b of 2"]);
    world.events(2).await.publish("jobs.c", "now").await.unwrap();
    let event = next(&mut late).await;
    assert_eq!((text(&event).as_str(), event.replayed, event.seq), ("now", false, Some(4)));

    let mut direct = world.client(0).await.open_event_stream_at(world.addr(1));
    direct.subscribe_with("jobs.*", SubscribeOptions { replay: 1, ..options }).await.unwrap();
    let event = next(&mut direct).await;
    assert_eq!((text(&event).as_str(), event.replayed), ("jobs.b of 1", true));
}

#[tokio::test]
async fn a_publisher_waits_for_a_subscriber_on_another_node_that_shall_lose_nothing() {
    const EVENTS: usize = 4000;
    let world = World::of(2).await;
    let mut reader = world.events(0).await;
    let options = SubscribeOptions { policy: Overflow::Block, queue: Some(8), replay: 0 };
    let subscribed = reader.subscribe_with("load", options).await.unwrap();
    assert_eq!((subscribed.policy, subscribed.queue, subscribed.brokers), (Overflow::Block, 8, 1));
    let mut publisher = world.events(1).await;
    // More than fits on the way, so that publishing can only end when it is read.
    let payload = "x".repeat(16 << 10);
    let publishing = tokio::spawn(async move {
        for number in 0..EVENTS {
            publisher.publish("load", format!("{number} {payload}")).await.unwrap();
        }
        publisher
    });
    let status = world.client(1).await;
    within("a publisher that waits", async {
        loop {
            let status = status.events_status().await.unwrap();
            if status.subscriptions.iter().any(|subscription| subscription.blocked_ms > 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for number in 0..EVENTS {
        let event = next(&mut reader).await;
        assert_eq!(text(&event).split(' ').next(), Some(number.to_string().as_str()));
        assert_eq!(event.lost, 0);
    }
    publishing.await.unwrap();
    let status = world.client(1).await.events_status().await.unwrap();
    assert_eq!((status.counters.published, status.counters.dropped), (EVENTS as u64, 0));
}

#[tokio::test]
async fn three_nodes_hear_each_event_once_and_know_their_links() {
    let world = World::of(3).await;
    let mut readers = Vec::new();
    for index in 0..3 {
        let mut reader = world.events(index).await;
        assert_eq!(reader.subscribe("*").await.unwrap().brokers, 2);
        readers.push(reader);
    }
    let mut publishers = Vec::new();
    for index in 0..3 {
        let mut publisher = world.events(index).await;
        publisher.publish("t", index.to_string()).await.unwrap();
        publishers.push(publisher);
    }
    for reader in &mut readers {
        let mut heard = texts(reader, 3).await;
        heard.sort();
        assert_eq!(heard, ["0", "1", "2"]);
    }
    for (index, publisher) in publishers.iter_mut().enumerate() {
        publisher.publish("t", format!("end {index}")).await.unwrap();
    }
    for reader in &mut readers {
        let mut heard = texts(reader, 3).await;
        heard.sort();
        assert_eq!(heard, ["end 0", "end 1", "end 2"], "nothing came in between");
    }
    let status = world.client(0).await.events_status().await.unwrap();
    assert_eq!(status.links.len(), 2);
    assert!(
        status.links.iter().all(|link| link.state == LinkState::Live && link.numbered && link.received == 2)
    );
    assert_eq!((status.counters.published, status.counters.received), (2, 4));
}

#[tokio::test]
async fn a_subscriber_whose_daemon_restarts_misses_nothing_that_was_published_meanwhile() {
    let mut world = World::of(2).await;
    let mut reader = world.events(0).await;
    reader.subscribe("count").await.unwrap();
    let (next_number, publishing) = publish_numbers(world.events(1).await, "count");
    let mut expected = 0;
    for round in 0..5 {
        for _ in 0..10 {
            let event = next(&mut reader).await;
            assert_eq!((text(&event), event.lost), (expected.to_string(), 0));
            expected += 1;
        }
        let config = world.kill(0).await;
        // Longer than any of the tries to come back.
        tokio::time::sleep(Duration::from_millis(200 * round)).await;
        world.nodes[0] = Some(Daemon::start(config).await);
        let (back, published) = (Instant::now(), next_number.load(Ordering::Relaxed));
        while expected <= published {
            let event = next(&mut reader).await;
            assert_eq!((text(&event), event.lost), (expected.to_string(), 0));
            expected += 1;
        }
        println!("subscriber's daemon, restart {round}: events after {:?}", back.elapsed());
    }
    publishing.abort();
}

#[tokio::test]
async fn events_of_a_publisher_whose_daemon_restarts_flow_again_by_themselves() {
    let mut world = World::of(2).await;
    let mut reader = world.events(0).await;
    reader.subscribe("count").await.unwrap();
    let (next_number, publishing) = publish_numbers(world.events(1).await, "count");
    let mut last = None;
    for round in 0..5 {
        for _ in 0..10 {
            let event = next(&mut reader).await;
            let number: u32 = text(&event).parse().unwrap();
            assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
            last = Some(number);
        }
        let config = world.kill(1).await;
        // What is published from now on is taken by the new process, so all of it must come.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let first_of_new = next_number.load(Ordering::Relaxed) + 1;
        world.nodes[1] = Some(Daemon::start(config).await);
        let back = Instant::now();
        let mut came = BTreeMap::new();
        while !came.contains_key(&(first_of_new + 5)) {
            let event = next(&mut reader).await;
            let number: u32 = text(&event).parse().unwrap();
            assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
            last = Some(number);
            came.insert(number, back.elapsed());
        }
        let missing = (first_of_new..first_of_new + 5).find(|number| !came.contains_key(number));
        assert_eq!(missing, None, "{came:?}");
        println!("publisher's daemon, restart {round}: events after {:?}", came[&first_of_new]);
    }
    publishing.abort();
}

#[tokio::test]
async fn the_two_agents_of_the_article_work_through_ten_restarts() {
    const RESTARTS: u32 = 10;
    let mut world = World::of(2).await;
    let worker = Worker::start(world.client(1).await).await.unwrap();
    let working = tokio::spawn(worker.work());
    let mut planner = Planner::start(world.client(0).await).await.unwrap();
    let (done, mut outcomes) = tokio::sync::mpsc::channel(1);
    let planning = tokio::spawn(async move {
        for id in 1.. {
            let outcome = planner.ask(Task { id, numbers: vec![u64::from(id), 1] }).await.unwrap();
            assert_eq!((outcome.id, outcome.sum), (id, u64::from(id) + 1));
            if done.send(id).await.is_err() {
                return;
            }
        }
    });
    let mut last = 0;
    let mut finished = async |count: u32| {
        for _ in 0..count {
            let id = within("a task", outcomes.recv()).await.unwrap();
            assert_eq!(id, last + 1, "each task is done, and in its turn");
            last = id;
        }
    };
    finished(3).await;
    for round in 0..RESTARTS {
        let index = (round % 2) as usize;
        world.restart(index).await;
        let back = Instant::now();
        // One or two may have been on their way already.
        finished(3).await;
        println!("restart {round} of agent {index}: three tasks done {:?} after it was up", back.elapsed());
    }
    assert!(!working.is_finished());
    drop(finished);
    working.abort();
    planning.abort();
    assert_eq!(world.homes.len(), 2);
}
