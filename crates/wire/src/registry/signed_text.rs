//! The texts that nodes sign for the registry (spec/registry.md 4.1): ASCII, numbers in decimal.

use crate::{NetworkId, NodeId, PublicKey};

/// `register:<listen_addr as sent>:<public_key as sent>`
#[must_use]
pub fn register(listen_addr: &str, public_key: &PublicKey) -> String {
    format!("register:{listen_addr}:{public_key}")
}

/// `heartbeat:<node>`
#[must_use]
pub fn heartbeat(node: NodeId) -> String {
    format!("heartbeat:{node}")
}

/// `resolve:<requester>:<target>`
#[must_use]
pub fn resolve(requester: NodeId, target: NodeId) -> String {
    format!("resolve:{requester}:{target}")
}

/// `punch:<node_a>:<node_b>`
#[must_use]
pub fn punch(node_a: NodeId, node_b: NodeId) -> String {
    format!("punch:{node_a}:{node_b}")
}

/// `report_trust:<node>:<peer>`
#[must_use]
pub fn report_trust(node: NodeId, peer: NodeId) -> String {
    format!("report_trust:{node}:{peer}")
}

/// `revoke_trust:<node>:<peer>`
#[must_use]
pub fn revoke_trust(node: NodeId, peer: NodeId) -> String {
    format!("revoke_trust:{node}:{peer}")
}

/// `handshake:<from>:<to>`, the same text as in a handshake between peers.
#[must_use]
pub fn request_handshake(from: NodeId, to: NodeId) -> String {
    format!("handshake:{from}:{to}")
}

/// `respond:<node>:<peer>`
#[must_use]
pub fn respond_handshake(node: NodeId, peer: NodeId) -> String {
    format!("respond:{node}:{peer}")
}

/// `poll_handshakes:<node>`
#[must_use]
pub fn poll_handshakes(node: NodeId) -> String {
    format!("poll_handshakes:{node}")
}

/// `await_notices:<node>`; only our registry knows the request.
#[must_use]
pub fn await_notices(node: NodeId) -> String {
    format!("await_notices:{node}")
}

/// `poll_invites:<node>`
#[must_use]
pub fn poll_invites(node: NodeId) -> String {
    format!("poll_invites:{node}")
}

/// `set_visibility:<node>`
#[must_use]
pub fn set_visibility(node: NodeId) -> String {
    format!("set_visibility:{node}")
}

/// `set_hostname:<node>`
#[must_use]
pub fn set_hostname(node: NodeId) -> String {
    format!("set_hostname:{node}")
}

/// `set_tags:<node>`
#[must_use]
pub fn set_tags(node: NodeId) -> String {
    format!("set_tags:{node}")
}

/// `set_task_exec:<node>`
#[must_use]
pub fn set_task_exec(node: NodeId) -> String {
    format!("set_task_exec:{node}")
}

/// `deregister:<node>`
#[must_use]
pub fn deregister(node: NodeId) -> String {
    format!("deregister:{node}")
}

/// `rotate:<node>:<new_public_key>`, by the current key, as 1.18.0 signs it.
#[must_use]
pub fn rotate_key(node: NodeId, new_key: &PublicKey) -> String {
    format!("rotate:{node}:{new_key}")
}

/// `rotate:<node>`, which older nodes sign and which does not cover the new key.
#[must_use]
pub fn rotate_key_uncovered(node: NodeId) -> String {
    format!("rotate:{node}")
}

/// `join_network:<node>:<network>`
#[must_use]
pub fn join_network(node: NodeId, network: NetworkId) -> String {
    format!("join_network:{node}:{network}")
}

/// `leave_network:<node>:<network>`
#[must_use]
pub fn leave_network(node: NodeId, network: NetworkId) -> String {
    format!("leave_network:{node}:{network}")
}

/// `invite:<inviter>:<network>:<target>`
#[must_use]
pub fn invite(inviter: NodeId, network: NetworkId, target: NodeId) -> String {
    format!("invite:{inviter}:{network}:{target}")
}

/// `respond_invite:<node>:<network>`
#[must_use]
pub fn respond_invite(node: NodeId, network: NetworkId) -> String {
    format!("respond_invite:{node}:{network}")
}

/// `own_networks:<node>`; only our registry knows the request.
#[must_use]
pub fn own_networks(node: NodeId) -> String {
    format!("own_networks:{node}")
}

/// `list_members:<node>:<network>`; only our registry knows the request.
#[must_use]
pub fn list_members(node: NodeId, network: NetworkId) -> String {
    format!("list_members:{node}:{network}")
}

/// `set_key_expiry:<node>`
#[must_use]
pub fn set_key_expiry(node: NodeId) -> String {
    format!("set_key_expiry:{node}")
}

/// `remove_card:<node>:<network>:<seq>:<name>`; only our registry knows the request.
#[must_use]
pub fn remove_card(node: NodeId, network: NetworkId, name: &str, seq: u64) -> String {
    format!("remove_card:{node}:{network}:{seq}:{name}")
}
