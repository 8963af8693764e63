//! Words to a node, each with its answer.

use std::time::Duration;

use bytes::Bytes;
use pilot_client::{Client, Stream};
use pilot_wire::dataexchange::{Answer, Control, Decoder, FrameType, NOT_WANTED};
use pilot_wire::{Addr, NodeId, Port};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// How long a node may take to be reached.
const DIAL: Duration = Duration::from_secs(15);

/// How long nothing may move while a word is written or an answer awaited: a long letter over a slow relay takes a while.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest answer: one line.
const ANSWER_MAX: usize = 4096;

/// What a node says to a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// It has taken it in.
    Yes,
    /// Not now, or not from us.
    No(String),
    /// It will never take it.
    NotWanted(String),
    /// It does not know such words: a node of another make or release.
    What,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// It could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The connection ended.
    #[error("the connection ended before the answer: {0}")]
    Ended(#[from] std::io::Error),
    /// Nothing moved.
    #[error("no answer came in time")]
    Silent,
}

/// A connection to a node's data exchange.
pub(super) struct Way<S = Stream> {
    stream: S,
    decoder: Decoder,
}

impl Way {
    pub(super) async fn open(client: &Client, node: NodeId) -> Result<Self, Lost> {
        let to = Addr::backbone(node).port(Port::DATA_EXCHANGE);
        match timeout(DIAL, client.dial(to)).await {
            Ok(Ok(stream)) => Ok(Self::over(stream)),
            Ok(Err(error)) => Err(Lost::Unreachable(error.to_string())),
            Err(_) => Err(Lost::Unreachable("it does not answer".to_owned())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Way<S> {
    pub(super) fn over(stream: S) -> Self {
        Self { stream, decoder: Decoder::new(ANSWER_MAX) }
    }

    /// Says one word and waits for the answer to it.
    pub(super) async fn say(&mut self, word: &Control, body: &Bytes) -> Result<Said, Lost> {
        let mut frame = Vec::new();
        word.emit(body, &mut frame);
        let mut rest = &frame[..];
        while !rest.is_empty() {
            let written = timeout(SILENCE, self.stream.write(rest)).await.map_err(|_| Lost::Silent)??;
            if written == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into());
            }
            rest = rest.get(written..).unwrap_or_default();
        }
        timeout(SILENCE, self.stream.flush()).await.map_err(|_| Lost::Silent)??;
        loop {
            let frame = self.decoder.next_frame().map_err(std::io::Error::other)?;
            if let Some(frame) = frame {
                let text = String::from_utf8_lossy(&frame.payload);
                return Ok(understood(&text));
            }
            let read = self.stream.read_buf(self.decoder.buffer_mut());
            if timeout(SILENCE, read).await.map_err(|_| Lost::Silent)?? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

/// Receivers of other makes name the type in their answer, and some of them say `ACK` to what they do not know.
fn understood(answer: &str) -> Said {
    match Answer::parse_text(answer) {
        Ok(answer) if answer.is_unsupported(FrameType::CONTROL) => Said::What,
        Ok(Answer::Stored { .. }) => Said::Yes,
        Ok(Answer::Failed { reason, .. }) => match reason.strip_prefix(NOT_WANTED) {
            Some(why) => Said::NotWanted(why.to_owned()),
            None => Said::No(reason),
        },
        Ok(Answer::Refused(reason)) => Said::No(reason),
        Ok(Answer::Timed(_)) | Err(_) => Said::What,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_all_makes_are_understood() {
        for (answer, said) in [
            ("ACK TEXT 17 bytes", Said::Yes),
            ("ERR TEXT save failed: mailbox is full", Said::No("mailbox is full".to_owned())),
            ("ERR TEXT save failed: not wanted: a bad seal", Said::NotWanted("a bad seal".to_owned())),
            ("ERR UNKNOWN(80) save failed: unsupported frame type 80", Said::What),
            ("ACK UNKNOWN(80) 90 bytes", Said::What),
            ("hello", Said::What),
        ] {
            assert_eq!(understood(answer), said, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_node_that_hangs_up_has_not_answered() {
        let (ours, theirs) = tokio::io::duplex(1024);
        drop(theirs);
        assert!(matches!(Way::over(ours).say(&Control::Keeps, &Bytes::new()).await, Err(Lost::Ended(_))));
    }
}
