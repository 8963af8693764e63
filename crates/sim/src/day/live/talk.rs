//! The streams of a day.

use std::time::Duration;

use pilot_proto::Closed;
use pilot_wire::Port;

use super::{Episode, Live};
use crate::{Content, Fault, Finishes, Host, Pace, Role, Script, Transfer, TransferId, World};

/// A chat is so many bytes each way in each of these times: enough to see when nothing flows.
pub(super) const WORD: usize = 100;
pub(super) const WORD_EVERY: Duration = Duration::from_millis(100);

/// Looked at so often.
const STEP: Duration = Duration::from_millis(10);

/// By then a stream whose peer is gone has ended: what is not acknowledged is given up after a minute, a silent peer after
/// two, and closing takes another.
const END_LIMIT: Duration = Duration::from_secs(300);

/// A dial that does not succeed is tried again for so long, as an application would.
pub(super) const SPEAK_LIMIT: Duration = Duration::from_secs(150);

/// What is sent on a stream that is not read.
const MUCH: u64 = 300_000;

/// What is said once.
const MESSAGE: u64 = 1000;

impl Live<'_> {
    pub(super) fn converse(
        &mut self,
        dialer: Host,
        listener: Host,
        dialing: Script,
        listening: Script,
    ) -> TransferId {
        let port = Port(self.port);
        self.port += 1;
        let starts = self.world.elapsed();
        self.world.transfer(Transfer { dialer, listener, port, starts, dialing, listening })
    }

    /// Some bytes both ways now and then for `lasts`, and then both end at once. Returns when it flows.
    pub(super) fn chat(
        &mut self,
        episode: &Episode,
        bytes: usize,
        every: Duration,
        lasts: Duration,
    ) -> Result<TransferId, Fault> {
        let (dialer, listener) = ends(episode);
        let words = u64::try_from(lasts.as_millis() / every.as_millis()).unwrap_or(u64::MAX);
        let script = |content| Script {
            writes: Pace::Slow { bytes, every },
            ..Script::eager(words.saturating_mul(bytes as u64), Content::Noise(content))
        };
        let id = self.converse(dialer, listener, script(3), script(4));
        let flows = |world: &World| {
            [Role::Dialer, Role::Listener].iter().all(|&role| world.progress(id, role).read > 0)
        };
        if self.world.run_until(SPEAK_LIMIT, flows) {
            return Ok(id);
        }
        self.check()?;
        Err(Fault::Unfinished(id, Role::Dialer, format!("{:?}", self.world.progress(id, Role::Dialer))))
    }

    /// A stream of the same pair that is not read for a time, and then is.
    pub(super) fn stick(&mut self, episode: &Episode, time: Duration) -> TransferId {
        let (dialer, listener) = ends(episode);
        let much = Script::eager(MUCH, Content::Noise(5));
        let lazy = Pace::Slow { bytes: MUCH as usize, every: time };
        let reader =
            Script { pace: lazy, finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(6)) };
        self.converse(dialer, listener, much, reader)
    }

    /// The longest time without a byte in either direction, while more is to come.
    pub(super) fn gap(&mut self, id: TransferId, time: Duration) -> Duration {
        let roles = [Role::Dialer, Role::Listener];
        let began = self.world.elapsed();
        let mut last = roles.map(|role| self.world.progress(id, role).read);
        let (mut longest, mut since) = (Duration::ZERO, [began; 2]);
        while self.world.elapsed() < began + time && self.world.fault().is_none() {
            self.world.run_for(STEP);
            let now = self.world.elapsed();
            for (side, role) in roles.into_iter().enumerate() {
                let read = self.world.progress(id, role).read;
                if read > last[side] || read == self.world.expects(id, role) {
                    (last[side], since[side]) = (read, now);
                }
                longest = longest.max(now - since[side]);
            }
        }
        longest
    }

    /// How long it takes until a message is there, if a dial that fails is repeated.
    pub(super) fn speak(&mut self, episode: &Episode) -> Result<Duration, Fault> {
        let (from, to) = ends(episode);
        let began = self.world.elapsed();
        loop {
            let there = Script::eager(MESSAGE, Content::Noise(7));
            let back = Script { finishes: Finishes::AfterPeer, ..Script::eager(MESSAGE, Content::Noise(8)) };
            let id = self.converse(from, to, there, back);
            self.world.run_until(SPEAK_LIMIT, |world| {
                world.progress(id, Role::Listener).read == MESSAGE
                    || world.progress(id, Role::Dialer).ended.is_some()
            });
            self.check()?;
            let took = self.world.elapsed() - began;
            if self.world.progress(id, Role::Listener).read == MESSAGE {
                self.finish(id, true)?;
                return Ok(took);
            }
            let ended = self.world.progress(id, Role::Dialer).ended;
            if took >= SPEAK_LIMIT || !matches!(ended, Some(Closed::Dial(_))) {
                return Err(Fault::Failed(id, Role::Dialer, format!("{ended:?} after {took:?}")));
            }
            self.world.run_for(STEP);
        }
    }

    /// Both ends are told within a known time, and have all bytes if nothing excuses less.
    pub(super) fn finish(&mut self, id: TransferId, must_be_complete: bool) -> Result<(), Fault> {
        let over = self.world.run_until(END_LIMIT, |world| world.is_over(id));
        self.check()?;
        for role in [Role::Dialer, Role::Listener] {
            let progress = self.world.progress(id, role);
            if !over {
                return Err(Fault::Unfinished(id, role, format!("{progress:?}")));
            }
            if must_be_complete && !progress.complete {
                return Err(Fault::Failed(id, role, format!("{progress:?}")));
            }
        }
        Ok(())
    }
}

/// Who dials whom.
fn ends(episode: &Episode) -> (Host, Host) {
    if episode.who_dials { (episode.who, episode.peer) } else { (episode.peer, episode.who) }
}
