//! What local programs wait for in the loop, while it is traced: dials, the ways to peers, and trust.

use std::collections::BTreeMap;
use std::time::Instant;

use pilot_proto::{PeerEvent, TrustEvent};
use pilot_wire::{Addr, Endpoint, NodeId, StreamId};

use crate::trace::{Span, SpanId, Tracer};

/// Peers of which the way, or the trust, is waited for. Of further ones no span is made.
const PEERS_MAX: usize = 256;

/// Begun and not over.
struct Begun {
    at: Instant,
    id: SpanId,
    parent: Option<SpanId>,
}

/// All of it empty while nobody traces.
pub(super) struct Waits {
    tracer: Tracer,
    /// As many as there are streams.
    dials: BTreeMap<StreamId, (Begun, Endpoint)>,
    paths: BTreeMap<NodeId, Begun>,
    trust: BTreeMap<NodeId, Begun>,
}

impl Begun {
    fn span(self, name: &'static str, peer: NodeId) -> Span {
        let span = Span { id: self.id, parent: self.parent, ..Span::since(name, self.at) };
        span.with("pilot.peer", Addr::backbone(peer).to_string())
    }
}

impl Waits {
    pub(super) fn new(tracer: Tracer) -> Self {
        Self { tracer, dials: BTreeMap::new(), paths: BTreeMap::new(), trust: BTreeMap::new() }
    }

    /// Spans that were lost.
    pub(super) fn dropped(&self) -> Option<u64> {
        self.tracer.dropped()
    }

    /// A program dialled. `reached`: whether there is a tunnel to the peer already.
    pub(super) fn dialed(
        &mut self,
        now: Instant,
        stream: StreamId,
        to: Endpoint,
        reached: impl FnOnce() -> bool,
    ) {
        let Some(id) = self.tracer.begin() else { return };
        self.dials.insert(stream, (Begun { at: now, id, parent: None }, to));
        let peer = to.addr.node;
        if !self.paths.contains_key(&peer) && self.paths.len() < PEERS_MAX && !reached() {
            self.paths.insert(peer, Begun { at: now, id: id.child(), parent: Some(id) });
        }
    }

    /// The dial is over, one way or the other.
    pub(super) fn dial_ended(&mut self, stream: StreamId, failed: impl FnOnce() -> Option<String>) {
        let Some((begun, to)) = self.dials.remove(&stream) else { return };
        let span = begun.span("pilot.dial", to.addr.node).with("pilot.port", u64::from(to.port.0));
        self.tracer.record(|| span.failed(failed()));
    }

    pub(super) fn on_peer(&mut self, peer: NodeId, event: &PeerEvent) {
        let (kind, failed) = match event {
            PeerEvent::Established { relayed: true, .. } => ("relayed", None),
            PeerEvent::Established { relayed: false, .. } => ("direct", None),
            PeerEvent::Silent => ("none", Some("the peer does not answer")),
            PeerEvent::KeyMismatch(_) => ("none", Some("the peer shows another key")),
            PeerEvent::Downgraded => {
                ("none", Some("only a key exchange of an earlier release comes through"))
            }
            PeerEvent::Direct(_) | PeerEvent::Relayed | PeerEvent::Agreed(_) => return,
        };
        let Some(begun) = self.paths.remove(&peer) else { return };
        let span = begun.span("pilot.path", peer).with("pilot.path", kind);
        self.tracer.record(|| span.failed(failed.map(str::to_owned)));
    }

    /// A program had a node asked for trust.
    pub(super) fn trust_asked(&mut self, now: Instant, node: NodeId) {
        if self.trust.contains_key(&node) || self.trust.len() >= PEERS_MAX {
            return;
        }
        if let Some(id) = self.tracer.begin() {
            self.trust.insert(node, Begun { at: now, id, parent: None });
        }
    }

    pub(super) fn on_trust(&mut self, event: &TrustEvent) {
        let (node, failed) = match event {
            TrustEvent::Trusted { node, .. } => (node, None),
            TrustEvent::Rejected { node, reason } => (node, Some(format!("declined: {reason}"))),
            TrustEvent::Undeliverable { node, reason } => (node, Some(reason.clone())),
            TrustEvent::Changed
            | TrustEvent::Deliver { .. }
            | TrustEvent::Pending { .. }
            | TrustEvent::Revoked { .. } => return,
        };
        let Some(begun) = self.trust.remove(node) else { return };
        let span = begun.span("pilot.handshake", *node);
        self.tracer.record(|| span.failed(failed));
    }
}
