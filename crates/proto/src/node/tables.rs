//! How full the tables are that others can fill, for whoever checks that none outgrows its bound.

use super::directory::{ASKED_MAX, KNOWN_MAX};
use super::{Node, PEERS_MAX, SOURCES_MAX, agreement, exchange, opened, peer, pings, probing, streams};
use crate::path::{self, ledger};
use crate::trust;

/// A table of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// What is in it. Of tables that every peer has, the fullest counts.
    pub name: &'static str,
    /// How many.
    pub len: usize,
    /// How many there may be.
    pub max: usize,
}

impl Node {
    /// Every table that somebody else can fill, after everything was polled.
    #[must_use]
    pub fn tables(&self) -> Vec<Table> {
        let table = |name, len, max| Table { name, len, max };
        let fullest = |len: fn(&peer::Peer) -> usize| self.peers.values().map(len).max().unwrap_or(0);
        let (asked, known) = self.directory.lens();
        let rates = [
            self.exchange_limits.len(),
            self.request_limits.len(),
            self.reply_limits.len(),
            self.vouched_limits.len(),
            self.syn_limits.len(),
            self.mismatches.len(),
        ];
        vec![
            table("peers", self.peers.len(), PEERS_MAX),
            table("streams", self.streams.len(), streams::STREAMS_MAX),
            table("pings", self.pings.len(), pings::PINGS_MAX),
            table("questions to the registry", asked, ASKED_MAX),
            table("answers of the registry", known, KNOWN_MAX),
            table("exchanges that wait", self.held.len(), exchange::HELD_MAX),
            table("introductions", self.introductions.len(), probing::INTRODUCTIONS_MAX),
            table("silent addresses", self.ledger.len(), ledger::ENTRIES_MAX),
            table("peers that agree on keys of the moment", self.modern.len(), agreement::MODERN_MAX),
            table("sources with a rate", rates.into_iter().max().unwrap_or(0), SOURCES_MAX),
            table("packets that wait for keys", fullest(peer::Peer::queued), peer::QUEUE_MAX),
            table("SYNs that are remembered", fullest(|peer| peer.opened.len()), opened::OPENED_MAX),
            table("addresses of a peer", fullest(|peer| peer.path.known()), path::CANDIDATES_MAX),
            table("requests for trust", self.book.pending().count(), trust::PENDING_MAX),
            table("requests of ours", self.book.outgoing().count(), trust::OUTGOING_MAX),
            // These are empty once they were polled.
            table("datagrams to send", self.outbox.len(), 0),
            table("events to tell", self.events.len(), 0),
        ]
    }
}
