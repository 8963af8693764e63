//! Requests about networks (spec/registry.md 12, as far as nodes and the command line of 1.18.0 ask).

use super::{
    ConnId, Key, Refusal, State,
    names::{check_network_name, check_tags},
    record::{Invite, JoinRule, Member, Network, Policy, Presence},
};
use crate::clock::rfc3339;
use pilot_crypto::Sha256;
use pilot_wire::{
    Addr, NetworkId, NodeId,
    registry::{
        self as wire, CreateNetwork, ExprPolicyUpdate, InviteNotice, JoinNetwork, JoinedNetwork, ListedNode,
        MemberQuery, MemberRole, MemberTags, MemberTagsUpdate, NetworkPolicy, NetworkUpdate, PolicyUpdate,
        Response, Role, Sent, SetEnterprise, TransferOwnership,
    },
};
use serde_json::Value;
use std::{collections::BTreeMap, time::Instant};

/// Most members of a network.
const MEMBERS_MAX: usize = 10_000;
/// Most networks of a node.
const MEMBERSHIPS_MAX: usize = 1000;
/// Invitations that wait for a node, and for how long they hold, in seconds.
const INVITES_MAX: usize = 100;
const INVITE_LIFETIME: u64 = 30 * 86_400;
/// Limits on limits.
const PORTS_MAX: usize = 100;
const DESCRIPTION_MAX: usize = 256;
/// Bytes of a list of members, which must fit a frame, and of a row without its labels, at most.
const LIST_MAX: usize = 1000 * 1024;
const ROW: usize = 320;
/// Longest policy or set of rules as JSON, in bytes; each member gets it when it joins.
const DOCUMENT_MAX: usize = 64 * 1024;

pub(super) const MANAGERS: &[Role] = &[Role::Owner, Role::Admin];
const OWNER: &[Role] = &[Role::Owner];

impl State {
    pub(super) fn create_network(
        &mut self,
        now: Instant,
        request: CreateNetwork,
        token: &str,
    ) -> Result<Response, Refusal> {
        self.require_admin(token)?;
        self.known(request.node_id).map_err(|_| Refusal::FounderUnknown(request.node_id))?;
        self.check_free_name(&request.name)?;
        let join_rule = match request.join_rule.as_str() {
            "" | "open" => JoinRule::Open,
            "token" => JoinRule::Token { digest: digest(&request.token) },
            "invite" if request.enterprise => JoinRule::Invite,
            "invite" => return Err(Refusal::InviteNeedsEnterprise),
            other => return Err(Refusal::JoinRule(other.to_owned())),
        };
        let rules = document(request.rules).map_err(Refusal::RulesInvalid)?;
        let expr_policy = document(request.expr_policy).map_err(Refusal::ExprInvalid)?;
        if let Some(policy) = &expr_policy {
            check_expr_policy(policy)?;
        }
        let id = self.next_network(request.network_id)?;
        let managed = rules.is_some();
        let network = Network {
            name: request.name.clone(),
            join_rule,
            enterprise: request.enterprise,
            admin_token: Some(request.network_admin_token)
                .filter(|token| !token.is_empty())
                .map(|t| digest(&t)),
            created: self.clock.unix(now),
            members: BTreeMap::from([(request.node_id, new_member(Role::Owner))]),
            policy: Policy::default(),
            rules,
            expr_policy,
            roles: BTreeMap::new(),
        };
        let enterprise = network.enterprise;
        self.networks.insert(id, network);
        self.touch(Key::Network(id));
        self.outdate(request.node_id);
        Ok(Response::CreateNetwork { network_id: id, name: request.name, enterprise, managed })
    }

    /// A number that was never given, nor will be: the wished one, or the next.
    pub(super) fn next_network(&mut self, wish: NetworkId) -> Result<NetworkId, Refusal> {
        let next = self.counters.next_network;
        let id = match wish {
            NetworkId::BACKBONE => NetworkId(next),
            wish if wish.0 < next => return Err(Refusal::NetworkNumber(wish, next)),
            wish => wish,
        };
        self.counters.next_network = id.0.checked_add(1).ok_or(Refusal::TooManyNetworks)?;
        self.touch(Key::Counters);
        Ok(id)
    }

    pub(super) fn delete_network(
        &mut self,
        conn: ConnId,
        request: &NetworkUpdate,
        token: &str,
    ) -> Result<Response, Refusal> {
        let id = self.custom(request.network_id, "delete")?;
        self.authorize(conn, id, request.node_id, token, OWNER)?;
        self.tell_members(id);
        self.networks.remove(id);
        self.touch(Key::Network(id));
        self.versions.forget(id);
        for node in self.directory.forget_network(id) {
            self.touch(Key::Cards(node));
        }
        self.drop_invites(|invite| invite.network == id);
        Ok(Response::DeleteNetwork { network_id: id })
    }

    pub(super) fn rename_network(
        &mut self,
        conn: ConnId,
        request: NetworkUpdate,
        token: &str,
    ) -> Result<Response, Refusal> {
        let id = self.custom(request.network_id, "rename")?;
        self.authorize(conn, id, request.node_id, token, MANAGERS)?;
        self.check_free_name(&request.name)?;
        self.networks.rename(id, &request.name);
        self.touch(Key::Network(id));
        Ok(Response::RenameNetwork { network_id: id, name: request.name })
    }

    pub(super) fn set_network_enterprise(
        &mut self,
        request: &SetEnterprise,
        token: &str,
    ) -> Result<Response, Refusal> {
        self.require_admin(token).map_err(|_| Refusal::EnterpriseNeedsAdmin)?;
        let id = self.custom(request.network_id, "change")?;
        let network = self.network_mut(id)?;
        network.enterprise = request.enterprise;
        if request.enterprise
            && !network.members.values().any(|member| member.role == Role::Owner)
            && let Some(first) = network.members.values_mut().next()
        {
            first.role = Role::Owner;
        }
        Ok(Response::SetNetworkEnterprise { network_id: id, enterprise: request.enterprise })
    }

    pub(super) fn join_network(&mut self, request: &JoinNetwork) -> Result<Response, Refusal> {
        let (id, node) = (self.custom(request.network_id, "join")?, request.node_id);
        let network = self.network(id)?;
        match &network.join_rule {
            JoinRule::Open => {}
            JoinRule::Token { digest: expected } if digest(&request.token) == *expected => {}
            JoinRule::Token { .. } => return Err(Refusal::NetworkToken(id)),
            JoinRule::Invite => return Err(Refusal::InviteOnly),
        }
        if network.members.contains_key(&node) {
            return Err(Refusal::AlreadyMember(node, id));
        }
        let joined = JoinedNetwork {
            network_id: id,
            address: Addr { network: id, node }.to_string(),
            rules: network.rules.clone(),
            expr_policy: network.expr_policy.clone(),
        };
        self.add_member(id, node)?;
        Ok(Response::JoinNetwork(joined))
    }

    pub(super) fn leave_network(&mut self, node: NodeId, id: NetworkId) -> Result<Response, Refusal> {
        let id = self.custom(id, "leave")?;
        let network = self.network(id)?;
        let member = network.members.get(&node).ok_or(Refusal::NotMember(node, id))?;
        if network.enterprise && member.role == Role::Owner {
            return Err(Refusal::OwnerStays);
        }
        self.networks.remove_member(id, node);
        self.touch(Key::Network(id));
        self.member_left(id, node);
        Ok(Response::LeaveNetwork { network_id: id })
    }

    /// Invite-only networks are shown to those who are in or invited.
    pub(super) fn list_networks(&self, conn: ConnId, token: &str) -> Response {
        let viewers = self.viewers(conn);
        let sees_all = self.is_admin(token);
        let is_invited = |id| {
            viewers
                .iter()
                .filter_map(|viewer| self.inboxes.get(viewer))
                .any(|inbox| inbox.invites.iter().any(|invite| invite.network == id))
        };
        let sees = |id, network: &Network| {
            sees_all
                || network.join_rule != JoinRule::Invite
                || viewers.iter().any(|viewer| network.members.contains_key(viewer))
                || is_invited(id)
        };
        let backbone = wire::Network {
            id: NetworkId::BACKBONE,
            name: "backbone".to_owned(),
            members: count(self.node_counts().0),
            join_rule: "open".to_owned(),
            enterprise: false,
            created: self.clock.unix(self.clock.start()),
            max_members: None,
            description: None,
            managed: false,
            rules: None,
            has_expr_policy: false,
        };
        let others = self.networks.iter().filter(|(id, network)| sees(*id, network));
        let others = others.map(|(id, network)| wire::Network {
            id,
            name: network.name.clone(),
            members: count(network.members.len()),
            join_rule: rule_text(&network.join_rule).to_owned(),
            enterprise: network.enterprise,
            created: network.created,
            max_members: Some(network.policy.max_members).filter(|max| network.enterprise && *max > 0),
            description: Some(network.policy.description.clone())
                .filter(|text| network.enterprise && !text.is_empty()),
            managed: network.rules.is_some(),
            rules: network.rules.clone(),
            has_expr_policy: network.expr_policy.is_some(),
        });
        Response::ListNetworks { networks: std::iter::once(backbone).chain(others).collect() }
    }

    /// The members are for members and the operator.
    pub(super) fn list_nodes(&self, conn: ConnId, id: NetworkId, token: &str) -> Result<Response, Refusal> {
        if id == NetworkId::BACKBONE {
            self.require_admin(token).map_err(|_| Refusal::ListBackbone)?;
            let registered =
                self.nodes.iter().filter_map(|(node, known)| Some((node, known.presence.as_ref()?)));
            let nodes =
                registered.take(MEMBERS_MAX).map(|(node, presence)| self.listed(id, *node, Some(presence)));
            return Ok(Response::ListNodes { nodes: nodes.collect() });
        }
        let network = self.may_list(conn, id, token)?;
        let nodes = network.members.iter().map(|(node, member)| ListedNode {
            role: Some(member.role),
            member_tags: member.tags.clone(),
            ..self.listed(id, *node, self.presence(*node))
        });
        let mut bytes = 0;
        let fitting = nodes.take_while(|node| {
            bytes += ROW + node.tags.iter().chain(&node.member_tags).map(|tag| tag.len() + 3).sum::<usize>();
            bytes <= LIST_MAX
        });
        Ok(Response::ListNodes { nodes: fitting.collect() })
    }

    /// Who and what is in a network is for members and the operator.
    pub(super) fn may_list(&self, conn: ConnId, id: NetworkId, token: &str) -> Result<&Network, Refusal> {
        let network = self.network(id)?;
        let is_member = self.viewers(conn).iter().any(|viewer| network.members.contains_key(viewer));
        if !is_member && !self.is_admin(token) && !self.is_network_token(network, token) {
            return Err(Refusal::ListForeign(id));
        }
        Ok(network)
    }

    fn listed(&self, network: NetworkId, node: NodeId, presence: Option<&Presence>) -> ListedNode {
        let address = Addr { network, node }.to_string();
        let heard = self.last_seen.get(&node).map(|at| rfc3339(self.clock.unix(*at)));
        let public = presence.map(Presence::is_public);
        ListedNode {
            node_id: node,
            address,
            public,
            hostname: presence.and_then(|presence| presence.hostname.clone()),
            tags: presence.map(|presence| presence.tags.clone()).unwrap_or_default(),
            version: presence.and_then(|presence| presence.version.clone()),
            real_addr: presence
                .filter(|presence| presence.is_public() && !presence.relay_only)
                .and_then(|presence| presence.endpoint)
                .map(|endpoint| endpoint.to_string()),
            last_seen: heard,
            role: None,
            member_tags: Vec::new(),
            offline: presence.is_none(),
        }
    }

    pub(super) fn invite(&mut self, now: Instant, request: &wire::Invite) -> Result<Response, Refusal> {
        let (id, inviter, target) = (request.network_id, request.inviter_id, request.target_node_id);
        let network = self.enterprise(id)?;
        if network.join_rule != JoinRule::Invite {
            return Err(Refusal::NotInviteOnly(id, rule_text(&network.join_rule).to_owned()));
        }
        let member = network.members.get(&inviter).ok_or(Refusal::InviterNotMember(inviter, id))?;
        if member.role == Role::Member {
            return Err(Refusal::InviterRole(inviter));
        }
        if network.members.contains_key(&target) {
            return Err(Refusal::InviteMember(target, id));
        }
        self.node(target).ok_or(Refusal::TargetUnknown(target))?;
        let at = self.clock.unix(now);
        let inbox = self.inboxes.entry(target).or_default();
        inbox.invites.retain(|invite| is_open(invite, at));
        let mut status = None;
        if inbox.invites.iter().any(|invite| invite.network == id) {
            status = Some("already_invited".to_owned());
        } else if inbox.invites.len() >= INVITES_MAX {
            return Err(Refusal::InvitesFull(target));
        } else {
            inbox.invites.push(Invite { network: id, from: inviter, at });
            inbox.invited = true;
            self.touch(Key::Inbox(target));
            self.tell(target);
        }
        Ok(Response::InviteToNetwork { network_id: id, target_node_id: target, status })
    }

    pub(super) fn poll_invites(&mut self, now: Instant, node: NodeId) -> Response {
        let at = self.clock.unix(now);
        let Some(inbox) = self.inboxes.get_mut(&node) else {
            return Response::PollInvites { invites: Vec::new() };
        };
        inbox.invited = false;
        let open = inbox.invites.iter().filter(|invite| is_open(invite, at));
        let invites = open.map(|invite| InviteNotice {
            network_id: invite.network,
            inviter_id: invite.from,
            timestamp: invite.at,
        });
        Response::PollInvites { invites: invites.collect() }
    }

    pub(super) fn respond_invite(
        &mut self,
        now: Instant,
        node: NodeId,
        id: NetworkId,
        accept: bool,
    ) -> Result<Response, Refusal> {
        self.enterprise(id)?;
        let at = self.clock.unix(now);
        let invites = self.inboxes.get(&node).map(|inbox| inbox.invites.as_slice()).unwrap_or_default();
        if !invites.iter().any(|invite| invite.network == id && is_open(invite, at)) {
            return Err(Refusal::NoInvite(node, id));
        }
        if accept {
            self.add_member(id, node)?;
        }
        if let Some(inbox) = self.inboxes.get_mut(&node) {
            inbox.invites.retain(|invite| invite.network != id);
            self.touch(Key::Inbox(node));
        }
        Ok(Response::RespondInvite { network_id: id, accepted: accept })
    }

    pub(super) fn kick_member(
        &mut self,
        conn: ConnId,
        request: &MemberQuery,
        token: &str,
    ) -> Result<Response, Refusal> {
        let (id, target) = (self.custom(request.network_id, "kick from")?, request.target_node_id);
        self.enterprise(id)?;
        self.authorize(conn, id, request.node_id, token, MANAGERS)?;
        if self.member(id, target)?.role == Role::Owner {
            return Err(Refusal::KickOwner);
        }
        self.networks.remove_member(id, target);
        self.touch(Key::Network(id));
        self.member_left(id, target);
        self.drop_invites(|invite| invite.network == id && invite.from == target);
        Ok(Response::KickMember { network_id: id, target_node_id: target })
    }

    pub(super) fn promote_member(
        &mut self,
        conn: ConnId,
        request: &MemberQuery,
        token: &str,
    ) -> Result<Response, Refusal> {
        let (id, target) = (request.network_id, request.target_node_id);
        self.enterprise(id)?;
        self.authorize(conn, id, request.node_id, token, OWNER)?;
        match self.member(id, target)?.role {
            Role::Owner => Err(Refusal::PromoteOwner),
            Role::Admin => Err(Refusal::RoleAlready(target, "an admin")),
            Role::Member => Ok(Response::PromoteMember(self.set_role(id, target, Role::Admin)?)),
        }
    }

    pub(super) fn demote_member(
        &mut self,
        conn: ConnId,
        request: &MemberQuery,
        token: &str,
    ) -> Result<Response, Refusal> {
        let (id, target) = (request.network_id, request.target_node_id);
        self.enterprise(id)?;
        self.authorize(conn, id, request.node_id, token, OWNER)?;
        match self.member(id, target)?.role {
            Role::Owner => Err(Refusal::DemoteOwner),
            Role::Member => Err(Refusal::RoleAlready(target, "a member")),
            Role::Admin => Ok(Response::DemoteMember(self.set_role(id, target, Role::Member)?)),
        }
    }

    pub(super) fn transfer_ownership(
        &mut self,
        conn: ConnId,
        request: &TransferOwnership,
        token: &str,
    ) -> Result<Response, Refusal> {
        let (id, new_owner) = (request.network_id, request.new_owner_id);
        self.enterprise(id)?;
        self.authorize(conn, id, request.node_id, token, OWNER)?;
        if new_owner == NodeId::UNSET {
            return Err(Refusal::NewOwnerRequired);
        }
        let network = self.network(id)?;
        let owner = network.members.iter().find(|(_, member)| member.role == Role::Owner);
        let old_owner = owner.map(|(node, _)| *node).ok_or(Refusal::NoOwner(id))?;
        if old_owner == new_owner {
            return Err(Refusal::RoleAlready(new_owner, "the owner"));
        }
        self.set_role(id, new_owner, Role::Owner)?;
        self.set_role(id, old_owner, Role::Admin)?;
        Ok(Response::TransferOwnership { network_id: id, old_owner, new_owner })
    }

    pub(super) fn get_member_role(&self, request: &MemberQuery) -> Result<Response, Refusal> {
        let role = self.member(request.network_id, request.target_node_id)?.role;
        Ok(Response::GetMemberRole(MemberRole {
            network_id: request.network_id,
            target_node_id: request.target_node_id,
            role,
        }))
    }

    pub(super) fn set_member_tags(
        &mut self,
        conn: ConnId,
        request: &MemberTagsUpdate,
        token: &str,
    ) -> Result<Response, Refusal> {
        let (id, target) = (request.network_id, request.target_node_id);
        self.network(id)?;
        self.authorize(conn, id, request.node_id, token, MANAGERS)?;
        let tags = check_tags(&request.tags)?;
        self.member(id, target)?;
        if let Some(member) = self.network_mut(id)?.members.get_mut(&target) {
            member.tags.clone_from(&tags);
        }
        let (target_node_id, tags) = (Some(target), Some(tags));
        Ok(Response::SetMemberTags(MemberTags { network_id: id, target_node_id, tags, members: None }))
    }

    pub(super) fn get_member_tags(&self, request: &MemberQuery) -> Result<Response, Refusal> {
        let (id, target) = (request.network_id, request.target_node_id);
        let network = self.network(id)?;
        if target == NodeId::UNSET {
            let members =
                network.members.iter().map(|(node, member)| (node.to_string(), member.tags.clone()));
            let members = Some(members.collect());
            return Ok(Response::GetMemberTags(MemberTags {
                network_id: id,
                target_node_id: None,
                tags: None,
                members,
            }));
        }
        let tags = Some(self.member(id, target)?.tags.clone());
        let target_node_id = Some(target);
        Ok(Response::GetMemberTags(MemberTags { network_id: id, target_node_id, tags, members: None }))
    }

    pub(super) fn set_network_policy(
        &mut self,
        conn: ConnId,
        request: PolicyUpdate,
        token: &str,
    ) -> Result<Response, Refusal> {
        let id = request.network_id;
        let mut policy = self.enterprise(id)?.policy.clone();
        self.authorize(conn, id, request.node_id, token, MANAGERS)?;
        match request.max_members {
            Sent::Missing => {}
            Sent::Given(max) if max as usize <= MEMBERS_MAX => {
                let members = self.network(id)?.members.len();
                if max != 0 && (max as usize) < members {
                    return Err(Refusal::MaxMembersBelow(max, members));
                }
                policy.max_members = max;
            }
            Sent::Given(_) | Sent::Malformed(_) => return Err(Refusal::MaxMembers),
        }
        if let Sent::Given(ports) = request.allowed_ports {
            if ports.len() > PORTS_MAX {
                return Err(Refusal::TooManyPorts(PORTS_MAX));
            }
            if ports.contains(&0) {
                return Err(Refusal::PortInvalid);
            }
            policy.allowed_ports.clear();
            for port in ports {
                if !policy.allowed_ports.contains(&port) {
                    policy.allowed_ports.push(port);
                }
            }
        }
        if let Sent::Given(text) = request.description {
            if text.len() > DESCRIPTION_MAX {
                return Err(Refusal::DescriptionTooLong(DESCRIPTION_MAX));
            }
            policy.description = text;
        }
        self.network_mut(id)?.policy = policy.clone();
        self.tell_members(id);
        Ok(Response::SetNetworkPolicy(policy_reply(id, policy)))
    }

    pub(super) fn get_network_policy(&self, id: NetworkId) -> Result<Response, Refusal> {
        let policy = match id {
            NetworkId::BACKBONE => Policy::default(),
            _ => self.network(id)?.policy.clone(),
        };
        Ok(Response::GetNetworkPolicy(policy_reply(id, policy)))
    }

    pub(super) fn set_expr_policy(
        &mut self,
        conn: ConnId,
        request: ExprPolicyUpdate,
        token: &str,
    ) -> Result<Response, Refusal> {
        let id = request.network_id;
        self.network(id)?;
        self.authorize(conn, id, request.node_id, token, MANAGERS)?;
        if request.expr_policy.is_missing() {
            return Err(Refusal::ExprRequired);
        }
        let policy = document(request.expr_policy).map_err(Refusal::ExprInvalid)?;
        if let Some(policy) = &policy {
            check_expr_policy(policy)?;
        }
        let cleared = policy.is_none();
        self.network_mut(id)?.expr_policy = policy;
        Ok(Response::SetExprPolicy { network_id: id, cleared })
    }

    pub(super) fn get_expr_policy(&self, id: NetworkId) -> Result<Response, Refusal> {
        let expr_policy = match id {
            NetworkId::BACKBONE => None,
            _ => self.network(id)?.expr_policy.clone(),
        };
        Ok(Response::GetExprPolicy { network_id: id, expr_policy })
    }

    // What these have in common.

    /// Enough is the operator's token, the network's own, or a role. A role counts only for a node that has proven
    /// itself on this connection; the number in the request proves nothing (spec/registry.md 23 S9).
    pub(super) fn authorize(
        &self,
        conn: ConnId,
        id: NetworkId,
        acting: NodeId,
        token: &str,
        roles: &[Role],
    ) -> Result<(), Refusal> {
        let network = self.network(id)?;
        if self.is_admin(token) || self.is_network_token(network, token) {
            return Ok(());
        }
        if !token.is_empty() {
            return Err(Refusal::AdminToken);
        }
        if acting == NodeId::UNSET {
            return Err(Refusal::RoleNeedsNode);
        }
        let role = network.members.get(&acting).ok_or(Refusal::NoRole(acting, id))?.role;
        if !roles.contains(&role) {
            return Err(Refusal::RoleTooLow { node: acting, role });
        }
        match self.sessions.get(&conn) {
            Some(session) if session.proven.contains(&acting) => Ok(()),
            Some(_) | None => Err(Refusal::RoleUnproven(acting)),
        }
    }

    fn is_network_token(&self, network: &Network, token: &str) -> bool {
        !token.is_empty() && network.admin_token.as_ref().is_some_and(|expected| *expected == digest(token))
    }

    fn custom(&self, id: NetworkId, verb: &'static str) -> Result<NetworkId, Refusal> {
        if id == NetworkId::BACKBONE {
            return Err(Refusal::Backbone(verb));
        }
        self.network(id).map(|_| id)
    }

    fn network(&self, id: NetworkId) -> Result<&Network, Refusal> {
        self.networks.get(id).ok_or(Refusal::UnknownNetwork(id))
    }

    /// For a change, which is recorded.
    fn network_mut(&mut self, id: NetworkId) -> Result<&mut Network, Refusal> {
        self.touch(Key::Network(id));
        self.networks.get_mut(id).ok_or(Refusal::UnknownNetwork(id))
    }

    fn enterprise(&self, id: NetworkId) -> Result<&Network, Refusal> {
        let network = self.network(id)?;
        if network.enterprise { Ok(network) } else { Err(Refusal::NotEnterprise) }
    }

    pub(super) fn member(&self, id: NetworkId, node: NodeId) -> Result<&Member, Refusal> {
        self.network(id)?.members.get(&node).ok_or(Refusal::NotMember(node, id))
    }

    fn add_member(&mut self, id: NetworkId, node: NodeId) -> Result<(), Refusal> {
        let network = self.network(id)?;
        let max = match network.policy.max_members {
            0 => MEMBERS_MAX,
            max => (max as usize).min(MEMBERS_MAX),
        };
        if network.members.len() >= max || self.networks.of(node).count() >= MEMBERSHIPS_MAX {
            return Err(Refusal::MembershipLimit);
        }
        let role = self.network_mut(id)?.roles.remove(&node).unwrap_or(Role::Member);
        let has_owner = || self.network(id).is_ok_and(|network| network.members.values().any(is_owner));
        let role = if role == Role::Owner && has_owner() { Role::Admin } else { role };
        self.networks.add_member(id, node, new_member(role));
        self.touch(Key::Network(id));
        self.member_changed(id, node);
        self.outdate(node);
        Ok(())
    }

    fn set_role(&mut self, id: NetworkId, node: NodeId, role: Role) -> Result<MemberRole, Refusal> {
        self.member(id, node)?;
        if let Some(member) = self.network_mut(id)?.members.get_mut(&node) {
            member.role = role;
        }
        Ok(MemberRole { network_id: id, target_node_id: node, role })
    }

    fn check_free_name(&self, name: &str) -> Result<(), Refusal> {
        check_network_name(name).map_err(Refusal::NetworkName)?;
        match self.networks.named(name) {
            Some(_) => Err(Refusal::NetworkExists(name.to_owned())),
            None => Ok(()),
        }
    }

    fn drop_invites(&mut self, drops: impl Fn(&Invite) -> bool) {
        let mut changed = Vec::new();
        for (node, inbox) in &mut self.inboxes {
            let before = inbox.invites.len();
            inbox.invites.retain(|invite| !drops(invite));
            if inbox.invites.len() != before {
                changed.push(*node);
            }
        }
        for node in changed {
            self.touch(Key::Inbox(node));
        }
    }
}

fn new_member(role: Role) -> Member {
    Member { role, tags: Vec::new(), expires_at: None }
}

fn is_owner(member: &Member) -> bool {
    member.role == Role::Owner
}

fn is_open(invite: &Invite, now: u64) -> bool {
    now.saturating_sub(invite.at) < INVITE_LIFETIME
}

pub(super) fn rule_text(rule: &JoinRule) -> &'static str {
    match rule {
        JoinRule::Open => "open",
        JoinRule::Token { .. } => "token",
        JoinRule::Invite => "invite",
    }
}

fn policy_reply(network_id: NetworkId, policy: Policy) -> NetworkPolicy {
    let Policy { max_members, allowed_ports, description } = policy;
    NetworkPolicy { network_id, max_members, allowed_ports, description }
}

/// Tokens are compared and kept as digests.
pub(crate) fn digest(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `null` is none.
pub(super) fn document(sent: Sent<Value>) -> Result<Option<Value>, String> {
    match sent {
        Sent::Missing | Sent::Given(Value::Null) => Ok(None),
        Sent::Malformed(why) => Err(why),
        Sent::Given(value) if !value.is_object() => Err("invalid JSON: not an object".to_owned()),
        Sent::Given(value) if value.to_string().len() > DOCUMENT_MAX => {
            Err(format!("too long (max {DOCUMENT_MAX} bytes)"))
        }
        Sent::Given(value) => Ok(Some(value)),
    }
}

/// The nodes carry the policy out; here only its frame is looked at.
pub(super) fn check_expr_policy(policy: &Value) -> Result<(), Refusal> {
    let version = policy.get("version").and_then(Value::as_u64).unwrap_or_default();
    if version != 1 {
        return Err(Refusal::ExprInvalid(format!("unsupported version {version} (want 1)")));
    }
    if policy.get("rules").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Err(Refusal::ExprInvalid("at least one rule is required".to_owned()));
    }
    Ok(())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
