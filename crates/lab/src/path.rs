//! Which way the frames between two nodes go, as their daemons say.

use std::fmt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pilot_interop::{Node, until};

/// Pause between two looks at a way that shall stay.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A way between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From socket to socket.
    Direct,
    /// Through the beacon.
    Relay,
}

impl Way {
    /// The way that `node` uses towards `peer`. `None` if it has no tunnel to it.
    pub fn of(node: &Node, peer: &Node) -> Option<Self> {
        Some(if row(node, peer)?["relay"] == true { Self::Relay } else { Self::Direct })
    }

    /// Waits until both use this way, and says how long that took.
    #[track_caller]
    pub fn awaited(self, nodes: [&Node; 2]) -> Duration {
        let [a, b] = nodes;
        let begin = Instant::now();
        let what = format!("{} and {} use the way: {self}", a.name(), b.name());
        until(&what, || (Self::of(a, b) == Some(self) && Self::of(b, a) == Some(self)).then_some(()));
        begin.elapsed()
    }

    /// Asserts that both use this way and no other for a while.
    #[track_caller]
    pub fn stays(self, nodes: [&Node; 2], span: Duration) {
        let [a, b] = nodes;
        let begin = Instant::now();
        while begin.elapsed() < span {
            assert_eq!(
                (Self::of(a, b), Self::of(b, a)),
                (Some(self), Some(self)),
                "{} to {}",
                a.name(),
                b.name()
            );
            sleep(LOOK_AGAIN);
        }
    }
}

/// The address that `node` sends frames for `peer` to, with [`Way::Direct`].
pub fn endpoint(node: &Node, peer: &Node) -> Option<String> {
    row(node, peer)?["endpoint"].as_str().map(str::to_owned)
}

/// How `node` reaches its beacon: `udp` or `web`.
pub fn transport(node: &Node) -> String {
    node.ctl(&["info"])["transport"].as_str().unwrap_or_default().to_owned()
}

fn row(node: &Node, peer: &Node) -> Option<serde_json::Value> {
    let peers = node.ctl(&["peers"]);
    peers["peers"].as_array()?.iter().find(|row| row["node_id"] == peer.id()).cloned()
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
        })
    }
}
