//! The inbox: `inbox_read`, `inbox_wait`.

use std::time::Duration;

use pilot_client::ipc::Code;
use pilot_client::mailbox::{self, Filter, List, Request};
use pilot_client::{Client, Mail};
use rmcp::schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::{Desk, Report};
use crate::daemon::resolve;
use crate::fault::Fault;
use crate::inbox::{self, Message, Messages};
use crate::pace::Pace;
use crate::words::{mark, notice};

/// Messages of a page, unless told otherwise, and at most.
const PAGE: (u32, u32) = (10, 50);

/// Bytes of one message that are given at once, unless told otherwise, and at most.
const BYTES: (usize, usize) = (64 << 10, 1 << 20);

/// Seconds to wait, unless told otherwise, and at most.
const WAIT: (u64, u64) = (60, 3600);

/// Pause before a daemon that is restarted is asked again.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Read {
    /// One message, by the `id` of a list; it counts as read then.
    id: Option<String>,
    /// With `id`: begin at this byte.
    offset: Option<u64>,
    /// With `id`: at most so many bytes; 65536 when left out.
    #[schemars(range(min = 16, max = 1_048_576))]
    max_bytes: Option<usize>,
    /// Without `id`: only messages of this node.
    from: Option<String>,
    /// Without `id`: only messages that no program has read.
    unread: Option<bool>,
    /// Without `id`: only messages with this text in them.
    text: Option<String>,
    /// Without `id`: so many; 10 when left out.
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u32>,
    /// Without `id`: the page before, as `before` of the last answer says.
    before: Option<String>,
}

impl Report for Messages {
    fn text(&self) -> String {
        Messages::text(self)
    }
}

pub(crate) async fn read(desk: &Desk, args: Read) -> Result<Messages, Fault> {
    let client = desk.daemon.client().await?;
    if let Some(id) = &args.id {
        let limit = args.max_bytes.unwrap_or(BYTES.0).clamp(16, BYTES.1);
        let mail = inbox::read(&client, id, false).await?;
        let message = Message::of(&mail, args.offset.unwrap_or(0), limit)?;
        return Ok(Messages {
            messages: vec![message],
            unread: unread(&client).await?,
            more: 0,
            before: None,
        });
    }
    let from = match &args.from {
        Some(from) => Some(resolve(&client, from).await?.node_id),
        None => None,
    };
    let before_ns = args.before.map(|before| before.parse()).transpose();
    let before_ns = before_ns.map_err(|_| Fault::usage("`before` is not what an answer gave"))?;
    let filter = Filter { from, unread: args.unread.unwrap_or(false), text: args.text, ..Filter::default() };
    let limit = args.limit.unwrap_or(PAGE.0).clamp(1, PAGE.1);
    inbox::list(&client, List { filter, before_ns, limit: Some(limit) }).await
}

async fn unread(client: &Client) -> Result<u64, Fault> {
    inbox::list(client, List { limit: Some(0), ..List::default() }).await.map(|list| list.unread)
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
#[serde(deny_unknown_fields)]
pub(crate) struct Wait {
    /// Only messages of this node.
    from: Option<String>,
    /// Wait so many seconds; 60 when left out.
    #[schemars(range(max = 3600))]
    timeout_secs: Option<u64>,
}

/// What came.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Waited {
    /// The message; absent when none came in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    /// Nothing came in time.
    timed_out: bool,
}

impl Report for Waited {
    fn text(&self) -> String {
        match &self.message {
            None => "no message came in time".to_owned(),
            Some(message) => {
                let mark = mark();
                format!("{}\n\n{}", notice(&mark), message.framed(&mark))
            }
        }
    }
}

pub(crate) async fn wait(desk: &Desk, pace: &Pace, args: Wait) -> Result<Waited, Fault> {
    let deadline = Instant::now() + Duration::from_secs(args.timeout_secs.unwrap_or(WAIT.0).min(WAIT.1));
    let client = desk.daemon.client().await?;
    let from = match &args.from {
        Some(from) => Some(resolve(&client, from).await?.node_id),
        None => None,
    };
    let filter = Filter { from, unread: true, ..Filter::default() };
    let mail = tokio::select! {
        biased;
        mail = take(desk, client, filter, deadline) => mail?,
        () = pace.stopped() => return Err(Fault::cancelled()),
        never = pace.remind("waiting for a message") => match never {},
    };
    let message = mail.map(|mail| Message::of(&mail, 0, BYTES.0)).transpose()?;
    Ok(Waited { timed_out: message.is_none(), message })
}

/// The first unread message. It is marked only when it is here, so that one who is stopped while it waits takes nothing
/// away; what is stored outlives a restart of the daemon, and so does the wait.
async fn take(
    desk: &Desk,
    mut client: Client,
    filter: Filter,
    deadline: Instant,
) -> Result<Option<Mail>, Fault> {
    loop {
        match try_take(&client, &filter, deadline).await {
            Ok(taken) => return Ok(taken),
            Err(fault) if fault.is_not_running() && Instant::now() < deadline => {
                sleep(AGAIN).await;
                if let Ok(again) = desk.daemon.client().await {
                    client = again;
                }
            }
            Err(fault) => return Err(fault),
        }
    }
}

async fn try_take(client: &Client, filter: &Filter, deadline: Instant) -> Result<Option<Mail>, Fault> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let wait =
            mailbox::Wait { filter: filter.clone(), peek: true, timeout_ms, ..mailbox::Wait::default() };
        let reply = client.mailbox(Request::Wait(wait)).await?;
        let Some(mail) = inbox::mail(reply).await? else { return Ok(None) };
        match client.mark_messages(vec![mail.id.clone()], true).await {
            Ok(1..) => return Ok(Some(mail)),
            // Another program was faster: on to the next.
            Ok(0) => {}
            Err(error) if error.code() == Code::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
}
