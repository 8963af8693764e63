//! What a mailbox brings: opened, and then taken in as if its author had brought it.

use std::time::SystemTime;

use bytes::Bytes;
use pilot_wire::dataexchange::{Answer, FrameType, MessageId, NOT_WANTED, is_refused_for_good};
use pilot_wire::{NodeId, Port};

use super::{Connection, Taken, is_message};
use crate::service::mailboxes::Opened;
use crate::service::mailboxes::letter::Inside;

impl Connection<'_> {
    /// The answer tells the mailbox whether it may forget the letter.
    pub(super) async fn forwarded(&self, from: NodeId, id: MessageId, sealed: Bytes) -> Answer {
        // As to any word: see `Controls::handle`.
        let kind = FrameType::TEXT;
        let bytes = sealed.len() as u64;
        let controls = &self.exchange.controls;
        let Opened { author, inside } =
            match controls.mailboxes.open_letter(self.from, from, &id, sealed).await {
                Ok(opened) => opened,
                Err(reason) => return Answer::Failed { kind, reason },
            };
        // A letter comes by another's hand, and still only from those who might have come themselves.
        let node = author.endpoint.addr.node;
        if let Err(forbidden) = self.exchange.policy.may_open(node, Port::DATA_EXCHANGE) {
            // While the rules are broken it is only too early.
            let not_again = if forbidden.retry_after().is_none() { NOT_WANTED } else { "" };
            return Answer::Failed { kind, reason: format!("{not_again}{forbidden}") };
        }
        let delivery = match inside {
            Inside::Message(delivery) => delivery,
            Inside::Word(word) => return controls.handle(&author, word, Bytes::new()).await,
        };
        let as_author = Connection::new(self.exchange, &author);
        let taken = match is_message(&delivery.content) {
            false => as_author.store(delivery).await,
            true => match as_author.begin_message(delivery, SystemTime::now()).await {
                Taken::Answered(answer) => Ok(answer),
                Taken::Storing(message) => Ok(as_author.settled(message).await),
            },
        };
        match taken {
            Ok(Answer::Stored { duplicate, .. }) => {
                controls.mailboxes.delivered(from, id);
                Answer::Stored { kind, bytes, duplicate }
            }
            Ok(Answer::Failed { reason, .. } | Answer::Refused(reason)) => match is_refused_for_good(&reason)
            {
                true => Answer::Failed { kind, reason: format!("{NOT_WANTED}{reason}") },
                false => Answer::Failed { kind, reason },
            },
            Ok(Answer::Timed(_)) => Answer::Failed { kind, reason: "a time in a time".to_owned() },
            // A name that leads elsewhere will do so the next time, too.
            Err(closed) => Answer::Failed { kind, reason: format!("{NOT_WANTED}{closed}") },
        }
    }
}
