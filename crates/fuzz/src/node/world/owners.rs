//! The registry, the owners of the two nodes, and what happens around them.

use std::collections::BTreeMap;
use std::time::Duration;

use pilot_proto::trust::{Member, Trusted};
use pilot_proto::{Answer, Location, Query, QueryError, Visibility};
use pilot_wire::{NetworkId, NodeId};

use super::World;
use crate::node::{IDS, PUPPET, beacon, home, identity};
use crate::script::Script;

/// Some time of day.
const WALL: u64 = 1_800_000_000;

impl World {
    pub(super) fn answer(&mut self, at: usize, choice: u8) {
        let Some((id, query)) = self.sides[at].queries.pop_front() else { return };
        let error = || match choice & 0x30 {
            0x00 => QueryError::NotFound,
            0x10 => QueryError::Denied,
            0x20 => QueryError::Already,
            _ => QueryError::Unreachable("away".to_owned()),
        };
        if choice & 3 != 0 {
            let mut answer = self.truth(&query);
            match &mut answer {
                Answer::Resolved(Ok(location)) => {
                    location.relay_only = choice & 0xC0 == 0xC0;
                    if choice & 4 != 0 {
                        location.public = None;
                    }
                    if choice & 8 != 0 {
                        location.lan = (0..choice >> 4).map(|number| home(number.into(), number)).collect();
                    }
                    location.seen = (choice & 0x20 == 0).then_some(Duration::from_secs(choice.into()));
                }
                Answer::PeerKey(Ok(key)) if choice & 0xFC == 0xFC => {
                    self.estranged = true;
                    *key = pilot_crypto::Identity::from_seed(&[choice; 32]).public();
                }
                Answer::Trusted(Ok(trusted)) => *trusted = choice & 4 == 0,
                Answer::Resolved(_) | Answer::PeerKey(_) | Answer::Trusted(_) | Answer::Done(_) => {}
            }
            return self.sides[at].node.handle_answer(self.now, id, answer);
        }
        let answer = match query {
            Query::Resolve(_) => Answer::Resolved(Err(error())),
            Query::PeerKey(_) => Answer::PeerKey(Err(error())),
            Query::CheckTrust(_) => Answer::Trusted(Err(error())),
            Query::RequestHandshake { .. }
            | Query::RespondHandshake { .. }
            | Query::ReportTrust(_)
            | Query::RevokeTrust(_) => Answer::Done(Err(error())),
        };
        self.sides[at].node.handle_answer(self.now, id, answer);
    }

    /// What an honest registry says.
    pub(super) fn truth(&self, query: &Query) -> Answer {
        let index = |peer: &NodeId| IDS.iter().position(|id| id == peer);
        match query {
            Query::Resolve(peer) => Answer::Resolved(match index(peer) {
                Some(PUPPET) => Ok(Location { public: Some(home(PUPPET, 0)), ..Location::default() }),
                Some(index) => Ok(Location { public: Some(self.sides[index].at), ..Location::default() }),
                None => Err(QueryError::NotFound),
            }),
            Query::PeerKey(peer) => {
                Answer::PeerKey(index(peer).map(|index| identity(index).public()).ok_or(QueryError::NotFound))
            }
            Query::CheckTrust(_) => Answer::Trusted(Ok(false)),
            Query::RequestHandshake { .. }
            | Query::RespondHandshake { .. }
            | Query::ReportTrust(_)
            | Query::RevokeTrust(_) => Answer::Done(Ok(())),
        }
    }

    pub(super) fn end(&mut self, at: usize, script: &mut Script<'_>) {
        let side = &mut self.sides[at];
        let Some(id) = side.pick(script.byte()) else { return };
        match script.byte() % 3 {
            0 => return side.node.finish(self.now, id),
            1 => side.node.close(self.now, id),
            _ => side.node.reset(self.now, id),
        }
        side.streams.remove(&id);
    }

    pub(super) fn trust(&mut self, at: usize, script: &mut Script<'_>) {
        let what = script.byte();
        let peer = self.wanted(at, script.byte());
        let now = self.now;
        self.estranged |= matches!(what % 9, 3 | 4 | 7);
        let node = &mut self.sides[at].node;
        // Refusals are answers.
        match what % 9 {
            0 | 1 => drop(node.request_trust(now, WALL, peer, "please".to_owned())),
            2 => drop(node.approve(now, WALL, peer)),
            3 => drop(node.reject(now, WALL, peer, "no")),
            4 => drop(node.revoke(now, WALL, peer)),
            5 => node.relayed_request(now, WALL, peer, "let me in"),
            6 => node.relayed_response(now, WALL, peer, what & 0x80 == 0, None),
            7 => {
                let trusted = Trusted { key: None, since: WALL, mutual: true };
                let member = Member { trusted, networks: [NetworkId(9)].into(), answered: false };
                let members =
                    if what & 0x80 == 0 { BTreeMap::from([(peer, member)]) } else { BTreeMap::new() };
                node.set_members(now, members);
            }
            _ => node.doubt_trust(peer),
        }
    }

    /// A word about trust arrives on the other side, or does not.
    pub(super) fn carry(&mut self, at: usize, choice: u8) {
        let Some((to, message)) = self.sides[at].words.pop_front() else { return };
        let (now, kind) = (self.now, message.kind);
        let arrives = choice & 3 != 0;
        let result = if arrives { Ok(()) } else { Err("away".to_owned()) };
        self.sides[at].node.handshake_delivered(now, to, kind, result);
        if let Some(other) = (0..2).find(|other| IDS[*other] == to && arrives) {
            self.sides[other].node.handshake_received(now, WALL, IDS[at], &message);
        }
    }

    pub(super) fn surroundings(&mut self, at: usize, script: &mut Script<'_>) {
        let now = self.now;
        let what = script.byte() % 8;
        if what != 0 {
            self.watches[at].elsewhere();
        }
        let node = &mut self.sides[at].node;
        match what {
            0 => {
                let visible = if script.byte() & 1 == 0 { Visibility::Private } else { Visibility::Public };
                node.set_visibility(visible);
            }
            1 => node.set_beacon(now, (script.byte() & 1 == 0).then(beacon)),
            2 => node.set_local(now, vec![home(at, script.byte())]),
            3 => node.network_changed(now),
            4 => node.beacon_reachable_otherwise(now),
            5 => node.survey(now),
            6 => drop(node.relocate(now, IDS[1 - at])),
            _ => node.set_mapped(now, Some(home(at, script.byte()))),
        }
    }

    /// The node has another address from now on. Whether it notices, the next byte says.
    pub(super) fn move_to(&mut self, at: usize, choice: u8) {
        self.sides[at].at = home(at, choice);
        if choice & 4 == 0 {
            self.watches[at].elsewhere();
            self.sides[at].node.network_changed(self.now);
        }
    }

    pub(super) fn restart(&mut self, at: usize) {
        self.watches[at].elsewhere();
        self.sides[at].restart(self.now);
    }
}
