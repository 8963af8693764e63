//! Delivered messages: asked of the daemon, or read from its directory when it does not run or is the
//! reference's.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilot_wire::ipc::Call;
use pilot_wire::mailbox::{Entry, Reply, Request, StoredMessage};

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
    let Reply::Message { id, path, message } = reply else { return Err(unexpected(&reply)) };
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
        Request::List { from, since_ns, limit } => {
            let mut messages = messages(&inbox)?;
            messages.retain(|entry| {
                from.is_none_or(|node| entry.from.node == node) && younger(&entry.received_at, *since_ns)
            });
            let total = messages.len() as u64;
            Ok(Reply::Messages {
                messages: newest(messages, *limit),
                total,
                dir: inbox.display().to_string(),
            })
        }
        Request::Read { id } => {
            let id = match id {
                Some(id) => id.clone(),
                None => {
                    messages(&inbox)?
                        .pop()
                        .ok_or_else(|| Failure::new(Code::NotFound, "the inbox is empty"))?
                        .id
                }
            };
            let path = inbox.join(format!("{id}.json"));
            if id.contains('/') || !path.exists() {
                return Err(Failure::new(Code::NotFound, format!("no message has the id `{id}`")));
            }
            Ok(Reply::Message {
                id,
                message: Some(Box::new(stored(&path)?)),
                path: path.display().to_string(),
            })
        }
        Request::Clear { before_ns } => clear(&inbox, *before_ns),
        Request::Wait { .. } => Err(Failure::not_running(&ctx.settings.socket())),
    }
}

fn newest<T>(mut items: Vec<T>, limit: Option<u32>) -> Vec<T> {
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(items.len());
    items.split_off(items.len().saturating_sub(limit))
}

fn younger(received_at: &str, since_ns: Option<u64>) -> bool {
    since_ns.is_none_or(|since| humane::from_rfc3339(received_at).unwrap_or(0) >= since / 1_000_000_000)
}

fn stored(path: &Path) -> Result<StoredMessage, Failure> {
    let bytes = std::fs::read(path).map_err(|e| Failure::io(format!("reading {}", path.display()), &e))?;
    serde_json::from_slice(&bytes)
        .map_err(|e| Failure::internal(format!("{} is damaged: {e}", path.display())))
}

/// Plain files of a directory; a directory that does not exist is empty.
fn entries(directory: &Path) -> Result<Vec<std::fs::DirEntry>, Failure> {
    let doing = || format!("reading {}", directory.display());
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Failure::io(doing(), &e)),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|e| Failure::io(doing(), &e))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            found.push(entry);
        }
    }
    Ok(found)
}

fn messages(inbox: &Path) -> Result<Vec<Entry>, Failure> {
    let mut found = Vec::new();
    for file in entries(inbox)? {
        let path = file.path();
        // A file of another program, or half of one, is no message.
        let Ok(message) = stored(&path) else { continue };
        found.push(Entry {
            id: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            bytes: message.bytes,
            from: message.from,
            from_hostname: message.from_hostname,
            message_id: message.message_id,
            preview: message.data.map(|text| humane::preview(&text, PREVIEW)),
            received_at: message.received_at,
            reply_to: message.reply_to,
            kind: message.kind,
        });
    }
    found.sort_by(|a, b| a.received_at.cmp(&b.received_at));
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
