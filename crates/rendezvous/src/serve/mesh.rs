//! Who the other beacons are: asked of the registry of this rendezvous now and then.

use super::{beacon::Order, registry::Event};
use pilot_wire::registry::Beacon;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

/// How often a registry on another machine is asked, and ours.
pub(super) const REFRESH: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

/// Time for a name to be looked up.
const LOOKUP: Duration = Duration::from_secs(2);

/// Runs until one of the two is gone.
pub(super) async fn introduce(to_registry: mpsc::Sender<Event>, to_beacon: mpsc::Sender<Order>) {
    loop {
        let (answer, beacons) = oneshot::channel();
        if to_registry.send(Event::OtherBeacons(answer)).await.is_err() {
            return;
        }
        let Ok(beacons) = beacons.await else { return };
        if to_beacon.send(Order::Peers(located(beacons).await)).await.is_err() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Where they are. One whose name has no address is left out until it has.
pub(super) async fn located(beacons: Vec<Beacon>) -> Vec<(u32, SocketAddr)> {
    let mut located = Vec::new();
    for Beacon { id, addr } in beacons {
        let found = match addr.parse() {
            Ok(addr) => Some(addr),
            Err(_) => match timeout(LOOKUP, tokio::net::lookup_host(&addr)).await {
                Ok(Ok(mut found)) => found.next(),
                Ok(Err(_)) | Err(_) => None,
            },
        };
        match found {
            Some(addr) => located.push((id, addr)),
            None => tracing::debug!(id, addr, "the address of a beacon leads nowhere"),
        }
    }
    located
}
