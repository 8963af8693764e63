//! Sub-commands of `Handshake`, `Network` and `Managed`: one more byte, then the payload.

use std::time::Duration;

use super::request::{RequestError, fields, json, network, node, put_json, put_short_text, text};
use crate::{NetworkId, NodeId};

/// Trust between nodes (spec 1.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake<'a> {
    /// Asks a node for trust.
    Send {
        /// The node.
        node: NodeId,
        /// Shown to its owner.
        justification: &'a str,
    },
    /// Agrees to a node that asked.
    Approve {
        /// The node.
        node: NodeId,
    },
    /// Declines a node that asked.
    Reject {
        /// The node.
        node: NodeId,
        /// Shown to its owner.
        reason: &'a str,
    },
    /// Lists who asked.
    Pending,
    /// Lists who is trusted.
    Trusted,
    /// Takes trust back.
    Revoke {
        /// The node.
        node: NodeId,
    },
    /// Answers when the node is trusted, or after the time.
    Wait {
        /// The node.
        node: NodeId,
        /// In whole milliseconds on the wire.
        timeout: Duration,
    },
}

/// Networks (spec 1.7). The replies are the registry's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network<'a> {
    /// All networks.
    List,
    /// Becomes a member.
    Join {
        /// Which network.
        network: NetworkId,
        /// Empty when the network wants none.
        token: &'a str,
    },
    /// Ends membership.
    Leave {
        /// Which network.
        network: NetworkId,
    },
    /// Who is in it.
    Members {
        /// Which network.
        network: NetworkId,
    },
    /// Invites a node.
    Invite {
        /// Which network.
        network: NetworkId,
        /// Whom.
        node: NodeId,
    },
    /// Lists, and takes, the invitations to this node.
    PollInvites,
    /// Answers an invitation.
    Respond {
        /// Which network.
        network: NetworkId,
        /// Yes?
        accept: bool,
    },
}

/// Managed networks (spec 1.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Managed<'a> {
    /// Where the policy stands.
    Status {
        /// Which network.
        network: NetworkId,
    },
    /// Runs the policy once.
    Cycle {
        /// Which network.
        network: NetworkId,
    },
    /// Shows the policy.
    PolicyGet {
        /// Which network.
        network: NetworkId,
    },
    /// Replaces the policy.
    PolicySet {
        /// Which network.
        network: NetworkId,
        /// Proves the right to do so.
        token: &'a str,
        /// The policy as JSON.
        policy: &'a str,
    },
    /// Shows the tags of a member.
    TagsGet {
        /// Which network.
        network: NetworkId,
        /// Whose.
        node: NodeId,
    },
    /// Replaces the tags of a member.
    TagsSet {
        /// Which network.
        network: NetworkId,
        /// Whose.
        node: NodeId,
        /// The new ones.
        tags: Vec<String>,
    },
    /// Compares members and policy.
    Reconcile {
        /// Which network.
        network: NetworkId,
    },
}

impl<'a> Handshake<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, RequestError> {
        let (byte, rest) = split(payload, "handshake: missing sub-command")?;
        Ok(match byte {
            1 => {
                let (node, words) =
                    fields(rest, "handshake request: missing node_id", |r| Ok((node(r)?, r.rest())))?;
                Self::Send {
                    node,
                    justification: text(words, "handshake request: justification is not UTF-8")?,
                }
            }
            2 => Self::Approve { node: fields(rest, "handshake approve: missing node_id", node)? },
            3 => {
                let (node, words) =
                    fields(rest, "handshake reject: missing node_id", |r| Ok((node(r)?, r.rest())))?;
                Self::Reject { node, reason: text(words, "handshake reject: reason is not UTF-8")? }
            }
            4 => Self::Pending,
            5 => Self::Trusted,
            6 => Self::Revoke { node: fields(rest, "handshake revoke: missing node_id", node)? },
            7 => fields(rest, "handshake wait: missing node_id", |r| {
                Ok(Self::Wait { node: node(r)?, timeout: Duration::from_millis(r.u32()?.into()) })
            })?,
            _ => return Err(RequestError::UnknownSubcommand { family: "handshake", byte }),
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Send { node, justification } => {
                put_node(out, 1, *node);
                out.extend_from_slice(justification.as_bytes());
            }
            Self::Approve { node } => put_node(out, 2, *node),
            Self::Reject { node, reason } => {
                put_node(out, 3, *node);
                out.extend_from_slice(reason.as_bytes());
            }
            Self::Pending => out.push(4),
            Self::Trusted => out.push(5),
            Self::Revoke { node } => put_node(out, 6, *node),
            Self::Wait { node, timeout } => {
                put_node(out, 7, *node);
                let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
                out.extend(millis.to_be_bytes());
            }
        }
    }
}

impl<'a> Network<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, RequestError> {
        let (byte, rest) = split(payload, "network: missing sub-command")?;
        Ok(match byte {
            1 => Self::List,
            2 => {
                let (network, token) =
                    fields(rest, "network join: missing network_id", |r| Ok((network(r)?, r.rest())))?;
                Self::Join { network, token: text(token, "network join: token is not UTF-8")? }
            }
            3 => Self::Leave { network: fields(rest, "network leave: missing network_id", network)? },
            4 => Self::Members { network: fields(rest, "network members: missing network_id", network)? },
            5 => fields(rest, "network invite: missing network_id or node_id", |r| {
                Ok(Self::Invite { network: network(r)?, node: node(r)? })
            })?,
            6 => Self::PollInvites,
            7 => fields(rest, "network respond: missing network_id or answer", |r| {
                Ok(Self::Respond { network: network(r)?, accept: r.u8()? != 0 })
            })?,
            _ => return Err(RequestError::UnknownSubcommand { family: "network", byte }),
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::List => out.push(1),
            Self::Join { network, token } => {
                put_network(out, &[2], *network);
                out.extend_from_slice(token.as_bytes());
            }
            Self::Leave { network } => put_network(out, &[3], *network),
            Self::Members { network } => put_network(out, &[4], *network),
            Self::Invite { network, node } => {
                put_network(out, &[5], *network);
                out.extend(node.0.to_be_bytes());
            }
            Self::PollInvites => out.push(6),
            Self::Respond { network, accept } => {
                put_network(out, &[7], *network);
                out.push(u8::from(*accept));
            }
        }
    }
}

impl<'a> Managed<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, RequestError> {
        let (byte, rest) = split(payload, "managed: missing sub-command")?;
        Ok(match byte {
            2 => Self::Status { network: fields(rest, "managed status: missing network_id", network)? },
            4 => Self::Cycle { network: fields(rest, "managed cycle: missing network_id", network)? },
            5 => Self::parse_policy(rest)?,
            6 => Self::parse_tags(rest)?,
            7 => Self::Reconcile { network: fields(rest, "managed reconcile: missing network_id", network)? },
            _ => return Err(RequestError::UnknownSubcommand { family: "managed", byte }),
        })
    }

    fn parse_policy(payload: &'a [u8]) -> Result<Self, RequestError> {
        let (action, rest) = split(payload, "managed policy: missing action")?;
        Ok(match action {
            0 => Self::PolicyGet { network: fields(rest, "managed policy: missing network_id", network)? },
            1 => {
                let (network, token, policy) =
                    fields(rest, "managed policy: missing network_id or token", |r| {
                        let (network, length) = (network(r)?, r.u16()?);
                        Ok((network, r.take(length.into())?, r.rest()))
                    })?;
                Self::PolicySet {
                    network,
                    token: text(token, "managed policy: token is not UTF-8")?,
                    policy: text(policy, "managed policy: policy is not UTF-8")?,
                }
            }
            byte => return Err(RequestError::UnknownSubcommand { family: "managed policy", byte }),
        })
    }

    fn parse_tags(payload: &'a [u8]) -> Result<Self, RequestError> {
        let (action, rest) = split(payload, "managed member-tags: missing action")?;
        let (network, node, rest) =
            fields(rest, "managed member-tags: missing network_id or node_id", |r| {
                Ok((network(r)?, node(r)?, r.rest()))
            })?;
        Ok(match action {
            0 => Self::TagsGet { network, node },
            1 => Self::TagsSet { network, node, tags: json(rest, "managed member-tags: invalid JSON")? },
            byte => return Err(RequestError::UnknownSubcommand { family: "managed member-tags", byte }),
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Status { network } => put_network(out, &[2], *network),
            Self::Cycle { network } => put_network(out, &[4], *network),
            Self::PolicyGet { network } => put_network(out, &[5, 0], *network),
            Self::PolicySet { network, token, policy } => {
                put_network(out, &[5, 1], *network);
                put_short_text(out, token);
                out.extend_from_slice(policy.as_bytes());
            }
            Self::TagsGet { network, node } => {
                put_network(out, &[6, 0], *network);
                out.extend(node.0.to_be_bytes());
            }
            Self::TagsSet { network, node, tags } => {
                put_network(out, &[6, 1], *network);
                out.extend(node.0.to_be_bytes());
                put_json(out, tags);
            }
            Self::Reconcile { network } => put_network(out, &[7], *network),
        }
    }
}

fn split<'a>(payload: &'a [u8], missing: &'static str) -> Result<(u8, &'a [u8]), RequestError> {
    payload.split_first().map(|(&byte, rest)| (byte, rest)).ok_or(RequestError::Malformed(missing))
}

fn put_node(out: &mut Vec<u8>, subcommand: u8, node: NodeId) {
    out.push(subcommand);
    out.extend(node.0.to_be_bytes());
}

fn put_network(out: &mut Vec<u8>, subcommand: &[u8], network: NetworkId) {
    out.extend_from_slice(subcommand);
    out.extend(network.0.to_be_bytes());
}
