//! The shell around the two state machines: sockets, tasks, the store.

mod beacon;
mod connection;
mod ears;
mod listener;
mod registry;
mod web;

use crate::{
    Config, HttpListen, Web, WebListen,
    beacon::Introductions,
    clock::Clock,
    http,
    meters::Meters,
    registry::{RestoreError, State},
    store::{Store, StoreError},
};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{mpsc, watch},
};

/// Where a rendezvous is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// TCP.
    pub registry: SocketAddr,
    /// UDP.
    pub beacon: SocketAddr,
    /// The beacon over the web.
    pub web: Option<BoundWeb>,
    /// Pages for those who look after it (TCP).
    pub http: Option<SocketAddr>,
}

/// Where the beacon is reached over the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundWeb {
    /// TCP.
    pub addr: SocketAddr,
    /// SHA-256 of its certificate. `None`: without TLS.
    pub fingerprint: Option<[u8; 32]>,
}

pub(crate) use registry::Event;
pub use web::CertificateError;

/// Why a rendezvous does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address cannot be had, for example because another rendezvous has it ([`io::ErrorKind::AddrInUse`]).
    #[error("the {what} cannot listen on {addr}: {source}")]
    Bind {
        /// `registry`, `beacon`, `web` or `http`.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The records cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records are readable but cannot all be true.
    #[error("the store {} contradicts itself: {source}; it is left untouched", path.display())]
    Restore {
        /// The file.
        path: PathBuf,
        /// How.
        source: RestoreError,
    },
    /// There is no certificate for the web.
    #[error("the beacon cannot be reached over the web: {0}")]
    Certificate(#[from] CertificateError),
    /// A part ended that must not end.
    #[error("the rendezvous failed: {0}")]
    Failed(String),
}

impl RunError {
    /// The kind of failure in one word, for scripts.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse => "already_exists",
            Self::Bind { .. } => "unavailable",
            Self::Store(StoreError::Locked { .. }) => "already_exists",
            Self::Store(
                StoreError::Open { .. }
                | StoreError::Damaged { .. }
                | StoreError::Format { .. }
                | StoreError::Write(_),
            )
            | Self::Restore { .. } => "store_unusable",
            Self::Certificate(_) => "invalid_argument",
            Self::Failed(_) => "internal",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Bind { source, what, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                let flag = if matches!(*what, "web" | "http") { "listen" } else { "addr" };
                Some(format!("another program listens there; stop it or choose another `--{what}-{flag}`"))
            }
            Self::Store(StoreError::Locked { .. }) => {
                Some("another rendezvous uses this store; stop it or choose another `--store`".to_owned())
            }
            Self::Store(StoreError::Damaged { .. }) | Self::Restore { .. } => {
                Some("restore a copy of the file; see docs/rendezvous.md".to_owned())
            }
            Self::Certificate(_) => Some(
                "give one with `--web-cert` and `--web-key`, or go without with `--web-listen off`"
                    .to_owned(),
            ),
            Self::Bind { .. }
            | Self::Store(StoreError::Open { .. } | StoreError::Format { .. } | StoreError::Write(_))
            | Self::Failed(_) => None,
        }
    }
}

/// Events on their way to the registry. More make the connections wait.
const REGISTRY_QUEUE: usize = 1024;
/// Orders on their way to the beacon.
const BEACON_QUEUE: usize = 1024;

/// Serves until `shutdown` is ready. `ready` is called once, when both sockets are bound and the records are loaded.
///
/// The registry's socket is bound before anything else is touched, so of two that start at once one fails with
/// [`RunError::Bind`] and has changed nothing.
///
/// # Errors
/// [`RunError`] when it cannot start, or cannot go on.
pub async fn run(
    config: Config,
    ready: impl FnOnce(Bound),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let bind = |what, addr| move |source| RunError::Bind { what, addr, source };
    let tcp =
        TcpListener::bind(config.registry_addr).await.map_err(bind("registry", config.registry_addr))?;
    let udp = UdpSocket::bind(config.beacon_addr).await.map_err(bind("beacon", config.beacon_addr))?;
    let mut bound = Bound {
        registry: tcp.local_addr().map_err(bind("registry", config.registry_addr))?,
        beacon: udp.local_addr().map_err(bind("beacon", config.beacon_addr))?,
        web: None,
        http: None,
    };
    let web_listener = match &config.web {
        Some(web) => listen_for_web(web, bound.beacon).await?,
        None => None,
    };
    let pages = match &config.http {
        Some(settings) => listen_for_pages(settings.listen, config.registry_addr, bound.registry).await?,
        None => None,
    };
    let (store, records) = Store::open(&config.store)?;
    let mut rules = config.registry.clone();
    rules.beacon.get_or_insert(bound.beacon);
    let clock = Clock::new(Instant::now(), SystemTime::now());
    let mut state = State::restore(rules, clock, records)
        .map_err(|source| RunError::Restore { path: config.store.clone(), source })?;

    let (to_registry, registry_events) = mpsc::channel(REGISTRY_QUEUE);
    let (to_beacon, beacon_orders) = mpsc::channel(BEACON_QUEUE);
    let secret = pilot_crypto::random_bytes().map_err(|error| RunError::Failed(error.to_string()))?;
    let introductions = crate::beacon::Config {
        introductions: Introductions::Ask,
        secret: crate::beacon::Secret(secret),
        ..config.beacon.clone()
    };
    let mut beacon = crate::beacon::State::new(introductions);
    while let Some((node, addr)) = state.poll_endpoint() {
        beacon.remembered(clock.start(), node, addr);
        if let Some(key) = state.key_of(node) {
            beacon.has_key(node, key);
        }
    }
    let ears = ears::Sockets::bind(bound.beacon, config.second_beacon_ip).await;
    let (to_web_inbox, web_inbox) = web::inbox();
    let web = match (config.web, web_listener) {
        (Some(Web { tls, limits, .. }), Some(listener)) => {
            let addr = listener.local_addr().map_err(bind("web", bound.beacon))?;
            let certificate = web::Certificate::obtain(&tls)?;
            let fingerprint = certificate.as_ref().map(web::Certificate::fingerprint);
            let acceptor = certificate.map(web::acceptor).transpose()?;
            bound.web = Some(BoundWeb { addr, fingerprint });
            Some(web::serve(listener, acceptor, limits, to_registry.clone(), to_web_inbox))
        }
        _ => None,
    };
    let web = async {
        match web {
            Some(web) => web.await,
            None => std::future::pending().await,
        }
    };
    let meters = Arc::new(Meters::new());
    // Both are alive from the moment at which this is said to be ready.
    let at = Some(Instant::now());
    let first = http::BeaconPulse { at, nodes: beacon.len(), ..http::BeaconPulse::default() };
    let (beacon_pulse, beacon_pulses) = watch::channel(first);
    let first = http::RegistryPulse { at, overview: state.overview(), writable: true };
    let (registry_pulse, registry_pulses) = watch::channel(first);
    let sources = http::Sources {
        clock,
        meters: Arc::clone(&meters),
        registry: registry_pulses,
        beacon: beacon_pulses,
        // It must not keep the registry from ending.
        to_registry: to_registry.downgrade(),
    };
    let pages = match (config.http, pages) {
        (Some(settings), Some(listener)) => {
            bound.http = Some(listener.local_addr().map_err(bind("http", bound.registry))?);
            Some(http::serve(listener, settings, sources))
        }
        (Some(_) | None, Some(_) | None) => None,
    };
    let pages = async {
        match pages {
            Some(pages) => pages.await,
            None => std::future::pending().await,
        }
    };
    let beacon =
        beacon::serve(udp, ears, beacon, beacon_orders, web_inbox, to_registry.clone(), beacon_pulse);
    let registry =
        registry::serve(state, store, registry_events, to_beacon, Arc::clone(&meters), registry_pulse);
    let listener = listener::serve(tcp, config.connections.clone(), to_registry, meters);
    tracing::info!(
        registry = %bound.registry,
        beacon = %bound.beacon,
        web = bound.web.map(|web| tracing::field::display(web.addr)),
        http = bound.http.map(tracing::field::display),
        store = %config.store.display(),
        "rendezvous is ready"
    );
    ready(bound);

    // The registry task is spawned, so that a change it is about to acknowledge is finished even while shutting down.
    let mut registry = tokio::spawn(registry);
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        error = beacon => Err(RunError::Failed(format!("beacon: {error}"))),
        () = listener => Err(RunError::Failed("the listener ended".to_owned())),
        () = pages => Err(RunError::Failed("the pages are not served any more".to_owned())),
        () = web => Err(RunError::Failed("the listener for the web ended".to_owned())),
        ended = &mut registry => return Err(RunError::Failed(format!("registry: {ended:?}"))),
    };
    // Beacon and listener are dropped with their senders, and the registry ends when it has worked off its queue.
    match registry.await {
        Ok(()) => outcome,
        Err(error) => Err(RunError::Failed(format!("registry: {error}"))),
    }
}

/// A port that was only guessed may be another program's.
async fn listen_for_pages(
    listen: HttpListen,
    wanted: SocketAddr,
    registry: SocketAddr,
) -> Result<Option<TcpListener>, RunError> {
    match listen {
        HttpListen::At(addr) => {
            let listener = TcpListener::bind(addr).await;
            listener.map(Some).map_err(|source| RunError::Bind { what: "http", addr, source })
        }
        HttpListen::Beside => {
            let port = if wanted.port() == 0 { Some(0) } else { registry.port().checked_add(3) };
            let Some(port) = port else { return Ok(None) };
            match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
                Ok(listener) => Ok(Some(listener)),
                Err(error) => {
                    tracing::warn!(port, %error, "no dashboard and no metrics; `--http-listen` sets where");
                    Ok(None)
                }
            }
        }
    }
}

/// A port that was only guessed may be another program's.
async fn listen_for_web(web: &Web, beacon: SocketAddr) -> Result<Option<TcpListener>, RunError> {
    match web.listen {
        WebListen::At(addr) => {
            let listener = TcpListener::bind(addr).await;
            listener.map(Some).map_err(|source| RunError::Bind { what: "web", addr, source })
        }
        WebListen::Beside => {
            let Some(port) = beacon.port().checked_add(1) else { return Ok(None) };
            match TcpListener::bind(SocketAddr::new(beacon.ip(), port)).await {
                Ok(listener) => Ok(Some(listener)),
                Err(error) => {
                    tracing::warn!(port, %error, "the beacon is not reached over the web; `--web-listen` sets where");
                    Ok(None)
                }
            }
        }
    }
}
