//! What may be sent to an address that never answered: three small packets.
//!
//! Addresses are named by others: by the registry, by the beacon, by peers, by whoever writes a source address on a
//! datagram. So that none of them can make this node a nuisance to somebody else, each packet to an address that has
//! not answered authentically is entered here, whatever it is for, and the fourth within [`WINDOW`] is not sent. Only
//! the own side allows three more before that: when somebody here wants to reach a peer, after one second, then two,
//! four and so on ([`Ledger::renew`]), and as often when that peer has just proved itself by another way
//! ([`Ledger::grant`]). And what is proved to be a peer's wish for keys is answered beyond the three at once, after one
//! second, two, four and so on ([`Ledger::take_in_return`]): then the address gets no more than it seems to send, and half a
//! dozen in all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Packets to an address that never answered. Two to open a box and one that gets through, or three of which two
/// are lost.
pub(crate) const PACKETS: u8 = 3;

/// After this long without a packet an address is forgotten, and has three again: a peer whose answers were all lost
/// must not stay without one for ever.
pub(crate) const WINDOW: Duration = Duration::from_secs(120);

/// The first wait before what goes beyond the three may do so again; doubled each time up to [`WAIT_MAX`].
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What was let out opens a box for the answer this long at least.
const OPEN_FOR: Duration = Duration::from_secs(20);

/// Addresses on the books. When full, what others cause is not sent; what our own side wants displaces the oldest.
pub(crate) const ENTRIES_MAX: usize = 4096;

/// How much was sent where.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: BTreeMap<SocketAddr, Entry>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    sent: u8,
    last: Instant,
    renewals: Turns,
    grants: Turns,
    /// Answers beyond the three.
    returns: Turns,
}

/// Something that may happen now, and then ever less often.
#[derive(Debug, Clone, Copy)]
struct Turns {
    next: Instant,
    wait: Duration,
}

impl Turns {
    const fn beginning(now: Instant) -> Self {
        Self { next: now, wait: WAIT_MIN }
    }

    fn take(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.next = now + self.wait;
            self.wait = (self.wait * 2).min(WAIT_MAX);
        }
        is_due
    }
}

impl Ledger {
    /// Addresses that packets were sent to and nothing came from.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Enters one packet to an address that never answered; `false` if it must not be sent.
    pub(crate) fn take(&mut self, now: Instant, addr: SocketAddr) -> bool {
        if !self.has_room_for(now, addr) {
            return false;
        }
        let entry = self.entry(now, addr);
        let allowed = entry.sent < PACKETS;
        if allowed {
            entry.sent += 1;
            entry.last = now;
        }
        allowed
    }

    /// What was entered last is not sent after all.
    pub(crate) fn put_back(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.sent = entry.sent.saturating_sub(1);
        }
    }

    /// Whether [`take`](Self::take) would be allowed, if there is room.
    pub(crate) fn has_left(&self, now: Instant, addr: SocketAddr) -> bool {
        self.entries.get(&addr).is_none_or(|entry| entry.sent < PACKETS || entry.last + WINDOW <= now)
    }

    /// As [`take`](Self::take), but leaves one: for the answer to a probe of the other side, or for a key exchange,
    /// without which nothing else is understood.
    pub(crate) fn take_spare(&mut self, now: Instant, addr: SocketAddr) -> bool {
        self.entries.get(&addr).is_none_or(|entry| entry.sent + 1 < PACKETS || entry.last + WINDOW <= now)
            && self.take(now, addr)
    }

    /// As [`take`](Self::take), for the answer to an exchange that only the peer can have made, though perhaps long ago and
    /// elsewhere: when the three are used up it is allowed at once, then after one second, two, four and so on. The peer may
    /// have seen none of the others.
    pub(crate) fn take_in_return(&mut self, now: Instant, addr: SocketAddr) -> bool {
        if self.take(now, addr) {
            return true;
        }
        self.entries.get_mut(&addr).is_some_and(|entry| entry.returns.take(now))
    }

    /// Our own side wants to try this address again. Refused while the last time is too short ago.
    pub(crate) fn renew(&mut self, now: Instant, addr: SocketAddr) {
        if !self.has_room_for(now, addr)
            && let Some(oldest) =
                self.entries.iter().min_by_key(|(_, entry)| entry.last).map(|(addr, _)| *addr)
        {
            self.entries.remove(&oldest);
        }
        let entry = self.entry(now, addr);
        if entry.renewals.take(now) {
            entry.sent = 0;
            entry.last = now;
        }
    }

    /// Our own side wants the peer at this address, and the peer has just proved itself by another way: three more,
    /// whatever the first words cost. Not whenever it does so: it may prove itself again and again, and name whom it likes.
    pub(crate) fn grant(&mut self, now: Instant, addr: SocketAddr) {
        self.renew(now, addr);
        let entry = self.entry(now, addr);
        if entry.grants.take(now) {
            entry.sent = 0;
        }
    }

    /// Whether something was sent there so lately that our box is still open for it.
    pub(crate) fn wrote(&self, now: Instant, addr: SocketAddr) -> bool {
        self.entries.get(&addr).is_some_and(|entry| entry.sent > 0 && entry.last + OPEN_FOR > now)
    }

    /// It answered: it is no stranger any more.
    pub(crate) fn answered(&mut self, addr: SocketAddr) {
        self.entries.remove(&addr);
    }

    /// Our own network is another one, so what did not answer may answer from here.
    pub(crate) fn clear_waits(&mut self, now: Instant) {
        for entry in self.entries.values_mut() {
            entry.renewals = Turns::beginning(now);
            entry.grants = Turns::beginning(now);
        }
    }

    fn entry(&mut self, now: Instant, addr: SocketAddr) -> &mut Entry {
        let turns = Turns::beginning(now);
        let fresh = Entry { sent: 0, last: now, renewals: turns, grants: turns, returns: turns };
        let entry = self.entries.entry(addr).or_insert(fresh);
        if entry.last + WINDOW <= now && entry.renewals.next <= now {
            *entry = fresh;
        } else if entry.last + WINDOW <= now {
            entry.sent = 0;
        }
        entry
    }

    fn has_room_for(&mut self, now: Instant, addr: SocketAddr) -> bool {
        if self.entries.len() < ENTRIES_MAX || self.entries.contains_key(&addr) {
            return true;
        }
        self.entries.retain(|_, entry| entry.last + WINDOW > now || entry.renewals.next > now);
        self.entries.len() < ENTRIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(last: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], last))
    }

    fn taken(ledger: &mut Ledger, now: Instant) -> usize {
        (0..10).filter(|_| ledger.take(now, addr(1))).count()
    }

    #[test]
    fn an_answer_that_is_owed_goes_out_now_and_then_when_the_three_are_used_up() {
        let mut ledger = Ledger::default();
        let now = crate::testing::start();
        assert_eq!((0..10).filter(|_| ledger.take_in_return(now, addr(1))).count(), 4);
        let millis = (0..120_000).step_by(100).map(Duration::from_millis);
        let answered = millis.filter(|&later| ledger.take_in_return(now + later, addr(1)));
        assert_eq!(answered.map(|at| at.as_secs()).collect::<Vec<_>>(), [1, 3, 7, 15, 31, 63]);
        assert!(!ledger.take(now + WINDOW - WAIT_MIN, addr(1)), "nothing else is let out by that");
        assert!(ledger.take(now + WINDOW, addr(1)));
    }

    #[test]
    fn three_packets_and_no_more_until_two_minutes_have_passed() {
        let start = crate::testing::start();
        let mut ledger = Ledger::default();
        assert_eq!(taken(&mut ledger, start), 3);
        for seconds in 1..120 {
            assert_eq!(taken(&mut ledger, start + Duration::from_secs(seconds)), 0);
        }
        assert_eq!(taken(&mut ledger, start + WINDOW), 3);
    }

    #[test]
    fn what_was_not_sent_after_all_may_be_sent_later() {
        let now = crate::testing::start();
        let mut ledger = Ledger::default();
        ledger.put_back(addr(1));
        assert!(ledger.take(now, addr(1)));
        ledger.put_back(addr(1));
        assert_eq!(taken(&mut ledger, now), 3);
    }

    #[test]
    fn our_own_side_may_try_again_with_back_off() {
        let start = crate::testing::start();
        let mut ledger = Ledger::default();
        let mut allowed = Vec::new();
        for millis in (0..40_000).step_by(250) {
            let now = start + Duration::from_millis(millis);
            ledger.renew(now, addr(1));
            if taken(&mut ledger, now) == 3 {
                allowed.push(millis / 1000);
            }
        }
        assert_eq!(allowed, [0, 1, 3, 7, 15, 31]);
    }

    #[test]
    fn a_peer_that_proves_itself_all_the_time_has_us_write_to_whom_it_names_ever_less_often() {
        let start = crate::testing::start();
        let mut ledger = Ledger::default();
        let mut sent = 0;
        for millis in (0..120_000).step_by(250) {
            let now = start + Duration::from_millis(millis);
            ledger.grant(now, addr(1));
            sent += taken(&mut ledger, now);
        }
        // At once, and after 1, 3, 7, 15, 31 and 63 seconds.
        assert_eq!(sent, 7 * 3);
    }

    #[test]
    fn an_address_that_answered_starts_afresh() {
        let now = crate::testing::start();
        let mut ledger = Ledger::default();
        assert_eq!(taken(&mut ledger, now), 3);
        ledger.answered(addr(1));
        assert_eq!(taken(&mut ledger, now), 3);
    }

    #[test]
    fn a_flood_of_addresses_neither_grows_the_books_nor_keeps_our_own_side_from_trying() {
        let now = crate::testing::start();
        let mut ledger = Ledger::default();
        let sent = (0..20_000).filter(|&port| ledger.take(now, addr(port))).count();
        assert_eq!(sent, ENTRIES_MAX);
        let ours = SocketAddr::from(([10, 0, 0, 2], 1));
        assert!(!ledger.take(now, ours));
        ledger.renew(now, ours);
        assert!(ledger.take(now, ours));
        assert!(ledger.entries.len() <= ENTRIES_MAX);
    }
}
