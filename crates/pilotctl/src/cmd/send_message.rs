//! `pilotctl send-message`.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl send-message agent-b --data 'process this' --wait\n  \
    pilotctl send-message worker-node --data '{\"status\":\"complete\"}' --type json\n  \
    pilotctl send-message agent-b 'hello'\n  pilotctl send-message agent-b 'hello' --until read --timeout 10m\n  \
    pilotctl send-message agent-b 'nice to meet you' --handshake\n  pilotctl send-message agent-b 'only now' --now\n  make-report | pilotctl send-message agent-b --data -\n  \
    pilotctl send-message agent-a 'done' --reply-to 5156d0a4934aa9c761b0a3d0a0ec715e")]
pub(crate) struct Args {
    /// Hostname, address or node number
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,
    /// The message
    #[arg(value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// The message; `-` is stdin
    #[arg(long, short = 'd', value_name = "DATA", allow_hyphen_values = true, conflicts_with = "data_file")]
    pub(crate) data: Option<String>,
    /// Take the message from a file
    #[arg(long, alias = "file", value_name = "PATH")]
    pub(crate) data_file: Option<PathBuf>,
    /// What it is; json is checked before it is sent
    #[arg(long = "type", short = 't', default_value = "text", value_parser = ["text", "json", "binary"], value_name = "TYPE")]
    pub(crate) kind: String,
    /// Wait for the reply [default when bare: 30s]
    #[arg(long, alias = "wait-reply", num_args = 0..=1, require_equals = true, default_missing_value = "30s",
          value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) wait: Option<Duration>,
    /// With --wait: print the pieces of the answer as they come
    #[arg(long, requires = "wait", conflicts_with = "now")]
    pub(crate) stream: bool,
    /// With --wait: messages to a node under one key are carried out once, and get the same answer
    #[arg(long, requires = "wait", conflicts_with = "now", value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Id of the message that this one answers; `last`: the newest message of that node
    #[arg(long, value_name = "ID")]
    pub(crate) reply_to: Option<String>,
    /// Fail if the peer cannot be reached now, instead of leaving the message with the daemon
    #[arg(long, conflicts_with_all = ["ttl", "until"])]
    pub(crate) now: bool,
    /// Ask the peer for trust if there is none yet; the message waits for its owner's word
    #[arg(long, conflicts_with = "now")]
    pub(crate) handshake: bool,
    /// For how long the daemon tries to deliver it [default: 7 days]
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) ttl: Option<Duration>,
    /// Return only when it is in the peer's inbox, was read there, or was answered
    #[arg(long, value_enum, conflicts_with = "wait", value_name = "STATE")]
    pub(crate) until: Option<Until>,
    /// Fail when the peer has not stored it (with --until: read, answered) in this time; it stays with the daemon
    /// [default with --until and --now: 30s]
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
}

use std::fmt;
use std::time::SystemTime;

use pilot_client::{Client, DeliveryState as State, MessageKind, Outgoing, Queued};
use pilot_wire::dataexchange::{Extension, MessageId};
use pilot_wire::ipc::{Call, PeerInfo, TrustState};
use pilot_wire::mailbox::{List, Reply, Request};
use pilot_wire::{Addr, NodeId};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::ask;
use super::inbox::Message;
use super::outbox::{Until, reached, word};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::mailbox::unexpected;
use crate::output::Output;
use crate::target::{self, Peer};
use crate::{duration, humane, input, style};

/// How long a peer may take to store a message when that is waited for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a message may take to a peer that is there, before it is reported as queued.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a sign of the peer is waited for, beyond the round trips that it takes.
const GLANCE: Duration = Duration::from_millis(12);

/// Round trips that a sign of the peer may take: a dial, and two to spare.
const SIGN_TRIPS: u32 = 3;

/// A peer that was heard of within this time is there: keepalives come every 30 seconds.
const HEARD: u64 = 40_000;

impl Args {
    /// `send NODE "text"`.
    pub(crate) fn text(target: String, text: String) -> Self {
        Args {
            target,
            text: None,
            data: Some(text),
            data_file: None,
            kind: "text".to_owned(),
            wait: None,
            stream: false,
            key: None,
            reply_to: None,
            now: false,
            handshake: false,
            ttl: None,
            until: None,
            timeout: None,
        }
    }

    /// `--wait 30s`, as the reference takes it: with `--data` there is no other use for a second word.
    fn with_loose_wait(mut self) -> Self {
        if self.wait.is_some()
            && self.data.is_some()
            && let Some(patience) = self.text.as_deref().and_then(|text| duration::parse(text).ok())
        {
            (self.wait, self.text) = (Some(patience), None);
        }
        self
    }

    fn body(&self) -> Result<Vec<u8>, Failure> {
        match (&self.text, &self.data, &self.data_file) {
            (Some(text), None, None) => Ok(text.clone().into_bytes()),
            (None, Some(data), None) => input::data(data),
            (None, None, Some(path)) => input::file(path),
            (None, None, None) => Err(Failure::usage("there is no message")
                .hint("pilotctl send-message NODE --data TEXT, or `--data -` for stdin")),
            _ => Err(Failure::usage("the message is given twice").hint("give a text, --data or --data-file")),
        }
    }
}

#[derive(Serialize)]
pub(crate) struct Report {
    target: Addr,
    to: String,
    #[serde(rename = "type")]
    kind: String,
    bytes: usize,
    #[serde(flatten)]
    sent: Option<Sent>,
    elapsed_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_after_ms: Option<f64>,
}

/// What became of the message so far.
#[derive(Serialize)]
pub(crate) struct Sent {
    message_id: MessageId,
    state: &'static str,
    /// What the peer's node said when it had stored it.
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tagged: Option<bool>,
    /// Why it is not delivered yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Until when it is tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

impl Sent {
    /// Of a message that waits for its answer.
    pub(crate) fn of_request(pending: &pilot_client::PendingRequest) -> Self {
        let item = pending.item();
        Sent {
            message_id: pending.id().clone(),
            state: word(item.map_or(State::Queued, |item| item.state)),
            ack: item.and_then(|item| item.ack.clone()),
            tagged: item.and_then(|item| item.tagged),
            reason: item.and_then(|item| item.reason.clone()),
            expires_at: item.filter(|item| !item.state.is_settled()).map(|item| item.expires_at.clone()),
        }
    }
}

impl Report {
    fn new(peer: &Peer, kind: &str, bytes: usize, reply_to: Option<MessageId>) -> Self {
        Report {
            target: peer.addr,
            to: peer.name(),
            kind: kind.to_owned(),
            bytes,
            sent: None,
            elapsed_ms: 0.0,
            reply_to,
            reply: None,
            reply_after_ms: None,
        }
    }

    /// What became of it, and how long that took.
    pub(crate) fn know(&mut self, sent: Sent, after: Duration) {
        self.elapsed_ms = after.as_secs_f64() * 1e3;
        self.sent = Some(sent);
    }

    /// The reply came.
    pub(crate) fn answered(&mut self, reply: Message, after: Duration) {
        self.reply_after_ms = Some((after.as_secs_f64() * 1e3 - self.elapsed_ms).max(0.0));
        self.reply = Some(reply);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reply) = &self.reply {
            // The reply is what was asked for: it alone is on stdout.
            return write!(f, "{}", reply.body());
        }
        let Some(sent) = &self.sent else { return Ok(()) };
        match &sent.ack {
            Some(ack) => {
                writeln!(f, "{}: {} has it in its inbox", style::good("delivered"), self.to)?;
                writeln!(f, "  ack         {}", humane::printable(ack))?;
                writeln!(f, "  message id  {}", sent.message_id)?;
                write!(f, "  took        {:.1} ms", self.elapsed_ms)
            }
            None => {
                let queued = style::strong("queued");
                writeln!(f, "{queued}: {} gets it as soon as it can be reached", self.to)?;
                if let Some(reason) = &sent.reason {
                    writeln!(f, "  why         {}", humane::printable(reason))?;
                }
                writeln!(f, "  message id  {}", sent.message_id)?;
                write!(f, "  follow it   pilotctl outbox show {}", sent.message_id)
            }
        }
    }
}

/// `pilotctl send-message`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let args = args.clone().with_loose_wait();
    let body = args.body()?;
    let kind = kind(&args.kind, &body)?;
    let client = ctx.client().await?;
    let peer = target::find(&client, &args.target).await?;
    if args.handshake {
        ask_for_trust(ctx, &client, &peer).await?;
    }
    let reply_to = match args.reply_to.as_deref() {
        Some("last") => Some(last_of(ctx, &peer).await?),
        other => other.map(parse_id).transpose()?,
    };
    let sent_at = SystemTime::now();
    let begin = Instant::now();
    let bytes = body.len();
    if let (Some(patience), false) = (args.wait, args.now || client.is_reference()) {
        let key = args.key.as_deref().map(parse_id).transpose()?;
        let question = ask::Question {
            kind,
            body,
            reply_to: reply_to.clone(),
            patience,
            ttl: args.ttl,
            key,
            stream: args.stream,
        };
        let report = Report::new(&peer, &args.kind, bytes, reply_to);
        return ask::run(ctx, &client, &peer, question, report).await;
    }
    let outgoing = Outgoing {
        reply_to: reply_to.clone(),
        extension: Extension { hops: pilot_client::hops(), ..Extension::default() },
        ..Outgoing::new(kind, body)
    };
    let sent = match args.now || client.is_reference() {
        true => at_once(&client, &peer, outgoing, args.timeout.unwrap_or(TIMEOUT)).await?,
        false => through_the_outbox(ctx, &client, &peer, outgoing, &args).await?,
    };
    let message_id = sent.message_id.clone();
    let mut report = Report::new(&peer, &args.kind, bytes, reply_to);
    report.know(sent, begin.elapsed());
    if let Some(patience) = args.wait {
        let delivered = Instant::now();
        ctx.note(style::faint(format!("delivered; waiting for the reply of {}", peer.name())));
        match client.wait_reply(peer.node, &message_id, sent_at, patience).await? {
            Some(mail) => {
                let after = delivered.elapsed();
                ctx.note(style::faint(format!("{} answered after {}", peer.name(), duration::show(after))));
                report.reply = Some(Message::new(mail.id, mail.message));
                report.reply_after_ms = Some(after.as_secs_f64() * 1e3);
            }
            None => return Err(no_reply(&peer, patience, &report)),
        }
    }
    Ok(Output::of(report))
}

/// A message to a private peer waits until its owner agrees, and nobody agrees who was not asked.
async fn ask_for_trust(ctx: &Context, client: &Client, peer: &Peer) -> Result<(), Failure> {
    let stands = client.wait_trust(peer.node, Duration::ZERO).await?;
    if stands.state == TrustState::Trusted {
        return Ok(());
    }
    client.handshake(peer.node, "").await?;
    ctx.note(style::faint(format!(
        "asked {} for trust; its owner answers with `pilotctl approve`",
        peer.name()
    )));
    Ok(())
}

/// Straight to the peer: it has the message when this returns, or nobody has.
async fn at_once(client: &Client, peer: &Peer, outgoing: Outgoing, limit: Duration) -> Result<Sent, Failure> {
    let Ok(sent) = tokio::time::timeout(limit, client.send_message(peer.addr, outgoing)).await else {
        let message = format!("{} did not store the message within {}", peer.name(), duration::show(limit));
        return Err(
            Failure::new(Code::Timeout, message).hint(format!("is it up? pilotctl ping {}", peer.name()))
        );
    };
    let receipt = sent.map_err(|error| explain(peer, error.into()))?;
    Ok(Sent {
        message_id: receipt.message_id,
        state: word(State::Stored),
        ack: Some(receipt.ack),
        tagged: Some(receipt.tagged),
        reason: None,
        expires_at: None,
    })
}

/// To the daemon, which delivers it when it can. A reply can come only to what was delivered, so that is waited for when
/// one is wanted.
async fn through_the_outbox(
    ctx: &Context,
    client: &Client,
    peer: &Peer,
    outgoing: Outgoing,
    args: &Args,
) -> Result<Sent, Failure> {
    let (until, patience, required) = match (args.until, args.wait, args.timeout) {
        (Some(until), _, timeout) => (until.into(), timeout.unwrap_or(TIMEOUT), true),
        (None, Some(wait), _) => (State::Stored, wait, true),
        (None, None, Some(timeout)) => (State::Stored, timeout, true),
        (None, None, None) => (State::Stored, glance(ctx, client, peer.node).await?, false),
    };
    let queued = Queued { ttl: args.ttl, ..Queued::new(peer.addr, outgoing) };
    let begin = Instant::now();
    let mut item = client.queue(queued.until(until, patience)).await?;
    if !required && !item.state.is_settled() && has_been_heard(client, peer.node, begin.elapsed()).await? {
        // It is there, only slow.
        let left = PATIENCE.saturating_sub(begin.elapsed());
        item = client.outbox_wait(&item.id, until, left).await?;
    }
    if required || item.state > State::Answered {
        reached(&item, until, patience)?;
    }
    Ok(Sent {
        message_id: item.id,
        state: word(item.state),
        expires_at: item.ack.is_none().then_some(item.expires_at),
        ack: item.ack,
        tagged: item.tagged,
        reason: item.reason,
    })
}

/// How long a sign of the peer is waited for.
async fn glance(ctx: &Context, client: &Client, node: NodeId) -> Result<Duration, Failure> {
    if let Some(patience) = ctx.settings.duration("send_patience") {
        return Ok(patience);
    }
    let round_trip = tunnel_to(client, node).await?.and_then(|peer| peer.rtt_us).unwrap_or(0);
    Ok(PATIENCE.min(GLANCE + Duration::from_micros(round_trip) * SIGN_TRIPS))
}

/// Whether anything came from a peer within this time.
async fn has_been_heard(client: &Client, node: NodeId, within: Duration) -> Result<bool, Failure> {
    let idle = tunnel_to(client, node).await?.and_then(|peer| peer.idle_ms);
    Ok(idle.is_some_and(|idle| Duration::from_millis(idle) < within))
}

/// Whether a peer has been heard of lately.
pub(crate) async fn is_there(client: &Client, node: NodeId) -> Result<bool, Failure> {
    Ok(tunnel_to(client, node).await?.is_some_and(|peer| peer.idle_ms.is_some_and(|idle| idle < HEARD)))
}

async fn tunnel_to(client: &Client, node: NodeId) -> Result<Option<PeerInfo>, Failure> {
    let peers: Vec<PeerInfo> = client.call(Call::Peers).await?;
    Ok(peers.into_iter().find(|peer| peer.node_id == node))
}

/// What a message of this type is; its bytes are checked.
pub(crate) fn kind(name: &str, body: &[u8]) -> Result<MessageKind, Failure> {
    match name {
        "json" => {
            match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
                Ok(_) => Ok(MessageKind::Json),
                Err(e) => Err(Failure::usage(format!("the message is not JSON: {e}"))
                    .hint("`--type text` sends anything")),
            }
        }
        "binary" => Ok(MessageKind::Binary),
        _ if std::str::from_utf8(body).is_ok() => Ok(MessageKind::Text),
        _ => Err(Failure::usage("the message is not UTF-8 text").hint("send it with --type binary")),
    }
}

/// Reads the id of a message.
pub(crate) fn parse_id(text: &str) -> Result<MessageId, Failure> {
    text.parse().map_err(|_| {
        Failure::usage(format!("`{text}` is not a message id"))
            .hint("1 to 128 of letters, digits and `._:-`; see `pilotctl inbox`")
    })
}

async fn last_of(ctx: &Context, peer: &Peer) -> Result<MessageId, Failure> {
    let newest = Request::List(List::newest(Some(peer.node), 1));
    let reply = crate::mailbox::ask(ctx, newest).await?;
    let Reply::Messages { messages, .. } = reply else { return Err(unexpected(&reply)) };
    messages.into_iter().next_back().and_then(|entry| entry.message_id).ok_or_else(|| {
        Failure::new(Code::NotFound, format!("there is no message of {} that could be answered", peer.name()))
            .hint("see `pilotctl inbox`; without --reply-to it is a message of its own")
    })
}

fn explain(peer: &Peer, failure: Failure) -> Failure {
    let name = peer.name();
    failure
        .advise(Code::TrustRequired, format!("ask for trust: pilotctl handshake {name}"))
        .advise(Code::Unreachable, format!("is it up? pilotctl ping {name}"))
        .advise(Code::Timeout, format!("is it up? pilotctl ping {name}"))
        .advise(Code::Refused, format!("{name} takes no messages (`--no-dataexchange`)"))
}

fn no_reply(peer: &Peer, patience: Duration, report: &Report) -> Failure {
    let message = format!("no reply from {} within {}", peer.name(), duration::show(patience));
    Failure::new(Code::Timeout, message)
        .hint("the message was delivered; a reply that comes later is in `pilotctl inbox`")
        .with_data(json!(report))
}
