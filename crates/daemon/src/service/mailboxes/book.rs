//! Who keeps messages for whom, as far as this node knows: one small file, `mailboxes.json`.
//!
//! Every change is on disk before it counts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pilot_wire::NodeId;
use pilot_wire::mailboxes::{
    ALLOWED_MAX, BYTES_PER_OWNER, BYTES_TOTAL, MESSAGES_PER_OWNER, MESSAGES_TOTAL, MINE_MAX,
};
use serde::{Deserialize, Serialize};

use super::shelf::Allowance;
use crate::files;

/// Peers whose mailboxes are remembered. Only trusted ones are; of more, those that come later are not.
const KNOWN_MAX: usize = 4096;

/// What is on disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    /// Nodes that keep messages for this one, the first choice first.
    mine: Vec<NodeId>,
    /// Nodes that this one keeps messages for.
    allowed: BTreeMap<NodeId, Allowed>,
    /// Who keeps messages for whom, by their own word.
    known: BTreeMap<NodeId, Vec<NodeId>>,
    /// What each trusted peer has last heard about `mine`.
    told: BTreeMap<NodeId, Vec<NodeId>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Allowed {
    max_bytes: u64,
    max_messages: u32,
}

/// The file and what stands in it.
#[derive(Debug)]
pub(super) struct Book {
    path: PathBuf,
    content: Content,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum BookError {
    /// Too many mailboxes.
    #[error("a node has at most {MINE_MAX} mailboxes")]
    TooManyMine,
    /// Too many owners.
    #[error("a node keeps messages for at most {ALLOWED_MAX} others")]
    TooManyAllowed,
    /// An allowance of nothing, or beyond what the node keeps in all.
    #[error(
        "a node is allowed 1 to {BYTES_TOTAL} bytes and 1 to {MESSAGES_TOTAL} messages, not {max_bytes} and \
         {max_messages}"
    )]
    Allowance {
        /// Asked for.
        max_bytes: u64,
        /// Asked for.
        max_messages: u32,
    },
    /// There is no such entry.
    #[error("no such mailbox")]
    Unknown,
    /// The disk.
    #[error("it cannot be written to disk: {0}")]
    Disk(#[from] io::Error),
}

impl Book {
    pub(super) fn open(home: &Path) -> io::Result<Self> {
        let path = home.join("mailboxes.json");
        let content = files::read_json(&path)?.unwrap_or_default();
        Ok(Self { path, content })
    }

    fn change(&mut self, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        let mut content = self.content.clone();
        change(&mut content);
        if content != self.content {
            files::replace_json(&self.path, &content)?;
            self.content = content;
        }
        Ok(())
    }

    pub(super) fn mine(&self) -> &[NodeId] {
        &self.content.mine
    }

    /// Adds a mailbox of this node.
    pub(super) fn add_mine(&mut self, node: NodeId) -> Result<(), BookError> {
        if self.content.mine.contains(&node) {
            return Ok(());
        }
        if self.content.mine.len() >= MINE_MAX {
            return Err(BookError::TooManyMine);
        }
        Ok(self.change(|content| content.mine.push(node))?)
    }

    pub(super) fn remove_mine(&mut self, node: NodeId) -> Result<(), BookError> {
        if !self.content.mine.contains(&node) {
            return Err(BookError::Unknown);
        }
        Ok(self.change(|content| content.mine.retain(|&mine| mine != node))?)
    }

    /// What is kept for a node at most; `None` when nothing is.
    pub(super) fn allowance(&self, owner: NodeId) -> Option<Allowance> {
        let allowed = self.content.allowed.get(&owner)?;
        Some(Allowance { bytes: allowed.max_bytes, messages: allowed.max_messages })
    }

    pub(super) fn allowed(&self) -> impl Iterator<Item = NodeId> {
        self.content.allowed.keys().copied()
    }

    pub(super) fn allow(
        &mut self,
        owner: NodeId,
        max_bytes: Option<u64>,
        max_messages: Option<u32>,
    ) -> Result<(), BookError> {
        let before = self.content.allowed.get(&owner);
        if before.is_none() && self.content.allowed.len() >= ALLOWED_MAX {
            return Err(BookError::TooManyAllowed);
        }
        let allowed = Allowed {
            max_bytes: max_bytes.or(before.map(|before| before.max_bytes)).unwrap_or(BYTES_PER_OWNER),
            max_messages: max_messages
                .or(before.map(|before| before.max_messages))
                .unwrap_or(MESSAGES_PER_OWNER),
        };
        let Allowed { max_bytes, max_messages } = allowed;
        if !(1..=BYTES_TOTAL).contains(&max_bytes) || !(1..=MESSAGES_TOTAL).contains(&max_messages) {
            return Err(BookError::Allowance { max_bytes, max_messages });
        }
        Ok(self.change(|content| {
            content.allowed.insert(owner, allowed);
        })?)
    }

    pub(super) fn deny(&mut self, owner: NodeId) -> Result<(), BookError> {
        if !self.content.allowed.contains_key(&owner) {
            return Err(BookError::Unknown);
        }
        Ok(self.change(|content| {
            content.allowed.remove(&owner);
        })?)
    }

    /// Who keeps messages for a peer, by its own word.
    pub(super) fn known(&self, peer: NodeId) -> Option<&[NodeId]> {
        self.content.known.get(&peer).map(Vec::as_slice)
    }

    pub(super) fn all_known(&self) -> impl Iterator<Item = (NodeId, &[NodeId])> {
        self.content.known.iter().map(|(&peer, nodes)| (peer, nodes.as_slice()))
    }

    /// Remembers what a peer says; whether there is room for it.
    pub(super) fn learn(&mut self, peer: NodeId, nodes: Vec<NodeId>) -> io::Result<bool> {
        if nodes.is_empty() {
            self.change(|content| drop(content.known.remove(&peer)))?;
            return Ok(true);
        }
        if self.content.known.len() >= KNOWN_MAX && !self.content.known.contains_key(&peer) {
            return Ok(false);
        }
        self.change(|content| drop(content.known.insert(peer, nodes)))?;
        Ok(true)
    }

    /// Whether a peer does not know yet who keeps messages for this node, or that nobody does any more.
    pub(super) fn is_behind(&self, peer: NodeId) -> bool {
        self.content.told.get(&peer).map_or(&[][..], Vec::as_slice) != self.content.mine
    }

    /// A peer has heard this.
    pub(super) fn told(&mut self, peer: NodeId, heard: Vec<NodeId>) -> io::Result<()> {
        self.change(|content| {
            if heard.is_empty() {
                content.told.remove(&peer);
            } else {
                content.told.insert(peer, heard);
            }
        })
    }

    /// Forgets what concerns peers that are trusted no more. They will hear it again if they are trusted again.
    pub(super) fn retain(&mut self, trusted: &[NodeId]) -> io::Result<()> {
        self.change(|content| {
            content.known.retain(|peer, _| trusted.contains(peer));
            content.told.retain(|peer, _| trusted.contains(peer));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(1);
    const B: NodeId = NodeId(2);

    fn book(home: &tempfile::TempDir) -> Book {
        Book::open(home.path()).unwrap()
    }

    #[test]
    fn what_is_written_is_there_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let mut first = book(&home);
        first.add_mine(A).unwrap();
        first.allow(B, Some(1000), None).unwrap();
        first.learn(B, vec![A]).unwrap();
        first.told(B, vec![A]).unwrap();
        let again = book(&home);
        assert_eq!(again.content, first.content);
        assert_eq!(again.mine(), [A]);
        assert_eq!(again.allowance(B), Some(Allowance { bytes: 1000, messages: MESSAGES_PER_OWNER }));
        assert_eq!(again.known(B), Some(&[A][..]));
        assert!(!again.is_behind(B) && again.is_behind(A));
    }

    #[test]
    fn peers_who_heard_of_a_mailbox_hear_that_it_is_one_no_more() {
        let home = tempfile::tempdir().unwrap();
        let mut book = book(&home);
        assert!(!book.is_behind(B), "nobody need hear that there is none");
        book.add_mine(A).unwrap();
        assert!(book.is_behind(B));
        book.told(B, vec![A]).unwrap();
        book.remove_mine(A).unwrap();
        assert!(book.is_behind(B) && !book.is_behind(NodeId(3)));
        book.told(B, Vec::new()).unwrap();
        assert!(!book.is_behind(B));
    }

    #[test]
    fn lists_have_ends() {
        let home = tempfile::tempdir().unwrap();
        let mut book = book(&home);
        for node in 1..=3 {
            book.add_mine(NodeId(node)).unwrap();
        }
        assert!(book.add_mine(NodeId(3)).is_ok(), "it is one already");
        assert!(matches!(book.add_mine(NodeId(4)), Err(BookError::TooManyMine)));
        for node in 0..ALLOWED_MAX as u32 {
            book.content.allowed.insert(NodeId(node), Allowed { max_bytes: 1, max_messages: 1 });
        }
        assert!(matches!(book.allow(NodeId(9999), None, None), Err(BookError::TooManyAllowed)));
        assert!(book.allow(NodeId(5), None, Some(9)).is_ok(), "it is allowed already");
        assert_eq!(book.allowance(NodeId(5)), Some(Allowance { bytes: 1, messages: 9 }));
        for node in 0..KNOWN_MAX as u32 {
            book.content.known.insert(NodeId(node), vec![A]);
        }
        assert!(!book.learn(NodeId(99_999), vec![A]).unwrap());
        assert!(book.learn(NodeId(7), vec![B]).unwrap());
    }

    #[test]
    fn an_allowance_is_something_and_not_everything() {
        let home = tempfile::tempdir().unwrap();
        let mut book = book(&home);
        for (bytes, messages) in [(0, 1), (1, 0), (BYTES_TOTAL + 1, 1), (1, MESSAGES_TOTAL + 1)] {
            let allowed = book.allow(B, Some(bytes), Some(messages));
            assert!(matches!(allowed, Err(BookError::Allowance { .. })), "{bytes} {messages}");
        }
        assert!(matches!(book.deny(B), Err(BookError::Unknown)));
    }

    #[test]
    fn what_concerned_a_peer_ends_with_its_trust() {
        let home = tempfile::tempdir().unwrap();
        let mut book = book(&home);
        book.add_mine(A).unwrap();
        book.learn(B, vec![A]).unwrap();
        book.told(B, vec![A]).unwrap();
        book.retain(&[A]).unwrap();
        assert_eq!(book.known(B), None);
        assert!(book.is_behind(B));
    }
}
