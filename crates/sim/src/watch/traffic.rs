//! Who sent how much where, and whether anybody there ever answered.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::Host;

/// Packets that a node may send within [`WINDOW`] to an address from which nothing authentic ever came: whatever
/// others say, nobody is bothered by more.
const STRANGER_PACKETS_MAX: usize = 3;

/// The same where its own side wants somebody: three at first and after 1, 3, 7, 15, 31 and 63 seconds, and as many when
/// peers that are said to be there have proved themselves by another way. All that again when the own network changes, which
/// the random worlds do not do to somebody silent often enough to need more.
const WANTED_PACKETS_MAX: usize = 3 * 7 * 2;

/// None of them is larger.
const STRANGER_BYTES_MAX: usize = 200;

const WINDOW: Duration = Duration::from_secs(120);

/// What went from one host to one address, or to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many datagrams.
    pub datagrams: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// A node bothers an address that never answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bother {
    /// With a packet of this size.
    Large(usize),
    /// With more packets than others may make it send.
    Many(usize),
    /// With more packets than its own side may make it send.
    TooMany(usize),
}

impl fmt::Display for Bother {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Large(len) => write!(f, "{len} bytes"),
            Self::Many(count) => write!(f, "{count} packets, without a wish of its own,"),
            Self::TooMany(count) => write!(f, "{count} packets"),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    accounts: BTreeMap<(Host, SocketAddr), Account>,
    /// Addresses that a node is told to talk to by its owner.
    exempt: BTreeSet<SocketAddr>,
    /// Addresses that nobody has a reason to want.
    protected: BTreeSet<SocketAddr>,
}

#[derive(Debug, Default)]
struct Account {
    sent: Traffic,
    answered: bool,
    /// When the last packets were sent there, while nothing has come from there.
    unanswered: VecDeque<Instant>,
}

impl Ledger {
    pub(super) fn exempt(&mut self, addr: SocketAddr) {
        self.exempt.insert(addr);
    }

    pub(super) fn protect(&mut self, addr: SocketAddr) {
        self.protected.insert(addr);
    }

    pub(super) fn sent(
        &mut self,
        now: Instant,
        from: Host,
        to: SocketAddr,
        len: usize,
    ) -> Result<(), Bother> {
        let account = self.accounts.entry((from, to)).or_default();
        account.sent.datagrams += 1;
        account.sent.bytes += len as u64;
        if account.answered || self.exempt.contains(&to) {
            return Ok(());
        }
        if len > STRANGER_BYTES_MAX {
            return Err(Bother::Large(len));
        }
        account.unanswered.retain(|&at| at + WINDOW > now);
        account.unanswered.push_back(now);
        match account.unanswered.len() {
            ..=STRANGER_PACKETS_MAX => Ok(()),
            count @ ..=WANTED_PACKETS_MAX if !self.protected.contains(&to) => Err(Bother::Many(count)),
            count => Err(Bother::TooMany(count)),
        }
    }

    pub(super) fn answered(&mut self, to: Host, from: SocketAddr) {
        let account = self.accounts.entry((to, from)).or_default();
        account.answered = true;
        account.unanswered = VecDeque::new();
    }

    /// What was sent there reached another node: so there is somebody, whichever way the answer comes.
    pub(super) fn reached(&mut self, from: Host, to: SocketAddr) {
        if !self.protected.contains(&to) {
            self.answered(from, to);
        }
    }

    pub(super) fn sent_by(&self, host: Host, addr: Option<SocketAddr>) -> Traffic {
        let accounts = self
            .accounts
            .iter()
            .filter(|((from, to), _)| *from == host && addr.is_none_or(|addr| addr == *to));
        accounts.fold(Traffic::default(), |sum, (_, account)| Traffic {
            datagrams: sum.datagrams + account.sent.datagrams,
            bytes: sum.bytes + account.sent.bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fourth_packet_to_somebody_silent_is_one_too_many() {
        let now = Instant::now();
        let [silent, beacon]: [SocketAddr; 2] =
            ["192.0.2.1:1", "203.0.113.1:9001"].map(|at| at.parse().unwrap());
        let mut ledger = Ledger::default();
        ledger.exempt(beacon);
        for _ in 0..3 {
            assert_eq!(ledger.sent(now, Host(0), silent, 150), Ok(()));
        }
        for count in 4..=WANTED_PACKETS_MAX {
            assert_eq!(ledger.sent(now, Host(0), silent, 4), Err(Bother::Many(count)));
        }
        assert_eq!(ledger.sent(now, Host(0), silent, 4), Err(Bother::TooMany(WANTED_PACKETS_MAX + 1)));
        assert_eq!(ledger.sent(now, Host(1), silent, 150), Ok(()), "another node");
        assert_eq!(ledger.sent(now, Host(1), silent, 300), Err(Bother::Large(300)));
        for _ in 0..10 {
            assert_eq!(ledger.sent(now, Host(0), beacon, 1000), Ok(()));
        }
        assert_eq!(ledger.sent(now + WINDOW * 2, Host(0), silent, 150), Ok(()));
        ledger.answered(Host(0), silent);
        for _ in 0..10 {
            assert_eq!(ledger.sent(now, Host(0), silent, 1000), Ok(()));
        }
        assert_eq!(ledger.sent_by(Host(0), Some(beacon)), Traffic { datagrams: 10, bytes: 10_000 });
    }
}
