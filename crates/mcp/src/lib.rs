//! The network of agents as a server of the Model Context Protocol: what a model can do with it are at most twelve
//! tools, and what arrives by itself (messages, events) are resources that announce their changes.
//!
//! [`serve`] speaks the protocol over any pair of byte streams, in all revisions that `rmcp` knows: with the handshake
//! of 2025-11-25 and before, and request by request as in 2026-07-28. The daemon is asked anew for each call, so it may
//! be down when the server starts and come back whenever it likes.
//!
//! What peers say reaches a model, so it is always told whose words they are and that they are data ([`words`]).
//! [`install`] knows where programs keep their lists of servers, and how to change those without harm.

mod board;
mod daemon;
mod events;
mod fault;
mod inbox;
pub mod install;
mod known;
mod lines;
mod pace;
mod resources;
mod server;
mod tools;
pub mod words;

use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};

pub use server::INSTRUCTIONS;

/// The port on which a node offers a server of the protocol to its peers, unless another one is named. No release of
/// the reference uses it.
pub const PORT: pilot_client::Port = pilot_client::Port(1010);

/// The server could not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client broke off, or opened with something that is no conversation.
    #[error("the conversation did not begin: {0}")]
    Opening(String),
    /// A defect of the server.
    #[error("the server ended: {0}")]
    Crashed(String),
}

/// Serves one client until it closes its side. Nothing but the protocol is written to `writer`.
///
/// # Errors
/// When the conversation cannot begin. That a client leaves before it began is no error.
pub async fn serve<R, W>(socket: impl Into<PathBuf>, reader: R, writer: W) -> Result<(), ServeError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin + 'static,
{
    use rmcp::ServiceExt as _;
    use rmcp::service::ServerInitializeError;

    let server = server::Pilot::new(socket.into());
    let lines = lines::Lines::new(reader, writer, server.closing());
    match server.serve(lines).await {
        Ok(running) => running.waiting().await.map(drop).map_err(|e| ServeError::Crashed(e.to_string())),
        Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
        Err(error) => Err(ServeError::Opening(error.to_string())),
    }
}
