//! What a node keeps for each peer it talks to.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use pilot_crypto::AgreementKey;
use pilot_wire::{PublicKey, StreamId};

use crate::path::Path;
use crate::tunnel::Tunnel;
use crate::{QueryError, TunnelConfig};

/// Packets (datagrams, pings; streams wait by themselves) kept while keys are being agreed. The earliest stay:
/// they are what the application said first.
const QUEUE_MAX: usize = 64;

/// How often a better path is looked for while frames go through the relay.
const UPGRADE_INTERVAL: Duration = Duration::from_secs(15);

/// How long an answer of the registry about a peer's addresses is used without asking again.
const LOCATION_LIFE: Duration = Duration::from_secs(60);

/// How long the registry may take to say where a peer is before the relay is tried without knowing.
const LOCATION_TIME: Duration = Duration::from_millis(400);

/// How long a peer that nobody here trusts or talks to is remembered.
const IDLE_LIFE: Duration = Duration::from_secs(5 * 60);

/// A peer that did not answer is probed again after twice this, then after twice as long each time.
const FIRST_PROBE_AGAIN: Duration = Duration::from_secs(30);

/// A silent peer is probed this often at least: somebody has to notice that both are back.
const LAST_PROBE_AGAIN: Duration = Duration::from_secs(15 * 60);

/// A peer that was not used for this long rests.
const RESTING_AFTER: Duration = Duration::from_secs(60);

/// How often a better path to a resting peer is looked for.
const RESTING_UPGRADE_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// The identity it proved, or that was looked up for it.
    pub(super) key: Option<PublicKey>,
    pub(super) tunnel: Tunnel,
    pub(super) path: Path,
    queue: VecDeque<Vec<u8>>,
    /// Dials of ours without an answer, and since when.
    pub(super) dials: BTreeMap<StreamId, Instant>,
    /// Streams with this peer.
    pub(super) streams: usize,
    pub(super) location: Option<Location>,
    awaiting: Option<Awaiting>,
    /// How often in a row all tries were in vain, and when the next ones are worth their datagrams.
    failures: u32,
    probe_again: Option<Instant>,
    upgrade_at: Option<Instant>,
    pub(super) offered: Option<Instant>,
    pub(super) sent: Instant,
    /// When somebody here last wanted something of it, or it of us.
    pub(super) used: Instant,
}

/// What the registry said about where the peer is.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) at: Instant,
    pub(super) found: Result<(), QueryError>,
}

/// We wait for a sign of life.
#[derive(Debug, Clone, Copy)]
struct Awaiting {
    since: Instant,
    tries: usize,
    next: Instant,
}

/// When to try, counted from the start: quickly while somebody waits for a first answer, then with back-off.
/// The reference takes five exchanges a second from one address (spec/dataplane.md 2.7).
const TRIES: [Duration; 10] = [
    Duration::ZERO,
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(1500),
    Duration::from_millis(2500),
    Duration::from_millis(4500),
    Duration::from_millis(8500),
    Duration::from_millis(16500),
    Duration::from_millis(31500),
];

impl Peer {
    pub(super) fn new(now: Instant, ours: AgreementKey) -> Self {
        Self {
            key: None,
            tunnel: Tunnel::new(ours),
            path: Path::default(),
            queue: VecDeque::new(),
            dials: BTreeMap::new(),
            streams: 0,
            location: None,
            awaiting: None,
            failures: 0,
            probe_again: None,
            upgrade_at: None,
            offered: None,
            sent: now,
            used: now,
        }
    }

    /// Keeps a packet until there is a key; `false` when enough is kept.
    pub(super) fn enqueue(&mut self, packet: Vec<u8>) -> bool {
        let room = self.queue.len() < QUEUE_MAX;
        if room {
            self.queue.push_back(packet);
        }
        room
    }

    pub(super) fn take_queue(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.queue)
    }

    /// Something was sent, or is to be, that the peer answers if it lives. The first try is due at once when
    /// there is no key, and after a quarter of a second when there is: the answer is probably on its way.
    pub(super) fn expect_answer(&mut self, now: Instant) {
        if self.awaiting.is_none() {
            let tries = usize::from(self.tunnel.is_ready());
            self.awaiting = Some(Awaiting { since: now, tries, next: now + TRIES[tries] });
        }
    }

    /// Puts the first try off: the registry is being asked for an address.
    pub(super) fn wait_for_location(&mut self, now: Instant) {
        if let Some(awaiting) = &mut self.awaiting
            && awaiting.tries == 0
        {
            awaiting.next = now + LOCATION_TIME;
        }
    }

    /// Somebody wants to use the path: look for a better one soon, not as late as for a peer that rests.
    pub(super) fn stir(&mut self, now: Instant) {
        if self.upgrade_at.is_some_and(|at| at > now + UPGRADE_INTERVAL) {
            self.upgrade_at = Some(now);
        }
    }

    /// A better path may exist: look for it at once.
    pub(super) fn search_again(&mut self) {
        self.upgrade_at = None;
    }

    /// Tries at once: an address was learned.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(awaiting) = &mut self.awaiting {
            awaiting.next = now;
        }
    }

    /// A sign of life came. Whether it had been missing for so long that streams should be told.
    pub(super) fn alive(&mut self) -> bool {
        self.failures = 0;
        self.probe_again = None;
        self.awaiting.take().is_some_and(|awaiting| awaiting.tries > 2)
    }

    /// If a try is due: its number, from 1.
    pub(super) fn try_due(&mut self, now: Instant) -> Option<usize> {
        let awaiting = self.awaiting.as_mut().filter(|awaiting| awaiting.next <= now)?;
        awaiting.tries += 1;
        awaiting.next = match TRIES.get(awaiting.tries) {
            Some(&offset) => (awaiting.since + offset).max(now + Duration::from_millis(200)),
            None => now + Duration::from_secs(30),
        };
        Some(awaiting.tries)
    }

    /// Whether all quick tries are over and nobody waits for the peer any more.
    pub(super) fn is_hopeless(&self) -> bool {
        self.awaiting.is_some_and(|awaiting| awaiting.tries >= 6)
            && self.streams == 0
            && self.dials.is_empty()
    }

    /// Nobody answered. The next try of our own accord comes later each time: a friend's laptop may be closed for
    /// weeks.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.awaiting = None;
        self.failures = self.failures.saturating_add(1);
        self.probe_again =
            Some(now + (FIRST_PROBE_AGAIN * (1 << self.failures.min(8))).min(LAST_PROBE_AGAIN));
        self.queue.clear();
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaiting.is_some()
    }

    /// Whether the registry should be asked where the peer is.
    pub(super) fn needs_location(&self, now: Instant) -> bool {
        // A refusal is asked about again: trust may have come in between.
        self.location
            .as_ref()
            .is_none_or(|location| location.found.is_err() || location.at + LOCATION_LIFE <= now)
    }

    /// If it is time to look for a better path.
    pub(super) fn upgrade_due(&mut self, now: Instant) -> bool {
        if !self.tunnel.is_ready() || !self.path.is_improvable() {
            self.upgrade_at = None;
            return false;
        }
        let due = self.upgrade_at.is_none_or(|at| at <= now);
        if due {
            let resting = self.is_unused() && self.used + RESTING_AFTER <= now;
            self.upgrade_at = Some(now + if resting { RESTING_UPGRADE_INTERVAL } else { UPGRADE_INTERVAL });
        }
        due
    }

    pub(super) fn keepalive_due(&self, now: Instant, config: &TunnelConfig) -> bool {
        self.tunnel.is_ready() && self.failures == 0 && self.sent + config.keepalive <= now
    }

    /// Whether the peer has been silent for so long that it should be asked for a sign of life.
    pub(super) fn probe_due(&self, now: Instant, config: &TunnelConfig) -> bool {
        self.probe_at(config).is_some_and(|at| at <= now)
    }

    fn probe_at(&self, config: &TunnelConfig) -> Option<Instant> {
        let heard = self.tunnel.heard().filter(|_| self.awaiting.is_none())?;
        let at = heard + config.probe_after;
        Some(self.probe_again.map_or(at, |again| at.max(again)))
    }

    /// Whether nothing here has a use for the peer.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.is_unused() && self.used + IDLE_LIFE <= now
    }

    fn is_unused(&self) -> bool {
        self.streams == 0 && self.dials.is_empty() && self.queue.is_empty()
    }

    /// When something is to be done about this peer without anything coming from it.
    pub(super) fn poll_timeout(&self, config: &TunnelConfig) -> Option<Instant> {
        let keeps_alive = self.tunnel.is_ready() && self.failures == 0;
        let dials = self.dials.values().flat_map(|&since| {
            let silent = self.tunnel.heard().is_none_or(|heard| heard < since);
            let unreachable = silent.then_some(since + config.unreachable_after);
            unreachable.into_iter().chain([since + config.unanswered_after])
        });
        dials
            .chain(self.awaiting.map(|awaiting| awaiting.next))
            .chain(self.tunnel.poll_timeout())
            .chain(self.upgrade_at)
            .chain(keeps_alive.then_some(self.sent + config.keepalive))
            .chain(self.probe_at(config))
            .chain(self.is_unused().then_some(self.used + IDLE_LIFE))
            .min()
    }
}
