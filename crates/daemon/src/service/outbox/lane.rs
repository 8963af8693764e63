//! What goes to one peer, one after the other.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_wire::dataexchange::{Control, Delivery, Extension, MessageId, Receipt};
use pilot_wire::outbox::Kind;
use pilot_wire::{Addr, NodeId};

use super::entry::{Place, Seq};

/// Messages and files go separately, so that a large file holds up no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Track {
    /// Messages, and words between nodes.
    Messages,
    /// Files.
    Files,
}

impl Track {
    pub(super) fn of(kind: Kind) -> Self {
        match kind {
            Kind::Text | Kind::Json | Kind::Binary => Self::Messages,
            Kind::File => Self::Files,
        }
    }
}

/// One track to one peer.
pub(super) type LaneKey = (NodeId, Track);

/// First pause after a failed try.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause between tries; a sign of life of the peer ends any pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is written to a peer before an answer is awaited, from a peer that stores in order.
pub(super) const WINDOW_FRAMES: usize = 64;

/// Bytes of these; one message may be longer.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;

/// Words that wait for one peer; more are dropped.
pub(super) const WORDS_MAX: usize = 256;

/// Bytes of the bodies of these.
pub(super) const WORD_BYTES_MAX: usize = 1 << 20;

/// Receipts that wait for one peer; more are dropped, and their messages stay `stored` at the peer.
pub(super) const RECEIPTS_MAX: usize = 4096;

/// Receipts in one frame.
pub(super) const RECEIPTS_AT_ONCE: usize = 256;

/// For how long a word is of use.
pub(super) const WORD_LIFE: Duration = Duration::from_secs(3600);

/// Live pieces that wait for one peer; whoever has more waits.
pub(super) const LIVE_MAX: usize = 64;

/// Whether somebody carries the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Nobody; not before this time.
    Idle(Option<Instant>),
    /// A carrier that has no connection yet. `again`: the peer was heard of meanwhile.
    Dialing {
        /// Try again at once when this try fails.
        again: bool,
    },
    /// A carrier with a connection.
    Connected,
}

/// A word that waits.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) control: Control,
    pub(super) body: Bytes,
    pub(super) until: Instant,
}

/// Something written to the peer that it has not answered.
#[derive(Debug)]
pub(super) enum Flight {
    Message {
        seq: Seq,
        tagged: bool,
        bytes: u64,
    },
    /// The question what the peer is.
    Probe,
    Word(Word),
    Live,
}

/// Something to be written to the peer.
#[derive(Debug)]
pub(super) enum Job {
    Message(Box<Letter>),
    File(Box<Letter>),
    Word { control: Control, body: Bytes },
    Live(Box<Delivery>),
}

/// A message to be written, or to be left with a mailbox.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) seq: Seq,
    pub(super) id: MessageId,
    pub(super) kind: Kind,
    pub(super) bytes: u64,
    pub(super) name: Option<String>,
    pub(super) reply_to: Option<MessageId>,
    pub(super) extension: Extension,
    pub(super) tagged: bool,
    pub(super) place: Place,
    pub(super) cached: Option<Bytes>,
}

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// Where it leads: the address that was used last.
    pub(super) to: Addr,
    pub(super) run: Run,
    /// Messages that are not settled.
    pub(super) queue: BTreeSet<Seq>,
    pub(super) flights: VecDeque<Flight>,
    /// The last message written on this connection.
    pub(super) written: Option<Seq>,
    pub(super) words: VecDeque<Word>,
    pub(super) receipts: VecDeque<Receipt>,
    pub(super) live: VecDeque<Delivery>,
    /// Tries in a row that brought nothing forward.
    pub(super) failures: u32,
    /// Why the last try failed.
    pub(super) reason: Option<String>,
    /// The peer cannot take more now: the carrier is to leave.
    pub(super) stopping: bool,
    /// The receiver has answered something on this connection.
    pub(super) proven: bool,
    /// The message under way is one that the receiver hung up on before: it goes alone.
    pub(super) suspect_under_way: bool,
    /// The peer could not be reached at the last try: its mailboxes may have its messages.
    pub(super) away: bool,
    pub(super) leaving: Leaving,
}

/// How it stands with the messages of a lane and the mailboxes of its peer.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    /// The mailbox that has messages, and the last one that it has: it has all before that, too, so that it brings them
    /// in their order.
    pub(super) last: Option<(NodeId, Seq)>,
    /// Somebody is on the way to a mailbox.
    pub(super) busy: bool,
    /// Not again before this time.
    pub(super) not_before: Option<Instant>,
    /// Times in a row that no mailbox took anything.
    pub(super) failures: u32,
    /// Those that did not.
    pub(super) tried: Vec<NodeId>,
}

impl Lane {
    pub(super) fn new(to: Addr) -> Self {
        Self {
            to,
            run: Run::Idle(None),
            queue: BTreeSet::new(),
            flights: VecDeque::new(),
            written: None,
            words: VecDeque::new(),
            receipts: VecDeque::new(),
            live: VecDeque::new(),
            failures: 0,
            reason: None,
            stopping: false,
            proven: false,
            suspect_under_way: false,
            away: false,
            leaving: Leaving::default(),
        }
    }

    /// Whether anything waits to be sent to the peer, messages up to `durable` among it.
    pub(super) fn has_work(&self, durable: Seq) -> bool {
        self.queue.first().is_some_and(|first| *first <= durable)
            || !self.words.is_empty()
            || !self.receipts.is_empty()
            || !self.live.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
            && self.words.is_empty()
            && self.receipts.is_empty()
            && self.live.is_empty()
            && matches!(self.run, Run::Idle(_))
            && !self.leaving.busy
    }

    pub(super) fn is_running(&self) -> bool {
        !matches!(self.run, Run::Idle(_))
    }

    /// The next message that was not written yet.
    pub(super) fn next_message(&self, durable: Seq) -> Option<Seq> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.written.map_or(Unbounded, Excluded);
        self.queue.range((after, Unbounded)).next().copied().filter(|seq| *seq <= durable)
    }

    pub(super) fn bytes_under_way(&self) -> u64 {
        self.flights
            .iter()
            .map(|flight| match flight {
                Flight::Message { bytes, .. } => *bytes,
                Flight::Probe | Flight::Word(_) | Flight::Live => 0,
            })
            .sum()
    }

    /// The pause after the last failure, longer with each; `random` spreads those of many peers.
    pub(super) fn pause(&self, random: u32) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let pause = PAUSE_MIN.saturating_mul(1 << doublings).min(PAUSE_MAX);
        // Three to five quarters of it.
        pause.mul_f64(0.75 + 0.5 * f64::from(random) / f64::from(u32::MAX)).min(PAUSE_MAX)
    }
}
