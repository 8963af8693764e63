//! What a beacon has done, and why it did not do the rest.

/// Why a datagram was not acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// Not a message to a beacon.
    Unreadable,
    /// In the name of a node that is not known here, or from another address; or not from a beacon of the mesh.
    Impostor,
    /// For a node that is not known here.
    Unreachable,
    /// Over a limit of the node, or of what is done for anybody.
    TooMany,
    /// Over the limit of all that is relayed.
    Congested,
}

/// What a beacon has done since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Discovers answered.
    pub discovered: u64,
    /// Frames delivered to nodes of this beacon.
    pub relayed: u64,
    /// Their bytes, without headers.
    pub relayed_bytes: u64,
    /// Frames passed on to other beacons, for nodes there.
    pub forwarded: u64,
    /// Frames that came from other beacons; those that could be delivered count as relayed, too.
    pub received: u64,
    /// Pairs introduced.
    pub introduced: u64,
    /// [`Drop::Unreadable`].
    pub unreadable: u64,
    /// [`Drop::Impostor`].
    pub impostor: u64,
    /// [`Drop::Unreachable`].
    pub unreachable: u64,
    /// [`Drop::TooMany`].
    pub too_many: u64,
    /// [`Drop::Congested`].
    pub congested: u64,
    /// Datagrams that a socket or a connection did not take. Counted by the shell.
    pub unsent: u64,
    /// Nodes known at the moment.
    pub nodes: u64,
    /// Other beacons that are there at the moment.
    pub beacons: u64,
}

impl Stats {
    pub(super) fn count(&mut self, outcome: Result<(), Drop>) {
        if let Err(reason) = outcome {
            self.count_dropped(reason, 1);
        }
    }

    pub(super) fn count_dropped(&mut self, reason: Drop, datagrams: u64) {
        *match reason {
            Drop::Unreadable => &mut self.unreadable,
            Drop::Impostor => &mut self.impostor,
            Drop::Unreachable => &mut self.unreachable,
            Drop::TooMany => &mut self.too_many,
            Drop::Congested => &mut self.congested,
        } += datagrams;
    }
}
