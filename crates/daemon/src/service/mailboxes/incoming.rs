//! What peers say about mailboxes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_crypto::sealed_len;
use pilot_wire::dataexchange::{MessageId, NOT_WANTED, Receipt, ReceiptState};
use pilot_wire::mailboxes::MINE_MAX;
use pilot_wire::{Addr, NodeId, Port};

use super::letter::{self, Inside, Party};
use super::shelf::Deposit;
use super::{Inner, Mailboxes, RECEIPT_PEERS_MAX, RECEIPTS_MAX, locked};
use crate::service::Remote;

/// What a mailbox brought, opened: it is treated as if its author had brought it.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) author: Remote,
    pub(crate) inside: Inside,
}

/// A failure of this node's own, in words for a peer.
const TROUBLE: &str = "this node cannot use its disk";

impl Mailboxes {
    fn inner(&self) -> Result<&Arc<Inner>, String> {
        // The reason is this node's own affair.
        self.0.as_ref().map_err(|_| "this node has no mailboxes".to_owned())
    }

    /// A peer asks whether its messages are kept here. It is there, so what is kept goes to it now.
    pub(crate) async fn on_keeps(&self, from: &Remote) -> Result<(), String> {
        let inner = self.inner()?;
        let owner = from.endpoint.addr.node;
        inner.may_use(owner)?;
        inner.owe_kept(owner).await;
        inner.heard_of(owner);
        let allowance =
            inner.book(move |book| book.allowance(owner)).await.map_err(|_| TROUBLE.to_owned())?;
        allowance.map(drop).ok_or_else(|| "this node has not been told to keep messages for you".to_owned())
    }

    /// A peer says who keeps its messages.
    pub(crate) async fn on_announcement(&self, from: &Remote, nodes: Vec<NodeId>) -> Result<(), String> {
        let inner = self.inner()?;
        let peer = from.endpoint.addr.node;
        if !inner.is_trusted(peer) {
            return Err("mailboxes are remembered of trusted nodes only".to_owned());
        }
        if nodes.len() > MINE_MAX {
            return Err(format!("a node has at most {MINE_MAX} mailboxes"));
        }
        let mut seen = BTreeSet::new();
        let nodes: Vec<NodeId> =
            nodes.into_iter().filter(|&node| node != peer && seen.insert(node)).collect();
        tracing::info!(%peer, ?nodes, "says who keeps its messages");
        match inner.book(move |book| book.learn(peer, nodes)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err("no more mailboxes are remembered here".to_owned()),
            Ok(Err(error)) => {
                tracing::warn!(%error, "a peer's mailboxes are not remembered");
                Err(TROUBLE.to_owned())
            }
            Err(_) => Err(TROUBLE.to_owned()),
        }
    }

    /// A peer leaves a sealed message for somebody else. When this returns `Ok` it survives a crash.
    pub(crate) async fn on_deposit(
        &self,
        from: &Remote,
        to: NodeId,
        id: MessageId,
        ttl_ms: u64,
        sealed: Bytes,
    ) -> Result<(), String> {
        let inner = self.inner()?;
        let depositor = from.endpoint.addr.node;
        let allowance = inner.book(move |book| book.allowance(to)).await.map_err(|_| TROUBLE.to_owned())?;
        let Some(allowance) = allowance else {
            return Err(format!("this node keeps no messages for {}", Addr::backbone(to)));
        };
        inner.may_use(to)?;
        inner.may_use(depositor)?;
        if sealed.len() < sealed_len(0) {
            return Err("that is no sealed message".to_owned());
        }
        let ttl = Duration::from_millis(ttl_ms);
        let put = inner.shelf(move |shelf| {
            let deposit = Deposit { from: depositor, id: &id, ttl, sealed: &sealed };
            shelf.put(to, allowance, deposit, SystemTime::now())
        });
        match put.await {
            Ok(Ok(put)) => {
                tracing::debug!(%depositor, owner = %to, ?put, "a message is kept");
                // The owner may be there, and only out of the sender's reach.
                inner.owe(to);
                Ok(())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(TROUBLE.to_owned()),
        }
    }

    /// A mailbox brings a sealed message. An error that begins with [`NOT_WANTED`] tells it not to bring it again.
    pub(crate) async fn open_letter(
        &self,
        mailbox: &Remote,
        from: NodeId,
        id: &MessageId,
        sealed: Bytes,
    ) -> Result<Opened, String> {
        let inner = self.inner()?;
        let via = mailbox.endpoint.addr;
        let not_wanted = |why: &str| Err(format!("{NOT_WANTED}{why}"));
        let carrier = via.node;
        let ours = inner.book(move |book| book.mine().contains(&carrier)).await;
        if !ours.unwrap_or(false) && !inner.is_trusted(carrier) {
            return Err("this node has no such mailbox".to_owned());
        }
        if !inner.is_trusted(from) {
            return not_wanted("its sender is not trusted here");
        }
        let known = inner.handle.describe(from).await;
        let (Some(key), Some(identity)) = (known.key, inner.handle.identity().await) else {
            return Err("the sender's key is not known here yet".to_owned());
        };
        let (own, now) = (inner.handle.node(), SystemTime::now());
        match letter::read(&identity, own, Party { node: from, key }, id, sealed.into(), now) {
            Ok(inside) => {
                let endpoint = Addr::backbone(from).port(Port::DATA_EXCHANGE);
                let author = Remote { endpoint, hostname: known.hostname, key: Some(key), via: Some(via) };
                Ok(Opened { author, inside })
            }
            Err(error) => {
                tracing::warn!(mailbox = %via, %from, %id, %error, "a letter is dropped");
                not_wanted(&error.to_string())
            }
        }
    }

    /// A message that a mailbox brought is in the inbox, now or already before: its author will hear of it.
    pub(crate) fn delivered(&self, author: NodeId, id: MessageId) {
        let Ok(inner) = &self.0 else { return };
        {
            let mut standing = locked(&inner.standing);
            let receipts = &mut standing.receipts;
            if receipts.len() >= RECEIPT_PEERS_MAX && !receipts.contains_key(&author) {
                return;
            }
            let waiting = receipts.entry(author).or_default();
            if waiting.len() >= RECEIPTS_MAX {
                return;
            }
            waiting.push(Receipt { id, state: ReceiptState::Stored });
        }
        inner.owe(author);
    }
}

impl Inner {
    /// Whether the rules let a node leave messages here, or have them kept.
    fn may_use(&self, node: NodeId) -> Result<(), String> {
        self.policy.may_use_mailbox(node).map_err(|forbidden| forbidden.to_string())
    }

    /// If anything is kept for a node, it is to be brought.
    async fn owe_kept(self: &Arc<Self>, owner: NodeId) {
        let load = self.shelf(move |shelf| shelf.load(owner)).await;
        if load.is_ok_and(|load| load.messages > 0) {
            self.owe(owner);
        }
    }
}
