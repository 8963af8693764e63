//! The Rust driver of Pilot: streams, datagrams, messages and events between agents, through the daemon of this
//! machine.

mod calls;
mod client;
mod datagrams;
mod driver;
mod error;
mod events;
mod file;
mod listener;
mod message;
mod reference;
mod session;
mod socket;
mod stream;

pub use client::Client;
pub use datagrams::Datagrams;
pub use error::{ConnectError, Error};
pub use events::{EventStream, Received, Subscribed};
pub use file::{FileReceipt, Progress, Transport};
pub use listener::Listener;
pub use message::{Courier, MAX_MESSAGE, Mail, MessageKind, Outgoing, Receipt, new_message_id};
pub use socket::default_socket;
pub use stream::{ReadHalf, Stream, WriteHalf};

pub use pilot_wire::dataexchange::MessageId;
pub use pilot_wire::{Addr, Endpoint, NetworkId, NodeId, Port, StreamId};
pub use pilot_wire::{ipc, mailbox};
