//! `pilotctl subscribe`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl subscribe \"agent-b.results\"          a topic of all trusted peers\n  \
        pilotctl subscribe 'metrics.*' --count 10\n  pilotctl subscribe agent-b status          a topic of one node\n  \
        pilotctl subscribe alerts --replay 20 --full\n  pilotctl subscribe 'jobs.>' --policy block --queue 100 --json",
    override_usage = "pilotctl subscribe [OPTIONS] [TARGET] <TOPIC>"
)]
pub(crate) struct Args {
    /// The topic; before it, the node whose events are wanted. `*` matches within a level, a last `*` the rest
    #[arg(value_name = "[TARGET] TOPIC", num_args = 1..=2, required = true)]
    pub(crate) words: Vec<String>,
    /// End after so many events
    #[arg(long, value_name = "COUNT")]
    pub(crate) count: Option<usize>,
    /// End after this time
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) how: How,
}

/// How the events are wanted.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct How {
    /// First the last matching events, at most so many; brokers keep the past in memory
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub(crate) replay: u32,
    /// When events come faster than they are read: which of them are dropped, or that publishers wait
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Policy::DropOldest)]
    pub(crate) policy: Policy,
    /// Events the broker queues for this subscription
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) queue: Option<u32>,
    /// Print source, time and number with each event
    #[arg(long)]
    pub(crate) full: bool,
}

/// What happens when the queue is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// The oldest event makes room
    #[default]
    DropOldest,
    /// The new event is dropped
    DropNewest,
    /// Publishers wait, so that nothing is lost
    Block,
}

impl From<Policy> for Overflow {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::DropOldest => Self::DropOldest,
            Policy::DropNewest => Self::DropNewest,
            Policy::Block => Self::Block,
        }
    }
}

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use pilot_client::{EventStream, Overflow, Received, SubscribeOptions};
use pilot_wire::Addr;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use crate::{duration, humane, input, style, target};

#[derive(Serialize)]
struct Report {
    events: Vec<Event>,
    timeout: bool,
}

/// In text form each event was printed as it came.
impl fmt::Display for Report {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

#[derive(Serialize)]
struct Event {
    topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_b64: Option<String>,
    /// The payload again, if it is a JSON object or array.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
    bytes: usize,
    /// The node that published it, if its broker says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Source>,
    /// The node at whose broker it was published.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<Addr>,
    /// When that broker took it.
    time: String,
    time_ns: u64,
    /// Its number there.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// It comes out of the broker's history.
    replayed: bool,
    /// Events before this one that are lost.
    lost: u64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    lost_at_least: bool,
    received_at: String,
    #[serde(skip)]
    is_full: bool,
}

#[derive(Serialize)]
struct Source {
    address: Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .data
            .as_deref()
            .map_or_else(|| format!("({} bytes of binary)", self.bytes), humane::printable);
        let topic = style::strong(format!("[{}]", humane::printable(&self.topic)));
        if !self.is_full {
            return write!(f, "{topic} {shown}");
        }
        let source = self.source.as_ref().map_or_else(
            || "unknown".to_owned(),
            |source| source.hostname.clone().unwrap_or_else(|| source.address.to_string()),
        );
        let number = self.seq.map(|seq| format!(" #{seq}")).unwrap_or_default();
        let replayed = if self.replayed { " replayed" } else { "" };
        let lost = match (self.lost, self.lost_at_least) {
            (0, false) => String::new(),
            (lost, false) => format!(" ({lost} lost before)"),
            (lost, true) => format!(" (at least {lost} lost before)"),
        };
        let about = style::faint(format!("{} {source}{number}{replayed}{lost}", self.time));
        write!(f, "{about} {topic} {shown}")
    }
}

impl Event {
    fn of(received: Received, is_full: bool) -> Self {
        let (data, data_b64) = input::shown(&received.payload);
        // Only what is clearly meant as JSON: `7` and `true` are words first.
        let is_json = data.as_deref().is_some_and(|text| text.trim_start().starts_with(['{', '[']));
        let json = if is_json { serde_json::from_slice(&received.payload).ok() } else { None };
        let hostname = received.hostname.map(|name| humane::printable(&name));
        let since = received.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Event {
            topic: received.topic,
            data,
            data_b64,
            json,
            bytes: received.payload.len(),
            source: received.publisher.map(|address| Source { address, hostname }),
            broker: received.broker,
            time: humane::rfc3339(received.time),
            time_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            seq: received.seq,
            replayed: received.replayed,
            lost: received.lost,
            lost_at_least: received.lost_at_least,
            received_at: humane::rfc3339(SystemTime::now()),
            is_full,
        }
    }
}

/// `pilotctl subscribe`: one word is a topic, two are a node and a topic.
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let (mut events, place, topic) = match args.words.as_slice() {
        [node, topic] => (open_at(&client, node).await?, node.as_str(), topic),
        [topic] => (client.open_event_stream().await?, "this node", topic),
        _ => return Err(Failure::usage("a topic is missing").hint("pilotctl subscribe 'metrics.*'")),
    };
    let How { replay, policy, queue, full } = args.how.clone();
    let options = SubscribeOptions { policy: policy.into(), queue, replay };
    let subscribed = events.subscribe_with(topic.as_str(), options).await;
    let subscribed = subscribed.map_err(|error| explain(place, error.into()))?;
    ctx.note(style::faint(format!("subscribed to {topic}")));
    if options.policy == Overflow::Block && subscribed.policy != Overflow::Block {
        ctx.note(format!("publishers at {place} do not wait for us: the oldest events may be dropped"));
    }
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    // One document at the end, unless there is no end in sight.
    let gather = ctx.format == Format::Json && (args.count.is_some() || deadline.is_some());
    let (mut gathered, mut seen) = (Vec::new(), 0);
    while args.count.is_none_or(|count| seen < count) {
        let next = events.next();
        let received: Received = match deadline {
            None => next.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, next).await {
                Ok(received) => received,
                Err(_) if seen == 0 && args.count.is_some() => return Err(nothing_came(topic, args)),
                Err(_) if gather => return Ok(Output::of(Report { events: gathered, timeout: true })),
                Err(_) => return Ok(Output::streamed()),
            },
        };
        seen += 1;
        if received.demoted {
            ctx.note(
                "publishers waited too long for this subscription: from now on the oldest events are dropped",
            );
        }
        let event = Event::of(received, full);
        if gather { gathered.push(event) } else { output::item(ctx.format, &event)? }
    }
    Ok(if gather { Output::of(Report { events: gathered, timeout: false }) } else { Output::streamed() })
}

/// A failure only for somebody who wanted a number of events.
fn nothing_came(topic: &str, args: &Args) -> Failure {
    let waited = duration::show(args.timeout.unwrap_or_default());
    Failure::new(Code::Timeout, format!("no event on {topic} within {waited}"))
        .with_data(json!({ "events": [], "timeout": true }))
}

/// The broker of a node.
pub(crate) async fn open_at(client: &pilot_client::Client, node: &str) -> Result<EventStream, Failure> {
    let peer = target::find(client, node).await?;
    Ok(client.open_event_stream_at(peer.addr))
}

/// Adds what to do about a broker that cannot be reached.
pub(crate) fn explain(node: &str, failure: Failure) -> Failure {
    failure
        .advise(Code::TrustRequired, format!("ask for trust: pilotctl handshake {node}"))
        .advise(Code::Refused, format!("{node} serves no events (`--no-eventstream`)"))
}
