//! Keys of the moment with one peer (docs/handshake.md): what was begun here, and what of the peer's was answered.
//!
//! Either side may begin. What was begun is repeated unchanged until it is answered, and whenever it comes again it gets the
//! same answer, until a frame came under its keys: messages get lost, and each goes every way there is. Of two initiations
//! that cross, that of the node with the lower number counts: it does not answer the other one, but repeats its own, and
//! gives it up only after a second without an answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pilot_crypto::{AgreementKey, Identity, Initiation, NoiseError, Pair, respond};
use pilot_wire::tunnel::{Busy, Cookie, Extension, MESSAGE_LEN};
use pilot_wire::{NodeId, PublicKey};
use rand::CryptoRng;

use super::session::{Life, Session};

/// An initiation that nobody answers is made anew after this long.
const BEGUN_LIFE: Duration = Duration::from_secs(60);

/// For so long the side with the lower number insists on what it began. Then the peer's initiation may be the only one that
/// gets through.
const CROSSING: Duration = Duration::from_secs(1);

/// Initiations of the peer that led to keys. One that comes again is a recording.
const SPENT_MAX: usize = 64;

/// First 32 bytes of an initiation: names it.
pub(crate) type Ephemeral = [u8; 32];

/// Who agrees.
#[derive(Clone, Copy)]
pub(crate) struct Us<'a> {
    /// Our number.
    pub(crate) node: NodeId,
    /// Our identity.
    pub(crate) identity: &'a Identity,
    /// Drawn at the start of this process.
    pub(crate) life: Life,
}

/// The other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Them {
    /// Its number.
    pub(crate) node: NodeId,
    /// The identity it must have.
    pub(crate) key: PublicKey,
}

/// What an initiation of the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initiated {
    /// Not seen before.
    New,
    /// Answered, and the answer may have been lost.
    Answered,
    /// Its keys were used already.
    Spent,
}

#[derive(Debug, Default)]
pub(crate) struct Agreeing {
    begun: Option<Box<Begun>>,
    answered: Option<Box<Answered>>,
    spent: VecDeque<Ephemeral>,
}

#[derive(Debug)]
struct Begun {
    initiation: Initiation,
    with: Them,
    message: [u8; MESSAGE_LEN],
    since: Instant,
    cookie: Option<Cookie>,
}

#[derive(Debug)]
struct Answered {
    theirs: Ephemeral,
    message: [u8; MESSAGE_LEN],
}

impl Agreeing {
    /// What goes with an offer: the initiation, if it is known whom to agree with.
    pub(crate) fn initiation(
        &mut self,
        now: Instant,
        us: Us<'_>,
        them: Option<Them>,
        rng: &mut impl CryptoRng,
    ) -> Extension {
        let Some(them) = them else { return Extension::Hello };
        let fits = |begun: &Begun| begun.with.key == them.key && begun.since + BEGUN_LIFE > now;
        if !self.begun.as_deref().is_some_and(fits) {
            self.begun = begin(now, us, them, rng);
        }
        match &self.begun {
            Some(begun) => Extension::Initiation { message: begun.message, cookie: begun.cookie },
            None => Extension::Hello,
        }
    }

    /// What goes back to the initiation that was answered last.
    pub(crate) fn answer_again(&self) -> Option<Extension> {
        let answered = self.answered.as_ref()?;
        let [a, b, c, d, ..] = answered.theirs;
        Some(Extension::Answer { to: [a, b, c, d], message: answered.message })
    }

    /// Whether there is an initiation to be answered again.
    pub(crate) fn owes_answer(&self) -> bool {
        self.answered.is_some()
    }

    /// Whether what was begun here counts, and what the peer begins does not.
    pub(crate) fn insists(&self, now: Instant, us: NodeId, them: Them) -> bool {
        let counts = |begun: &Begun| begun.with == them && begun.since + CROSSING > now;
        us < them.node && self.begun.as_deref().is_some_and(counts)
    }

    pub(crate) fn what_is(&self, message: &[u8; MESSAGE_LEN]) -> Initiated {
        let ephemeral = ephemeral(message);
        if self.answered.as_ref().is_some_and(|answered| answered.theirs == ephemeral) {
            Initiated::Answered
        } else if self.spent.contains(&ephemeral) {
            Initiated::Spent
        } else {
            Initiated::New
        }
    }

    /// Answers an initiation. What was begun here stays, as this one may be a recording; but only one side may do so, or each
    /// would use keys that the other has given up.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        us: Us<'_>,
        them: Them,
        message: &[u8; MESSAGE_LEN],
        rng: &mut impl CryptoRng,
    ) -> Result<Session, NoiseError> {
        let statics = Pair::new(us.identity, &them.key)?;
        let prologue = prologue(them.node, us.node);
        let ephemeral_key = AgreementKey::draw(rng);
        let (agreed, answer) =
            respond(&statics, &ephemeral_key, &prologue, message, &us.life.0.to_be_bytes())?;
        let life = life(&agreed.payload)?;
        let answer = answer.try_into().map_err(|_| NoiseError::NotAuthentic)?;
        if us.node < them.node {
            self.begun = None;
        }
        let theirs = ephemeral(message);
        self.answered = Some(Box::new(Answered { theirs, message: answer }));
        Ok(Session::agreed(agreed, life, Some(theirs), now))
    }

    /// Takes an answer to what was begun here; nothing happens if it is none.
    pub(crate) fn finish(
        &mut self,
        now: Instant,
        to: [u8; 4],
        message: &[u8; MESSAGE_LEN],
    ) -> Option<Session> {
        let begun = self.begun.as_ref().filter(|begun| begun.message.starts_with(&to))?;
        let agreed = begun.initiation.finish(message).ok()?;
        let life = life(&agreed.payload).ok()?;
        self.begun = None;
        Some(Session::agreed(agreed, life, None, now))
    }

    /// A frame came under the keys of an answer: it need not be repeated, and the initiation is spent. What was begun here
    /// is not needed any more.
    pub(crate) fn confirmed(&mut self, theirs: Ephemeral) {
        self.begun = None;
        self.forget_answer(theirs);
        if self.spent.len() == SPENT_MAX {
            self.spent.pop_front();
        }
        self.spent.push_back(theirs);
    }

    /// The keys of an answer are gone: a repeated initiation is answered anew.
    pub(crate) fn forget_answer(&mut self, theirs: Ephemeral) {
        self.answered = self.answered.take().filter(|answered| answered.theirs != theirs);
    }

    /// The peer is busy and gave us a cookie. `true` if that is news for what was begun here.
    pub(crate) fn take_cookie(&mut self, busy: Busy) -> bool {
        let Some(begun) = self.begun.as_mut().filter(|begun| begun.message.starts_with(&busy.to)) else {
            return false;
        };
        begun.cookie.replace(busy.cookie) != Some(busy.cookie)
    }

    /// Our identity is another one: what was begun with the old one is worth nothing.
    pub(crate) fn give_up(&mut self) {
        self.begun = None;
        self.answered = None;
    }
}

fn begin(now: Instant, us: Us<'_>, them: Them, rng: &mut impl CryptoRng) -> Option<Box<Begun>> {
    let statics = Pair::new(us.identity, &them.key).ok()?;
    let prologue = prologue(us.node, them.node);
    let (initiation, message) =
        Initiation::start(statics, AgreementKey::draw(rng), &prologue, &us.life.0.to_be_bytes()).ok()?;
    let message = message.try_into().ok()?;
    Some(Box::new(Begun { initiation, with: them, message, since: now, cookie: None }))
}

/// Binds the agreement to its purpose and to both numbers.
fn prologue(initiator: NodeId, responder: NodeId) -> [u8; 23] {
    let mut bytes = *b"pilot tunnel v2........";
    bytes[15..19].copy_from_slice(&initiator.0.to_be_bytes());
    bytes[19..].copy_from_slice(&responder.0.to_be_bytes());
    bytes
}

fn life(payload: &[u8]) -> Result<Life, NoiseError> {
    payload.try_into().map(|bytes| Life(u64::from_be_bytes(bytes))).map_err(|_| NoiseError::NotAuthentic)
}

fn ephemeral(message: &[u8; MESSAGE_LEN]) -> Ephemeral {
    let mut key = [0; 32];
    key.copy_from_slice(&message[..32]);
    key
}
