//! The node's questions as requests, and the registry's replies as answers.

use pilot_proto::{Answer, Location, Query, QueryError};
use pilot_wire::NodeId;
use pilot_wire::registry::{Handshake, HandshakeAnswer, Pair, Request, Resolve, Response, Signed};

use crate::belief::Statement;

/// The request that asks `query` in the name of `node`.
pub(crate) fn request(node: NodeId, query: &Query) -> Request {
    let pair = |peer_id: NodeId| Pair { node_id: node, peer_id, ..Pair::default() };
    match query {
        Query::Resolve(peer) => {
            Request::Resolve(Resolve { node_id: *peer, requester_id: node, ..Resolve::default() })
        }
        Query::PeerKey(peer) => Request::Lookup(Signed { node_id: *peer, ..Signed::default() }),
        Query::CheckTrust(peer) => Request::CheckTrust(pair(*peer)),
        Query::ReportTrust(peer) => Request::ReportTrust(pair(*peer)),
        Query::RevokeTrust(peer) => Request::RevokeTrust(pair(*peer)),
        Query::RequestHandshake { to, justification } => Request::RequestHandshake(Handshake {
            from_node_id: node,
            to_node_id: *to,
            justification: justification.clone(),
            ..Handshake::default()
        }),
        Query::RespondHandshake { to, accept } => Request::RespondHandshake(HandshakeAnswer {
            node_id: node,
            peer_id: *to,
            accept: *accept,
            ..HandshakeAnswer::default()
        }),
    }
}

/// What the registry says of a node in `reply`, unjudged; `None` if it says nothing of one.
pub(super) fn statement(query: &Query, reply: &[u8]) -> Option<Statement> {
    match (query, said(reply)) {
        (Query::Resolve(_), Some(said)) if said.location.is_some() => Some(said),
        (Query::PeerKey(_), Some(said)) if said.key.is_some() && said.location.is_none() => Some(said),
        (_, Some(_) | None) => None,
    }
}

/// What the registry says of a node in a reply to `lookup` or `resolve`; `None` for other replies.
pub(crate) fn said(reply: &[u8]) -> Option<Statement> {
    match Response::parse(reply) {
        Ok(Response::Resolve(resolved)) => Some(Statement {
            node: resolved.node_id,
            key: resolved.public_key,
            record: resolved.record,
            changes: resolved.key_changes,
            location: Some(Location {
                public: resolved.real_addr.parse().ok(),
                lan: resolved.lan_addrs.iter().filter_map(|address| address.parse().ok()).collect(),
                relay_only: resolved.relay_only,
                seen: resolved.seen_secs_ago.map(std::time::Duration::from_secs),
                ..Location::default()
            }),
        }),
        Ok(Response::Lookup(lookup)) => Some(Statement {
            node: lookup.node_id,
            key: Some(lookup.public_key),
            record: lookup.record,
            changes: lookup.key_changes,
            location: None,
        }),
        Ok(_) | Err(_) => None,
    }
}

/// The answer in the registry's `reply` to a question that is not about a node's key or place.
pub(super) fn answer(query: &Query, reply: &[u8]) -> Answer {
    let response = match Response::parse(reply) {
        Ok(Response::Error { error }) => return failed(query, refusal(error)),
        Ok(response) => response,
        Err(error) => return failed(query, QueryError::Refused(error.to_string())),
    };
    match (query, response) {
        (Query::CheckTrust(_), Response::CheckTrust { trusted }) => Answer::Trusted(Ok(trusted)),
        (
            Query::RequestHandshake { .. }
            | Query::RespondHandshake { .. }
            | Query::ReportTrust(_)
            | Query::RevokeTrust(_),
            _,
        ) => Answer::Done(Ok(())),
        (Query::Resolve(_) | Query::PeerKey(_) | Query::CheckTrust(_), _) => {
            failed(query, QueryError::Refused("the registry sent another reply than asked for".to_owned()))
        }
    }
}

/// The answer that says that there is none.
pub(crate) fn failed(query: &Query, error: QueryError) -> Answer {
    match query {
        Query::Resolve(_) => Answer::Resolved(Err(error)),
        Query::PeerKey(_) => Answer::PeerKey(Err(error)),
        Query::CheckTrust(_) => Answer::Trusted(Err(error)),
        Query::RequestHandshake { .. }
        | Query::RespondHandshake { .. }
        | Query::ReportTrust(_)
        | Query::RevokeTrust(_) => Answer::Done(Err(error)),
    }
}

/// The words with which the registry refused, if `reply` is a refusal.
pub(super) fn refused(reply: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Head {
        error: Option<String>,
    }
    match serde_json::from_slice::<Head>(reply) {
        Ok(head) => head.error,
        Err(error) => Some(format!("the registry sent something that is no reply: {error}")),
    }
}

/// Refusals are text; these two words are what all registries since May 2026 use (spec/registry.md 3, 7.2).
fn refusal(text: String) -> QueryError {
    if text.contains("not found") {
        QueryError::NotFound
    } else if text.contains("is private") {
        QueryError::Denied
    } else {
        QueryError::Refused(text)
    }
}
