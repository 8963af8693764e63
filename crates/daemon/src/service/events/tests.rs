//! The broker against captures of 1.18.0, and against other brokers.

use super::*;
use pilot_wire::Addr;
use pilot_wire::events::{Overflow, Reached, Source, Wishes};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::DuplexStream;
use tokio::sync::Notify;

/// Brokers that dial each other directly.
#[derive(Clone, Default)]
struct Network {
    /// No broker is reached while set.
    is_down: Arc<AtomicBool>,
    /// Ends what is connected.
    cut: Arc<Notify>,
    doors: Arc<BTreeMap<NodeId, mpsc::Sender<(NodeId, DuplexStream)>>>,
    me: NodeId,
}

impl DialBroker for Network {
    type Stream = DuplexStream;

    async fn dial(&self, node: NodeId) -> io::Result<DuplexStream> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (ours, mut here) = tokio::io::duplex(64 << 10);
        let (mut there, theirs) = tokio::io::duplex(64 << 10);
        let cut = Arc::clone(&self.cut);
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::io::copy_bidirectional(&mut here, &mut there) => {}
                () = cut.notified() => {}
            }
        });
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
    cut: Arc<Notify>,
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
    let cut = Arc::new(Notify::new());
    let start = |(id, mut behind): (NodeId, mpsc::Receiver<(NodeId, DuplexStream)>)| {
        let (trusted, trusted_out) = watch::channel(Vec::new());
        let network = Network {
            is_down: Arc::clone(&is_down),
            cut: Arc::clone(&cut),
            doors: Arc::clone(&doors),
            me: id,
        };
        let cut = Arc::clone(&cut);
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
        Node { id, broker, trusted, is_down: Arc::clone(&is_down), cut }
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

fn wishes(overflow: Overflow, queue: u32) -> Wishes {
    Wishes { overflow, queue: Some(queue), ..Wishes::default() }
}

/// Publishes numbers from `first` on, and says how many a broker has taken.
async fn publish_numbers(publisher: &mut Connection, topic: &str, numbers: std::ops::Range<u32>) {
    for number in numbers {
        publisher.publish(topic, number.to_string()).await;
    }
}

fn texts(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_blocking_subscriber_behind_a_link_slows_the_publisher_down_and_loses_nothing() {
    const EVENTS: u32 = 20_000;
    let nodes = nodes(2);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    nodes[1].trusted.send_replace(vec![NodeId(1)]);
    let (mut reader, _) = nodes[0].subscribe_with(NodeId(1), "t", wishes(Overflow::Block, 16)).await;
    let (mut publisher, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    let publishing = tokio::spawn(async move {
        publish_numbers(&mut publisher, "t", 0..EVENTS).await;
        publisher
    });
    // Virtual time stands still while anybody can go on: so nobody can after this.
    sleep(Duration::from_secs(5)).await;
    assert!(!publishing.is_finished(), "all of it fits into the buffers on the way");
    let status = nodes[1].broker.status().await;
    let taken = status.counters.published;
    assert!(taken < u64::from(EVENTS) / 2, "{taken} of {EVENTS} were taken");
    let link = status.subscriptions.iter().find(|subscription| !subscription.own).unwrap();
    assert!(link.blocked_ms >= 4_000 && link.policy == Overflow::Block, "{link:?}");
    assert_eq!(reader.payloads(EVENTS as usize).await, texts(0..EVENTS));
    assert_eq!(reader.lost, 0);
    publishing.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_blocking_subscriber_that_is_stuck_is_demoted_and_the_publisher_goes_on() {
    const EVENTS: u32 = 20_000;
    let nodes = nodes(2);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    nodes[1].trusted.send_replace(vec![NodeId(1)]);
    let (mut stuck, _) = nodes[0].subscribe_with(NodeId(1), "t", wishes(Overflow::Block, 16)).await;
    let (mut publisher, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    let start = Instant::now();
    publish_numbers(&mut publisher, "t", 0..EVENTS).await;
    let status = nodes[0].broker.status().await;
    assert!(start.elapsed() >= Duration::from_secs(30) && start.elapsed() < Duration::from_secs(60));
    assert_eq!((status.counters.demoted, status.subscriptions[0].demoted), (1, true));
    assert_eq!(nodes[1].broker.status().await.counters.demoted, 0, "the link was not to blame");
    let (mut seen, mut last) = (0, String::new());
    while last != (EVENTS - 1).to_string() {
        last = stuck.payloads(1).await.remove(0);
        seen += 1;
    }
    assert!(stuck.demoted);
    assert_eq!(seen + stuck.lost, u64::from(EVENTS), "every event came or was counted as lost");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_trusted_cannot_make_publishers_wait() {
    let nodes = nodes(2);
    let (_stuck, _) = nodes[0].subscribe_with(NodeId(2), "t", wishes(Overflow::Block, 1)).await;
    let (mut publisher, _) = nodes[0].subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    let start = Instant::now();
    publish_numbers(&mut publisher, "t", 0..20_000).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn events_over_a_link_are_not_limited_as_those_of_a_foreign_publisher_are() {
    let nodes = nodes(2);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    let (mut reader, _) = nodes[0].subscribe(NodeId(1), "t").await;
    let (mut own, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    let start = Instant::now();
    publish_numbers(&mut own, "t", 0..1000).await;
    assert_eq!(reader.payloads(1000).await, texts(0..1000));
    assert_eq!(start.elapsed(), Duration::ZERO);
    let (mut foreign, _) = nodes[0].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    publish_numbers(&mut foreign, "t", 0..1000).await;
    assert_eq!(reader.payloads(1000).await, texts(0..1000));
    assert!(start.elapsed() > Duration::from_secs(7), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_past_comes_from_the_own_broker_and_from_those_of_trusted_nodes() {
    let nodes = nodes(3);
    for node in &nodes[1..] {
        let (mut publisher, _) = node.subscribe(node.id, pilot_wire::events::NOTHING).await;
        for topic in ["t.a", "u", "t.b"] {
            publisher.publish(topic, format!("{topic} of {}", node.id)).await;
        }
        while node.broker.status().await.history.newest < 3 {
            tokio::task::yield_now().await;
        }
    }
    nodes[0].trusted.send_replace(vec![NodeId(2), NodeId(3)]);
    let asked = Wishes { replay: 3, ..Wishes::default() };
    let (mut reader, brokers) = nodes[0].subscribe_with(NodeId(1), "t.*", asked).await;
    assert_eq!(brokers, 2);
    assert_eq!(reader.payloads(3).await, ["t.b of 2", "t.a of 3", "t.b of 3"]);
    let (mut own, _) = nodes[0].subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    own.publish("t.c", "now").await;
    let (event, source) = reader.next_with_source().await;
    assert_eq!((&event.payload[..], source.replayed), (&b"now"[..], false));
}

#[tokio::test(start_paused = true)]
async fn what_is_published_while_a_link_is_down_follows_when_it_is_back() {
    let nodes = nodes(2);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    let (mut reader, _) = nodes[0].subscribe(NodeId(1), "*").await;
    let (mut publisher, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    publisher.publish("t", "before").await;
    assert_eq!(reader.payloads(1).await, ["before"]);
    nodes[0].is_down.store(true, Ordering::Relaxed);
    nodes[0].cut.notify_waiters();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(nodes[1].broker.status().await.subscribers, 1, "the link is gone");
    for number in 0..1005 {
        publisher.publish("t", number.to_string()).await;
    }
    nodes[0].is_down.store(false, Ordering::Relaxed);
    let (event, source) = reader.next_with_source().await;
    assert_eq!((&event.payload[..], source.replayed, reader.lost), (&b"5"[..], true, 5));
    assert_eq!(reader.payloads(999).await, texts(6..1005));
    publisher.publish("t", "after").await;
    let (event, source) = reader.next_with_source().await;
    assert_eq!((&event.payload[..], source.replayed, reader.lost), (&b"after"[..], false, 5));
}

#[tokio::test(start_paused = true)]
async fn a_program_that_subscribes_again_gets_what_it_missed_of_every_broker_once() {
    let nodes = nodes(2);
    nodes[0].trusted.send_replace(vec![NodeId(2)]);
    let (mut reader, _) = nodes[0].subscribe(NodeId(1), "*").await;
    let (mut mine, _) = nodes[0].subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    let (mut theirs, _) = nodes[1].subscribe(NodeId(2), pilot_wire::events::NOTHING).await;
    mine.publish("t", "mine 1").await;
    assert_eq!(reader.payloads(1).await, ["mine 1"]);
    let reached = std::mem::take(&mut reader.reached);
    assert_eq!(
        reached.iter().map(|reached| reached.broker).collect::<Vec<_>>(),
        [None, Some(Addr::backbone(NodeId(2)))]
    );
    drop(reader);
    // Another subscription keeps the link up meanwhile, or nobody does: both must work.
    for keep in [true, false] {
        let (_other, _) = nodes[0].subscribe(NodeId(1), if keep { "*" } else { "elsewhere" }).await;
        sleep(Duration::from_secs(1)).await;
        theirs.publish("t", "theirs").await;
        mine.publish("t", "mine 2").await;
        sleep(Duration::from_secs(1)).await;
    }
    let wishes = Wishes { resume: reached, ..Wishes::default() };
    let token = NoteToken::from_random([9; 16]);
    let mut again = Connection::new(nodes[0].connect(NodeId(1)), token);
    let subscription = again.token.subscription_with("*", &wishes).unwrap();
    again.send(&subscription).await;
    let mut payloads = Vec::new();
    while payloads.len() < 5 {
        let event = again.next().await;
        if again.token.read(&event).is_none() {
            payloads.push(String::from_utf8(event.payload.to_vec()).unwrap());
        }
    }
    // The first has no number yet in what was told at the beginning, so it comes again.
    assert_eq!(payloads, ["mine 1", "mine 2", "mine 2", "theirs", "theirs"]);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_that_trust_each_other_hear_each_event_once() {
    let nodes = nodes(3);
    for node in &nodes {
        node.trusted.send_replace((1..=3).map(NodeId).filter(|other| *other != node.id).collect());
    }
    let mut readers = Vec::new();
    for node in &nodes {
        for topic in ["*", "t.>", "t.x"] {
            let (reader, brokers) = node.subscribe(node.id, topic).await;
            assert_eq!(brokers, 2);
            readers.push(reader);
        }
    }
    for node in &nodes {
        let (mut publisher, _) = node.subscribe(node.id, pilot_wire::events::NOTHING).await;
        publisher.publish("t.x", node.id.to_string()).await;
        sleep(Duration::from_secs(1)).await;
    }
    let (mut last, _) = nodes[0].subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    last.publish("t.x", "end").await;
    for reader in &mut readers {
        assert_eq!(reader.payloads(4).await, ["1", "2", "3", "end"]);
    }
    for node in &nodes {
        let counters = node.broker.status().await.counters;
        assert!(counters.published <= 2, "nothing that came over a link is published again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_broker_of_1_18_is_heard_without_numbers_and_asked_for_nothing_it_does_not_know() {
    let (calls, mut behind) = mpsc::channel(4);
    let network = Network {
        is_down: Arc::default(),
        cut: Arc::default(),
        doors: Arc::new(BTreeMap::from([(NodeId(2), calls)])),
        me: NodeId(1),
    };
    let (trusted, trusted_out) = watch::channel(vec![NodeId(2)]);
    let signs = broadcast::channel(1).1;
    let (broker, task) = Broker::new(network, trusted_out, signs, Policy::default(), Notices::new().0);
    tokio::spawn(task);
    let node = Node { id: NodeId(1), broker, trusted, is_down: Arc::default(), cut: Arc::default() };
    let asked = Wishes { replay: 5, overflow: Overflow::Block, ..Wishes::default() };
    let subscribing = node.subscribe_with(NodeId(1), "*", asked);
    let serving = async {
        let (_, mut stream) = behind.recv().await.unwrap();
        let mut decoder = Decoder::new();
        let first = loop {
            if let Some(event) = decoder.next_event().unwrap() {
                break event;
            }
            assert_ne!(stream.read_buf(decoder.buffer_mut()).await.unwrap(), 0);
        };
        assert_eq!(first.topic, "*");
        (stream, decoder)
    };
    let ((mut reader, brokers), (mut stream, mut decoder)) = tokio::join!(subscribing, serving);
    assert_eq!(brokers, 1);
    let mut frame = Vec::new();
    Event::new("t", "plain").unwrap().emit(&mut frame);
    stream.write_all(&frame).await.unwrap();
    let (event, source) = reader.next_with_source().await;
    assert_eq!((&event.payload[..], source.at, source.publisher), (&b"plain"[..], None, None));
    assert_eq!(source.via, Some(Addr::backbone(NodeId(2))));
    assert!(source.time.is_some(), "the time of its arrival");
    // Nothing but the subscription was said on the link, so nothing was published there.
    let mut said = [0; 64];
    let silence = timeout(Duration::from_secs(60), stream.read(&mut said)).await;
    assert!(silence.is_err() && decoder.next_event().unwrap().is_none());
}

#[tokio::test]
async fn a_topic_that_is_only_published_has_a_status() {
    let node = &nodes(1)[0];
    let (mut reader, _) = node.subscribe_with(NodeId(1), "t", wishes(Overflow::DropNewest, 5)).await;
    let (mut publisher, _) = node.subscribe(NodeId(1), pilot_wire::events::NOTHING).await;
    publisher.publish("t", "x").await;
    reader.payloads(1).await;
    let status = node.broker.status().await;
    assert_eq!((status.subscribers, status.subscriptions.len()), (2, 1), "one of them only publishes");
    let subscription = &status.subscriptions[0];
    assert_eq!((subscription.topic.as_str(), subscription.queue, subscription.delivered), ("t", 5, 1));
    assert_eq!((status.history.events, status.history.newest, status.counters.published), (1, 1, 1));
}
