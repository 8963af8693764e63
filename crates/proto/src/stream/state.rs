//! The names of the states of a stream.

use std::fmt;

/// Where a stream is in its life, with the names that `connections` shows (RFC 9293 3.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// We dialled; the SYN is not answered yet.
    SynSent,
    /// We answered a dial; the peer has not confirmed yet. Data may flow already.
    SynReceived,
    /// Both directions are open.
    Established,
    /// We finished; the peer may still send.
    FinWait,
    /// The peer finished; we may still send.
    CloseWait,
    /// Over; the ports stay reserved for stray packets.
    TimeWait,
    /// Over.
    Closed,
}

impl State {
    /// True while data may move in at least one direction.
    pub const fn is_live(self) -> bool {
        !matches!(self, Self::TimeWait | Self::Closed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Closed => "CLOSED",
        })
    }
}
