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
    pub(super) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        if let Request::Send(send) = request {
            let body = match send.body {
                pilot_wire::outbox::Body::Inline(text) => pilot_wire::serving::decode(&text).unwrap_or_default(),
                pilot_wire::outbox::Body::Path(path) => tokio::fs::read(path).await.unwrap_or_default(),
            };
            let bytes = body.len() as u64;
            let letter = Letter {
                to: send.to,
                kind: send.kind,
                body: body.into(),
                message_id: send.message_id,
                reply_to: send.reply_to,
                extension: send.extension,
                ttl: None,
            };
            let id = self.enqueue(letter).await?;
            let now = crate::datetime::rfc3339(std::time::SystemTime::now());
            return Ok(Reply::Item(Box::new(pilot_wire::outbox::Item {
                id,
                to: send.to,
                to_hostname: None,
                kind: send.kind,
                bytes,
                name: None,
                reply_to: None,
                state: pilot_wire::outbox::State::Stored,
                created_at: now.clone(),
                state_at: now.clone(),
                expires_at: now,
                attempts: 1,
                next_try_ms: None,
                reason: None,
                via: None,
                ack: None,
                tagged: None,
            })));
        }
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
            extension: letter.extension,
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
    pub(super) async fn send_live(&self, to: Addr, delivery: Delivery) {
        let mut frame = Vec::new();
        delivery.emit(&mut frame);
        self.direct(to, &frame).await;
    }

    async fn direct(&self, to: Addr, frame: &[u8]) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let Some(client) = &self.client else { return };
        let Ok(mut stream) = client.dial(to.port(pilot_wire::Port::DATA_EXCHANGE)).await else { return };
        let _ = stream.write_all(frame).await;
        let _ = stream.finish().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }

    /// Has a word carried to a node of ours, as soon as it is there. It survives no restart.
    pub(super) async fn tell(&self, to: NodeId, control: Control, body: Bytes) {
        let mut frame = Vec::new();
        control.emit(&body, &mut frame);
        self.direct(Addr::backbone(to), &frame).await;
    }

    /// A peer says what became of our messages.
    pub(super) async fn on_receipts(&self, _from: NodeId, _receipts: Vec<Receipt>) {}

    /// An answer to one of our messages is in the inbox.
    pub(super) async fn on_answer(&self, _from: NodeId, _reply_to: &MessageId) {}
}
