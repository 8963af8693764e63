//! How owners come to trust each other, with the registry as their mailbox.

use pilot_proto::trust::UnixTime;
use pilot_wire::NodeId;

use super::{Host, TRUST_LIMIT, WALL_START, World};
use crate::{directory::Carried, watch::Fault};

impl World {
    /// One owner asks, the other agrees, and the registry carries it.
    pub fn befriend(&mut self, asks: Host, agrees: Host) {
        let (asker, other) = (self.number(asks), self.number(agrees));
        let wall = self.wall(asks);
        let asked =
            self.with_node(asks, |node, now| node.request_trust(now, wall, other, "let us talk".into()));
        self.expect(asked);
        self.run_until(TRUST_LIMIT, |world| {
            world.hosts[agrees.0].node.trust().pending().any(|(node, _)| node == asker)
        });
        let wall = self.wall(agrees);
        let agreed = self.with_node(agrees, |node, now| node.approve(now, wall, asker));
        self.expect(agreed);
        let done = self.run_until(TRUST_LIMIT, |world| {
            let trusts = |host: Host, node| world.hosts[host.0].node.trust().get(node).is_some();
            trusts(asks, other) && trusts(agrees, asker) && world.directory.is_mutual(asker, other)
        });
        if !done {
            self.watch.note(Fault::Setup(format!("{asker} and {other} did not come to trust each other")));
        }
    }

    /// The registry brings a request for trust, or the answer to one.
    pub(super) fn carry(&mut self, carried: Carried) {
        let now = self.now;
        tell!(self, "the registry carries {carried:?}");
        match carried {
            Carried::Request { from, to, justification } => {
                let Some(host) = self.host_of_node(to) else { return };
                let wall = self.wall(host);
                self.hosts[host.0].node.relayed_request(now, wall, from, &justification);
                self.drain(host);
            }
            Carried::Verdict { from, to, accept } => {
                let Some(host) = self.host_of_node(to) else { return };
                let wall = self.wall(host);
                self.hosts[host.0].node.relayed_response(now, wall, from, accept, Some(wall));
                self.drain(host);
            }
        }
    }

    /// Seconds since 1970 as a machine of this world counts them.
    fn wall(&self, host: Host) -> UnixTime {
        let right = WALL_START + self.elapsed().as_secs();
        right.saturating_add_signed(self.hosts[host.0].clock_off)
    }

    fn expect<T, E: std::fmt::Display>(&mut self, result: Result<T, E>) {
        if let Err(error) = result {
            self.watch.note(Fault::Setup(error.to_string()));
        }
    }

    fn host_of_node(&self, number: NodeId) -> Option<Host> {
        self.hosts.iter().position(|machine| machine.number == number).map(Host)
    }
}
