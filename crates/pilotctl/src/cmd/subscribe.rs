//! `pilotctl subscribe`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl subscribe \"agent-b.results\"          a topic of all trusted peers\n  \
        pilotctl subscribe 'metrics.*' --count 10\n  pilotctl subscribe agent-b status          a topic of one node",
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
}

use std::fmt;

use pilot_client::{EventStream, Received};
use pilot_wire::Addr;
use serde::Serialize;
use serde_json::json;
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
    bytes: usize,
    /// The node that published it, if its broker says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Addr>,
    /// The node whose broker passed it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<Addr>,
    /// Events before this one that were dropped because they were not read in time.
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
    received_at: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .data
            .as_deref()
            .map_or_else(|| format!("({} bytes of binary)", self.bytes), humane::printable);
        write!(f, "{} {shown}", style::strong(format!("[{}]", humane::printable(&self.topic))))
    }
}

impl From<Received> for Event {
    fn from(received: Received) -> Self {
        let (data, data_b64) = input::shown(&received.payload);
        Event {
            topic: received.topic,
            data,
            data_b64,
            bytes: received.payload.len(),
            from: received.publisher,
            via: received.broker,
            lost: received.lost,
            received_at: humane::rfc3339(std::time::SystemTime::now()),
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
    events.subscribe(topic.as_str()).await.map_err(|error| explain(place, error.into()))?;
    ctx.note(style::faint(format!("subscribed to {topic}")));
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
        let event = Event::from(received);
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
