//! Datagrams: single packets, unordered, and lost when something on the way is full.

use std::future::poll_fn;

use bytes::Bytes;
use pilot_wire::ipc::{Code, Request};
use pilot_wire::{Endpoint, Port};
use tokio::sync::OnceCell;

use crate::{Client, Error, Listener};

/// The datagrams of one port.
#[derive(Debug)]
pub struct Datagrams {
    client: Client,
    port: Port,
    /// The port, claimed for sending from it.
    claim: OnceCell<Listener>,
}

impl Datagrams {
    pub(crate) fn new(client: Client, port: Port) -> Self {
        Self { client, port, claim: OnceCell::new() }
    }

    /// The port.
    pub const fn port(&self) -> Port {
        self.port
    }

    /// Sends a datagram from this port. If no program has the port, it is claimed until this is dropped, and streams to it
    /// are refused unless this program listens there. A reference daemon sends from a port of its own choice.
    ///
    /// # Errors
    /// When another program has the port, the peer is unknown or not trusted, or `data` too large (65 535 bytes).
    pub async fn send_to(&self, to: Endpoint, data: &[u8]) -> Result<(), Error> {
        if self.client.is_reference() {
            return self.send_to_reference(to, data).await;
        }
        let request = Request::SendFrom { from: self.port, to, data };
        match self.client.order(&request).await.map(drop) {
            // Only whoever has a port may send from it.
            Err(error) if error.code() == Code::PermissionDenied && self.claim().await => {
                self.client.order(&request).await.map(drop)
            }
            result => result,
        }
    }

    /// Claims the port. `false` if that is not possible, or was done before and does not help.
    async fn claim(&self) -> bool {
        if self.claim.initialized() {
            return false;
        }
        let claim = async {
            let claim = self.client.listen(self.port).await?;
            // Nobody accepts: a stream that comes is refused and does not wait.
            self.client.link().session().remove_listener(self.port);
            Ok::<_, Error>(claim)
        };
        self.claim.get_or_try_init(|| claim).await.is_ok()
    }

    async fn send_to_reference(&self, to: Endpoint, data: &[u8]) -> Result<(), Error> {
        match self.client.send_datagram(to, data).await {
            // Releases before 1.18 have no confirmation.
            Err(error) if error.code() == Code::Unsupported => self.client.send_unconfirmed(to, data).await,
            result => result,
        }
    }

    /// The next datagram: who sent it, and what.
    ///
    /// # Errors
    /// When the connection to the daemon ends.
    pub async fn recv_from(&self) -> Result<(Endpoint, Bytes), Error> {
        poll_fn(|cx| self.client.link().session().poll_datagram(self.port, cx)).await
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.client.link().session().remove_datagrams(self.port);
    }
}
