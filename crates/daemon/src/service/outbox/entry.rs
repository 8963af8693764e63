//! One message that is to be delivered, and what is written down of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use pilot_wire::dataexchange::{Extension, MessageId};
use pilot_wire::outbox::{Item, Kind, State};
use pilot_wire::{Addr, NodeId};
use serde::{Deserialize, Serialize};

use crate::datetime;

/// The place of a message among all that were ever handed over: messages of one peer are delivered in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Seq(pub(super) u64);

/// A point in time on both clocks: the one that only goes forward is for pauses, the other for what survives a restart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// For pauses.
    pub(super) instant: Instant,
    /// Milliseconds since 1970.
    pub(super) wall: u64,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { instant: Instant::now(), wall: millis_since_1970(SystemTime::now()) }
    }
}

fn millis_since_1970(time: SystemTime) -> u64 {
    millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Saturating.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Where the bytes of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Place {
    /// Beside the record in the database.
    Database,
    /// In a file of the outbox with this number.
    File(u64),
}

/// The mailbox that a message was left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Left {
    pub(super) mailbox: NodeId,
    /// When.
    pub(super) at: u64,
}

/// What is on disk about a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: MessageId,
    pub(super) to: Addr,
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reply_to: Option<MessageId>,
    #[serde(default)]
    pub(super) extension: Extension,
    pub(super) place: Place,
    /// Never [`State::Sent`]: what is not settled is queued again after a restart.
    pub(super) state: State,
    pub(super) created: u64,
    pub(super) state_at: u64,
    pub(super) expires: u64,
    /// Why it was refused, or was not delivered before its time ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ack: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tagged: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<Left>,
}

/// A message in memory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    /// Its bytes, while there is room for them in memory.
    pub(super) cached: Option<Bytes>,
    pub(super) attempts: u32,
    /// How often in a row the receiver hung up instead of answering this message.
    pub(super) hang_ups: u32,
    /// Taken back while it was under way: it is not sent again.
    pub(super) cancelled: bool,
    /// Written to the peer and not answered yet.
    pub(super) under_way: bool,
}

impl Entry {
    pub(super) fn new(record: Record, cached: Option<Bytes>) -> Self {
        Self { record, cached, attempts: 0, hang_ups: 0, cancelled: false, under_way: false }
    }

    /// How far it came, as applications see it. What goes out with a dial is not sent before somebody is reached.
    pub(super) fn state(&self, connected: bool) -> State {
        let is_sent = (self.under_way && connected) || self.record.left.is_some();
        if self.record.state == State::Queued && is_sent { State::Sent } else { self.record.state }
    }

    /// Whether there is anything left to be done for its delivery.
    pub(super) fn is_pending(&self) -> bool {
        !self.record.state.is_settled()
    }

    /// As applications see it. `reason` and `next_try` are those of its peer.
    pub(super) fn item(&self, connected: bool, reason: Option<&str>, next_try: Option<Duration>) -> Item {
        let record = &self.record;
        let pending = self.is_pending();
        Item {
            id: record.id.clone(),
            to: record.to,
            to_hostname: None,
            kind: record.kind,
            bytes: record.bytes,
            name: record.name.clone(),
            reply_to: record.reply_to.clone(),
            state: self.state(connected),
            created_at: rfc3339(record.created),
            state_at: rfc3339(record.state_at),
            expires_at: rfc3339(record.expires),
            attempts: self.attempts,
            next_try_ms: next_try.filter(|_| pending).map(millis),
            reason: record.reason.clone().or_else(|| reason.filter(|_| pending).map(str::to_owned)),
            via: record.left.map(|left| Addr::backbone(left.mailbox)),
            ack: record.ack.clone(),
            tagged: record.tagged,
        }
    }
}

/// Whether nothing can follow this state.
pub(super) fn is_final(state: State) -> bool {
    matches!(state, State::Answered | State::Expired | State::Refused | State::Cancelled)
}

fn rfc3339(wall: u64) -> String {
    datetime::rfc3339(UNIX_EPOCH + Duration::from_millis(wall))
}
