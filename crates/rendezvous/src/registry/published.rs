//! What nodes say of themselves under their own signature, to be passed on as it is.

use super::{
    Key, Refusal, State,
    names::{check_hostname, check_tags},
    record::Published,
};
use pilot_crypto::open_record;
use pilot_wire::{
    NodeId,
    record::SignedRecord,
    registry::{PublishRecord, Response, Visibility},
};
use std::{collections::BTreeSet, time::Instant};

/// How far the clock of a node may be ahead of ours, in milliseconds: a number from the far future could never be
/// followed by another.
const AHEAD_MAX: u64 = 600_000;

impl State {
    /// Takes a record in place of the one before, and what it says in place of what was said by requests. Nothing of it
    /// is taken if its name is another node's.
    pub(super) fn publish_record(
        &mut self,
        now: Instant,
        request: &PublishRecord,
    ) -> Result<Response, Refusal> {
        let id = request.node_id;
        let node = self.known(id)?;
        let signed =
            SignedRecord::from_text(&request.record).map_err(|error| Refusal::RecordInvalid(error.into()))?;
        let record = open_record(&signed, &node.key).map_err(Refusal::RecordInvalid)?;
        if record.node != id {
            return Err(Refusal::RecordOfAnother(record.node));
        }
        let last = node.signed.as_ref().map(|signed| signed.seq).unwrap_or_default();
        if record.seq <= last {
            return Err(Refusal::RecordOld { seq: record.seq.0, last: last.0 });
        }
        self.check_number(now, record.seq)?;
        let tags = check_tags(&record.tags)?;
        if !record.hostname.is_empty() {
            check_hostname(&record.hostname).map_err(Refusal::HostnameInvalid)?;
        }
        self.set_hostname(id, &record.hostname)?;
        let presence = self.presence_mut(id)?;
        presence.visibility = if record.public { Visibility::Public } else { Visibility::Private };
        presence.tags = tags;
        presence.relay_only = record.relay_only;
        presence.task_exec = record.task_exec;
        if let Some(node) = self.nodes.get_mut(&id) {
            let (text, seq, recovery) = (request.record.clone(), record.seq, record.recovery);
            node.signed = Some(Published { text, seq, recovery });
        }
        self.touch(Key::Node(id));
        Ok(Response::PublishRecord { node_id: id, seq: record.seq })
    }

    /// The record of a node, for those who may learn where it is.
    pub(super) fn record_for(&self, viewers: &BTreeSet<NodeId>, id: NodeId) -> Option<String> {
        let signed = self.nodes.get(&id)?.signed.as_ref().filter(|signed| !signed.text.is_empty())?;
        let is_public = self.presence(id).is_some_and(super::record::Presence::is_public);
        let allowed = is_public || viewers.iter().any(|viewer| self.may_meet(*viewer, id));
        allowed.then(|| signed.text.clone())
    }

    /// Numbers are times, so that a node that lost its memory goes on above its old ones.
    pub(super) fn check_number(
        &self,
        now: Instant,
        seq: pilot_wire::record::RecordSeq,
    ) -> Result<(), Refusal> {
        let latest = self.clock.unix(now).saturating_mul(1000).saturating_add(AHEAD_MAX);
        if seq.0 > latest { Err(Refusal::RecordFuture) } else { Ok(()) }
    }
}
