//! What a node counts.

/// Totals since the node was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of datagrams sent and received, with all headers.
    pub bytes_sent: u64,
    /// See `bytes_sent`.
    pub bytes_received: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Of `bytes_sent`, those in frames for the beacon to pass on.
    pub relayed_bytes_sent: u64,
    /// Of `bytes_received`, those in frames that the beacon passed on.
    pub relayed_bytes_received: u64,
    /// Segments sent again by streams that are over.
    pub retransmits: u64,
    dropped: [u64; Drop::COUNT],
}

/// Why a received frame was of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// It has no form that is known.
    Malformed,
    /// A beacon's message from somebody else.
    NotTheBeacon,
    /// A plaintext frame, which this node does not take.
    Plaintext,
    /// A frame for which there is no key, or that does not fit the key.
    NotAuthentic,
    /// A frame that came before.
    Replayed,
    /// A key exchange whose signature is wrong.
    BadSignature,
    /// A key exchange with another identity than the known one.
    WrongKey,
    /// A key exchange of an earlier release from a node that is known to do better.
    Downgraded,
    /// From a node that this one does not talk to.
    NotAdmitted,
    /// More of a kind than is taken from one source.
    TooMany,
    /// A packet that names another sender than the tunnel's peer, or another receiver than us.
    WrongAddress,
    /// A packet for a port or stream that does not exist.
    NoStream,
}

impl Drop {
    /// Number of reasons.
    const COUNT: usize = 12;

    /// Every reason.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Malformed,
        Self::NotTheBeacon,
        Self::Plaintext,
        Self::NotAuthentic,
        Self::Replayed,
        Self::BadSignature,
        Self::WrongKey,
        Self::Downgraded,
        Self::NotAdmitted,
        Self::TooMany,
        Self::WrongAddress,
        Self::NoStream,
    ];

    /// A short name, for logs and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotTheBeacon => "not_the_beacon",
            Self::Plaintext => "plaintext",
            Self::NotAuthentic => "not_authentic",
            Self::Replayed => "replayed",
            Self::BadSignature => "bad_signature",
            Self::WrongKey => "wrong_key",
            Self::Downgraded => "downgraded",
            Self::NotAdmitted => "not_admitted",
            Self::TooMany => "too_many",
            Self::WrongAddress => "wrong_address",
            Self::NoStream => "no_stream",
        }
    }
}

impl Stats {
    pub(super) fn count(&mut self, why: Drop) {
        self.dropped[why as usize] += 1;
    }

    /// How many frames were dropped for this reason.
    #[must_use]
    pub fn dropped(&self, why: Drop) -> u64 {
        self.dropped[why as usize]
    }
}
