//! Who seals which request: node and registry go by the same list.

use super::Request;
use crate::{NodeId, PublicKey};

/// Who changes something of its own with a request, and therefore seals it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealer {
    /// The node with this key; it may not have a number yet.
    Key(PublicKey),
    /// This node.
    Node(NodeId),
}

impl Sealer {
    /// `None` for requests that change nothing of a node, carry a signed statement with a number of its own, or are for
    /// operators and connections on which an identity was proven.
    #[must_use]
    pub fn of(request: &Request) -> Option<Self> {
        let node = match request {
            Request::Register(request) => return request.public_key.given().copied().map(Self::Key),
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
        Some(Self::Node(node))
    }
}
