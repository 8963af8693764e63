//! Beacons that have been announced: here, or at another instance over the same records. They are not kept: who runs a
//! beacon announces it every half minute.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// Most beacons.
pub(super) const BEACONS_MAX: usize = 64;
/// Longest address of a beacon, in bytes.
pub(super) const BEACON_ADDR_MAX: usize = 255;
/// How long an announcement holds.
const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Beacons {
    known: BTreeMap<u32, Announced>,
    /// This process's, for the other instances. It is listed where there are others: who knows of one only has it from
    /// its own settings.
    own: Option<(u32, String)>,
    /// Announced here since the others were told.
    news: BTreeSet<u32>,
}

#[derive(Debug)]
struct Announced {
    addr: String,
    at: Instant,
}

impl Beacons {
    /// Somebody announced it here. False if there are too many.
    pub(super) fn announce(&mut self, now: Instant, id: u32, addr: String) -> bool {
        let taken = self.insert(now, id, addr);
        if taken {
            self.news.insert(id);
        }
        taken
    }

    pub(super) fn announce_own(&mut self, id: u32, addr: String) {
        self.own = Some((id, addr));
    }

    /// It was announced at another instance.
    pub(super) fn announced_elsewhere(&mut self, now: Instant, id: u32, addr: String) {
        if id != 0 && !addr.is_empty() && addr.len() <= BEACON_ADDR_MAX {
            self.insert(now, id, addr);
        }
    }

    /// With their addresses.
    pub(super) fn known(&mut self, now: Instant) -> impl Iterator<Item = (u32, &str)> {
        self.forget(now);
        let own = self.own.as_ref().filter(|_| !self.known.is_empty());
        let others = self.known.iter().map(|(id, beacon)| (*id, beacon.addr.as_str()));
        let mut all: Vec<_> = own.map(|(id, addr)| (*id, addr.as_str())).into_iter().chain(others).collect();
        // At every instance the same list, from which nodes choose by a hash of their number.
        all.sort_unstable();
        all.into_iter()
    }

    /// What is to be told to the other instances: this process's own, and what was announced here since the last call.
    pub(super) fn take_news(&mut self) -> Vec<(u32, String)> {
        let news = std::mem::take(&mut self.news);
        let news = news.into_iter().filter_map(|id| Some((id, self.known.get(&id)?.addr.clone())));
        self.own.iter().cloned().chain(news).collect()
    }

    fn insert(&mut self, now: Instant, id: u32, addr: String) -> bool {
        self.forget(now);
        if self.known.len() >= BEACONS_MAX && !self.known.contains_key(&id) {
            return false;
        }
        self.known.insert(id, Announced { addr, at: now });
        true
    }

    fn forget(&mut self, now: Instant) {
        self.known.retain(|_, beacon| now.saturating_duration_since(beacon.at) < LIFETIME);
        self.news.retain(|id| self.known.contains_key(id));
    }
}
