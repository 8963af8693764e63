//! What a node tells whoever drives it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use pilot_wire::{Endpoint, NodeId, Port, PublicKey, StreamId, handshake};

use crate::{DialError, Survey, stream::CloseReason};

/// Something an application or the daemon should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A stream of ours or of the network changed.
    Stream(StreamId, StreamEvent),
    /// A datagram came for a local port.
    Datagram {
        /// Who sent it.
        from: Endpoint,
        /// The local port it is for.
        to: Port,
        /// Its content, never empty.
        data: Bytes,
    },
    /// The answer to a ping.
    Pong {
        /// Whose answer, and to which ping.
        ping: PingId,
        /// How long it took; `None` when no answer came in time.
        rtt: Option<Duration>,
    },
    /// The beacon says which address our datagrams come from.
    Observed(SocketAddr),
    /// The beacon answers, or does not.
    Beacon(BeaconEvent),
    /// What kind of box this node is behind, as far as it could be found out.
    Surveyed(Box<Survey>),
    /// The beacon says something waits for us at the registry.
    HandshakeWaiting,
    /// Trust, or a request for it, changed.
    Trust(TrustEvent),
    /// The tunnel to a peer changed.
    Peer(NodeId, PeerEvent),
}

/// What happens to a stream, in this order: `Incoming` or `Established`, any number of the middle ones,
/// `Closed` last and once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// A peer opened it to a port that is listened on. Data may be read and written at once.
    Incoming {
        /// The local port.
        port: Port,
        /// The peer's address and port.
        from: Endpoint,
    },
    /// The peer answered our dial.
    Established,
    /// There is something to read, or the peer finished.
    Readable,
    /// There is room to write again after a write took less than it was given.
    Writable,
    /// Everything written has been acknowledged.
    Drained,
    /// It is over. What had arrived before can still be read; reading to the end, or closing, frees the number.
    Closed(Closed),
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// It never came about.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It was open.
    #[error(transparent)]
    Stream(#[from] CloseReason),
}

/// Whether the beacon can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeaconEvent {
    /// It answers, for the first time or again.
    Answers,
    /// It has not answered for a second and a half: it is gone, or UDP does not get through.
    Silent,
    /// It owes an answer for half a second, and somebody here waits for what only the relay brings.
    Late,
}

/// Names one ping until it is answered or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub u64);

/// A change of the tunnel to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// Keys are agreed and the peer has proved that it holds its own.
    Established {
        /// There had been keys before: the peer restarted or lost them.
        rekeyed: bool,
        /// Through the beacon.
        relayed: bool,
    },
    /// Its frames now come from, and ours go to, this address.
    Direct(SocketAddr),
    /// Its frames go through the beacon.
    Relayed,
    /// It showed another key than the pinned one, and was refused.
    KeyMismatch(PublicKey),
    /// It agreed on keys of the moment under this identity, for the first time: remember it for the next life, and hand
    /// it over with [`Node::remember_agreement`](crate::Node::remember_agreement).
    Agreed(PublicKey),
    /// It showed what an earlier release shows, though it is known to do better, and was refused.
    Downgraded,
    /// It did not answer over any path.
    Silent,
}

/// A change of trust, or a message to be carried for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustEvent {
    /// The book changed: write [`Node::trust`](crate::Node::trust) to disk.
    Changed,
    /// Carry this message to port 444 of a peer, and say how it went with
    /// [`Node::handshake_delivered`](crate::Node::handshake_delivered).
    Deliver {
        /// To whom.
        to: NodeId,
        /// What.
        message: handshake::Message,
    },
    /// Somebody asks for trust and a person has to decide.
    Pending {
        /// Who asks.
        node: NodeId,
        /// What they say.
        justification: String,
    },
    /// A peer is trusted from now on.
    Trusted {
        /// Which.
        node: NodeId,
        /// How it came about.
        how: Agreement,
    },
    /// Our request was turned down.
    Rejected {
        /// By whom.
        node: NodeId,
        /// Their words.
        reason: String,
    },
    /// Trust ended.
    Revoked {
        /// With whom.
        node: NodeId,
        /// Who ended it.
        by: Side,
    },
    /// Our request could not be brought to the peer by any way.
    Undeliverable {
        /// To whom.
        node: NodeId,
        /// Why.
        reason: String,
    },
}

/// How two owners came to trust each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agreement {
    /// Our owner approved a request.
    Approved,
    /// The peer's owner approved ours.
    Accepted,
    /// Both asked.
    Mutual,
    /// This node approves everybody.
    Automatic,
}

/// This node or the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This node.
    Ours,
    /// The other one.
    Theirs,
}
