//! The keys shared with one peer.
//!
//! Nodes of this make agree on keys of the moment ([`agreeing`]): whoever began has the peer's proof with the answer, and
//! uses them at once; whoever answered keeps them as a *candidate* beside the ones in use until a frame came under them.
//! The keys before stay for a while, for frames that are on their way.
//!
//! With release 1.18.0, each peer gets an X25519 key pair of its own, so a key exchange recorded on its way to one peer
//! means nothing to another. A key that a peer shows becomes a [`Session`]. The first one is used at once; a later one
//! is a candidate until a frame sealed with it arrives, because that exchange is signed but not fresh: anybody may repeat
//! a recorded one, and only the owner of its secret half can seal.
//!
//! ```text
//!          key shown, or answered                frame opens
//!   no key ───────────▶ current (unproven) ─────────▶ current (proven) ◀── answer to what we began
//!                         ▲      │ other keys             │ other keys
//!                         │      ▼                        ▼
//!                         └─ candidate ◀──────────────────┘   dropped after 5 s without proof
//!               frame opens
//! ```

pub(crate) mod agreeing;
pub(crate) mod replay;
mod session;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use agreeing::{Agreeing, Initiated, Them, Us};
use pilot_crypto::{AgreementKey, NoiseError, WeakKey};
use pilot_wire::tunnel::{
    Busy, KeyExchange, MESSAGE_LEN, Nonce, SealedHeader, emit_key_request, signed_bytes,
};
use pilot_wire::{AgreementPublic, NodeId, Signature};
use rand::CryptoRng;

use session::Session;
pub(crate) use session::{Life, OpenFailure};

/// Keys tried beside the current one. Two recorded exchanges of an attacker and the genuine one fit; more push
/// out the oldest, and the genuine peer repeats itself.
const CANDIDATES_MAX: usize = 3;

/// A peer proves a key by its next frame, which our own proof request asks for at once.
const CANDIDATE_LIFE: Duration = Duration::from_secs(5);

/// Keys remembered after the peer replaced them: as many restarts of a peer while this node runs.
const RETIRED_MAX: usize = 64;

/// How long frames under the keys before are taken: as long as a datagram may be on its way, and then some.
const PREVIOUS_LIFE: Duration = Duration::from_secs(15);

/// The keys of one peer.
#[derive(Debug)]
pub(crate) struct Tunnel {
    ours: AgreementKey,
    signed: Option<(NodeId, Signature)>,
    agreeing: Agreeing,
    current: Option<Session>,
    previous: Option<Box<Previous>>,
    candidates: Vec<Session>,
    /// Keys of the peer's earlier lives. Whoever shows one again repeats a recording, and could follow it with
    /// recorded frames that still open.
    retired: VecDeque<AgreementPublic>,
}

/// Keys that were agreed anew since.
#[derive(Debug)]
struct Previous {
    session: Session,
    until: Instant,
}

/// What became of a key that the peer showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyShown {
    /// It is in use already, or waits for proof.
    Known,
    /// It is the first, and in use now.
    Installed,
    /// It waits for proof beside the current one.
    Candidate,
    /// The peer had it in an earlier life.
    Retired,
}

/// An authentic frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Bytes of packet at the start of the ciphertext.
    pub(crate) len: usize,
    /// What the frame proved beyond itself.
    pub(crate) proof: Proof,
}

/// What an authentic frame says about the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Nothing new.
    Known,
    /// The peer holds the key, which was the first.
    First,
    /// The peer holds a key that was agreed anew with the same key of its own: we drew another.
    Renewed,
    /// The peer has another key than before, as a process that restarted has.
    Restarted,
}

impl Tunnel {
    pub(crate) fn new(ours: AgreementKey) -> Self {
        Self {
            ours,
            signed: None,
            agreeing: Agreeing::default(),
            current: None,
            previous: None,
            candidates: Vec::new(),
            retired: VecDeque::new(),
        }
    }

    /// Draws a new key pair on our side, or has another identity. The current session stays until the new one is proved.
    pub(crate) fn replace_key(&mut self, ours: AgreementKey) {
        self.ours = ours;
        self.signed = None;
        self.agreeing.give_up();
    }

    /// Whether frames can be sealed.
    pub(crate) fn is_ready(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the peer has proved that it holds the key.
    pub(crate) fn is_proven(&self) -> bool {
        self.current.as_ref().is_some_and(|session| session.heard.is_some())
    }

    /// When the last authentic frame came.
    pub(crate) fn heard(&self) -> Option<Instant> {
        self.current.as_ref().and_then(|session| session.heard)
    }

    /// The key-exchange frame (PILA) that shows our key.
    pub(crate) fn emit_offer(&mut self, us: Us<'_>, out: &mut Vec<u8>) {
        let agreement = self.ours.public();
        let signature = match self.signed {
            Some((node, signature)) if node == us.node => signature,
            Some(_) | None => us.identity.sign(&signed_bytes(us.node, &agreement)),
        };
        self.signed = Some((us.node, signature));
        let identity = us.identity.public();
        KeyExchange { sender: us.node, agreement, identity, signature, trailer: &[] }.emit(out);
    }

    /// What nodes of our make find behind it: the agreement of the moment. `them` if the identity of the peer is known.
    pub(crate) fn extend_offer(
        &mut self,
        now: Instant,
        us: Us<'_>,
        them: Option<Them>,
        rng: &mut impl CryptoRng,
        out: &mut Vec<u8>,
    ) {
        self.agreeing.initiation(now, us, them, rng).emit(out);
    }

    /// The same with the answer to the peer's initiation, if there is one to give.
    pub(crate) fn emit_answer(&mut self, us: Us<'_>, out: &mut Vec<u8>) -> bool {
        let Some(answer) = self.agreeing.answer_again() else { return false };
        self.emit_offer(us, out);
        answer.emit(out);
        true
    }

    /// Whether an initiation of the peer is new.
    pub(crate) fn what_is(&self, message: &[u8; MESSAGE_LEN]) -> Initiated {
        self.agreeing.what_is(message)
    }

    /// Whether an initiation of the peer was answered, and nothing has come under the keys yet.
    pub(crate) fn owes_answer(&self) -> bool {
        self.agreeing.owes_answer()
    }

    /// Whether ours counts more than one of the peer that crosses it.
    pub(crate) fn insists(&self, now: Instant, us: NodeId, them: Them) -> bool {
        self.agreeing.insists(now, us, them)
    }

    /// Agrees to an initiation; [`emit_answer`](Self::emit_answer) says so.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        us: Us<'_>,
        them: Them,
        message: &[u8; MESSAGE_LEN],
        rng: &mut impl CryptoRng,
    ) -> Result<KeyShown, NoiseError> {
        let session = self.agreeing.answer(now, us, them, message, rng)?;
        Ok(self.install(session))
    }

    /// Takes an answer to what was begun here: its keys are in use from now on.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        to: [u8; 4],
        message: &[u8; MESSAGE_LEN],
    ) -> Option<Proof> {
        let mut session = self.agreeing.finish(now, to, message)?;
        session.heard = Some(now);
        Some(self.promote(now, session))
    }

    /// The peer is busy and wants this cookie back with our initiation. `true` if there is one and it should be repeated.
    pub(crate) fn take_cookie(&mut self, busy: Busy) -> bool {
        self.agreeing.take_cookie(busy)
    }

    /// Whether the keys in use are of the moment.
    pub(crate) fn is_agreed(&self) -> bool {
        self.current.as_ref().is_some_and(Session::is_agreed)
    }

    /// Words of an application go under the keys in use.
    pub(crate) fn carries(&mut self) {
        if let Some(session) = &mut self.current {
            session.carried = true;
        }
    }

    /// From when on the keys in use are to be replaced.
    pub(crate) fn rekey_at(&self) -> Option<Instant> {
        self.current.as_ref().filter(|session| session.heard.is_some())?.rekey_at()
    }

    /// The unauthenticated frame (PILK) that asks for the peer's key: peers that know us answer with theirs.
    pub(crate) fn emit_request(&self, us: NodeId, out: &mut Vec<u8>) {
        emit_key_request(us, &self.ours.public(), out);
    }

    /// Whether `key` is one we have agreed with.
    pub(crate) fn knows(&self, key: &AgreementPublic) -> bool {
        self.current.iter().chain(&self.candidates).any(|session| session.is_between(&self.ours, key))
    }

    /// Whether `key` is one that the peer has shown and not yet used.
    pub(crate) fn awaits_proof_of(&self, key: &AgreementPublic) -> bool {
        self.candidates.iter().any(|session| session.is_between(&self.ours, key))
    }

    /// Takes a key whose signature was checked. `start` is where the nonces of a new session start: its prefix
    /// must be random, and its counter above that of every session before, because release 1.18.0 keeps one
    /// window for a pair of keys however often it is derived (docs/protocol-notes.md).
    pub(crate) fn key_shown(
        &mut self,
        now: Instant,
        key: AgreementPublic,
        start: Nonce,
    ) -> Result<KeyShown, WeakKey> {
        if self.knows(&key) {
            return Ok(KeyShown::Known);
        }
        if self.retired.contains(&key) {
            return Ok(KeyShown::Retired);
        }
        let session = Session::derive(&self.ours, key, start, now)?;
        Ok(self.install(session))
    }

    /// Takes keys that the peer has not proved to hold.
    fn install(&mut self, session: Session) -> KeyShown {
        if self.is_proven() {
            self.push_candidate(session);
            return KeyShown::Candidate;
        }
        // Without proof the older of two keys is as likely the replayed one; it stays as a candidate.
        if let Some(unproven) = self.current.replace(session) {
            self.push_candidate(unproven);
        }
        KeyShown::Installed
    }

    fn push_candidate(&mut self, session: Session) {
        if self.candidates.len() == CANDIDATES_MAX {
            let dropped = self.candidates.remove(0);
            self.forget_answer_of(&dropped);
        }
        self.candidates.push(session);
    }

    fn forget_answer_of(&mut self, session: &Session) {
        if let Some(theirs) = session.answers() {
            self.agreeing.forget_answer(theirs);
        }
    }

    /// Puts proven keys into use.
    fn promote(&mut self, now: Instant, proven: Session) -> Proof {
        let proof = match &self.current {
            Some(before) if before.heard.is_some() => match before.is_with_same_process(&proven) {
                true => Proof::Renewed,
                false => Proof::Restarted,
            },
            Some(_) | None => Proof::First,
        };
        let before = self.current.replace(proven);
        self.previous = None;
        match (proof, before) {
            (Proof::First, Some(session)) => {
                self.forget_answer_of(&session);
                // The peer may be using them already.
                if session.is_agreed() {
                    self.previous = Some(Box::new(Previous { session, until: now + PREVIOUS_LIFE }));
                }
            }
            (Proof::Restarted, Some(before)) => self.retire(before.shown_key()),
            (Proof::Renewed, Some(session)) if session.is_agreed() => {
                self.previous = Some(Box::new(Previous { session, until: now + PREVIOUS_LIFE }));
            }
            _ => {}
        }
        proof
    }

    /// Appends a sealed frame whose packet `write` appends; `false` when there is no key or no packet.
    pub(crate) fn seal(&mut self, us: NodeId, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        self.current.as_mut().is_some_and(|session| session.seal(us, out, write))
    }

    /// As [`seal`](Self::seal) with the newest candidate, to ask the peer for proof of it.
    pub(crate) fn seal_candidate(
        &mut self,
        us: NodeId,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        self.candidates.last_mut().is_some_and(|session| session.seal(us, out, write))
    }

    /// Opens a frame where it lies, with whichever key fits. `scratch` is overwritten.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        header: SealedHeader,
        ciphertext: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Opened, OpenFailure> {
        let fits = |session: &Session| session.may_open(header.nonce);
        // A failed attempt destroys the ciphertext, so keep it while there is more than one key to try.
        let previous = self.previous.iter().map(|previous| &previous.session);
        let several =
            previous.chain(&self.current).chain(&self.candidates).filter(|one| fits(one)).count() > 1;
        if several {
            scratch.clear();
            scratch.extend_from_slice(ciphertext);
        }
        let mut failure = OpenFailure::NotAuthentic;
        if let Some(current) = self.current.as_mut().filter(|current| fits(current)) {
            let proof = if current.heard.is_some() { Proof::Known } else { Proof::First };
            match current.open(now, header, ciphertext) {
                Ok(len) => {
                    if proof == Proof::First
                        && let Some(theirs) = current.answers()
                    {
                        self.agreeing.confirmed(theirs);
                    }
                    return Ok(Opened { len, proof });
                }
                Err(other) => failure = other,
            }
        }
        if failure == OpenFailure::NotAuthentic
            && let Some(previous) = self.previous.as_mut().filter(|previous| fits(&previous.session))
        {
            if several {
                ciphertext.copy_from_slice(scratch);
            }
            match previous.session.open(now, header, ciphertext) {
                Ok(len) => return Ok(Opened { len, proof: Proof::Known }),
                Err(other) => failure = other,
            }
        }
        for index in (0..self.candidates.len()).rev() {
            if failure != OpenFailure::NotAuthentic {
                break;
            }
            if !fits(&self.candidates[index]) {
                continue;
            }
            if several {
                ciphertext.copy_from_slice(scratch);
            }
            match self.candidates[index].open(now, header, ciphertext) {
                Ok(len) => {
                    let proven = self.candidates.swap_remove(index);
                    if let Some(theirs) = proven.answers() {
                        self.agreeing.confirmed(theirs);
                    }
                    let proof = self.promote(now, proven);
                    for dropped in std::mem::take(&mut self.candidates) {
                        self.forget_answer_of(&dropped);
                    }
                    return Ok(Opened { len, proof });
                }
                Err(other) => failure = other,
            }
        }
        Err(failure)
    }

    fn retire(&mut self, key: Option<AgreementPublic>) {
        let Some(key) = key else { return };
        if self.retired.len() == RETIRED_MAX {
            self.retired.pop_front();
        }
        self.retired.push_back(key);
    }

    /// Forgets candidates that were not proved in time, and keys that were replaced long enough ago.
    pub(crate) fn expire(&mut self, now: Instant) {
        let (young, old): (Vec<_>, Vec<_>) = std::mem::take(&mut self.candidates)
            .into_iter()
            .partition(|candidate| candidate.since + CANDIDATE_LIFE > now);
        self.candidates = young;
        for candidate in &old {
            self.forget_answer_of(candidate);
        }
        self.previous = self.previous.take().filter(|previous| previous.until > now);
    }

    /// When to call [`expire`](Self::expire).
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let candidates = self.candidates.iter().map(|candidate| candidate.since + CANDIDATE_LIFE);
        candidates.chain(self.previous.iter().map(|previous| previous.until)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: NodeId = NodeId(1);
    const PEER: NodeId = NodeId(2);

    fn tunnel(secret: u8) -> Tunnel {
        Tunnel::new(AgreementKey::from_bytes(&[secret; 32]))
    }

    fn show(now: Instant, from: &Tunnel, to: &mut Tunnel, prefix: u8) -> KeyShown {
        to.key_shown(now, from.ours.public(), Nonce { prefix: [prefix; 4], counter: 0 }).unwrap()
    }

    fn send(now: Instant, from: &mut Tunnel, to: &mut Tunnel) -> Result<Proof, OpenFailure> {
        let mut frame = Vec::new();
        assert!(from.seal(PEER, &mut frame, |out| out.extend_from_slice(b"packet")));
        deliver(now, &frame, to)
    }

    fn deliver(now: Instant, frame: &[u8], to: &mut Tunnel) -> Result<Proof, OpenFailure> {
        let pilot_wire::tunnel::Frame::Sealed { sender, nonce, ciphertext } =
            pilot_wire::tunnel::Frame::parse(frame).unwrap()
        else {
            panic!("a sealed frame")
        };
        let mut ciphertext = ciphertext.to_vec();
        let opened = to.open(now, SealedHeader { sender, nonce }, &mut ciphertext, &mut Vec::new())?;
        assert_eq!(&ciphertext[..opened.len], b"packet");
        Ok(opened.proof)
    }

    #[test]
    fn a_replayed_exchange_of_an_earlier_process_does_not_displace_the_working_session() {
        let now = crate::testing::start();
        let (mut us, mut peer, earlier) = (tunnel(1), tunnel(2), tunnel(3));
        show(now, &peer, &mut us, 1);
        show(now, &us, &mut peer, 2);
        assert_eq!(send(now, &mut peer, &mut us), Ok(Proof::First));

        assert_eq!(show(now, &earlier, &mut us, 3), KeyShown::Candidate);
        assert_eq!(send(now, &mut us, &mut peer), Ok(Proof::First));
        assert_eq!(send(now, &mut peer, &mut us), Ok(Proof::Known));
        us.expire(now + CANDIDATE_LIFE);
        assert_eq!(us.poll_timeout(), None);
        assert_eq!(send(now, &mut peer, &mut us), Ok(Proof::Known));
    }

    #[test]
    fn a_replay_while_the_first_key_is_unproven_does_not_cost_the_genuine_one() {
        let now = crate::testing::start();
        let (mut us, mut peer, earlier) = (tunnel(1), tunnel(2), tunnel(3));
        show(now, &peer, &mut us, 1);
        show(now, &us, &mut peer, 2);
        assert_eq!(show(now, &earlier, &mut us, 3), KeyShown::Installed);
        assert_eq!(send(now, &mut peer, &mut us), Ok(Proof::First));
        assert_eq!(send(now, &mut us, &mut peer), Ok(Proof::First));
    }

    #[test]
    fn a_restarted_peer_takes_over_with_its_first_frame() {
        let now = crate::testing::start();
        let (mut us, mut peer) = (tunnel(1), tunnel(2));
        show(now, &peer, &mut us, 1);
        show(now, &us, &mut peer, 2);
        send(now, &mut peer, &mut us).unwrap();

        let mut restarted = tunnel(4);
        show(now, &us, &mut restarted, 5);
        assert_eq!(send(now, &mut restarted, &mut us), Err(OpenFailure::NotAuthentic));
        assert_eq!(show(now, &restarted, &mut us, 6), KeyShown::Candidate);
        assert_eq!(send(now, &mut restarted, &mut us), Ok(Proof::Restarted));
        assert_eq!(send(now, &mut us, &mut restarted), Ok(Proof::First));
    }

    #[test]
    fn an_earlier_life_of_a_peer_that_is_replayed_does_not_come_back() {
        let now = crate::testing::start();
        let (mut us, mut peer) = (tunnel(1), tunnel(2));
        show(now, &peer, &mut us, 1);
        show(now, &us, &mut peer, 2);
        send(now, &mut peer, &mut us).unwrap();
        let mut recorded = Vec::new();
        peer.seal(PEER, &mut recorded, |out| out.extend_from_slice(b"packet"));

        let mut restarted = tunnel(4);
        show(now, &us, &mut restarted, 5);
        show(now, &restarted, &mut us, 6);
        assert_eq!(send(now, &mut restarted, &mut us), Ok(Proof::Restarted));
        assert_eq!(show(now, &peer, &mut us, 7), KeyShown::Retired);
        assert_eq!(deliver(now, &recorded, &mut us), Err(OpenFailure::NotAuthentic));
        assert_eq!(send(now, &mut restarted, &mut us), Ok(Proof::Known));
    }

    #[test]
    fn a_repeated_frame_and_a_changed_one_are_refused() {
        let now = crate::testing::start();
        let (mut us, mut peer) = (tunnel(1), tunnel(2));
        show(now, &peer, &mut us, 1);
        show(now, &us, &mut peer, 2);
        let mut frame = Vec::new();
        peer.seal(PEER, &mut frame, |out| out.extend_from_slice(b"packet"));
        assert_eq!(deliver(now, &frame, &mut us), Ok(Proof::First));
        assert_eq!(deliver(now, &frame, &mut us), Err(OpenFailure::Replayed));

        // A huge counter that does not authenticate must not move the window (dataplane.md 10.1 no. 4).
        let mut forged = frame.clone();
        forged[12..20].copy_from_slice(&(1u64 << 40).to_be_bytes());
        assert_eq!(deliver(now, &forged, &mut us), Err(OpenFailure::NotAuthentic));
        assert_eq!(send(now, &mut peer, &mut us), Ok(Proof::Known));
    }

    #[test]
    fn a_flood_of_candidates_is_bounded() {
        let now = crate::testing::start();
        let (mut us, mut peer) = (tunnel(1), tunnel(2));
        show(now, &peer, &mut us, 1);
        show(now, &us, &mut peer, 2);
        send(now, &mut peer, &mut us).unwrap();
        for secret in 10..200 {
            show(now, &tunnel(secret), &mut us, secret);
        }
        assert_eq!(us.candidates.len(), CANDIDATES_MAX);
        assert_eq!(send(now, &mut peer, &mut us), Ok(Proof::Known));
    }

    #[test]
    fn nothing_is_sealed_without_a_key_or_without_a_packet() {
        let now = crate::testing::start();
        let (mut us, peer) = (tunnel(1), tunnel(2));
        let mut out = vec![7];
        assert!(!us.seal(US, &mut out, |out| out.push(1)));
        show(now, &peer, &mut us, 1);
        assert!(!us.seal(US, &mut out, |_| {}));
        assert_eq!(out, [7]);
    }
}
