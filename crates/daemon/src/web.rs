//! The link to the beacon over the web, for when datagrams do not pass: one task that holds one WebSocket
//! (spec/dataplane.md 2.10), through a proxy if there is one.
//!
//! The driver puts messages for the beacon in and gets its messages and [`Report`]s back; it never waits. What is put in
//! while there is no connection, or faster than it takes, is lost, as datagrams are.

mod connection;
pub(crate) mod proxy;
mod target;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilot_crypto::Identity;
use pilot_wire::NodeId;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use connection::Lost;
pub(crate) use proxy::Proxy;
pub use proxy::ProxyError;
pub(crate) use target::Target;
pub use target::{TargetError, derived};

use crate::tls::{Fingerprint, Known, KnownCertificates};

/// Which certificates of beacons are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins {
    /// The only one that is right, if the owner said so.
    pub(crate) given: Option<Fingerprint>,
    /// Those that were seen before, by `host:port`.
    pub(crate) seen: KnownCertificates,
}

/// Messages that wait to be written, and how many bytes they may have: about what a router on the way would hold. More
/// would only make everything late.
const OUTBOX: usize = 1024;
const OUTBOX_BYTES: usize = 1 << 20;

/// First pause after a failed attempt; doubled each time up to [`PAUSE_MAX`] (spec/dataplane.md 2.10).
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A connection that lasted this long was a good one: the next attempt need not be careful. A shorter one may have been
/// taken away by another daemon with our identity.
const GOOD: Duration = Duration::from_secs(10);

/// Who is to be proved to the beacon.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    pub(crate) node: NodeId,
    pub(crate) identity: Identity,
}

/// What the link needs.
pub(crate) struct Settings {
    /// Where the beacon may be, in order of preference.
    pub(crate) targets: Vec<Target>,
    pub(crate) pins: Pins,
    pub(crate) proxy: Option<Proxy>,
    /// `None` until the node is registered.
    pub(crate) credentials: watch::Receiver<Option<Credentials>>,
}

/// What the link tells the driver.
#[derive(Debug)]
pub(crate) enum Report {
    /// The beacon knows who we are; from here on it takes messages.
    Up {
        /// The URL.
        url: String,
        /// Through which proxy.
        proxy: Option<String>,
    },
    /// What is to be remembered of the certificate at `host:port`.
    Pinned(String, Known),
    /// A message of the beacon.
    Message(Bytes),
    /// There is no connection; another attempt follows.
    Down {
        /// The URL that was tried.
        url: String,
        /// Why.
        error: String,
        /// When the next attempt begins.
        pause: Duration,
    },
    /// The link was let go and has ended in order.
    Ended,
}

/// A message that takes its room with it.
#[derive(Debug)]
struct Outgoing {
    message: Vec<u8>,
    _room: OwnedSemaphorePermit,
}

/// The driver's end. Dropped, the connection is closed in order.
pub(crate) struct Link {
    outbox: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
    check: Arc<Notify>,
}

impl Link {
    /// The two ends: this one, and the task to run. `report` brings reports to the driver.
    pub(crate) fn new<F, R>(settings: Settings, report: F) -> (Self, impl Future<Output = ()> + Send)
    where
        F: Fn(Report) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send,
    {
        let (outbox, queue) = mpsc::channel(OUTBOX);
        let check = Arc::new(Notify::new());
        let task = Task { settings, queue, check: Arc::clone(&check), report, current: 0 };
        (Self { outbox, room: Arc::new(Semaphore::new(OUTBOX_BYTES)), check }, task.run())
    }

    /// Hands a message over. `false` if it is lost.
    pub(crate) fn send(&self, message: &[u8]) -> bool {
        let Ok(bytes) = u32::try_from(message.len()) else { return false };
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return false };
        self.outbox.try_send(Outgoing { message: message.to_owned(), _room: room }).is_ok()
    }

    /// The network has changed: the connection is tried, or the next attempt made, at once.
    pub(crate) fn check(&self) {
        self.check.notify_one();
    }
}

struct Task<F> {
    settings: Settings,
    queue: mpsc::Receiver<Outgoing>,
    check: Arc<Notify>,
    report: F,
    /// Which target is tried.
    current: usize,
}

impl<F, R> Task<F>
where
    F: Fn(Report) -> R + Send + Sync,
    R: Future<Output = ()> + Send,
{
    async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        loop {
            let begin = Instant::now();
            let lost = match self.attempt().await {
                Ok(never) => match never {},
                Err(lost) => lost,
            };
            if matches!(lost, Lost::LetGo) {
                return (self.report)(Report::Ended).await;
            }
            if begin.elapsed() >= GOOD {
                pause = PAUSE_MIN;
            }
            let wait = jittered(pause);
            let (url, error) = (self.target().to_string(), lost.to_string());
            tracing::info!(url, error, "no connection to the beacon over the web");
            (self.report)(Report::Down { url, error, pause: wait }).await;
            if !lost.is_of_the_beacon() {
                self.current = (self.current + 1) % self.settings.targets.len().max(1);
            }
            if !self.rest(wait).await {
                return (self.report)(Report::Ended).await;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn target(&self) -> &Target {
        &self.settings.targets[self.current]
    }

    async fn attempt(&mut self) -> Result<std::convert::Infallible, Lost> {
        let credentials = self.credentials().await?;
        let opening = connection::open(
            &self.settings.targets[self.current],
            &self.settings.pins,
            self.settings.proxy.as_ref(),
            &credentials,
        );
        let mut connection = {
            tokio::pin!(opening);
            loop {
                tokio::select! {
                    opened = &mut opening => break opened?,
                    // Nothing is to be put in yet, so this is the end of the driver's wish, or old.
                    stale = self.queue.recv() => if stale.is_none() { return Err(Lost::LetGo) },
                }
            }
        };
        if let Some((host, known)) = connection.news.take() {
            self.settings.pins.seen.insert(host.clone(), known);
            (self.report)(Report::Pinned(host, known)).await;
        }
        while self.queue.try_recv().is_ok() {}
        let proxy = connection.proxy.take();
        (self.report)(Report::Up { url: self.target().to_string(), proxy }).await;
        connection.pass(&mut self.queue, &self.check, &self.report).await
    }

    /// Waits until the node is registered.
    async fn credentials(&mut self) -> Result<Credentials, Lost> {
        loop {
            if let Some(credentials) = self.settings.credentials.borrow_and_update().clone() {
                return Ok(credentials);
            }
            tokio::select! {
                changed = self.settings.credentials.changed() => changed.map_err(|_| Lost::LetGo)?,
                stale = self.queue.recv() => if stale.is_none() { return Err(Lost::LetGo) },
            }
        }
    }

    /// Waits before the next attempt. `false` when the link was let go.
    async fn rest(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return true,
                () = self.check.notified() => return true,
                stale = self.queue.recv() => if stale.is_none() { return false },
            }
        }
    }
}

/// Between half of `pause` and all of it, so that nodes which lost a beacon together do not return together.
fn jittered(pause: Duration) -> Duration {
    let share = pilot_crypto::random_bytes::<1>().map_or(u8::MAX, |[byte]| byte);
    pause / 2 + pause / 2 * u32::from(share) / 255
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{Target, derived, proxy};

    pub(crate) fn text(text: &str) {
        if let Ok(target) = text.parse::<Target>() {
            assert_eq!(target.to_string().parse().as_ref(), Ok(&target), "{text:?}");
        }
        for url in derived(text) {
            let _ = url.parse::<Target>();
        }
        proxy::fuzz(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_in_bytes() {
        let (_sender, credentials) = watch::channel(None);
        let settings = Settings { targets: Vec::new(), pins: Pins::default(), proxy: None, credentials };
        let (link, _task) = Link::new(settings, |_| async {});
        let taken = (0..100).take_while(|_| link.send(&[0; 60_000])).count();
        assert_eq!(taken, OUTBOX_BYTES / 60_000);
    }
}
