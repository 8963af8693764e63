//! `pilotctl outbox`.

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    before_help = "Examples:\n  pilotctl outbox\n  pilotctl outbox --pending\n  pilotctl outbox --to agent-b --limit 20\n  \
    pilotctl outbox show last\n  pilotctl outbox cancel 5156d0a4934aa9c761b0a3d0a0ec715e\n  \
    pilotctl outbox wait 5156d0a4934aa9c761b0a3d0a0ec715e --until read"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// The newest messages and what became of them
    List(ListArgs),
    /// One message
    Show(ShowArgs),
    /// Take a message back that is not delivered yet
    Cancel(CancelArgs),
    /// Wait until a message is stored, read or answered
    Wait(WaitArgs),
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl outbox list\n  pilotctl outbox list --pending --to agent-b")]
struct ListArgs {
    /// Only messages that are not delivered yet
    #[arg(long)]
    pending: bool,
    /// Only messages to this node
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// At most so many, the newest; 0 is all that the daemon lists (500)
    #[arg(long, default_value_t = 20, value_name = "COUNT")]
    limit: u32,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl outbox show 5156d0a4934aa9c761b0a3d0a0ec715e")]
struct ShowArgs {
    /// The message's id; `last`: the newest message
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl outbox cancel 5156d0a4934aa9c761b0a3d0a0ec715e")]
struct CancelArgs {
    /// The message's id; `last`: the newest message
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl outbox wait 5156d0a4934aa9c761b0a3d0a0ec715e\n  \
    pilotctl outbox wait 5156d0a4934aa9c761b0a3d0a0ec715e --until read --timeout 10m")]
struct WaitArgs {
    /// The message's id; `last`: the newest message
    #[arg(value_name = "ID")]
    id: String,
    /// How far it shall have come
    #[arg(long, value_enum, default_value = "stored", value_name = "STATE")]
    until: Until,
    /// How long to wait
    #[arg(long, default_value = "30s", value_parser = crate::duration::parse, value_name = "DURATION")]
    timeout: Duration,
}

/// How far a message is wanted to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Until {
    /// It is on its way: a mailbox of the peer has it, or the peer is there to take it
    Sent,
    /// It is in the peer's inbox
    Stored,
    /// A program has taken it from there
    Read,
    /// An answer to it has arrived here
    Answered,
}

use std::fmt;

use pilot_client::{Client, DeliveryState as State, OutboxFilter, OutboxItem as Item};
use pilot_wire::dataexchange::MessageId;
use pilot_wire::outbox::Kind;
use serde::Serialize;
use serde_json::json;

use super::send_message::parse_id;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{duration, humane, style, target};

impl From<Until> for State {
    fn from(until: Until) -> Self {
        match until {
            Until::Sent => Self::Sent,
            Until::Stored => Self::Stored,
            Until::Read => Self::Read,
            Until::Answered => Self::Answered,
        }
    }
}

/// The word for a state, as JSON has it.
pub(crate) fn word(state: State) -> &'static str {
    match state {
        State::Queued => "queued",
        State::Sent => "sent",
        State::Stored => "stored",
        State::Read => "read",
        State::Answered => "answered",
        State::Expired => "expired",
        State::Refused => "refused",
        State::Cancelled => "cancelled",
    }
}

fn shown(state: State) -> String {
    match state {
        State::Stored | State::Read | State::Answered => style::good(word(state)),
        State::Expired | State::Refused => style::bad(word(state)),
        State::Queued | State::Sent | State::Cancelled => style::strong(word(state)),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Json => "json",
        Kind::Binary => "binary",
        Kind::File => "file",
    }
}

fn name(item: &Item) -> String {
    item.to_hostname.clone().unwrap_or_else(|| item.to.to_string())
}

/// What is still to be said about a message that is not delivered.
fn outlook(item: &Item) -> Option<String> {
    let next = match item.next_try_ms {
        Some(0) | None => None,
        Some(ms) => Some(format!("next try in {}", duration::show(Duration::from_millis(ms)))),
    };
    let reason = item.reason.as_deref().map(humane::printable);
    match (reason, next) {
        (Some(reason), Some(next)) => Some(format!("{reason}; {next}")),
        (Some(only), None) | (None, Some(only)) => Some(only),
        (None, None) => None,
    }
}

fn when(rfc3339: &str) -> String {
    humane::from_rfc3339(rfc3339).map_or_else(|| rfc3339.to_owned(), |at| format!("{} UTC", humane::utc(at)))
}

#[derive(Serialize)]
struct Listed {
    messages: Vec<Item>,
    pending: u64,
    pending_bytes: u64,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.messages {
            let age = humane::from_rfc3339(&item.created_at).map_or_else(String::new, humane::ago);
            let what = item.name.as_deref().map_or_else(|| kind(item.kind).to_owned(), humane::printable);
            let facts = format!("{what} · {} · {age}", humane::bytes(item.bytes));
            writeln!(f, "{} · {} · {facts} · {}", shown(item.state), style::strong(name(item)), item.id)?;
            if let Some(outlook) = outlook(item) {
                writeln!(f, "  {}", style::faint(outlook))?;
            }
        }
        match self.pending {
            0 => write!(f, "nothing waits to be delivered"),
            count => {
                write!(
                    f,
                    "{} to be delivered, {}",
                    humane::count(count, "message"),
                    humane::bytes(self.pending_bytes)
                )
            }
        }
    }
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    item: Item,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let item = &self.item;
        writeln!(
            f,
            "{}: {} to {}, {}",
            shown(item.state),
            kind(item.kind),
            name(item),
            humane::bytes(item.bytes)
        )?;
        writeln!(f, "  message id  {}", item.id)?;
        if let Some(name) = &item.name {
            writeln!(f, "  file        {}", humane::printable(name))?;
        }
        if let Some(id) = &item.reply_to {
            writeln!(f, "  answers     {id}")?;
        }
        if let Some(ack) = &item.ack {
            writeln!(f, "  ack         {}", humane::printable(ack))?;
        }
        if let Some(via) = &item.via {
            writeln!(f, "  mailbox     {via}")?;
        }
        if let Some(outlook) = outlook(item) {
            writeln!(f, "  why         {outlook}")?;
        }
        writeln!(f, "  handed over {}", when(&item.created_at))?;
        if item.state.is_settled() {
            write!(f, "  {:<11} {}", word(item.state), when(&item.state_at))
        } else {
            write!(
                f,
                "  tried       {}, until {}",
                humane::count(item.attempts, "time"),
                when(&item.expires_at)
            )
        }
    }
}

/// `pilotctl outbox`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    match &args.action {
        None => list(ctx, &args.list).await,
        Some(Action::List(args)) => list(ctx, args).await,
        Some(Action::Show(args)) => {
            let client = ctx.client().await?;
            let id = which(&client, &args.id).await?;
            let item = client.outbox_show(&id).await.map_err(|error| unknown(&id, error.into()))?;
            Ok(Output::of(Shown { item }))
        }
        Some(Action::Cancel(args)) => {
            let client = ctx.client().await?;
            let id = which(&client, &args.id).await?;
            cancel(&client, &id).await
        }
        Some(Action::Wait(args)) => {
            let client = ctx.client().await?;
            let id = which(&client, &args.id).await?;
            let until = State::from(args.until);
            let waited = client.outbox_wait(&id, until, args.timeout).await;
            let item = waited.map_err(|error| unknown(&id, error.into()))?;
            reached(&item, until, args.timeout)?;
            Ok(Output::of(Shown { item }))
        }
    }
}

/// The message that is meant.
async fn which(client: &Client, text: &str) -> Result<MessageId, Failure> {
    if text != "last" {
        return parse_id(text);
    }
    let newest = client.outbox(OutboxFilter { limit: Some(1), ..OutboxFilter::default() }).await?;
    newest
        .items
        .into_iter()
        .next_back()
        .map(|item| item.id)
        .ok_or_else(|| Failure::new(Code::NotFound, "nothing was handed over yet"))
}

async fn list(ctx: &Context, args: &ListArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let to = match &args.to {
        Some(target) => Some(target::find(&client, target).await?.node),
        None => None,
    };
    let limit = (args.limit > 0).then_some(args.limit);
    let listed = client.outbox(OutboxFilter { to, pending: args.pending, limit }).await?;
    Ok(Output::of(Listed {
        messages: listed.items,
        pending: listed.pending,
        pending_bytes: listed.pending_bytes,
    }))
}

async fn cancel(client: &Client, id: &MessageId) -> Result<Output, Failure> {
    let item = client.outbox_cancel(id).await.map_err(|error| unknown(id, error.into()))?;
    let failure = match item.state {
        State::Cancelled => return Ok(Output::of(Shown { item })),
        State::Queued | State::Sent => Failure::new(
            Code::ConnectionFailed,
            format!("the message is on its way to {} at this moment", name(&item)),
        )
        .hint(format!("it is not sent again; whether it arrived: pilotctl outbox show {id}")),
        State::Stored | State::Read | State::Answered => {
            Failure::new(Code::Refused, format!("it is too late: {} has the message", name(&item)))
        }
        State::Expired | State::Refused => {
            Failure::new(Code::Refused, format!("the message is {} already", word(item.state)))
        }
    };
    Err(failure.with_data(json!(item)))
}

/// Fails when a message did not come as far as it was to.
pub(crate) fn reached(item: &Item, until: State, waited: Duration) -> Result<(), Failure> {
    if until == State::Sent && item.state == State::Sent && item.via.is_some() {
        return Ok(());
    }
    let to = name(item);
    let reason =
        item.reason.as_deref().map(|reason| format!(": {}", humane::printable(reason))).unwrap_or_default();
    let show = format!("pilotctl outbox show {}", item.id);
    let failure = match item.state {
        State::Stored | State::Read | State::Answered if item.state >= until => return Ok(()),
        State::Queued | State::Sent => Failure::new(
            Code::Timeout,
            format!("not delivered to {to} within {}{reason}", duration::show(waited)),
        )
        .hint(format!("it stays queued and is tried until {}: {show}", when(&item.expires_at))),
        State::Stored | State::Read | State::Answered if item.tagged == Some(false) => Failure::new(
            Code::Unsupported,
            format!("{to} has the message, but its release cannot tell what is {}", word(until)),
        )
        .hint("the peer runs an old release; update it"),
        State::Stored | State::Read | State::Answered => Failure::new(
            Code::Timeout,
            format!("{to} has the message, but it was not {} within {}", word(until), duration::show(waited)),
        )
        .hint(format!("wait on: pilotctl outbox wait {} --until {}", item.id, word(until))),
        State::Refused => Failure::new(Code::Refused, format!("{to} does not take the message{reason}")),
        State::Expired => {
            Failure::new(Code::Timeout, format!("the message was not delivered to {to} in its time{reason}"))
        }
        State::Cancelled => Failure::new(Code::Refused, "the message was taken back"),
    };
    Err(failure.with_data(json!(item)))
}

fn unknown(id: &MessageId, failure: Failure) -> Failure {
    if failure.code != Code::NotFound {
        return failure;
    }
    Failure::new(Code::NotFound, format!("the outbox has no message {id}"))
        .hint("see `pilotctl outbox`; settled messages are forgotten after seven days")
}
