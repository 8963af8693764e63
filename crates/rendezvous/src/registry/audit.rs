//! The audit log: who changed networks, memberships, roles, the life of keys and the directory (spec/registry.md 12).
//!
//! What every node does many times a day is not in it: a ring of a thousand entries would hold nothing else.

use super::{Key, Refusal, State, record};
use crate::clock::rfc3339;
use pilot_wire::{
    NetworkId, NodeId,
    registry::{AuditEntry, AuditQuery, Request, Response},
};
use std::{collections::VecDeque, time::Instant};

/// Entries kept; each new one takes the place of the oldest.
const ENTRIES_MAX: usize = 1000;
/// Entries told if nobody says how many.
const ENTRIES_DEFAULT: u32 = 100;
/// Longest details, in bytes.
const DETAILS_MAX: usize = 512;

/// The ring, oldest first.
#[derive(Debug, Default)]
pub(super) struct Log {
    entries: VecDeque<record::Audit>,
}

impl Log {
    /// Entries may come in any order.
    pub(super) fn restore(&mut self, entry: record::Audit) {
        let at = self.entries.partition_point(|other| other.seq < entry.seq);
        self.entries.insert(at, entry);
    }

    /// Another entry takes the place, or none.
    pub(super) fn forget(&mut self, wanted: u32) {
        self.entries.retain(|entry| place(entry.seq) != wanted);
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Key> {
        self.entries.iter().map(|entry| Key::Audit(place(entry.seq)))
    }

    fn push(&mut self, entry: impl FnOnce(u64) -> record::Audit) -> u32 {
        let seq = self.entries.back().map_or(0, |last| last.seq + 1);
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(entry(seq));
        place(seq)
    }

    pub(super) fn at(&self, wanted: u32) -> Option<&record::Audit> {
        self.entries.iter().rev().find(|entry| place(entry.seq) == wanted)
    }
}

fn place(seq: u64) -> u32 {
    // Less than a thousand.
    u32::try_from(seq % ENTRIES_MAX as u64).unwrap_or_default()
}

/// What is to be written once it is done.
#[derive(Debug)]
pub(super) struct Draft {
    action: &'static str,
    network: Option<NetworkId>,
    node: Option<NodeId>,
    details: String,
}

impl Draft {
    fn new(action: &'static str, network: NetworkId, node: NodeId, details: String) -> Self {
        let network = Some(network).filter(|network| *network != NetworkId::BACKBONE);
        let node = Some(node).filter(|node| *node != NodeId::UNSET);
        Self { action, network, node, details }
    }

    /// What to write about a request, if it is one of those that are written about.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "requests that change nothing of this kind are not audited"
    )]
    pub(super) fn of(request: &Request) -> Option<Self> {
        Some(match request {
            Request::CreateNetwork(r) => Self::new(
                "network.created",
                r.network_id,
                r.node_id,
                format!(
                    "name={}, join_rule={}, creator_node_id={}, enterprise={}, managed={}",
                    r.name,
                    if r.join_rule.is_empty() { "open" } else { &r.join_rule },
                    r.node_id,
                    r.enterprise,
                    !r.rules.is_missing()
                ),
            ),
            Request::DeleteNetwork(r) => Self::new("network.deleted", r.network_id, r.node_id, String::new()),
            Request::RenameNetwork(r) => {
                Self::new("network.renamed", r.network_id, r.node_id, format!("name={}", r.name))
            }
            Request::SetNetworkEnterprise(r) => Self::new(
                "network.enterprise_changed",
                r.network_id,
                NodeId::UNSET,
                format!("enterprise={}", r.enterprise),
            ),
            Request::JoinNetwork(r) => Self::new("network.joined", r.network_id, r.node_id, String::new()),
            Request::LeaveNetwork(r) => Self::new("network.left", r.network_id, r.node_id, String::new()),
            Request::InviteToNetwork(r) => Self::new(
                "invite.created",
                r.network_id,
                r.inviter_id,
                format!("target_node={}", r.target_node_id),
            ),
            Request::RespondInvite(r) => {
                Self::new("invite.responded", r.network_id, r.node_id, format!("accepted={}", r.accept))
            }
            Request::KickMember(r) => Self::of_member("member.kicked", r),
            Request::PromoteMember(r) => Self::of_member("member.promoted", r),
            Request::DemoteMember(r) => Self::of_member("member.demoted", r),
            Request::TransferOwnership(r) => Self::new(
                "network.ownership_transferred",
                r.network_id,
                r.node_id,
                format!("new_owner={}", r.new_owner_id),
            ),
            Request::SetMemberTags(r) => Self::new(
                "member_tags.changed",
                r.network_id,
                r.node_id,
                format!("target_node={}, tags=[{}]", r.target_node_id, r.tags.join(" ")),
            ),
            Request::SetMemberExpiry(r) => Self::new(
                "member.expiry_set",
                r.network_id,
                r.node_id,
                format!("target_node={}, expires_at={}", r.target_node_id, r.expires_at),
            ),
            Request::SetNetworkPolicy(r) => {
                Self::new("network.policy_changed", r.network_id, r.node_id, String::new())
            }
            Request::SetExprPolicy(r) => {
                let size = r.expr_policy.given().map_or(0, |policy| policy.to_string().len());
                Self::new("network.expr_policy_set", r.network_id, r.node_id, format!("size={size}"))
            }
            Request::ProvisionNetwork(_) => {
                Self::new("network.provisioned", NetworkId::BACKBONE, NodeId::UNSET, String::new())
            }
            Request::SetKeyExpiry(r) if matches!(r.expires_at.as_str(), "" | "never") => {
                Self::new("key.expiry_cleared", NetworkId::BACKBONE, r.node_id, String::new())
            }
            Request::SetKeyExpiry(r) => Self::new(
                "key.expiry_set",
                NetworkId::BACKBONE,
                r.node_id,
                format!("expires_at={}", r.expires_at),
            ),
            Request::RotateKey(r) => Self::new("key.rotated", NetworkId::BACKBONE, r.node_id, String::new()),
            Request::PublishCard(r) => Self::new("card.published", r.network_id, r.node_id, String::new()),
            Request::RemoveCard(r) => {
                Self::new("card.removed", r.network_id, r.node_id, format!("name={}", r.name))
            }
            _ => return None,
        })
    }

    fn of_member(action: &'static str, request: &pilot_wire::registry::MemberQuery) -> Self {
        let details = format!("target_node={}", request.target_node_id);
        Self::new(action, request.network_id, request.node_id, details)
    }

    /// What only the answer says.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others say nothing new")]
    fn complete(mut self, response: &Response) -> Self {
        match response {
            Response::CreateNetwork { network_id, .. } => self.network = Some(*network_id),
            Response::ProvisionNetwork { network_id, name, created, .. } => {
                self.network = Some(*network_id);
                self.details = format!("name={name}, created={created}");
            }
            Response::PublishCard { name, .. } => self.details = format!("name={name}"),
            _ => {}
        }
        self
    }
}

impl State {
    /// It is done, and what it was is written down.
    pub(super) fn audit(&mut self, now: Instant, draft: Draft, response: &Response) {
        let draft = draft.complete(response);
        self.audit_event(now, draft);
    }

    /// Something happened without a request.
    pub(super) fn audit_own(
        &mut self,
        now: Instant,
        action: &'static str,
        network: NetworkId,
        node: NodeId,
        details: String,
    ) {
        self.audit_event(now, Draft::new(action, network, node, details));
    }

    fn audit_event(&mut self, now: Instant, draft: Draft) {
        let at = self.clock.unix(now);
        let Draft { action, network, node, mut details } = draft;
        details.truncate(details.floor_char_boundary(DETAILS_MAX));
        let entry = |seq| record::Audit { seq, at, action: action.to_owned(), network, node, details };
        let place = self.log.push(entry);
        self.touch(Key::Audit(place));
    }

    pub(super) fn get_audit_log(&self, query: &AuditQuery, token: &str) -> Result<Response, Refusal> {
        self.require_admin(token)?;
        let limit = if query.limit == 0 { ENTRIES_DEFAULT } else { query.limit } as usize;
        let wanted = |entry: &&record::Audit| {
            query.network_id == NetworkId::BACKBONE || entry.network == Some(query.network_id)
        };
        let entries = self.log.entries.iter().rev().filter(wanted).take(limit.min(ENTRIES_MAX));
        let entries = entries.map(|entry| AuditEntry {
            timestamp: rfc3339(entry.at),
            action: entry.action.clone(),
            network_id: entry.network,
            node_id: entry.node,
            details: entry.details.clone(),
        });
        Ok(Response::GetAuditLog { entries: entries.collect() })
    }
}
