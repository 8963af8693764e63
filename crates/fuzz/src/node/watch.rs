//! Looks at everything that a node sends.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::beacon::Message;
use pilot_wire::tunnel::Frame;

use super::beacon;

/// Packets within [`WINDOW`] to an address from which nothing authentic came, while the own side wants nobody: three, and
/// answers to key exchanges that somebody repeats in its name, at once and after 1, 2, 4 ... s.
const STRANGER_MAX: usize = 3 + 7;
/// The same when it wants somebody: three at first and after 1, 3, 7, 15, 31 and 63 seconds, and as many when peers that are
/// said to be there prove themselves by another way.
const WANTED_MAX: usize = 3 * 7 * 2 + 7;
/// None of them is larger.
const STRANGER_BYTES_MAX: usize = 200;
const WINDOW: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Watch {
    clear: bool,
    /// Its owner wanted something of somebody.
    pub(super) wanting: bool,
    accounts: BTreeMap<SocketAddr, Account>,
    /// Where who received something sealed and has said nothing since.
    arrived: BTreeMap<usize, BTreeSet<SocketAddr>>,
    /// What was sealed with which nonce, towards whom.
    nonces: BTreeMap<(SocketAddr, u32, [u8; 12]), u64>,
}

#[derive(Default)]
struct Account {
    answered: bool,
    unanswered: VecDeque<Instant>,
}

impl Watch {
    pub(super) fn new(clear: bool) -> Self {
        Self { clear, ..Self::default() }
    }

    /// The own side says that its network is another one, or begins another life: everybody may be tried anew.
    pub(super) fn elsewhere(&mut self) {
        for account in self.accounts.values_mut() {
            account.unanswered.clear();
        }
    }

    /// Something that a participant made came from there as he made it.
    pub(super) fn received(&mut self, from: SocketAddr, datagram: &[u8]) {
        if matches!(Frame::parse(datagram), Ok(Frame::Sealed { .. } | Frame::KeyExchange(_))) {
            let account = self.accounts.entry(from).or_default();
            account.answered = true;
            account.unanswered.clear();
        }
    }

    /// A participant received something sealed at this address.
    pub(super) fn arrived(&mut self, addr: SocketAddr, whom: usize) {
        self.arrived.entry(whom).or_default().insert(addr);
    }

    /// A participant said something sealed, whichever way: perhaps that it was there.
    pub(super) fn heard(&mut self, whom: usize) {
        for addr in self.arrived.remove(&whom).unwrap_or_default() {
            let account = self.accounts.entry(addr).or_default();
            account.answered = true;
            account.unanswered.clear();
        }
    }

    pub(super) fn sent(&mut self, now: Instant, to: SocketAddr, datagram: &[u8]) {
        self.frame(to, datagram);
        // With encryption off nobody proves anything.
        if to == beacon() || self.clear {
            return;
        }
        let account = self.accounts.entry(to).or_default();
        if account.answered {
            return;
        }
        assert!(
            datagram.len() <= STRANGER_BYTES_MAX,
            "{} bytes to {to}, which never answered",
            datagram.len()
        );
        account.unanswered.retain(|at| *at + WINDOW > now);
        account.unanswered.push_back(now);
        let max = if self.wanting { WANTED_MAX } else { STRANGER_MAX };
        let sent = account.unanswered.len();
        assert!(sent <= max, "{sent} packets to {to}, which never answered (wanting: {})", self.wanting);
    }

    fn frame(&mut self, to: SocketAddr, datagram: &[u8]) {
        let (towards, frame) = match datagram.first() {
            Some(&first) if pilot_wire::beacon::is_beacon(first) => {
                let message = Message::parse(datagram).expect("a message to the beacon");
                let Message::Relay { destination, frame, .. } = message else { return };
                (destination.0, frame)
            }
            Some(_) => (0, datagram),
            None => panic!("an empty datagram"),
        };
        match Frame::parse(frame).expect("a frame") {
            Frame::Plain { .. } => assert!(self.clear, "a packet in clear"),
            Frame::Sealed { nonce, ciphertext, .. } => {
                assert!(!self.clear, "a sealed packet with encryption off");
                let mut hasher = DefaultHasher::new();
                ciphertext.hash(&mut hasher);
                let digest = hasher.finish();
                // The same frame over two paths is one frame.
                let known = *self.nonces.entry((to, towards, nonce.to_bytes())).or_insert(digest);
                assert_eq!(known, digest, "nonce {} was used twice", nonce.counter);
            }
            Frame::KeyRequest { .. } | Frame::KeyExchange(_) | Frame::Punch => {}
        }
    }
}
