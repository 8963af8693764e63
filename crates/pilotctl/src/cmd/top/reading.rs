//! What the daemon says at one moment.

use std::time::Duration;

use pilot_client::{Client, NodeId};
use pilot_wire::ipc::{Call, ConnInfo, Health, PeerInfo, Status};

use crate::cmd::peers;
use crate::failure::Failure;

/// One answer to every question.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    /// When it was taken, counted from some beginning.
    pub(super) at: Duration,
    pub(super) status: Status,
    pub(super) health: Health,
    pub(super) peers: Vec<PeerInfo>,
    pub(super) streams: Vec<ConnInfo>,
}

impl Reading {
    pub(super) async fn take(client: &Client, at: Duration) -> Result<Self, Failure> {
        let (status, health, streams) =
            tokio::try_join!(client.call(Call::Status), client.health(), client.call(Call::Connections))?;
        let peers = peers::list(client).await?;
        Ok(Self { at, status, health, peers, streams })
    }

    pub(super) fn peer(&self, node: NodeId) -> Option<&PeerInfo> {
        self.peers.iter().find(|peer| peer.node_id == node)
    }
}
