//! What nodes and operators ask of the registry.

mod beacon;
mod handshake;
mod network;
mod node;
mod task;

pub use beacon::{BeaconLink, BeaconRegister};
pub use handshake::{AwaitNotices, Handshake, HandshakeAnswer, Pair, Punch};
pub use network::{
    CreateNetwork, ExprPolicyUpdate, Invite, InviteAnswer, JoinNetwork, MemberQuery, MemberTagsUpdate,
    Membership, NetworkQuery, NetworkUpdate, PolicyUpdate, SetEnterprise, TransferOwnership,
};
pub use node::{
    PublishRecord, Register, Resolve, ResolveHostname, RotateKey, SetHostname, SetTags, SetTaskExec,
    SetVisibility, Signed,
};
pub use task::{ReportTask, ScoreUpdate};

use super::{
    AuditQuery, CardQuery, MembersQuery, Provision, PublishCard, RemoveCard, Sent, SetKeyExpiry,
    SetMemberExpiry,
    card::signed_card,
    lenient,
    seal::{Seal, seal_of},
    signed_text,
};
use crate::{NetworkId, Signature};
use serde::{Deserialize, Serialize};

/// A request with the operator's token, which may stand in any of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// What is asked.
    pub request: Request,
    /// The token of the registry's operator or of a network's; empty for none.
    pub admin_token: String,
    /// The node's signature over the whole request, as far as it was read; a client seals with
    /// [`seal`](super::seal::seal) what [`to_json`](Self::to_json) gives.
    pub seal: Option<Sealed>,
    /// The reply is to be attested by the registry.
    pub attest: bool,
}

/// A request's seal, to be checked by whoever knows the node's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The seal.
    pub seal: Seal,
    /// What its signature must be over.
    pub bytes: Vec<u8>,
}

/// Why a frame is no request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Not a JSON object. The reference closes the connection.
    #[error("not a JSON object: {0}")]
    Malformed(serde_json::Error),
    /// A request this registry does not know; answered with an error, and the connection goes on.
    #[error("unknown message type: \"{0}\"")]
    UnknownType(String),
    /// A request of the reference that this registry will not carry out, and says so.
    #[error(
        "{0}: unsupported, this registry has no identity provider, no directory sync, no webhook of its own and no audit \
         export; invalid here"
    )]
    Unsupported(String),
    /// Known, but unreadable, for example with a field that stands twice.
    #[error("invalid request: {0}")]
    Invalid(serde_json::Error),
}

impl Envelope {
    /// Reads the content of a frame.
    ///
    /// # Errors
    /// [`RequestError`], of which only `Malformed` ends the connection.
    pub fn parse(json: &[u8]) -> Result<Self, RequestError> {
        Self::parse_kind(json).map(|(_, envelope)| envelope)
    }

    /// Reads the content of a frame, and says of what kind the request is.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_kind(json: &[u8]) -> Result<(Kind, Self), RequestError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Head {
            #[serde(rename = "type", deserialize_with = "lenient::text")]
            kind: String,
            #[serde(deserialize_with = "lenient::text")]
            admin_token: String,
            #[serde(deserialize_with = "lenient::flag")]
            attest: bool,
            seal: Option<serde::de::IgnoredAny>,
        }
        // An array would pass for the fields in their order.
        let is_array = json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        let head: Option<Head> = match is_array {
            false => serde_json::from_slice(json).map_err(RequestError::Malformed)?,
            true => return Err(RequestError::Malformed(serde::de::Error::custom("an array"))),
        };
        let head = head.unwrap_or_default();
        let Some(kind) = Kind::named(&head.kind) else {
            return Err(match UNSUPPORTED.contains(&head.kind.as_str()) {
                true => RequestError::Unsupported(head.kind),
                false => RequestError::UnknownType(head.kind),
            });
        };
        let request = serde_json::from_slice(json).map_err(RequestError::Invalid)?;
        let sealed = match head.seal {
            Some(_) => seal_of(json).map_err(RequestError::Invalid)?,
            None => None,
        };
        let seal = sealed.map(|(seal, bytes)| Sealed { seal, bytes });
        Ok((kind, Self { request, admin_token: head.admin_token, seal, attest: head.attest }))
    }

    /// The content of a frame, without a seal.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Flat<'a> {
            #[serde(flatten)]
            request: &'a Request,
            #[serde(skip_serializing_if = "str::is_empty")]
            admin_token: &'a str,
            #[serde(skip_serializing_if = "is_false")]
            attest: bool,
        }
        let flat = Flat { request: &self.request, admin_token: &self.admin_token, attest: self.attest };
        #[expect(clippy::expect_used, reason = "no map has keys other than text, and no number is infinite")]
        serde_json::to_vec(&flat).expect("requests are plain JSON")
    }
}

impl Envelope {
    /// A request with the operator's token.
    #[must_use]
    pub fn with_token(request: Request, admin_token: impl Into<String>) -> Self {
        Self { admin_token: admin_token.into(), ..Self::from(request) }
    }
}

impl From<Request> for Envelope {
    fn from(request: Request) -> Self {
        Self { request, admin_token: String::new(), seal: None, attest: false }
    }
}

/// The kind of a request, for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(u8);

impl Kind {
    /// All there are, by [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        (0..=u8::MAX).take(TYPES.len()).map(Self)
    }

    /// The kind with this `type`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }

    /// The `type` of such requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        TYPES.get(self.index()).copied().unwrap_or_default()
    }

    /// Counts from 0.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The `type` of every variant of [`Request`]. A test keeps the two equal.
const TYPES: &[&str] = &[
    "register",
    "heartbeat",
    "deregister",
    "lookup",
    "resolve",
    "resolve_hostname",
    "set_visibility",
    "set_hostname",
    "set_tags",
    "set_task_exec",
    "get_polo_score",
    "update_polo_score",
    "set_polo_score",
    "report_task",
    "publish_record",
    "rotate_key",
    "report_trust",
    "revoke_trust",
    "check_trust",
    "request_handshake",
    "poll_handshakes",
    "respond_handshake",
    "await_notices",
    "punch",
    "beacon_register",
    "beacon_list",
    "beacon_link",
    "list_networks",
    "list_nodes",
    "create_network",
    "delete_network",
    "rename_network",
    "set_network_enterprise",
    "join_network",
    "leave_network",
    "invite_to_network",
    "poll_invites",
    "respond_invite",
    "kick_member",
    "promote_member",
    "demote_member",
    "transfer_ownership",
    "get_member_role",
    "set_member_tags",
    "get_member_tags",
    "set_network_policy",
    "get_network_policy",
    "set_expr_policy",
    "get_expr_policy",
    "own_networks",
    "list_members",
    "set_member_expiry",
    "set_key_expiry",
    "get_key_info",
    "get_audit_log",
    "provision_network",
    "get_provision_status",
    "publish_card",
    "remove_card",
    "list_cards",
];

/// Requests of the reference for what this registry leaves to others: identity providers, webhooks, audit export.
const UNSUPPORTED: &[&str] = &[
    "set_webhook",
    "get_webhook",
    "get_webhook_dlq",
    "set_identity_webhook",
    "set_external_id",
    "get_identity",
    "set_audit_export",
    "get_audit_export",
    "set_idp_config",
    "get_idp_config",
    "directory_sync",
    "directory_status",
    "validate_token",
];

/// A request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// Binds a key to a node id, and tells where the node is.
    Register(Register),
    /// Still alive.
    Heartbeat(Signed),
    /// Goes away.
    Deregister(Signed),
    /// The public record of a node.
    Lookup(Signed),
    /// Where a node is reached.
    Resolve(Resolve),
    /// Which node has a name.
    ResolveHostname(ResolveHostname),
    /// Who may see the node.
    SetVisibility(SetVisibility),
    /// Names the node.
    SetHostname(SetHostname),
    /// Labels the node.
    SetTags(SetTags),
    /// Says whether the node takes tasks.
    SetTaskExec(SetTaskExec),
    /// The score of a node.
    GetPoloScore(Signed),
    /// Changes a score; for the operator.
    UpdatePoloScore(ScoreUpdate),
    /// Sets a score; for the operator.
    SetPoloScore(ScoreUpdate),
    /// Our extension: how a task between two nodes ended, with the signatures of both, which is what changes scores.
    ReportTask(ReportTask),
    /// Our extension: what the node says of itself, signed, for the registry to pass on.
    PublishRecord(PublishRecord),
    /// Gives the node another key.
    RotateKey(RotateKey),
    /// "I trust this peer."
    ReportTrust(Pair),
    /// "I trust this peer no longer."
    RevokeTrust(Pair),
    /// Do the two trust each other?
    CheckTrust(Pair),
    /// Leaves a request for trust in a peer's inbox.
    RequestHandshake(Handshake),
    /// Empties the own inbox.
    PollHandshakes(Signed),
    /// Answers a request for trust.
    RespondHandshake(HandshakeAnswer),
    /// Our extension: is answered as soon as something waits in the inbox, or when the time is over. Send it on a
    /// connection of its own. Other registries answer with an error.
    AwaitNotices(AwaitNotices),
    /// Both sides' addresses, for hole punching.
    Punch(Punch),
    /// Announces a beacon.
    BeaconRegister(BeaconRegister),
    /// The beacons there are.
    BeaconList {},
    /// Everything that a beacon of ours wants of its registry. Ours.
    BeaconLink(BeaconLink),
    /// The networks there are.
    ListNetworks {},
    /// The members of a network.
    ListNodes(NetworkQuery),
    /// Creates a network.
    CreateNetwork(CreateNetwork),
    /// Removes a network.
    DeleteNetwork(NetworkUpdate),
    /// Renames a network.
    RenameNetwork(NetworkUpdate),
    /// Switches a network's enterprise features.
    SetNetworkEnterprise(SetEnterprise),
    /// Enters a network.
    JoinNetwork(JoinNetwork),
    /// Leaves a network.
    LeaveNetwork(Membership),
    /// Invites a node into a network.
    InviteToNetwork(Invite),
    /// The own invitations.
    PollInvites(Signed),
    /// Answers an invitation.
    RespondInvite(InviteAnswer),
    /// Removes a member.
    KickMember(MemberQuery),
    /// Makes a member an admin.
    PromoteMember(MemberQuery),
    /// Makes an admin a member.
    DemoteMember(MemberQuery),
    /// Hands a network over.
    TransferOwnership(TransferOwnership),
    /// The role of a member.
    GetMemberRole(MemberQuery),
    /// Labels a member within a network.
    SetMemberTags(MemberTagsUpdate),
    /// The labels of a member, or of all.
    GetMemberTags(MemberQuery),
    /// Limits a network.
    SetNetworkPolicy(PolicyUpdate),
    /// The limits of a network.
    GetNetworkPolicy(NetworkQuery),
    /// Gives a network an expression policy, which nodes carry out.
    SetExprPolicy(ExprPolicyUpdate),
    /// The expression policy of a network.
    GetExprPolicy(NetworkQuery),
    /// Our extension: the networks that a node is in.
    OwnNetworks(Signed),
    /// Our extension: the members of a network with their keys, or what changed since.
    ListMembers(MembersQuery),
    /// Our extension: until when a node is a member.
    SetMemberExpiry(SetMemberExpiry),
    /// Until when the key of a node is valid.
    SetKeyExpiry(SetKeyExpiry),
    /// The life of a node's key.
    GetKeyInfo(Signed),
    /// What was changed, by whom; for the operator.
    GetAuditLog(AuditQuery),
    /// Makes a network as a blueprint says; for the operator.
    ProvisionNetwork(Provision),
    /// The networks as provisioning sees them; for the operator.
    GetProvisionStatus {},
    /// Our extension: puts a card into the directory of a network.
    PublishCard(PublishCard),
    /// Our extension: takes a card out.
    RemoveCard(RemoveCard),
    /// Our extension: searches the directory.
    ListCards(CardQuery),
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_backbone(network: &NetworkId) -> bool {
    *network == NetworkId::BACKBONE
}

impl Request {
    /// The text that must be signed for this request, if it can carry a signature.
    #[must_use]
    pub fn signed_text(&self) -> Option<String> {
        match self {
            Self::Register(r) => r.public_key.given().map(|key| signed_text::register(&r.listen_addr, key)),
            Self::Heartbeat(r) => Some(signed_text::heartbeat(r.node_id)),
            Self::Deregister(r) => Some(signed_text::deregister(r.node_id)),
            Self::Resolve(r) => Some(signed_text::resolve(r.requester_id, r.node_id)),
            Self::SetVisibility(r) => Some(signed_text::set_visibility(r.node_id)),
            Self::SetHostname(r) => Some(signed_text::set_hostname(r.node_id)),
            Self::SetTags(r) => Some(signed_text::set_tags(r.node_id)),
            Self::SetTaskExec(r) => Some(signed_text::set_task_exec(r.node_id)),
            Self::RotateKey(r) => r.new_public_key.given().map(|key| signed_text::rotate_key(r.node_id, key)),
            Self::ReportTrust(r) => Some(signed_text::report_trust(r.node_id, r.peer_id)),
            Self::RevokeTrust(r) => Some(signed_text::revoke_trust(r.node_id, r.peer_id)),
            Self::RequestHandshake(r) => Some(signed_text::request_handshake(r.from_node_id, r.to_node_id)),
            Self::PollHandshakes(r) => Some(signed_text::poll_handshakes(r.node_id)),
            Self::RespondHandshake(r) => Some(signed_text::respond_handshake(r.node_id, r.peer_id)),
            Self::AwaitNotices(r) => Some(signed_text::await_notices(r.node_id)),
            Self::Punch(r) => Some(signed_text::punch(r.node_a, r.node_b)),
            Self::JoinNetwork(r) => Some(signed_text::join_network(r.node_id, r.network_id)),
            Self::LeaveNetwork(r) => Some(signed_text::leave_network(r.node_id, r.network_id)),
            Self::InviteToNetwork(r) => {
                Some(signed_text::invite(r.inviter_id, r.network_id, r.target_node_id))
            }
            Self::PollInvites(r) => Some(signed_text::poll_invites(r.node_id)),
            Self::RespondInvite(r) => Some(signed_text::respond_invite(r.node_id, r.network_id)),
            Self::OwnNetworks(r) => Some(signed_text::own_networks(r.node_id)),
            Self::ListMembers(r) => Some(signed_text::list_members(r.node_id, r.network_id)),
            Self::SetKeyExpiry(r) => Some(signed_text::set_key_expiry(r.node_id)),
            Self::PublishCard(r) => Some(signed_card(&r.card)),
            Self::RemoveCard(r) => Some(signed_text::remove_card(r.node_id, r.network_id, &r.name, r.seq)),
            Self::Lookup(_)
            | Self::GetPoloScore(_)
            | Self::UpdatePoloScore(_)
            | Self::SetPoloScore(_)
            | Self::ReportTask(_)
            | Self::PublishRecord(_)
            | Self::ResolveHostname(_)
            | Self::CheckTrust(_)
            | Self::BeaconRegister(_)
            | Self::BeaconList {}
            | Self::BeaconLink(_)
            | Self::ListNetworks {}
            | Self::ListNodes(_)
            | Self::CreateNetwork(_)
            | Self::DeleteNetwork(_)
            | Self::RenameNetwork(_)
            | Self::SetNetworkEnterprise(_)
            | Self::KickMember(_)
            | Self::PromoteMember(_)
            | Self::DemoteMember(_)
            | Self::TransferOwnership(_)
            | Self::GetMemberRole(_)
            | Self::SetMemberTags(_)
            | Self::GetMemberTags(_)
            | Self::SetNetworkPolicy(_)
            | Self::GetNetworkPolicy(_)
            | Self::SetExprPolicy(_)
            | Self::GetExprPolicy(_)
            | Self::SetMemberExpiry(_)
            | Self::GetKeyInfo(_)
            | Self::GetAuditLog(_)
            | Self::ProvisionNetwork(_)
            | Self::GetProvisionStatus {}
            | Self::ListCards(_) => None,
        }
    }

    /// The request with its signature; unchanged if it carries none.
    ///
    /// ```
    /// # use pilot_wire::{NodeId, Signature, registry::{Request, Signed}};
    /// # let identity_sign = |_: &[u8]| Signature::from_bytes([0; 64]);
    /// let beat = Request::Heartbeat(Signed { node_id: NodeId(7), ..Signed::default() });
    /// let beat = beat.sign_with(identity_sign);
    /// ```
    #[must_use]
    pub fn sign_with(mut self, sign: impl FnOnce(&[u8]) -> Signature) -> Self {
        if let Some(text) = self.signed_text()
            && let Some(field) = self.signature_mut()
        {
            *field = Sent::Given(sign(text.as_bytes()));
        }
        self
    }

    /// The signature, if the request can carry one.
    #[must_use]
    pub fn signature_mut(&mut self) -> Option<&mut Sent<Signature>> {
        match self {
            Self::Register(r) => Some(&mut r.signature),
            Self::Heartbeat(r) | Self::Deregister(r) | Self::PollHandshakes(r) | Self::PollInvites(r) => {
                Some(&mut r.signature)
            }
            Self::Resolve(r) => Some(&mut r.signature),
            Self::SetVisibility(r) => Some(&mut r.signature),
            Self::SetHostname(r) => Some(&mut r.signature),
            Self::SetTags(r) => Some(&mut r.signature),
            Self::SetTaskExec(r) => Some(&mut r.signature),
            Self::RotateKey(r) => Some(&mut r.signature),
            Self::ReportTrust(r) | Self::RevokeTrust(r) => Some(&mut r.signature),
            Self::RequestHandshake(r) => Some(&mut r.signature),
            Self::RespondHandshake(r) => Some(&mut r.signature),
            Self::AwaitNotices(r) => Some(&mut r.signature),
            Self::Punch(r) => Some(&mut r.signature),
            Self::JoinNetwork(r) => Some(&mut r.signature),
            Self::LeaveNetwork(r) => Some(&mut r.signature),
            Self::InviteToNetwork(r) => Some(&mut r.signature),
            Self::RespondInvite(r) => Some(&mut r.signature),
            Self::OwnNetworks(r) => Some(&mut r.signature),
            Self::ListMembers(r) => Some(&mut r.signature),
            Self::SetKeyExpiry(r) => Some(&mut r.signature),
            Self::PublishCard(r) => Some(&mut r.signature),
            Self::RemoveCard(r) => Some(&mut r.signature),
            Self::Lookup(_)
            | Self::GetPoloScore(_)
            | Self::UpdatePoloScore(_)
            | Self::SetPoloScore(_)
            | Self::ReportTask(_)
            | Self::PublishRecord(_)
            | Self::ResolveHostname(_)
            | Self::CheckTrust(_)
            | Self::BeaconRegister(_)
            | Self::BeaconList {}
            | Self::BeaconLink(_)
            | Self::ListNetworks {}
            | Self::ListNodes(_)
            | Self::CreateNetwork(_)
            | Self::DeleteNetwork(_)
            | Self::RenameNetwork(_)
            | Self::SetNetworkEnterprise(_)
            | Self::KickMember(_)
            | Self::PromoteMember(_)
            | Self::DemoteMember(_)
            | Self::TransferOwnership(_)
            | Self::GetMemberRole(_)
            | Self::SetMemberTags(_)
            | Self::GetMemberTags(_)
            | Self::SetNetworkPolicy(_)
            | Self::GetNetworkPolicy(_)
            | Self::SetExprPolicy(_)
            | Self::GetExprPolicy(_)
            | Self::SetMemberExpiry(_)
            | Self::GetKeyInfo(_)
            | Self::GetAuditLog(_)
            | Self::ProvisionNetwork(_)
            | Self::GetProvisionStatus {}
            | Self::ListCards(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_of_the_list_can_be_read_and_no_other() {
        for kind in TYPES {
            let json = format!("{{\"type\":\"{kind}\"}}");
            let envelope = Envelope::parse(json.as_bytes()).unwrap();
            let back = String::from_utf8(envelope.to_json()).unwrap();
            assert!(back.starts_with(&format!("{{\"type\":\"{kind}\"")), "{back}");
        }
        let error = serde_json::from_str::<Request>("{\"type\":\"nonsense\"}").unwrap_err().to_string();
        assert_eq!(error.matches('`').count(), 2 * (TYPES.len() + 1), "{error}");
    }

    #[test]
    fn fields_are_read_as_leniently_as_the_reference_reads_them() {
        let read = |node: &str| match Envelope::parse(
            format!("{{\"type\":\"lookup\",\"node_id\":{node},\"x\":[{{}}]}}").as_bytes(),
        ) {
            Ok(Envelope { request: Request::Lookup(lookup), .. }) => lookup.node_id.0,
            other => panic!("{other:?}"),
        };
        let cases = [
            ("7", 7),
            ("1.9", 1),
            ("-1", 0),
            ("\"1\"", 0),
            ("true", 0),
            ("null", 0),
            ("4294967296", 0),
            ("{}", 0),
        ];
        for (json, id) in cases {
            assert_eq!(read(json), id, "{json}");
        }
    }

    #[test]
    fn what_is_no_object_ends_the_connection_but_null_does_not() {
        for json in ["[1,2]", "{bad", "", "7", "\"text\"", " []"] {
            assert!(matches!(Envelope::parse(json.as_bytes()), Err(RequestError::Malformed(_))), "{json}");
        }
        for json in ["null", "{}", "{\"type\":7}"] {
            assert!(
                matches!(Envelope::parse(json.as_bytes()), Err(RequestError::UnknownType(kind)) if kind.is_empty())
            );
        }
    }
}
