//! What must hold at every moment in every world.

mod traffic;

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    fmt,
    hash::{Hash as _, Hasher as _},
    net::SocketAddr,
    time::{Duration, Instant},
};

use pilot_proto::Event;
use pilot_wire::{
    NodeId, beacon,
    tunnel::{Frame, Nonce},
};

use traffic::Ledger;
pub use traffic::{Bother, Traffic};

use crate::{Host, Role, TransferId, Violation};

/// Something that must never happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A node sent a packet in clear.
    Plain,
    /// A node sealed two frames with one nonce towards one peer.
    NonceReused {
        /// Who.
        sender: NodeId,
        /// The counter of the nonce.
        counter: u64,
    },
    /// A node sent bytes that are no frame.
    Malformed,
    /// A node sent more to an address that never answered than it may.
    Bothered {
        /// Who sent.
        sender: Host,
        /// Where.
        addr: SocketAddr,
        /// How large the packet was, or how many there were in two minutes.
        how: Bother,
    },
    /// Time does not go on: nodes keep each other, or themselves, busy at one instant.
    Stuck,
    /// The world could not be set up as planned.
    Setup(String),
    /// An application saw what it must not see.
    Observed(TransferId, Role, Violation),
    /// A transfer had not ended when the time was over.
    Unfinished(TransferId, Role, String),
    /// A transfer ended with an error although nothing happened that excuses one.
    Failed(TransferId, Role, String),
    /// A table of a node holds more than it may.
    Overfull {
        /// Whose.
        host: Host,
        /// Which.
        table: &'static str,
        /// How much it holds.
        len: usize,
        /// How much it may hold.
        max: usize,
    },
    /// Something was left over when everything had ended.
    Left {
        /// Where.
        host: Host,
        /// What.
        table: &'static str,
        /// How much.
        len: usize,
    },
    /// After something went wrong and was right again, data did not flow within the stated time.
    Slow {
        /// What went wrong.
        what: &'static str,
        /// How long it took.
        took: Duration,
        /// How long it may take.
        limit: Duration,
    },
    /// Datagrams kept flowing after all was over.
    Noise {
        /// How many.
        datagrams: u64,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain => f.write_str("a packet was sent in clear"),
            Self::NonceReused { sender, counter } => write!(f, "node {sender} used nonce {counter} twice"),
            Self::Malformed => f.write_str("a datagram was sent that is no frame"),
            Self::Bothered { sender, addr, how } => {
                write!(f, "node {} sent {how} to {addr}, which never answered", sender.0)
            }
            Self::Stuck => f.write_str("time does not go on"),
            Self::Setup(what) => write!(f, "the world could not be set up: {what}"),
            Self::Observed(id, role, violation) => write!(f, "transfer {} {role:?}: {violation}", id.0),
            Self::Unfinished(id, role, how) => write!(f, "transfer {} {role:?} did not end: {how}", id.0),
            Self::Failed(id, role, how) => write!(f, "transfer {} {role:?} failed: {how}", id.0),
            Self::Overfull { host, table, len, max } => {
                write!(f, "node {} holds {len} {table}, {max} at most are allowed", host.0)
            }
            Self::Left { host, table, len } => write!(f, "node {} still holds {len} {table}", host.0),
            Self::Slow { what, took, limit } => {
                let (took, limit) = (took.as_secs_f64(), limit.as_secs_f64());
                write!(f, "{what}: data flowed again after {took:.3} s only, {limit:.3} s are allowed")
            }
            Self::Noise { datagrams } => write!(f, "{datagrams} datagrams after all was over"),
        }
    }
}

/// Looks at everything that is sent.
#[derive(Debug)]
pub(crate) struct Watch {
    fault: Option<Fault>,
    datagrams: u64,
    bytes: u64,
    /// What hosts said to the beacon itself, without the frames that it passes on.
    for_beacon: BTreeMap<Host, Traffic>,
    ledger: Ledger,
    /// Digests of sealed frames, kept only in worlds that are small enough.
    nonces: Option<HashMap<(Host, SocketAddr, Nonce), u64>>,
}

impl Watch {
    pub(crate) fn new(nonces: bool) -> Self {
        Self {
            fault: None,
            datagrams: 0,
            bytes: 0,
            for_beacon: BTreeMap::new(),
            ledger: Ledger::default(),
            nonces: nonces.then(HashMap::new),
        }
    }

    /// Keeps the first fault; what follows from it is of no interest.
    pub(crate) fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    pub(crate) fn datagrams(&self) -> u64 {
        self.datagrams
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A datagram leaves a host. `wanting`: its own side has a use for somebody, or had lately.
    pub(crate) fn sent(
        &mut self,
        now: Instant,
        from: Host,
        to: SocketAddr,
        datagram: &[u8],
        wanting: impl FnOnce() -> bool,
    ) {
        self.datagrams += 1;
        self.bytes += datagram.len() as u64;
        if let Err(bother) = self.ledger.sent(now, from, to, datagram.len())
            && (!matches!(bother, Bother::Many(_)) || !wanting())
        {
            self.note(Fault::Bothered { sender: from, addr: to, how: bother });
        }
        if let Err(fault) = self.check(from, to, datagram) {
            self.note(fault);
        }
    }

    /// A datagram of a host, sent to this address, reached another host unchanged.
    pub(crate) fn reached(&mut self, from: Host, to: SocketAddr) {
        self.ledger.reached(from, to);
    }

    /// An unchanged datagram of a node came to a host from there.
    pub(crate) fn received(&mut self, to: Host, from: SocketAddr, datagram: &[u8]) {
        // A punch proves nothing: it is the same for everybody.
        if matches!(Frame::parse(datagram), Ok(Frame::Sealed { .. } | Frame::KeyExchange(_))) {
            self.ledger.answered(to, from);
        }
    }

    /// Nodes are told by their owners to talk to this address.
    pub(crate) fn exempt(&mut self, addr: SocketAddr) {
        self.ledger.exempt(addr);
    }

    /// Nobody has a reason to want anything of this address.
    pub(crate) fn protect(&mut self, addr: SocketAddr) {
        self.ledger.protect(addr);
    }

    pub(crate) fn sent_by(&self, host: Host, addr: Option<SocketAddr>) -> Traffic {
        self.ledger.sent_by(host, addr)
    }

    pub(crate) fn sent_for_beacon(&self, host: Host) -> Traffic {
        self.for_beacon.get(&host).copied().unwrap_or_default()
    }

    fn check(&mut self, from: Host, to: SocketAddr, datagram: &[u8]) -> Result<(), Fault> {
        let frame = match datagram.first() {
            Some(&first) if beacon::is_beacon(first) => {
                match beacon::Message::parse(datagram).map_err(|_| Fault::Malformed)? {
                    beacon::Message::Relay { frame, .. }
                    | beacon::Message::RelayDeliver { frame, .. }
                    | beacon::Message::RelayDeliverTo { frame, .. } => frame,
                    beacon::Message::Discover { .. }
                    | beacon::Message::DiscoverEx { .. }
                    | beacon::Message::DiscoverReply(_)
                    | beacon::Message::PunchRequest { .. }
                    | beacon::Message::PunchCommand(_)
                    | beacon::Message::Sync { .. }
                    | beacon::Message::Notify(_)
                    | beacon::Message::Survey { .. }
                    | beacon::Message::SurveyReply { .. }
                    | beacon::Message::Unknown { .. }
                    | beacon::Message::Challenge { .. } => {
                        let traffic = self.for_beacon.entry(from).or_default();
                        traffic.datagrams += 1;
                        traffic.bytes += datagram.len() as u64;
                        return Ok(());
                    }
                }
            }
            Some(_) => datagram,
            None => return Err(Fault::Malformed),
        };
        match Frame::parse(frame).map_err(|_| Fault::Malformed)? {
            Frame::Plain { .. } => Err(Fault::Plain),
            Frame::Sealed { sender, nonce, ciphertext } => {
                let Some(nonces) = &mut self.nonces else { return Ok(()) };
                let mut hasher = DefaultHasher::new();
                ciphertext.hash(&mut hasher);
                let digest = hasher.finish();
                let known = *nonces.entry((from, to, nonce)).or_insert(digest);
                // The same frame over two paths is one frame.
                if known == digest {
                    Ok(())
                } else {
                    Err(Fault::NonceReused { sender, counter: nonce.counter })
                }
            }
            Frame::KeyRequest { .. } | Frame::KeyExchange(_) | Frame::Punch => Ok(()),
        }
    }
}

/// A datagram in a few words, for the history. Two datagrams that differ in any bit read differently.
pub(crate) struct Shape<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            [first, ..] if beacon::is_beacon(*first) => "beacon message",
            _ => match Frame::parse(self.0) {
                Ok(Frame::Plain { .. }) => "packet in clear",
                Ok(Frame::Sealed { .. }) => "sealed packet",
                Ok(Frame::KeyRequest { .. }) => "key request",
                Ok(Frame::KeyExchange(_)) => "key exchange",
                Ok(Frame::Punch) => "punch",
                Err(_) => "junk",
            },
        };
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        write!(f, "{kind} of {} bytes [{:04x}]", self.0.len(), hasher.finish() & 0xFFFF)
    }
}

/// An event in a few words: the content of datagrams is left out.
pub(crate) struct Seen<'a>(pub(crate) &'a Event);

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Event::Stream(stream, event) => write!(f, "stream {stream} {event:?}"),
            Event::Datagram { from, to, data } => {
                write!(f, "a datagram of {} bytes from {from} for port {to}", data.len())
            }
            Event::Pong { .. }
            | Event::Observed(_)
            | Event::Beacon(_)
            | Event::Surveyed(_)
            | Event::HandshakeWaiting
            | Event::Trust(_)
            | Event::Peer(..) => write!(f, "{:?}", self.0),
        }
    }
}
