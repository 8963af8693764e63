//! Between sockets of this machine and streams of the network: what `serve --to`, `forward`, `proxy` and `gateway` share.
//!
//! Each of them has sources that bring connections, one after the other through a channel of one place; the [`Crowd`]
//! holds those under way, one task each, and knows how many there may be. A task finds its other end and leaves the
//! bytes to [`splice()`].

mod crowd;
mod daemon;
mod dial;
mod local;
mod name;
mod splice;

pub(crate) use crowd::{Crossing, Crowd, Listening, Notice, no_service};
pub(crate) use daemon::Daemon;
pub(crate) use dial::{Dialler, To};
pub(crate) use local::{Listener, Place, Reach, Socket};
pub(crate) use name::{BadName, host_name};
pub(crate) use splice::{part, splice};
