//! Nodes that keep messages for this one while it is away, and nodes this one keeps messages for.

use pilot_wire::NodeId;
use pilot_wire::ipc::Call;
use pilot_wire::mailboxes::{Reply, Request, State};

use crate::{Client, Error};

/// Mailboxes.
impl Client {
    /// The mailboxes of this node, what it keeps for others, and the mailboxes of its peers.
    ///
    /// # Errors
    /// When the daemon has no mailboxes, or the connection fails.
    pub async fn mailboxes(&self) -> Result<State, Error> {
        self.about_mailboxes(Request::Show).await
    }

    /// Has `node` keep messages for this node while it is away, if it agrees now. Trusted peers are told. A node has up
    /// to [`MINE_MAX`](pilot_wire::mailboxes::MINE_MAX) mailboxes; the one that was named first is tried first.
    ///
    /// # Errors
    /// When that node cannot be reached, or does not agree.
    pub async fn use_mailbox(&self, node: NodeId) -> Result<State, Error> {
        self.about_mailboxes(Request::Use { node }).await
    }

    /// Has `node` keep no more messages for this node. What it has already still comes.
    ///
    /// # Errors
    /// When it is no mailbox of this node.
    pub async fn stop_mailbox(&self, node: NodeId) -> Result<State, Error> {
        self.about_mailboxes(Request::Stop { node }).await
    }

    /// Keeps messages for `node`: up to `max_bytes` and `max_messages`; what is not given is as it was, or
    /// [`BYTES_PER_OWNER`](pilot_wire::mailboxes::BYTES_PER_OWNER) and
    /// [`MESSAGES_PER_OWNER`](pilot_wire::mailboxes::MESSAGES_PER_OWNER).
    ///
    /// # Errors
    /// When it is beyond what a node keeps in all.
    pub async fn allow_mailbox(
        &self,
        node: NodeId,
        max_bytes: Option<u64>,
        max_messages: Option<u32>,
    ) -> Result<State, Error> {
        self.about_mailboxes(Request::Allow { node, max_bytes, max_messages }).await
    }

    /// Takes no more messages for `node`. With `discard`, those that are kept are thrown away.
    ///
    /// # Errors
    /// When none are taken for it.
    pub async fn deny_mailbox(&self, node: NodeId, discard: bool) -> Result<State, Error> {
        self.about_mailboxes(Request::Deny { node, discard }).await
    }

    async fn about_mailboxes(&self, request: Request) -> Result<State, Error> {
        let Reply::State(state) = self.call(Call::Mailboxes(request)).await?;
        Ok(*state)
    }
}
