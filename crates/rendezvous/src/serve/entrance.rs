//! How a connection to the registry begins: with TLS or with plain frames, told apart by the first byte.

use pilot_wire::registry::Envelope;
use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The first byte of a TLS handshake record. A frame begins with its length, whose first byte is 0 in all that are
/// not too long.
const TLS_HANDSHAKE: u8 = 0x16;

/// Addresses that were warned about. More are not warned about; the log has enough of it by then.
const WARNED_MAX: usize = 1024;

/// What is asked of those who come in.
#[derive(Clone)]
pub(super) struct Entrance {
    acceptor: TlsAcceptor,
    plaintext: bool,
    patience: Duration,
    warned: Arc<Mutex<BTreeSet<IpAddr>>>,
}

/// Somebody who came in.
pub(super) enum Entered {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
    /// Without TLS, where that is not wanted: to be told so.
    Unwanted(TcpStream),
}

/// Why somebody did not come in.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("closed before it began")]
    Closed,
    #[error("no first byte")]
    Silent,
    #[error("the TLS handshake takes too long")]
    Slow,
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Entrance {
    /// `patience`: how long a TLS handshake may take.
    pub(super) fn new(acceptor: TlsAcceptor, plaintext: bool, patience: Duration) -> Self {
        Self { acceptor, plaintext, patience, warned: Arc::default() }
    }

    /// How long a client may take to begin with TLS, or to say one thing where it should have.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// Waits for the first byte, `idle` at most, and for the end of the TLS handshake.
    pub(super) async fn enter(&self, stream: TcpStream, idle: Duration) -> Result<Entered, Refused> {
        let mut first = [0];
        let peeked = timeout(idle, stream.peek(&mut first)).await.map_err(|_| Refused::Silent)??;
        if peeked == 0 {
            return Err(Refused::Closed);
        }
        if first != [TLS_HANDSHAKE] {
            return Ok(if self.plaintext { Entered::Plain(stream) } else { Entered::Unwanted(stream) });
        }
        let handshake = timeout(self.patience, self.acceptor.accept(stream)).await;
        let secured = handshake.map_err(|_| Refused::Slow)?.map_err(Refused::Tls)?;
        Ok(Entered::Tls(Box::new(secured)))
    }

    /// Somebody asks in the clear. An admin token that everybody on the way can read is worth a warning.
    pub(super) fn overheard(&self, from: IpAddr, envelope: &Envelope) {
        if envelope.admin_token.is_empty() || from.is_loopback() {
            return;
        }
        let Ok(mut warned) = self.warned.lock() else { return };
        if warned.len() < WARNED_MAX && warned.insert(from) {
            tracing::warn!(
                %from,
                "an admin token came without TLS; whoever is on the way can use it, so replace it and use TLS"
            );
        }
    }
}
