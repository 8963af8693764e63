//! What came before the answers to our requests, until the programs that wait for it have fetched it.
//!
//! Nothing here is needed: an answer carries everything again. So what does not fit is dropped, and the program that
//! fetches the rest sees from the numbers that something is missing.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{Interim, InterimKind, MessageId};
use tokio::sync::Notify;

/// Requests of ours with somebody waiting. Of more, the one that was asked for least lately is forgotten.
pub(super) const ASKED_MAX: usize = 4096;

/// Interim messages kept for one request; newer ones are dropped.
pub(super) const EVENTS_MAX: usize = 1024;

/// Bytes of them; newer ones are dropped.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// Bytes kept for all requests; newer ones are dropped.
pub(super) const TOTAL_MAX: usize = 32 << 20;

/// Bytes handed over in one reply, which must fit into a frame of the local socket in base64.
const REPLY_MAX: usize = 512 << 10;

/// One interim message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct News {
    pub(super) run: u64,
    pub(super) number: u32,
    pub(super) kind: InterimKind,
    pub(super) data: Bytes,
}

#[derive(Debug)]
struct Watched {
    to: NodeId,
    run: u64,
    events: BTreeMap<u32, (InterimKind, Bytes)>,
    bytes: usize,
    used: u64,
    news: Arc<Notify>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Asked {
    watched: BTreeMap<MessageId, Watched>,
    bytes: usize,
    clock: u64,
}

impl Asked {
    /// From now on what comes before the answer to `id` is kept; news of it is notified.
    pub(super) fn watch(&mut self, id: &MessageId, to: NodeId) -> Arc<Notify> {
        self.clock += 1;
        let used = self.clock;
        if let Some(watched) = self.watched.get_mut(id) {
            watched.used = used;
            return Arc::clone(&watched.news);
        }
        while self.watched.len() >= ASKED_MAX {
            let oldest = self.watched.iter().min_by_key(|(_, watched)| watched.used);
            let Some(oldest) = oldest.map(|(id, _)| id.clone()) else { break };
            self.forget(&oldest);
        }
        let news = Arc::new(Notify::new());
        let watched =
            Watched { to, run: 0, events: BTreeMap::new(), bytes: 0, used, news: Arc::clone(&news) };
        self.watched.insert(id.clone(), watched);
        news
    }

    /// Nobody waits any more.
    pub(super) fn forget(&mut self, id: &MessageId) {
        if let Some(watched) = self.watched.remove(id) {
            self.bytes -= watched.bytes;
        }
    }

    /// A peer says something about a request; says whether that is news.
    pub(super) fn on_interim(&mut self, from: NodeId, id: &MessageId, interim: Interim, data: Bytes) -> bool {
        let Some(watched) = self.watched.get_mut(id).filter(|watched| watched.to == from) else {
            return false;
        };
        if interim.run < watched.run {
            return false;
        }
        if interim.run > watched.run {
            // The work was begun anew; what came of the earlier run is worth nothing.
            self.bytes -= watched.bytes;
            (watched.run, watched.bytes) = (interim.run, 0);
            watched.events.clear();
        }
        let is_known = watched.events.contains_key(&interim.number);
        let fits = watched.events.len() < EVENTS_MAX
            && watched.bytes + data.len() <= BYTES_MAX
            && self.bytes + data.len() <= TOTAL_MAX;
        if is_known || !fits {
            return false;
        }
        watched.bytes += data.len();
        self.bytes += data.len();
        watched.events.insert(interim.number, (interim.kind, data));
        watched.news.notify_waiters();
        true
    }

    /// What came after a number of a run. What came before it has been seen, and is forgotten.
    pub(super) fn after(&mut self, id: &MessageId, run: u64, number: u32) -> Vec<News> {
        let Some(watched) = self.watched.get_mut(id) else { return Vec::new() };
        if watched.run == run {
            let rest = watched.events.split_off(&number.saturating_add(1));
            let seen = std::mem::replace(&mut watched.events, rest);
            let seen: usize = seen.values().map(|(_, data)| data.len()).sum();
            watched.bytes -= seen;
            self.bytes -= seen;
        }
        let mut room = REPLY_MAX;
        let mut news = Vec::new();
        for (number, (kind, data)) in &watched.events {
            let Some(left) = room.checked_sub(data.len()) else { break };
            room = left;
            news.push(News { run: watched.run, number: *number, kind: *kind, data: data.clone() });
        }
        news
    }

    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: NodeId = NodeId(2);

    fn id(text: &str) -> MessageId {
        text.parse().unwrap()
    }

    fn part(asked: &mut Asked, run: u64, number: u32, data: &'static [u8]) -> bool {
        let interim = Interim { number, kind: InterimKind::Part, run };
        asked.on_interim(WORKER, &id("q"), interim, Bytes::from_static(data))
    }

    fn numbers(news: &[News]) -> Vec<u32> {
        news.iter().map(|news| news.number).collect()
    }

    #[test]
    fn what_was_seen_is_forgotten_and_the_rest_is_handed_out_again() {
        let mut asked = Asked::default();
        asked.watch(&id("q"), WORKER);
        for number in [1, 3, 2] {
            assert!(part(&mut asked, 7, number, b"x"));
        }
        assert_eq!(numbers(&asked.after(&id("q"), 0, 0)), [1, 2, 3]);
        assert_eq!(numbers(&asked.after(&id("q"), 7, 2)), [3], "the answer to the first call may be lost");
        assert_eq!(asked.bytes, 1);
        asked.forget(&id("q"));
        assert_eq!(asked.bytes, 0);
    }

    #[test]
    fn only_the_node_that_was_asked_is_heard() {
        let mut asked = Asked::default();
        assert!(!part(&mut asked, 1, 1, b"x"), "nobody waits");
        asked.watch(&id("q"), WORKER);
        let interim = Interim { number: 1, kind: InterimKind::Part, run: 1 };
        assert!(!asked.on_interim(NodeId(3), &id("q"), interim, Bytes::new()));
        assert!(part(&mut asked, 1, 1, b"x"));
        assert!(!part(&mut asked, 1, 1, b"y"), "a repetition is no news");
    }

    #[test]
    fn a_later_run_replaces_what_the_earlier_one_brought() {
        let mut asked = Asked::default();
        asked.watch(&id("q"), WORKER);
        part(&mut asked, 1, 1, b"old");
        assert!(part(&mut asked, 2, 1, b"new"));
        assert!(!part(&mut asked, 1, 2, b"late"));
        let news = asked.after(&id("q"), 1, 1);
        assert_eq!((news.len(), news[0].run, &news[0].data[..]), (1, 2, &b"new"[..]));
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_what_fits_stays() {
        let mut asked = Asked::default();
        asked.watch(&id("q"), WORKER);
        for number in 1..=u32::try_from(EVENTS_MAX).unwrap() {
            assert!(part(&mut asked, 1, number, b""));
        }
        assert!(!part(&mut asked, 1, 5000, b""));
        asked.after(&id("q"), 1, 1);
        assert!(part(&mut asked, 1, 5000, b""));
        let large = Bytes::from(vec![0; BYTES_MAX + 1]);
        let interim = Interim { number: 6000, kind: InterimKind::Part, run: 1 };
        assert!(!asked.on_interim(WORKER, &id("q"), interim, large));
    }

    #[test]
    fn of_too_many_requests_the_one_that_was_used_least_lately_goes() {
        let mut asked = Asked::default();
        for at in 0..ASKED_MAX {
            asked.watch(&id(&format!("q-{at}")), WORKER);
        }
        asked.watch(&id("q-0"), WORKER);
        asked.watch(&id("one-more"), WORKER);
        assert_eq!(asked.len(), ASKED_MAX);
        assert!(asked.watched.contains_key(&id("q-0")) && !asked.watched.contains_key(&id("q-1")));
    }
}
