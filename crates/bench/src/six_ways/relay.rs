//! The chain of agents that work on a document, with what it costs.

use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::Duration;

use pilot_interop::Node;
use pilot_lab::{Host, Lab, agree};

use super::Error;
use super::actor::Actor;
use super::chain::{AGENTS, Handing, Member, Passage, Word};
use super::role::Role;
use super::scene;

/// The port of the agents' HTTP servers.
const PORT: u16 = 8080;

/// What is on its way when the last agent is done: the last acknowledgements, which TCP holds back for 40 ms.
const TAIL: Duration = Duration::from_millis(150);

/// What the chain did in one way.
#[derive(Debug)]
pub(crate) struct Chained {
    /// What was handed on.
    pub handing: Handing,
    /// How.
    pub by: &'static str,
    /// Bytes that the agents wrote.
    pub bytes: u64,
    /// Bytes on the agents' cables, each counted where it was sent, with all headers.
    pub wire: u64,
    /// Nanoseconds from the first step to the end.
    pub took: u64,
}

/// Plays the chain in all ways, on three public machines side by side.
pub(crate) fn all() -> Result<Vec<Chained>, Error> {
    let lab = Lab::without_rendezvous();
    let names = ["first", "second", "third"];
    let hosts = names.map(|name| lab.host(name));
    for host in &hosts {
        host.namespace().ip("link set net0 gso_max_segs 1");
    }
    let address = |place: usize| SocketAddr::new(IpAddr::V4(hosts[place].address()), PORT);
    let next = |place: usize| (place + 1) % hosts.len();
    let mut found = Vec::new();
    for handing in [Handing::Whole, Handing::Deltas] {
        let by = |place: usize| Passage::Http { listen: address(place), next: address(next(place)) };
        found.push(play(&lab, &hosts, handing, "HTTP", by)?);
    }
    let _rendezvous = scene::rendezvous(&lab)?;
    let nodes: Vec<Node> =
        names.iter().zip(&hosts).map(|(name, host)| scene::node(&lab, host, name)).collect();
    for place in 0..nodes.len() {
        agree(&nodes[place], &nodes[next(place)]);
    }
    for handing in [Handing::Whole, Handing::Deltas] {
        let by = |place: usize| Passage::Pilot {
            socket: nodes[place].socket().to_owned(),
            next: nodes[next(place)].address(),
        };
        found.push(play(&lab, &hosts, handing, "Pilot", by)?);
    }
    Ok(found)
}

fn play(
    lab: &Lab,
    hosts: &[Host],
    handing: Handing,
    by: &'static str,
    passage: impl Fn(usize) -> Passage,
) -> Result<Chained, Error> {
    let members = (0..AGENTS).zip(hosts).enumerate().map(|(at, (place, host))| {
        let role = Role::Chain(Member { place, handing, by: passage(at) });
        Actor::start(host, &role, &format!("chain-{place}"), lab.folder())
    });
    let mut members: Vec<Actor> = members.collect::<Result<_, _>>()?;
    for member in &mut members {
        let Word::Ready = member.hear()? else { return Err(Error::Ended("the chain, before it began,")) };
    }
    let sent = || hosts.iter().map(|host| host.traffic().bytes_out).sum::<u64>();
    let before = sent();
    members[0].tell(&Word::Ready)?;
    let last = super::chain::STEPS as usize % members.len();
    let Word::Done { bytes, took, right } = members[last].hear()? else {
        return Err(Error::Ended("the chain, with no result,"));
    };
    sleep(TAIL);
    if !right {
        return Err(Error::Process(format!("the document is wrong: {handing:?} by {by}")));
    }
    Ok(Chained { handing, by, bytes, wire: sent() - before, took })
}
