//! The beacons of this registry: who they are, and what those of the mesh are told. They have been announced here, or at
//! another instance over the same records. That is not kept: who runs a beacon announces it every half minute.

use super::{ConnId, Key, Refusal, State};
use pilot_wire::{
    NodeId,
    registry::{Beacon, BeaconLink, BeaconLinked, BeaconNode, MeshSecret, Response},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Most beacons.
const BEACONS_MAX: usize = 64;
/// Longest address of a beacon, in bytes.
const BEACON_ADDR_MAX: usize = 255;
/// How long an announcement holds.
const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Beacons {
    known: BTreeMap<u32, Announced>,
    /// Announced here since the others were told.
    news: BTreeSet<u32>,
}

#[derive(Debug)]
struct Announced {
    addr: String,
    at: Instant,
}

impl Beacons {
    /// Somebody announced it here. False if there are too many.
    pub(super) fn announce(&mut self, now: Instant, id: u32, addr: String) -> bool {
        let taken = self.insert(now, id, addr);
        if taken {
            self.news.insert(id);
        }
        taken
    }

    /// It was announced at another instance.
    pub(super) fn announced_elsewhere(&mut self, now: Instant, id: u32, addr: String) {
        if id != 0 && !addr.is_empty() && addr.len() <= BEACON_ADDR_MAX {
            self.insert(now, id, addr);
        }
    }

    /// By number, with their addresses.
    pub(super) fn known(&mut self, now: Instant) -> impl Iterator<Item = (u32, &str)> {
        self.forget(now);
        self.known.iter().map(|(id, beacon)| (*id, beacon.addr.as_str()))
    }

    /// What was announced here since the last call.
    pub(super) fn take_news(&mut self) -> Vec<(u32, String)> {
        let news = std::mem::take(&mut self.news);
        news.into_iter().filter_map(|id| Some((id, self.known.get(&id)?.addr.clone()))).collect()
    }

    fn insert(&mut self, now: Instant, id: u32, addr: String) -> bool {
        self.forget(now);
        if self.known.len() >= BEACONS_MAX && !self.known.contains_key(&id) {
            return false;
        }
        // One that was started again has another number at the same place.
        self.known.retain(|other, beacon| *other == id || beacon.addr != addr);
        self.known.insert(id, Announced { addr, at: now });
        true
    }

    fn forget(&mut self, now: Instant) {
        self.known.retain(|_, beacon| now.saturating_duration_since(beacon.at) < LIFETIME);
        self.news.retain(|id| self.known.contains_key(id));
    }
}

impl State {
    /// What the beacons know each other by. `fresh` becomes it, and a record, if there was none in the store.
    pub fn mesh_secret(&mut self, fresh: MeshSecret) -> MeshSecret {
        if self.mesh_secret.is_none() {
            self.touch(Key::Mesh);
        }
        *self.mesh_secret.get_or_insert(fresh)
    }

    /// Whether there is a secret of the mesh.
    #[must_use]
    pub fn has_mesh_secret(&self) -> bool {
        self.mesh_secret.is_some()
    }

    /// The beacon of this rendezvous, and where others reach it. With an unspecified address it is told to each client
    /// as the address that the client came by.
    pub fn set_own_beacon(&mut self, id: u32, addr: SocketAddr) {
        self.own_beacon = Some((id, addr));
    }

    /// Announces the beacon of this rendezvous, for the others over the same records. One that listens on every address of
    /// the host does not know which of them is meant.
    pub fn announce_own_beacon(&mut self, now: Instant) {
        if let Some((id, addr)) = self.own_beacon
            && !addr.ip().is_unspecified()
        {
            self.beacons.announce(now, id, addr.to_string());
        }
    }

    /// The announced beacons other than this rendezvous' own, which is announced hereby: ask at least twice a minute.
    pub fn other_beacons(&mut self, now: Instant) -> Vec<Beacon> {
        self.announce_own_beacon(now);
        let own = self.own_beacon.map(|(id, _)| id);
        let others = self.beacons.known(now).filter(|(id, _)| Some(*id) != own);
        others.map(|(id, addr)| Beacon { id, addr: addr.to_owned() }).collect()
    }

    /// Nodes send what they relay to the beacons of this list, so not everybody may put one there
    /// (spec/registry.md 23 S11).
    pub(super) fn beacon_register(
        &mut self,
        now: Instant,
        conn: ConnId,
        beacon: u32,
        addr: String,
        token: &str,
    ) -> Result<Response, Refusal> {
        self.announce(now, conn, beacon, addr, token)?;
        Ok(Response::BeaconRegister { beacon_id: beacon })
    }

    fn announce(
        &mut self,
        now: Instant,
        conn: ConnId,
        beacon: u32,
        addr: String,
        token: &str,
    ) -> Result<(), Refusal> {
        let is_local = self.sessions.get(&conn).is_some_and(|session| session.peer.ip().is_loopback());
        if !is_local && !self.is_admin(token) {
            return Err(Refusal::BeaconForeign);
        }
        if beacon == 0 {
            return Err(Refusal::BeaconIdRequired);
        }
        if addr.is_empty() || addr.len() > BEACON_ADDR_MAX {
            return Err(Refusal::BeaconAddrRequired);
        }
        if !self.beacons.announce(now, beacon, addr) {
            return Err(Refusal::TooManyBeacons(BEACONS_MAX));
        }
        Ok(())
    }

    pub(super) fn beacon_list(&mut self, now: Instant, conn: ConnId) -> Response {
        let mut beacons = self.other_beacons(now);
        // Alone and on loopback it would tell nobody anything (spec/registry.md 10).
        if let Some(own) = self.own_beacon_as_seen_by(conn)
            && (!beacons.is_empty() || !own.1.ip().is_loopback())
        {
            let (id, addr) = own;
            beacons.push(Beacon { id, addr: addr.to_string() });
            beacons.sort_by_key(|beacon| beacon.id);
        }
        Response::BeaconList { beacons }
    }

    pub(super) fn beacon_link(
        &mut self,
        now: Instant,
        conn: ConnId,
        request: BeaconLink,
        token: &str,
    ) -> Result<Response, Refusal> {
        self.announce(now, conn, request.beacon_id, request.addr, token)?;
        let mesh_secret = self.mesh_secret.ok_or(Refusal::NoMesh)?;
        let mut beacons = self.other_beacons(now);
        beacons.retain(|beacon| beacon.id != request.beacon_id);
        if let Some((id, addr)) = self.own_beacon_as_seen_by(conn) {
            beacons.push(Beacon { id, addr: addr.to_string() });
        }
        let nodes = request.nodes.iter().take(BeaconLink::ITEMS_MAX);
        let nodes = nodes.filter_map(|node| self.beacon_node(*node)).collect();
        let pairs = request.pairs.iter().take(BeaconLink::ITEMS_MAX);
        let pairs = pairs.filter(|(requester, target)| self.may_introduce(*requester, *target)).copied();
        let pairs = pairs.collect();
        Ok(Response::BeaconLink(BeaconLinked { mesh_secret, beacons, nodes, pairs }))
    }

    fn beacon_node(&self, node_id: NodeId) -> Option<BeaconNode> {
        let public_key = self.key_of(node_id)?;
        let home = self.presence(node_id)?.endpoint.map(|addr| addr.ip());
        Some(BeaconNode { node_id, public_key, home })
    }

    /// If the beacon is on every address of this host, each client is told the one it came by.
    pub(super) fn own_beacon_as_seen_by(&self, conn: ConnId) -> Option<(u32, SocketAddr)> {
        let (id, addr) = self.own_beacon?;
        if !addr.ip().is_unspecified() {
            return Some((id, addr));
        }
        let local = self.sessions.get(&conn)?.local?;
        Some((id, SocketAddr::new(local, addr.port())))
    }
}
