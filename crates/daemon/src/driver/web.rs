//! When the beacon is talked to over the web, and when over UDP again.
//!
//! To the node nothing changes: while the link over the web is up, datagrams to its beacon go there instead of into
//! the tunnel socket, and what comes from there comes from the beacon's address. Over UDP the beacon is asked now and
//! then whether it hears us; when it answers, it is told where we are over UDP, and only when it has answered that is the
//! web let go. So the relay runs all the time.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use pilot_wire::NodeId;
use pilot_wire::beacon::Message;
use pilot_wire::ipc::WebLink;
use tokio::sync::watch;

use super::deadlines::Deadline;
use super::{Command, Driver};
use crate::config::Transport;
use crate::state;
use crate::udp::Sent;
use crate::web::{Credentials, Link, Pins, Proxy, Report, Settings, Target, derived};

/// Stands for a beacon whose name cannot be resolved: only a proxy may be able to. No datagram is sent there (RFC 7600).
const PLACEHOLDER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 0, 8)), 9001);

/// How long the beacon may take to answer over UDP before it is not there after all.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Survey messages find out about UDP, so they go there whatever is in use.
const SURVEY: u8 = 0x0B;

/// How the beacon is reached.
pub(super) struct Web {
    transport: Transport,
    targets: Vec<Target>,
    proxy: Option<Proxy>,
    credentials: watch::Sender<Option<Credentials>>,
    /// The address that the node has for its beacon.
    beacon: Option<SocketAddr>,
    link: Option<Link>,
    /// Reports of earlier links are not about this one.
    generation: u64,
    /// Set while the beacon takes messages over the web.
    up: Option<Instant>,
    /// Over UDP, the beacon was told where we are, and is about to confirm it.
    returning: bool,
    url: String,
    through: Option<String>,
    error: Option<String>,
}

impl Web {
    pub(super) fn new(config: &crate::config::Web, proxy: Option<Proxy>) -> Self {
        Self {
            transport: config.transport,
            targets: Vec::new(),
            proxy,
            credentials: watch::Sender::new(None),
            beacon: None,
            link: None,
            generation: 0,
            up: None,
            returning: false,
            url: String::new(),
            through: None,
            error: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.is_some()
    }
}

/// Whether the beacon says that it heard us.
pub(super) fn is_answer(message: &[u8]) -> bool {
    matches!(Message::parse(message), Ok(Message::DiscoverReply(_)))
}

/// Where the beacon may be over the web: where it was said to be, or where that follows from its address.
fn targets(config: &crate::config::Web, beacon: &str) -> Vec<Target> {
    let urls = config.url.clone().map_or_else(|| derived(beacon), |url| vec![url]);
    // A URL that was given was checked at the start.
    urls.iter().filter_map(|url| url.parse().ok()).collect()
}

impl Driver {
    /// The daemon starts.
    pub(super) fn start_web(&mut self, now: Instant) {
        self.web.targets = targets(&self.config.web, self.config.beacon_of(0).map_or("", String::as_str));
        self.use_beacon_of(now, 0);
        if let Some(node) = self.node.id() {
            self.tell_web_credentials(node);
        }
        if self.web.transport == Transport::Web {
            self.go_web(now, "it is set to");
        }
    }

    /// The beacon's name has an address.
    pub(super) fn on_beacon_found(&mut self, now: Instant, beacon: &str, address: SocketAddr) {
        if !self.is_our_beacon(beacon) {
            return;
        }
        self.set_home_beacon(address);
        self.set_beacon(now, address);
    }

    /// The beacon to use from now on.
    pub(super) fn set_beacon(&mut self, now: Instant, address: SocketAddr) {
        self.web.beacon = Some(address);
        self.node.set_beacon(now, Some(address));
    }

    /// The beacon's name has no address, at least not here.
    pub(super) fn on_beacon_unknown(&mut self, now: Instant, beacon: &str) {
        if self.is_our_beacon(beacon) && self.web.beacon.is_none() {
            self.go_web(now, "the beacon's name cannot be looked up");
        }
    }

    /// Another beacon is used from now on. What was said over the web to the one before is said no more.
    pub(super) fn beacon_is_another(&mut self, now: Instant, beacon: &str) {
        self.web.targets = targets(&self.config.web, beacon);
        if self.web.link.take().is_none() {
            return;
        }
        self.web.generation += 1;
        self.web.up = None;
        self.web.returning = false;
        self.web.error = None;
        self.go_web(now, "the beacon is another one");
    }

    /// The beacon does not answer.
    pub(super) fn on_beacon_silent(&mut self, now: Instant) {
        self.doubt_registry();
        if self.web.link.is_some() {
            self.check_web(now);
        } else if !self.use_next_beacon(now) {
            self.go_web(now, "no beacon answers over UDP");
        }
    }

    /// Something about the network may have changed: what is in use is tried, and what is not as well.
    pub(super) fn check_web(&mut self, now: Instant) {
        if let Some(link) = &self.web.link {
            link.check();
            self.look_for_udp(now);
        }
    }

    fn go_web(&mut self, now: Instant, why: &str) {
        if self.web.link.is_some() || self.web.transport == Transport::Udp || self.web.targets.is_empty() {
            return;
        }
        tracing::info!(why, "looking for the beacon over the web");
        self.return_to_home_beacon(now);
        if self.web.beacon.is_none() {
            self.web.beacon = Some(PLACEHOLDER);
            self.node.set_beacon(now, Some(PLACEHOLDER));
        }
        let pins = Pins { given: self.config.web.fingerprint, seen: self.memory.web_certificates.clone() };
        let settings = Settings {
            targets: self.web.targets.clone(),
            pins,
            proxy: self.web.proxy.clone(),
            credentials: self.web.credentials.subscribe(),
        };
        self.web.generation += 1;
        let (generation, commands) = (self.web.generation, self.commands.clone());
        let (link, linking) = Link::new(settings, move |report| {
            let commands = commands.clone();
            async move {
                // The loop is gone only when this task is about to be, too.
                let _ = commands.send(Command::Web(generation, report)).await;
            }
        });
        self.tasks.spawn(linking);
        self.web.link = Some(link);
        self.plan_look(now + self.config.web.look_every);
    }

    /// The daemon stops: what is on its way over the web leaves first, if the connection takes it.
    pub(super) async fn end_web(&mut self, patience: Duration) {
        if self.web.link.take().is_none() || self.web.up.is_none() {
            return;
        }
        let generation = self.web.generation;
        let ended = async {
            while let Some(command) = self.inbox.recv().await {
                if matches!(command, Command::Web(link, Report::Ended) if link == generation) {
                    return;
                }
            }
        };
        // The beacon notices the end anyway.
        let _ = tokio::time::timeout(patience, ended).await;
    }

    /// UDP is in use again.
    fn leave_web(&mut self, now: Instant) {
        tracing::info!("the beacon answers over UDP; the web is let go");
        self.web.link = None;
        self.web.returning = false;
        self.web.error = None;
        self.web.generation += 1;
        self.web.up = None;
        // If the web was never reached, nothing has changed for the node.
        if self.profile.relay_only {
            self.set_relay_only(false);
            self.node.beacon_reachable_otherwise(now);
        }
    }

    pub(super) fn on_web(&mut self, now: Instant, generation: u64, report: Report) {
        let current = generation == self.web.generation;
        match report {
            // Also the last ones of a link that was let go.
            Report::Message(message) => self.on_web_message(now, message),
            Report::Pinned(host, known) => {
                tracing::info!(host, ?known, "the beacon's certificate is remembered");
                state::remember(&mut self.memory.web_certificates, host, known);
                self.memory_stale = true;
            }
            Report::Up { url, proxy } if current => {
                tracing::info!(url, proxy, "the beacon is reached over the web");
                self.web.up = Some(now);
                self.web.url = url;
                self.web.through = proxy;
                self.web.error = None;
                self.set_relay_only(true);
                self.node.beacon_reachable_otherwise(now);
            }
            Report::Down { url, error, pause } if current => {
                tracing::debug!(url, error, ?pause, "the next attempt over the web follows");
                self.web.up = None;
                self.web.url = url;
                self.web.error = Some(error);
            }
            Report::Up { .. } | Report::Down { .. } | Report::Ended => {}
        }
    }

    /// A message of the beacon that came over the web.
    fn on_web_message(&mut self, now: Instant, message: Bytes) {
        let Some(beacon) = self.web.beacon else { return };
        let mut message = BytesMut::from(message);
        if is_answer(&message) {
            // Where the connection comes from is no address that datagrams could be sent to.
            message.clear();
            let mut reply = Vec::new();
            Message::DiscoverReply(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)).emit(&mut reply);
            message.extend_from_slice(&reply);
        }
        self.node.handle_datagram(now, beacon, &mut message);
    }

    /// A train for this destination: sent over the web, or not for it.
    pub(super) fn sent_over_web(&self, destination: SocketAddr, segment_size: usize, train: &[u8]) -> bool {
        if Some(destination) != self.web.beacon || train.first() == Some(&SURVEY) {
            return false;
        }
        match &self.web.link {
            Some(link) if self.web.up.is_some() => {
                let lost = train.chunks(segment_size.max(1)).filter(|message| !link.send(message)).count();
                if lost > 0 {
                    tracing::debug!(lost, "the connection over the web does not take more");
                }
                true
            }
            // Nobody is there, or UDP is not wanted: lost, as on a network that does not take it.
            _ => destination == PLACEHOLDER || self.web.transport == Transport::Web,
        }
    }

    /// The beacon answered over UDP: it hears us there.
    pub(super) fn on_answer_over_udp(&mut self, now: Instant) {
        if self.web.link.is_none() || self.web.transport != Transport::Auto {
            return;
        }
        if self.web.up.is_none() || self.web.returning {
            // It has confirmed where we are; or there was nothing else to lose. If it falls silent again, that is told again.
            return self.leave_web(now);
        }
        self.web.returning = true;
        self.discover_over_udp(self.own_node());
        self.plan_look(now + ANSWER_WAIT);
    }

    /// Whose answers are news about UDP. What it relays is not: that comes where nothing gets out as well.
    pub(super) fn awaits_udp_from(&self) -> Option<SocketAddr> {
        self.web.link.as_ref().and(self.web.beacon)
    }

    pub(super) fn look_for_udp(&mut self, now: Instant) {
        if self.web.link.is_none() || self.web.transport != Transport::Auto {
            return;
        }
        self.web.returning = false;
        if self.web.up.is_some() {
            // As nobody: the beacon takes us to be where we are until we say otherwise.
            self.discover_over_udp(NodeId::UNSET);
        }
        self.plan_look(now + self.config.web.look_every);
    }

    fn plan_look(&mut self, at: Instant) {
        if let Some(planned) = self.web_look.take() {
            self.deadlines.cancel(planned);
        }
        self.web_look = Some(self.deadlines.add(at, Deadline::LookForUdp));
    }

    fn discover_over_udp(&self, node: NodeId) {
        let Some(beacon) = self.web.beacon.filter(|beacon| *beacon != PLACEHOLDER) else { return };
        let mut message = Vec::new();
        Message::Discover { node, key: Some(self.own_key()), proof: None }.emit(&mut message);
        if self.socket.send(beacon, message.len(), false, &message) == Sent::Blocked {
            tracing::debug!("the socket is full; the beacon is asked again later");
        }
    }

    /// On the web nobody reaches us directly, so nobody is to try.
    fn set_relay_only(&mut self, relay_only: bool) {
        if self.profile.relay_only != relay_only {
            self.profile.relay_only = relay_only;
            self.tell_link_profile();
        }
    }

    /// The number or the key of this node is another.
    pub(super) fn tell_web_credentials(&self, node: NodeId) {
        let credentials = Credentials { node, identity: self.identity.clone() };
        self.web.credentials.send_replace(Some(credentials));
    }

    /// `udp` or `web`, as it is now.
    pub(super) fn transport(&self) -> &'static str {
        if self.web.is_up() { "web" } else { "udp" }
    }

    /// The link over the web, if it is in use or should be.
    pub(super) fn web_status(&self, now: Instant) -> Option<WebLink> {
        self.web.link.as_ref().map(|_| WebLink {
            url: self.web.url.clone(),
            connected: self.web.is_up(),
            connected_secs: self.web.up.map(|since| now.saturating_duration_since(since).as_secs()),
            proxy: self.web.through.clone(),
            error: self.web.error.clone(),
        })
    }
}
