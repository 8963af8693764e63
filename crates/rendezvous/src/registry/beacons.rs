//! The beacons of this registry: who they are, and what those of the mesh are told.

use super::{ConnId, Key, Refusal, State};
use pilot_wire::{
    NodeId,
    registry::{Beacon, BeaconLink, BeaconLinked, BeaconNode, MeshSecret, Response},
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Beacons, and how long an announcement holds.
const BEACONS_MAX: usize = 64;
const BEACON_LIFETIME: Duration = Duration::from_secs(60);
/// Longest address of a beacon, in bytes.
const BEACON_ADDR_MAX: usize = 255;

impl State {
    /// What the beacons know each other by. `fresh` becomes it, and a record, if there was none in the store.
    pub fn mesh_secret(&mut self, fresh: MeshSecret) -> MeshSecret {
        if self.mesh_secret.is_none() {
            self.touch(Key::Mesh);
        }
        *self.mesh_secret.get_or_insert(fresh)
    }

    /// The beacon of this rendezvous, and where others reach it. With an unspecified address it is told to each client
    /// as the address that the client came by.
    pub fn set_own_beacon(&mut self, id: u32, addr: SocketAddr) {
        self.own_beacon = Some((id, addr));
    }

    /// The announced beacons other than this rendezvous' own, which is announced hereby: ask at least twice a minute.
    pub fn other_beacons(&mut self, now: Instant) -> Vec<Beacon> {
        self.forget_beacons(now);
        if let Some((id, addr)) = self.own_beacon
            && !addr.ip().is_unspecified()
        {
            self.beacons.insert(id, (addr.to_string(), now));
        }
        let own = self.own_beacon.map(|(id, _)| id);
        let others = self.beacons.iter().filter(|(id, _)| Some(**id) != own);
        others.map(|(id, (addr, _))| Beacon { id: *id, addr: addr.clone() }).collect()
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
        self.forget_beacons(now);
        if self.beacons.len() >= BEACONS_MAX && !self.beacons.contains_key(&beacon) {
            return Err(Refusal::TooManyBeacons(BEACONS_MAX));
        }
        // One that was started again has another number at the same place.
        self.beacons.retain(|id, (other, _)| *id == beacon || *other != addr);
        self.beacons.insert(beacon, (addr, now));
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

    fn forget_beacons(&mut self, now: Instant) {
        self.beacons.retain(|_, (_, at)| now.saturating_duration_since(*at) < BEACON_LIFETIME);
    }
}
