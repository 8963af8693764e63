//! Delivered messages: asked of the daemon, or read from its directory when it does not run or is the
//! reference's.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilot_wire::ipc::Call;
use pilot_wire::mailbox::{Entry, Filter, Reply, Request, StoredMessage};

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::humane;

/// Characters of a message shown in a list.
const PREVIEW: usize = 200;

/// Carries out a request about the mailbox.
pub(crate) async fn ask(ctx: &Context, request: Request) -> Result<Reply, Failure> {
    let reply = match ctx.client_if_running().await? {
        None => locally(ctx, &request)?,
        Some(client) => {
            match client.call::<Reply>(Call::Mailbox(request.clone())).await.map_err(Failure::from) {
                Ok(reply) => reply,
                Err(failure) if failure.code == Code::Unsupported => locally(ctx, &request)?,
                Err(failure) => return Err(failure),
            }
        }
    };
    if let Reply::Failed { code, message } = reply {
        return Err(Failure::new(Code::from_name(&code), message));
    }
    Ok(reply)
}

/// One message with its content, from the file if it is too long for the socket.
pub(crate) fn content(reply: Reply) -> Result<(String, StoredMessage), Failure> {
    let Reply::Message { id, path, message, .. } = reply else { return Err(unexpected(&reply)) };
    match message {
        Some(message) => Ok((id, *message)),
        None => Ok((id, stored(Path::new(&path))?)),
    }
}

/// The daemon answered something that does not belong to the question.
pub(crate) fn unexpected(reply: &Reply) -> Failure {
    Failure::internal(format!("the daemon gave an unexpected answer: {reply:?}"))
}

/// Now, less `ago`, as the requests want it.
pub(crate) fn nanos_before_now(ago: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.saturating_sub(ago).as_nanos()).unwrap_or(u64::MAX)
}

fn locally(ctx: &Context, request: &Request) -> Result<Reply, Failure> {
    let inbox = ctx.settings.home().join("inbox");
    match request {
        // Which were read is in the daemon's own file.
        Request::List(list) if list.filter.unread => Err(Failure::not_running(&ctx.settings.socket())),
        Request::List(list) => {
            let mut messages = messages(&inbox, &list.filter)?;
            let total = messages.len() as u64;
            messages.retain(|entry| list.before_ns.is_none_or(|before| entry.arrived_ns < before));
            let fitting = messages.len();
            let messages = newest(messages, list.limit);
            let more = (fitting - messages.len()) as u64;
            Ok(Reply::Messages { messages, total, unread: 0, more, dir: inbox.display().to_string() })
        }
        Request::Read { id, .. } => {
            let id = match id {
                Some(id) => id.clone(),
                None => {
                    messages(&inbox, &Filter::default())?
                        .pop()
                        .ok_or_else(|| Failure::new(Code::NotFound, "the inbox is empty"))?
                        .id
                }
            };
            let path = file_of(&inbox, &id)?;
            Ok(Reply::Message {
                id,
                arrived_ns: 0,
                message: Some(Box::new(stored(&path)?)),
                path: path.display().to_string(),
            })
        }
        Request::Remove { ids } => {
            let mut cleared = 0;
            for id in ids {
                let path = file_of(&inbox, id)?;
                std::fs::remove_file(&path)
                    .map_err(|e| Failure::io(format!("removing {}", path.display()), &e))?;
                cleared += 1;
            }
            Ok(Reply::Cleared { cleared })
        }
        Request::Clear { before_ns, read: false } => clear(&inbox, *before_ns),
        Request::Wait(_) | Request::Mark { .. } | Request::Clear { read: true, .. } => {
            Err(Failure::not_running(&ctx.settings.socket()))
        }
    }
}

fn newest<T>(mut items: Vec<T>, limit: Option<u32>) -> Vec<T> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(items.len());
    items.split_off(items.len().saturating_sub(limit))
}

/// The file of a message; an id cannot lead elsewhere.
fn file_of(inbox: &Path, id: &str) -> Result<std::path::PathBuf, Failure> {
    let path = inbox.join(format!("{id}.json"));
    if id.contains('/') || !path.exists() {
        return Err(Failure::new(Code::NotFound, format!("no message has the id `{id}`")));
    }
    Ok(path)
}

fn fits(message: &StoredMessage, filter: &Filter) -> bool {
    let seconds = humane::from_rfc3339(&message.received_at).unwrap_or(0);
    let has = |text: &String| {
        message.body().is_ok_and(|body| String::from_utf8_lossy(&body).contains(text.as_str()))
    };
    filter.from.is_none_or(|node| message.from.node == node)
        && filter.since_ns.is_none_or(|since| seconds >= since / 1_000_000_000)
        && filter.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(&message.kind))
        && filter.text.as_ref().is_none_or(has)
}

fn stored(path: &Path) -> Result<StoredMessage, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::io(format!("reading {}", path.display()), &e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::internal(format!("{} is damaged: {e}", path.display())))
}

/// Plain files of a directory; a directory that does not exist is empty.
fn entries(directory: &Path) -> Result<Vec<std::fs::DirEntry>, Failure> {
    let mut found = visible(directory)?;
    found.retain(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    Ok(found)
}

/// What is not hidden in a directory; one that does not exist is empty.
pub(crate) fn visible(directory: &Path) -> Result<Vec<std::fs::DirEntry>, Failure> {
    let failed = |e: &std::io::Error| Failure::io(format!("reading {}", directory.display()), e);
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(&e)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|e| failed(&e))?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            found.push(entry);
        }
    }
    Ok(found)
}

fn messages(inbox: &Path, filter: &Filter) -> Result<Vec<Entry>, Failure> {
    let mut found = Vec::new();
    for file in entries(inbox)? {
        let path = file.path();
        // A file of another program, or half of one, is no message.
        let Ok(message) = stored(&path) else { continue };
        if !fits(&message, filter) {
            continue;
        }
        found.push(Entry {
            id: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: message.bytes,
            from: message.from,
            from_hostname: message.from_hostname,
            message_id: message.message_id,
            preview: message.data.map(|text| humane::preview(&text, PREVIEW)),
            read_at: None,
            received_at: message.received_at,
            arrived_ns: 0,
            reply_to: message.reply_to,
            kind: message.kind,
        });
    }
    found.sort_by(|a, b| (&a.received_at, &a.id).cmp(&(&b.received_at, &b.id)));
    // Places for pages; they need only be in order.
    for (place, entry) in found.iter_mut().enumerate() {
        entry.arrived_ns = place as u64 + 1;
    }
    Ok(found)
}

fn clear(directory: &Path, before_ns: Option<u64>) -> Result<Reply, Failure> {
    let before = before_ns.map(|ns| UNIX_EPOCH + Duration::from_nanos(ns));
    let mut cleared = 0;
    for file in entries(directory)? {
        let modified = file.metadata().and_then(|m| m.modified()).unwrap_or(UNIX_EPOCH);
        if before.is_none_or(|before| modified < before) {
            std::fs::remove_file(file.path())
                .map_err(|e| Failure::io(format!("removing {}", file.path().display()), &e))?;
            cleared += 1;
        }
    }
    Ok(Reply::Cleared { cleared })
}
