//! Events: `publish`, `subscribe`.

use std::time::Duration;

use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Desk, Report};
use crate::daemon::resolve;
use crate::events::{Events, Place};
use crate::fault::Fault;
use crate::known;
use crate::pace::Pace;
use crate::words::one_line;

/// Events of an answer, unless told otherwise, and at most.
const PAGE: (usize, usize) = (20, 100);

/// Longest wait for an event.
const WAIT_MAX: u64 = 3600;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Publish {
    /// The topic, for instance `agent-a.results`.
    topic: String,
    /// What it says, as text.
    text: Option<String>,
    /// What it says, as JSON.
    json: Option<Value>,
    /// Publish at the broker of this node, instead of our own.
    node: Option<String>,
}

/// A publication.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Published {
    /// The topic.
    topic: String,
    /// Its length.
    bytes: usize,
}

impl Report for Published {
    fn text(&self) -> String {
        format!("{} bytes published on {}", self.bytes, one_line(&self.topic, 255))
    }
}

pub(crate) async fn publish(desk: &Desk, args: Publish) -> Result<Published, Fault> {
    let data = match (args.text, args.json) {
        (Some(text), None) => text,
        (None, Some(value)) => value.to_string(),
        _ => return Err(Fault::usage("give either `text` or `json`")),
    };
    let Place { topic, .. } = Place::new(&args.topic, None)?;
    let client = desk.daemon.client().await?;
    let mut stream = match &args.node {
        Some(node) => client.open_event_stream_at(resolve(&client, node).await?.address),
        None => client.open_event_stream().await?,
    };
    let bytes = data.len();
    stream.publish(topic.as_str(), data).await?;
    stream.settle().await?;
    Ok(Published { topic, bytes })
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscribe {
    /// The topic or pattern.
    topic: String,
    /// Only at the broker of this node.
    node: Option<String>,
    /// Only events after this number: `next` of the last answer.
    after: Option<u64>,
    /// When there is no event yet, wait so many seconds for one; 0 when left out.
    #[schemars(range(max = 3600))]
    wait_secs: Option<u64>,
    /// At most so many events; 20 when left out.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<usize>,
    /// The first time: begin with so many of the last events.
    #[schemars(range(max = 256))]
    replay: Option<u32>,
    /// Give what is there and end the subscription.
    end: Option<bool>,
}

impl Report for Events {
    fn text(&self) -> String {
        Events::text(self)
    }
}

pub(crate) async fn subscribe(desk: &Desk, pace: &Pace, args: Subscribe) -> Result<Events, Fault> {
    let subscriptions = &desk.subscriptions;
    let place = subscriptions.place(&args.topic, args.node.as_deref()).await?;
    let (after, limit) = (args.after.unwrap_or(0), args.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1));
    let gone = || Fault::new(pilot_client::ipc::Code::NotFound, "there is no such subscription");
    let mut events = if args.end == Some(true) {
        subscriptions.end(&place, after, limit).ok_or_else(gone)?
    } else {
        let replay = args.replay.unwrap_or(0).min(256);
        tokio::select! {
            done = subscriptions.ensure(&place, replay) => done?,
            () = pace.stopped() => return Err(Fault::cancelled()),
        }
        let wait = Duration::from_secs(args.wait_secs.unwrap_or(0).min(WAIT_MAX));
        tokio::select! {
            biased;
            () = subscriptions.wait(&place, after, wait) => {}
            () = pace.stopped() => return Err(Fault::cancelled()),
            never = pace.remind("waiting for an event") => match never {},
        }
        subscriptions.read(&place, after, limit).ok_or_else(gone)?
    };
    introduce(desk, &mut events).await;
    Ok(events)
}

/// Adds what is known of the publishers. Without a daemon the events are still there.
pub(crate) async fn introduce(desk: &Desk, events: &mut Events) {
    if events.events.is_empty() {
        return;
    }
    let Ok(client) = desk.daemon.client().await else { return };
    let Ok(known) = known::all(&client).await else { return };
    for sender in events.events.iter_mut().filter_map(|event| event.from.as_mut()) {
        if let Some(peer) = known.get(&pilot_client::NodeId(sender.node_id)) {
            let name = sender.hostname.take();
            *sender = peer.sender();
            sender.hostname = name.or(sender.hostname.take());
        }
    }
}
