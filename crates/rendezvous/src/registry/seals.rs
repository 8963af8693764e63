//! Seals of requests: whoever has once sealed what it changes must go on so, and no seal counts twice.

use super::{Key, Refusal, State};
use pilot_crypto::verify;
use pilot_wire::{
    NodeId, PublicKey,
    registry::{Request, Sealed},
};
use std::time::Instant;

impl State {
    /// Checks a seal, remembers its number, and refuses a change without one by a node that seals. The short
    /// signatures of the protocol are the same for ever and cover no values, so who has seen one could repeat it
    /// (spec/registry.md 23 S5).
    pub(super) fn check_seal(
        &mut self,
        now: Instant,
        request: &Request,
        sealed: Option<&Sealed>,
        token: &str,
    ) -> Result<(), Refusal> {
        let Some((node, key)) = self.actor(request) else { return Ok(()) };
        let last = node.and_then(|node| self.nodes.get(&node)).and_then(|node| node.sealed);
        let Some(sealed) = sealed else {
            return match node {
                Some(node) if last.is_some() && !self.is_admin(token) => Err(Refusal::SealRequired(node)),
                Some(_) | None => Ok(()),
            };
        };
        let seq = sealed.seal.seq;
        if !verify(&key, &sealed.bytes, &sealed.seal.signature) {
            return Err(Refusal::SealWrong);
        }
        if let Some(last) = last
            && seq <= last
        {
            return Err(Refusal::SealOld { seq: seq.0, last: last.0 });
        }
        self.check_number(now, seq)?;
        // A key that is new is sealed from its next request on: it has no number yet.
        if let Some(node) = node.and_then(|id| Some((id, self.nodes.get_mut(&id)?))) {
            let (id, node) = node;
            node.sealed = Some(seq);
            self.touch(Key::Node(id));
        }
        Ok(())
    }

    /// Who changes something of its own with this request, and by which key it is known.
    fn actor(&self, request: &Request) -> Option<(Option<NodeId>, PublicKey)> {
        let id = match request {
            Request::Register(request) => {
                let key = *request.public_key.given()?;
                return Some((self.by_key.get(&key).copied(), key));
            }
            // Signed by a recovery key, perhaps, and with a number of its own.
            Request::RotateKey(request) if !request.change.is_empty() => return None,
            Request::RotateKey(request) => request.node_id,
            Request::Deregister(request) => request.node_id,
            Request::SetVisibility(request) => request.node_id,
            Request::SetHostname(request) => request.node_id,
            Request::SetTags(request) => request.node_id,
            Request::SetTaskExec(request) => request.node_id,
            Request::ReportTrust(request) | Request::RevokeTrust(request) => request.node_id,
            Request::RequestHandshake(request) => request.from_node_id,
            Request::RespondHandshake(request) => request.node_id,
            Request::JoinNetwork(request) => request.node_id,
            Request::LeaveNetwork(request) => request.node_id,
            Request::InviteToNetwork(request) => request.inviter_id,
            Request::RespondInvite(request) => request.node_id,
            Request::SetKeyExpiry(request) => request.node_id,
            // They change nothing, carry signed statements of their own, or are for operators and proven connections.
            Request::Heartbeat(_)
            | Request::Lookup(_)
            | Request::Resolve(_)
            | Request::ResolveHostname(_)
            | Request::GetPoloScore(_)
            | Request::UpdatePoloScore(_)
            | Request::SetPoloScore(_)
            | Request::ReportTask(_)
            | Request::PublishRecord(_)
            | Request::CheckTrust(_)
            | Request::PollHandshakes(_)
            | Request::AwaitNotices(_)
            | Request::Punch(_)
            | Request::BeaconRegister(_)
            | Request::BeaconList {}
            | Request::BeaconLink(_)
            | Request::ListNetworks {}
            | Request::ListNodes(_)
            | Request::CreateNetwork(_)
            | Request::DeleteNetwork(_)
            | Request::RenameNetwork(_)
            | Request::SetNetworkEnterprise(_)
            | Request::PollInvites(_)
            | Request::KickMember(_)
            | Request::PromoteMember(_)
            | Request::DemoteMember(_)
            | Request::TransferOwnership(_)
            | Request::GetMemberRole(_)
            | Request::SetMemberTags(_)
            | Request::GetMemberTags(_)
            | Request::SetNetworkPolicy(_)
            | Request::GetNetworkPolicy(_)
            | Request::SetExprPolicy(_)
            | Request::GetExprPolicy(_)
            | Request::OwnNetworks(_)
            | Request::ListMembers(_)
            | Request::SetMemberExpiry(_)
            | Request::GetKeyInfo(_)
            | Request::GetAuditLog(_)
            | Request::ProvisionNetwork(_)
            | Request::GetProvisionStatus {}
            | Request::PublishCard(_)
            | Request::RemoveCard(_)
            | Request::ListCards(_) => return None,
        };
        Some((Some(id), self.nodes.get(&id)?.key))
    }
}
