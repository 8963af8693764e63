//! What the event stream carries: one publisher, a hundred subscribers on ten other nodes. Each node is a daemon of its
//! own; the publisher and the subscribers are one program. It fails when the blocking policy loses anything, or when an
//! event is neither received nor counted as lost.

use std::time::{Duration, Instant};

use pilot_client::{EventStream, Overflow, SubscribeOptions};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::{
    Failure, Options,
    report::{Cell, Column, Table},
    stage::{Daemon, Stage},
};

const NODES: u32 = 10;
const SUBSCRIBERS_PER_NODE: u32 = 10;
/// Bytes of each event.
const BYTES: usize = 200;
/// Events per second of the measurement of latency.
const PACE: u32 = 200;
/// Events of it.
const PACED: u32 = 400;
/// Bytes of each of these: so large that the words around them do not count.
const PACED_BYTES: usize = 2000;
/// Events of the others.
const EVENTS: u32 = 20_000;
/// Events while one subscriber is slow.
const SLOW_EVENTS: u32 = 2000;
/// How long the slow subscriber takes for each event.
const SLOW: Duration = Duration::from_millis(5);

/// How events are published and read.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    options: SubscribeOptions,
    /// Events per second; as fast as it goes if none.
    pace: Option<u32>,
    one_is_slow: bool,
}

/// What one subscriber saw.
#[derive(Default)]
struct Seen {
    received: u64,
    lost: u64,
    latencies: Vec<Duration>,
    finished: Option<Instant>,
}

/// The table.
pub(crate) async fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let nodes = if options.quick { 2 } else { NODES };
    let stage = Stage::open()?;
    let publisher = stage.daemon("publisher", &[]).await?;
    let mut others = Vec::new();
    for number in 0..nodes {
        let other = stage.daemon(&format!("node-{number}"), &[]).await?;
        publisher.befriend(&other).await?;
        others.push(other);
    }
    let blocking = SubscribeOptions { policy: Overflow::Block, queue: Some(1024), replay: 0 };
    let newest = SubscribeOptions::default();
    let ways = [
        Way { name: "block", options: blocking, pace: None, one_is_slow: false },
        Way { name: "drop-oldest", options: newest, pace: None, one_is_slow: false },
        Way { name: "drop-oldest, one is slow", options: newest, pace: None, one_is_slow: true },
        Way {
            name: "drop-oldest, 200 events/s of 2,000 bytes",
            options: newest,
            pace: Some(PACE),
            one_is_slow: false,
        },
    ];
    let columns = vec![
        Column::new("published", "per s"),
        Column::new("delivered", "per s"),
        Column::new("p50", "ms"),
        Column::new("p99", "ms"),
        Column::new("lost", "%"),
        Column::new("CPU", "µs/delivery"),
        Column::new("wire", "copies/node"),
    ];
    let subscribers = nodes * SUBSCRIBERS_PER_NODE;
    let title =
        format!("Events of {BYTES} bytes from one publisher to {subscribers} subscribers on {nodes} nodes");
    let mut table = Table::new("events", title, columns).about("policy").charted(&["delivered"]);
    let bench = Bench { publisher, others };
    for way in ways {
        let events = match way.pace {
            Some(_) => PACED,
            None if way.one_is_slow => SLOW_EVENTS,
            None if options.quick => EVENTS / 20,
            None => EVENTS,
        };
        table.row(way.name, bench.run(way, events).await?.map(Cell::once).to_vec());
    }
    table.note("CPU is that of all daemons. Wire: bytes of the publisher's daemon for each byte of the events and node; with each event go its source, time and number.");
    Ok(vec![table])
}

struct Bench {
    publisher: Daemon,
    others: Vec<Daemon>,
}

impl Bench {
    fn cpu(&self) -> f64 {
        self.publisher.process.cpu() + self.others.iter().map(|daemon| daemon.process.cpu()).sum::<f64>()
    }

    /// Publishes events and waits until every subscriber has seen the last. One figure for each column.
    async fn run(&self, way: Way, events: u32) -> Result<[f64; 7], Failure> {
        let topic =
            format!("bench.{}", way.name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"));
        let clock = Instant::now();
        let mut subscribers = JoinSet::new();
        for daemon in &self.others {
            for number in 0..SUBSCRIBERS_PER_NODE {
                let mut stream = daemon.client().await?.open_event_stream().await?;
                let subscribed = stream.subscribe_with(topic.as_str(), way.options).await?;
                if subscribed.brokers != 1 {
                    return Err(format!("{} brokers and not one", subscribed.brokers).into());
                }
                let is_slow = way.one_is_slow && number == 0 && subscribers.is_empty();
                subscribers.spawn(read(stream, u64::from(events), clock, is_slow));
            }
        }
        let bytes = if way.pace.is_some() { PACED_BYTES } else { BYTES };
        let daemon = self.publisher.client().await?;
        let mut publisher = daemon.open_event_stream().await?;
        let (sent, cpu, start) = (daemon.health().await?.bytes_sent, self.cpu(), Instant::now());
        let mut ticks = way.pace.map(|pace| tokio::time::interval(Duration::from_secs(1) / pace));
        if let Some(ticks) = &mut ticks {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        for number in 0..u64::from(events) {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let mut payload = Vec::with_capacity(BYTES);
            payload.extend_from_slice(&number.to_be_bytes());
            payload.extend_from_slice(&u64::try_from(clock.elapsed().as_nanos())?.to_be_bytes());
            payload.resize(bytes, b'.');
            publisher.publish(topic.as_str(), payload).await?;
        }
        let published = start.elapsed();
        let mut all = Vec::new();
        while let Some(seen) = subscribers.join_next().await {
            all.push(seen??);
        }
        let wire = daemon.health().await?.bytes_sent.saturating_sub(sent);
        self.figures(way, (events, bytes), published, start, all, self.cpu() - cpu, wire)
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    #[expect(clippy::too_many_arguments, reason = "what was seen of one run")]
    fn figures(
        &self,
        way: Way,
        (events, bytes): (u32, usize),
        published: Duration,
        start: Instant,
        all: Vec<Seen>,
        cpu: f64,
        wire: u64,
    ) -> Result<[f64; 7], Failure> {
        let due = f64::from(events) * all.len() as f64;
        let received = all.iter().map(|seen| seen.received).sum::<u64>() as f64;
        let lost = all.iter().map(|seen| seen.lost).sum::<u64>() as f64;
        if received + lost < due || (lost > 0.0 && way.options.policy == Overflow::Block) {
            return Err(format!("{}: {received} received and {lost} lost of {due}", way.name).into());
        }
        let finished = all.iter().filter_map(|seen| seen.finished).max().ok_or("no subscriber")? - start;
        let mut latencies: Vec<Duration> = all.into_iter().flat_map(|seen| seen.latencies).collect();
        latencies.sort_unstable();
        let percentile = |percent: usize| {
            let last = latencies.len().saturating_sub(1);
            latencies.get(last * percent / 100).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
        };
        Ok([
            f64::from(events) / published.as_secs_f64(),
            received / finished.as_secs_f64(),
            percentile(50),
            percentile(99),
            100.0 * lost / due,
            cpu / received * 1e6,
            wire as f64 / (f64::from(events) * bytes as f64 * self.others.len() as f64),
        ])
    }
}

/// Reads up to the last event, which no policy but "drop newest" drops.
async fn read(mut stream: EventStream, events: u64, clock: Instant, is_slow: bool) -> Result<Seen, Failure> {
    let mut seen = Seen::default();
    loop {
        let event = stream.next().await;
        let at = |from: usize| -> Option<[u8; 8]> {
            event.payload.get(from..from + 8).and_then(|bytes| bytes.try_into().ok())
        };
        let (number, sent) = at(0).zip(at(8)).ok_or("an event that is too short")?;
        let (number, sent) = (u64::from_be_bytes(number), Duration::from_nanos(u64::from_be_bytes(sent)));
        seen.received += 1;
        seen.lost += event.lost;
        seen.latencies.push(clock.elapsed().saturating_sub(sent));
        if seen.received + seen.lost != number + 1 {
            return Err(
                format!("event {number} comes after {} and {} lost", seen.received - 1, seen.lost).into()
            );
        }
        if number + 1 == events {
            seen.finished = Some(Instant::now());
            return Ok(seen);
        }
        if is_slow {
            tokio::time::sleep(SLOW).await;
        }
    }
}
