//! What peers may do here.

use pilot_wire::NodeId;
use pilot_wire::ipc::Failure;
use pilot_wire::policy::{Reply, Request};

/// The rules in force; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Policy {}

/// Why the rules refuse something. The text goes to the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by policy: {0}")]
pub(super) struct Forbidden(pub(super) String);

impl Policy {
    /// Answers an application.
    #[expect(clippy::unused_async, reason = "filled in with the rules")]
    pub(super) async fn call(&self, _request: Request) -> Result<Reply, Failure> {
        Ok(Reply::State {})
    }

    /// Whether a message of this length may come in now; counts it.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "filled in with the rules")]
    pub(super) fn admit_message(&self, _from: NodeId, _bytes: u64) -> Result<(), Forbidden> {
        Ok(())
    }

    /// Whether a node may publish on this topic here.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "filled in with the rules")]
    pub(super) fn may_publish(&self, _peer: NodeId, _topic: &str) -> Result<(), Forbidden> {
        Ok(())
    }

    /// Whether a node may subscribe to this topic here.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "filled in with the rules")]
    pub(super) fn may_subscribe(&self, _peer: NodeId, _topic: &str) -> Result<(), Forbidden> {
        Ok(())
    }

    /// Whether an event about this topic may go to a node.
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "filled in with the rules")]
    pub(super) fn may_hear(&self, _peer: NodeId, _topic: &str) -> Result<(), Forbidden> {
        Ok(())
    }
}
