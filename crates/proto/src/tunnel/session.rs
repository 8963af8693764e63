//! One agreed key: sealing with a counter that never repeats, opening with every counter once.

use std::time::Instant;

use pilot_crypto::{AgreementKey, SessionKey, WeakKey};
use pilot_wire::tunnel::{Nonce, SealedHeader};
use pilot_wire::{AgreementPublic, NodeId};

use super::replay::{Replay, Windows};

/// Both directions under one key.
#[derive(Debug)]
pub(crate) struct Session {
    key: SessionKey,
    our_key: AgreementPublic,
    peer_key: AgreementPublic,
    prefix: [u8; 4],
    counter: u64,
    windows: Windows,
    pub(crate) since: Instant,
    /// When a frame last proved that the peer holds the key, too.
    pub(crate) heard: Option<Instant>,
}

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
        Ok(Self {
            key: SessionKey::derive(&ours.agree(&theirs)?),
            our_key: ours.public(),
            peer_key: theirs,
            prefix: start.prefix,
            counter: start.counter,
            windows: Windows::default(),
            since: now,
            heard: None,
        })
    }

    /// Whether the session was agreed between these two keys.
    pub(crate) fn is_between(&self, ours: &AgreementKey, theirs: &AgreementPublic) -> bool {
        self.our_key == ours.public() && self.peer_key == *theirs
    }

    /// The peer's half of the agreement.
    pub(crate) fn peer_key(&self) -> AgreementPublic {
        self.peer_key
    }

    /// Whether the peer showed the same key for both sessions.
    pub(crate) fn is_with_same_peer_key(&self, other: &Self) -> bool {
        self.peer_key == other.peer_key
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
        let tag = self.key.seal_in_place(nonce.to_bytes(), &header.associated_data(), &mut out[packet..]);
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
        let packet = self
            .key
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
