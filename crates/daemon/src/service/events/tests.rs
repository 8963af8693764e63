//! The broker against captures of 1.18.0, and against other brokers.

use super::*;
use pilot_wire::Addr;
use pilot_wire::events::{Overflow, Reached, Source, Wishes};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::DuplexStream;

/// Brokers that dial each other directly.
#[derive(Clone, Default)]
struct Network {
    /// No broker is reached while set.
    is_down: Arc<AtomicBool>,
    doors: Arc<BTreeMap<NodeId, mpsc::Sender<(NodeId, DuplexStream)>>>,
    me: NodeId,
}

impl DialBroker for Network {
    type Stream = DuplexStream;

    async fn dial(&self, node: NodeId) -> io::Result<DuplexStream> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let door = self.doors.get(&node).ok_or(io::ErrorKind::ConnectionRefused)?;
        door.send((self.me, theirs)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(ours)
    }

    async fn drain(_: &mut DuplexStream) -> io::Result<()> {
        Ok(())
    }

    async fn hostname(&self, node: NodeId) -> Option<String> {
        Some(format!("node-{node}"))
    }
}

struct Node {
    id: NodeId,
    broker: Broker,
    trusted: watch::Sender<Vec<NodeId>>,
    is_down: Arc<AtomicBool>,
}

/// Nodes 1 to `count`, each with a broker, none trusting any.
fn nodes(count: u32) -> Vec<Node> {
    let mut doors = BTreeMap::new();
    let mut calls = Vec::new();
    for number in 1..=count {
        let (door, behind) = mpsc::channel(16);
        doors.insert(NodeId(number), door);
        calls.push((NodeId(number), behind));
    }
    let doors = Arc::new(doors);
    let is_down = Arc::new(AtomicBool::new(false));
    let start = |(id, mut behind): (NodeId, mpsc::Receiver<(NodeId, DuplexStream)>)| {
        let (trusted, trusted_out) = watch::channel(Vec::new());
        let network = Network { is_down: Arc::clone(&is_down), doors: Arc::clone(&doors), me: id };
        let (broker, task) =
            Broker::new(network, trusted_out, broadcast::channel(1).1, Policy::default(), Notices::new().0);
        tokio::spawn(task);
        let serving = broker.clone();
        tokio::spawn(async move {
            while let Some((from, stream)) = behind.recv().await {
                let broker = serving.clone();
                tokio::spawn(async move {
                    let large = Semaphore::new(1);
                    let _ = broker.serve(stream, &Remote::of(from), Side::Other, &large).await;
                });
            }
        });
        Node { id, broker, trusted, is_down: Arc::clone(&is_down) }
    };
    calls.into_iter().map(start).collect()
}

struct Connection {
    stream: DuplexStream,
    decoder: Decoder,
    token: NoteToken,
    /// Places that were told.
    reached: Vec<Reached>,
    lost: u64,
    demoted: bool,
}

impl Node {
    /// A connection of `from` that has said nothing yet.
    fn connect(&self, from: NodeId) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let broker = self.broker.clone();
        let side = if from == self.id { Side::Own } else { Side::Other };
        tokio::spawn(async move {
            let large = Semaphore::new(1);
            let _ = broker.serve(theirs, &Remote::of(from), side, &large).await;
        });
        ours
    }

    /// A subscription that is in force, and how many other brokers it reaches.
    async fn subscribe(&self, from: NodeId, topic: &str) -> (Connection, u32) {
        self.subscribe_with(from, topic, Wishes::default()).await
    }

    async fn subscribe_with(&self, from: NodeId, topic: &str, wishes: Wishes) -> (Connection, u32) {
        let token = NoteToken::from_random([3; 16]);
        let mut connection = Connection::new(self.connect(from), token);
        let subscription = connection.token.subscription_with(topic, &wishes).unwrap();
        connection.send(&subscription).await;
        loop {
            let event = connection.next().await;
            match connection.token.read(&event) {
                Some(Note::Subscribed { brokers, .. }) => return (connection, brokers),
                Some(Note::At { broker, at }) => connection.reached.push(Reached { broker, at }),
                other => panic!("before the confirmation: {other:?} {event:?}"),
            }
        }
    }
}

impl Connection {
    fn new(stream: DuplexStream, token: NoteToken) -> Self {
        Self { stream, decoder: Decoder::new(), token, reached: Vec::new(), lost: 0, demoted: false }
    }

    async fn send(&mut self, event: &Event) {
        let mut bytes = Vec::new();
        event.emit(&mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn publish(&mut self, topic: &str, payload: impl Into<Bytes>) {
        self.send(&Event::new(topic, payload).unwrap()).await;
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.decoder.next_event().unwrap() {
                return event;
            }
            assert_ne!(self.stream.read_buf(self.decoder.buffer_mut()).await.unwrap(), 0, "closed");
        }
    }

    /// The next event without the notes around it, and where it came from.
    async fn next_with_source(&mut self) -> (Event, Source) {
        let mut source = Source::default();
        loop {
            let event = self.next().await;
            match self.token.read(&event) {
                Some(Note::From(from)) => source = from,
                Some(Note::At { broker, at }) => self.reached.push(Reached { broker, at }),
                Some(Note::Replayed { answer: None, at }) => self.reached.push(Reached { broker: None, at }),
                Some(Note::Lost { events, .. }) => self.lost += events,
                Some(Note::Demoted) => self.demoted = true,
                Some(other) => panic!("{other:?}"),
                None => return (event, source),
            }
        }
    }

    /// The payloads of the next events.
    async fn payloads(&mut self, count: usize) -> Vec<String> {
        let mut payloads = Vec::new();
        while payloads.len() < count {
            let (event, _) = self.next_with_source().await;
            payloads.push(String::from_utf8(event.payload.to_vec()).unwrap());
        }
        payloads
    }

    async fn next_topic(&mut self) -> String {
        self.next_with_source().await.0.topic
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn every_captured_publication_reaches_whom_1_18_delivers_it_to() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../wire/tests/vectors/services.json")).unwrap();
    let battery = vectors["echo_1001_1002_1003_batteries"]["v1.18.0"].as_array().unwrap();
    let publications: Vec<_> = battery.iter().filter(|case| case["published_hex"].is_string()).collect();
    assert_eq!(publications.len(), 7);
    let other = NodeId(9);
    for case in publications {
        let node = &nodes(1)[0];
        let sent = hex(case["published_hex"].as_str().unwrap());
        let mut readers = Vec::new();
        for (name, expected) in case["delivered"].as_object().unwrap() {
            let topic = match name.as_str() {
                "news#2" => "news",
                "publisher(self)" => continue,
                topic => topic,
            };
            let expected = hex(expected.as_str().unwrap());
            readers.push((name, expected, node.subscribe(other, topic).await.0));
        }
        // The captured publisher subscribed to `pub`.
        let (mut publisher, _) = node.subscribe(other, "pub").await;
        publisher.stream.write_all(&sent).await.unwrap();
        // What is published to each by name afterwards shows that nothing else came before.
        for (name, expected, reader) in &mut readers {
            let topic = match name.as_str() {
                "news#2" => "news",
                topic => topic,
            };
            publisher.publish(topic, "end").await;
            if !expected.is_empty() {
                let mut bytes = Vec::new();
                reader.next_with_source().await.0.emit(&mut bytes);
                assert_eq!(&bytes, expected, "{name}");
            }
            let is_everything = name.as_str() == "*";
            let event = reader.next_with_source().await.0;
            assert!(is_everything || event == Event::new(topic, "end").unwrap(), "{name}: {event:?}");
        }
    }
}

#[tokio::test]
async fn connections_that_break_the_format_are_closed() {
    let node = &nodes(1)[0];
    for bad in [&b"\x04\x01"[..], b"\0\x01t\0\0\0\0\0\x01t\x01\0\0\x01", b"\0\x01\xFF\0\0\0\0"] {
        let mut stream = node.connect(NodeId(9));
        stream.write_all(bad).await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn an_application_hears_the_brokers_of_trusted_nodes_by_pattern() {
    let nodes = nodes(3);
    nodes[0].trusted.send_replace(vec![NodeId(2), NodeId(3)]);
    let (mut reader, brokers) = nodes[0].subscribe(NodeId(1), "tasks.*").await;
    assert_eq!(brokers, 2);
    let (mut publisher, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    publisher.publish("other", "no").await;
    publisher.publish("tasks.a", "yes").await;
    let (event, source) = reader.next_with_source().await;
    assert_eq!(event, Event::new("tasks.a", "yes").unwrap());
    let addr = Addr::backbone(NodeId(2));
    assert_eq!((source.publisher, source.via), (Some(addr), Some(addr)));
    assert_eq!(source.hostname.as_deref(), Some("node-2"));
    assert_eq!(source.at.unwrap().seq, 2, "the other event has a number too");
    assert!(source.time.is_some() && !source.replayed);
}

#[tokio::test]
async fn events_do_not_run_in_circles() {
    let nodes = nodes(2);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    nodes[1].trusted.send_replace(vec![NodeId(1)]);
    let (mut first, _) = nodes[0].subscribe(NodeId(1), "*").await;
    let (mut second, _) = nodes[1].subscribe(NodeId(2), "*").await;
    let (mut publisher, _) = nodes[0].subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    publisher.publish("one", "").await;
    publisher.publish("two", "").await;
    for reader in [&mut first, &mut second] {
        assert_eq!(reader.next_topic().await, "one");
        assert_eq!(reader.next_topic().await, "two");
    }
}

#[tokio::test]
async fn a_node_that_becomes_trusted_is_heard_and_one_that_is_no_longer_is_not() {
    let nodes = nodes(2);
    let (mut reader, brokers) = nodes[0].subscribe(NodeId(1), "t").await;
    assert_eq!(brokers, 0);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    let (_, brokers) = nodes[0].subscribe(NodeId(1), "t").await;
    assert_eq!(brokers, 1);
    let (mut theirs, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    theirs.publish("t", "trusted").await;
    assert_eq!(reader.next_with_source().await.0.payload, "trusted");
    nodes[0].trusted.send_replace(Vec::new());
    let (_, brokers) = nodes[0].subscribe(NodeId(1), "t").await;
    assert_eq!(brokers, 0);
    theirs.publish("t", "not trusted").await;
    let (mut mine, _) = nodes[0].subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    mine.publish("t", "mine").await;
    assert_eq!(reader.next_with_source().await.0.payload, "mine");
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody() {
    let node = &nodes(1)[0];
    let (_stuck, _) = node.subscribe(NodeId(9), "*").await;
    let (mut reader, _) = node.subscribe(NodeId(9), "*").await;
    let (mut publisher, _) = node.subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    let payload: &'static str = "x".repeat(1 << 20).leak();
    for _ in 0..64 {
        publisher.publish("t", payload).await;
        assert_eq!(reader.next_with_source().await.0.payload.len(), 1 << 20);
    }
}

#[tokio::test]
async fn a_publisher_of_another_node_is_slowed_down_after_its_burst_and_loses_nothing() {
    let mut allowance = Allowance::full();
    for _ in 0..200 {
        assert_eq!(allowance.take(1), Duration::ZERO);
    }
    let waits: Vec<Duration> = (0..3).map(|_| allowance.take(1)).collect();
    assert!(waits.is_sorted() && waits[2] > Duration::from_millis(15), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_and_says_so_is_heard_at_once() {
    let nodes = nodes(2);
    nodes[0].is_down.store(true, Ordering::Relaxed);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    let (mut reader, brokers) = nodes[0].subscribe(NodeId(1), "t").await;
    assert_eq!(brokers, 0);
    // Long enough for the pauses between tries to have grown.
    sleep(Duration::from_secs(600)).await;
    nodes[0].is_down.store(false, Ordering::Relaxed);
    let back = Instant::now();
    let (mut theirs, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    let _greeting = nodes[0].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    let (_other, brokers) = loop {
        let subscribed = nodes[0].subscribe(NodeId(1), "t").await;
        if subscribed.1 == 1 {
            break subscribed;
        }
        sleep(Duration::from_millis(1)).await;
    };
    assert_eq!(brokers, 1);
    theirs.publish("t", "back").await;
    assert_eq!(reader.next_with_source().await.0.payload, "back");
    assert!(back.elapsed() < Duration::from_millis(500), "{:?}", back.elapsed());
}
