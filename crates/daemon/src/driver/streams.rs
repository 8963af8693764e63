//! The streams of local programs and of echo: what waits on the way into the node, and who may be sent how much.

use std::collections::VecDeque;

use bytes::Bytes;
use pilot_proto::Closed;
use pilot_wire::ipc::INITIAL_CREDIT;

use super::clients::{ClientId, Dialect};
use super::replies::ReplyTo;
use crate::ipc::budget::Charge;

/// Taken bytes are granted anew in steps of this size: four frames per megabyte instead of one per write.
const GRANT_STEP: u32 = INITIAL_CREDIT / 4;

/// Who reads and writes a stream of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Client(ClientId),
    /// Port 7: what is read is written back.
    Echo,
    /// Its program closed it or left; what it wrote still goes out.
    Nobody,
}

/// How far a stream is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Dialled; the program waits.
    Dialing(ReplyTo),
    Open,
    /// The node is done with it; what has arrived may still be read.
    Over(Closed),
}

impl Phase {
    /// How the stream ended, if it has.
    pub(super) fn clone_closed(&self) -> Option<Closed> {
        match self {
            Self::Over(closed) => Some(closed.clone()),
            Self::Dialing(_) | Self::Open => None,
        }
    }
}

/// What the program wants once everything it wrote is with the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Finish,
    Close,
}

/// A piece of data that the node had no room for, with the client's budget it holds.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) data: Bytes,
    pub(super) _charge: Option<Charge>,
}

/// One stream between the node and its owner.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) owner: Owner,
    pub(super) phase: Phase,
    /// Written by the program, not yet taken by the node; bounded by credit or by the client's budget.
    pub(super) untaken: VecDeque<Chunk>,
    pub(super) ending: Option<Ending>,
    /// The peer's last byte has been passed on.
    pub(super) read_ended: bool,
    /// The program was told so.
    pub(super) finish_pushed: bool,
    /// Replies owed once the peer has everything.
    pub(super) drains: Vec<ReplyTo>,
    flow: Flow,
}

/// Who may send how much between daemon and program.
#[derive(Debug)]
enum Flow {
    /// The pipe itself is the limit.
    Unmetered,
    Credit {
        /// Bytes that the program still lets us push.
        towards_client: u64,
        /// Bytes that the program may still send.
        from_client: u32,
        /// Bytes taken since the last grant.
        ungranted: u32,
    },
}

/// The program sent more than it was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overdrawn;

impl Attachment {
    pub(super) fn new(owner: Owner, dialect: Dialect, phase: Phase) -> Self {
        let flow = match dialect {
            Dialect::Reference => Flow::Unmetered,
            Dialect::Extended => Flow::Credit {
                towards_client: INITIAL_CREDIT.into(),
                from_client: INITIAL_CREDIT,
                ungranted: 0,
            },
        };
        Self {
            owner,
            phase,
            untaken: VecDeque::new(),
            ending: None,
            read_ended: false,
            finish_pushed: false,
            drains: Vec::new(),
            flow,
        }
    }

    /// Bytes that the program wrote and the node has no room for yet.
    pub(super) fn untaken_bytes(&self) -> u64 {
        self.untaken.iter().map(|chunk| chunk.data.len() as u64).sum()
    }

    /// Bytes that may be read for the program now, at most `most`.
    pub(super) fn readable(&self, most: usize) -> usize {
        match self.flow {
            Flow::Unmetered => most,
            Flow::Credit { towards_client, .. } => usize::try_from(towards_client).unwrap_or(most).min(most),
        }
    }

    /// So many bytes were pushed to the program.
    pub(super) fn pushed(&mut self, bytes: usize) {
        if let Flow::Credit { towards_client, .. } = &mut self.flow {
            *towards_client = towards_client.saturating_sub(bytes as u64);
        }
    }

    /// The program lets us push more.
    pub(super) fn granted(&mut self, bytes: u32) {
        if let Flow::Credit { towards_client, .. } = &mut self.flow {
            *towards_client = towards_client.saturating_add(bytes.into());
        }
    }

    /// The program sent so many bytes.
    pub(super) fn received(&mut self, bytes: usize) -> Result<(), Overdrawn> {
        match &mut self.flow {
            Flow::Unmetered => Ok(()),
            Flow::Credit { from_client, .. } => {
                let left = u32::try_from(bytes).ok().and_then(|bytes| from_client.checked_sub(bytes));
                *from_client = left.ok_or(Overdrawn)?;
                Ok(())
            }
        }
    }

    /// The node took so many of them. Returns what is to be granted anew.
    pub(super) fn taken(&mut self, bytes: usize) -> Option<u32> {
        match &mut self.flow {
            Flow::Unmetered => None,
            Flow::Credit { from_client, ungranted, .. } => {
                *ungranted += bytes as u32;
                if *ungranted < GRANT_STEP {
                    return None;
                }
                *from_client += *ungranted;
                Some(std::mem::take(ungranted))
            }
        }
    }

    /// Whether data of the program needs no budget because credit bounds it.
    pub(super) fn is_metered(&self) -> bool {
        matches!(self.flow, Flow::Credit { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(dialect: Dialect) -> Attachment {
        Attachment::new(Owner::Nobody, dialect, Phase::Open)
    }

    #[test]
    fn a_program_may_send_what_it_was_granted_and_no_more() {
        let mut stream = attachment(Dialect::Extended);
        stream.received(INITIAL_CREDIT as usize).unwrap();
        assert_eq!(stream.received(1), Err(Overdrawn));
        assert_eq!(stream.taken(GRANT_STEP as usize - 1), None);
        assert_eq!(stream.taken(1), Some(GRANT_STEP));
        stream.received(GRANT_STEP as usize).unwrap();
        assert_eq!(stream.received(1), Err(Overdrawn));
    }

    #[test]
    fn a_program_is_pushed_what_it_granted_and_no_more() {
        let mut stream = attachment(Dialect::Extended);
        assert_eq!(stream.readable(usize::MAX), INITIAL_CREDIT as usize);
        stream.pushed(INITIAL_CREDIT as usize);
        assert_eq!(stream.readable(1000), 0);
        stream.granted(u32::MAX);
        stream.granted(u32::MAX);
        assert_eq!(stream.readable(1000), 1000);
    }

    #[test]
    fn released_drivers_are_not_metered() {
        let mut stream = attachment(Dialect::Reference);
        stream.received(100 << 20).unwrap();
        assert_eq!(stream.taken(100 << 20), None);
        assert_eq!(stream.readable(7), 7);
    }
}
