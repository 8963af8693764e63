//! A port on the gateway that leads to the tunnel socket: asked for with PCP, else NAT-PMP, else UPnP; kept, watched and
//! given back.
//!
//! Only the default gateway is asked, and only what comes from its address is an answer. A host with an address that the
//! world reaches needs no mapping and asks for none.

mod announcements;
mod ask;
mod http;
mod natpmp;
mod pcp;
#[cfg(test)]
mod tests;
mod upnp;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use pilot_wire::ipc::{MappingProtocol, MappingState, PortMappingStatus};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::{News, Surroundings, is_private, tell};
use crate::driver::Command;

use announcements::Announcements;

/// Lifetime asked for. A gateway that forgets everything says so (PCP, NAT-PMP) or shows another address soon, so this
/// can be long: two packets in half an hour.
const LIFETIME: u32 = 3600;

/// Longest lifetime believed.
const LIFETIME_MAX: u32 = 24 * 3600;

/// Time that giving a mapping back may take when the daemon stops.
const GOODBYE: Duration = Duration::from_secs(1);

/// Names a mapping towards a PCP server.
type Nonce = [u8; 12];

/// How the mapping stands, for the driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mapping {
    state: MappingState,
    protocol: Option<MappingProtocol>,
    pub(crate) external: Option<SocketAddr>,
    gateway: Option<IpAddr>,
    expires: Option<Instant>,
    reason: String,
}

impl Mapping {
    /// There is none, for this reason.
    pub(crate) fn off(reason: &str) -> Self {
        Self { reason: reason.to_owned(), ..Self::default() }
    }

    pub(crate) fn status(&self) -> PortMappingStatus {
        PortMappingStatus {
            state: self.state,
            protocol: self.protocol,
            external: self.external,
            gateway: self.gateway,
            expires_secs: self.expires.map(|at| at.saturating_duration_since(Instant::now()).as_secs()),
            reason: self.reason.clone(),
        }
    }
}

/// Where a gateway listens, and how patient we are with it.
#[derive(Debug, Clone)]
struct Settings {
    /// The address of the tunnel socket.
    listen: SocketAddr,
    /// Finds out whom to ask for it, or why nobody.
    target: fn(&Surroundings, SocketAddr) -> Result<Target, &'static str>,
    /// PCP and NAT-PMP: 5351.
    control: u16,
    /// SSDP: 1900, at the gateway and at this group.
    search: u16,
    search_group: Option<SocketAddrV4>,
    /// Where gateways say that they forgot everything: 5350.
    announcements: u16,
    /// How long each try of a question may take.
    tries: Vec<Duration>,
    /// How long answers to a search may take.
    search_wait: Duration,
    /// How long the conversation with a UPnP gateway may take.
    upnp_wait: Duration,
    /// Time between two questions for a mapping, at least.
    calm: Duration,
    /// Pause before a gateway that granted nothing is asked again; doubled each time up to the second.
    retry: (Duration, Duration),
}

impl Settings {
    fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            target: Target::of,
            control: 5351,
            search: 1900,
            search_group: Some(SocketAddrV4::new(Ipv4Addr::new(239, 255, 255, 250), 1900)),
            announcements: 5350,
            // RFC 6886 3.1; the gateway is one hop away.
            tries: [250, 500, 1000].map(Duration::from_millis).to_vec(),
            search_wait: Duration::from_secs(2),
            upnp_wait: Duration::from_secs(5),
            calm: Duration::from_secs(10),
            retry: (Duration::from_secs(5 * 60), Duration::from_secs(3600)),
        }
    }
}

/// The running part.
pub(crate) struct PortMap {
    again: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PortMap {
    /// Keeps the port of `listen` mapped for as long as the value lives; `seen` is what the host is connected to.
    pub(crate) fn start(
        listen: SocketAddr,
        seen: watch::Receiver<Surroundings>,
        driver: mpsc::Sender<Command>,
    ) -> Result<Self, pilot_crypto::RandomUnavailable> {
        Self::start_with(Settings::new(listen), seen, driver)
    }

    fn start_with(
        settings: Settings,
        seen: watch::Receiver<Surroundings>,
        driver: mpsc::Sender<Command>,
    ) -> Result<Self, pilot_crypto::RandomUnavailable> {
        let (stop, stopped) = oneshot::channel();
        let again = Arc::new(Notify::new());
        let keeper = Keeper {
            settings,
            nonce: pilot_crypto::random_bytes()?,
            seen,
            driver,
            again: Arc::clone(&again),
            shown: Mapping::default(),
            held: None,
            announcements: Announcements::default(),
        };
        Ok(Self { again, stop, task: tokio::spawn(keeper.run(stopped)) })
    }

    /// Something says that the gateway is not what it was: it is asked again.
    pub(crate) fn doubt(&self) -> Arc<Notify> {
        Arc::clone(&self.again)
    }

    /// Gives the mapping back.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        let abort = self.task.abort_handle();
        if timeout(GOODBYE, self.task).await.is_err() {
            abort.abort();
            tracing::debug!("the gateway did not confirm the end of the mapping");
        }
    }
}

/// Whom to ask, and for which address of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Target {
    gateway: Ipv4Addr,
    client: Ipv4Addr,
}

impl Target {
    fn of(here: &Surroundings, listen: SocketAddr) -> Result<Self, &'static str> {
        let v4 = here.interfaces.iter().filter(|interface| interface.is_usable() && interface.ip.is_ipv4());
        if v4.clone().any(|interface| !is_private(interface.ip)) {
            return Err("this host has an address that the world reaches");
        }
        let Some(gateway) = &here.routes.gateway else { return Err("there is no gateway") };
        let beside = |ip| v4.clone().filter(move |interface| interface.contains(ip));
        let here = beside(gateway.ip.into())
            .find(|interface| interface.name == gateway.interface)
            .or_else(|| beside(gateway.ip.into()).next());
        match here.map(|interface| interface.ip) {
            Some(client) if !listen.ip().is_unspecified() && listen.ip() != client => {
                Err("the daemon listens on an address that is not behind the gateway")
            }
            Some(IpAddr::V4(client)) => Ok(Self { gateway: gateway.ip, client }),
            Some(IpAddr::V6(_)) | None => Err("the gateway is in none of this host's networks"),
        }
    }
}

/// A mapping that we have.
#[derive(Debug)]
struct Held {
    target: Target,
    way: Way,
    external: SocketAddr,
    /// `None` for one without an end.
    expires: Option<Instant>,
    renew: Instant,
}

/// How a mapping was got, and what it takes to keep it.
#[derive(Debug, Clone)]
enum Way {
    Pcp,
    NatPmp,
    Upnp(upnp::Service),
}

impl Way {
    fn protocol(&self) -> MappingProtocol {
        match self {
            Self::Pcp => MappingProtocol::Pcp,
            Self::NatPmp => MappingProtocol::NatPmp,
            Self::Upnp(_) => MappingProtocol::Upnp,
        }
    }
}

/// What a gateway says to a question for a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    /// Yes.
    Granted {
        external: SocketAddr,
        /// In seconds.
        lifetime: u32,
    },
    /// No, for this reason.
    Refused(String),
    /// Ask another way.
    OtherProtocol,
}

/// The task.
struct Keeper {
    settings: Settings,
    nonce: Nonce,
    seen: watch::Receiver<Surroundings>,
    driver: mpsc::Sender<Command>,
    again: Arc<Notify>,
    shown: Mapping,
    held: Option<Held>,
    announcements: Announcements,
}

impl Keeper {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        tokio::select! {
            () = self.keep() => {}
            _ = &mut stopped => {}
        }
        if let Some(held) = self.held.take() {
            self.give_back(&held).await;
        }
    }

    /// Returns when nobody watches the network any more.
    async fn keep(&mut self) {
        let mut failures = 0;
        loop {
            let target = self.target();
            let next = match target {
                Err(reason) => {
                    self.held = None;
                    self.announcements.stop();
                    failures = 0;
                    self.show(Mapping { state: MappingState::NotNeeded, ..Mapping::off(reason) }).await;
                    None
                }
                Ok(target) => {
                    let asked = Instant::now();
                    let next = self.renew(target, &mut failures).await;
                    Some(next.max(asked + self.settings.calm))
                }
            };
            if !self.rest(target.ok(), next).await {
                return;
            }
        }
    }

    fn target(&mut self) -> Result<Target, &'static str> {
        (self.settings.target)(&self.seen.borrow_and_update(), self.settings.listen)
    }

    /// Waits until it is time to ask again, or something calls for it. `false` when nobody watches the network.
    async fn rest(&mut self, target: Option<Target>, next: Option<Instant>) -> bool {
        let calm = Instant::now() + self.settings.calm;
        let mut next = next;
        loop {
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let sooner = tokio::select! {
                () = due => return true,
                changed = self.seen.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    // Another network: what was asked before says nothing about it.
                    if self.target().ok() != target {
                        return true;
                    }
                    false
                }
                () = self.again.notified() => true,
                () = self.announcements.heard(target.map(|target| target.gateway)) => true,
            };
            if sooner && target.is_some() {
                next = Some(next.map_or(calm, |next| next.min(calm)));
            }
        }
    }

    /// Asks for a mapping, or for more time for the one there is. Returns when to do so next.
    async fn renew(&mut self, target: Target, failures: &mut u32) -> Instant {
        // What another gateway mapped, or mapped to another address of ours, leads nowhere.
        let held = self.held.take().filter(|held| held.target == target);
        if held.is_none() {
            let gateway = Some(target.gateway.into());
            self.show(Mapping { state: MappingState::Asking, gateway, ..Mapping::default() }).await;
        }
        let outcome = self.obtain(target, held.as_ref()).await;
        let now = Instant::now();
        match (outcome, held) {
            (Ok(held), _) => {
                *failures = 0;
                tracing::info!(external = %held.external, protocol = held.way.protocol().name(), "mapped by the gateway");
                self.announcements.listen(self.settings.announcements, target.client);
                let next = held.renew;
                self.hold(held).await;
                next
            }
            // It may answer the next time; the mapping holds until then.
            (Err(Refusal::Silent), Some(held)) if held.expires.is_none_or(|at| at > now) => {
                let rest = held.expires.map_or(self.settings.retry.0, |at| (at - now) / 2);
                self.hold(held).await;
                now + rest
            }
            (Err(refusal), _) => {
                let reason = refusal.to_string();
                tracing::info!(gateway = %target.gateway, reason, "the gateway maps no port");
                let gateway = Some(target.gateway.into());
                let (first, longest) = self.settings.retry;
                let pause = first.saturating_mul(1 << (*failures).min(16)).min(longest);
                *failures = failures.saturating_add(1);
                self.show(Mapping { state: MappingState::Failed, gateway, reason, ..Mapping::default() })
                    .await;
                now + pause
            }
        }
    }

    async fn hold(&mut self, held: Held) {
        let mapping = Mapping {
            state: MappingState::Mapped,
            protocol: Some(held.way.protocol()),
            external: Some(held.external),
            gateway: Some(held.target.gateway.into()),
            expires: held.expires,
            reason: String::new(),
        };
        self.held = Some(held);
        self.show(mapping).await;
    }

    async fn show(&mut self, mapping: Mapping) {
        if self.shown != mapping {
            self.shown.clone_from(&mapping);
            tell(&self.driver, News::Mapping(mapping)).await;
        }
    }
}

/// Why there is no mapping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    /// Nothing answered.
    #[error("the gateway answers neither PCP nor NAT-PMP nor UPnP")]
    Silent,
    /// The gateway does not want to.
    #[error("{0}")]
    Refused(String),
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use std::net::{IpAddr, Ipv4Addr};

    use super::{http, natpmp, pcp, upnp};

    const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));

    /// What a gateway, or somebody in its name, answers by the four protocols.
    pub fn gateway(answer: &[u8]) {
        let _ = natpmp::address(answer);
        let _ = natpmp::mapped(answer, 4000);
        let request = pcp::Request {
            client: [192, 168, 1, 5].into(),
            port: 4000,
            external: None,
            lifetime: 3600,
            nonce: [7; 12],
        };
        let _ = request.answer(answer);
        if let Some(url) = upnp::location(answer, GATEWAY) {
            assert_eq!(url.server.ip(), GATEWAY, "led elsewhere");
        }
        http::fuzz(answer);
        if let Ok(text) = str::from_utf8(answer) {
            upnp::fuzz(text, GATEWAY);
        }
    }
}
