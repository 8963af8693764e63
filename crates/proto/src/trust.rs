//! Whom this node trusts, who asks to be, and whom it asked.
//!
//! The book is pure bookkeeping: it is told of requests, answers and the owner's decisions, and gives back
//! the steps that follow from them. Carrying the steps out is the node's business, storing the book the
//! daemon's.
//!
//! A relation starts with a request in one direction and ends with the other owner's yes (or with a request in
//! the other direction, which is a yes). Nothing a peer or the registry says makes it trusted unless our owner
//! asked or agreed (spec/registry.md 23 S0).
//!
//! An owner who joins a network agrees to its members, for as long as both are in it ([`Member`]). Who they are is what
//! the registry says; that is less than a handshake, and ends with the membership.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pilot_wire::{NetworkId, NodeId, PublicKey};

use crate::{Agreement, Side, TrustEvent};

/// Requests kept for the owner to decide. The oldest stay: somebody may be about to answer them.
pub const PENDING_MAX: usize = 256;

/// Own requests kept. Beyond this the oldest is forgotten, and its answer then means nothing.
pub const OUTGOING_MAX: usize = 1024;

/// Bytes of a justification that are kept; longer ones are cut.
pub const JUSTIFICATION_MAX: usize = 1024;

/// How long a request waits for the owner.
const PENDING_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a node whose trust was revoked cannot ask again.
const COOL_DOWN: Duration = Duration::from_secs(5 * 60);

/// Seconds since 1970, from the wall clock of the driver.
pub type UnixTime = u64;

/// Trust in one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The key pinned for the node. `None` until it is learned, when trust came through the registry.
    pub key: Option<PublicKey>,
    /// Since when.
    pub since: UnixTime,
    /// Whether the node's owner is known to have agreed too.
    pub mutual: bool,
}

/// Trust in a node that is in the same networks as ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As for any other; both sides are in the network, so it is mutual.
    pub trusted: Trusted,
    /// The networks that are the reason.
    pub networks: BTreeSet<NetworkId>,
    /// It asked for trust, and was told yes, which the registry has to be told is over when it is.
    pub answered: bool,
}

/// A request that waits for our owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The key of who asks, if it came with the request or was looked up.
    pub key: Option<PublicKey>,
    /// What they say, without control characters.
    pub justification: String,
    /// When it came.
    pub received: UnixTime,
    /// Whether the registry carried it, and so waits for an answer.
    pub relayed: bool,
}

/// A request of ours that waits for theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What we said.
    pub justification: String,
    /// When.
    pub sent: UnixTime,
}

/// What has to be done after a change of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The book must be stored.
    Store,
    /// Ask the registry to carry our request; bring it directly if that fails.
    SendRequest { to: NodeId },
    /// Bring the peer our yes.
    SendAccept { to: NodeId, relayed: bool },
    /// Bring the peer our no.
    SendReject { to: NodeId, reason: String, relayed: bool },
    /// Tell the peer and the registry that trust is over, and drop the tunnel.
    SendRevoke { to: NodeId },
    /// Tell the registry that we trust the node.
    Report { peer: NodeId },
    /// The peer ended trust: drop the tunnel.
    Dropped { peer: NodeId },
    /// Learn the key of a node that was trusted without one.
    LearnKey { of: NodeId },
    /// The peer is in no network of ours any more: drop the tunnel, and take back what the registry was told.
    Parted { peer: NodeId, answered: bool },
    /// Somebody should look.
    Tell(TrustEvent),
}

/// Why a decision could not be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no such request.
    #[error("node {0} has no pending request")]
    NotPending(NodeId),
    /// There is no such relation.
    #[error("node {0} was not trusted")]
    NotTrusted(NodeId),
    /// A node cannot trust itself.
    #[error("node {0} is this node")]
    Itself(NodeId),
}

/// All relations of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    trusted: BTreeMap<NodeId, Trusted>,
    members: BTreeMap<NodeId, Member>,
    pending: BTreeMap<NodeId, Pending>,
    outgoing: BTreeMap<NodeId, Outgoing>,
    revoked: BTreeMap<NodeId, UnixTime>,
    auto_approve: bool,
}

/// Reading and storing.
impl Book {
    /// A book with what was stored.
    #[must_use]
    pub fn restore(
        trusted: impl IntoIterator<Item = (NodeId, Trusted)>,
        pending: impl IntoIterator<Item = (NodeId, Pending)>,
        outgoing: impl IntoIterator<Item = (NodeId, Outgoing)>,
        revoked: impl IntoIterator<Item = (NodeId, UnixTime)>,
    ) -> Self {
        Self {
            trusted: trusted.into_iter().collect(),
            members: BTreeMap::new(),
            pending: pending.into_iter().take(PENDING_MAX).collect(),
            outgoing: outgoing.into_iter().take(OUTGOING_MAX).collect(),
            revoked: revoked.into_iter().collect(),
            auto_approve: false,
        }
    }

    /// Whether `node` is trusted, by agreement or as a member of a network of ours, with its record.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Trusted> {
        self.trusted.get(&node).or_else(|| Some(&self.members.get(&node)?.trusted))
    }

    /// Whether the owners agreed, with the record.
    #[must_use]
    pub fn agreed(&self, node: NodeId) -> Option<&Trusted> {
        self.trusted.get(&node)
    }

    /// A node that is trusted for no other reason than that it is in networks of ours.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node).filter(|_| !self.trusted.contains_key(&node))
    }

    /// Everybody in networks of ours, by number, also those with whom the owners agreed.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.members.iter().map(|(&node, member)| (node, member))
    }

    /// Everybody with whom the owners agreed, by number.
    pub fn trusted(&self) -> impl Iterator<Item = (NodeId, &Trusted)> {
        self.trusted.iter().map(|(&node, trusted)| (node, trusted))
    }

    /// Every request that waits for our owner, by number.
    pub fn pending(&self) -> impl Iterator<Item = (NodeId, &Pending)> {
        self.pending.iter().map(|(&node, pending)| (node, pending))
    }

    /// Every request of ours that waits for an answer, by number.
    pub fn outgoing(&self) -> impl Iterator<Item = (NodeId, &Outgoing)> {
        self.outgoing.iter().map(|(&node, outgoing)| (node, outgoing))
    }

    /// Nodes whose trust was ended, and when. They cannot ask again for a while.
    pub fn revoked(&self) -> impl Iterator<Item = (NodeId, UnixTime)> {
        self.revoked.iter().map(|(&node, &at)| (node, at))
    }

    /// Whether we asked `node` and have no answer.
    #[must_use]
    pub fn is_asked(&self, node: NodeId) -> bool {
        self.outgoing.contains_key(&node)
    }

    pub(crate) fn set_auto_approve(&mut self, on: bool) {
        self.auto_approve = on;
    }
}

/// The owner's decisions.
impl Book {
    pub(crate) fn request(&mut self, to: NodeId, justification: String, now: UnixTime) -> Vec<Step> {
        if self.pending.contains_key(&to) {
            return self.agree(to, Agreement::Mutual, now);
        }
        if self.outgoing.len() >= OUTGOING_MAX
            && let Some(oldest) =
                self.outgoing.iter().min_by_key(|(_, outgoing)| outgoing.sent).map(|(&node, _)| node)
        {
            self.outgoing.remove(&oldest);
        }
        self.outgoing.insert(to, Outgoing { justification: clean(&justification), sent: now });
        vec![Step::Store, Step::SendRequest { to }]
    }

    /// Who is in networks of ours now. A key that is pinned stays: a member that has another one is refused.
    pub(crate) fn set_members(&mut self, mut members: BTreeMap<NodeId, Member>) -> Vec<Step> {
        let mut before = std::mem::take(&mut self.members);
        for (node, member) in &mut members {
            if let Some(known) = before.remove(node) {
                member.trusted.key = known.trusted.key.or(member.trusted.key);
                member.answered |= known.answered;
            }
        }
        self.members = members;
        let gone = before.into_iter().filter(|(node, _)| !self.trusted.contains_key(node));
        gone.map(|(peer, member)| Step::Parted { peer, answered: member.answered }).collect()
    }

    pub(crate) fn approve(&mut self, node: NodeId, now: UnixTime) -> Result<Vec<Step>, TrustError> {
        if !self.pending.contains_key(&node) {
            return Err(TrustError::NotPending(node));
        }
        Ok(self.agree(node, Agreement::Approved, now))
    }

    pub(crate) fn reject(&mut self, node: NodeId, reason: &str) -> Result<Vec<Step>, TrustError> {
        let pending = self.pending.remove(&node).ok_or(TrustError::NotPending(node))?;
        Ok(vec![Step::Store, Step::SendReject { to: node, reason: clean(reason), relayed: pending.relayed }])
    }

    pub(crate) fn revoke(&mut self, node: NodeId, now: UnixTime) -> Result<Vec<Step>, TrustError> {
        self.trusted.remove(&node).ok_or(TrustError::NotTrusted(node))?;
        self.outgoing.remove(&node);
        self.revoked.insert(node, now);
        Ok(vec![
            Step::Store,
            Step::SendRevoke { to: node },
            Step::Tell(TrustEvent::Revoked { node, by: Side::Ours }),
        ])
    }
}

/// What others say. The caller has checked that it is `from` who says it.
impl Book {
    pub(crate) fn requested(
        &mut self,
        from: NodeId,
        key: Option<PublicKey>,
        justification: &str,
        relayed: bool,
        now: UnixTime,
    ) -> Vec<Step> {
        self.expire(now);
        if self.revoked.contains_key(&from) {
            return Vec::new();
        }
        if let Some(trusted) = self.trusted.get(&from)
            && (key.is_none() || trusted.key.is_none() || trusted.key == key)
        {
            // The answer may have been lost, or the peer lost its book.
            return vec![Step::SendAccept { to: from, relayed }];
        }
        if let Some(member) = self.members.get_mut(&from)
            && !self.trusted.contains_key(&from)
            && !self.outgoing.contains_key(&from)
            && !self.auto_approve
            && (key.is_none() || member.trusted.key.is_none() || member.trusted.key == key)
        {
            // Our owner agreed to it by joining. It stays at that: a yes that outlives the membership is the owner's.
            member.answered = true;
            self.pending.remove(&from);
            return vec![Step::Store, Step::SendAccept { to: from, relayed }];
        }
        let justification = clean(justification);
        let known = self.pending.contains_key(&from);
        if !known && self.pending.len() >= PENDING_MAX {
            return Vec::new();
        }
        self.pending
            .insert(from, Pending { key, justification: justification.clone(), received: now, relayed });
        if self.outgoing.contains_key(&from) {
            return self.agree(from, Agreement::Mutual, now);
        }
        if self.auto_approve {
            return self.agree(from, Agreement::Automatic, now);
        }
        let mut steps = vec![Step::Store];
        if key.is_none() {
            steps.push(Step::LearnKey { of: from });
        }
        if !known {
            steps.push(Step::Tell(TrustEvent::Pending { node: from, justification }));
        }
        steps
    }

    pub(crate) fn accepted(&mut self, from: NodeId, key: Option<PublicKey>, now: UnixTime) -> Vec<Step> {
        if self.outgoing.remove(&from).is_none() {
            return match self.trusted.get_mut(&from) {
                Some(trusted) if !trusted.mutual => {
                    trusted.mutual = true;
                    vec![Step::Store]
                }
                // Nobody asked: an answer without a question is how strangers would get in.
                Some(_) | None => Vec::new(),
            };
        }
        self.pending.remove(&from);
        let mut steps = self.trust(from, key, true, now);
        steps.push(Step::Tell(TrustEvent::Trusted { node: from, how: Agreement::Accepted }));
        steps
    }

    /// `at` is when the answer was given, if known: one older than our request belongs to an earlier request.
    pub(crate) fn rejected(&mut self, from: NodeId, reason: &str, at: Option<UnixTime>) -> Vec<Step> {
        match self.outgoing.get(&from) {
            Some(outgoing) if at.is_none_or(|at| at >= outgoing.sent) => {}
            Some(_) | None => return Vec::new(),
        }
        self.outgoing.remove(&from);
        vec![Step::Store, Step::Tell(TrustEvent::Rejected { node: from, reason: clean(reason) })]
    }

    pub(crate) fn revoked_by(&mut self, from: NodeId) -> Vec<Step> {
        let was_pending = self.pending.remove(&from).is_some();
        if self.trusted.remove(&from).is_none() {
            return if was_pending { vec![Step::Store] } else { Vec::new() };
        }
        vec![
            Step::Store,
            Step::Dropped { peer: from },
            Step::Tell(TrustEvent::Revoked { node: from, by: Side::Theirs }),
        ]
    }

    /// The identity key of `node` is known now. Pins it where none was pinned.
    pub(crate) fn learned_key(&mut self, node: NodeId, key: PublicKey) -> Vec<Step> {
        let mut changed = false;
        if let Some(trusted) = self.trusted.get_mut(&node)
            && trusted.key.is_none()
        {
            trusted.key = Some(key);
            changed = true;
        }
        if let Some(member) = self.members.get_mut(&node)
            && member.trusted.key.is_none()
        {
            member.trusted.key = Some(key);
            changed = true;
        }
        if let Some(pending) = self.pending.get_mut(&node)
            && pending.key.is_none()
        {
            pending.key = Some(key);
            changed = true;
        }
        if changed { vec![Step::Store] } else { Vec::new() }
    }

    /// The owner of `node` replaced its key, and the caller has checked that. `true` if another key was pinned.
    pub(crate) fn rekeyed(&mut self, node: NodeId, key: PublicKey) -> bool {
        let agreed = self.trusted.get_mut(&node);
        let member = self.members.get_mut(&node).map(|member| &mut member.trusted);
        let pins = agreed.into_iter().chain(member).filter_map(|trusted| trusted.key.as_mut());
        let mut moved = false;
        for pin in pins {
            moved |= std::mem::replace(pin, key) != key;
        }
        moved
    }

    fn agree(&mut self, node: NodeId, how: Agreement, now: UnixTime) -> Vec<Step> {
        let pending = self.pending.remove(&node);
        self.outgoing.remove(&node);
        let relayed = pending.as_ref().is_some_and(|pending| pending.relayed);
        let mut steps = self.trust(node, pending.and_then(|pending| pending.key), true, now);
        steps.push(Step::SendAccept { to: node, relayed });
        steps.push(Step::Tell(TrustEvent::Trusted { node, how }));
        steps
    }

    fn trust(&mut self, node: NodeId, key: Option<PublicKey>, mutual: bool, now: UnixTime) -> Vec<Step> {
        self.revoked.remove(&node);
        self.trusted.insert(node, Trusted { key, since: now, mutual });
        let mut steps = vec![Step::Store, Step::Report { peer: node }];
        if key.is_none() {
            steps.push(Step::LearnKey { of: node });
        }
        steps
    }

    fn expire(&mut self, now: UnixTime) {
        self.pending.retain(|_, pending| now.saturating_sub(pending.received) < PENDING_LIFE.as_secs());
        self.revoked.retain(|_, at| now.saturating_sub(*at) < COOL_DOWN.as_secs());
    }
}

/// Peer text fit to be shown: no control characters, cut at [`JUSTIFICATION_MAX`] bytes.
fn clean(text: &str) -> String {
    let mut clean: String = text.chars().filter(|c| !c.is_control()).collect();
    clean.truncate(clean.floor_char_boundary(JUSTIFICATION_MAX));
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const KEY: PublicKey = PublicKey::from_bytes([1; 32]);
    const OTHER_KEY: PublicKey = PublicKey::from_bytes([2; 32]);

    fn sends_accept(steps: &[Step]) -> bool {
        steps.iter().any(|step| matches!(step, Step::SendAccept { to: A, .. }))
    }

    fn member(key: Option<PublicKey>) -> Member {
        let networks = BTreeSet::from([NetworkId(9)]);
        Member { trusted: Trusted { key, since: 1, mutual: true }, networks, answered: false }
    }

    #[test]
    fn a_member_of_a_network_is_trusted_for_as_long_as_it_is_one_and_its_key_is_pinned() {
        let (key, other) = (PublicKey::from_bytes([1; 32]), PublicKey::from_bytes([2; 32]));
        let mut book = Book::default();
        assert!(book.set_members(BTreeMap::from([(NodeId(7), member(None))])).is_empty());
        assert_eq!(book.learned_key(NodeId(7), key), [Step::Store]);
        // The registry says another key now.
        assert!(book.set_members(BTreeMap::from([(NodeId(7), member(Some(other)))])).is_empty());
        assert_eq!(book.get(NodeId(7)).and_then(|trusted| trusted.key), Some(key));
        assert!(book.agreed(NodeId(7)).is_none());
        // A request of it is answered, and that is taken back in the end.
        let steps = book.requested(NodeId(7), Some(key), "hi", true, 5);
        assert_eq!(steps, [Step::Store, Step::SendAccept { to: NodeId(7), relayed: true }]);
        assert!(book.agreed(NodeId(7)).is_none(), "the owner agreed to the membership and to no more");
        assert_eq!(book.set_members(BTreeMap::new()), [Step::Parted { peer: NodeId(7), answered: true }]);
        assert!(book.get(NodeId(7)).is_none());
    }

    #[test]
    fn who_was_agreed_with_stays_trusted_when_the_network_ends() {
        let mut book = Book::default();
        book.set_members(BTreeMap::from([(NodeId(7), member(None))]));
        book.request(NodeId(7), "please".into(), 5);
        let steps = book.requested(NodeId(7), None, "please", false, 6);
        assert!(steps.contains(&Step::Tell(TrustEvent::Trusted { node: NodeId(7), how: Agreement::Mutual })));
        assert!(book.member(NodeId(7)).is_none(), "the network is not the only reason");
        assert!(book.set_members(BTreeMap::new()).is_empty());
        assert!(book.get(NodeId(7)).is_some());
    }

    #[test]
    fn a_request_waits_for_the_owner_and_an_approval_trusts_with_the_key_pinned() {
        let mut book = Book::default();
        let steps = book.requested(A, Some(KEY), "let\u{7} me in", false, 100);
        assert!(
            steps.contains(&Step::Tell(TrustEvent::Pending { node: A, justification: "let me in".into() }))
        );
        assert!(book.get(A).is_none());
        let steps = book.approve(A, 101).unwrap();
        assert!(sends_accept(&steps) && steps.contains(&Step::Report { peer: A }));
        assert_eq!(book.get(A), Some(&Trusted { key: Some(KEY), since: 101, mutual: true }));
        assert_eq!(book.approve(A, 102), Err(TrustError::NotPending(A)));
    }

    #[test]
    fn an_acceptance_nobody_asked_for_trusts_nobody() {
        let mut book = Book::default();
        assert_eq!(book.accepted(A, Some(KEY), 100), []);
        assert_eq!(book, Book::default());
    }

    #[test]
    fn requests_in_both_directions_are_an_agreement() {
        let mut asked_first = Book::default();
        asked_first.request(A, "hi".into(), 100);
        assert!(sends_accept(&asked_first.requested(A, Some(KEY), "hi too", true, 101)));
        let mut asked_second = Book::default();
        asked_second.requested(A, Some(KEY), "hi", true, 100);
        assert!(sends_accept(&asked_second.request(A, "hi too".into(), 101)));
        assert!(asked_first.get(A).is_some() && asked_second.get(A).is_some());
    }

    #[test]
    fn a_stale_rejection_does_not_cancel_a_newer_request() {
        let mut book = Book::default();
        book.request(A, "again".into(), 200);
        assert_eq!(book.rejected(A, "no", Some(150)), []);
        assert!(book.is_asked(A));
        assert!(!book.rejected(A, "no", Some(201)).is_empty());
        assert!(!book.is_asked(A));
    }

    #[test]
    fn a_revoked_node_cannot_ask_again_at_once() {
        let mut book = Book::default();
        book.requested(A, Some(KEY), "", false, 100);
        book.approve(A, 100).unwrap();
        book.revoke(A, 200).unwrap();
        assert_eq!(book.requested(A, Some(KEY), "please", false, 300), []);
        assert!(!book.requested(A, Some(KEY), "please", false, 600).is_empty());
        assert_eq!(book.revoke(A, 601), Err(TrustError::NotTrusted(A)));
    }

    #[test]
    fn a_trusted_node_with_another_key_has_to_ask_again() {
        let mut book = Book::default();
        book.requested(A, Some(KEY), "", false, 100);
        book.approve(A, 100).unwrap();
        assert!(sends_accept(&book.requested(A, Some(KEY), "", false, 101)));
        let steps = book.requested(A, Some(OTHER_KEY), "", false, 102);
        assert!(!sends_accept(&steps));
        assert_eq!(book.get(A).unwrap().key, Some(KEY), "the old key stays until the owner decides");
        book.approve(A, 103).unwrap();
        assert_eq!(book.get(A).unwrap().key, Some(OTHER_KEY));
    }

    #[test]
    fn a_replaced_key_is_pinned_in_place_of_the_old_one_and_only_where_one_was() {
        let mut book = Book::default();
        assert!(!book.rekeyed(A, KEY), "nobody is trusted for having another key");
        book.requested(A, Some(KEY), "", false, 100);
        book.approve(A, 100).unwrap();
        assert!(book.rekeyed(A, OTHER_KEY) && !book.rekeyed(A, OTHER_KEY));
        assert_eq!(book.get(A), Some(&Trusted { key: Some(OTHER_KEY), since: 100, mutual: true }));
        assert!(sends_accept(&book.requested(A, Some(OTHER_KEY), "", false, 101)));
    }

    #[test]
    fn a_flood_of_requests_is_bounded_and_does_not_push_out_earlier_ones() {
        let mut book = Book::default();
        for node in 1..=1000 {
            book.requested(NodeId(node), None, &"x".repeat(5000), true, 100);
        }
        assert_eq!(book.pending().count(), PENDING_MAX);
        assert!(
            book.pending()
                .all(|(node, pending)| node.0 <= 256 && pending.justification.len() == JUSTIFICATION_MAX)
        );
        book.requested(NodeId(5000), None, "", true, 100 + 31 * 24 * 3600);
        assert_eq!(book.pending().count(), 1, "old requests expire");
    }
}
