//! Leaving sealed messages with the mailboxes of others.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_wire::dataexchange::{Control, Delivery, MessageId};
use pilot_wire::{Addr, NodeId};

use super::letter::{self, Inside, Party};
use super::way::{Said, Way};
use super::{Inner, Mailboxes};

/// Why a message was not left with a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotLeft {
    /// It cannot be sealed, now or ever.
    #[error("it cannot be sealed: {0}")]
    Unsealable(String),
    /// The mailbox cannot be reached at present.
    #[error("mailbox {}: {reason}", Addr::backbone(*mailbox))]
    Unreachable {
        /// Which.
        mailbox: NodeId,
        /// Why.
        reason: String,
    },
    /// The mailbox does not take it.
    #[error("mailbox {} did not take it: {reason}", Addr::backbone(*mailbox))]
    Declined {
        /// Which.
        mailbox: NodeId,
        /// In its own words.
        reason: String,
    },
}

impl Mailboxes {
    /// The nodes that keep messages for a peer, the first choice first: by the peer's own word, or, as long as it has
    /// given none, those that this node uses itself. Peers that have never been there at the same time may share one.
    pub(crate) async fn mailboxes_of(&self, peer: NodeId) -> Vec<NodeId> {
        match &self.0 {
            Ok(inner) => inner.mailboxes_of(peer).await,
            Err(_) => Vec::new(),
        }
    }

    /// Leaves a message for `to` with one mailbox. When this returns `Ok`, it survives crashes there. The delivery's tag
    /// must bear its id; the same id again is the same message.
    pub(crate) async fn leave_message(
        &self,
        mailbox: NodeId,
        to: NodeId,
        id: &MessageId,
        delivery: Delivery,
        ttl: Duration,
    ) -> Result<(), NotLeft> {
        match &self.0 {
            Ok(inner) => inner.leave(mailbox, to, id, Inside::Message(delivery), ttl).await,
            Err(why) => Err(NotLeft::Unsealable(why.to_string())),
        }
    }
}

impl Inner {
    pub(super) async fn mailboxes_of(self: &Arc<Self>, peer: NodeId) -> Vec<NodeId> {
        let own = self.handle.node();
        let named = move |book: &mut super::Book| book.known(peer).unwrap_or(book.mine()).to_vec();
        let mut nodes = self.book(named).await.unwrap_or_default();
        nodes.retain(|&node| node != own && node != peer);
        nodes
    }

    pub(super) async fn leave(
        &self,
        mailbox: NodeId,
        to: NodeId,
        id: &MessageId,
        inside: Inside,
        ttl: Duration,
    ) -> Result<(), NotLeft> {
        let unreachable = |lost: super::Lost| NotLeft::Unreachable { mailbox, reason: lost.to_string() };
        let sealed = self.sealed(to, id, inside, ttl).await?;
        let mut way = Way::open(&self.client, mailbox).await.map_err(unreachable)?;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let word = Control::Deposit { to, id: id.clone(), ttl_ms };
        match way.say(&word, &sealed).await.map_err(unreachable)? {
            Said::Yes => Ok(()),
            Said::No(reason) | Said::NotWanted(reason) => Err(NotLeft::Declined { mailbox, reason }),
            Said::What => Err(NotLeft::Declined {
                mailbox,
                reason: "it runs a release that keeps no messages for others".to_owned(),
            }),
        }
    }

    async fn sealed(
        &self,
        to: NodeId,
        id: &MessageId,
        inside: Inside,
        ttl: Duration,
    ) -> Result<Bytes, NotLeft> {
        let unsealable = |why: &str| NotLeft::Unsealable(why.to_owned());
        let key = self.handle.describe(to).await.key;
        let key = key.ok_or_else(|| unsealable("the receiver's key is not known here yet"))?;
        let identity = self.handle.identity().await;
        let identity = identity.ok_or_else(|| unsealable("the daemon is shutting down"))?;
        let (own, to) = (self.handle.node(), Party { node: to, key });
        letter::write(&identity, own, to, id, inside, SystemTime::now(), ttl)
            .map(Bytes::from)
            .map_err(|error| NotLeft::Unsealable(error.to_string()))
    }
}
