//! Pages for those who look after a rendezvous: whether it lives, its numbers for Prometheus and for people, a copy of
//! its records.
//!
//! Everything shown comes from what the registry and the beacon publish once a second, and from counters; no request
//! here makes the registry do anything, except for a copy of its records. A request gets a connection of its own, which
//! has a few seconds, so a slow visitor costs one connection for that long.

mod access;
mod backup;
mod badge;
mod doors;
mod health;
mod history;
mod metrics;
mod page;
mod stats;

use crate::{Clock, beacon, config, meters::Meters, registry::Overview, serve::Event};
use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use doors::{Caller, Doors};
use history::History;
use pilot_crypto::{Digest, Sha256};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

/// How often registry and beacon say what they hold.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// What the registry says of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistryPulse {
    /// When. Never yet if none.
    pub(crate) at: Option<Instant>,
    pub(crate) overview: Overview,
    /// The last attempt to write did not fail.
    pub(crate) writable: bool,
}

/// What the beacon says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BeaconPulse {
    /// When. Never yet if none.
    pub(crate) at: Option<Instant>,
    pub(crate) stats: beacon::Stats,
    /// Of the nodes that it reaches, those that are on the web.
    pub(crate) web: usize,
}

/// Where the pages have their content from.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) clock: Clock,
    pub(crate) meters: Arc<Meters>,
    pub(crate) registry: watch::Receiver<RegistryPulse>,
    pub(crate) beacon: watch::Receiver<BeaconPulse>,
    pub(crate) to_registry: mpsc::WeakSender<Event>,
}

/// What all pages share.
struct Desk {
    sources: Sources,
    history: Mutex<History>,
    token: Option<Digest>,
    control: Option<Digest>,
}

impl Desk {
    fn unix(&self) -> u64 {
        self.sources.clock.unix(Instant::now())
    }

    fn uptime(&self) -> Duration {
        self.sources.clock.start().elapsed()
    }

    fn history<T>(&self, look: impl FnOnce(&mut History) -> T) -> T {
        // A point that was half added is a point.
        look(&mut self.history.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn record(&self, step: Duration) {
        let mut tick = tokio::time::interval(step.max(Duration::from_millis(100)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let sample = history::Sample::take(&self.sources, Instant::now());
            let unix = self.unix();
            self.history(|history| history.add(unix, sample));
        }
    }
}

/// Runs until it is dropped. Connections end by themselves soon after.
pub(crate) async fn serve(listener: TcpListener, settings: config::Http, sources: Sources) {
    let digest = |token: &String| Sha256::digest(token.as_bytes());
    let desk = Arc::new(Desk {
        sources,
        history: Mutex::new(History::new(settings.step)),
        token: settings.token.as_ref().map(digest),
        control: settings.control.as_ref().map(digest),
    });
    let pages = Router::new()
        .route("/", get(page::index))
        .route("/page.js", get(page::script))
        .route("/page.css", get(page::style))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/api/stats", get(stats::stats))
        .route("/api/history", get(stats::history))
        .route("/api/badge/{name}", get(badge::badge))
        .route("/api/backup", get(backup::backup))
        .layer(middleware::from_fn(guard))
        .with_state(Arc::clone(&desk));
    let pages = pages.into_make_service_with_connect_info::<Caller>();
    let serving = axum::serve(Doors::new(listener), pages);
    tokio::select! {
        () = desk.record(settings.step) => {}
        _ = serving => {}
    }
}

/// What a page may do in a browser: load what comes from here, and nothing else.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Headers of every answer.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ] {
        headers.entry(name).or_insert(value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
