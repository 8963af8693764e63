//! `pilotctl inbox`.

mod report;

use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl inbox\n  pilotctl inbox --from agent-b --latest\n  pilotctl inbox read last\n  \
    pilotctl inbox wait --from agent-b --match done --timeout 60s\n  pilotctl inbox follow --json\n  pilotctl inbox clear --read"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Id of a message: the same as `read ID`
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
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

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// What is there, newest first (the same as no word at all)
    List(ListArgs),
    /// One message in full
    Read(ReadArgs),
    /// Take the first unread message that fits, at once or when it comes
    Wait(WaitArgs),
    /// Print messages as they arrive, also over restarts of the daemon
    Follow(FollowArgs),
    /// Remove messages
    Clear(ClearArgs),
    /// Remove these messages
    Rm(RmArgs),
    /// Mark messages as read or unread
    Mark(MarkArgs),
}

/// Which messages are meant.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Select {
    /// Only messages of this node
    #[arg(long, value_name = "TARGET")]
    pub(crate) from: Option<String>,
    /// Only messages that no program has taken
    #[arg(long)]
    pub(crate) unread: bool,
    /// Only messages younger than this
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) since: Option<Duration>,
    /// Only messages of this type
    #[arg(long = "type", value_parser = ["text", "json", "binary"], ignore_case = true, value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Only messages with this text in their body
    #[arg(long = "match", value_name = "TEXT")]
    pub(crate) text: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl inbox list --unread\n  pilotctl inbox list --match error --type json --limit 50"
)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) select: Select,
    /// Only the newest message, in full
    #[arg(long)]
    pub(crate) latest: bool,
    /// At most so many, newest first; 0 is all
    #[arg(long, default_value_t = 10, value_name = "COUNT")]
    pub(crate) limit: usize,
    /// Whole messages instead of their first line
    #[arg(long)]
    pub(crate) full: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl inbox read last\n  pilotctl inbox read TEXT-20261121-074618.799-000010\n  \
    pilotctl inbox read last --raw > message.bin"
)]
pub(crate) struct ReadArgs {
    /// Id of the message, here or its sender's; `last` is the newest
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Exactly the bytes that were sent, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
    /// Leave it unread
    #[arg(long)]
    pub(crate) peek: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl inbox wait\n  pilotctl inbox wait --from agent-b --match done --timeout 60s --json"
)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    pub(crate) select: Select,
    /// Give up after this time [default: never]
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) timeout: Option<Duration>,
    /// Exactly the bytes that were sent, and nothing else
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl inbox follow\n  pilotctl inbox follow --unread --from agent-b --json"
)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    pub(crate) select: Select,
    /// End after so many messages
    #[arg(long, value_name = "COUNT")]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl inbox clear\n  pilotctl inbox clear --read --before 24h")]
pub(crate) struct ClearArgs {
    /// Only messages that were read
    #[arg(long)]
    pub(crate) read: bool,
    /// Only messages older than this
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
    pub(crate) before: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl inbox rm TEXT-20261121-074618.799-000010")]
pub(crate) struct RmArgs {
    /// Ids of messages here
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl inbox mark TEXT-20261121-074618.799-000010 --unread")]
pub(crate) struct MarkArgs {
    /// Ids of messages here
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    /// As unread instead of read
    #[arg(long)]
    pub(crate) unread: bool,
}

use pilot_client::Mail;
use pilot_wire::mailbox::{Entry, Filter, List, Reply, Request};
use serde_json::json;

pub(crate) use self::report::{Cleared, Message};
use self::report::{Full, Listed, Marked};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::mailbox::{ask, nanos_before_now, unexpected};
use crate::output::{self, Output};
use crate::{duration, target};

/// Messages asked for at once; the daemon gives no more.
const PAGE: u32 = 500;

/// As good as never, and still a time that can be added to another.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// `pilotctl inbox`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    match &args.command {
        Some(Command::List(args)) => list(ctx, args).await,
        Some(Command::Read(args)) => read(ctx, &args.id, args.raw, args.peek).await,
        Some(Command::Wait(args)) => wait(ctx, args).await,
        Some(Command::Follow(args)) => follow(ctx, &args.select, args.count).await,
        Some(Command::Clear(args)) => clear(ctx, args.before, args.read).await,
        Some(Command::Rm(args)) => remove(ctx, &args.ids).await,
        Some(Command::Mark(args)) => mark(ctx, args).await,
        None if args.clear => clear(ctx, args.before, false).await,
        None => match (&args.id, args.wait) {
            (Some(id), _) => read(ctx, id, false, false).await,
            (None, _) if args.follow => follow(ctx, &args.list.select, None).await,
            (None, Some(patience)) => next(ctx, &args.list.select, patience).await,
            (None, None) => list(ctx, &args.list).await,
        },
    }
}

async fn filter(ctx: &Context, select: &Select) -> Result<Filter, Failure> {
    let from = match &select.from {
        Some(text) => Some(target::find(&ctx.client().await?, text).await?.node),
        None => None,
    };
    Ok(Filter {
        from,
        unread: select.unread,
        since_ns: select.since.map(nanos_before_now),
        kind: select.kind.clone(),
        text: select.text.clone(),
    })
}

async fn list(ctx: &Context, args: &ListArgs) -> Result<Output, Failure> {
    let wanted = match (args.latest, args.limit) {
        (true, _) => 1,
        (false, 0) => usize::MAX,
        (false, limit) => limit,
    };
    let mut request = List { filter: filter(ctx, &args.select).await?, ..List::default() };
    // Newest first.
    let mut found: Vec<Entry> = Vec::new();
    loop {
        let missing = u32::try_from(wanted - found.len()).unwrap_or(u32::MAX);
        request.limit = Some(missing.min(PAGE));
        let reply = ask(ctx, Request::List(request.clone())).await?;
        let Reply::Messages { messages, total, unread, more, dir } = reply else {
            return Err(unexpected(&reply));
        };
        request.before_ns = messages.first().map(|entry| entry.arrived_ns);
        let is_last = messages.is_empty() || more == 0;
        found.extend(messages.into_iter().rev());
        if !is_last && found.len() < wanted {
            continue;
        }
        let shown = found.len();
        if !args.full && !args.latest {
            return Ok(Output::of(Listed { messages: found, total, unread, shown, more, dir }));
        }
        let mut messages = Vec::new();
        for entry in found {
            let read = Request::Read { id: Some(entry.id), peek: false };
            messages.push(Message::from_reply(ask(ctx, read).await?)?);
        }
        return Ok(Output::of(Full { messages, total, unread, shown, more, dir }));
    }
}

async fn read(ctx: &Context, id: &str, raw: bool, peek: bool) -> Result<Output, Failure> {
    let id = Some(id).filter(|id| *id != "last").map(str::to_owned);
    let message = Message::from_reply(ask(ctx, Request::Read { id, peek }).await?)?;
    show(message, raw)
}

fn show(message: Message, raw: bool) -> Result<Output, Failure> {
    if !raw {
        return Ok(Output::of(message));
    }
    let body = message.stored.body().map_err(|error| Failure::internal(error.to_string()))?;
    output::raw(&body)?;
    Ok(Output::streamed())
}

impl From<Mail> for Message {
    fn from(mail: Mail) -> Self {
        Message::new(mail.id, mail.message)
    }
}

async fn wait(ctx: &Context, args: &WaitArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let filter = filter(ctx, &args.select).await?;
    ctx.note(crate::style::faint("waiting for a message"));
    match client.take_message(filter, args.timeout.unwrap_or(FOREVER)).await? {
        Some(mail) => show(mail.into(), args.raw),
        None => Err(nothing_came(args.timeout.unwrap_or_default())),
    }
}

/// `--wait`: the next message from now on, read or not.
async fn next(ctx: &Context, select: &Select, patience: Duration) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut filter = filter(ctx, select).await?;
    filter.since_ns = filter.since_ns.or_else(|| Some(nanos_before_now(Duration::ZERO)));
    match client.next_message(filter, patience).await? {
        Some(mail) => Ok(Output::of(Message::from(mail))),
        None => Err(nothing_came(patience)),
    }
}

fn nothing_came(patience: Duration) -> Failure {
    Failure::new(Code::Timeout, format!("no message came within {}", duration::show(patience)))
        .with_data(json!({ "timeout": true, "messages": [] }))
}

async fn follow(ctx: &Context, select: &Select, count: Option<u64>) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let mut inbox = client.inbox(filter(ctx, select).await?).await?;
    ctx.note(crate::style::faint("waiting for messages; Ctrl-C ends"));
    let mut seen = 0;
    while count.is_none_or(|count| seen < count) {
        output::item(ctx.format, &Message::from(inbox.next().await?))?;
        seen += 1;
    }
    Ok(Output::streamed())
}

async fn clear(ctx: &Context, before: Option<Duration>, read: bool) -> Result<Output, Failure> {
    cleared(ask(ctx, Request::Clear { before_ns: before.map(nanos_before_now), read }).await?)
}

async fn remove(ctx: &Context, ids: &[String]) -> Result<Output, Failure> {
    let reply = ask(ctx, Request::Remove { ids: ids.to_vec() }).await?;
    if reply == (Reply::Cleared { cleared: 0 }) {
        return Err(no_such(ids));
    }
    cleared(reply)
}

fn cleared(reply: Reply) -> Result<Output, Failure> {
    let Reply::Cleared { cleared } = reply else { return Err(unexpected(&reply)) };
    Ok(Output::of(Cleared { cleared }))
}

async fn mark(ctx: &Context, args: &MarkArgs) -> Result<Output, Failure> {
    let reply = ask(ctx, Request::Mark { ids: args.ids.clone(), read: !args.unread }).await?;
    let Reply::Marked { marked } = reply else { return Err(unexpected(&reply)) };
    Ok(Output::of(Marked { marked, unread: args.unread }))
}

fn no_such(ids: &[String]) -> Failure {
    let message = format!("no message has the id `{}`", ids.join("` or `"));
    Failure::new(Code::NotFound, message).hint("see `pilotctl inbox`")
}
