//! The network around this node: what its beacon and its surveys say.

use std::time::Instant;

use pilot_proto::{BeaconEvent, Survey};

use super::Driver;

impl Driver {
    pub(super) fn on_beacon(&mut self, now: Instant, event: BeaconEvent) {
        match event {
            BeaconEvent::Answers => tracing::info!("the beacon answers"),
            BeaconEvent::Silent => {
                tracing::warn!("the beacon does not answer");
                self.on_beacon_silent(now);
            }
        }
    }

    pub(super) fn on_surveyed(&mut self, now: Instant, survey: Survey) {
        let _ = now;
        tracing::debug!(?survey, "surveyed");
    }
}
