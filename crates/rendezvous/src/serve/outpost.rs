//! A beacon alone, of a registry somewhere else.

use super::{
    BoundWeb, Missing, RunError, beacon, beacon_id,
    beside::Place,
    ears,
    link::{Announced, Link, LinkError},
    random, serve_web, session, web,
};
use crate::{
    BeaconConfig,
    beacon::{Introductions, Secret, State},
    http::BeaconPulse,
};
use std::net::SocketAddr;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
};

/// Where a beacon is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundBeacon {
    /// UDP.
    pub beacon: SocketAddr,
    /// Its number among the beacons of its registry.
    pub id: u32,
    /// The beacon over the web.
    pub web: Option<BoundWeb>,
    /// Where that was to be and is not.
    pub web_missing: Option<Missing>,
}

/// What the beacon wants of the registry, and what it is told, on its way. More makes the one wait, and is forgotten by
/// the other.
const QUEUE: usize = 1024;

/// Serves a beacon that belongs to a registry somewhere else until `shutdown` is ready. `ready` is called once, when the
/// socket is bound and the registry has answered, or does not. It may come later.
///
/// # Errors
/// [`RunError`] when it cannot start, or the registry does not take it, or it cannot go on.
pub async fn run_beacon(
    config: BeaconConfig,
    ready: impl FnOnce(BoundBeacon),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let failed = |source| RunError::Bind { what: "beacon", addr: config.beacon_addr, source };
    if config.registries.is_empty() {
        return Err(RunError::Failed("a beacon needs a registry".to_owned()));
    }
    let udp = UdpSocket::bind(config.beacon_addr).await.map_err(failed)?;
    let addr = udp.local_addr().map_err(failed)?;
    let web_place = match &config.web {
        Some(web) => Place::of_web(web, addr).await?,
        None => Place::default(),
    };
    let (to_registry, registry_events) = mpsc::channel(QUEUE);
    let (to_beacon, orders) = mpsc::channel(QUEUE);
    let (to_web_inbox, web_inbox) = web::inbox();
    let (web, serving_web) = serve_web(config.web, web_place.listener, to_registry.clone(), to_web_inbox)?;
    let bound = BoundBeacon {
        beacon: addr,
        id: beacon_id(config.beacon_id, config.beacon_advertise.unwrap_or(addr))?,
        web,
        web_missing: web_place.missing,
    };
    let state = State::new(crate::beacon::Config {
        introductions: Introductions::Ask,
        asks_keys: true,
        secret: Secret(random()?),
        ..config.beacon
    });
    let announced = Announced {
        id: bound.id,
        session: session(),
        addr: config.beacon_advertise.unwrap_or(addr),
        admin_token: config.admin_token,
        trust: config.registry_trust,
    };
    let mut link = Link::new(config.registries, announced);
    match link.exchange(&to_beacon).await {
        Ok(()) => {}
        Err(LinkError::Refused(reason)) => {
            return Err(RunError::Refused { registry: link.registry().to_owned(), reason });
        }
        Err(error @ (LinkError::Io(_) | LinkError::Silent | LinkError::Frame(_) | LinkError::Strange(_))) => {
            tracing::warn!(registry = link.registry(), %error, "the registry does not answer yet");
        }
    }
    let ears = ears::Sockets::bind(addr, config.second_beacon_ip).await;
    let (publish, pulse) = watch::channel(BeaconPulse::default());
    let serving = beacon::serve(udp, ears, state, orders, web_inbox, to_registry, publish);
    let linking = link.serve(registry_events, to_beacon);
    tracing::info!(beacon = %addr, id = bound.id, "beacon is ready");
    ready(bound);
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        error = serving => Err(RunError::Failed(format!("beacon: {error}"))),
        () = linking => Err(RunError::Failed("the link to the registry ended".to_owned())),
        () = serving_web => Err(RunError::Failed("the listener for the web ended".to_owned())),
    };
    tracing::info!(beacon = ?pulse.borrow().stats, "the beacon ends");
    outcome
}
