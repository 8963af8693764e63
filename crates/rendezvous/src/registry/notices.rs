//! What nodes are told without asking again: something waits, a peer is elsewhere, trust began or ended.
//!
//! A node asks to be told, and its connection is answered when there is something. Between one answer and its next
//! question, changes are gathered for it as long as the connection lasts. Nothing here is on disk: after a restart all
//! connections are new, and nodes look at everything then.

use super::{ConnId, State, handshakes::Inbox};
use pilot_wire::{
    NodeId,
    registry::{NoticeKind, Notices, Response},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// Longest wait for a notice; below the idle limit of connections and of most NATs' patience with TCP.
const WAIT_MAX: Duration = Duration::from_secs(240);
/// Requests for notices per node. One more ends the oldest.
const WAITING_MAX: usize = 4;
/// Peers that are named to one node. If there are more, it is told so instead.
const NAMED_MAX: usize = 256;

/// Who waits, and what is gathered for whom.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Requests for notices, by what they wait for and until when.
    by_node: BTreeMap<NodeId, VecDeque<ConnId>>,
    ends: BTreeSet<(Instant, ConnId)>,
    /// For nodes with a connection on which they asked for details.
    gathered: BTreeMap<NodeId, Gathered>,
    /// Nodes for which something waits, to be told by the beacon.
    through_beacon: VecDeque<NodeId>,
}

#[derive(Debug, Default)]
struct Gathered {
    /// Connections that listen.
    listeners: usize,
    peers: BTreeSet<NodeId>,
    trust: BTreeSet<NodeId>,
    networks: bool,
    more: bool,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.trust.is_empty() && !self.networks && !self.more
    }

    fn add(&mut self, kind: NoticeKind, peer: NodeId) {
        let (list, other) = match kind {
            NoticeKind::Trust => (&mut self.trust, self.peers.len()),
            NoticeKind::Peers
            | NoticeKind::Handshake
            | NoticeKind::Invite
            | NoticeKind::Networks
            | NoticeKind::Other => (&mut self.peers, self.trust.len()),
        };
        if list.len() + other < NAMED_MAX {
            list.insert(peer);
        } else if !list.contains(&peer) {
            self.more = true;
        }
    }
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    node: NodeId,
    end: Instant,
    detailed: bool,
}

impl State {
    /// Requests for notices that are held.
    pub(super) fn held(&self) -> usize {
        self.waiting.ends.len()
    }

    /// Something lies in the inbox of the node.
    pub(super) fn tell(&mut self, node: NodeId) {
        self.answer_waiting(node);
        if !self.waiting.through_beacon.contains(&node) {
            self.waiting.through_beacon.push_back(node);
        }
    }

    /// Those who may look for the node should know that it is elsewhere, or has another name or key.
    pub(super) fn tell_peers_of(&mut self, node: NodeId) {
        let Some(peers) = self.trust.of(node) else { return };
        let listens = |peer: &NodeId| self.waiting.gathered.contains_key(peer);
        let mutual = |peer: &NodeId| self.trust.consents(*peer, node);
        let told: Vec<NodeId> = peers.iter().copied().filter(listens).filter(mutual).collect();
        for peer in told {
            self.tell_about(peer, NoticeKind::Peers, node);
        }
    }

    /// Tells `node`, if it listens, that there is something about `peer`.
    pub(super) fn tell_about(&mut self, node: NodeId, kind: NoticeKind, peer: NodeId) {
        let Some(gathered) = self.waiting.gathered.get_mut(&node) else { return };
        gathered.add(kind, peer);
        self.answer_detailed(node);
    }

    /// Tells `node`, if it listens, that what it knows of its networks is not so any more.
    pub(super) fn outdate(&mut self, node: NodeId) {
        let Some(gathered) = self.waiting.gathered.get_mut(&node) else { return };
        gathered.networks = true;
        self.answer_detailed(node);
    }

    fn answer_detailed(&mut self, node: NodeId) {
        let waits = self.waiting.by_node.get(&node).into_iter().flatten();
        let detailed = waits.copied().find(|conn| {
            self.sessions.get(conn).and_then(|session| session.waiting).is_some_and(|wait| wait.detailed)
        });
        if let Some(conn) = detailed {
            self.end_wait_with(conn, Some(true));
        }
    }

    /// A node for which something waits, to be told by the beacon.
    pub fn poll_notice(&mut self) -> Option<NodeId> {
        self.waiting.through_beacon.pop_front()
    }

    pub(super) fn await_notices(
        &mut self,
        now: Instant,
        conn: ConnId,
        node: NodeId,
        timeout: Duration,
        detailed: bool,
    ) -> Option<Response> {
        if detailed {
            self.listen(conn, node);
        }
        let gathered = self.waiting.gathered.get(&node).is_some_and(|gathered| !gathered.is_empty());
        if self.has_news(node) || (detailed && gathered) {
            return Some(Response::AwaitNotices(self.take_notices(node, detailed)));
        }
        let session = self.sessions.get_mut(&conn)?;
        let end = now + timeout.min(WAIT_MAX);
        session.waiting = Some(Wait { node, end, detailed });
        self.waiting.ends.insert((end, conn));
        let conns = self.waiting.by_node.entry(node).or_default();
        conns.push_back(conn);
        if conns.len() > WAITING_MAX
            && let Some(oldest) = conns.front().copied()
        {
            self.end_wait(oldest, true);
        }
        None
    }

    /// The connection wants to know more from now on, until it ends.
    fn listen(&mut self, conn: ConnId, node: NodeId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let before = session.listens.replace(node);
        if before != Some(node) {
            self.waiting.gathered.entry(node).or_default().listeners += 1;
            self.stop_listening(before);
        }
    }

    pub(super) fn stop_listening(&mut self, node: Option<NodeId>) {
        let Some(node) = node else { return };
        let Some(gathered) = self.waiting.gathered.get_mut(&node) else { return };
        gathered.listeners -= 1;
        if gathered.listeners == 0 {
            self.waiting.gathered.remove(&node);
        }
    }

    fn has_news(&self, node: NodeId) -> bool {
        self.inboxes.get(&node).is_some_and(Inbox::has_news)
    }

    /// What there is for the node. What is taken with `detailed` is not told again, except that of the inbox.
    fn take_notices(&mut self, node: NodeId, detailed: bool) -> Notices {
        let waiting = self.has_news(node);
        let mut notices = Notices { waiting, ..Notices::default() };
        if !detailed {
            return notices;
        }
        if let Some(inbox) = self.inboxes.get(&node) {
            notices.kinds.extend(inbox.has_handshakes().then_some(NoticeKind::Handshake));
            notices.kinds.extend(inbox.invited.then_some(NoticeKind::Invite));
        }
        if let Some(gathered) = self.waiting.gathered.get_mut(&node) {
            notices.peers = std::mem::take(&mut gathered.peers).into_iter().collect();
            notices.trust = std::mem::take(&mut gathered.trust).into_iter().collect();
            notices.more = std::mem::take(&mut gathered.more);
            let networks = std::mem::take(&mut gathered.networks);
            notices.kinds.extend(networks.then_some(NoticeKind::Networks));
        }
        let (trust, peers) = (!notices.trust.is_empty(), !notices.peers.is_empty());
        notices.kinds.extend((trust || notices.more).then_some(NoticeKind::Trust));
        notices.kinds.extend((peers || notices.more).then_some(NoticeKind::Peers));
        notices
    }

    fn answer_waiting(&mut self, node: NodeId) {
        while let Some(conn) = self.waiting.by_node.get(&node).and_then(|conns| conns.front().copied()) {
            self.end_wait_with(conn, Some(true));
        }
    }

    /// When the next request for notices has waited long enough.
    #[must_use]
    pub fn next_wait_end(&self) -> Option<Instant> {
        self.waiting.ends.first().map(|(end, _)| *end)
    }

    /// Ends the waits whose time is over. It changes no record.
    pub fn end_waits(&mut self, now: Instant) {
        while let Some(&(end, conn)) = self.waiting.ends.first()
            && end <= now
        {
            self.end_wait(conn, true);
        }
    }

    /// Ends a request for notices with "nothing", and answers it if its connection is still there to be answered.
    pub(super) fn end_wait(&mut self, conn: ConnId, answer: bool) {
        self.end_wait_with(conn, answer.then_some(false));
    }

    /// `something`: whether there is something, or only the time is over; `None` if nobody is to be answered.
    fn end_wait_with(&mut self, conn: ConnId, something: Option<bool>) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let Some(Wait { node, end, detailed }) = session.waiting.take() else { return };
        self.waiting.ends.remove(&(end, conn));
        if let Some(conns) = self.waiting.by_node.get_mut(&node) {
            conns.retain(|other| *other != conn);
            if conns.is_empty() {
                self.waiting.by_node.remove(&node);
            }
        }
        let notices = match something {
            Some(true) => self.take_notices(node, detailed),
            Some(false) => Notices::default(),
            None => return,
        };
        self.reply(conn, Response::AwaitNotices(notices));
    }
}
