//! A rendezvous in the test's process, and nodes that know it.

use std::time::Duration;

use pilot::{Builder, Client, Node, NodeId};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Nothing in these tests takes long but on a machine with other things to do; this only turns a hang into a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A rendezvous that lives until it is dropped.
pub(crate) struct Rendezvous {
    pub(crate) registry: String,
    pub(crate) beacon: String,
    task: JoinHandle<()>,
    _directory: TempDir,
}

impl Rendezvous {
    pub(crate) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = pilot_rendezvous::Config::new(directory.path().join("store"));
        config.registry_addr = "127.0.0.1:0".parse().unwrap();
        config.beacon_addr = config.registry_addr;
        let (ready, bound) = oneshot::channel();
        let task = tokio::spawn(async move {
            let announce = |bound| {
                let _ = ready.send(bound);
            };
            pilot_rendezvous::run(config, announce, std::future::pending()).await.unwrap();
        });
        let bound = within("the rendezvous", bound).await.unwrap();
        let (registry, beacon) = (bound.registry.to_string(), bound.beacon.to_string());
        Self { registry, beacon, task, _directory: directory }
    }

    /// A node on loopback that registers here.
    pub(crate) fn node(&self) -> Builder {
        let here = "127.0.0.1:0".parse().unwrap();
        Node::builder().listen(here).registry(&self.registry).beacon(&self.beacon)
    }

    /// Two ephemeral nodes that trust each other.
    pub(crate) async fn pair(&self) -> [Node; 2] {
        let a = start(self.node().hostname("alice")).await;
        let b = start(self.node().hostname("bob").approve([a.id()])).await;
        trust(&a.client(), b.id()).await;
        [a, b]
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) async fn start(node: Builder) -> Node {
    let node = within("the node", node.start()).await.unwrap();
    assert!(node.is_registered(), "{:?}", node.registry_error());
    node
}

pub(crate) async fn stop(node: Node) {
    within("the end of the node", node.shutdown()).await.unwrap();
}

/// Asks for trust, and waits for the answer.
pub(crate) async fn trust(client: &Client, node: NodeId) {
    within("the request", client.handshake(node, "a test")).await.unwrap();
    let answer = within("trust", client.wait_trust(node, PATIENCE)).await.unwrap();
    assert_eq!(answer.state, pilot::ipc::TrustState::Trusted);
}
