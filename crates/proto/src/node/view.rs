//! What a node shows of itself, for people.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_wire::{Endpoint, NodeId, Port, PublicKey, StreamId};

use super::{Node, Stats};
use crate::path::{Path, Via, beacon::Beacon};
use crate::{Side, stream};

/// A peer as others may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its number.
    pub node: NodeId,
    /// The identity it proved or is expected to have.
    pub key: Option<PublicKey>,
    /// Where our frames go.
    pub path: PathView,
    /// The smoothed round trip of that way, as probes of the path measured it.
    pub rtt: Option<Duration>,
    /// Keys are agreed.
    pub encrypted: bool,
    /// The peer proved that it holds its keys.
    pub authenticated: bool,
    /// Its keys are of the moment (docs/handshake.md).
    pub agreed: bool,
    /// When its last authentic frame came.
    pub heard: Option<Instant>,
    /// Streams open with it.
    pub streams: usize,
    /// Bytes of frames with packets that were sent to it, with their headers.
    pub bytes_sent: u64,
    /// Bytes of frames with authentic packets that came from it.
    pub bytes_received: u64,
    /// Packets that wait until keys are agreed.
    pub queued: usize,
}

/// The way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathView {
    /// None is known yet.
    Unknown,
    /// To this address.
    Direct(SocketAddr),
    /// Through the beacon.
    Relayed,
}

/// A stream as others may see it.
#[derive(Debug, Clone)]
pub struct StreamView {
    /// Its number.
    pub id: StreamId,
    /// Our port.
    pub local: Port,
    /// The peer's address and port.
    pub remote: Endpoint,
    /// Who opened it.
    pub opener: Side,
    /// Where in its life it is.
    pub state: stream::State,
    /// What it counted and measured.
    pub stats: stream::Stats,
}

impl Node {
    /// Every peer that is known, by number.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> + '_ {
        self.peers.iter().map(|(&node, peer)| PeerView {
            node,
            key: peer.key,
            path: path_view(&peer.path),
            rtt: peer.path.rtt(),
            encrypted: peer.tunnel.is_ready(),
            authenticated: peer.tunnel.is_proven(),
            agreed: peer.tunnel.is_agreed(),
            heard: peer.tunnel.heard(),
            streams: peer.streams,
            bytes_sent: peer.bytes_sent,
            bytes_received: peer.bytes_received,
            queued: peer.queued(),
        })
    }

    /// Every stream, by number.
    pub fn streams(&self) -> impl Iterator<Item = StreamView> + '_ {
        self.streams.iter().map(|(id, entry)| StreamView {
            id,
            local: entry.tuple.local,
            remote: entry.tuple.remote,
            opener: entry.opener,
            state: entry.stream.state(),
            stats: entry.stream.stats(),
        })
    }

    /// What was counted.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The address the beacon sees this node at.
    #[must_use]
    pub fn observed(&self) -> Option<SocketAddr> {
        self.beacon.as_ref().and_then(Beacon::observed)
    }
}

pub(super) fn path_view(path: &Path) -> PathView {
    match path.route() {
        None => PathView::Unknown,
        Some(Via::Direct(addr)) => PathView::Direct(addr),
        Some(Via::Relay) => PathView::Relayed,
    }
}
