//! Messages: sent to a peer's inbox, answered by its daemon once they are stored there.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use pilot_wire::dataexchange::{
    Answer, Content, DEFAULT_MAX_FRAME, Decoder, Delivery, Extension, Frame, FrameType, MessageId, RawFrame,
    Tag, Timing,
};
use pilot_wire::ipc::{Call, Code, Failure};
use pilot_wire::mailbox::{Filter, Reply, Request, StoredMessage, Wait};
use pilot_wire::{Addr, NodeId, Port};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use crate::{Client, Error, Stream};

/// Longest answer accepted: answers are lines of text.
const MAX_ANSWER: usize = 64 << 10;

/// Pause before a wait is taken up again with a daemon that was restarted.
pub(crate) const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Longest message sent in one frame: what release 1.18.0 accepts.
pub const MAX_MESSAGE: usize = DEFAULT_MAX_FRAME - 4096;

/// What the bytes of a message are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Text.
    Text,
    /// JSON. It is not checked here.
    Json,
    /// Bytes, kept exactly.
    Binary,
}

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// What its bytes are.
    pub kind: MessageKind,
    /// Its bytes.
    pub data: Bytes,
    /// Its id; chosen at random when absent. Sending again under the same id within ten minutes cannot store it twice.
    pub message_id: Option<MessageId>,
    /// The id of the message it answers.
    pub reply_to: Option<MessageId>,
    /// Whether the receiver is asked for its times.
    pub trace: bool,
    /// What else a receiver that is one of our nodes is told.
    pub extension: Extension,
}

impl Outgoing {
    /// A message of this kind.
    pub fn new(kind: MessageKind, data: impl Into<Bytes>) -> Self {
        Self {
            kind,
            data: data.into(),
            message_id: None,
            reply_to: None,
            trace: false,
            extension: Extension::default(),
        }
    }

    /// A text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(MessageKind::Text, text.into())
    }

    /// The same message as an answer to another one.
    #[must_use]
    pub fn in_reply_to(self, id: MessageId) -> Self {
        Self { reply_to: Some(id), ..self }
    }

    fn content(&self) -> Content {
        match self.kind {
            MessageKind::Text => Content::Text(self.data.clone()),
            MessageKind::Json => Content::Json(self.data.clone()),
            MessageKind::Binary => Content::Binary(self.data.clone()),
        }
    }
}

/// The receiver has stored a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The id it was sent under.
    pub message_id: MessageId,
    /// Whether the receiver knows ids. If not, an answer cannot name this message.
    pub tagged: bool,
    /// Bytes stored.
    pub bytes: u64,
    /// The receiver's answer in its own words.
    pub ack: String,
    /// Whether it had the message already.
    pub duplicate: bool,
    /// The receiver's times, when asked for.
    pub timing: Option<Timing>,
}

/// A message from the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its name in the inbox.
    pub id: String,
    /// Its file.
    pub path: PathBuf,
    /// When it arrived, in nanoseconds since 1970. Later messages have more: a place in the inbox.
    pub arrived_ns: u64,
    /// Itself.
    pub message: StoredMessage,
}

/// A connection to a peer's data exchange, for one message after the other.
#[derive(Debug)]
pub struct Courier<S = Stream> {
    stream: S,
    decoder: Decoder,
    /// Turned off for good by a receiver that does not know them.
    tags: bool,
    traces: bool,
    /// The first message went out with the dial.
    begun: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Courier<S> {
    /// Uses a stream to port 1001.
    pub fn over(stream: S) -> Self {
        Self { stream, decoder: Decoder::new(MAX_ANSWER), tags: true, traces: true, begun: false }
    }

    /// Sends a message and waits until the receiver has stored it.
    ///
    /// # Errors
    /// When the receiver refuses it, or the connection ends before the answer; then it may or may not be stored,
    /// and sending it again under the same id is safe.
    pub async fn send(&mut self, message: &Outgoing) -> Result<Receipt, Error> {
        if message.data.len() > MAX_MESSAGE {
            let failure = Failure::new(
                Code::InvalidArgument,
                format!("a message of {} bytes is over the limit of {MAX_MESSAGE}", message.data.len()),
            );
            return Err(failure.with_hint("send it as a file: `pilotctl send-file`").into());
        }
        let message_id = match &message.message_id {
            Some(id) => id.clone(),
            None => new_message_id()?,
        };
        loop {
            let answer = self.ask(message, &message_id).await?;
            // An older receiver says so, and gets the message in the older form.
            if self.tags && answer.is_unsupported(FrameType::TAGGED) {
                self.tags = false;
            } else if self.traces && message.trace && answer.is_unsupported(FrameType::TRACE) {
                self.traces = false;
            } else {
                return self.receipt(answer, message_id);
            }
        }
    }

    async fn ask(&mut self, message: &Outgoing, message_id: &MessageId) -> Result<Answer, Error> {
        if !std::mem::take(&mut self.begun) {
            let frame = delivery(message, message_id, self.tags, self.traces);
            self.stream.write_all(&frame).await?;
            self.stream.flush().await?;
        }
        let answer = read_frame(&mut self.stream, &mut self.decoder).await?;
        Answer::parse(&answer).map_err(|error| Failure::new(Code::Unsupported, error.to_string()).into())
    }

    fn receipt(&self, answer: Answer, message_id: MessageId) -> Result<Receipt, Error> {
        let ack = answer.text();
        let (answer, timing) = match answer {
            Answer::Timed(timing) => {
                let inner = Answer::parse_text(&timing.inner_ack)
                    .map_err(|error| Failure::new(Code::Unsupported, error.to_string()))?;
                (inner, Some(timing))
            }
            other @ (Answer::Stored { .. } | Answer::Failed { .. } | Answer::Refused(_)) => (other, None),
        };
        match answer {
            Answer::Stored { bytes, duplicate, .. } => {
                Ok(Receipt { message_id, tagged: self.tags, bytes, ack, duplicate, timing })
            }
            Answer::Failed { reason, .. } | Answer::Refused(reason) => Err(refused(&reason)),
            Answer::Timed(_) => Err(Error::Protocol("a traced answer inside a traced answer".to_owned())),
        }
    }
}

/// The frame of a message.
fn delivery(message: &Outgoing, message_id: &MessageId, tags: bool, traces: bool) -> Vec<u8> {
    let pilot = (message.extension != Extension::default()).then(|| Box::new(message.extension.clone()));
    let tag = || Tag { message_id: Some(message_id.clone()), reply_to: message.reply_to.clone(), pilot };
    let delivery = Delivery {
        tag: tags.then(tag),
        sent_at_ns: (message.trace && traces).then(|| unix_ns(SystemTime::now())),
        content: message.content(),
    };
    let mut frame = Vec::new();
    Frame::Delivery(delivery).emit(&mut frame);
    frame
}

/// The error for something the receiver did not store.
pub(crate) fn refused(reason: &str) -> Error {
    Failure::new(Code::Busy, format!("the receiver did not store it: {reason}"))
        .with_hint("nothing was delivered; make room on the receiver or send something it accepts")
        .into()
}

/// The error for a receiver that hangs up instead of answering.
fn hung_up() -> Error {
    Failure::new(Code::Closed, "the receiver closed the connection without an answer").into()
}

/// Reads one frame of answers.
pub(crate) async fn read_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    decoder: &mut Decoder,
) -> Result<RawFrame, Error> {
    loop {
        let frame = decoder.next_frame().map_err(|error| Error::Protocol(error.to_string()))?;
        if let Some(frame) = frame {
            return Ok(frame);
        }
        decoder.buffer_mut().reserve(1024);
        if stream.read_buf(decoder.buffer_mut()).await? == 0 {
            return Err(hung_up());
        }
    }
}

pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    pilot_crypto::random_bytes().map_err(|error| Error::Io(error.to_string()))
}

/// A new random message id.
///
/// # Errors
/// When the system has no random bytes.
pub fn new_message_id() -> Result<MessageId, Error> {
    Ok(MessageId::from_random(random()?))
}

fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Client {
    /// Opens a connection to a peer's data exchange, for several messages in a row.
    ///
    /// # Errors
    /// When the peer cannot be reached.
    pub async fn courier(&self, to: Addr) -> Result<Courier, Error> {
        Ok(Courier::over(self.dial(to.port(Port::DATA_EXCHANGE)).await?))
    }

    /// The first message goes out with the dial: it is stored once however often it arrives.
    async fn courier_with(&self, to: Addr, first: &Outgoing, id: &MessageId) -> Result<Courier, Error> {
        let frame = delivery(first, id, true, true);
        let stream = self.dial_with(to.port(Port::DATA_EXCHANGE), &frame).await?;
        Ok(Courier { begun: true, ..Courier::over(stream) })
    }

    /// Sends a message and waits until the peer has stored it.
    ///
    /// If the connection breaks before the answer it is sent once more, under the same id, so that it is stored
    /// once.
    ///
    /// # Errors
    /// When the peer cannot be reached or refuses the message.
    pub async fn send_message(&self, to: Addr, message: Outgoing) -> Result<Receipt, Error> {
        let mut message = message;
        let id = match message.message_id.take() {
            Some(id) => id,
            None => new_message_id()?,
        };
        message.message_id = Some(id.clone());
        let mut courier = match message.data.len() {
            0..=MAX_MESSAGE => self.courier_with(to, &message, &id).await?,
            _ => self.courier(to).await?,
        };
        match courier.send(&message).await {
            Err(error) if error.code() == Code::Closed => self.courier(to).await?.send(&message).await,
            other => other,
        }
    }

    /// Waits for the answer to a message; `None` when none came in time. Nothing is polled.
    ///
    /// An answer that names the message is found whenever it came. From a peer that does not name what it answers,
    /// the first message after `sent_at` counts: take that time before sending.
    ///
    /// # Errors
    /// When the daemon cannot wait.
    pub async fn wait_reply(
        &self,
        from: NodeId,
        message_id: &MessageId,
        sent_at: SystemTime,
        limit: Duration,
    ) -> Result<Option<Mail>, Error> {
        let filter = Filter { from: Some(from), since_ns: Some(unix_ns(sent_at)), ..Filter::default() };
        let reply_to = Some(message_id.clone());
        self.wait_mail(Wait { filter, reply_to, ..Wait::default() }, limit).await
    }

    /// Waits for the next message, of anyone or of one sender, that arrives after `since`; `None` when none came in
    /// time.
    ///
    /// # Errors
    /// When the daemon cannot wait.
    pub async fn wait_message(
        &self,
        from: Option<NodeId>,
        since: SystemTime,
        limit: Duration,
    ) -> Result<Option<Mail>, Error> {
        let filter = Filter { from, since_ns: Some(unix_ns(since)), ..Filter::default() };
        self.wait_mail(Wait { filter, ..Wait::default() }, limit).await
    }

    /// One message of the inbox, or the newest.
    ///
    /// # Errors
    /// When there is no such message.
    pub async fn read_message(&self, id: Option<String>) -> Result<Mail, Error> {
        mail(self.mailbox(Request::Read { id, peek: false }).await?).await
    }

    /// What is waited for lies on disk, so the wait outlives a restart of the daemon.
    pub(crate) async fn wait_mail(&self, wait: Wait, limit: Duration) -> Result<Option<Mail>, Error> {
        let started = Instant::now();
        let mut client = self.clone();
        loop {
            let left = limit.saturating_sub(started.elapsed());
            let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            match client.mailbox(Request::Wait(Wait { timeout_ms, ..wait.clone() })).await {
                Ok(Reply::TimedOut) => return Ok(None),
                Ok(reply) => return mail(reply).await.map(Some),
                Err(error @ (Error::Disconnected | Error::Connect(_))) if left > RECONNECT_PAUSE => {
                    sleep(RECONNECT_PAUSE).await;
                    client = client.mended(&error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the daemon about messages; a refusal is an error.
    ///
    /// # Errors
    /// When the daemon cannot answer.
    pub async fn mailbox(&self, request: Request) -> Result<Reply, Error> {
        match self.call(Call::Mailbox(request)).await? {
            Reply::Failed { code, message } => {
                let code = serde_json::from_value(code.into()).unwrap_or(Code::Other);
                Err(Failure::new(code, message).into())
            }
            reply @ (Reply::Messages { .. }
            | Reply::Message { .. }
            | Reply::TimedOut
            | Reply::Marked { .. }
            | Reply::Cleared { .. }) => Ok(reply),
        }
    }
}

pub(crate) fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!("unexpected answer about the mailbox: {reply:?}"))
}

/// The message in a reply, or behind it.
pub(crate) async fn mail(reply: Reply) -> Result<Mail, Error> {
    let Reply::Message { id, path, arrived_ns, message } = reply else { return Err(unexpected(&reply)) };
    let path = PathBuf::from(path);
    let message = match message {
        Some(message) => *message,
        None => {
            let content = tokio::fs::read(&path).await?;
            serde_json::from_slice(&content).map_err(|error| Error::Protocol(error.to_string()))?
        }
    };
    Ok(Mail { id, path, arrived_ns, message })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each frame with the next of `answers`; returns what it received.
    async fn receiver(mut stream: tokio::io::DuplexStream, answers: &[&str]) -> Vec<RawFrame> {
        let mut decoder = Decoder::new(1 << 20);
        let mut received = Vec::new();
        for answer in answers {
            received.push(read_frame(&mut stream, &mut decoder).await.unwrap());
            let mut bytes = Vec::new();
            RawFrame { kind: FrameType::TEXT, payload: Bytes::from((*answer).to_owned()) }.emit(&mut bytes);
            stream.write_all(&bytes).await.unwrap();
        }
        received
    }

    #[tokio::test]
    async fn a_message_is_tagged_and_leaves_in_one_write() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut courier = Courier::over(ours);
        let message = Outgoing::text("hello").in_reply_to("q-1".parse().unwrap());
        let message = Outgoing { message_id: Some("m-1".parse().unwrap()), ..message };
        let sending = courier.send(&message);
        let receiving = async {
            let mut first = vec![0; 1 << 16];
            let read = theirs.read(&mut first).await.unwrap();
            let expected =
                b"\0\0\0\x0a\0\0\0\x30\0\x25{\"message_id\":\"m-1\",\"reply_to\":\"q-1\"}\0\0\0\x01hello";
            assert_eq!(&first[..read], expected);
            let mut answer = Vec::new();
            Answer::Stored { kind: FrameType::TEXT, bytes: 5, duplicate: true }.emit(&mut answer);
            theirs.write_all(&answer).await.unwrap();
        };
        let (receipt, ()) = tokio::join!(sending, receiving);
        let receipt = receipt.unwrap();
        assert_eq!(receipt.ack, "ACK TEXT 5 bytes (duplicate)");
        assert!(receipt.duplicate && receipt.tagged);
        assert_eq!(receipt.message_id.as_str(), "m-1");
    }

    #[tokio::test]
    async fn an_older_receiver_gets_the_older_form() {
        for refusal in ["ACK UNKNOWN(10) 60 bytes", "ERR UNKNOWN(10) save failed: unsupported frame type 10"]
        {
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let mut courier = Courier::over(ours);
            let message = Outgoing::text("hi");
            let answers = [refusal, "ACK TEXT 2 bytes"];
            let (receipt, received) = tokio::join!(courier.send(&message), receiver(theirs, &answers));
            assert!(!receipt.unwrap().tagged);
            assert_eq!(received[1], RawFrame { kind: FrameType::TEXT, payload: Bytes::from_static(b"hi") });
        }
    }

    #[tokio::test]
    async fn a_refusal_and_a_hang_up_are_errors() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut courier = Courier::over(ours);
        let message = Outgoing::text("hi");
        let answers = ["ERR TEXT save failed: inbox is full"];
        let (refusal, _) = tokio::join!(courier.send(&message), receiver(theirs, &answers));
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.to_string(), "the receiver did not store it: inbox is full");

        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut courier = Courier::over(ours);
        let hangs_up = async move { read_frame(&mut theirs, &mut Decoder::new(1 << 20)).await };
        let (hung_up, _) = tokio::join!(courier.send(&message), hangs_up);
        assert_eq!(hung_up.unwrap_err().code(), Code::Closed);
    }
}
