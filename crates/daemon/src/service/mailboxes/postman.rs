//! Brings nodes what is owed to them: kept messages to their owners, receipts to senders, word of this node's mailboxes
//! to trusted peers, and to those mailboxes the question whether they still are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{Control, MessageId, Receipt};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::letter::Inside;
use super::rounds::{AT_ONCE, Ended};
use super::way::{Lost, Said, Way};
use super::{Inner, locked};
use crate::handle::Sign;

/// Receipts in one frame.
const RECEIPTS_AT_ONCE: usize = 256;

/// For how long mailboxes keep receipts and word of other mailboxes: no longer than the message that they are about.
const WORD_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// When nothing is kept and nobody is due.
const LONG: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn run(inner: Arc<Inner>) {
    let mut signs = inner.handle.signs();
    let mut trusted = inner.handle.trusted();
    inner.begin().await;
    let mut visits = JoinSet::new();
    let mut visited = BTreeMap::new();
    loop {
        while let Some(node) = inner.next_visit() {
            let visiting = Arc::clone(&inner);
            let task = visits.spawn(async move { visiting.visit(node).await });
            visited.insert(task.id(), node);
        }
        let wake = inner.wake_at(visits.len() >= AT_ONCE).await;
        tokio::select! {
            () = inner.news.notified() => {}
            sign = signs.recv() => match sign {
                Ok(Sign::Peer(peer)) => inner.on_peer(peer),
                Ok(Sign::Network) | Err(RecvError::Lagged(_)) => inner.on_network(),
                Err(RecvError::Closed) => return,
            },
            changed = trusted.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = trusted.borrow_and_update().clone();
                inner.on_trust(now).await;
            }
            Some(ended) = visits.join_next_with_id() => {
                let (task, ended) = match ended {
                    Ok((task, ended)) => (task, ended),
                    Err(error) => {
                        tracing::error!(%error, "a visit crashed");
                        (error.id(), Ended::WhenHeardOf)
                    }
                };
                if let Some(node) = visited.remove(&task) {
                    locked(&inner.rounds).ended(node, ended, Instant::now());
                    inner.visited.notify_waiters();
                }
            }
            () = tokio::time::sleep_until(wake.into()) => inner.expire().await,
        }
    }
}

impl Inner {
    /// What is owed from an earlier life of the daemon. Mailboxes hear that this node is back.
    async fn begin(self: &Arc<Self>) {
        let mine = self.book(|book| book.mine().to_vec()).await.unwrap_or_default();
        locked(&self.standing).to_ask.extend(mine.iter().copied());
        for node in mine {
            self.owe(node);
        }
        let owners = self.shelf(|shelf| shelf.owners().collect::<Vec<_>>()).await.unwrap_or_default();
        for owner in owners {
            self.owe(owner);
        }
        let now = self.handle.trusted().borrow().clone();
        self.on_trust(now).await;
    }

    fn next_visit(&self) -> Option<NodeId> {
        locked(&self.rounds).next(Instant::now())
    }

    /// When somebody is due for a visit, or something kept is of no use any more.
    async fn wake_at(self: &Arc<Self>, all_busy: bool) -> Instant {
        let due = if all_busy { None } else { locked(&self.rounds).wake_at() };
        let expiry = self.shelf(|shelf| shelf.next_expiry()).await.ok().flatten();
        let now = Instant::now();
        let expiry = expiry.map(|at| now + at.duration_since(SystemTime::now()).unwrap_or_default());
        [due, expiry].into_iter().flatten().fold(now + LONG, Instant::min)
    }

    async fn expire(self: &Arc<Self>) {
        if let Err(error) = self.shelf(|shelf| shelf.expire(SystemTime::now())).await {
            tracing::error!(%error, "what is kept is not looked through");
        }
    }

    fn on_peer(&self, peer: NodeId) {
        let is_mailbox = locked(&self.standing).agreed.contains_key(&peer);
        if is_mailbox {
            // It may have been started anew and not know that this node is there.
            locked(&self.standing).to_ask.insert(peer);
            self.owe(peer);
        }
        self.heard_of(peer);
    }

    fn on_network(&self) {
        let mailboxes: Vec<NodeId> = locked(&self.standing).agreed.keys().copied().collect();
        locked(&self.standing).to_ask.extend(mailboxes.iter().copied());
        for node in mailboxes {
            self.owe(node);
        }
        locked(&self.rounds).network_changed(Instant::now());
        self.news.notify_one();
    }

    async fn on_trust(self: &Arc<Self>, trusted: Vec<NodeId>) {
        let behind = self
            .book(move |book| {
                if let Err(error) = book.retain(&trusted) {
                    tracing::warn!(%error, "mailboxes of peers that are trusted no more are still on disk");
                }
                trusted.into_iter().filter(|&peer| book.is_behind(peer)).collect::<Vec<_>>()
            })
            .await
            .unwrap_or_default();
        for peer in behind {
            self.owe(peer);
        }
    }

    async fn visit(self: Arc<Self>, node: NodeId) -> Ended {
        let failures = locked(&self.rounds).failures(node);
        let first = match self.errand(node).await {
            Some(first) => first,
            None => return Ended::Done,
        };
        match Way::open(&self.client, node).await {
            Ok(way) => match self.bring(way, node, first).await {
                Ok(ended) => ended,
                Err(lost) => {
                    tracing::debug!(%node, %lost, "a visit broke off");
                    Ended::Later
                }
            },
            Err(lost) => self.not_there(node, failures, &lost).await,
        }
    }

    /// Everything that is owed to a node, the most useful first.
    async fn bring(self: &Arc<Self>, mut way: Way, node: NodeId, first: Errand) -> Result<Ended, Lost> {
        let mut errand = Some(first);
        while let Some(next) = errand {
            let said = match &next {
                Errand::Ask => way.say(&Control::Keeps, &Bytes::new()).await?,
                Errand::Announce(nodes) => {
                    way.say(&Control::Mailboxes { nodes: nodes.clone() }, &Bytes::new()).await?
                }
                Errand::Receipts(receipts) => {
                    way.say(&Control::Receipts { receipts: receipts.clone() }, &Bytes::new()).await?
                }
                Errand::Kept => return self.bring_kept(&mut way, node).await,
            };
            self.has_heard(node, next, said).await;
            errand = self.errand(node).await;
        }
        Ok(Ended::Done)
    }

    async fn errand(self: &Arc<Self>, node: NodeId) -> Option<Errand> {
        let trusted = self.is_trusted(node);
        let (is_mine, behind) = self
            .book(move |book| {
                let behind = (trusted && book.is_behind(node)).then(|| book.mine().to_vec());
                (book.mine().contains(&node), behind)
            })
            .await
            .ok()?;
        {
            let mut standing = locked(&self.standing);
            if standing.to_ask.contains(&node) {
                if is_mine {
                    return Some(Errand::Ask);
                }
                standing.to_ask.remove(&node);
            }
            if let Some(nodes) = behind {
                return Some(Errand::Announce(nodes));
            }
            if let Some(receipts) = standing.receipts.get(&node) {
                return Some(Errand::Receipts(receipts.iter().take(RECEIPTS_AT_ONCE).cloned().collect()));
            }
        }
        let load = self.shelf(move |shelf| shelf.load(node)).await.ok()?;
        (load.messages > 0).then_some(Errand::Kept)
    }

    /// The node has heard it. What it says of it changes nothing about it, except for a mailbox that was asked.
    async fn has_heard(self: &Arc<Self>, node: NodeId, errand: Errand, said: Said) {
        match errand {
            Errand::Ask => {
                let agreed = match said {
                    Said::Yes => Ok(()),
                    Said::No(reason) | Said::NotWanted(reason) => Err(reason),
                    Said::What => Err("it runs a release that keeps no messages for others".to_owned()),
                };
                if let Err(reason) = &agreed {
                    tracing::warn!(mailbox = %node, reason, "a mailbox of this node does not keep its messages");
                }
                let mut standing = locked(&self.standing);
                standing.to_ask.remove(&node);
                standing.agreed.insert(node, agreed);
            }
            Errand::Announce(nodes) => {
                let told = self.book(move |book| book.told(node, nodes)).await;
                if let Ok(Err(error)) = told {
                    tracing::warn!(%error, "who knows of the mailboxes is not written down");
                }
                locked(&self.standing).told_by_letter.remove(&node);
            }
            Errand::Receipts(receipts) => self.receipts_are_brought(node, &receipts),
            Errand::Kept => {}
        }
    }

    fn receipts_are_brought(&self, node: NodeId, brought: &[Receipt]) {
        let mut standing = locked(&self.standing);
        if let Some(waiting) = standing.receipts.get_mut(&node) {
            waiting.drain(..brought.len().min(waiting.len()));
            if waiting.is_empty() {
                standing.receipts.remove(&node);
            }
        }
    }

    /// Kept messages to their owner: those of one sender in their order. One that is not taken holds up those of its
    /// sender, and nobody else's.
    async fn bring_kept(self: &Arc<Self>, way: &mut Way, owner: NodeId) -> Result<Ended, Lost> {
        let mut held_up = BTreeSet::new();
        let mut last = 0;
        loop {
            let next = self.shelf(move |shelf| {
                let kept = shelf.next_after(owner, last, SystemTime::now())?;
                let sealed = shelf.read(owner, &kept);
                Some((kept, sealed))
            });
            let Some((kept, sealed)) = next.await.ok().flatten() else { break };
            last = kept.number;
            if held_up.contains(&kept.from) {
                continue;
            }
            let sealed = match sealed {
                Ok(sealed) => sealed,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.forget(owner, kept.number).await;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(%error, "a kept message cannot be read");
                    held_up.insert(kept.from);
                    continue;
                }
            };
            let word = Control::Forward { from: kept.from, id: kept.id.clone() };
            match way.say(&word, &sealed).await? {
                Said::Yes => self.forget(owner, kept.number).await,
                Said::NotWanted(reason) => {
                    tracing::warn!(%owner, from = %kept.from, id = %kept.id, reason, "a kept message is not wanted");
                    self.forget(owner, kept.number).await;
                }
                Said::No(reason) => {
                    tracing::debug!(%owner, from = %kept.from, reason, "a kept message is not taken now");
                    held_up.insert(kept.from);
                }
                Said::What => return Ok(Ended::WhenHeardOf),
            }
        }
        Ok(if held_up.is_empty() { Ended::Done } else { Ended::Later })
    }

    async fn forget(self: &Arc<Self>, owner: NodeId, number: u64) {
        if let Err(error) = self.shelf(move |shelf| shelf.remove(owner, number)).await {
            tracing::error!(%error, "a kept message is not removed");
        }
    }

    /// The node cannot be reached. What mailboxes of its can bring is left with them, once.
    async fn not_there(self: &Arc<Self>, node: NodeId, failures: u32, lost: &Lost) -> Ended {
        tracing::debug!(%node, %lost, "cannot be visited");
        if failures == 0 || self.has_receipts(node) {
            self.leave_words(node).await;
        }
        let mut standing = locked(&self.standing);
        if standing.to_ask.contains(&node) {
            standing.agreed.insert(node, Err(lost.to_string()));
            return Ended::Later;
        }
        Ended::WhenHeardOf
    }

    fn has_receipts(&self, node: NodeId) -> bool {
        locked(&self.standing).receipts.contains_key(&node)
    }

    async fn leave_words(self: &Arc<Self>, node: NodeId) {
        let behind = self.book(move |book| book.is_behind(node).then(|| book.mine().to_vec())).await;
        if let Ok(Some(nodes)) = behind
            && self.is_trusted(node)
            && locked(&self.standing).told_by_letter.insert(node)
            && !self.leave_word(node, Control::Mailboxes { nodes }).await
        {
            locked(&self.standing).told_by_letter.remove(&node);
        }
        loop {
            let receipts: Vec<Receipt> = match locked(&self.standing).receipts.get(&node) {
                Some(receipts) => receipts.iter().take(RECEIPTS_AT_ONCE).cloned().collect(),
                None => return,
            };
            let word = Control::Receipts { receipts: receipts.clone() };
            if !self.leave_word(node, word).await {
                return;
            }
            self.receipts_are_brought(node, &receipts);
        }
    }

    async fn leave_word(self: &Arc<Self>, to: NodeId, word: Control) -> bool {
        let Ok(random) = pilot_crypto::random_bytes() else { return false };
        let id = MessageId::from_random(random);
        for mailbox in self.mailboxes_of(to).await {
            match self.leave(mailbox, to, &id, Inside::Word(word.clone()), WORD_LIFE).await {
                Ok(()) => return true,
                Err(why) => tracing::debug!(%to, %why, "a word is not left with a mailbox"),
            }
        }
        false
    }
}

/// One thing that is owed to a node.
#[derive(Debug, Clone)]
enum Errand {
    /// Whether it keeps this node's messages.
    Ask,
    /// Who keeps this node's messages.
    Announce(Vec<NodeId>),
    /// What became of its messages.
    Receipts(Vec<Receipt>),
    /// What is kept for it.
    Kept,
}
