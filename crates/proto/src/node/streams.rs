//! The streams of a node: by number for applications, by ports and addresses for the network.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use pilot_wire::{Endpoint, NodeId, Port, StreamId};

use crate::stream::Stream;
use crate::{PortInUse, Side};

/// Streams of a node. 1.18.0 has the same limit (spec/dataplane.md 3.10).
pub(super) const STREAMS_MAX: usize = 65_536;

/// Streams that one peer may have opened to us, so that one cannot take all.
pub(super) const INCOMING_PER_PEER_MAX: usize = 4096;

/// What tells one stream from another on the wire (spec/dataplane.md 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tuple {
    pub(super) local: Port,
    pub(super) remote: Endpoint,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stream: Box<Stream>,
    pub(super) tuple: Tuple,
    /// Who opened it.
    pub(super) opener: Side,
    /// It waits in the queue of streams to be asked for segments.
    queued: bool,
}

impl Entry {
    pub(super) fn peer(&self) -> NodeId {
        self.tuple.remote.addr.node
    }
}

#[derive(Debug)]
pub(super) struct Streams {
    by_id: BTreeMap<StreamId, Entry>,
    by_tuple: BTreeMap<Tuple, StreamId>,
    next_id: u32,
    next_port: u16,
    listening: BTreeSet<Port>,
    ready: VecDeque<StreamId>,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_tuple: BTreeMap::new(),
            next_id: 1,
            next_port: *Port::EPHEMERAL.start(),
            listening: BTreeSet::new(),
            ready: VecDeque::new(),
        }
    }

    pub(super) fn listen(&mut self, port: Port) -> Result<(), PortInUse> {
        if self.listening.insert(port) { Ok(()) } else { Err(PortInUse(port)) }
    }

    pub(super) fn unlisten(&mut self, port: Port) -> bool {
        self.listening.remove(&port)
    }

    pub(super) fn is_listening(&self, port: Port) -> bool {
        self.listening.contains(&port)
    }

    /// The next ephemeral port from which no stream to `remote` leaves.
    pub(super) fn free_port(&mut self, remote: Endpoint) -> Option<Port> {
        let ports = Port::EPHEMERAL;
        for _ in ports.clone() {
            let local = Port(self.next_port);
            self.next_port = if self.next_port == *ports.end() { *ports.start() } else { self.next_port + 1 };
            if !self.by_tuple.contains_key(&Tuple { local, remote }) && !self.listening.contains(&local) {
                return Some(local);
            }
        }
        None
    }

    pub(super) fn insert(&mut self, tuple: Tuple, stream: Stream, opener: Side) -> StreamId {
        // Numbers are not reused before all others were, so that a late call for a closed stream finds nothing.
        while self.next_id == 0 || self.by_id.contains_key(&StreamId(self.next_id)) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = StreamId(self.next_id);
        self.next_id = self.next_id.wrapping_add(1);
        self.by_tuple.insert(tuple, id);
        self.by_id.insert(id, Entry { stream: Box::new(stream), tuple, opener, queued: false });
        id
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Entry> {
        let entry = self.by_id.remove(&id)?;
        self.by_tuple.remove(&entry.tuple);
        Some(entry)
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Entry> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Entry> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn find(&self, tuple: &Tuple) -> Option<StreamId> {
        self.by_tuple.get(tuple).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (StreamId, &Entry)> {
        self.by_id.iter().map(|(&id, entry)| (id, entry))
    }

    /// The streams with one peer.
    pub(super) fn with(&self, peer: NodeId) -> Vec<StreamId> {
        self.iter().filter(|(_, entry)| entry.peer() == peer).map(|(id, _)| id).collect()
    }

    /// The stream may have something to send.
    pub(super) fn wake(&mut self, id: StreamId) {
        if let Some(entry) = self.by_id.get_mut(&id)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.ready.push_back(id);
        }
    }

    /// The next stream to ask for segments.
    pub(super) fn next_ready(&mut self) -> Option<StreamId> {
        while let Some(id) = self.ready.pop_front() {
            if let Some(entry) = self.by_id.get_mut(&id) {
                entry.queued = false;
                return Some(id);
            }
        }
        None
    }
}
