//! Datagrams: single packets, unordered, and lost when something on the way is full.

use std::future::poll_fn;

use bytes::Bytes;
use pilot_wire::ipc::{Code, Request};
use pilot_wire::{Endpoint, Port};

use crate::{Client, Error};

/// The datagrams of one port.
#[derive(Debug)]
pub struct Datagrams {
    client: Client,
    port: Port,
}

impl Datagrams {
    pub(crate) const fn new(client: Client, port: Port) -> Self {
        Self { client, port }
    }

    /// The port.
    pub const fn port(&self) -> Port {
        self.port
    }

    /// Sends a datagram from this port. A reference daemon sends from a port of its own choice.
    ///
    /// # Errors
    /// When the peer is unknown or not trusted, or `data` too large (65 535 bytes).
    pub async fn send_to(&self, to: Endpoint, data: &[u8]) -> Result<(), Error> {
        if self.client.is_reference() {
            return self.send_to_reference(to, data).await;
        }
        self.client.order(&Request::SendFrom { from: self.port, to, data }).await.map(drop)
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
