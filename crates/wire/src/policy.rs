//! What peers may do here: ports, topics, rates, sizes.
//!
//! The owner writes [`Rules`] for targets: everybody, strangers, groups of nodes, single nodes ([`Target`]). Each field
//! of the rules is decided on its own by the most specific target that says something about it. All rules together are
//! the [`Book`], which is the content of `policy.json`.

mod book;
mod effective;
mod ports;
mod rules;
mod target;

use serde::{Deserialize, Serialize};

pub use self::book::{BOOK_BYTES_MAX, Book, FormatVersion, Group};
pub use self::effective::{Effective, PortSpan, Sourced};
pub use self::ports::{ParsePortsError, PortSet};
pub use self::rules::{
    Field, Limit, ParseLimitError, PortRules, Rules, TOPICS_MAX, TooManyTopics, Topics, Verdict,
};
pub use self::target::{GroupName, KeyPrint, ParseTargetError, Target, Who};

use crate::{NodeId, Port};

/// A question or order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// All rules, and how they stand. Answered with [`Reply::Overview`].
    Show,
    /// What holds for one node. Answered with [`Reply::Effective`].
    Peer {
        /// Which.
        node: NodeId,
    },
    /// Replaces the given fields of a target's rules and leaves the others. Answered with [`Reply::Rules`].
    Set {
        /// Whose.
        target: Target,
        /// The new values.
        rules: Box<Rules>,
    },
    /// Takes fields of a target's rules away, so that less specific rules decide. Answered with [`Reply::Rules`].
    Unset {
        /// Whose.
        target: Target,
        /// Which; none means all.
        fields: Vec<Field>,
    },
    /// Allows or denies ports to a target, beside what its rules say of other ports. Answered with [`Reply::Rules`].
    Ports {
        /// Whom.
        target: Target,
        /// Which of the two.
        verdict: Verdict,
        /// Which ports.
        ports: PortSet,
    },
    /// Says who may reach a port and forgets whatever the rules said about it before. Answered with
    /// [`Reply::Overview`].
    Audience {
        /// Which ports.
        ports: PortSet,
        /// Who.
        audience: Audience,
    },
    /// Puts a node into a group, which begins with its first member. Answered with [`Reply::Members`].
    AddMember {
        /// The group.
        group: GroupName,
        /// The node.
        member: Who,
    },
    /// Takes a node out of a group, or the whole group with its rules away. Answered with [`Reply::Members`].
    RemoveMember {
        /// The group.
        group: GroupName,
        /// The node; none means all of them and the group's rules.
        member: Option<Who>,
    },
    /// Whether a node may do something now, and by which rule. Answered with [`Reply::Tested`].
    Test {
        /// The node.
        node: NodeId,
        /// What it would do.
        question: Question,
    },
    /// Reads the file again. Answered with [`Reply::Overview`], also when the file is broken.
    Reload,
    /// Goes back to no rules at all. Answered with [`Reply::Overview`].
    Reset,
}

/// Who may reach a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Whoever the node answers at all.
    Everybody,
    /// Trusted nodes.
    Trusted,
    /// These only.
    Only(Vec<Target>),
    /// No other node.
    Nobody,
}

/// Something that a peer might do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Question {
    /// Open a stream, or send a datagram, to a port.
    Port {
        /// Which.
        port: Port,
    },
    /// Publish an event here.
    Publish {
        /// About what.
        topic: String,
    },
    /// Hear an event from here.
    Subscribe {
        /// About what.
        topic: String,
    },
    /// Leave a message.
    Message {
        /// Its length.
        bytes: u64,
    },
    /// Leave a file.
    File {
        /// Its length.
        bytes: u64,
    },
    /// Ask for an answer with a deadline.
    Request,
    /// Give a task.
    Task,
    /// Have messages kept here.
    Mailbox,
    /// Have a message answered automatically.
    Answer {
        /// How many automatic answers led to it.
        hops: u8,
    },
}

/// The answer to a [`Request`]; failures come as [`Failure`](crate::ipc::Failure)s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Reply {
    /// All rules, and how they stand.
    Overview(Box<Overview>),
    /// What holds for one node.
    Effective(Box<Effective>),
    /// What a target's rules are now.
    Rules {
        /// Whose.
        target: Target,
        /// The rules.
        rules: Box<Rules>,
    },
    /// Who is in a group now.
    Members {
        /// The group.
        group: GroupName,
        /// The nodes.
        members: Vec<Who>,
    },
    /// Whether something would be allowed.
    Tested(Tested),
}

/// Whether something would be allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// It would.
    pub allowed: bool,
    /// Why not, in the words that the peer would hear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The targets whose rules decided; none means that it is so by default.
    pub from: Vec<Target>,
}

/// All rules, and how they stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// The file.
    pub path: String,
    /// Why the file cannot be used. While there is a reason, nothing is allowed to other nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// The rules in force.
    pub book: Book,
    /// What holds for a trusted node without rules of its own.
    pub everybody: Effective,
    /// Nodes that were refused something, or answered too often, since the daemon started.
    pub peers: Vec<PeerCount>,
}

/// What the rules kept a peer from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerCount {
    /// The peer.
    pub node: NodeId,
    /// What was refused to it: streams, datagrams, messages, events, files.
    pub refused: u64,
    /// How often it had to wait because of a rate.
    pub slowed: u64,
    /// Automatic answers to it that were held back.
    pub answers_held: u64,
    /// When automatic answers to it go on, in milliseconds from now; none while nothing holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers_again_ms: Option<u64>,
}
