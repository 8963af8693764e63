//! The Rust driver of Pilot: streams, datagrams, messages and events between agents, through the daemon of this
//! machine.
//!
//! A [`Client`] is a connection to the daemon. It is cheap to clone, and everything opened through it lives on its
//! own. Peers are named by hostname, address (`0:0000.0000.0002`) or number; they answer once both sides trust each
//! other ([`Client::handshake`], [`Client::approve`]) or when they are public.
//!
//! # Events
//!
//! Agents that trust each other see each other's events: there is no broker to set up and nothing to poll.
//!
//! ```no_run
//! # async fn agent() -> Result<(), pilot_client::Error> {
//! use pilot_client::Client;
//!
//! let client = Client::connect().await?;
//! let mut events = client.open_event_stream().await?;
//! events.subscribe("agent-b.results").await?;
//! events.publish("agent-a.tasks", r#"{"id":1}"#).await?;
//! let event = events.next().await;
//! assert_eq!(event.topic, "agent-b.results");
//! # Ok(())
//! # }
//! ```
//!
//! # Streams
//!
//! A [`Stream`] is ordered and reliable, as a TCP connection is, and reads and writes through tokio's traits. It ends
//! in each direction on its own ([`Stream::finish`]), and one that is not read holds up only its own writer.
//!
//! ```no_run
//! # async fn agent() -> Result<(), pilot_client::Error> {
//! use pilot_client::{Client, Port};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! let client = Client::connect().await?;
//! let mut stream = client.dial_target("worker-node", Port::STDIO).await?;
//! stream.write_all(br#"{"action":"execute_query"}"#).await?;
//! stream.finish().await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! # async fn agent() -> Result<(), pilot_client::Error> {
//! use pilot_client::{Client, Port};
//!
//! let client = Client::connect().await?;
//! let mut listener = client.listen(Port::STDIO).await?;
//! loop {
//!     let (mut reader, mut writer) = listener.accept().await?.into_split();
//!     tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await });
//! }
//! # }
//! ```
//!
//! # Messages
//!
//! A message is kept in the inbox of the receiving node until somebody reads it.
//!
//! ```no_run
//! # async fn agent() -> Result<(), pilot_client::Error> {
//! use pilot_client::{Client, Outgoing};
//!
//! let client = Client::connect().await?;
//! let peer = client.resolve("agent-b").await?;
//! let receipt = client.send_message(peer.address, Outgoing::text("process this")).await?;
//! # Ok(())
//! # }
//! ```
//!
//! ```no_run
//! # async fn agent() -> Result<(), pilot_client::Error> {
//! use pilot_client::{Client, mailbox::Filter};
//!
//! let client = Client::connect().await?;
//! let mut inbox = client.inbox(Filter { unread: true, ..Filter::default() }).await?;
//! loop {
//!     let mail = inbox.next().await?;
//!     println!("{} says {:?}", mail.message.from, mail.message.data);
//! }
//! # }
//! ```
//!
//! # Errors
//!
//! Every [`Error`] has a class ([`Error::code`]) for programs, a sentence for people, and often a hint what to do.
//!
//! # Daemons of other makes
//!
//! The driver also speaks to a released 1.18 daemon ([`Client::is_reference`]), within the limits of its protocol:
//! one request at a time, no half-close, and no protection from a stream that is not read.

mod arrivals;
mod calls;
mod capture;
mod client;
mod datagrams;
mod driver;
mod error;
mod events;
mod file;
mod halves;
mod inbox;
mod listener;
pub mod local;
mod mailboxes;
mod message;
mod networks;
mod outbox;
pub mod policy;
mod reference;
mod request;
mod session;
mod socket;
mod stream;
mod tasks;

pub use capture::{Capture, Packets};
pub use client::Client;
pub use datagrams::Datagrams;
pub use error::{ConnectError, Error};
pub use events::{EventStream, Received, SubscribeOptions, Subscribed};
pub use file::{FileOptions, FileReceipt, Progress, Transport};
pub use halves::{SocketReader, SocketWriter, halves};
pub use inbox::Inbox;
pub use listener::Listener;
pub use message::{Courier, MAX_MESSAGE, Mail, MessageKind, Outgoing, Receipt, new_message_id};
pub use outbox::{Outbox, OutboxFilter, Queued, QueuedContent};
pub use request::{
    Event as RequestEvent, Incoming, PendingRequest, Reaction, RequestOptions, Response, ServeOptions,
    Server, hops,
};
pub use socket::default_socket;
pub use stream::{ReadHalf, Stream, WriteHalf};
pub use tasks::{NewTask, TaskResult, TaskSettings};

pub use pilot_wire::dataexchange::MessageId;
pub use pilot_wire::events::Overflow;
pub use pilot_wire::outbox::{Item as OutboxItem, State as DeliveryState};
pub use pilot_wire::tasks::{A2aState, Category, State as TaskState, Task, TaskId};
pub use pilot_wire::{Addr, Endpoint, NetworkId, NodeId, Port, StreamId};
pub use pilot_wire::{capture as packets, ipc, mailbox, received};
