//! One message per line, from the client and to it.
//!
//! Three things are done here that `rmcp` does not do: the end of the input is told to the calls that still wait, so that
//! the server ends at once; notifications before the first request are dropped instead of ending the conversation (a
//! client that gave up its first probe sends one); and a client that does not read what it asked for is not read either.

use std::future::Future;
use std::io;
use std::sync::Arc;

use rmcp::model::{ClientJsonRpcMessage, ClientRequest, GetMeta as _, JsonRpcMessage, ProtocolVersion};
use rmcp::service::{RoleServer, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

/// Longest line of a client. A message of a peer may have 16 MiB, but those are no arguments of a call.
const LINE_MAX: usize = 4 << 20;

/// Messages that wait to be written. While there are more, nothing is read.
const UNWRITTEN: usize = 256;

pub(crate) struct Lines<R: AsyncRead, W: AsyncWrite> {
    inner: AsyncRwTransport<RoleServer, R, W>,
    closing: watch::Sender<bool>,
    has_begun: bool,
    room: Arc<Semaphore>,
}

impl<R, W> Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    pub(crate) fn new(reader: R, writer: W, closing: watch::Sender<bool>) -> Self {
        let inner = AsyncRwTransport::new_server(reader, writer).with_max_line_length(LINE_MAX);
        Self { inner, closing, has_begun: false, room: Arc::new(Semaphore::new(UNWRITTEN)) }
    }
}

impl<R, W> Transport<RoleServer> for Lines<R, W>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        // Of those beyond the room there are few: what was read before it was full.
        let room = Arc::clone(&self.room).try_acquire_owned();
        let sending = self.inner.send(item);
        async move {
            let sent = sending.await;
            drop(room);
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            // It is given back at once: that there was one is enough.
            drop(self.room.acquire().await);
            let Some(message) = self.inner.receive().await else {
                self.closing.send_replace(true);
                return None;
            };
            match &message {
                JsonRpcMessage::Request(_) => {
                    self.has_begun |= begins(&message);
                    return Some(message);
                }
                _ if self.has_begun => return Some(message),
                // Nothing was asked yet that these could be about.
                JsonRpcMessage::Notification(_) | JsonRpcMessage::Response(_) | JsonRpcMessage::Error(_) => {}
            }
        }
    }

    fn close(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        self.inner.close()
    }
}

/// Whether `rmcp` takes the conversation to have begun with this: with the handshake, or with a request that says itself
/// which revision it is of. A probe or a ping is answered and leaves everything open.
fn begins(message: &ClientJsonRpcMessage) -> bool {
    let JsonRpcMessage::Request(request) = message else { return false };
    #[expect(clippy::wildcard_enum_match_arm, reason = "a request of any other kind is a request")]
    match &request.request {
        ClientRequest::InitializeRequest(_) => true,
        ClientRequest::PingRequest(_) | ClientRequest::DiscoverRequest(_) => false,
        other => {
            let meta = other.get_meta();
            let is_known = |version| ProtocolVersion::KNOWN_VERSIONS.contains(&version);
            meta.missing_required_keys(&ProtocolVersion::V_2026_07_28).is_empty()
                && meta.protocol_version().is_some_and(is_known)
        }
    }
}
