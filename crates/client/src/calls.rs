//! Everything a daemon can be asked besides streams and datagrams.

use std::time::{Duration, Instant};

use pilot_wire::ipc::paths::{Netcheck, Why};
use pilot_wire::ipc::{
    Call, Handshake, Health, HostnameSet, Info, Network, NodeStatus, Pending, PendingList, Request, Resolved,
    TagsSet, TrustState, TrustWait, Trusted, TrustedList, VisibilitySet, Waited, WebhookSet,
};
use pilot_wire::{Addr, NetworkId, NodeId, Port, StreamId};
use serde_json::Value;

use crate::{Client, Error};

/// The longest wait for trust that a reference daemon allows in one request (spec 1.6).
const REFERENCE_WAIT: Duration = Duration::from_secs(30);

/// About the node.
impl Client {
    /// The node, its peers and streams.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn info(&self) -> Result<Info, Error> {
        self.json(&Request::Info).await
    }

    /// Counters only.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn health(&self) -> Result<Health, Error> {
        self.json(&Request::Health).await
    }

    /// Finds a node by address, number or hostname. Only a hostname needs the registry; for the other two the
    /// result holds number and address, and an empty hostname.
    ///
    /// # Errors
    /// When nobody has that name, or the node is private and does not trust us.
    pub async fn resolve(&self, target: &str) -> Result<Resolved, Error> {
        let number = target.parse().map(|node| Addr::backbone(NodeId(node)));
        if let Ok(address) = target.parse::<Addr>().or(number) {
            return Ok(Resolved { node_id: address.node, address, ..Resolved::default() });
        }
        if self.is_reference() {
            return self.json(&Request::ResolveHostname { name: target }).await;
        }
        self.call(Call::Resolve { target: target.to_owned() }).await
    }

    /// Why a peer is reached as it is, or is not. With a `time`, the peer is tried and the registry asked, and the answer
    /// comes when both have answered or then; with none, it is what is known.
    ///
    /// # Errors
    /// When the peer is this node itself, or this node is not registered.
    pub async fn why(&self, peer: NodeId, time: Duration) -> Result<Why, Error> {
        self.call(Call::Why { node: peer, timeout_ms: millis(time) }).await
    }

    /// What the network in front of the node lets through, as far as beacon and registry answer within `time`.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn netcheck(&self, time: Duration) -> Result<Netcheck, Error> {
        self.call(Call::Netcheck { timeout_ms: millis(time) }).await
    }

    /// Names the node in the registry; an empty name takes the name away.
    ///
    /// # Errors
    /// When the name is taken or not allowed, or the registry does not answer.
    pub async fn set_hostname(&self, name: &str) -> Result<HostnameSet, Error> {
        self.json(&Request::SetHostname { name }).await
    }

    /// Public nodes answer everyone, private ones only those they trust.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn set_visibility(&self, public: bool) -> Result<VisibilitySet, Error> {
        self.json(&Request::SetVisibility { public }).await
    }

    /// Tags the node in the registry, with three tags at most; none takes all away.
    ///
    /// # Errors
    /// When there are too many, or the registry does not answer.
    pub async fn set_tags(&self, tags: &[String]) -> Result<TagsSet, Error> {
        self.json(&Request::SetTags { tags: tags.to_vec() }).await
    }

    /// Where the daemon posts its events; an empty URL turns it off.
    ///
    /// # Errors
    /// When the URL is not allowed.
    pub async fn set_webhook(&self, url: &str) -> Result<WebhookSet, Error> {
        self.json(&Request::SetWebhook { url }).await
    }

    /// Leaves the registry.
    ///
    /// # Errors
    /// When the registry does not answer.
    pub async fn deregister(&self) -> Result<(), Error> {
        self.json::<Value>(&Request::Deregister).await.map(drop)
    }

    /// Replaces the node's identity key; its number and address stay.
    ///
    /// # Errors
    /// When the registry does not agree.
    pub async fn rotate_key(&self) -> Result<Value, Error> {
        self.json(&Request::RotateKey).await
    }

    /// Ends a stream, whichever program it belongs to.
    ///
    /// # Errors
    /// When there is no such stream (a reference daemon does not say).
    pub async fn disconnect(&self, stream: StreamId) -> Result<(), Error> {
        if self.is_reference() {
            self.link().session().close_foreign(stream);
            return Ok(());
        }
        self.call::<Value>(Call::Disconnect { stream }).await.map(drop)
    }
}

/// Trust between nodes.
impl Client {
    /// Asks a node for trust. The owner of that node sees the justification.
    ///
    /// # Errors
    /// When the request can be delivered neither directly nor through the registry.
    pub async fn handshake(&self, node: NodeId, justification: &str) -> Result<NodeStatus, Error> {
        self.json(&Request::Handshake(Handshake::Send { node, justification })).await
    }

    /// Agrees to a node that asked.
    ///
    /// # Errors
    /// When that node has not asked.
    pub async fn approve(&self, node: NodeId) -> Result<NodeStatus, Error> {
        self.json(&Request::Handshake(Handshake::Approve { node })).await
    }

    /// Declines a node that asked. Its owner sees the reason.
    ///
    /// # Errors
    /// When that node has not asked.
    pub async fn reject(&self, node: NodeId, reason: &str) -> Result<NodeStatus, Error> {
        self.json(&Request::Handshake(Handshake::Reject { node, reason })).await
    }

    /// Takes trust back, on both sides.
    ///
    /// # Errors
    /// When that node is not trusted.
    pub async fn revoke(&self, node: NodeId) -> Result<NodeStatus, Error> {
        self.json(&Request::Handshake(Handshake::Revoke { node })).await
    }

    /// Who asked and waits for an answer.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn pending(&self) -> Result<Vec<Pending>, Error> {
        self.json(&Request::Handshake(Handshake::Pending)).await.map(|list: PendingList| list.pending)
    }

    /// Who is trusted.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn trusted(&self) -> Result<Vec<Trusted>, Error> {
        self.json(&Request::Handshake(Handshake::Trusted)).await.map(|list: TrustedList| list.trusted)
    }

    /// Waits until a node has answered a request for trust, or the time is over; tells how things stand then.
    ///
    /// # Errors
    /// When the connection fails.
    pub async fn wait_trust(&self, node: NodeId, timeout: Duration) -> Result<TrustWait, Error> {
        if !self.is_reference() {
            let timeout_ms = millis(timeout);
            return self.call(Call::WaitTrust { node, timeout_ms }).await;
        }
        let start = Instant::now();
        loop {
            let timeout = timeout.saturating_sub(start.elapsed()).min(REFERENCE_WAIT);
            let waited: Waited = self.json(&Request::Handshake(Handshake::Wait { node, timeout })).await?;
            if waited.trusted || timeout < REFERENCE_WAIT {
                let state = if waited.trusted { TrustState::Trusted } else { TrustState::Requested };
                return Ok(TrustWait { node_id: node, state, reason: String::new() });
            }
        }
    }
}

/// Networks. The answers are the registry's own JSON.
impl Client {
    /// All networks.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn network_list(&self) -> Result<Value, Error> {
        self.json(&Request::Network(Network::List)).await
    }

    /// Becomes a member; `token` is empty where none is asked for.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn network_join(&self, network: NetworkId, token: &str) -> Result<Value, Error> {
        self.json(&Request::Network(Network::Join { network, token })).await
    }

    /// Ends membership.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn network_leave(&self, network: NetworkId) -> Result<Value, Error> {
        self.json(&Request::Network(Network::Leave { network })).await
    }

    /// Who is in a network.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn network_members(&self, network: NetworkId) -> Result<Value, Error> {
        self.json(&Request::Network(Network::Members { network })).await
    }

    /// Invites a node.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn network_invite(&self, network: NetworkId, node: NodeId) -> Result<Value, Error> {
        self.json(&Request::Network(Network::Invite { network, node })).await
    }

    /// Takes the invitations to this node.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn network_invites(&self) -> Result<Value, Error> {
        self.json(&Request::Network(Network::PollInvites)).await
    }

    /// Answers an invitation.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn network_respond(&self, network: NetworkId, accept: bool) -> Result<Value, Error> {
        self.json(&Request::Network(Network::Respond { network, accept })).await
    }

    /// Sends a datagram to all members of a network.
    ///
    /// # Errors
    /// When the token is wrong or the registry does not answer.
    pub async fn broadcast(
        &self,
        network: NetworkId,
        port: Port,
        token: &str,
        data: &[u8],
    ) -> Result<(), Error> {
        self.order(&Request::Broadcast { network, port, token, data }).await.map(drop)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
