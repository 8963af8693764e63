//! What a mailbox brings: opened, and then taken in as if its author had brought it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{Answer, Decoder, Delivery, Frame, FrameType, MessageId, NOT_WANTED};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Semaphore;

use super::{Closed, Exchange};
use crate::service::Remote;
use crate::service::mailboxes::Opened;
use crate::service::mailboxes::letter::Inside;

/// Bytes between the two ends of the connection inside.
const PIPE: usize = 64 << 10;

/// Longest answer: one line.
const ANSWER_MAX: usize = 4096;

impl Exchange {
    /// The answer tells the mailbox whether it may forget the letter.
    ///
    /// Boxed, because there is a connection inside the connection. It goes no deeper: a letter holds no letter.
    pub(super) fn forwarded<'a>(
        &'a self,
        mailbox: &'a Remote,
        from: NodeId,
        id: MessageId,
        sealed: Bytes,
    ) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
        Box::pin(async move {
            // As to any word: see `Controls::handle`.
            let kind = FrameType::TEXT;
            let bytes = sealed.len() as u64;
            let mailboxes = &self.controls.mailboxes;
            let Opened { author, inside } = match mailboxes.open_letter(mailbox, from, &id, sealed).await {
                Ok(opened) => opened,
                Err(reason) => return Answer::Failed { kind, reason },
            };
            let delivery = match inside {
                Inside::Message(delivery) => delivery,
                Inside::Word(word) => return self.controls.handle(&author, word, Bytes::new()).await,
            };
            match self.as_if_brought_by(&author, delivery).await {
                Ok(Answer::Stored { duplicate, .. }) => {
                    mailboxes.delivered(from, id);
                    Answer::Stored { kind, bytes, duplicate }
                }
                Ok(Answer::Failed { reason, .. } | Answer::Refused(reason)) => {
                    Answer::Failed { kind, reason }
                }
                Ok(Answer::Timed(_)) => Answer::Failed { kind, reason: "a time in a letter".to_owned() },
                // On what closes the connection once it will do so again.
                Err(closed) => Answer::Failed { kind, reason: format!("{NOT_WANTED}{closed}") },
            }
        })
    }

    async fn as_if_brought_by(&self, author: &Remote, delivery: Delivery) -> Result<Answer, Closed> {
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let alone = Semaphore::new(1);
        // A long letter has been admitted as such, and must not wait for itself.
        let inside = Self { large_frames: Arc::new(Semaphore::new(1)), ..self.clone() };
        let (served, answered) = tokio::join!(inside.serve(theirs, author, &alone), bring(ours, delivery));
        served?;
        Ok(answered?)
    }
}

/// The author's side of the connection.
async fn bring(mut stream: DuplexStream, delivery: Delivery) -> io::Result<Answer> {
    let mut frame = Vec::new();
    Frame::Delivery(delivery).emit(&mut frame);
    stream.write_all(&frame).await?;
    drop(frame);
    let mut decoder = Decoder::new(ANSWER_MAX);
    loop {
        if let Some(frame) = decoder.next_frame().map_err(io::Error::other)? {
            return Answer::parse(&frame).map_err(io::Error::other);
        }
        if stream.read_buf(decoder.buffer_mut()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
