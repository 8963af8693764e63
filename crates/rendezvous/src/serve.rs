//! The shell around the two state machines: sockets, tasks, the store.

mod beacon;
mod beside;
mod connection;
mod ears;
mod entrance;
mod link;
mod listener;
mod mesh;
mod outpost;
mod registry;
mod tls;
mod udp;
mod web;

pub use beside::Missing;
pub use outpost::{BoundBeacon, run_beacon};

use crate::{
    CertificateSource, Config, Http, Web, WebTls,
    beacon::Introductions,
    clock::Clock,
    http::{self, BeaconPulse, RegistryPulse},
    meters::Meters,
    registry::{RestoreError, State, record::Seed},
    store::{self, Store, StoreError},
};
use beside::Place;
use entrance::Entrance;
use pilot_crypto::{Identity, Sha256};
use pilot_wire::registry::MeshSecret;
use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};
use tls::{Certificate, Owner};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

/// Where a rendezvous is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// TCP.
    pub registry: SocketAddr,
    /// SHA-256 of the certificate that the registry shows to clients that speak TLS.
    pub registry_fingerprint: [u8; 32],
    /// Whether the registry serves clients without TLS.
    pub plaintext: bool,
    /// UDP.
    pub beacon: SocketAddr,
    /// The beacon over the web.
    pub web: Option<BoundWeb>,
    /// Where that was to be and is not.
    pub web_missing: Option<Missing>,
    /// Pages for those who look after it (TCP).
    pub http: Option<SocketAddr>,
    /// Where they were to be and are not.
    pub http_missing: Option<Missing>,
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
pub use tls::CertificateError;

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
    #[error("the store {store} contradicts itself: {source}; it is left untouched")]
    Restore {
        /// The file or the database.
        store: String,
        /// How.
        source: RestoreError,
    },
    /// There is no certificate.
    #[error("the {what} has no certificate: {source}")]
    Certificate {
        /// `registry` or `web`.
        what: &'static str,
        /// Why.
        source: CertificateError,
    },
    /// The registry does not take the beacon.
    #[error("the registry {registry} refuses this beacon: {reason}")]
    Refused {
        /// Which.
        registry: String,
        /// Its words.
        reason: String,
    },
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
            Self::Store(StoreError::Unreachable { .. }) => "unavailable",
            Self::Store(
                StoreError::Open { .. }
                | StoreError::Damaged { .. }
                | StoreError::Format { .. }
                | StoreError::Denied { .. }
                | StoreError::NoDatabase { .. }
                | StoreError::Forbidden { .. }
                | StoreError::Failed(_),
            )
            | Self::Restore { .. } => "store_unusable",
            Self::Certificate { .. } => "invalid_argument",
            Self::Refused { .. } => "permission_denied",
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
            Self::Store(error) => error.hint().map(str::to_owned),
            Self::Restore { .. } => Some("restore a copy; see docs/rendezvous.md".to_owned()),
            Self::Refused { .. } => Some(
                "a beacon on another machine needs the registry's token: PILOT_ADMIN_TOKEN or --admin-token"
                    .to_owned(),
            ),
            Self::Certificate { what: "web", .. } => Some(
                "give one with `--web-cert` and `--web-key`, or go without with `--web-listen off`"
                    .to_owned(),
            ),
            Self::Certificate { .. } => Some(
                "give one with `--tls-cert` and `--tls-key`; without them, one is made and kept beside the store"
                    .to_owned(),
            ),
            Self::Bind { .. } | Self::Failed(_) => None,
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
    let registry_addr = tcp.local_addr().map_err(bind("registry", config.registry_addr))?;
    let beacon_addr = udp.local_addr().map_err(bind("beacon", config.beacon_addr))?;
    let web_place = match &config.web {
        Some(web) => Place::of_web(web, beacon_addr).await?,
        None => Place::default(),
    };
    let pages_place = match &config.http {
        Some(settings) => Place::of_pages(settings.listen, config.registry_addr, registry_addr).await?,
        None => Place::default(),
    };
    let (mut store, records) = store::open(&config.store).await?;
    let registry_certificate = certificate(&config.registry_tls.certificate, Owner::Registry)?;
    let mut bound = Bound {
        registry: registry_addr,
        registry_fingerprint: registry_certificate.fingerprint(),
        plaintext: config.registry_tls.plaintext,
        beacon: beacon_addr,
        web: None,
        web_missing: web_place.missing,
        http: None,
        http_missing: pages_place.missing,
    };
    let mut rules = config.registry.clone();
    rules.beacon.get_or_insert(bound.beacon);
    let clock = Clock::new(Instant::now(), SystemTime::now());
    let mut state = State::restore(rules, clock, records)
        .map_err(|source| RunError::Restore { store: config.store.to_string(), source })?;
    let (authority, mesh_secret) = secrets(&mut state, store.as_mut()).await?;

    let (to_registry, registry_events) = mpsc::channel(REGISTRY_QUEUE);
    let (to_beacon, beacon_orders) = mpsc::channel(BEACON_QUEUE);
    let secret = random()?;
    let reached_at = config.beacon_advertise.unwrap_or(bound.beacon);
    let id = beacon_id(config.beacon_id, reached_at)?;
    let membership = beacon::Membership { id, secret: mesh_secret, session: session() };
    state.set_own_beacon(membership.id, reached_at);
    let introductions = crate::beacon::Config {
        introductions: Introductions::Ask,
        secret: crate::beacon::Secret(secret),
        ..config.beacon.clone()
    };
    let mut beacon = crate::beacon::State::new(introductions);
    while let Some((node, addr)) = state.poll_endpoint() {
        beacon.remembered(clock.start(), node, addr);
        if let Some(key) = state.key_of(node) {
            beacon.has_key(clock.start(), node, key);
        }
    }
    beacon.join_mesh(clock.start(), membership.id, membership.secret, membership.session);
    let ears = ears::Sockets::bind(bound.beacon, config.second_beacon_ip).await;
    let (to_web_inbox, web_inbox) = web::inbox();
    let (bound_web, web) = serve_web(config.web, web_place.listener, to_registry.clone(), to_web_inbox)?;
    bound.web = bound_web;
    let meters = Arc::new(Meters::new());
    // Both are alive from the moment at which this is said to be ready.
    let at = Some(Instant::now());
    let (publish, beacon_pulse) =
        watch::channel(BeaconPulse { at, stats: beacon.stats(), ..BeaconPulse::default() });
    let (pulse, registry_pulse) =
        watch::channel(RegistryPulse { at, overview: state.overview(clock.start()), writable: true });
    let sources = http::Sources {
        clock,
        meters: Arc::clone(&meters),
        registry: registry_pulse,
        beacon: beacon_pulse.clone(),
        // It must not keep the registry from ending.
        to_registry: to_registry.downgrade(),
    };
    let (bound_pages, pages) = serve_pages(config.http, pages_place.listener, sources)?;
    bound.http = bound_pages;
    let beacon = beacon::serve(udp, ears, beacon, beacon_orders, web_inbox, to_registry.clone(), publish);
    let mesh = mesh::introduce(to_registry.clone(), to_beacon.clone());
    let registry = registry::serve(
        state,
        store,
        registry_events,
        to_beacon,
        registry::Signs { meters: Arc::clone(&meters), pulse },
    );
    let entrance = Entrance::new(
        acceptor(registry_certificate, Owner::Registry)?,
        config.registry_tls.plaintext,
        config.connections.handshake,
    );
    let listener = listener::serve(tcp, entrance, authority, config.connections.clone(), to_registry, meters);
    tracing::info!(
        registry = %bound.registry,
        beacon = %bound.beacon,
        web = bound.web.map(|web| tracing::field::display(web.addr)),
        http = bound.http.map(tracing::field::display),
        store = %config.store,
        "rendezvous is ready"
    );
    ready(bound);

    // The registry task is spawned, so that a change it is about to acknowledge is finished even while shutting down.
    let mut registry = tokio::spawn(registry);
    let outcome = tokio::select! {
        () = shutdown => Ok(()),
        error = beacon => Err(RunError::Failed(format!("beacon: {error}"))),
        () = mesh => Err(RunError::Failed("the look-out for other beacons ended".to_owned())),
        () = listener => Err(RunError::Failed("the listener ended".to_owned())),
        () = pages => Err(RunError::Failed("the pages are not served any more".to_owned())),
        () = web => Err(RunError::Failed("the listener for the web ended".to_owned())),
        ended = &mut registry => return Err(RunError::Failed(format!("registry: {ended:?}"))),
    };
    tracing::info!(beacon = ?beacon_pulse.borrow().stats, "the rendezvous ends");
    // Beacon and listener are dropped with their senders, and the registry ends when it has worked off its queue.
    match registry.await {
        Ok(()) => outcome,
        Err(error) => Err(RunError::Failed(format!("registry: {error}"))),
    }
}

/// What only the rendezvous over these records know: the key with which the registry attests, and what their beacons know
/// each other by. Made at the first start, by one of those that start at once.
async fn secrets(state: &mut State, store: &mut dyn Store) -> Result<(Arc<Identity>, MeshSecret), RunError> {
    if state.authority().is_none() || !state.has_mesh_secret() {
        let delta = store.begin(BTreeSet::new()).await?;
        state.apply(Instant::now(), delta.changes, delta.whole);
        state.appoint(Seed(Zeroizing::new(random()?)));
        state.mesh_secret(MeshSecret(random()?));
        store.commit(state.take_changes()).await?;
    }
    let key = state.authority().ok_or_else(|| RunError::Failed("it has no key of its own".to_owned()))?;
    tracing::info!(fingerprint = key.public().fingerprint(), "attests to what it serves");
    Ok((Arc::new(key), state.mesh_secret(MeshSecret(random()?))))
}

fn certificate(source: &CertificateSource, owner: Owner) -> Result<Certificate, RunError> {
    Certificate::obtain(source, owner).map_err(|source| RunError::Certificate { what: owner.name(), source })
}

fn acceptor(certificate: Certificate, owner: Owner) -> Result<TlsAcceptor, RunError> {
    tls::acceptor(certificate).map_err(|source| RunError::Certificate { what: owner.name(), source })
}

/// Serves the beacon over the web, if it is to be and can be.
fn serve_web(
    web: Option<Web>,
    listener: Option<TcpListener>,
    to_registry: mpsc::Sender<Event>,
    to_beacon: mpsc::Sender<web::Said>,
) -> Result<(Option<BoundWeb>, impl Future<Output = ()>), RunError> {
    let mut bound = None;
    let web = match (web, listener) {
        (Some(Web { tls, limits, .. }), Some(listener)) => {
            let addr = listener.local_addr().map_err(|error| RunError::Failed(error.to_string()))?;
            let certificate = match &tls {
                WebTls::Off => None,
                WebTls::On(source) => Some(certificate(source, Owner::Web)?),
            };
            let fingerprint = certificate.as_ref().map(Certificate::fingerprint);
            let acceptor = certificate.map(|certificate| acceptor(certificate, Owner::Web)).transpose()?;
            bound = Some(BoundWeb { addr, fingerprint });
            Some(web::serve(listener, acceptor, limits, to_registry, to_beacon))
        }
        _ => None,
    };
    let web = async {
        match web {
            Some(web) => web.await,
            None => std::future::pending().await,
        }
    };
    Ok((bound, web))
}

/// Serves the pages, if they are to be and can be.
fn serve_pages(
    settings: Option<Http>,
    listener: Option<TcpListener>,
    sources: http::Sources,
) -> Result<(Option<SocketAddr>, impl Future<Output = ()>), RunError> {
    let mut bound = None;
    let pages = match (settings, listener) {
        (Some(settings), Some(listener)) => {
            bound = Some(listener.local_addr().map_err(|error| RunError::Failed(error.to_string()))?);
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
    Ok((bound, pages))
}

fn random<const N: usize>() -> Result<[u8; N], RunError> {
    pilot_crypto::random_bytes().map_err(|error| RunError::Failed(error.to_string()))
}

/// The number that was given, or one that follows from where the beacon is reached, so that it is the same after a restart
/// and nodes keep their choice. Where that is not known it is drawn.
fn beacon_id(given: Option<u32>, reached_at: SocketAddr) -> Result<u32, RunError> {
    if let Some(id) = given {
        return Ok(id);
    }
    let drawn = match reached_at.ip().is_unspecified() {
        true => random()?,
        false => {
            let [a, b, c, d, ..] = Sha256::digest(reached_at.to_string().as_bytes());
            [a, b, c, d]
        }
    };
    Ok(u32::from_be_bytes(drawn).max(1))
}

/// Larger than in any earlier life, unless the clock was set back; then the others wait until that one is forgotten.
fn session() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
