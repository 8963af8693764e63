//! Agreed keys: sealing with a counter that never repeats, opening with every counter once.

use std::time::{Duration, Instant};

use pilot_crypto::{Agreed, AgreementKey, SessionKey, WeakKey};
use pilot_wire::tunnel::{Nonce, SealedHeader};
use pilot_wire::{AgreementPublic, NodeId};

use super::agreeing::Ephemeral;
use super::replay::{Replay, Windows};

/// Keys that were agreed anew are used this long at most while somebody uses the peer; then others are agreed. Whoever
/// steals the keys of the moment reads what is said in this time.
pub(crate) const REKEY_AFTER: Duration = Duration::from_secs(120);

/// The side that answered waits this much longer, so that usually one begins.
const POLITENESS: Duration = Duration::from_secs(10);

/// So many frames under one key, and others are agreed as well.
const REKEY_AFTER_FRAMES: u64 = 1 << 32;

/// Both directions.
#[derive(Debug)]
pub(crate) struct Session {
    keys: Keys,
    origin: Origin,
    prefix: [u8; 4],
    counter: u64,
    first: u64,
    windows: Windows,
    pub(crate) since: Instant,
    /// When a frame last proved that the peer holds the keys, too.
    pub(crate) heard: Option<Instant>,
    /// Words of an application went under it, not only signs of life.
    pub(crate) carried: bool,
}

#[derive(Debug)]
enum Keys {
    /// As release 1.18.0 has it: one key, kept apart by the prefixes of the nonces.
    Shared(Box<SessionKey>),
    /// One for each direction.
    Split(Box<Split>),
}

#[derive(Debug)]
struct Split {
    seal: SessionKey,
    open: SessionKey,
    /// What the peer's nonces begin with: tells the keys of a frame without trying.
    expects: [u8; 4],
}

/// How the keys came about, as far as it says which process of the peer holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Between the keys that both sides showed.
    Shown { ours: AgreementPublic, theirs: AgreementPublic },
    /// In an agreement of the moment.
    /// `answers` names the peer's initiation; `None` if we began.
    Agreed { life: Life, answers: Option<Ephemeral> },
}

/// Drawn by each process at its start, and authenticated: tells whether a peer was started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life(pub(crate) u64);

/// Why a sealed frame gave no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenFailure {
    /// Not sealed with this key.
    NotAuthentic,
    /// Authentic, and known already.
    Replayed,
    /// Authentic, but the key has been derived again too often to tell old from new.
    Worn,
}

impl Session {
    /// Agrees with the peer's key. `start` keeps the nonces of both directions, and of earlier derivations of
    /// the same key, apart.
    pub(crate) fn derive(
        ours: &AgreementKey,
        theirs: AgreementPublic,
        start: Nonce,
        now: Instant,
    ) -> Result<Self, WeakKey> {
        let keys = Keys::Shared(Box::new(SessionKey::derive(&ours.agree(&theirs)?)));
        let origin = Origin::Shown { ours: ours.public(), theirs };
        Ok(Self::new(keys, origin, start, now))
    }

    /// The keys of an agreement of the moment, which the peer's process `life` took part in.
    /// `answers` names the peer's initiation; `None` if we began.
    pub(crate) fn agreed(agreed: Agreed, life: Life, answers: Option<Ephemeral>, now: Instant) -> Self {
        // Both sides know the transcript, and nobody else sees two sessions with the same.
        let [i0, i1, i2, i3, r0, r1, r2, r3, ..] = agreed.transcript;
        let (first, second) = ([i0, i1, i2, i3], [r0, r1, r2, r3]);
        let (prefix, expects) = if answers.is_none() { (first, second) } else { (second, first) };
        let split = Split { seal: agreed.seal, open: agreed.open, expects };
        let origin = Origin::Agreed { life, answers };
        Self::new(Keys::Split(Box::new(split)), origin, Nonce { prefix, counter: 0 }, now)
    }

    fn new(keys: Keys, origin: Origin, start: Nonce, now: Instant) -> Self {
        let Nonce { prefix, counter } = start;
        let windows = Windows::default();
        Self {
            keys,
            origin,
            prefix,
            counter,
            first: counter,
            windows,
            since: now,
            heard: None,
            carried: false,
        }
    }

    /// Whether the session was agreed between these two keys.
    pub(crate) fn is_between(&self, ours: &AgreementKey, theirs: &AgreementPublic) -> bool {
        self.origin == Origin::Shown { ours: ours.public(), theirs: *theirs }
    }

    /// Whether its keys are of the moment.
    pub(crate) fn is_agreed(&self) -> bool {
        matches!(self.origin, Origin::Agreed { .. })
    }

    /// The peer's half of the agreement, if it was shown.
    pub(crate) fn shown_key(&self) -> Option<AgreementPublic> {
        match self.origin {
            Origin::Shown { theirs, .. } => Some(theirs),
            Origin::Agreed { .. } => None,
        }
    }

    /// Whether the same process of the peer holds both.
    pub(crate) fn is_with_same_process(&self, other: &Self) -> bool {
        match (self.origin, other.origin) {
            (Origin::Shown { theirs: a, .. }, Origin::Shown { theirs: b, .. }) => a == b,
            (Origin::Agreed { life: a, .. }, Origin::Agreed { life: b, .. }) => a == b,
            _ => false,
        }
    }

    /// From when on the keys are too old for somebody who goes on using the peer.
    /// `None` while nobody has.
    pub(crate) fn rekey_at(&self) -> Option<Instant> {
        let Origin::Agreed { answers, .. } = self.origin else { return None };
        if !self.carried {
            return None;
        }
        if self.counter - self.first >= REKEY_AFTER_FRAMES {
            return Some(self.since);
        }
        Some(self.since + if answers.is_none() { REKEY_AFTER } else { REKEY_AFTER + POLITENESS })
    }

    /// The peer's initiation that these keys came of.
    pub(crate) fn answers(&self) -> Option<Ephemeral> {
        match self.origin {
            Origin::Shown { .. } => None,
            Origin::Agreed { answers, .. } => answers,
        }
    }

    /// Whether a frame with this nonce may open. What is not for this session must not be spent on it: a failed attempt
    /// destroys the ciphertext.
    pub(crate) fn may_open(&self, nonce: Nonce) -> bool {
        match &self.keys {
            Keys::Shared(_) => true,
            Keys::Split(split) => split.expects == nonce.prefix,
        }
    }

    /// Appends a sealed frame to `out` whose packet `write` appends, or nothing when `write` appends nothing.
    pub(crate) fn seal(
        &mut self,
        sender: NodeId,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let frame = out.len();
        let nonce = Nonce { prefix: self.prefix, counter: self.counter + 1 };
        let header = SealedHeader { sender, nonce };
        header.emit(out);
        let packet = out.len();
        write(out);
        if out.len() == packet {
            out.truncate(frame);
            return false;
        }
        self.counter += 1;
        let key = match &self.keys {
            Keys::Shared(key) => key,
            Keys::Split(split) => &split.seal,
        };
        let tag = key.seal_in_place(nonce.to_bytes(), &header.associated_data(), &mut out[packet..]);
        out.extend_from_slice(&tag);
        true
    }

    /// Opens a frame where it lies and returns the length of the packet at its start.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        header: SealedHeader,
        ciphertext: &mut [u8],
    ) -> Result<usize, OpenFailure> {
        let key = match &self.keys {
            Keys::Shared(key) => key,
            Keys::Split(split) => &split.open,
        };
        let packet = key
            .open_in_place(header.nonce.to_bytes(), &header.associated_data(), ciphertext)
            .map_err(|_| OpenFailure::NotAuthentic)?
            .len();
        self.windows.accept(header.nonce).map_err(|replay| match replay {
            Replay::Seen => OpenFailure::Replayed,
            Replay::TooManyEpochs => OpenFailure::Worn,
        })?;
        self.heard = Some(now);
        Ok(packet)
    }
}
