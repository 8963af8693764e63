//! Why a request is refused. The texts are the reference's where it has them (spec/registry.md 2.3 and the tables).

use pilot_crypto::RecordError;
use pilot_wire::{NetworkId, NodeId, registry::Role};
use std::time::Duration;

impl super::Refused {
    pub(super) fn count(&mut self, refusal: &Refusal) {
        *self.reason(refusal) += 1;
    }

    fn reason(&mut self, refusal: &Refusal) -> &mut u64 {
        use Refusal as R;
        if matches!(
            refusal,
            R::RegistrationRate { .. }
                | R::SearchRate { .. }
                | R::Full(_)
                | R::TooManyBeacons(_)
                | R::TooManyPeers(..)
                | R::InboxFull(_)
                | R::ReportsPerDay { .. }
                | R::ReportsFull(_)
                | R::TooManyNetworks
                | R::InvitesFull(_)
                | R::MembershipLimit
                | R::TooManyCards(..)
                | R::DirectoryFull(..)
        ) {
            &mut self.limited
        } else if matches!(
            refusal,
            R::SignatureRequired
                | R::SignatureEncoding(_)
                | R::SignatureWrong
                | R::RegistrationSignature
                | R::RegistrationUnsigned(_)
                | R::ChangeRequired(_)
                | R::SealWrong
                | R::SealRequired(_)
        ) {
            &mut self.unsigned
        } else if matches!(
            refusal,
            R::UnknownNode(_)
                | R::HostnameUnknown(_)
                | R::RequesterUnknown(_)
                | R::NoTrust(..)
                | R::NotPending(_)
                | R::NoScore(_)
                | R::FounderUnknown(_)
                | R::UnknownNetwork(_)
                | R::TargetUnknown(_)
                | R::NotMember(..)
                | R::NoInvite(..)
                | R::NoCard(..)
        ) {
            &mut self.unknown
        } else if matches!(
            refusal,
            R::AdminToken
                | R::NoAdminToken
                | R::Private(_)
                | R::NotParticipant
                | R::BeaconForeign
                | R::ScoreNeedsAdmin
                | R::ListBackbone
                | R::ListForeign(_)
                | R::EnterpriseNeedsAdmin
                | R::NetworkToken(_)
                | R::InviteOnly
                | R::InviterNotMember(..)
                | R::InviterRole(_)
                | R::RoleNeedsNode
                | R::NoRole(..)
                | R::RoleTooLow { .. }
                | R::RoleUnproven(_)
                | R::KeyExpired(..)
        ) {
            &mut self.denied
        } else {
            &mut self.invalid
        }
    }
}

/// A refusal, as the client reads it.
#[expect(missing_docs, reason = "the texts say it")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    // Identity.
    #[error("node {0}: node not found")]
    UnknownNode(NodeId),
    #[error("signature required for authenticated node")]
    SignatureRequired,
    #[error("invalid signature encoding: {0}")]
    SignatureEncoding(String),
    #[error("signature verification failed")]
    SignatureWrong,
    #[error("invalid admin token")]
    AdminToken,
    #[error("network creation is disabled")]
    NoAdminToken,

    // Registration.
    #[error("registration requires public_key")]
    KeyRequired,
    #[error("invalid public key: {0}")]
    KeyInvalid(String),
    #[error("registration: signature verification failed")]
    RegistrationSignature,
    #[error("node {0}: unsigned registration cannot modify a signature-verified key")]
    RegistrationUnsigned(NodeId),
    #[error("rate limited: too many registrations from {from}, try again in {} s", wait.as_secs() + 1)]
    RegistrationRate { from: std::net::IpAddr, wait: Duration },
    #[error("registry full: it cannot take more than {0} nodes")]
    Full(usize),
    #[error("rotate_key requires new_public_key")]
    NewKeyRequired,
    #[error("invalid new_public_key: {0}")]
    NewKeyInvalid(String),
    #[error("new_public_key is already bound to another node")]
    KeyTaken,

    // What nodes sign as a whole.
    #[error("invalid record: {0}")]
    RecordInvalid(RecordError),
    #[error("invalid record: it is of node {0}")]
    RecordOfAnother(NodeId),
    #[error("invalid number: {seq} is not above {last}, the last one; was the clock put back?")]
    RecordOld { seq: u64, last: u64 },
    #[error("invalid number: it is from the future; is the clock wrong?")]
    RecordFuture,
    #[error("invalid change of key: {0}")]
    ChangeInvalid(RecordError),
    #[error("invalid change of key: it is of another node, or to another key")]
    ChangeOfAnother,
    #[error("node {0} is known by what it signed: a change of its key is required that its peers can check")]
    ChangeRequired(NodeId),
    #[error("invalid seal: the signature does not fit the request")]
    SealWrong,
    #[error("invalid seal: its number {seq} is not above {last}, the last one; was it sent twice?")]
    SealOld { seq: u64, last: u64 },
    #[error("node {0} seals what it changes: a seal is required")]
    SealRequired(NodeId),

    // Names and labels.
    #[error("hostname required")]
    HostnameRequired,
    #[error("hostname {0:?} not found")]
    HostnameUnknown(String),
    #[error("rate limited: too many searches for names from {from}, try again in {} s", wait.as_secs() + 1)]
    SearchRate { from: std::net::IpAddr, wait: Duration },
    #[error("invalid hostname: {0}")]
    HostnameInvalid(HostnameFault),
    #[error("hostname {0:?} already in use by node {1}")]
    HostnameTaken(String, NodeId),
    #[error("too many tags (max {0})")]
    TooManyTags(usize),
    #[error("empty tag not allowed")]
    TagEmpty,
    #[error("tag {0:?} too long (max {1} chars)")]
    TagTooLong(String, usize),
    #[error("tag {0:?} must be lowercase alphanumeric with hyphens")]
    TagInvalid(String),

    // Meeting.
    #[error("resolve denied: requester node {0} is not registered")]
    RequesterUnknown(NodeId),
    #[error("resolve denied: node {0} is private (establish mutual trust first)")]
    Private(NodeId),
    #[error("punch denied: requester must be participant")]
    NotParticipant,
    #[error("beacon_id required")]
    BeaconIdRequired,
    #[error("addr required")]
    BeaconAddrRequired,
    #[error(
        "beacon_register is only accepted from this machine or with the admin token; invalid admin token"
    )]
    BeaconForeign,
    #[error("this registry has no mesh of beacons")]
    NoMesh,
    #[error("too many beacons (max {0})")]
    TooManyBeacons(usize),

    // Trust.
    #[error("no trust pair between {0} and {1}")]
    NoTrust(NodeId, NodeId),
    #[error("too many trusted peers of node {0} (max {1})")]
    TooManyPeers(NodeId, usize),
    #[error("handshake request already pending from node {0}")]
    AlreadyPending(NodeId),
    #[error("handshake inbox full for node {0}")]
    InboxFull(NodeId),
    #[error("justification too large: {0} bytes (max {1})")]
    JustificationTooLong(usize, usize),
    #[error("no pending handshake request from node {0}")]
    NotPending(NodeId),
    #[error("the handshake request from node {0} has already been answered otherwise")]
    AlreadyAnswered(NodeId),

    // Tasks and scores.
    #[error("node {0} not found")]
    NoScore(NodeId),
    #[error("update_polo_score requires delta field")]
    DeltaRequired,
    #[error("set_polo_score requires polo_score field")]
    ScoreRequired,
    #[error("{0} out of range (max {1})")]
    ScoreRange(&'static str, i32),
    #[error(
        "scores follow from tasks that both sides have signed for (report_task), or are set by the operator; invalid \
         admin token"
    )]
    ScoreNeedsAdmin,
    #[error("report_task requires task_id, submitter_id, worker_id and an outcome of done or expired")]
    ReportMalformed,
    #[error("a task that a node gives itself does not count")]
    ReportSelf,
    #[error("that is not over yet")]
    ReportEarly,
    #[error("that is over for more than a week")]
    ReportLate,
    #[error("no more than {max} tasks of node {submitter} for node {worker} count per day")]
    ReportsPerDay { submitter: NodeId, worker: NodeId, max: usize },
    #[error("too many tasks of node {0} have been counted this week")]
    ReportsFull(NodeId),

    // Networks.
    #[error("network {0}: network not found")]
    UnknownNetwork(NetworkId),
    #[error("node {0} not registered")]
    FounderUnknown(NodeId),
    #[error("network {0:?} already exists")]
    NetworkExists(String),
    #[error("invalid network name: {0}")]
    NetworkName(HostnameFault),
    #[error("network ID space exhausted (max 65535 networks)")]
    TooManyNetworks,
    #[error("unknown join rule: {0}; it cannot be used, take open, token or invite")]
    JoinRule(String),
    #[error("enterprise feature: invite-only networks require the enterprise flag")]
    InviteNeedsEnterprise,
    #[error("enterprise feature: requires enterprise network")]
    NotEnterprise,
    #[error("cannot {0} the backbone network")]
    Backbone(&'static str),
    #[error("set_network_enterprise requires admin token")]
    EnterpriseNeedsAdmin,
    #[error("invalid token for network {0}")]
    NetworkToken(NetworkId),
    #[error("invite-only networks require invite_to_network + respond_invite flow")]
    InviteOnly,
    #[error("network membership limit reached")]
    MembershipLimit,
    #[error("node {0} already in network {1}")]
    AlreadyMember(NodeId, NetworkId),
    #[error("node {0} is not a member of network {1}")]
    NotMember(NodeId, NetworkId),
    #[error("cannot leave network: owner must transfer ownership first")]
    OwnerStays,
    #[error("listing backbone nodes is not permitted (use lookup with a specific node_id)")]
    ListBackbone,
    #[error("members of network {0} are shown to its members; invalid admin token")]
    ListForeign(NetworkId),
    #[error("cannot invite yourself")]
    InviteSelf,
    #[error("network {0} is not invite-only (rule: {1})")]
    NotInviteOnly(NetworkId, String),
    #[error("inviter {0} is not a member of network {1}")]
    InviterNotMember(NodeId, NetworkId),
    #[error("rbac: inviter {0} has role \"member\", requires owner or admin")]
    InviterRole(NodeId),
    #[error("target node {0}: node not found")]
    TargetUnknown(NodeId),
    #[error("node {0} is already a member of network {1}")]
    InviteMember(NodeId, NetworkId),
    #[error("invite inbox full for node {0}")]
    InvitesFull(NodeId),
    #[error("no pending invite for node {0} to network {1}")]
    NoInvite(NodeId, NetworkId),
    #[error("rbac: node_id required for role-based authorization")]
    RoleNeedsNode,
    #[error("rbac: node {0} has no role in network {1}")]
    NoRole(NodeId, NetworkId),
    #[error("rbac: node {node} has role \"{}\", which is not enough", role_text(*role))]
    RoleTooLow { node: NodeId, role: Role },
    #[error("rbac: node {0} has not proven its identity on this connection; invalid without the admin token")]
    RoleUnproven(NodeId),
    #[error("cannot kick the network owner")]
    KickOwner,
    #[error("cannot promote the owner")]
    PromoteOwner,
    #[error("cannot demote the owner")]
    DemoteOwner,
    #[error("node {0} is already {1}")]
    RoleAlready(NodeId, &'static str),
    #[error("new_owner_id is required")]
    NewOwnerRequired,
    #[error("network {0} has no owner")]
    NoOwner(NetworkId),
    #[error("invalid max_members (must be integer 0-10000)")]
    MaxMembers,
    #[error("cannot set max_members to {0}: network already has {1} members")]
    MaxMembersBelow(u32, usize),
    #[error("too many allowed_ports (max {0})")]
    TooManyPorts(usize),
    #[error("invalid port number in allowed_ports (must be integer 1-65535)")]
    PortInvalid,
    #[error("policy description too long (max {0} chars)")]
    DescriptionTooLong(usize),
    #[error("expr_policy field is required")]
    ExprRequired,
    #[error("expr_policy: {0}")]
    ExprInvalid(String),
    #[error("rules: {0}")]
    RulesInvalid(String),
    #[error("network number {0} cannot be had: numbers below {1} have been given or passed over")]
    NetworkNumber(NetworkId, u16),
    #[error("blueprint: {0}")]
    Blueprint(String),

    // Ends.
    #[error("node {0}: key expired at {1}")]
    KeyExpired(NodeId, String),
    #[error("enterprise feature: key expiry requires enterprise network membership")]
    ExpiryNeedsEnterprise,
    #[error("invalid expires_at: {0:?} is no time in RFC 3339, such as 2027-01-31T12:00:00Z")]
    ExpiryFormat(String),
    #[error("expires_at must be in the future; required")]
    ExpiryPast,
    #[error("invalid expires_at: cannot exceed 10 years")]
    ExpiryFar,

    // The directory.
    #[error("invalid card: {0}")]
    Card(String),
    #[error("invalid card: it is of node {0} in network {1}")]
    CardElsewhere(NodeId, NetworkId),
    #[error(
        "invalid card: its seq {0} is not higher than {1}, which this node has used in this network already"
    )]
    CardOld(u64, u64),
    #[error("too many cards of node {0} (max {1})")]
    TooManyCards(NodeId, usize),
    #[error("the directory of network {0} is full: too many cards (max {1})")]
    DirectoryFull(NetworkId, usize),
    #[error("card {0:?} of node {1} in network {2} not found")]
    NoCard(String, NodeId, NetworkId),
    #[error("search too long (max {0} bytes)")]
    SearchTooLong(usize),
}

/// What is wrong with a name.
#[expect(missing_docs, reason = "the texts say it")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameFault {
    #[error("hostname too long (max {0} chars)")]
    TooLong(usize),
    #[error("hostname must be lowercase alphanumeric with hyphens, start/end with alphanumeric")]
    Alphabet,
    #[error("hostname {0:?} is reserved")]
    Reserved(String),
    #[error("hostname {0:?} already in use")]
    Taken(String),
}

pub(super) fn role_text(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}
