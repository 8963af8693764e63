//! `pilotctl inbox`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl inbox\n  pilotctl inbox --from agent-b --latest\n  pilotctl inbox read TEXT-20261121-074618.799-000010\n  \
    pilotctl inbox --wait=60s\n  pilotctl inbox --follow --json\n  pilotctl inbox --clear"
)]
pub(crate) struct Args {
    /// `read` and the id of a message, or the id alone
    #[arg(value_name = "read ID", num_args = 0..=2)]
    pub(crate) read: Vec<String>,
    /// Only messages of this node
    #[arg(long, value_name = "TARGET")]
    pub(crate) from: Option<String>,
    /// Only messages younger than this
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) since: Option<Duration>,
    /// Only the newest message, in full
    #[arg(long)]
    pub(crate) latest: bool,
    /// At most so many, newest first; 0 is all
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub(crate) limit: usize,
    /// Whole messages instead of their first line
    #[arg(long)]
    pub(crate) full: bool,
    /// Wait for the next message and print it [default when bare: 30s]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "30s",
          value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) wait: Option<Duration>,
    /// Print messages as they arrive
    #[arg(long, conflicts_with = "wait")]
    pub(crate) follow: bool,
    /// Remove all messages
    #[arg(long)]
    pub(crate) clear: bool,
    /// With `--clear`: only messages older than this
    #[arg(long, requires = "clear", value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) before: Option<Duration>,
}

use std::fmt;

use pilot_wire::NodeId;
use pilot_wire::mailbox::{Entry, Reply, Request, StoredMessage};
use serde::Serialize;
use serde_json::{Value, json};

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::mailbox::{ask, content, nanos_before_now, unexpected};
use crate::output::{self, Output};
use crate::{duration, humane, style, target};

/// Characters of a message shown in a list on a terminal.
const PREVIEW: usize = 100;

/// How long one request of `--follow` waits before it is asked again.
const FOLLOW: Duration = Duration::from_secs(3600);

#[derive(Serialize)]
struct Listed {
    messages: Vec<Entry>,
    total: u64,
    shown: usize,
    dir: String,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.messages.is_empty() {
            return write!(f, "no messages");
        }
        for entry in &self.messages {
            let who = entry.from_hostname.clone().unwrap_or_else(|| entry.from.to_string());
            let when = humane::from_rfc3339(&entry.received_at).map_or_else(String::new, humane::ago);
            let facts = format!("{} · {} · {when}", entry.kind, humane::bytes(entry.bytes));
            writeln!(f, "{} · {facts} · {}", style::strong(who), style::faint(&entry.id))?;
            if let Some(preview) = &entry.preview {
                writeln!(f, "  {}", humane::preview(preview, PREVIEW))?;
            }
        }
        if (self.shown as u64) < self.total {
            writeln!(f, "{} of {}; --limit 0 shows all", self.shown, self.total)?;
        }
        write!(f, "{}", style::faint("read one: pilotctl inbox read ID"))
    }
}

/// One message in full.
#[derive(Serialize)]
pub(crate) struct Message {
    id: String,
    #[serde(flatten)]
    stored: StoredMessage,
    /// The parsed body of a JSON message.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
}

impl Message {
    /// From the daemon's answer.
    pub(crate) fn from_reply(reply: Reply) -> Result<Self, Failure> {
        let (id, stored) = content(reply)?;
        Ok(Self::new(id, stored))
    }

    pub(crate) fn new(id: String, stored: StoredMessage) -> Self {
        let json = match (stored.kind.as_str(), &stored.data) {
            ("JSON", Some(text)) => serde_json::from_str(text).ok(),
            _ => None,
        };
        Message { id, stored, json }
    }

    /// What it says, safe for a terminal.
    pub(crate) fn body(&self) -> String {
        match (&self.stored.data, &self.stored.data_b64) {
            (Some(text), _) => humane::printable(text),
            (None, Some(base64)) => format!("(binary, in base64) {base64}"),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = &self.stored;
        let who = match &stored.from_hostname {
            Some(name) => format!("{name} ({})", stored.from),
            None => stored.from.to_string(),
        };
        writeln!(
            f,
            "{} · {} · {} · {}",
            style::strong(who),
            stored.kind,
            humane::bytes(stored.bytes),
            stored.received_at
        )?;
        if let Some(id) = &stored.message_id {
            writeln!(f, "{}", style::faint(format!("message id {id} (answer with --reply-to {id})")))?;
        }
        if let Some(id) = &stored.reply_to {
            writeln!(f, "{}", style::faint(format!("answers {id}")))?;
        }
        write!(f, "{}", self.body())
    }
}

#[derive(Serialize)]
struct Full {
    messages: Vec<Message>,
    total: u64,
    shown: usize,
    dir: String,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let messages: Vec<String> = self.messages.iter().map(ToString::to_string).collect();
        f.write_str(if messages.is_empty() { "no messages" } else { "" })?;
        f.write_str(&messages.join("\n\n"))
    }
}

#[derive(Serialize)]
pub(crate) struct Cleared {
    pub(crate) cleared: u64,
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} removed", self.cleared)
    }
}

/// `pilotctl inbox`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let from = match &args.from {
        Some(text) => Some(target::find(&ctx.client().await?, text).await?.node),
        None => None,
    };
    if args.clear {
        let before_ns = args.before.map(nanos_before_now);
        let reply = ask(ctx, Request::Clear { before_ns }).await?;
        let Reply::Cleared { cleared } = reply else { return Err(unexpected(&reply)) };
        return Ok(Output::of(Cleared { cleared }));
    }
    if let Some(id) = to_read(&args.read)? {
        let reply = ask(ctx, Request::Read { id: Some(id) }).await?;
        return Ok(Output::of(Message::from_reply(reply)?));
    }
    let since_ns = args.since.map(nanos_before_now);
    if args.follow {
        return follow(ctx, from, since_ns).await;
    }
    if let Some(patience) = args.wait {
        return wait(ctx, from, since_ns, patience).await;
    }
    list(ctx, args, from, since_ns).await
}

/// `read ID`, or just the id.
fn to_read(words: &[String]) -> Result<Option<String>, Failure> {
    match words {
        [] => Ok(None),
        [word] if word == "read" => {
            Err(Failure::usage("the id of a message is missing").hint("see `pilotctl inbox`"))
        }
        [id] => Ok(Some(id.clone())),
        [read, id] if read == "read" => Ok(Some(id.clone())),
        [word, ..] => {
            Err(Failure::usage(format!("`{word}` is not understood")).hint("pilotctl inbox read ID"))
        }
    }
}

async fn list(
    ctx: &Context,
    args: &Args,
    from: Option<NodeId>,
    since_ns: Option<u64>,
) -> Result<Output, Failure> {
    let limit = if args.latest { 1 } else { args.limit };
    let limit = (limit > 0).then(|| u32::try_from(limit).unwrap_or(u32::MAX));
    let reply = ask(ctx, Request::List { from, since_ns, limit }).await?;
    let Reply::Messages { mut messages, total, dir } = reply else { return Err(unexpected(&reply)) };
    messages.reverse();
    let shown = messages.len();
    if !args.full && !args.latest {
        return Ok(Output::of(Listed { messages, total, shown, dir }));
    }
    let mut full = Vec::new();
    for entry in messages {
        full.push(Message::from_reply(ask(ctx, Request::Read { id: Some(entry.id) }).await?)?);
    }
    Ok(Output::of(Full { messages: full, total, shown, dir }))
}

async fn wait(
    ctx: &Context,
    from: Option<NodeId>,
    since_ns: Option<u64>,
    patience: Duration,
) -> Result<Output, Failure> {
    let since_ns = Some(since_ns.unwrap_or_else(|| nanos_before_now(Duration::ZERO)));
    let timeout_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    let reply = ask(ctx, Request::Wait { from, reply_to: None, since_ns, after: None, timeout_ms }).await?;
    if reply == Reply::TimedOut {
        let message = format!("no message came within {}", duration::show(patience));
        return Err(
            Failure::new(Code::Timeout, message).with_data(json!({ "timeout": true, "messages": [] }))
        );
    }
    Ok(Output::of(Message::from_reply(reply)?))
}

async fn follow(ctx: &Context, from: Option<NodeId>, since_ns: Option<u64>) -> Result<Output, Failure> {
    let since_ns = Some(since_ns.unwrap_or_else(|| nanos_before_now(Duration::ZERO)));
    let timeout_ms = u64::try_from(FOLLOW.as_millis()).unwrap_or(u64::MAX);
    let mut after = None;
    loop {
        let request = Request::Wait { from, reply_to: None, since_ns, after: after.clone(), timeout_ms };
        let reply = ask(ctx, request).await?;
        if reply != Reply::TimedOut {
            let message = Message::from_reply(reply)?;
            output::item(ctx.format, &message)?;
            after = Some(message.id);
        }
    }
}
