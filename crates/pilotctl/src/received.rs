//! Received files: asked of the daemon, or read from its directory when it does not run or is the reference's.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilot_wire::received::{ReceivedFile, Reply, Request};
use serde_json::Value;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::humane;
use crate::mailbox::visible;

/// Carries out a request about received files.
pub(crate) async fn ask(ctx: &Context, request: Request) -> Result<Reply, Failure> {
    let Some(client) = ctx.client_if_running().await? else { return locally(ctx, &request) };
    match client.received_files(request.clone()).await.map_err(Failure::from) {
        Err(failure) if failure.code == Code::Unsupported => locally(ctx, &request),
        answered => answered,
    }
}

/// The daemon answered something that does not belong to the question.
pub(crate) fn unexpected(reply: &Reply) -> Failure {
    Failure::internal(format!("the daemon gave an unexpected answer: {reply:?}"))
}

fn locally(ctx: &Context, request: &Request) -> Result<Reply, Failure> {
    let directory = ctx.settings.home().join("received");
    match request {
        Request::List { from, since_ns, limit } => {
            let mut files = files(&directory)?;
            files.retain(|file| {
                from.is_none_or(|node| file.from.is_some_and(|from| from.node == node))
                    && since_ns.is_none_or(|since| file.received_ns > since)
            });
            let total = files.len() as u64;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(files.len());
            let files = files.split_off(files.len().saturating_sub(limit));
            Ok(Reply::Files { files, total, dir: directory.display().to_string() })
        }
        Request::Clear { from, before_ns } => {
            let mut cleared = 0;
            for file in files(&directory)? {
                let is_of = from.is_none_or(|node| file.from.is_some_and(|from| from.node == node));
                if is_of && before_ns.is_none_or(|before| file.received_ns < before) {
                    remove(Path::new(&file.path))?;
                    cleared += 1;
                }
            }
            Ok(Reply::Cleared { cleared })
        }
        Request::Remove { name } => {
            let found = files(&directory)?.into_iter().find(|file| file.name == *name);
            let found = found.ok_or_else(|| {
                Failure::new(Code::NotFound, format!("no received file is called `{name}`"))
                    .hint("see: pilotctl received")
            })?;
            remove(Path::new(&found.path))?;
            Ok(Reply::Cleared { cleared: 1 })
        }
        Request::Wait { .. } => Err(Failure::not_running(&ctx.settings.socket())),
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    removed.map_err(|e| Failure::io(format!("removing {}", path.display()), &e))
}

/// Oldest first; a directory that does not exist is empty.
fn files(directory: &Path) -> Result<Vec<ReceivedFile>, Failure> {
    let mut found = Vec::new();
    for entry in visible(directory)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(metadata) = entry.metadata() else { continue };
        let record = directory.join(".meta").join(format!("{name}.json"));
        found.push(described(name, entry.path(), &metadata, &record));
    }
    found.sort_by_key(|file| file.received_ns);
    Ok(found)
}

/// With what the daemon has written down about it, if anything.
fn described(name: String, path: PathBuf, metadata: &std::fs::Metadata, record: &Path) -> ReceivedFile {
    let known: Value =
        std::fs::read(record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let text = |key: &str| known[key].as_str().map(str::to_owned);
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX);
    let received_ns = known["received_ns"].as_u64().unwrap_or(modified);
    let at: SystemTime = UNIX_EPOCH + Duration::from_nanos(received_ns);
    ReceivedFile {
        name,
        bytes: if metadata.is_dir() { known["bytes"].as_u64().unwrap_or(0) } else { metadata.len() },
        modified: humane::rfc3339(at),
        path: path.display().to_string(),
        from: known["from"].as_str().and_then(|from| from.parse().ok()),
        from_hostname: text("from_hostname"),
        from_key: text("from_key"),
        sha256: known["sha256"].as_str().and_then(|hash| hash.parse().ok()),
        announced: text("announced"),
        files: known["files"].as_u64().or(metadata.is_dir().then_some(0)),
        received_ns,
    }
}
