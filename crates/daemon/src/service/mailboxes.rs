//! Messages kept for peers that are away, and by peers while this node is.

use super::Remote;
use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::MessageId;
use pilot_wire::ipc::Failure;
use pilot_wire::mailboxes::{Reply, Request};

/// The service; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Mailboxes {}

impl Mailboxes {
    /// Answers an application.
    #[expect(clippy::unused_async, reason = "filled in with the service")]
    pub(super) async fn call(&self, _request: Request) -> Result<Reply, Failure> {
        Ok(Reply::State {})
    }

    /// A peer says who keeps its messages.
    #[expect(clippy::unused_self, reason = "filled in with mailboxes")]
    pub(super) fn on_announcement(&self, _from: &Remote, _nodes: Vec<NodeId>) {}

    /// A peer leaves a sealed message for somebody else.
    #[expect(clippy::unused_async, reason = "filled in with mailboxes")]
    pub(super) async fn on_deposit(
        &self,
        _from: &Remote,
        _to: NodeId,
        _id: MessageId,
        _ttl_ms: u64,
        _sealed: Bytes,
    ) -> Result<(), String> {
        Err("this node keeps no messages for others".to_owned())
    }

    /// A mailbox brings a sealed message.
    #[expect(clippy::unused_async, reason = "filled in with mailboxes")]
    pub(super) async fn on_forward(
        &self,
        _mailbox: &Remote,
        _from: NodeId,
        _id: MessageId,
        _sealed: Bytes,
    ) -> Result<(), String> {
        Err("this node has no mailbox".to_owned())
    }
}
