//! `pilotctl events status`, and the article forms `pilotctl events subscribe|publish --topic T`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl events status\n  pilotctl events status --json\n  \
        pilotctl events subscribe --topic 'metrics.*'\n  pilotctl events publish --topic alerts --data 'high load'")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Who subscribes here and how it goes, links to the brokers of trusted nodes, history
    #[command(before_help = "Examples:\n  pilotctl events status\n  pilotctl events status --json")]
    Status,
    /// Print events of a topic, as `pilotctl subscribe` does
    #[command(before_help = "Examples:\n  pilotctl events subscribe --topic 'metrics.*' --count 10\n  \
            pilotctl events subscribe --target agent-b --topic status --replay 5")]
    Subscribe {
        /// The topic
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// The node whose events are wanted
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// End after so many events
        #[arg(long, value_name = "COUNT")]
        count: Option<usize>,
        /// End after this time
        #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
        timeout: Option<Duration>,
        #[command(flatten)]
        how: super::subscribe::How,
    },
    /// Publish an event, as `pilotctl publish` does
    #[command(before_help = "Examples:\n  pilotctl events publish --topic alerts --data 'high load'\n  \
            uptime | pilotctl events publish --topic metrics.uptime")]
    Publish {
        /// The topic
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// The node to publish at
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// The payload; `-` is stdin
        #[arg(long, alias = "payload", value_name = "DATA", allow_hyphen_values = true, default_value = "-")]
        data: String,
    },
}

use std::fmt;

use pilot_wire::ipc::{EventsStatus, LinkState, LinkStatus, SubscriptionStatus};
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::{duration, humane, style};

/// The broker as a whole.
#[derive(Serialize)]
#[serde(transparent)]
struct Report(EventsStatus);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EventsStatus { subscriptions, links, history, counters, .. } = &self.0;
        write!(
            f,
            "{} published here, {} from trusted nodes, {} delivered, {} dropped",
            counters.published, counters.received, counters.delivered, counters.dropped
        )?;
        let most = humane::bytes(history.max_bytes);
        let (events, bytes) = (humane::count(history.events, "event"), humane::bytes(history.bytes));
        write!(f, "\nhistory: {events}, {bytes} (of at most {}, {most})", history.max_events)?;
        if subscriptions.is_empty() {
            write!(f, "\nnobody subscribes here")?;
        } else {
            let heading = format!(
                "{:<24} {:<20} {:<11} {:>13} {:>9} {:>8}  {}",
                "SUBSCRIPTION", "NODE", "POLICY", "QUEUED", "DELIVERED", "DROPPED", "HELD UP"
            );
            write!(f, "\n{}", style::faint(heading))?;
            subscriptions.iter().try_for_each(|subscription| write!(f, "\n{}", row(subscription)))?;
        }
        if !links.is_empty() {
            let heading = format!(
                "{:<24} {:<20} {:<11} {:<10} {:>8} {:>6}",
                "LINK", "NODE", "POLICY", "STATE", "CAME", "LOST"
            );
            write!(f, "\n{}", style::faint(heading))?;
            links.iter().try_for_each(|link| write!(f, "\n{}", link_row(link)))?;
        }
        Ok(())
    }
}

fn row(subscription: &SubscriptionStatus) -> String {
    let SubscriptionStatus {
        node,
        own,
        topic,
        policy,
        demoted,
        queue,
        queued,
        delivered,
        dropped,
        blocked_ms,
        ..
    } = subscription;
    let node = if *own { "this node".to_owned() } else { node.to_string() };
    let policy = if *demoted { "demoted" } else { policy.as_str() };
    let topic = humane::preview(topic, 24);
    let queued = format!("{queued}/{queue}");
    let held = duration::show(Duration::from_millis(*blocked_ms));
    format!("{topic:<24} {node:<20} {policy:<11} {queued:>13} {delivered:>9} {dropped:>8}  {held}")
}

fn link_row(link: &LinkStatus) -> String {
    let state = match link.state {
        LinkState::Connecting => format!("{:<10}", "connecting"),
        LinkState::Live => style::good(format!("{:<10}", "live")),
        LinkState::Down => style::bad(format!("{:<10}", "down")),
    };
    let (topic, node, policy) =
        (humane::preview(&link.topic, 24), link.node.to_string(), link.policy.as_str());
    format!("{topic:<24} {node:<20} {policy:<11} {state} {:>8} {:>6}", link.received, link.lost)
}

/// `pilotctl events`: the status, and the article forms of `subscribe` and `publish`.
pub(crate) async fn run(ctx: &Context, args: Args) -> Result<Output, Failure> {
    let words = |target: Option<String>, topic| target.into_iter().chain([topic]).collect();
    match args.command {
        Command::Status => Ok(Output::of(Report(ctx.client().await?.events_status().await?))),
        Command::Subscribe { topic, target, count, timeout, how } => {
            let args = super::subscribe::Args { words: words(target, topic), count, timeout, how };
            super::subscribe::run(ctx, &args).await
        }
        Command::Publish { topic, target, data } => {
            let args = super::publish::Args { words: words(target, topic), data: Some(data) };
            super::publish::run(ctx, &args).await
        }
    }
}
