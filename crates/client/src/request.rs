//! Requests: a message that is answered, with pieces and progress before the answer; and programs that answer.
//!
//! A request is a message in the inbox of the node that is asked, and its answer one in ours: both survive restarts of
//! either daemon. A lost connection to the local daemon is mended, and nothing is sent or done twice by that.

mod asking;
mod parts;
mod working;

use pilot_wire::ipc::Code;
use pilot_wire::outbox::Kind;
use pilot_wire::serving::Reply;

pub use asking::{Event, PendingRequest, RequestOptions, Response};
pub use working::{Incoming, Reaction, ServeOptions, Server};

use crate::{Error, MessageKind};

/// How many programs in a row have answered by themselves for a message that this program sends: one more than for the
/// message that it was started for (`PILOT_HOPS`), none if it was started for none.
#[must_use]
pub fn hops() -> u8 {
    let of_cause = std::env::var("PILOT_HOPS").ok().and_then(|text| text.parse::<u8>().ok());
    of_cause.map_or(0, |hops| hops.saturating_add(1))
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
