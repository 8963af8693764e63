//! The network around this node: what this host is connected to, what its gateway and its neighbours say, what its beacon
//! and its surveys say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use pilot_proto::{BeaconEvent, CandidateSource, Survey};
use pilot_wire::NodeId;
use pilot_wire::ipc::{LanStatus, NetworkStatus};
use tokio::sync::{Notify, watch};

use super::Driver;
use crate::handle::Sign;
use crate::network::{Book, Mapping, News, Pulse, Surroundings};
use crate::registry::Order;

/// The ends of the parts that deal with the network, and what they start with.
pub(crate) struct Edge {
    pub(crate) surroundings: Surroundings,
    /// Whom to find in this network. Nobody reads it where that is switched off.
    pub(crate) book: watch::Sender<Book>,
    /// Has the peers in this network asked where they are.
    pub(crate) wish: Option<Arc<Notify>>,
    /// Has the gateway asked again what it maps.
    pub(crate) doubt: Option<Arc<Notify>>,
    pub(crate) mapping: Mapping,
    pub(crate) lan: LanStatus,
}

/// What the loop knows of the network.
pub(super) struct Network {
    edge: Edge,
    pulse: Pulse,
}

impl Network {
    pub(super) fn new(edge: Edge) -> Self {
        Self { edge, pulse: Pulse::new(Instant::now(), SystemTime::now()) }
    }
}

impl Driver {
    pub(super) fn on_network_news(&mut self, now: Instant, news: News) {
        match news {
            News::Surroundings(here) => self.on_surroundings(now, here),
            News::Mapping(mapping) => {
                self.node.set_mapped(now, mapping.external);
                if self.profile.mapped != mapping.external {
                    self.profile.mapped = mapping.external;
                    self.tell_link_profile();
                }
                self.network.edge.mapping = mapping;
            }
            News::Lan(status) => {
                tracing::info!(on = status.on, reason = status.reason, "peers in the same network");
                self.network.edge.lan = status;
            }
            News::Sighted(peer, address) => {
                // It may have been distrusted since.
                if self.node.is_trusted(peer) {
                    tracing::debug!(%peer, %address, "announces itself in this network");
                    self.node.hint(now, peer, address, CandidateSource::Lan);
                    self.sign(Sign::Peer(peer));
                }
            }
        }
    }

    fn on_surroundings(&mut self, now: Instant, here: Surroundings) {
        self.sign(Sign::Network);
        let bound = self.socket.local();
        let before = std::mem::replace(&mut self.network.edge.surroundings, here);
        let here = &self.network.edge.surroundings;
        let addresses = here.reachable(bound);
        if addresses != before.reachable(bound) {
            tracing::info!(?addresses, "the addresses of this host changed");
            self.node.set_local(now, addresses);
        } else if here.routes != before.routes {
            tracing::info!(gateway = ?here.routes.gateway, "the routes of this host changed");
            self.node.network_changed(now);
        } else {
            return;
        }
        let lan = here.lan(bound);
        self.check_web(now);
        if self.profile.lan != lan {
            self.profile.lan = lan;
            self.tell_link_profile();
        }
        self.shake_link();
    }

    /// A host that slept wakes up somewhere else, as far as anybody knows.
    pub(super) fn notice_sleep(&mut self, now: Instant) {
        let Some(slept) = self.network.pulse.beat(now, SystemTime::now()) else { return };
        tracing::info!(seconds = slept.as_secs(), "this host was asleep");
        self.node.network_changed(now);
        self.check_web(now);
        self.shake_link();
        self.doubt_mapping();
        self.wish_for_peers();
    }

    /// The connection to the registry may lead nowhere now.
    fn shake_link(&self) {
        let own: Vec<IpAddr> = self.network.edge.surroundings.interfaces.iter().map(|i| i.ip).collect();
        // A full queue means that the link has other troubles.
        let _ = self.link.send(Order::NetworkChanged(own));
    }

    /// Something says that the gateway is not what it was.
    pub(super) fn doubt_mapping(&self) {
        if let Some(doubt) = &self.network.edge.doubt {
            doubt.notify_one();
        }
    }

    /// A peer is missed that may be in this network.
    pub(super) fn wish_for_peers(&self) {
        if let Some(wish) = &self.network.edge.wish {
            wish.notify_one();
        }
    }

    /// Tells whom to find in this network, and as whom to be found.
    pub(super) fn tell_finder(&self) {
        let peers: Vec<NodeId> = self.node.trust().trusted().map(|(node, _)| node).collect();
        let key = |node: NodeId| self.known_key(node).or_else(|| self.memory.peers.get(&node)?.public_key);
        let peers = peers.into_iter().filter_map(|node| Some((node, key(node)?))).collect();
        let book = Book { own: self.own_key(), peers };
        self.network.edge.book.send_if_modified(|before| {
            let changed = *before != book;
            *before = book;
            changed
        });
    }

    pub(super) fn network_status(&self) -> NetworkStatus {
        NetworkStatus {
            addresses: self.network.edge.surroundings.reachable(self.socket.local()),
            port_mapping: self.network.edge.mapping.status(),
            lan_discovery: self.network.edge.lan.clone(),
        }
    }

    pub(super) fn on_beacon(&mut self, now: Instant, event: BeaconEvent) {
        self.checks.on_beacon(event);
        match event {
            BeaconEvent::Answers => {
                tracing::info!("the beacon answers");
                self.beacon_is_in_order();
            }
            BeaconEvent::Late => self.doubt_registry(),
            BeaconEvent::Silent => {
                tracing::warn!("the beacon does not answer");
                self.on_beacon_silent(now);
            }
        }
    }

    pub(super) fn on_surveyed(&mut self, now: Instant, survey: Survey) {
        tracing::debug!(?survey, "surveyed");
        self.note_survey(now, survey);
    }
}
