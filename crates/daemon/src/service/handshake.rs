//! Handshake, port 444: reads one message per stream and hands it to the node; carries the node's own out.

use std::time::Duration;

use pilot_client::Client;
use pilot_wire::handshake::{MAX_LEN, Message, MessageError};
use pilot_wire::{Addr, NodeId, Port};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Remote;

/// How long a message may take to arrive, as in release 1.18.0.
pub(super) const READ_LIMIT: Duration = Duration::from_secs(10);

/// How long delivering a message directly may take before the registry's relay is used.
const DELIVERY_LIMIT: Duration = Duration::from_secs(10);

/// Messages on their way out at the same time.
const DELIVERIES: usize = 32;

/// A message of this node, to be carried to port 444 of another one.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Whom it is for.
    pub(crate) to: NodeId,
    /// The message.
    pub(crate) message: Message,
    /// Told whether the other node has it.
    pub(crate) done: oneshot::Sender<Result<(), Undelivered>>,
}

/// Why a message did not arrive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undelivered {
    /// The peer was not reached, or broke off.
    #[error(transparent)]
    Client(#[from] pilot_client::Error),
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It took longer than [`DELIVERY_LIMIT`].
    #[error("not delivered in {DELIVERY_LIMIT:?}")]
    Late,
}

/// Carries messages out until nobody is left to send one.
pub(super) async fn deliver_all(client: Client, mut deliveries: mpsc::Receiver<Delivery>) {
    let mut under_way = JoinSet::new();
    while let Some(Delivery { to, message, done }) = deliveries.recv().await {
        while under_way.len() >= DELIVERIES {
            under_way.join_next().await;
        }
        let client = client.clone();
        under_way.spawn(async move {
            let delivered = timeout(DELIVERY_LIMIT, deliver(&client, to, &message)).await;
            // The driver may be gone; then nobody waits for the result.
            let _ = done.send(delivered.unwrap_or(Err(Undelivered::Late)));
        });
    }
}

async fn deliver(client: &Client, to: NodeId, message: &Message) -> Result<(), Undelivered> {
    let mut stream = client.dial(Addr::backbone(to).port(Port::HANDSHAKE)).await?;
    let mut bytes = Vec::new();
    message.emit(&mut bytes);
    stream.write_all(&bytes).await?;
    stream.flush().await?;
    // Receivers of early 2026 drop what they have not read when the stream is closed.
    stream.drain().await?;
    Ok(())
}

/// Why a stream brought no message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// It failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Nothing whole came in [`READ_LIMIT`].
    #[error("no message in {READ_LIMIT:?}")]
    Late,
    /// What came is no message.
    #[error(transparent)]
    Malformed(#[from] MessageError),
    /// The message speaks for another node than the tunnel it came through.
    #[error("the message says it is from node {claimed}")]
    OtherSender {
        /// Whom it names.
        claimed: NodeId,
    },
}

/// Reads the message of a stream that came from `from`.
pub(super) async fn receive<S: AsyncRead + Unpin>(stream: S, from: &Remote) -> Result<Message, Unread> {
    let bytes = timeout(READ_LIMIT, read_value(stream)).await.map_err(|_| Unread::Late)??;
    let message = Message::parse(&bytes)?;
    if message.node_id == from.endpoint.addr.node {
        Ok(message)
    } else {
        Err(Unread::OtherSender { claimed: message.node_id })
    }
}

/// Senders keep the stream open after the message, so its end is where the JSON value ends.
async fn read_value<S: AsyncRead + Unpin>(mut stream: S) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let read = stream.read_buf(&mut bytes).await?;
        if bytes.len() > MAX_LEN {
            return Err(MessageError::TooLong.into());
        }
        // A value is looked for only where one can end: the cost of a message in many pieces stays linear.
        let may_end = bytes.trim_ascii_end().last() == Some(&b'}');
        if read == 0 || (may_end && Message::is_complete(&bytes)) {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = r#"{"type":"handshake_request","node_id":1,"public_key":"aQm/wmaaVDv/4w0o1OgwSrthNigVaad4BofkhMzqAos=","justification":"direct } please","signature":"n/K/oUzw4iYk1Ua/G4lfoKB2l5qxl1XXae3ptbYC8UIIv8nvymPPNvOdUHDlNj1CH4+FaqjwPHj0V+M8Ww2YBg==","reason":"","timestamp":1795247955}"#;

    #[tokio::test]
    async fn a_message_in_pieces_on_a_stream_that_stays_open_is_read() {
        let (mut sender, receiver) = tokio::io::duplex(16);
        let sending = async {
            for piece in REQUEST.as_bytes().chunks(7) {
                sender.write_all(piece).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        let from = Remote::of(NodeId(1));
        tokio::select! {
            () = sending => {}
            message = receive(receiver, &from) => assert_eq!(message.unwrap().justification, "direct } please"),
        }
    }

    #[tokio::test]
    async fn a_message_in_the_name_of_another_node_is_refused() {
        let refused = receive(REQUEST.as_bytes(), &Remote::of(NodeId(2))).await;
        assert!(matches!(refused, Err(Unread::OtherSender { claimed: NodeId(1) })));
    }

    #[tokio::test]
    async fn what_is_no_message_is_refused() {
        let endless = vec![b' '; MAX_LEN + 1];
        for bad in [&b""[..], b"{}", b"[1,2]", &REQUEST.as_bytes()[..100], &endless] {
            assert!(matches!(receive(bad, &Remote::of(NodeId(1))).await, Err(Unread::Malformed(_))));
        }
    }
}
