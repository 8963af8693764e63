//! What requests need of the inbox: to read one, to find one by what a person writes, to wait for an answer.

use std::time::SystemTime;

use pilot_wire::dataexchange::{Extension, MessageId};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::mailbox::{Entry, Filter, List, Reply, Request, StoredMessage, Wait};
use pilot_wire::serving::Letter;
use pilot_wire::{Addr, NodeId};
use tokio::time::Instant;

use crate::service::store::Store;

/// A message that lies in the inbox, as far as it matters here.
#[derive(Debug, Clone)]
pub(in crate::service) struct Arrival {
    /// Its id in the inbox.
    pub(in crate::service) inbox: String,
    pub(in crate::service) from: Addr,
    pub(in crate::service) message: Option<MessageId>,
    /// Whether it answers something.
    pub(in crate::service) is_answer: bool,
    pub(in crate::service) extension: Extension,
    pub(in crate::service) received: SystemTime,
}

impl Arrival {
    /// What the inbox knows of a message.
    pub(in crate::service) fn of(entry: &Entry, pilot: Option<&Extension>) -> Self {
        Self {
            inbox: entry.id.clone(),
            from: entry.from,
            message: entry.message_id.clone(),
            is_answer: entry.reply_to.is_some(),
            extension: pilot.cloned().unwrap_or_default(),
            received: crate::datetime::parse_rfc3339(&entry.received_at).unwrap_or_else(SystemTime::now),
        }
    }

    /// What a stored message says.
    pub(super) fn read(inbox: String, message: &StoredMessage) -> Self {
        Self {
            inbox,
            from: message.from,
            message: message.message_id.clone(),
            is_answer: message.reply_to.is_some(),
            extension: message.pilot.as_deref().cloned().unwrap_or_default(),
            received: crate::datetime::parse_rfc3339(&message.received_at).unwrap_or_else(SystemTime::now),
        }
    }
}

fn letter(reply: Reply) -> Result<Option<Letter>, Failure> {
    match reply {
        Reply::Message { id, path, arrived_ns, message } => {
            Ok(Some(Letter { id, path, arrived_ns, message }))
        }
        Reply::TimedOut => Ok(None),
        Reply::Failed { code, message } => {
            let code = serde_json::from_value(code.into()).unwrap_or(Code::Other);
            if code == Code::NotFound { Ok(None) } else { Err(Failure::new(code, message)) }
        }
        other @ (Reply::Messages { .. } | Reply::Marked { .. } | Reply::Cleared { .. }) => {
            Err(Failure::new(Code::Internal, format!("unexpected answer about the inbox: {other:?}")))
        }
    }
}

/// Reads a message, and marks it as read; none when it is not there any more.
pub(super) async fn read(store: &Store, id: Option<String>) -> Result<Option<Letter>, Failure> {
    letter(store.mailbox(Request::Read { id, peek: false }).await)
}

/// The message of a letter, from its file when it was too long to be in the letter.
pub(super) async fn message(letter: &Letter) -> Result<StoredMessage, Failure> {
    let damaged = |error: String| {
        Failure::new(Code::Internal, format!("the message `{}` cannot be read: {error}", letter.id))
    };
    match &letter.message {
        Some(message) => Ok((**message).clone()),
        None => {
            let content = tokio::fs::read(&letter.path).await.map_err(|error| damaged(error.to_string()))?;
            serde_json::from_slice(&content).map_err(|error| damaged(error.to_string()))
        }
    }
}

/// Finds a message by its id here, by its sender's id, by the beginning of either, or as the `last` one.
pub(super) async fn find(store: &Store, text: &str) -> Result<Letter, Failure> {
    let missing = || {
        Failure::new(Code::NotFound, format!("no message `{text}` in the inbox"))
            .with_hint("see `pilotctl inbox`")
    };
    if text == "last" {
        return read(store, None).await?.ok_or_else(missing);
    }
    if let Some(letter) = read(store, Some(text.to_owned())).await? {
        return Ok(letter);
    }
    let listed = store.mailbox(Request::List(List::default())).await;
    let Reply::Messages { messages, .. } = listed else { return Err(missing()) };
    let begins = |id: &str| id.starts_with(text);
    let mut fitting = messages
        .iter()
        .filter(|entry| begins(&entry.id) || entry.message_id.as_ref().is_some_and(|id| begins(id.as_str())));
    let Some(first) = fitting.next() else { return Err(missing()) };
    if fitting.next().is_some() {
        return Err(Failure::new(
            Code::InvalidArgument,
            format!("several messages have an id that begins with `{text}`"),
        )
        .with_hint("give more of the id; see `pilotctl inbox`"));
    }
    read(store, Some(first.id.clone())).await?.ok_or_else(missing)
}

/// Waits for the answer to one of our messages; for ever when it does not come before `deadline`.
pub(super) async fn answer(
    store: &Store,
    from: NodeId,
    id: MessageId,
    since_ns: u64,
    loose: bool,
    deadline: Instant,
) -> Result<Letter, Failure> {
    let reply = match loose {
        false => store.wait_answer(from, id, deadline).await,
        true => {
            let left = deadline.saturating_duration_since(Instant::now());
            let filter = Filter { from: Some(from), since_ns: Some(since_ns), ..Filter::default() };
            let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let wait = Wait { filter, reply_to: Some(id), peek: false, timeout_ms };
            store.mailbox(Request::Wait(wait)).await
        }
    };
    match letter(reply)? {
        Some(letter) => Ok(letter),
        None => std::future::pending().await,
    }
}
