//! What the event stream carries: one publisher, a hundred subscribers on ten other nodes, all in this process, on
//! loopback.
//!
//! ```text
//! cargo run --release -p pilot-daemon --example events_bench -- [EVENTS] [BYTES]
//! ```
//!
//! It ends with a failure when the blocking policy lost anything, or an event was neither received nor counted as lost.
#![expect(clippy::print_stdout, reason = "it shows what it measured")]
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    reason = "what does not work ends the measurement"
)]

#[path = "../tests/daemon/common.rs"]
#[allow(unreachable_pub, missing_docs, reason = "shared with the tests")]
mod common;

use std::time::{Duration, Instant};

use common::{Daemon, Home, Rendezvous, befriend};
use pilot_client::{Client, EventStream, Overflow, SubscribeOptions};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

const NODES: usize = 10;
const SUBSCRIBERS_PER_NODE: usize = 10;

/// Events per second of the measurement of latency.
const PACE: u32 = 200;

/// How long the slow subscriber takes for each event.
const SLOW: Duration = Duration::from_millis(5);

/// What one subscriber saw.
#[derive(Default)]
struct Seen {
    received: u64,
    lost: u64,
    latencies: Vec<Duration>,
    finished: Option<Instant>,
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let events = arguments.next().unwrap_or(20_000);
    let bytes = arguments.next().unwrap_or(200);
    let rendezvous = Rendezvous::start().await;
    let homes: Vec<Home> = (0..=NODES).map(|_| Home::new()).collect();
    let mut daemons = Vec::new();
    for home in &homes {
        daemons.push(Daemon::start(home.config(&rendezvous)).await);
    }
    for daemon in &daemons[1..] {
        befriend(&daemons[0], daemon).await;
    }
    let all = NODES * SUBSCRIBERS_PER_NODE;
    println!("1 publisher, {all} subscribers on {NODES} nodes, events of {bytes} bytes");
    let bench = Bench { daemons, bytes };

    let blocking = SubscribeOptions { policy: Overflow::Block, queue: Some(1024), replay: 0 };
    let newest = SubscribeOptions::default();
    let lost = bench.run("block, as fast as it goes", events, blocking, None, false).await;
    assert_eq!(lost, 0, "nothing is lost under the blocking policy");
    bench.run("drop-oldest, as fast as it goes", events, newest, None, false).await;
    bench.run("drop-oldest, one subscriber slow", events, newest, None, true).await;
    bench.run(&format!("drop-oldest, {PACE} events/s"), 2000, newest, Some(PACE), false).await;
    bench.run(&format!("block, {PACE} events/s"), 2000, blocking, Some(PACE), false).await;
}

struct Bench {
    daemons: Vec<Daemon>,
    bytes: usize,
}

impl Bench {
    async fn client(&self, node: usize) -> Client {
        Client::connect_to(&self.daemons[node].config.socket).await.unwrap()
    }

    /// Publishes `events` events, prints what became of them, and returns how many were lost.
    async fn run(
        &self,
        what: &str,
        events: usize,
        options: SubscribeOptions,
        pace: Option<u32>,
        one_is_slow: bool,
    ) -> u64 {
        let topic = format!("bench.{}", what.replace([' ', ','], "-"));
        let clock = Instant::now();
        let mut subscribers = JoinSet::new();
        for index in 0..NODES * SUBSCRIBERS_PER_NODE {
            let mut stream = self.client(1 + index % NODES).await.open_event_stream().await.unwrap();
            let subscribed = stream.subscribe_with(topic.as_str(), options).await.unwrap();
            assert_eq!(subscribed.brokers, 1);
            let is_slow = one_is_slow && index == 0;
            subscribers.spawn(read(stream, events as u64, clock, is_slow));
        }
        let mut publisher = self.client(0).await.open_event_stream().await.unwrap();
        let start = Instant::now();
        let mut ticks = pace.map(|pace| tokio::time::interval(Duration::from_secs(1) / pace));
        if let Some(ticks) = &mut ticks {
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        for number in 0..events as u64 {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            let mut payload = Vec::with_capacity(self.bytes.max(16));
            payload.extend_from_slice(&number.to_be_bytes());
            payload.extend_from_slice(&(clock.elapsed().as_nanos() as u64).to_be_bytes());
            payload.resize(self.bytes.max(16), b'.');
            publisher.publish(topic.as_str(), payload).await.unwrap();
        }
        let published = start.elapsed();
        let mut all = Vec::new();
        while let Some(seen) = subscribers.join_next().await {
            all.push(seen.unwrap());
        }
        report(what, events as u64, published, start, all)
    }
}

/// Reads up to the last event, which no policy but "drop newest" drops.
async fn read(mut stream: EventStream, events: u64, clock: Instant, is_slow: bool) -> Seen {
    let mut seen = Seen::default();
    loop {
        let event = stream.next().await;
        let at = |from: usize| u64::from_be_bytes(event.payload[from..from + 8].try_into().unwrap());
        let (number, sent) = (at(0), Duration::from_nanos(at(8)));
        seen.received += 1;
        seen.lost += event.lost;
        seen.latencies.push(clock.elapsed().saturating_sub(sent));
        assert_eq!(seen.received + seen.lost, number + 1, "every event comes once or is counted as lost");
        if number + 1 == events {
            seen.finished = Some(Instant::now());
            return seen;
        }
        if is_slow {
            tokio::time::sleep(SLOW).await;
        }
    }
}

fn report(what: &str, events: u64, published: Duration, start: Instant, all: Vec<Seen>) -> u64 {
    let subscribers = all.len() as u64;
    let received: u64 = all.iter().map(|seen| seen.received).sum();
    let lost: u64 = all.iter().map(|seen| seen.lost).sum();
    let worst = all.iter().map(|seen| seen.lost).max().unwrap_or(0);
    let with_losses = all.iter().filter(|seen| seen.lost > 0).count();
    let finished = all.iter().filter_map(|seen| seen.finished).max().unwrap() - start;
    let mut latencies: Vec<Duration> = all.into_iter().flat_map(|seen| seen.latencies).collect();
    latencies.sort_unstable();
    let percentile = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    assert_eq!(received + lost, events * subscribers);
    println!("\n{what}");
    println!(
        "  published  {events} in {published:.2?}: {:.0} events/s",
        events as f64 / published.as_secs_f64()
    );
    println!(
        "  delivered  {received} in {finished:.2?}: {:.0} events/s",
        received as f64 / finished.as_secs_f64()
    );
    println!(
        "  latency    p50 {:.2?}, p99 {:.2?}, worst {:.2?}",
        percentile(50),
        percentile(99),
        percentile(100)
    );
    println!("  dropped    {lost}, by {with_losses} subscribers, at most {worst} by one");
    lost
}
