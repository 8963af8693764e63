//! A call under way: whether it is still wanted, and how its client hears that it goes on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// How often a call that waits says so: clients end calls that are silent for long.
const REMIND: Duration = Duration::from_secs(5);

/// Longest remark.
pub(crate) const REMARK_MAX: usize = 300;

/// One call.
pub(crate) struct Pace {
    context: RequestContext<RoleServer>,
    closing: watch::Receiver<bool>,
    progress: Progress,
}

/// Tells the client how far the call is, if it wants to know.
pub(crate) struct Progress {
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    closing: watch::Receiver<bool>,
    /// What was told last: it has to grow.
    step: AtomicU32,
}

impl Pace {
    pub(crate) fn new(context: RequestContext<RoleServer>, closing: watch::Receiver<bool>) -> Self {
        let progress = Progress {
            peer: context.peer.clone(),
            token: context.meta.get_progress_token(),
            closing: closing.clone(),
            step: AtomicU32::new(0),
        };
        Self { context, closing, progress }
    }

    /// Resolves when nobody waits for the result any more.
    pub(crate) async fn stopped(&self) {
        let mut closing = self.closing.clone();
        tokio::select! {
            () = self.context.ct.cancelled() => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    pub(crate) const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Never ends; says `what` now and then, until it is dropped.
    pub(crate) async fn remind(&self, what: &str) -> std::convert::Infallible {
        let mut ticks = interval_at(Instant::now() + REMIND, REMIND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.progress.say(what).await;
        }
    }
}

impl Progress {
    /// One step further. That nobody hears it is no reason to fail.
    pub(crate) async fn say(&self, what: impl Into<String>) {
        let Some(token) = &self.token else { return };
        let step = self.step.fetch_add(1, Ordering::Relaxed) + 1;
        let param = ProgressNotificationParam::new(token.clone(), f64::from(step)).with_message(what);
        self.tell(param).await;
    }

    /// So much of so much.
    #[expect(clippy::cast_precision_loss, reason = "a file of more than 2^53 bytes is shown well enough")]
    pub(crate) async fn measure(&self, done: u64, total: u64) {
        let Some(token) = &self.token else { return };
        let param = ProgressNotificationParam::new(token.clone(), done as f64).with_total(total as f64);
        self.tell(param).await;
    }

    /// Once the client has closed its side nobody says any more that a notification was written.
    async fn tell(&self, param: ProgressNotificationParam) {
        let mut closing = self.closing.clone();
        tokio::select! {
            _ = self.peer.notify_progress(param) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }
}
