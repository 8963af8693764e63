//! Requests: a message that is answered, with pieces and progress before the answer; and programs that answer.
//!
//! A request is a message in the inbox of the node that is asked, and its answer one in ours: both survive restarts of
//! either daemon. A lost connection to the local daemon is mended, and nothing is sent or done twice by that.

mod asking;
mod parts;
mod working;

use std::path::PathBuf;

use bytes::Bytes;
use pilot_wire::ipc::Code;
use pilot_wire::outbox::{Body, INLINE_MAX, Kind};
use pilot_wire::serving::{Reply, encode};

pub use asking::{Event, PendingRequest, RequestOptions, Response};
pub use working::{Incoming, Reaction, ServeOptions, Server};

use crate::message::random;
use crate::{Error, MessageKind};

/// How many programs in a row have answered by themselves for a message that this program sends: one more than for the
/// message that it was started for (`PILOT_HOPS`), none if it was started for none.
#[must_use]
pub fn hops() -> u8 {
    let of_cause = std::env::var("PILOT_HOPS").ok().and_then(|text| text.parse::<u8>().ok());
    of_cause.map_or(0, |hops| hops.saturating_add(1))
}

/// Bytes as the daemon takes them: in the request, or in a file for the time of the request.
struct Carried {
    body: Body,
    file: Option<PathBuf>,
}

impl Carried {
    async fn of(data: &Bytes) -> Result<Self, Error> {
        if data.len() <= INLINE_MAX {
            return Ok(Self { body: Body::Inline(encode(data)), file: None });
        }
        let name: String = random::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = std::env::temp_dir().join(format!("pilot-{name}"));
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        options.mode(0o600);
        let carried =
            Self { body: Body::Path(path.to_string_lossy().into_owned()), file: Some(path.clone()) };
        let mut file = options.open(&path).await?;
        tokio::io::AsyncWriteExt::write_all(&mut file, data).await?;
        tokio::io::AsyncWriteExt::flush(&mut file).await?;
        Ok(carried)
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            // If it cannot be removed, the system removes it some day: it lies among the temporary files.
            let _ = std::fs::remove_file(path);
        }
    }
}

const fn wire_kind(kind: MessageKind) -> Kind {
    match kind {
        MessageKind::Text => Kind::Text,
        MessageKind::Json => Kind::Json,
        MessageKind::Binary => Kind::Binary,
    }
}

/// The daemon is gone, or has not started its services yet: a moment later it may answer.
fn is_restarting(error: &Error) -> bool {
    matches!(error, Error::Disconnected | Error::Connect(_)) || error.code() == Code::Busy
}

fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!("unexpected answer about a request: {reply:?}"))
}
