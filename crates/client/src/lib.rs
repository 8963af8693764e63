//! The Rust driver of Pilot: streams, datagrams, messages and events between agents, through the daemon of this
//! machine.

mod calls;
mod client;
mod datagrams;
mod driver;
mod error;
mod listener;
mod reference;
mod session;
mod socket;
mod stream;

pub use client::Client;
pub use datagrams::Datagrams;
pub use error::{ConnectError, Error};
pub use listener::Listener;
pub use socket::default_socket;
pub use stream::{ReadHalf, Stream, WriteHalf};

pub use pilot_wire::ipc;
pub use pilot_wire::{Addr, Endpoint, NetworkId, NodeId, Port, StreamId};
