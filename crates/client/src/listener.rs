//! A claimed port and the streams that come to it.

use std::future::poll_fn;

use pilot_wire::Port;
use pilot_wire::ipc::Request;

use crate::driver::Link;
use crate::{Error, Stream};

/// A claimed port. Dropping it gives the port back; streams that were accepted go on.
pub struct Listener {
    link: Link,
    port: Port,
    /// The daemon knows of the claim and must be told of its end.
    bound: bool,
}

impl Listener {
    pub(crate) const fn new(link: Link, port: Port) -> Self {
        Self { link, port, bound: true }
    }

    /// The daemon refused the claim.
    pub(crate) fn discard(mut self) {
        self.bound = false;
    }

    /// The port.
    pub const fn port(&self) -> Port {
        self.port
    }

    /// The next stream that a peer opens.
    ///
    /// # Errors
    /// When the connection to the daemon ends.
    pub async fn accept(&mut self) -> Result<Stream, Error> {
        let incoming = poll_fn(|cx| self.link.session().poll_accept(self.port, cx)).await?;
        Ok(Stream::new(self.link.clone(), incoming.stream, incoming.from))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut session = self.link.session();
        session.remove_listener(self.port);
        if self.bound {
            session.start_unattended(&Request::Unbind { port: self.port });
        }
    }
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener").field("port", &self.port).finish_non_exhaustive()
    }
}
