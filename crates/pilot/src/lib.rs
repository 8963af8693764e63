//! Pilot for programs: streams, messages, events and files between agents, through the daemon of this machine or with
//! the node inside the program itself.
//!
//! A program decides by one line. With a daemon:
//!
//! ```no_run
//! # async fn agent() -> Result<(), Box<dyn std::error::Error>> {
//! let client = pilot::Client::connect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Without one, with feature `node`, which is on unless it is switched off:
//!
//! ```no_run
//! # #[cfg(feature = "node")]
//! # async fn agent() -> Result<(), Box<dyn std::error::Error>> {
//! let node = pilot::Node::builder()
//!     .identity("/var/lib/my-agent/identity.json")
//!     .registry("rendezvous.example.com:9000")
//!     .hostname("my-agent")
//!     .start()
//!     .await?;
//! let client = node.client();
//! # node.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything after that is the same: both are a [`Client`]. What can be done with it is told in [`pilot_client`], whose
//! types are here too, and `docs/library.md` says when which of the two is the better choice.

#[cfg(feature = "node")]
mod builder;
#[cfg(feature = "node")]
mod node;

#[cfg(feature = "node")]
pub use builder::Builder;
#[cfg(feature = "node")]
pub use node::{Node, StartError};
#[cfg(feature = "node")]
pub use pilot_daemon::{
    Config, Fingerprint, ProxySetting, ReceivedLimits, RegistryTls, RunError, Services, TlsMode, Web, Webhook,
};

pub use pilot_client::{
    A2aState, Addr, Category, Client, ConnectError, Courier, Datagrams, DeliveryState, Endpoint, Error,
    EventStream, FileOptions, FileReceipt, Inbox, Incoming, Listener, MAX_MESSAGE, Mail, MessageId,
    MessageKind, NetworkId, NewTask, NodeId, Outbox, OutboxFilter, OutboxItem, Outgoing, Overflow,
    PendingRequest, Port, Progress, Queued, QueuedContent, Reaction, ReadHalf, Receipt, Received,
    RequestEvent, RequestOptions, Response, ServeOptions, Server, Stream, StreamId, SubscribeOptions,
    Subscribed, Task, TaskId, TaskResult, TaskSettings, TaskState, Transport, WriteHalf, default_socket,
    hops, ipc, mailbox, new_message_id, policy, received,
};
pub use pilot_wire::PublicKey;
