//! The way to the daemon of this machine.

use std::path::PathBuf;

use pilot_client::Client;
use pilot_client::ipc::{Code, Resolved};

use crate::fault::Fault;

/// Longest name of a node that is looked up: a hostname has 63 characters, an address 20.
const NAME_MAX: usize = 64;

/// The daemon behind a socket, running or not.
#[derive(Debug, Clone)]
pub(crate) struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    pub(crate) const fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A connection of its own: it takes less than a millisecond, and whatever daemon runs now is found.
    pub(crate) async fn client(&self) -> Result<Client, Fault> {
        Client::connect_to(&self.socket).await.map_err(|error| pilot_client::Error::from(error).into())
    }
}

/// Finds a node by hostname, address or number.
pub(crate) async fn resolve(client: &Client, peer: &str) -> Result<Resolved, Fault> {
    let peer = peer.trim();
    if peer.is_empty() || peer.len() > NAME_MAX || peer.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Fault::usage("`peer` is neither a hostname, an address nor a node number")
            .hint("write agent-b, 0:0000.0000.0002 or 2"));
    }
    client.resolve(peer).await.map_err(|error| {
        Fault::from(error)
            .advise(Code::NotFound, || "the tool `find_peers` lists the nodes that are known".to_owned())
    })
}
