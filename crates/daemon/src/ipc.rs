//! Local programs: the socket they come through, and per program a reader, a writer and a queue.

pub(crate) mod io;
pub(crate) mod listener;
pub(crate) mod local;
pub(crate) mod outbox;

pub use listener::SocketError;
