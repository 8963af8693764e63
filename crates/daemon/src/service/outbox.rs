//! Messages of this node on their way to others.

use bytes::Bytes;
use pilot_client::Client;
use pilot_wire::Addr;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{Control, Delivery, Extension, MessageId, Receipt};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::outbox::{Kind, Reply, Request};

use crate::handle::Handle;

/// A message to be delivered.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) to: Addr,
    pub(super) kind: Kind,
    pub(super) body: Bytes,
    pub(super) message_id: Option<MessageId>,
    pub(super) reply_to: Option<MessageId>,
    pub(super) extension: Extension,
    /// How long it is tried; the longest that is allowed when absent.
    pub(super) ttl: Option<std::time::Duration>,
}

/// The way to the outbox; cheap to clone.
#[derive(Clone)]
pub(super) struct Outbox {
    client: Option<Client>,
}

impl Outbox {
    pub(super) fn start(client: Client, _handle: &Handle) -> Self {
        Self { client: Some(client) }
    }

    /// One that leads nowhere, for tests of others.
    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self { client: None }
    }

    /// Answers an application.
    pub(super) async fn call(&self, _request: Request) -> Result<Reply, Failure> {
        Err(Failure::new(Code::Unsupported, "this daemon has no outbox yet"))
    }

    /// Takes a message over; when this returns, it survives a crash.
    pub(super) async fn enqueue(&self, letter: Letter) -> Result<MessageId, Failure> {
        let kind = match letter.kind {
            Kind::Text => pilot_client::MessageKind::Text,
            Kind::Json => pilot_client::MessageKind::Json,
            Kind::Binary | Kind::File => pilot_client::MessageKind::Binary,
        };
        let outgoing = pilot_client::Outgoing {
            message_id: letter.message_id,
            reply_to: letter.reply_to,
            ..pilot_client::Outgoing::new(kind, letter.body)
        };
        let Some(client) = &self.client else { return Err(Failure::new(Code::Closed, "nowhere to send it")) };
        let receipt = client.send_message(letter.to, outgoing).await;
        receipt
            .map(|receipt| receipt.message_id)
            .map_err(|error| Failure::new(error.code(), error.to_string()))
    }

    /// Sends something that is of use now or never: a piece of an answer, word of progress. In order with what was sent
    /// live before; dropped when the peer cannot be reached at once.
    pub(super) async fn send_live(&self, _to: Addr, _delivery: Delivery) {}

    /// Has a word carried to a node of ours, as soon as it is there. It survives no restart.
    pub(super) async fn tell(&self, _to: NodeId, _control: Control, _body: Bytes) {}

    /// A peer says what became of our messages.
    pub(super) async fn on_receipts(&self, _from: NodeId, _receipts: Vec<Receipt>) {}

    /// An answer to one of our messages is in the inbox.
    pub(super) async fn on_answer(&self, _from: NodeId, _reply_to: &MessageId) {}
}
