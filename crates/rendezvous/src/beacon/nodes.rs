//! Which nodes are here, and how a claim to be one is judged.

use super::{Config, Drop, Route, Seat, State, WebId, mesh::Claim, route::Seats, share::Meter};
use crate::rate::Bucket;
use pilot_wire::{
    NodeId, PublicKey,
    beacon::{DiscoverProof, Message},
    mesh::Standing,
};
use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// How long a claim from elsewhere must wait after the last discover of the one it would displace. Nodes repeat theirs
/// every 30 to 60 s, so one that is alive is not displaced.
const CLAIM_PATIENCE: Duration = Duration::from_secs(90);

/// The address at which a node on the web can be reached by datagrams.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[derive(Debug)]
pub(super) struct Entry {
    /// Its present UDP seat was claimed with a proof, so only another proof moves it.
    proven: bool,
    /// Nobody said so in this life: it was taken to be where it had registered to listen.
    assumed: bool,
    /// Its discover came with a key, so it may be able to sign.
    may_sign: bool,
    pub(super) seats: Seats,
    /// When its claim was last repeated.
    seen: Instant,
    pub(super) meter: Meter,
    pub(super) punch: Bucket,
    pub(super) notify: Bucket,
}

impl Entry {
    fn new(config: &Config, now: Instant) -> Self {
        Self {
            proven: false,
            assumed: false,
            may_sign: false,
            seats: Seats::default(),
            seen: now,
            meter: Meter::new(&config.relay, now),
            punch: Bucket::full(config.punch, now),
            notify: Bucket::full(config.notify, now),
        }
    }

    /// Whether the node has proved to be at this address.
    fn is_proven_at(&self, addr: SocketAddr) -> bool {
        self.proven && self.seats.udp.is_some_and(|seat| seat.at == addr)
    }

    /// Whether it has proved to be here, by whichever way.
    pub(super) fn has_proof(&self) -> bool {
        self.proven || self.seats.web.is_some()
    }

    fn is_at(&self, home: Option<&IpAddr>) -> bool {
        home.is_some() && self.seats.ip().as_ref() == home
    }

    /// What other beacons are told of it, if anything.
    pub(super) fn claim(&self, home: Option<&IpAddr>) -> Option<Claim> {
        let standing = if self.has_proof() {
            Standing::Proven
        } else if self.assumed {
            return None;
        } else if self.is_at(home) {
            Standing::Registered
        } else {
            Standing::Claimed
        };
        Some(Claim { standing, at: self.seen })
    }
}

/// A node on the web.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visitor {
    node: NodeId,
}

/// A discover, of either kind.
#[derive(Debug)]
pub(super) struct Discover {
    pub(super) node: NodeId,
    pub(super) key: Option<PublicKey>,
    pub(super) proof: Option<DiscoverProof>,
    pub(super) delivers_to: bool,
    /// Of the whole message, in bytes.
    pub(super) length: usize,
}

/// Nodes whose keys are wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    queue: VecDeque<NodeId>,
    lately: BTreeSet<NodeId>,
    since: Option<Instant>,
}

/// Nodes in it, and how long one is not asked for again.
const WANTED_MAX: usize = 4096;
const WANTED_AGAIN: Duration = Duration::from_secs(10);

impl Wanted {
    fn want(&mut self, now: Instant, node: NodeId) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= WANTED_AGAIN {
            self.lately.clear();
            self.since = Some(now);
        }
        // A flood of numbers that nobody has is not asked for.
        let is_full = self.lately.len().max(self.queue.len()) >= WANTED_MAX;
        if !is_full && self.lately.insert(node) {
            self.queue.push_back(node);
        }
    }

    pub(super) fn poll(&mut self) -> Option<NodeId> {
        self.queue.pop_front()
    }
}

impl State {
    /// A node has proved who it is, on this connection. Returns the connection that it was on before, which
    /// nothing is expected of any more.
    #[must_use]
    pub fn web_opened(&mut self, now: Instant, conn: WebId, node: NodeId) -> Option<WebId> {
        self.web.insert(conn, Visitor { node });
        // Somebody goes: who is on the web is bounded elsewhere.
        let _ = self.make_room(now, node, true);
        let entry = self.entry(now, node);
        let before = entry.seats.web.replace(Seat { at: conn, delivers_to: false }).map(|seat| seat.at);
        self.file(node, now);
        if let Some(before) = before {
            self.web.remove(&before);
        }
        self.announce(now, node);
        before
    }

    /// A connection has ended. Where its node claimed to be over UDP it is taken to be now.
    pub fn web_closed(&mut self, now: Instant, conn: WebId) {
        let Some(Visitor { node, .. }) = self.web.remove(&conn) else { return };
        let Some(entry) = self.entries.get_mut(&node) else { return };
        entry.seats.web = None;
        let seen = entry.seen;
        let stale = now.saturating_duration_since(seen) >= self.config.expiry;
        if stale || entry.seats.udp.is_none() {
            self.entries.remove(&node);
        } else {
            self.file(node, seen);
        }
        self.mesh.tell_of(now, node);
    }

    /// A node registered from this address: from here on its claim counts before others.
    pub fn registered(&mut self, node: NodeId, ip: IpAddr) {
        if self.homes.len() >= self.config.max_nodes && !self.homes.contains_key(&node) {
            // The lowest numbers are the oldest identities.
            self.homes.pop_first();
        }
        self.homes.insert(node, ip.to_canonical());
        if let Some(seen) = self.entries.get(&node).map(|entry| entry.seen) {
            self.file(node, seen);
        }
    }

    /// The key of a node that registered: from here on it can prove that it is where it says.
    pub fn has_key(&mut self, now: Instant, node: NodeId, key: PublicKey) {
        if self.keys.len() >= self.config.max_nodes && !self.keys.contains_key(&node) {
            return;
        }
        let before = self.keys.insert(node, key);
        // It had come before its key did.
        if before != Some(key)
            && let Some(entry) = self.entries.get(&node)
            && entry.may_sign
            && !entry.proven
            && let Some(seat) = entry.seats.udp
        {
            self.challenge(now, seat.at, node);
        }
    }

    /// A node that had registered to listen there before this beacon started. It may be talking through a beacon right
    /// now and repeats its discover only in a minute; until then it is taken to be where it said.
    pub fn remembered(&mut self, now: Instant, node: NodeId, addr: SocketAddr) {
        self.registered(node, addr.ip());
        if self.entries.len() < self.config.max_nodes {
            self.entry(now, node).assumed = true;
            self.enter(now, node, addr, false);
        }
    }

    pub(super) fn discover(&mut self, now: Instant, from: Route, discover: &Discover) -> Result<(), Drop> {
        let &Discover { node, key, ref proof, delivers_to, length } = discover;
        let mut reply = Vec::new();
        Message::DiscoverReply(self.seen_at(from)?).emit(&mut reply);
        if let Route::Udp(addr) = from
            && reply.len() > length
            && !self.is_known_at(node, addr)
        {
            self.long_answer(now, addr)?;
        }
        self.out.push(from, |out| out.extend_from_slice(&reply));
        self.stats.discovered += 1;
        if node == NodeId::UNSET || node == NodeId::BROADCAST {
            return Ok(());
        }
        let from = match from {
            Route::Udp(addr) => addr,
            Route::Web(conn) => {
                let entry = self.entry_of(from, node)?;
                entry.seats.web = Some(Seat { at: conn, delivers_to });
                self.file(node, now);
                self.announce(now, node);
                return Ok(());
            }
            Route::Elsewhere(..) => return Err(Drop::Unreadable),
        };
        let proven = match proof {
            Some(proof) => self.is_proven(now, from, node, proof)?,
            None => false,
        };
        if !proven {
            // Without a key in front it is of a released node, which would not answer, and shorter than a challenge.
            if let Some(key) = key {
                self.want(now, node, key);
                self.challenge(now, from, node);
            } else if !self.homes.contains_key(&node) && self.config.asks_keys {
                self.wanted.want(now, node);
            }
            // An impostor, or the node itself from another network.
            if !self.may_claim(now, node, from) {
                return Err(Drop::Impostor);
            }
        }
        self.make_room(now, node, proven || self.is_known_at(node, from))?;
        let entry = self.entry(now, node);
        entry.assumed = false;
        entry.may_sign = key.is_some();
        entry.proven |= proven;
        self.enter(now, node, from, delivers_to);
        self.announce(now, node);
        Ok(())
    }

    /// Its key is not known, or is another one meanwhile.
    fn want(&mut self, now: Instant, node: NodeId, key: PublicKey) {
        if self.config.asks_keys && self.keys.get(&node) != Some(&key) {
            self.wanted.want(now, node);
        }
    }

    /// Asks for a proof, unless the address has given one or cannot.
    fn challenge(&mut self, now: Instant, from: SocketAddr, node: NodeId) {
        let is_proven = self.entries.get(&node).is_some_and(|entry| entry.is_proven_at(from));
        if !is_proven && self.keys.contains_key(&node) && self.courtesy(now).is_ok() {
            let nonce = self.challenger.nonce(now, from);
            self.send(Route::Udp(from), &Message::Challenge { nonce });
        }
    }

    /// A wrong proof is no claim either.
    fn is_proven(
        &mut self,
        now: Instant,
        from: SocketAddr,
        node: NodeId,
        proof: &DiscoverProof,
    ) -> Result<bool, Drop> {
        self.courtesy(now)?;
        let key = self.keys.get(&node).copied().ok_or(Drop::Impostor)?;
        match self.challenger.is_answered(now, from, node, &key, proof) {
            true => Ok(true),
            false => Err(Drop::Impostor),
        }
    }

    /// Where a discover came from, as its sender is told.
    fn seen_at(&self, from: Route) -> Result<SocketAddr, Drop> {
        match from {
            Route::Udp(addr) => Ok(addr),
            Route::Web(conn) if self.web.contains_key(&conn) => Ok(NOWHERE),
            Route::Web(_) | Route::Elsewhere(..) => Err(Drop::Impostor),
        }
    }

    /// Whether something other than its word says that the node is at this address: a signature, or the registry.
    fn is_known_at(&self, node: NodeId, addr: SocketAddr) -> bool {
        self.homes.get(&node) == Some(&addr.ip())
            || self.entries.get(&node).is_some_and(|entry| entry.is_proven_at(addr))
    }

    /// The same, of where it is now.
    pub(super) fn is_vouched_for(&self, node: NodeId) -> bool {
        self.claim(node).is_some_and(|claim| claim.standing > Standing::Claimed)
    }

    /// How surely a node is here.
    pub(super) fn claim(&self, node: NodeId) -> Option<Claim> {
        self.entries.get(&node)?.claim(self.homes.get(&node))
    }

    /// A node said that it is here: that may be news for other beacons.
    fn announce(&mut self, now: Instant, node: NodeId) {
        if self.elsewhere(now, node).is_none() {
            self.mesh.forget(node);
            self.mesh.tell_of(now, node);
        }
    }

    fn enter(&mut self, now: Instant, node: NodeId, addr: SocketAddr, delivers_to: bool) {
        self.entry(now, node).seats.udp = Some(Seat { at: addr, delivers_to });
        self.file(node, now);
    }

    /// The entry of a node, without any seat if there was none.
    fn entry(&mut self, now: Instant, node: NodeId) -> &mut Entry {
        let config = &self.config;
        self.entries.entry(node).or_insert_with(|| Entry::new(config, now))
    }

    /// Puts an entry where it belongs by its address and the time it was last heard of.
    fn file(&mut self, node: NodeId, seen: Instant) {
        let Some(entry) = self.entries.get_mut(&node) else { return };
        self.residents.remove(&(entry.seen, node));
        self.strangers.remove(&(entry.seen, node));
        entry.seen = seen;
        if entry.seats.web.is_some() {
            return;
        }
        let is_resident = entry.proven || entry.is_at(self.homes.get(&node));
        let list = if is_resident { &mut self.residents } else { &mut self.strangers };
        list.insert((seen, node));
    }

    fn may_claim(&self, now: Instant, node: NodeId, from: SocketAddr) -> bool {
        let Some(entry) = self.entries.get(&node) else { return true };
        let Some(ip) = entry.seats.ip() else { return true };
        if entry.proven {
            return entry.is_proven_at(from);
        }
        if ip == from.ip() || self.homes.get(&node) == Some(&from.ip()) {
            return true;
        }
        self.homes.get(&node) != Some(&ip) && now.saturating_duration_since(entry.seen) >= CLAIM_PATIENCE
    }

    /// The entry of a node, if the message comes from where it is.
    pub(super) fn entry_of(&mut self, from: Route, node: NodeId) -> Result<&mut Entry, Drop> {
        let entry = self.entries.get_mut(&node).ok_or(Drop::Impostor)?;
        let admits = match from {
            Route::Udp(addr) if entry.proven && entry.seats.web.is_none() => entry.is_proven_at(addr),
            Route::Udp(_) | Route::Web(_) | Route::Elsewhere(..) => entry.seats.admits(from),
        };
        if admits { Ok(entry) } else { Err(Drop::Impostor) }
    }

    /// A node went over to another beacon. Who is on the web stays as long as the connection.
    pub(super) fn let_go(&mut self, node: NodeId) {
        if let Some(entry) = self.entries.get(&node).filter(|entry| entry.seats.web.is_none()) {
            let filed = (entry.seen, node);
            self.residents.remove(&filed);
            self.strangers.remove(&filed);
            self.entries.remove(&node);
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        for list in [&mut self.residents, &mut self.strangers] {
            while let Some(&(seen, node)) = list.first()
                && now.saturating_duration_since(seen) >= self.config.expiry
            {
                list.pop_first();
                self.entries.remove(&node);
                self.mesh.tell_of(now, node);
            }
        }
    }

    /// A flood of claims displaces other claims, and no node that something speaks for.
    fn make_room(&mut self, now: Instant, node: NodeId, is_vouched_for: bool) -> Result<(), Drop> {
        if self.entries.len() < self.config.max_nodes || self.entries.contains_key(&node) {
            return Ok(());
        }
        let oldest = self.strangers.pop_first();
        let oldest = oldest.or_else(|| if is_vouched_for { self.residents.pop_first() } else { None });
        let (_, oldest) = oldest.ok_or(Drop::TooMany)?;
        self.entries.remove(&oldest);
        self.mesh.tell_of(now, oldest);
        Ok(())
    }
}
