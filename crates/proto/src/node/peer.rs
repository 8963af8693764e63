//! What a node keeps for each peer it talks to.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use pilot_crypto::AgreementKey;
use pilot_wire::{PublicKey, StreamId};

use super::opened::Opened;
use crate::path::Path;
use crate::path::mtu::Mtu;
use crate::tunnel::Tunnel;
use crate::{QueryError, TunnelConfig};

/// Packets (datagrams, pings; streams wait by themselves) kept while keys are being agreed. The earliest stay:
/// they are what the application said first.
pub(super) const QUEUE_MAX: usize = 64;

/// An initiation for new keys that is not answered is repeated after this long.
const REKEY_AGAIN: Duration = Duration::from_secs(2);

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

/// A peer that was not used for this long rests: no better way to it is looked for.
const RESTING_AFTER: Duration = Duration::from_secs(60);

/// The node with the higher number asks for a sign of life this much later, so that usually one asks and the other's
/// answer serves both.
const POLITENESS: Duration = Duration::from_secs(3);

/// A peer that we only send to, or only hear from, is asked for a sign of life as well, this much later.
const ONE_WAY: Duration = Duration::from_secs(5);

/// Bytes that came without a pause of [`FLOW_PAUSE`]: a transfer, the end of which is worth a question.
const FLOW_MIN: u64 = 64 << 10;
const FLOW_PAUSE: Duration = Duration::from_secs(1);

/// When a transfer towards us stops for this long, or for two round trips, we ask whether the peer still reaches us:
/// behind a box that lost its bindings nobody else can know.
const STALL: Duration = Duration::from_millis(300);

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    /// The identity it proved, or that was looked up for it.
    pub(super) key: Option<PublicKey>,
    pub(super) tunnel: Tunnel,
    pub(super) path: Path,
    /// How large datagrams may be on the way in use.
    pub(super) mtu: Mtu,
    queue: VecDeque<Vec<u8>>,
    /// Dials of ours without an answer, and since when.
    pub(super) dials: BTreeMap<StreamId, Instant>,
    /// Streams with this peer.
    pub(super) streams: usize,
    pub(super) opened: Opened,
    pub(super) location: Option<Location>,
    awaiting: Option<Awaiting>,
    /// How often in a row all tries were in vain, and when the next ones are worth their datagrams.
    failures: u32,
    probe_again: Option<Instant>,
    /// What comes of the peer's streams without a pause.
    flow: Option<Flow>,
    /// When our addresses were last told to the peer.
    pub(super) told: Option<Instant>,
    /// When our key was last shown, any way.
    pub(super) offered: Option<Instant>,
    /// When replacing the keys in use was last tried, whether or not anything could be sent for it.
    pub(super) rekey_tried: Option<Instant>,
    pub(super) sent: Instant,
    /// Bytes of frames with packets to and from the peer.
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// When somebody here last wanted something of it, or it of us.
    pub(super) used: Instant,
    /// The same, but never before: that somebody made himself known to us is no wish of ours.
    pub(super) wanted: Option<Instant>,
    /// It showed its key in answer to ours, so what is sealed is understood.
    pub(super) knows_ours: bool,
}

/// What the registry said about where the peer is.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) at: Instant,
    pub(super) found: Result<(), QueryError>,
    /// How long before that it had heard of the peer.
    pub(super) seen: Option<Duration>,
}

/// Payload that comes from the peer without a pause.
#[derive(Debug, Clone, Copy)]
struct Flow {
    bytes: u64,
    last: Instant,
}

/// We wait for a sign of life.
#[derive(Debug, Clone, Copy)]
struct Awaiting {
    since: Instant,
    tries: usize,
    next: Instant,
}

/// An answer is not waited for longer than this before the first try, however far the peer is.
const ANSWER_MAX: Duration = Duration::from_millis(800);

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
            mtu: Mtu::default(),
            queue: VecDeque::new(),
            dials: BTreeMap::new(),
            streams: 0,
            opened: Opened::default(),
            location: None,
            awaiting: None,
            failures: 0,
            probe_again: None,
            flow: None,
            told: None,
            offered: None,
            rekey_tried: None,
            sent: now,
            bytes_sent: 0,
            bytes_received: 0,
            used: now,
            wanted: None,
            knows_ours: false,
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

    /// Packets that wait for a key.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn take_queue(&mut self) -> VecDeque<Vec<u8>> {
        std::mem::take(&mut self.queue)
    }

    /// Something was sent, or is to be, that the peer answers if it lives. The first try is due at once when
    /// there is no key, and after a quarter of a second (or two round trips) when there is: the answer is probably on
    /// its way.
    pub(super) fn expect_answer(&mut self, now: Instant) {
        if self.awaiting.is_none() {
            let tries = usize::from(self.tunnel.is_ready());
            let on_its_way = self.path.rtt().map_or(Duration::ZERO, |rtt| (rtt * 2).min(ANSWER_MAX));
            let wait = if tries == 0 { TRIES[0] } else { TRIES[1].max(on_its_way) };
            self.awaiting = Some(Awaiting { since: now, tries, next: now + wait });
        }
    }

    /// The peer should have been heard of, or our network changed: the first try is due at once.
    pub(super) fn ask_now(&mut self, now: Instant) {
        self.expect_answer(now);
        self.hurry(now);
    }

    /// Puts the first try off: the registry is being asked for an address.
    pub(super) fn wait_for_location(&mut self, now: Instant) {
        if let Some(awaiting) = &mut self.awaiting
            && awaiting.tries == 0
        {
            awaiting.next = now + LOCATION_TIME;
        }
    }

    /// Whether an answer is waited for that has been asked for already.
    pub(super) fn was_tried(&self) -> bool {
        self.awaiting.is_some_and(|awaiting| awaiting.tries > 0)
    }

    /// Tries at once: an address was learned.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Some(awaiting) = &mut self.awaiting {
            awaiting.next = now;
        }
    }

    /// A sign of life came. Whether it had been missing for so long that streams should be told: their timers have
    /// backed off, and what they sent in the meantime is lost. An answer that took two round trips may have been on its
    /// way.
    pub(super) fn alive(&mut self, now: Instant) -> bool {
        self.failures = 0;
        self.probe_again = None;
        let patience = self.path.rtt().map_or(STALL, |rtt| rtt * 2);
        self.awaiting.take().is_some_and(|awaiting| awaiting.tries > 1 && awaiting.since + patience <= now)
    }

    /// How long a sign of life has been waited for.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        self.awaiting.map_or(Duration::ZERO, |awaiting| now.saturating_duration_since(awaiting.since))
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

    /// Payload of one of its streams came.
    pub(super) fn flows(&mut self, now: Instant, bytes: usize) {
        let bytes = bytes as u64;
        let before = self.flow.filter(|flow| flow.last + FLOW_PAUSE > now).map_or(0, |flow| flow.bytes);
        self.flow = Some(Flow { bytes: before + bytes, last: now });
    }

    /// When a transfer towards us counts as stalled.
    fn stall_at(&self) -> Option<Instant> {
        let flow = self.flow.filter(|flow| flow.bytes >= FLOW_MIN && self.streams > 0)?;
        let patience = self.path.rtt().map_or(STALL, |rtt| STALL.max(rtt * 2));
        Some(flow.last + patience)
    }

    /// If a transfer towards us stalled: once for each time.
    pub(super) fn stalls(&mut self, now: Instant) -> bool {
        let stalled = self.stall_at().is_some_and(|at| at <= now);
        if stalled {
            self.flow = None;
        }
        stalled
    }

    /// Whether somebody here uses the peer, or did a moment ago.
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        !self.is_unused() || self.wanted.is_some_and(|wanted| wanted + RESTING_AFTER > now)
    }

    /// Whether it is time to ask for a sign of life. `polite`: our number is the higher one.
    pub(super) fn watch_due(&self, now: Instant, config: &TunnelConfig, polite: bool) -> bool {
        self.watch_at(config, polite).is_some_and(|at| at <= now)
    }

    fn watch_at(&self, config: &TunnelConfig, polite: bool) -> Option<Instant> {
        let heard = self.tunnel.heard().filter(|_| self.tunnel.is_ready() && self.awaiting.is_none())?;
        match self.probe_again {
            Some(again) => Some(again),
            None => {
                let politeness = if polite { POLITENESS } else { Duration::ZERO };
                Some((self.sent.min(heard + ONE_WAY)) + config.keepalive + politeness)
            }
        }
    }

    /// Whether somebody here waits for the peer.
    pub(super) fn is_wanted(&self) -> bool {
        !self.dials.is_empty() || !self.queue.is_empty()
    }

    /// When the next try to reach a peer that does not answer is planned.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.awaiting.map(|awaiting| awaiting.next).or(self.probe_again)
    }

    /// When the keys in use are to be replaced, or the next try of it is due. Not while the peer is silent: other things
    /// are tried then.
    pub(super) fn rekey_at(&self) -> Option<Instant> {
        let due = self.tunnel.rekey_at().filter(|_| self.awaiting.is_none() && self.probe_again.is_none())?;
        Some(self.offered.max(self.rekey_tried).map_or(due, |last| due.max(last + REKEY_AGAIN)))
    }

    /// Whether nothing here has a use for the peer.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.is_unused() && self.used + IDLE_LIFE <= now
    }

    /// Whether nobody here has a stream, a dial or a packet for it.
    pub(super) fn is_unused(&self) -> bool {
        self.streams == 0 && self.dials.is_empty() && self.queue.is_empty()
    }

    /// When something is to be done about this peer without anything coming from it.
    pub(super) fn poll_timeout(&self, config: &TunnelConfig, polite: bool) -> Option<Instant> {
        let dials = self.dials.values().flat_map(|&since| {
            let silent = self.tunnel.heard().is_none_or(|heard| heard < since);
            let unreachable = silent.then_some(since + config.unreachable_after);
            unreachable.into_iter().chain([since + config.unanswered_after])
        });
        dials
            .chain(self.awaiting.map(|awaiting| awaiting.next))
            .chain(self.tunnel.poll_timeout())
            .chain(self.path.poll_timeout())
            .chain(self.mtu.poll_timeout())
            .chain(self.path.search.poll_timeout().filter(|_| self.tunnel.is_proven()))
            .chain(self.stall_at())
            .chain(self.watch_at(config, polite))
            .chain(self.rekey_at())
            .chain(self.is_unused().then_some(self.used + IDLE_LIFE))
            .min()
    }
}
