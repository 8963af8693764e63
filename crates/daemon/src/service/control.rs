//! What our nodes tell each other about messages: to whom each word goes.

use bytes::Bytes;
use pilot_wire::dataexchange::{Answer, Control, FrameType, TransferWord};

use super::Remote;
use super::mailboxes::Mailboxes;
use super::outbox::Outbox;
use super::serving::Serving;

/// Those who are told.
#[derive(Clone)]
pub(super) struct Controls {
    pub(super) outbox: Outbox,
    pub(super) serving: Serving,
    pub(super) mailboxes: Mailboxes,
}

impl Controls {
    /// Passes a word on; what is answered means that it has been taken in.
    pub(super) async fn handle(&self, from: &Remote, control: Control, body: Bytes) -> Answer {
        let bytes = body.len() as u64;
        let taken = match control {
            Control::Receipts { receipts } => {
                self.outbox.on_receipts(from.endpoint.addr.node, receipts).await;
                Ok(())
            }
            Control::Cancel { id } => {
                self.serving.on_cancel(from, &id);
                Ok(())
            }
            Control::Mailboxes { nodes } => self.mailboxes.on_announcement(from, nodes).await,
            Control::Keeps => self.mailboxes.on_keeps(from).await,
            Control::Deposit { to, id, ttl_ms } => {
                self.mailboxes.on_deposit(from, to, id, ttl_ms, body).await
            }
            // What a mailbox brings is opened and taken in by the exchange itself.
            Control::Forward { .. } => Err("a letter in a letter".to_owned()),
            Control::Transfer { word: TransferWord::WideWindow } => Ok(()),
            // Folders are a matter of the connection, which passes none on to here.
            Control::Transfer {
                word: TransferWord::Folder { .. } | TransferWord::Held | TransferWord::Done,
            } => Err("out of place".to_owned()),
        };
        // With the name of a type that everybody knows: the name CONTROL in an answer is that of a node that does not know it.
        let kind = FrameType::TEXT;
        match taken {
            Ok(()) => Answer::Stored { kind, bytes, duplicate: false },
            Err(reason) => Answer::Failed { kind, reason },
        }
    }
}
