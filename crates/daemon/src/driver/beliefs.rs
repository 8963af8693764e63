//! What the registry says of nodes, weighed against what is remembered of them, and remembered if it holds.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pilot_crypto::open_record;
use pilot_proto::{Answer, CandidateSource, Location, Query, QueryError, QueryId};
use pilot_wire::ipc::{KeyChanged, KeyChangedBy, RecoveryChange};
use pilot_wire::record::{ChangedBy, KeyChange, NodeRecord, SignedRecord};
use pilot_wire::registry::{self, Response, Signed};
use pilot_wire::{NodeId, PublicKey};
use serde_json::json;

use super::Driver;
use super::trust::wall;
use crate::belief::{Belief, Known, Lie, Statement, judge, located};
use crate::registry::{Attested, CallError, Witness, failed, said};

/// Why an answer is not looked at any further.
const OF_ANOTHER: &str = "the registry speaks of another node than asked for";

/// A look-up of a node, to learn what there is to know of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Study {
    node: NodeId,
    /// The key it showed, which is not the pinned one.
    shown: Option<PublicKey>,
}

/// Mismatches told in one [`WINDOW`]: the log and the webhook are not for whoever floods with them.
const TOLD_MAX: u32 = 16;
const WINDOW: Duration = Duration::from_secs(60);

/// How many mismatches were told lately, and how many were not.
#[derive(Debug, Default)]
pub(super) struct Told {
    since: Option<Instant>,
    told: u32,
    kept_back: u64,
}

impl Told {
    /// Whether one more is told; if so, how many were kept back before it.
    fn one_more(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| since + WINDOW <= now) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told >= TOLD_MAX {
            self.kept_back += 1;
            return None;
        }
        self.told += 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

/// What the registry says.
impl Driver {
    /// Looks a node up: its name, and its key if that may have changed.
    pub(super) fn study(&mut self, node: NodeId, shown: Option<PublicKey>) {
        let under_way =
            self.registry.studies.values().any(|study| study.node == node && study.shown == shown);
        if shown.is_some() && under_way {
            return;
        }
        let study = Study { node, shown };
        let request = registry::Request::Lookup(Signed { node_id: node, ..Signed::default() });
        match self.send_call(request.into()) {
            Some(id) => drop(self.registry.studies.insert(id, study)),
            None => self.tell_mismatch(study),
        }
    }

    pub(super) fn on_studied(
        &mut self,
        now: Instant,
        study: Study,
        outcome: Result<Vec<u8>, CallError>,
        witness: &Witness,
    ) {
        if let Some(Response::Lookup(lookup)) = outcome.ok().and_then(|reply| {
            let believed = self.believed_reply(now, study.node, reply, witness).ok()?;
            Response::parse(&believed).ok()
        }) && lookup.record.is_none()
            && let Some(name) = lookup.hostname
        {
            self.set_name(study.node, &name);
        }
        self.tell_mismatch(study);
    }

    /// The registry says where a node is that nothing is said to at present.
    pub(super) fn on_place(
        &mut self,
        now: Instant,
        node: NodeId,
        outcome: Result<Vec<u8>, CallError>,
        witness: &Witness,
    ) {
        let said = outcome.ok().and_then(|reply| said(&reply)).filter(|said| said.node == node);
        if let Some(said) = said
            && let Ok(belief) = self.weigh(now, &said, witness)
            && let Some(told) = said.location
        {
            self.remember_location(node, &located(belief.record.as_deref(), told));
        }
    }

    /// A peer showed another key, and nothing that was found out explains it.
    fn tell_mismatch(&mut self, study: Study) {
        let Study { node, shown: Some(shown) } = study else { return };
        if self.known_key(node) == Some(shown) {
            return;
        }
        let Some(kept_back) = self.registry.told.one_more(Instant::now()) else { return };
        let shown_as = shown.fingerprint();
        tracing::warn!(peer = %node, shown = shown_as, kept_back, "shows another key than the pinned one; refused");
        let data = json!({"peer_node_id": node, "shown": shown, "kept_back": kept_back});
        self.notify("security.key_mismatch", Some(data));
    }

    /// The registry answered a question of the node about another one.
    pub(super) fn on_said(&mut self, now: Instant, id: QueryId, said: &Statement, witness: &Witness) {
        let Some(query) = self.asked.remove(&id) else { return };
        let answer = match asked_about(&query) {
            Some(node) if node == said.node => self.answer_said(now, &query, said, witness),
            Some(_) | None => failed(&query, QueryError::Refused(OF_ANOTHER.to_owned())),
        };
        self.node.handle_answer(now, id, answer);
    }

    fn answer_said(&mut self, now: Instant, query: &Query, said: &Statement, witness: &Witness) -> Answer {
        let belief = match self.weigh(now, said, witness) {
            Ok(belief) => belief,
            Err(why) => {
                let refused = || failed(query, QueryError::Refused(why));
                return self.remembered_answer(query).unwrap_or_else(refused);
            }
        };
        match (&said.location, belief.key) {
            (Some(location), _) => {
                let location = located(belief.record.as_deref(), location.clone());
                self.remember_location(said.node, &location);
                Answer::Resolved(Ok(location))
            }
            (None, Some(key)) => {
                if self.is_remembered(said.node) {
                    let peer = self.memory.peer_mut(said.node);
                    self.keeper.learned(peer.public_key.replace(key) != Some(key));
                    self.tell_finder();
                }
                Answer::PeerKey(Ok(key))
            }
            (None, None) => failed(query, QueryError::NotFound),
        }
    }

    /// A reply to a question about `node`, if it is believed. What says nothing of a node passes.
    pub(super) fn believed_reply(
        &mut self,
        now: Instant,
        node: NodeId,
        reply: Vec<u8>,
        witness: &Witness,
    ) -> Result<Vec<u8>, CallError> {
        if let Some(said) = said(&reply) {
            if said.node != node {
                return Err(CallError::Refused(OF_ANOTHER.to_owned()));
            }
            self.weigh(now, &said, witness).map_err(CallError::Refused)?;
        }
        Ok(reply)
    }

    /// Judges what the registry says of a node, tells of lies, and remembers what is believed of friends. `Err` says in
    /// words why nothing of it is used.
    pub(super) fn weigh(
        &mut self,
        now: Instant,
        said: &Statement,
        witness: &Witness,
    ) -> Result<Belief, String> {
        let vouched = self.vouched(witness);
        let known = self.known(said.node);
        let belief = judge(&known, said).map_err(|lie| self.tell_lie(said.node, &lie, witness))?;
        if known.pinned.is_none() {
            // Nothing but the registry's word, so it must be the registry's.
            vouched?;
        }
        if let Some(change) = &belief.change {
            self.move_pin(now, change);
        }
        if let (Some(record), Some(text)) = (&belief.record, &said.record) {
            self.remember_record(record, text);
        }
        Ok(belief)
    }

    fn tell_lie(&mut self, node: NodeId, lie: &Lie, witness: &Witness) -> String {
        let name = self.called(node).name;
        let text = format!("the registry {} {lie}, for {name}; not believed", witness.registry);
        self.alarm(Some(node), lie.kind(), text.clone());
        text
    }

    /// Whether a reply comes from the registry that was first met at this address. One that never vouched for anything
    /// need not.
    pub(super) fn vouched(&mut self, witness: &Witness) -> Result<(), String> {
        let Some(attested) = witness.attested else { return Ok(()) };
        let pinned = self.memory.registry_keys.get(&witness.registry).copied();
        let what = match (pinned, attested) {
            (None, Attested::No) => return Ok(()),
            (Some(pinned), Attested::By(key)) if pinned == key => return Ok(()),
            (None, Attested::By(key)) => {
                tracing::info!(
                    registry = witness.registry,
                    key = key.fingerprint(),
                    "the registry's key is pinned"
                );
                self.memory.pin_registry(witness.registry.clone(), key);
                self.keeper.learned(true);
                return Ok(());
            }
            (Some(_), Attested::No) => "does not sign what it says any more".to_owned(),
            (Some(pinned), Attested::By(key)) => format!(
                "signs with another key (fingerprint {}) than before ({})",
                key.fingerprint(),
                pinned.fingerprint()
            ),
            (_, Attested::Forged(_)) => "signs what it says with a signature that is not genuine".to_owned(),
        };
        let text =
            format!("the registry {} {what}; not believed for names and first contacts", witness.registry);
        self.alarm(None, "registry_key", text.clone());
        Err(text)
    }
}

/// What is remembered.
impl Driver {
    fn known(&self, node: NodeId) -> Known {
        let Some(pinned) = self.known_key(node) else { return Known::default() };
        let Some(peer) = self.memory.peers.get(&node) else {
            return Known { pinned: Some(pinned), ..Known::default() };
        };
        let signed = peer.record.as_ref().and_then(|text| SignedRecord::from_text(text).ok());
        let own = signed.as_ref().and_then(|signed| open_record(signed, &pinned).ok());
        // What an earlier key signed counts as far as a change that it signed leads on from it.
        let last = match peer.key_changed {
            Some(_) => signed.as_ref().and_then(|signed| NodeRecord::parse(&signed.bytes).ok()),
            None => own.clone(),
        };
        Known {
            pinned: Some(pinned),
            seq: if last.is_some() || peer.key_changed.is_some() { peer.seq } else { Default::default() },
            publishes: own.is_some(),
            recovery: last.and_then(|record| record.recovery),
        }
    }

    /// What a node last said of itself, if it did so under the key that is known for it.
    fn record_of(&self, node: NodeId) -> Option<NodeRecord> {
        let text = self.memory.peers.get(&node)?.record.as_ref()?;
        open_record(&SignedRecord::from_text(text).ok()?, &self.known_key(node)?).ok()
    }

    /// Where a friend was, to be tried at once: a registry that has not answered yet may never do so.
    pub(super) fn hint_remembered(&mut self, now: Instant, node: NodeId) {
        if let Some(record) = self.record_of(node) {
            for endpoint in record.endpoints {
                self.node.hint(now, node, endpoint, CandidateSource::Record);
            }
            for endpoint in record.lan {
                self.node.hint(now, node, endpoint, CandidateSource::RecordLan);
            }
        }
        if let Some(endpoint) = self.memory.peers.get(&node).and_then(|peer| peer.endpoint) {
            self.node.hint(now, node, endpoint, CandidateSource::Remembered);
        }
    }

    /// Of friends only: strangers could fill the disk.
    fn remember_record(&mut self, record: &NodeRecord, text: &str) {
        let node = record.node;
        if self.node.trust().get(node).is_none() {
            return;
        }
        let peer = self.memory.peer_mut(node);
        if peer.record.as_deref() == Some(text) {
            return;
        }
        peer.record = Some(text.to_owned());
        peer.seq = record.seq;
        peer.hostname.clone_from(&record.hostname);
        self.keeper.learned(true);
    }

    /// The owner of a peer replaced its key, and proved it.
    fn move_pin(&mut self, now: Instant, change: &KeyChange) {
        let KeyChange { node, old, new, seq, by } = *change;
        let by = match by {
            ChangedBy::Old => KeyChangedBy::OldKey,
            ChangedBy::Recovery => KeyChangedBy::RecoveryKey,
        };
        let (was, is) = (old.fingerprint(), new.fingerprint());
        tracing::warn!(peer = %node, was, is, "has another key, signed by the {}", by.words());
        let peer = self.memory.peer_mut(node);
        peer.key_changed = Some(KeyChanged { at: wall(), by });
        peer.seq = seq;
        peer.public_key = Some(new);
        self.memory_stale = true;
        self.networks_stale |= self.memberships.rekeyed(node, old, new);
        self.node.rekeyed(now, node, new, by == KeyChangedBy::OldKey);
        self.tell_policy();
        self.tell_finder();
        let data = json!({"peer_node_id": node, "old": old, "new": new, "by": by});
        self.notify("trust.key_changed", Some(data));
    }

    /// What earlier answers of the registry, or the peer itself, said.
    pub(super) fn remembered_answer(&self, query: &Query) -> Option<Answer> {
        match query {
            Query::Resolve(node) => {
                let record = self.record_of(*node);
                let endpoint = self.memory.peers.get(node)?.endpoint;
                if record.is_none() && endpoint.is_none() {
                    return None;
                }
                let last = Location { public: endpoint, ..Location::default() };
                Some(Answer::Resolved(Ok(located(record.as_ref(), last))))
            }
            Query::PeerKey(node) => {
                let remembered = || self.memory.peers.get(node).and_then(|peer| peer.public_key);
                Some(Answer::PeerKey(Ok(self.known_key(*node).or_else(remembered)?)))
            }
            Query::CheckTrust(_)
            | Query::RequestHandshake { .. }
            | Query::RespondHandshake { .. }
            | Query::ReportTrust(_)
            | Query::RevokeTrust(_) => None,
        }
    }

    /// What the node signed goes before what the registry says.
    fn remember_location(&mut self, node: NodeId, location: &Location) {
        if let Some(endpoint) = location.signed.first().copied().or(location.public) {
            self.remember_endpoint(node, endpoint);
        }
    }

    /// From now on, in the next life of this daemon too, less is not taken of it.
    pub(super) fn remember_agreement(&mut self, node: NodeId, identity: PublicKey) {
        if self.is_remembered(node) {
            let peer = self.memory.peer_mut(node);
            self.keeper.learned(peer.agrees.replace(identity) != Some(identity));
        }
    }

    /// Trust in it ended here: whoever is met anew may be of another make.
    pub(super) fn forget_agreement(&mut self, node: NodeId) {
        if let Some(peer) = self.memory.peers.get_mut(&node) {
            self.keeper.learned(peer.agrees.take().is_some());
        }
    }

    /// A peer that agrees on keys of the moment showed less.
    pub(super) fn tell_downgrade(&mut self, node: NodeId) {
        let name = self.called(node).name;
        let text = format!(
            "a key exchange of an earlier release came in the name of {name}, which does better; refused: somebody on \
             the way may be changing what it says. If its owner runs an earlier release now: `pilotctl untrust {name}`, \
             then a handshake again"
        );
        self.alarm(Some(node), "downgrade", text);
    }

    pub(super) fn remember_endpoint(&mut self, node: NodeId, endpoint: SocketAddr) {
        if self.is_remembered(node) {
            let peer = self.memory.peer_mut(node);
            self.keeper.learned(peer.endpoint.replace(endpoint) != Some(endpoint));
        }
    }

    /// Whether a node is worth a place on disk. Strangers are not: they could fill the table.
    fn is_remembered(&self, node: NodeId) -> bool {
        self.node.trust().get(node).is_some() || self.memory.peers.contains_key(&node)
    }

    /// Names another recovery key, or none, in the record from now on.
    pub(super) fn change_recovery(&mut self, change: Option<RecoveryChange>) {
        self.profile.recovery = match change {
            None => return,
            Some(RecoveryChange::Name(key)) => Some(key),
            Some(RecoveryChange::Remove) => None,
        };
        self.memory.recovery = self.profile.recovery;
        self.memory_stale = true;
        self.tell_link_profile();
    }
}

/// The node that a question about a key or a place is about.
fn asked_about(query: &Query) -> Option<NodeId> {
    match query {
        Query::Resolve(node) | Query::PeerKey(node) => Some(*node),
        Query::CheckTrust(_)
        | Query::RequestHandshake { .. }
        | Query::RespondHandshake { .. }
        | Query::ReportTrust(_)
        | Query::RevokeTrust(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_of_mismatches_few_are_told_and_the_rest_is_counted() {
        let (mut told, now) = (Told::default(), Instant::now());
        assert_eq!((0..100).filter(|_| told.one_more(now).is_some()).count(), 16);
        assert_eq!(told.one_more(now + WINDOW), Some(84));
        assert_eq!(told.one_more(now + WINDOW), Some(0));
    }
}
