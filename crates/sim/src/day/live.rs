//! Lives through a [`Day`] and judges it.

mod happen;
mod talk;

use std::time::Duration;

use super::{DAY, Day, Episode, Memory, SECOND, Trouble};
use crate::{Conditions, Content, Detail, Fault, Host, Role, Script, World};
use talk::{SPEAK_LIMIT, WORD, WORD_EVERY};

/// The first port of the streams of a day.
const FIRST_PORT: u16 = 2000;

/// What is said while keys are to be replaced under a stream.
const SENTENCE: usize = 500;
const SENTENCE_EVERY: Duration = SECOND;

/// What is said where the size of datagrams matters, and how long it takes to find out which are the largest that pass.
const LONG_WORD: usize = 4000;
const SEARCH: Duration = Duration::from_secs(10);

/// How long a chat goes on before something happens, and how long it is watched afterwards.
const BEFORE: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(12);

/// Writing goes on for this much longer, so that what is late is not taken for the end.
const AFTER: Duration = Duration::from_secs(3);

/// After this time of rest there are keepalives only.
const SETTLED: Duration = Duration::from_secs(5 * 60);

/// That is looked at for so long.
const QUIET: Duration = Duration::from_secs(120);

/// Datagrams that a node may send to the beacon and to each other node in that time while nobody wants anything: a
/// keepalive each way in 25 s and its answer, repeated if it was lost, probes for a better way, and those for peers that
/// were away.
const QUIET_DATAGRAMS_PER_WAY: u64 = 30;

/// The longest wait between two transmissions of one segment.
const MAX_RTO: Duration = Duration::from_secs(5);

/// How long an address that did not answer is not written to.
const SILENCE: Duration = Duration::from_secs(120);

/// After everything is over.
const EVENING: Duration = Duration::from_secs(15 * 60);

/// What happened on a day.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// How long data did not flow after each trouble was over.
    pub recoveries: Vec<Recovery>,
    /// The most datagrams in two minutes of rest, for each way from a node to another or to the beacon.
    pub noise: f64,
    /// Streams that were opened.
    pub streams: u64,
    /// Bytes that applications read and found right.
    pub bytes: u64,
}

/// After one trouble.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recovery {
    /// What it was.
    pub trouble: Trouble,
    /// How long no data flowed, from when the network was as good as it got.
    pub took: Duration,
    /// How long it might have taken.
    pub limit: Duration,
}

impl Day {
    /// Lives through the day and judges it.
    pub fn run(&self, detail: Detail) -> (World, Journal, Result<(), Fault>) {
        let mut live =
            Live { day: self, world: self.build(detail), journal: Journal::default(), port: FIRST_PORT };
        let result = live.live();
        let Live { world, mut journal, .. } = live;
        journal.streams = world.transfers().count() as u64;
        journal.bytes = world
            .transfers()
            .flat_map(|id| [Role::Dialer, Role::Listener].map(|role| world.progress(id, role).read))
            .sum();
        (world, journal, result)
    }

    /// Within this time after the network is as good as it gets data flows again.
    pub fn limit(&self, trouble: Trouble) -> Duration {
        let Conditions { delay, jitter, loss, corrupt, reorder, .. } = self.conditions;
        let clean = SECOND + 8 * (delay + jitter);
        // What is sent again may be lost again, and each time the wait is longer.
        let line = if loss + corrupt + reorder > 0.0 { 3 * clean } else { clean };
        match trouble {
            // Two steps, each of which has to be found out: to the size that every path begins with, and to fragments.
            Trouble::Narrows(_) => line * 5 / 2,
            // Each has to hear of the other by way of the beacon.
            Trouble::BothMove(..) => line * 5 / 2,
            // Nobody but the peer can say that the network is back, and it waits as long as it last waited in vain.
            Trouble::Outage(_) if !self.beacon => line + MAX_RTO,
            // Who wrote three times in vain to an address writes there again after that, if it has no wish of its own.
            Trouble::Stripped(_) => line + SILENCE,
            Trouble::Outage(_)
            | Trouble::Rebinds
            | Trouble::BoxRestarts
            | Trouble::Moves(..)
            | Trouble::MovesAndRebinds(..)
            | Trouble::DirectCut
            | Trouble::ClockSteps(_)
            | Trouble::Sleeps(_)
            | Trouble::BeaconRestarts(_)
            | Trouble::BadLine(_)
            | Trouble::Replays(_)
            | Trouble::Stuck(_)
            | Trouble::Partition(_)
            | Trouble::SleepsLong(_)
            | Trouble::Killed(_)
            | Trouble::AllKilled
            | Trouble::DialEachOther
            | Trouble::RegistryAway(_)
            | Trouble::RegistryRestarts(_)
            | Trouble::InUse(_) => line,
        }
    }
}

struct Live<'a> {
    day: &'a Day,
    world: World,
    journal: Journal,
    port: u16,
}

impl Live<'_> {
    fn live(&mut self) -> Result<(), Fault> {
        self.world.run_for(5 * SECOND);
        if !self.day.public {
            let count = self.day.nodes.len();
            for (a, b) in (0..count).flat_map(|b| (0..b).map(move |a| (Host(a), Host(b)))) {
                self.world.befriend(a, b);
            }
        }
        self.check()?;
        for episode in &self.day.troubles {
            self.rest(episode.rest)?;
            self.endure(episode)?;
            self.check()?;
        }
        self.rest(DAY.saturating_sub(self.world.elapsed()).max(EVENING))?;
        self.is_all_over()
    }

    fn check(&mut self) -> Result<(), Fault> {
        self.world.check_tables();
        self.world.fault().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Nothing happens, and little may be sent.
    fn rest(&mut self, time: Duration) -> Result<(), Fault> {
        self.world.run_for(SETTLED);
        let before = self.world.datagrams();
        self.world.run_for(QUIET);
        let datagrams = self.world.datagrams() - before;
        let count = self.day.nodes.len() as u64;
        let ways = count * if self.day.beacon { count } else { count - 1 };
        self.journal.noise = self.journal.noise.max(datagrams as f64 / ways as f64);
        if datagrams > ways * QUIET_DATAGRAMS_PER_WAY {
            return Err(Fault::Noise { datagrams });
        }
        self.world.run_for(time.saturating_sub(SETTLED + QUIET));
        self.check()
    }

    fn endure(&mut self, episode: &Episode) -> Result<(), Fault> {
        match episode.trouble {
            Trouble::Narrows(_)
            | Trouble::Rebinds
            | Trouble::BoxRestarts
            | Trouble::Moves(..)
            | Trouble::MovesAndRebinds(..)
            | Trouble::BothMove(..)
            | Trouble::DirectCut
            | Trouble::ClockSteps(_)
            | Trouble::Outage(_)
            | Trouble::Sleeps(_)
            | Trouble::BeaconRestarts(_)
            | Trouble::BadLine(_)
            | Trouble::Replays(_) => self.interrupt(episode),
            Trouble::Partition(_)
            | Trouble::SleepsLong(_)
            | Trouble::Killed(_)
            | Trouble::AllKilled
            | Trouble::Stripped(_)
            | Trouble::RegistryRestarts(_) => self.end(episode),
            Trouble::Stuck(time) => self.talk_beside(episode, time),
            Trouble::RegistryAway(time) => self.do_without_registry(episode, time),
            Trouble::DialEachOther => self.dial_each_other(episode),
            Trouble::InUse(time) => self.use_for(episode, time),
        }
    }

    /// A stream that has to outlive what happens, and to lose nothing.
    fn interrupt(&mut self, episode: &Episode) -> Result<(), Fault> {
        let lasts = episode.trouble.lasts();
        let narrows = matches!(episode.trouble, Trouble::Narrows(_));
        let (word, before) = if narrows { (LONG_WORD, SEARCH) } else { (WORD, BEFORE) };
        let id = self.chat(episode, word, WORD_EVERY, before + lasts + WATCHED + AFTER)?;
        self.world.run_for(before);
        self.begin(episode);
        self.world.run_for(lasts);
        self.relent(episode);
        let took = self.gap(id, WATCHED);
        self.world.set_conditions(self.day.conditions);
        self.recovered(episode.trouble, took)?;
        self.finish(id, true)
    }

    /// A stream that may end with an error, and one that is opened afterwards.
    fn end(&mut self, episode: &Episode) -> Result<(), Fault> {
        let id = self.chat(episode, WORD, WORD_EVERY, BEFORE + WATCHED)?;
        self.world.run_for(BEFORE);
        self.begin(episode);
        self.world.run_for(episode.trouble.lasts());
        self.relent(episode);
        let took = self.speak(episode)?;
        self.recovered(episode.trouble, took)?;
        self.finish(id, false)
    }

    fn talk_beside(&mut self, episode: &Episode, time: Duration) -> Result<(), Fault> {
        let id = self.chat(episode, WORD, WORD_EVERY, BEFORE + time + AFTER)?;
        self.world.run_for(BEFORE);
        let stuck = self.stick(episode, time);
        let took = self.gap(id, time);
        self.recovered(episode.trouble, took)?;
        self.finish(id, true)?;
        self.finish(stuck, true)
    }

    fn do_without_registry(&mut self, episode: &Episode, time: Duration) -> Result<(), Fault> {
        self.speak(episode)?;
        self.world.set_registry_reachable(false);
        for _ in 0..3 {
            self.world.run_for(time / 3);
            let took = self.speak(episode)?;
            self.recovered(episode.trouble, took)?;
        }
        self.world.set_registry_reachable(true);
        let took = self.speak(episode)?;
        self.recovered(episode.trouble, took)
    }

    fn dial_each_other(&mut self, episode: &Episode) -> Result<(), Fault> {
        let (a, b) = (episode.who, episode.peer);
        for host in [a, b] {
            self.world.restart_with(host, Memory::All);
        }
        let began = self.world.elapsed();
        let script = |content| Script::eager(1000, Content::Noise(content));
        let ids = [(a, b), (b, a)].map(|(from, to)| self.converse(from, to, script(1), script(2)));
        let heard = |world: &World| ids.iter().all(|&id| world.progress(id, Role::Listener).read == 1000);
        self.world.run_until(SPEAK_LIMIT, heard);
        let took = self.world.elapsed() - began;
        self.recovered(episode.trouble, took)?;
        ids.into_iter().try_for_each(|id| self.finish(id, true))
    }

    fn use_for(&mut self, episode: &Episode, time: Duration) -> Result<(), Fault> {
        let id = self.chat(episode, SENTENCE, SENTENCE_EVERY, time)?;
        let longest = self.gap(id, time - 10 * SENTENCE_EVERY);
        self.recovered(episode.trouble, longest.saturating_sub(SENTENCE_EVERY))?;
        self.finish(id, true)
    }

    fn recovered(&mut self, trouble: Trouble, took: Duration) -> Result<(), Fault> {
        self.check()?;
        let limit = self.day.limit(trouble);
        self.journal.recoveries.push(Recovery { trouble, took, limit });
        if took > limit { Err(Fault::Slow { what: trouble.name(), took, limit }) } else { Ok(()) }
    }

    /// No stream is left of all that were.
    fn is_all_over(&self) -> Result<(), Fault> {
        for host in (0..self.day.nodes.len()).map(Host) {
            let left = self.world.look_at(host).streams().count();
            if left > 0 {
                return Err(Fault::Left { host, table: "streams", len: left });
            }
        }
        Ok(())
    }
}
