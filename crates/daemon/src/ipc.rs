//! Local programs: the socket they come through, and per program a connection with a budget and a queue.

pub(crate) mod bell;
pub(crate) mod budget;
pub(crate) mod io;
pub(crate) mod listener;
pub(crate) mod local;
pub(crate) mod outbox;
pub(crate) mod way;

pub use listener::SocketError;
