//! Which beacon is used: the one beside the registry that the node is at, so that both are there or gone together.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::{Command, Driver};
use crate::registry::Order;

/// Pauses between attempts to look the beacon's name up: the network may come later than the daemon.
const LOOKUP_PAUSE_MIN: Duration = Duration::from_secs(1);
const LOOKUP_PAUSE_MAX: Duration = Duration::from_secs(60);

/// The beacon in use, as it was configured.
#[derive(Default)]
pub(super) struct Chosen {
    name: Option<String>,
    /// Looks its name up.
    search: Option<AbortHandle>,
}

impl Driver {
    /// `host:port`, or empty without one.
    pub(super) fn beacon(&self) -> String {
        self.beacon.name.clone().unwrap_or_default()
    }

    /// The beacon beside the registry of this position is to be used from now on.
    pub(super) fn use_beacon_of(&mut self, now: Instant, registry: usize) {
        let Some(beacon) = self.config.beacon_of(registry).cloned() else { return };
        if self.beacon.name.as_ref() == Some(&beacon) {
            return;
        }
        let first = self.beacon.name.replace(beacon.clone()).is_none();
        if let Some(search) = self.beacon.search.take() {
            search.abort();
        }
        if !first {
            tracing::info!(beacon, "the beacon is another one");
            self.beacon_is_another(now, &beacon);
        }
        match beacon.parse() {
            Ok(address) => self.on_beacon_found(now, &beacon, address),
            Err(_) => {
                let search = self.tasks.spawn(find(beacon, self.commands.clone()));
                self.beacon.search = Some(search);
            }
        }
    }

    /// The beacon does not answer: the registry beside it may have gone with it.
    pub(super) fn doubt_registry(&self) {
        // A full queue has questions enough to find that out.
        let _ = self.link.send(Order::Doubt);
    }

    /// Whether news about a beacon are about the one in use.
    pub(super) fn is_our_beacon(&self, beacon: &str) -> bool {
        self.beacon.name.as_deref() == Some(beacon)
    }
}

/// A beacon given by name: the answer of the name service comes when it comes.
async fn find(beacon: String, commands: mpsc::Sender<Command>) {
    let mut pause = LOOKUP_PAUSE_MIN;
    loop {
        match tokio::net::lookup_host(&beacon).await.map(|mut found| found.next()) {
            Ok(Some(address)) => {
                // The loop is gone only when this task is about to be, too.
                let _ = commands.send(Command::Beacon(beacon, address)).await;
                return;
            }
            Ok(None) => tracing::warn!(beacon, "the beacon's name has no address"),
            Err(error) => tracing::warn!(beacon, %error, "the beacon's name cannot be looked up"),
        }
        if commands.send(Command::BeaconUnknown(beacon.clone())).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOOKUP_PAUSE_MAX);
    }
}
