//! What the built-in services see of the driver.

use pilot_crypto::Identity;
use pilot_wire::ipc::TrustState;
use pilot_wire::mailbox::Path;
use pilot_wire::{NodeId, PublicKey, Signature, handshake, registry};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::driver::Command;
use crate::registry::CallError;
use crate::service::Notice;
use crate::trace::Tracer;

/// What this node knows of another one without asking anybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PeerIdentity {
    /// Its name, if it was looked up before.
    pub(crate) hostname: Option<String>,
    /// Its key, pinned or shown in a tunnel.
    pub(crate) key: Option<PublicKey>,
    /// How it stands to us.
    pub(crate) trust: TrustState,
    /// How it is reached now.
    pub(crate) path: Path,
}

/// What a service tells or asks the driver.
#[derive(Debug)]
pub(crate) enum ServiceOrder {
    /// A handshake message came over a stream from this node.
    HandshakeReceived(NodeId, handshake::Message),
    /// Something that users may want to know.
    Notice(Notice),
    /// The rules of the owner changed.
    PolicyChanged,
    /// Who is this?
    Describe(NodeId, oneshot::Sender<PeerIdentity>),
    /// The identity in use; another one after the key has been replaced.
    Identity(oneshot::Sender<Identity>),
    /// Ask the registry.
    Registry(Box<registry::Request>, oneshot::Sender<Result<Vec<u8>, CallError>>),
    /// The registry is to be told, now and at every registration, whether this node takes tasks.
    TaskExec(bool),
}

/// A reason to try again what failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// This peer was heard of, is reached in another way, or is trusted now.
    Peer(NodeId),
    /// The network around this host changed.
    Network,
}

/// Signs that a slow service may leave unread. One that misses some learns that it did, and tries everything.
pub(crate) const SIGNS: usize = 256;

/// The services' way to the driver. When the driver is gone, what they say is lost with it.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    inbox: mpsc::Sender<Command>,
    trusted: watch::Receiver<Vec<NodeId>>,
    node: watch::Receiver<NodeId>,
    signs: broadcast::Sender<Sign>,
    tracer: Tracer,
}

impl Handle {
    pub(crate) fn new(
        inbox: mpsc::Sender<Command>,
        trusted: watch::Receiver<Vec<NodeId>>,
        node: watch::Receiver<NodeId>,
        signs: broadcast::Sender<Sign>,
    ) -> Self {
        Self { inbox, trusted, node, signs, tracer: Tracer::default() }
    }

    /// The same for services whose work is traced.
    pub(crate) fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Takes what users waited for.
    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Passes on a message that `from` brought to port 444.
    pub(crate) async fn handshake_received(&self, from: NodeId, message: handshake::Message) {
        self.tell(ServiceOrder::HandshakeReceived(from, message)).await;
    }

    /// Reports something for the log and the webhook.
    pub(crate) async fn notice(&self, notice: Notice) {
        self.tell(ServiceOrder::Notice(notice)).await;
    }

    /// The rules of the owner changed: what they do not allow any more is to end.
    pub(crate) async fn policy_changed(&self) {
        self.tell(ServiceOrder::PolicyChanged).await;
    }

    /// What is known of a node.
    pub(crate) async fn describe(&self, node: NodeId) -> PeerIdentity {
        let (answer, answered) = oneshot::channel();
        self.tell(ServiceOrder::Describe(node, answer)).await;
        answered.await.unwrap_or_default()
    }

    /// The identity of this node as it is now; `None` while the daemon stops.
    pub(crate) async fn identity(&self) -> Option<Identity> {
        let (answer, answered) = oneshot::channel();
        self.tell(ServiceOrder::Identity(answer)).await;
        answered.await.ok()
    }

    /// The node's signature under a text of a service; `None` while the daemon stops.
    pub(crate) async fn sign(&self, text: String) -> Option<Signature> {
        self.identity().await.map(|identity| identity.sign(text.as_bytes()))
    }

    /// Asks the registry; the reply is its JSON.
    pub(crate) async fn registry(&self, request: registry::Request) -> Result<Vec<u8>, CallError> {
        let (answer, answered) = oneshot::channel();
        self.tell(ServiceOrder::Registry(Box::new(request), answer)).await;
        let stopping = |_| Err(CallError::Unreachable("the daemon is stopping".to_owned()));
        answered.await.unwrap_or_else(stopping)
    }

    /// Has the registry told whether this node takes tasks.
    pub(crate) async fn set_task_exec(&self, enabled: bool) {
        self.tell(ServiceOrder::TaskExec(enabled)).await;
    }

    /// Whom this node trusts, and every change of it.
    pub(crate) fn trusted(&self) -> watch::Receiver<Vec<NodeId>> {
        self.trusted.clone()
    }

    /// The number of this node; unset before its first registration.
    pub(crate) fn node(&self) -> NodeId {
        *self.node.borrow()
    }

    /// The number of this node, and every change of it.
    pub(crate) fn numbers(&self) -> watch::Receiver<NodeId> {
        self.node.clone()
    }

    /// Reasons to try again, from now on.
    pub(crate) fn signs(&self) -> broadcast::Receiver<Sign> {
        self.signs.subscribe()
    }

    async fn tell(&self, order: ServiceOrder) {
        // It fails only while the daemon stops, and then nobody is left to care.
        let _ = self.inbox.send(Command::Service(order)).await;
    }
}
