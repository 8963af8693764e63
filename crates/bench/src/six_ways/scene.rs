//! A way, built up in an internet of its own and running.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use pilot_interop::{Node, Place, Process, Program, isolate};
use pilot_lab::{Access, BEACON, Host, Lab, REGISTRY, RENDEZVOUS, Site, agree};

use super::Error;
use super::actor::{Actor, find};
use super::distance::Distance;
use super::job::{Order, Report, now};
use super::role::{By, Name, Role};
use super::way::Way;
use super::ways::mqtt;
use crate::process::cpu_of;

/// The port of whatever serves.
const PORT: u16 = 8080;

/// Where the daemons listen; two behind different routers may have the same.
const LISTEN: &str = "0.0.0.0:4000";

/// Tries until a server answers, and the pause between two.
const TRIES: u32 = 400;
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// What a way has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    /// Seconds of processor time on the agents' machines: the agents, and their daemons.
    pub agents: f64,
    /// Seconds of processor time of what is hosted.
    pub hosted: f64,
    /// Bytes through the cables of the agents' machines, in and out, with Ethernet headers.
    pub bytes: u64,
    /// Polls that brought nothing.
    pub empty: u64,
}

impl Used {
    /// What came after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            agents: self.agents - earlier.agents,
            hosted: self.hosted - earlier.hosted,
            bytes: self.bytes.saturating_sub(earlier.bytes),
            empty: self.empty.saturating_sub(earlier.empty),
        }
    }
}

/// What is hosted on the public machine.
enum Server {
    Ours(Actor),
    Others(Process),
}

/// A way that runs.
pub(crate) struct Scene {
    way: Way,
    // In the order in which they end: agents, daemons, server, distances, machines.
    a: Actor,
    b: Actor,
    by_b: By,
    nodes: Vec<Node>,
    server: Option<Server>,
    _distances: Vec<Distance>,
    sites: [Site; 2],
    lab: Lab,
}

impl Scene {
    /// Builds it: two agents with these kinds of access, `delay` from every machine to every other one, and ports
    /// `opened` in the routers if the way needs it.
    pub(crate) fn open(
        way: Way,
        access: [Access; 2],
        opened: bool,
        delay: Option<Duration>,
    ) -> Result<Self, Error> {
        let lab = Lab::without_rendezvous();
        let sites = [Site::build(&lab, "a", access[0]), Site::build(&lab, "b", access[1])];
        let machines = [&sites[0].host, &sites[1].host, lab.rendezvous()];
        for machine in machines {
            // The counters shall see what a real cable carries, not the large pieces that are cut up later.
            machine.namespace().ip("link set net0 gso_max_segs 1");
        }
        let distances =
            delay.into_iter().flat_map(|delay| machines.map(|machine| Distance::to(machine, delay)));
        let distances = distances.collect::<Result<_, _>>()?;
        let server = serve(way, &lab)?;
        if opened {
            sites.iter().for_each(open_port);
        }
        let nodes = if way.is_pilot() { nodes(&lab, &sites) } else { Vec::new() };
        let [by_a, by_b] = [0, 1].map(|place| by(way, place, &sites, &nodes));
        let a = Role::Agent { name: Name::A, by: by_a, returns: false };
        let b = Role::Agent { name: Name::B, by: by_b.clone(), returns: false };
        Ok(Self {
            way,
            a: Actor::start(&sites[0].host, &a, "agent-a", lab.folder())?,
            b: Actor::start(&sites[1].host, &b, "agent-b", lab.folder())?,
            by_b,
            nodes,
            server,
            _distances: distances,
            sites,
            lab,
        })
    }

    /// Which way it is.
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// Whether the daemons' frames go through the relay; none without daemons.
    pub(crate) fn path(&self) -> Option<pilot_lab::Way> {
        let [a, b] = &self.nodes[..] else { return None };
        pilot_lab::Way::of(a, b)
    }

    /// Has the agents do the job so often, with rests of up to `rest` milliseconds; no message may
    /// take longer than `patience`. Microseconds of the answers and of the news.
    pub(crate) fn rounds(
        &mut self,
        count: u32,
        rest: u32,
        patience: Duration,
    ) -> Result<(Vec<f64>, Vec<f64>), Error> {
        self.a.tell(&Order::Rounds { count, rest, patience })?;
        match self.a.hear()? {
            Report::Rounds { answers, news } => Ok((answers, news)),
            Report::Failed(reason) => Err(Error::Process(reason)),
            Report::Returned(_) => Err(Error::Process("agent A reports what was not asked".into())),
        }
    }

    /// Kills agent B, and its daemon too if `with_daemon`; starts them again at once. Returns the milliseconds from that
    /// start to the first news at A.
    pub(crate) fn restart(&mut self, with_daemon: bool) -> Result<f64, Error> {
        self.a.tell(&Order::AwaitReturn)?;
        self.b.kill();
        if with_daemon {
            self.nodes[1].crash();
        }
        let begun = now();
        let role = Role::Agent { name: Name::B, by: self.by_b.clone(), returns: true };
        self.b = Actor::start(&self.sites[1].host, &role, "agent-b", self.lab.folder())?;
        if with_daemon {
            let node = &mut self.nodes[1];
            self.sites[1].host.namespace().enter(|| node.crash_and_restart());
        }
        match self.a.hear()? {
            #[expect(
                clippy::cast_precision_loss,
                reason = "times of seconds are exact to the microsecond in a float"
            )]
            Report::Returned(at) => Ok(at.saturating_sub(begun) as f64 / 1e6),
            Report::Failed(reason) => Err(Error::Process(reason)),
            Report::Rounds { .. } => Err(Error::Process("agent A reports what was not asked".into())),
        }
    }

    /// What it has used so far.
    pub(crate) fn used(&self) -> Used {
        let daemons = self.nodes.iter().filter_map(Node::process_id);
        let agents = daemons.chain([self.a.id(), self.b.id()]).map(cpu_of).sum();
        let hosted = match &self.server {
            Some(Server::Ours(actor)) => cpu_of(actor.id()),
            Some(Server::Others(process)) => cpu_of(process.id()),
            None => 0.0,
        };
        let traffic = self.sites.iter().map(|site| site.host.traffic());
        Used {
            agents,
            hosted,
            bytes: traffic.map(|seen| seen.bytes_in + seen.bytes_out).sum(),
            empty: self.empty(),
        }
    }

    /// Polls that brought nothing, as the server counts them.
    fn empty(&self) -> u64 {
        if self.way.period().is_none() {
            return 0;
        }
        let counted = self.lab.rendezvous().namespace().enter(|| count_empty().ok());
        counted.unwrap_or_default()
    }
}

/// The address of a server on the public machine.
fn public(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(RENDEZVOUS[0]), port)
}

fn count_empty() -> Result<u64, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let url = format!("http://{}/empty", public(PORT));
    let body = runtime.block_on(async { super::wire::Http::new().get(&url).await })?;
    Ok(serde_json::from_slice(&body.unwrap_or_default())?)
}

/// Starts what is hosted, and waits until it answers.
fn serve(way: Way, lab: &Lab) -> Result<Option<Server>, Error> {
    let machine = lab.rendezvous();
    let ours = |role: Role| Actor::start(machine, &role, "server", lab.folder()).map(Server::Ours);
    let (server, address) = match way {
        Way::Webhook => return Ok(None),
        Way::Polling(_) => (ours(Role::Mailboxes(public(PORT)))?, public(PORT)),
        Way::WebSocket => (ours(Role::WebSocketHub(public(PORT)))?, public(PORT)),
        Way::Grpc => (ours(Role::GrpcHub(public(PORT)))?, public(PORT)),
        Way::Mqtt => {
            let program =
                find("mosquitto").ok_or(Error::Missing { what: "mosquitto", package: "mosquitto" })?;
            let mut command = Command::new(program);
            command.arg("-c").arg(mqtt::configure(lab.folder(), public(PORT))?);
            let process =
                machine.namespace().enter(|| Process::start("mosquitto", lab.folder(), &mut command));
            (Server::Others(process), public(PORT))
        }
        Way::PilotDirect | Way::PilotRelayed => return Ok(Some(Server::Others(rendezvous(lab)?))),
    };
    answers(machine, address)?;
    Ok(Some(server))
}

/// Waits until a server answers.
fn answers(machine: &Host, address: SocketAddr) -> Result<(), Error> {
    machine.namespace().enter(|| {
        for _ in 0..TRIES {
            if TcpStream::connect(address).is_ok() {
                return Ok(());
            }
            sleep(LOOK_AGAIN);
        }
        Err(Error::Process(format!("the server at {address} does not answer")))
    })
}

/// Starts a rendezvous as its operator would, with the logs of normal work, and waits until it answers.
pub(super) fn rendezvous(lab: &Lab) -> Result<Process, Error> {
    let home = lab.folder();
    let mut command = Command::new(Program::Ours.pilotctl());
    isolate(&mut command, home, &home.join("none.sock"), &REGISTRY.to_string());
    command.args(["rendezvous", "run", "--registry-addr", &REGISTRY.to_string()]);
    command.args(["--beacon-addr", &BEACON.to_string(), "--beacon-second-ip", &RENDEZVOUS[1].to_string()]);
    command.arg("--store").arg(home.join("rendezvous.redb"));
    let process = lab.rendezvous().namespace().enter(|| Process::start("rendezvous", home, &mut command));
    answers(lab.rendezvous(), REGISTRY.into())?;
    Ok(process)
}

/// A daemon of ours, with the logs of normal work.
pub(super) fn node(lab: &Lab, host: &Host, name: &str) -> Node {
    let place = Place {
        folder: lab.folder(),
        registry: &REGISTRY.to_string(),
        beacon: &BEACON.to_string(),
        listen: LISTEN,
        environment: &[],
    };
    host.namespace().enter(|| Node::start(Program::Ours, name, place, &["--trust-auto-approve"]))
}

/// Both daemons, which trust each other.
fn nodes(lab: &Lab, sites: &[Site; 2]) -> Vec<Node> {
    let [a, b] = ["a", "b"].map(|name| {
        let site = if name == "a" { &sites[0] } else { &sites[1] };
        node(lab, &site.host, name)
    });
    agree(&a, &b);
    vec![a, b]
}

/// How the agent in this place reaches the other.
fn by(way: Way, place: usize, sites: &[Site; 2], nodes: &[Node]) -> By {
    match way {
        Way::Polling(seconds) => {
            By::Polling { server: public(PORT), period: Duration::from_secs(seconds.into()) }
        }
        Way::Webhook => {
            let listen = SocketAddr::new(IpAddr::V4(sites[place].host.address()), PORT);
            let peer = &sites[1 - place];
            // Who is behind a router is called at the router, the outermost one.
            let ip = peer.routers.first().map_or(peer.host.address(), pilot_lab::Router::outside);
            By::Webhook { listen, peer: SocketAddr::new(IpAddr::V4(ip), PORT) }
        }
        Way::WebSocket => By::WebSocket(public(PORT)),
        Way::Mqtt => By::Mqtt(public(PORT)),
        Way::Grpc => By::Grpc(public(PORT)),
        Way::PilotDirect | Way::PilotRelayed => By::Pilot {
            socket: nodes[place].socket().to_owned(),
            // B, who comes back after a restart, dials.
            peer: (place == 1).then(|| nodes[0].address()),
        },
    }
}

/// Opens the port of the agent's server in its router.
fn open_port(site: &Site) {
    let Some(router) = site.routers.first() else { return };
    let mut rules = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        rules,
        "table ip opened {{\nchain let_in {{\ntype nat hook prerouting priority dstnat;\n\
         iifname outside tcp dport {PORT} dnat to {}:{PORT}\n}}\n}}",
        site.host.address()
    );
    router.namespace().nft(&rules);
}
