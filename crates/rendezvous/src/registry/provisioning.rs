//! Networks made from blueprints, idempotent by name (spec/registry.md 12).

use super::{
    ConnId, Key, Refusal, State,
    names::check_network_name,
    network_requests::{check_expr_policy, digest, document, rule_text},
    record::{JoinRule, Network, Policy},
};
use pilot_wire::{
    NetworkId, NodeId,
    registry::{Blueprint, BlueprintRole, PolicyUpdate, Provision, ProvisionedNetwork, Response, Role, Sent},
};
use std::{collections::BTreeMap, time::Instant};

/// Roles that wait for their nodes, in one network.
const ROLES_MAX: usize = 10_000;

impl State {
    /// Everything is checked before anything is changed.
    pub(super) fn provision_network(
        &mut self,
        now: Instant,
        conn: ConnId,
        request: Provision,
        token: &str,
    ) -> Result<Response, Refusal> {
        self.require_admin(token)?;
        let blueprint = blueprint(request)?;
        check_network_name(&blueprint.name).map_err(Refusal::NetworkName)?;
        let roles = roles(&blueprint.roles)?;
        let expr_policy = match blueprint.expr_policy.clone() {
            Some(policy) => {
                let policy = document(Sent::Given(policy)).map_err(Refusal::ExprInvalid)?;
                policy.as_ref().map_or(Ok(()), check_expr_policy)?;
                policy
            }
            None => None,
        };
        let known = self.networks.named(&blueprint.name);
        let enterprise =
            blueprint.enterprise || known.and_then(|id| self.networks.get(id)).is_some_and(|n| n.enterprise);
        let join_rule = join_rule(&blueprint, enterprise)?;
        if !enterprise && (blueprint.policy.is_some() || !roles.is_empty()) {
            return Err(Refusal::NotEnterprise);
        }
        let mut actions = Vec::new();
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.next_network(NetworkId::BACKBONE)?;
                let network = Network {
                    name: blueprint.name.clone(),
                    join_rule: join_rule.clone().unwrap_or(JoinRule::Open),
                    enterprise,
                    admin_token: None,
                    created: self.clock.unix(now),
                    members: BTreeMap::new(),
                    policy: Policy::default(),
                    rules: None,
                    expr_policy: None,
                    roles: BTreeMap::new(),
                };
                self.networks.insert(id, network);
                actions.push(format!("created network {:?} (id={id})", blueprint.name));
                id
            }
        };
        self.touch(Key::Network(id));
        if let Some(policy) = blueprint.policy {
            let update = PolicyUpdate {
                network_id: id,
                node_id: NodeId::UNSET,
                max_members: policy.max_members.map_or(Sent::Missing, Sent::Given),
                allowed_ports: policy.allowed_ports.map_or(Sent::Missing, Sent::Given),
                description: policy.description.map_or(Sent::Missing, Sent::Given),
            };
            // A network made a moment ago is enterprise; one that was there becomes so below, which is the same.
            if let Some(network) = self.networks.get_mut(id) {
                network.enterprise = enterprise;
            }
            if let Err(refusal) = self.set_network_policy(conn, update, token) {
                if known.is_none() {
                    self.networks.remove(id);
                }
                return Err(refusal);
            }
            actions.push("policy set".to_owned());
        }
        let network = self.networks.get_mut(id).ok_or(Refusal::UnknownNetwork(id))?;
        if network.enterprise != enterprise {
            network.enterprise = enterprise;
            actions.push("enterprise features switched on".to_owned());
        }
        if let Some(rule) = join_rule.filter(|rule| *rule != network.join_rule) {
            actions.push(format!("join rule set to {}", rule_text(&rule)));
            network.join_rule = rule;
        }
        if let Some(policy) = expr_policy {
            network.expr_policy = Some(policy);
            actions.push("expression policy set".to_owned());
        }
        if !blueprint.network_admin_token.is_empty() {
            network.admin_token = Some(digest(&blueprint.network_admin_token));
            actions.push("network admin token set".to_owned());
        }
        for (node, role) in roles {
            match network.members.get_mut(&node) {
                Some(member) => member.role = role,
                None => {
                    network.roles.insert(node, role);
                }
            }
            actions.push(format!("node {node} is {}", super::refusal::role_text(role)));
        }
        if actions.is_empty() {
            actions.push("nothing to do".to_owned());
        }
        Ok(Response::ProvisionNetwork {
            network_id: id,
            name: blueprint.name,
            created: known.is_none(),
            actions,
        })
    }

    pub(super) fn get_provision_status(&self, token: &str) -> Result<Response, Refusal> {
        self.require_admin(token)?;
        let networks = self.networks.iter().map(|(id, network)| ProvisionedNetwork {
            network_id: id,
            name: network.name.clone(),
            members: u32::try_from(network.members.len()).unwrap_or(u32::MAX),
            join_rule: rule_text(&network.join_rule).to_owned(),
            enterprise: network.enterprise,
            max_members: Some(network.policy.max_members).filter(|max| *max > 0),
            allowed_ports: Some(network.policy.allowed_ports.clone()).filter(|ports| !ports.is_empty()),
            rbac_pre_assignments: u32::try_from(network.roles.len()).ok().filter(|count| *count > 0),
        });
        Ok(Response::GetProvisionStatus { networks: networks.collect() })
    }
}

fn blueprint(request: Provision) -> Result<Blueprint, Refusal> {
    let refused = |why: String| Refusal::Blueprint(why);
    let value = match request.blueprint {
        Sent::Given(value) if value.is_object() => value,
        Sent::Given(_) | Sent::Missing => return Err(refused("required, an object".to_owned())),
        Sent::Malformed(why) => return Err(refused(why)),
    };
    let blueprint: Blueprint =
        serde_json::from_value(value).map_err(|error| refused(format!("invalid: {error}")))?;
    for (name, part) in [
        ("identity_provider", &blueprint.identity_provider),
        ("webhooks", &blueprint.webhooks),
        ("audit_export", &blueprint.audit_export),
    ] {
        if part.as_ref().is_some_and(|part| !part.is_null()) {
            return Err(refused(format!("{name} cannot be had: this registry has none; invalid here")));
        }
    }
    Ok(blueprint)
}

fn join_rule(blueprint: &Blueprint, enterprise: bool) -> Result<Option<JoinRule>, Refusal> {
    match blueprint.join_rule.as_str() {
        "" => Ok(None),
        "open" => Ok(Some(JoinRule::Open)),
        "token" if blueprint.join_token.is_empty() => {
            Err(Refusal::Blueprint("join_token is required for join rule token".to_owned()))
        }
        "token" => Ok(Some(JoinRule::Token { digest: digest(&blueprint.join_token) })),
        "invite" if enterprise => Ok(Some(JoinRule::Invite)),
        "invite" => Err(Refusal::InviteNeedsEnterprise),
        other => Err(Refusal::JoinRule(other.to_owned())),
    }
}

/// Numbers of nodes are what this registry knows nodes by; names that an identity provider gives are not.
fn roles(roles: &[BlueprintRole]) -> Result<Vec<(NodeId, Role)>, Refusal> {
    if roles.len() > ROLES_MAX {
        return Err(Refusal::Blueprint(format!("too many roles (max {ROLES_MAX})")));
    }
    let mut owners = 0;
    let read = |role: &BlueprintRole| {
        if role.node_id == NodeId::UNSET {
            let why = "roles by external_id need an identity provider, which this registry has not; give node_id, required";
            return Err(Refusal::Blueprint(why.to_owned()));
        }
        let role_of = match role.role.as_str() {
            "owner" => Role::Owner,
            "admin" => Role::Admin,
            "member" => Role::Member,
            other => return Err(Refusal::Blueprint(format!("invalid role {other:?}"))),
        };
        Ok((role.node_id, role_of))
    };
    let roles: Vec<_> = roles.iter().map(read).collect::<Result<_, _>>()?;
    for (_, role) in &roles {
        owners += usize::from(*role == Role::Owner);
    }
    if owners > 1 {
        return Err(Refusal::Blueprint("invalid roles: a network has one owner".to_owned()));
    }
    Ok(roles)
}
