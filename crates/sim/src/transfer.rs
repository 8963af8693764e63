//! Applications that talk to each other over one stream, and the model of what they may observe: every byte once and
//! in order and then the end, or an error that says why not.

use std::{
    collections::BTreeSet,
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pilot_proto::{Closed, Node, Read, StreamEvent};
use pilot_wire::{Port, StreamId};

use crate::{Content, Host};

/// One conversation.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Who opens the stream.
    pub dialer: Host,
    /// Who waits for it.
    pub listener: Host,
    /// The port it waits on, used by no other transfer of the listener.
    pub port: Port,
    /// When the stream is opened, since the world began.
    pub starts: Duration,
    /// What the dialer does.
    pub dialing: Script,
    /// What the listener does.
    pub listening: Script,
}

/// What one side of a conversation does.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// How many bytes it writes.
    pub sends: u64,
    /// Which bytes.
    pub content: Content,
    /// The most it writes at once.
    pub write_size: usize,
    /// How it writes.
    pub writes: Pace,
    /// How it reads.
    pub pace: Pace,
    /// When it says that it has written everything.
    pub finishes: Finishes,
}

impl Script {
    /// Writes `sends` bytes as fast as it can, reads as fast as it can, and finishes at once.
    pub const fn eager(sends: u64, content: Content) -> Self {
        Self {
            sends,
            content,
            write_size: 16 << 10,
            writes: Pace::Eager,
            pace: Pace::Eager,
            finishes: Finishes::WhenWritten,
        }
    }
}

/// How an application reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All it can, at once.
    Eager,
    /// Some bytes at a time.
    Slow {
        /// At most so many.
        bytes: usize,
        /// And again after this long.
        every: Duration,
    },
    /// Never.
    Never,
}

/// When one side ends its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finishes {
    /// As soon as everything is written.
    WhenWritten,
    /// Not before the other side has finished.
    AfterPeer,
}

/// One of the two applications of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Who opened the stream.
    Dialer,
    /// Who was called.
    Listener,
}

impl Role {
    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Listener,
            Self::Listener => Self::Dialer,
        }
    }
}

/// Something that an application must never see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A byte that the peer did not write there: lost, repeated, reordered or changed.
    WrongByte {
        /// Its position in the stream.
        at: u64,
    },
    /// The end came at another place than the peer's.
    WrongEnd {
        /// Where it came.
        at: u64,
        /// How much the peer wrote.
        of: u64,
    },
    /// More bytes came than the peer wrote.
    TooMuch {
        /// How many came.
        got: u64,
        /// How many the peer wrote.
        of: u64,
    },
    /// A dial that was repeated by an attacker, or by the network very late, brought bytes a second time. That it arrives
    /// as a stream which then ends with an error is all it may do.
    Repeated,
    /// An event for a stream that is over, or before it began.
    StrayEvent(String),
    /// A call failed that must not.
    CallFailed(String),
}

/// One side of a transfer as it goes.
#[derive(Debug)]
pub(crate) struct Side {
    script: Script,
    expects: u64,
    expected: Content,
    /// Whether both sides can end one direction alone; otherwise the sides count bytes, as applications have to.
    half_close: bool,
    pub(crate) stream: Option<StreamId>,
    pub(crate) written: u64,
    pub(crate) read: u64,
    finished: bool,
    saw_end: bool,
    /// The peer is known to be there. Closing before that would be giving up the dial.
    open: bool,
    /// The stream gives nothing more.
    cannot_read: bool,
    /// The machine restarted after the stream had begun.
    pub(crate) died: bool,
    closed: bool,
    pub(crate) ended: Option<Closed>,
    /// When a slow reader reads again, and a slow writer writes.
    reads_at: Option<Instant>,
    writes_at: Option<Instant>,
    /// The times for which the world has planned that.
    planned: BTreeSet<Instant>,
}

impl Side {
    pub(crate) fn new(script: Script, peer: &Script, half_close: bool) -> Self {
        Self {
            script,
            expects: peer.sends,
            expected: peer.content,
            half_close,
            stream: None,
            written: 0,
            read: 0,
            finished: false,
            saw_end: false,
            open: false,
            cannot_read: false,
            died: false,
            closed: false,
            ended: None,
            reads_at: None,
            writes_at: None,
            planned: BTreeSet::new(),
        }
    }

    /// Everything was written and read, and the stream is over without an error. A stream of release 1.18 may not know
    /// that its last bytes were taken, because a FIN there acknowledges nothing.
    pub(crate) fn is_complete(&self) -> bool {
        let orderly = self.ended_in_order() || (!self.half_close && self.ended.is_some());
        orderly && self.read == self.expects && self.written == self.script.sends && self.has_seen_end()
    }

    /// The stream is over, and everything that came was read; or the machine died with it.
    pub(crate) fn is_over(&self) -> bool {
        self.died
            || self.ended.is_some()
                && (self.has_seen_end() || self.cannot_read || self.script.pace == Pace::Never)
    }

    fn ended_in_order(&self) -> bool {
        matches!(&self.ended, Some(Closed::Stream(reason)) if reason.is_orderly())
    }

    fn has_seen_end(&self) -> bool {
        self.saw_end || !self.half_close && self.read == self.expects
    }

    pub(crate) fn on_event(
        &mut self,
        now: Instant,
        node: &mut Node,
        event: &StreamEvent,
    ) -> Result<(), Violation> {
        if self.ended.is_some() {
            return Err(Violation::StrayEvent(format!("{event:?}")));
        }
        match event {
            StreamEvent::Incoming { .. } | StreamEvent::Established => {
                self.open = true;
                self.pump(now, node)
            }
            StreamEvent::Readable | StreamEvent::Writable | StreamEvent::Drained => self.pump(now, node),
            StreamEvent::Closed(reason) => {
                self.ended = Some(reason.clone());
                self.pump(now, node)
            }
        }
    }

    /// Does all that the application can do now.
    pub(crate) fn pump(&mut self, now: Instant, node: &mut Node) -> Result<(), Violation> {
        let Some(stream) = self.stream.filter(|_| !self.died) else { return Ok(()) };
        self.write(now, node, stream)?;
        self.read(now, node, stream)?;
        self.finish(now, node, stream);
        Ok(())
    }

    fn write(&mut self, now: Instant, node: &mut Node, stream: StreamId) -> Result<(), Violation> {
        let mut allowed = match self.script.writes {
            Pace::Eager => usize::MAX,
            Pace::Never => 0,
            Pace::Slow { bytes, every } => {
                if self.writes_at.is_some_and(|at| now < at) {
                    return Ok(());
                }
                self.writes_at = Some(now + every);
                bytes
            }
        };
        while allowed > 0 && self.written < self.script.sends && !self.closed {
            let left = self.script.sends - self.written;
            let len = left.min(self.script.write_size.min(allowed) as u64) as usize;
            let data = Bytes::from(self.script.content.bytes(self.written, len));
            match node.write(now, stream, data) {
                Ok(0) => break,
                Ok(taken) if taken <= len => {
                    self.written += taken as u64;
                    allowed -= taken;
                }
                Ok(taken) => {
                    return Err(Violation::CallFailed(format!("write took {taken} of {len} bytes")));
                }
                // The reason comes as an event.
                Err(_) => break,
            }
        }
        if self.written == self.script.sends || self.closed || self.ended.is_some() {
            self.writes_at = None;
        }
        Ok(())
    }

    fn read(&mut self, now: Instant, node: &mut Node, stream: StreamId) -> Result<(), Violation> {
        let mut allowed = match self.script.pace {
            Pace::Eager => usize::MAX,
            Pace::Never => 0,
            Pace::Slow { bytes, every } => {
                if self.reads_at.is_some_and(|at| now < at) {
                    return Ok(());
                }
                self.reads_at = Some(now + every);
                bytes
            }
        };
        while allowed > 0 && !self.saw_end && !self.cannot_read {
            match node.read(now, stream, allowed.min(64 << 10)) {
                Ok(Read::Data(data)) => {
                    allowed = allowed.saturating_sub(data.len());
                    self.take(&data)?;
                }
                Ok(Read::Finished) => self.end_of_stream()?,
                Ok(Read::Blocked) => break,
                // A stream that ended in order is forgotten with its last byte.
                Err(_) if self.ended_in_order() => self.end_of_stream()?,
                Err(_) => {
                    self.cannot_read = true;
                    break;
                }
            }
        }
        if self.saw_end || self.cannot_read {
            self.reads_at = None;
        }
        Ok(())
    }

    /// The next time at which a slow application acts, if that is not planned yet. It is planned from now on.
    pub(crate) fn plan(&mut self, now: Instant) -> Option<Instant> {
        self.planned.retain(|&at| at > now);
        let next = self.reads_at.into_iter().chain(self.writes_at).filter(|&at| at > now).min()?;
        self.planned.insert(next).then_some(next)
    }

    fn end_of_stream(&mut self) -> Result<(), Violation> {
        self.saw_end = true;
        if self.read == self.expects {
            Ok(())
        } else {
            Err(Violation::WrongEnd { at: self.read, of: self.expects })
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Violation> {
        if let Some(distance) = self.expected.first_difference(self.read, data) {
            return Err(Violation::WrongByte { at: self.read + distance as u64 });
        }
        self.read += data.len() as u64;
        if self.read > self.expects {
            return Err(Violation::TooMuch { got: self.read, of: self.expects });
        }
        Ok(())
    }

    fn finish(&mut self, now: Instant, node: &mut Node, stream: StreamId) {
        let peer_is_done = self.has_seen_end();
        let may_finish = match self.script.finishes {
            Finishes::WhenWritten => true,
            Finishes::AfterPeer => peer_is_done,
        };
        if !self.finished && self.written == self.script.sends && may_finish {
            self.finished = true;
            node.finish(now, stream);
        }
        if !self.closed && self.finished && peer_is_done && self.open {
            self.closed = true;
            node.close(now, stream);
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongByte { at } => write!(f, "byte {at} is not the one that was sent"),
            Self::WrongEnd { at, of } => write!(f, "the end came after {at} of {of} bytes"),
            Self::TooMuch { got, of } => write!(f, "{got} bytes came of {of}"),
            Self::Repeated => f.write_str("a repeated dial brought bytes a second time"),
            Self::StrayEvent(event) => write!(f, "{event} on a stream that is over"),
            Self::CallFailed(what) => f.write_str(what),
        }
    }
}
