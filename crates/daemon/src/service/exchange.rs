//! Data exchange, port 1001: messages into the inbox, files among the received ones, an answer to each.

mod files;
mod forwarded;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilot_wire::dataexchange::{
    Answer, Content, Control, Decoder, Delivery, Extension, Frame, FrameError, FrameType, MessageId, RawFrame,
    Tag, Timing, TransferWord, is_refused_for_good,
};
use pilot_wire::mailbox::{Path, Provenance};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use self::files::Receiving;
use super::control::Controls;
use super::disk::{Refusal, unix_ns};
use super::inbox::{Letter, Row};
use super::policy::{Forbidden, Policy};
use super::received::{BadName, Files, IncomingFile, Origin, SafeName};
use super::store::{Outcome, Store, Storing};
use super::{Notice, Notices, Remote};
use crate::datetime;
use crate::handle::{Handle, PeerIdentity};

/// A connection on which nothing moves for so long is closed, as release 1.18.0 does.
const IDLE: Duration = Duration::from_secs(120);

/// Bytes read at a time: a chunk of a file and its header fit with room to spare.
const READ_LEN: usize = 64 << 10;

/// A frame longer than this is admitted one at a time per peer, so that peers' memory here is
/// connections times this plus [`LARGE_FRAMES`] times the frame limit.
const LARGE_FRAME: usize = 1 << 20;

/// Large frames held at the same time, over all peers.
pub(super) const LARGE_FRAMES: usize = 2;

/// What the connections share.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) store: Store,
    pub(super) files: Files,
    /// Tells how a peer stands and is reached at the moment; absent where there is no driver.
    pub(super) handle: Option<Handle>,
    pub(super) notices: Notices,
    pub(super) controls: Controls,
    pub(super) policy: Policy,
    /// Largest payload accepted.
    pub(super) max_frame: usize,
    /// [`LARGE_FRAMES`] permits.
    pub(super) large_frames: Arc<Semaphore>,
}

/// Why a connection was closed by this side.
#[derive(Debug, thiserror::Error)]
pub(super) enum Closed {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A frame over the limit.
    #[error(transparent)]
    TooLarge(#[from] pilot_wire::dataexchange::FrameTooLarge),
    /// A frame without meaning.
    #[error(transparent)]
    Malformed(#[from] FrameError),
    /// A file name that leads elsewhere.
    #[error("{0}")]
    Name(BadName),
    /// More came than the owner's rules allow now.
    #[error("{0}")]
    Forbidden(Forbidden),
    /// Nothing moved.
    #[error("idle")]
    Idle,
    /// The same transfer goes on elsewhere.
    #[error("its transfer was taken over by a newer connection")]
    TakenOver,
}

impl Exchange {
    /// Serves one connection until the peer ends it. `large_of_peer` has one permit.
    pub(super) async fn serve<S>(
        &self,
        stream: S,
        from: &Remote,
        large_of_peer: &Semaphore,
    ) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = Connection::new(self, from);
        let mut cancelled = connection.receiving.cancelled();
        tokio::select! {
            served = connection.run(stream, large_of_peer) => served,
            Ok(_) = cancelled.wait_for(|cancelled| *cancelled) => Err(Closed::TakenOver),
        }
    }

    fn tell_of(&self, from: &Remote, refusal: &Refusal) {
        let from = from.endpoint.addr;
        match refusal {
            Refusal::InboxFull => self.notices.send(Notice::InboxFull { from }),
            Refusal::ReceivedFull => self.notices.send(Notice::ReceivedFull { from }),
            Refusal::TooLarge(_)
            | Refusal::DiskFull
            | Refusal::Disk
            | Refusal::Stopped
            | Refusal::Behind(_) => {}
        }
    }
}

/// A message whose storing is under way, and what its answer needs.
struct Underway {
    kind: FrameType,
    bytes: u64,
    message_id: Option<MessageId>,
    reply_to: Option<MessageId>,
    sent_at_ns: Option<u64>,
    received_at: SystemTime,
    storing: Storing,
}

/// What became of a message at first.
enum Taken {
    Storing(Underway),
    Answered(Answer),
}

struct Connection<'a> {
    exchange: &'a Exchange,
    from: &'a Remote,
    receiving: Receiving<'a>,
    /// Why a message of a row was refused that may be accepted later: those behind it must not pass it.
    row: Row,
}

impl<'a> Connection<'a> {
    fn new(exchange: &'a Exchange, from: &'a Remote) -> Self {
        Self { exchange, from, receiving: Receiving::new(exchange, from), row: Row::default() }
    }

    async fn run<S>(mut self, mut stream: S, large_of_peer: &Semaphore) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut decoder = Decoder::new(self.exchange.max_frame);
        let mut answers = Vec::new();
        let mut underway = Vec::new();
        let mut large = None;
        loop {
            while let Some(frame) = decoder.next_frame()? {
                self.handle(frame, &mut underway, &mut answers).await?;
            }
            self.settle(&mut underway, &mut answers).await;
            if decoder.announced()?.is_none() {
                large = None;
            }
            if !answers.is_empty() {
                timeout(IDLE, stream.write_all(&answers)).await.map_err(|_| Closed::Idle)??;
                answers.clear();
                stream.flush().await?;
            }
            if large.is_none() && decoder.announced()?.is_some_and(|length| length > LARGE_FRAME) {
                // Before it is read: who waits for its turn must not hold memory that others need.
                if let Err(forbidden) = self.exchange.policy.turn(self.from.endpoint.addr.node).await {
                    // The sender learns that it may come back; the frame is not read for that.
                    Answer::Failed { kind: FrameType::TEXT, reason: forbidden.to_string() }
                        .emit(&mut answers);
                    timeout(IDLE, stream.write_all(&answers)).await.map_err(|_| Closed::Idle)??;
                    stream.flush().await?;
                    return Err(Closed::Forbidden(forbidden));
                }
                // The semaphores are never closed; were they, no limit would be left to respect.
                large = Some((
                    large_of_peer.acquire().await.ok(),
                    self.exchange.large_frames.acquire().await.ok(),
                ));
            }
            decoder.buffer_mut().reserve(READ_LEN);
            let read =
                timeout(IDLE, stream.read_buf(decoder.buffer_mut())).await.map_err(|_| Closed::Idle)??;
            if read == 0 {
                // The peer is done; say so too, after the answers.
                let _ = stream.shutdown().await;
                return Ok(());
            }
        }
    }

    async fn handle(
        &mut self,
        frame: RawFrame,
        underway: &mut Vec<Underway>,
        answers: &mut Vec<u8>,
    ) -> Result<(), Closed> {
        let received_at = SystemTime::now();
        let frame = match Frame::parse(frame) {
            Ok(Frame::Delivery(delivery)) if is_message(&delivery.content) => {
                let (sent_at_ns, row) = (delivery.sent_at_ns, self.row_of(&delivery));
                match self.begin_message(delivery, received_at).await {
                    Taken::Storing(message) => underway.push(message),
                    Taken::Answered(answer) => {
                        self.settle(underway, answers).await;
                        note_refusal(row.as_ref(), &answer);
                        emit(&answer, sent_at_ns, received_at, answers);
                    }
                }
                return Ok(());
            }
            other => other,
        };
        // Answers leave in the order of the frames.
        self.settle(underway, answers).await;
        match frame {
            Ok(Frame::Delivery(delivery)) => self.deliver(delivery, received_at, answers).await,
            Ok(Frame::FileStream(step)) => self.receiving.step(step, answers).await,
            Ok(Frame::Control(Control::Transfer { word: TransferWord::Folder { name } }, body)) => {
                self.receiving.folder(name, body, answers).await
            }
            Ok(Frame::Control(Control::Transfer { word: TransferWord::Done }, _)) => {
                self.receiving.folder_done(answers).await
            }
            Ok(Frame::Control(Control::Forward { from, id }, body)) => {
                let answer = match self.admit_control(body.len() as u64).await {
                    Ok(()) => self.forwarded(from, id, body).await,
                    Err(forbidden) => Answer::Failed { kind: FrameType::TEXT, reason: forbidden.to_string() },
                };
                answer.emit(answers);
                Ok(())
            }
            Ok(Frame::Control(control, body)) => {
                let admitted = self.may_say(&control).and(self.admit_control(body.len() as u64).await);
                let answer = match admitted {
                    Ok(()) => self.exchange.controls.handle(self.from, control, body).await,
                    Err(forbidden) => Answer::Failed { kind: FrameType::TEXT, reason: forbidden.to_string() },
                };
                answer.emit(answers);
                Ok(())
            }
            Err(FrameError::Control(error)) => {
                Answer::Failed { kind: FrameType::TEXT, reason: error.to_string() }.emit(answers);
                Ok(())
            }
            Err(error @ FrameError::TraceTooShort(_)) => {
                Answer::Refused(format!("trace parse: {error}")).emit(answers);
                Ok(())
            }
            Err(
                error @ (FrameError::TaggedTooShort
                | FrameError::TagMalformed(_)
                | FrameError::TaggedNested
                | FrameError::FileStream(_)),
            ) => Err(error.into()),
        }
    }

    /// What the owner's rules say of a word.
    fn may_say(&self, control: &Control) -> Result<(), Forbidden> {
        let policy = &self.exchange.policy;
        match control {
            Control::Deposit { to, .. } => {
                policy.may_use_mailbox(self.from.endpoint.addr.node).and(policy.may_use_mailbox(*to))
            }
            Control::Receipts { .. }
            | Control::Cancel { .. }
            | Control::Mailboxes { .. }
            | Control::Keeps
            | Control::Transfer { .. }
            | Control::Forward { .. } => Ok(()),
        }
    }

    /// Words about messages are no messages, but their bytes count.
    async fn admit_control(&self, bytes: u64) -> Result<(), Forbidden> {
        let (policy, node) = (&self.exchange.policy, self.from.endpoint.addr.node);
        if bytes <= LARGE_FRAME as u64 {
            policy.turn(node).await?;
        }
        policy.admit_piece(node, bytes)
    }

    async fn deliver(
        &mut self,
        delivery: Delivery,
        received_at: SystemTime,
        answers: &mut Vec<u8>,
    ) -> Result<(), Closed> {
        let sent_at_ns = delivery.sent_at_ns;
        let kind = delivery.content.kind();
        let row = self.row_of(&delivery);
        let answer = match row.as_ref().and_then(Row::refused) {
            Some(reason) => Answer::Failed { kind, reason: reason.to_owned() },
            None => self.store(delivery).await?,
        };
        note_refusal(row.as_ref(), &answer);
        emit(&answer, sent_at_ns, received_at, answers);
        Ok(())
    }

    /// Hands a message to the store and does not wait for it: those that came together are made safe together.
    async fn begin_message(&self, delivery: Delivery, received_at: SystemTime) -> Taken {
        let kind = delivery.content.kind();
        let row = self.row_of(&delivery);
        let Tag { message_id, reply_to, pilot } = delivery.tag.unwrap_or_default();
        let sent_at_ns = delivery.sent_at_ns;
        let (Content::Text(body) | Content::Binary(body) | Content::Json(body)) = delivery.content else {
            return Taken::Answered(Answer::Failed { kind, reason: "not a message".to_owned() });
        };
        let bytes = body.len() as u64;
        let extension = pilot.map(|extension| *extension).unwrap_or_default();
        if let Err(forbidden) = self.admit(bytes, &extension).await {
            return Taken::Answered(Answer::Failed { kind, reason: forbidden.to_string() });
        }
        if let (Some(interim), Some(reply_to)) = (extension.interim, &reply_to) {
            self.exchange.controls.serving.on_interim(self.from, reply_to, interim, body);
            return Taken::Answered(Answer::Stored { kind, bytes, duplicate: false });
        }
        let known = self.known().await;
        let sent_at =
            sent_at_ns.map(|ns| datetime::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)));
        let provenance = known.clone().map(|known| {
            let path = self.from.via.map_or(known.path, |via| Path::Mailbox { via });
            Provenance { trust: known.trust, path, sent_at }
        });
        let known = known.unwrap_or_else(|| PeerIdentity {
            hostname: self.from.hostname.clone(),
            key: self.from.key,
            ..PeerIdentity::default()
        });
        let letter = Letter {
            kind: kind.to_string(),
            binary: kind == FrameType::BINARY,
            body,
            from: self.from.endpoint.addr,
            from_hostname: known.hostname,
            from_key: known.key.map(|key| key.fingerprint()),
            message_id: message_id.clone(),
            reply_to: reply_to.clone(),
            extension,
            provenance,
            row: row.clone(),
        };
        let storing = self.exchange.store.begin_message(letter).await;
        Taken::Storing(Underway { kind, bytes, message_id, reply_to, sent_at_ns, received_at, storing })
    }

    /// The row that a delivery stands in, if its sender wants its order kept.
    fn row_of(&self, delivery: &Delivery) -> Option<Row> {
        let pilot = delivery.tag.as_ref().and_then(|tag| tag.pilot.as_deref());
        pilot.is_some_and(|pilot| pilot.ordered).then(|| self.row.clone())
    }

    /// Who the peer is and how it is reached, at this moment.
    async fn known(&self) -> Option<PeerIdentity> {
        match &self.exchange.handle {
            Some(handle) => Some(handle.describe(self.from.endpoint.addr.node).await),
            None => None,
        }
    }

    /// Waits for the messages that were handed to the store, and answers them.
    async fn settle(&self, underway: &mut Vec<Underway>, answers: &mut Vec<u8>) {
        for message in underway.drain(..) {
            let (sent_at_ns, received_at) = (message.sent_at_ns, message.received_at);
            emit(&self.settled(message).await, sent_at_ns, received_at, answers);
        }
    }

    /// Waits for a message that was handed to the store, and says what its sender is told.
    async fn settled(&self, message: Underway) -> Answer {
        let Underway { kind, bytes, message_id, reply_to, storing, .. } = message;
        let outcome = storing.done().await;
        if let (Ok(Outcome::Stored(())), Some(answered)) = (&outcome, &reply_to) {
            self.exchange.controls.outbox.on_answer(self.from.endpoint.addr.node, answered).await;
        }
        let notice = |()| Notice::MessageReceived {
            from: self.from.endpoint.addr,
            message_id,
            size: bytes,
            kind: kind.to_string(),
        };
        self.answer(kind, bytes, outcome, notice)
    }

    async fn store(&self, delivery: Delivery) -> Result<Answer, Closed> {
        let kind = delivery.content.kind();
        let failed = |reason: String| Ok(Answer::Failed { kind, reason });
        let Tag { message_id, .. } = delivery.tag.unwrap_or_default();
        match delivery.content {
            Content::Text(_) | Content::Binary(_) | Content::Json(_) => {
                failed("a message is stored in another way".to_owned())
            }
            Content::File(file) => {
                let name = match SafeName::parse(&file.name) {
                    Ok(name) => name,
                    Err(error @ BadName::Empty) => return failed(error.to_string()),
                    Err(error @ BadName::Unsafe) => return Err(Closed::Name(error)),
                };
                let bytes = file.data.len() as u64;
                if let Err(forbidden) = self.admit_whole_file(bytes).await {
                    return failed(forbidden.to_string());
                }
                let incoming = IncomingFile {
                    origin: Origin::of(self.from),
                    message_id,
                    name,
                    announced: String::from_utf8_lossy(&file.name).into_owned(),
                    data: file.data,
                };
                let arrived = self.exchange.files.put(incoming).await;
                let outcome = arrived.map(|arrived| arrived.map_or(Outcome::Duplicate, Outcome::Stored));
                Ok(self.answer(kind, bytes, outcome, Notice::file_received))
            }
            Content::MalformedFile(_) => failed("the file name does not fit the frame".to_owned()),
            Content::Unsupported { kind, .. } => failed(format!("unsupported frame type {}", kind.0)),
        }
    }

    /// What the owner's rules say of a message, after its sender's turn has come.
    async fn admit(&self, bytes: u64, extension: &Extension) -> Result<(), Forbidden> {
        let (policy, node) = (&self.exchange.policy, self.from.endpoint.addr.node);
        if bytes <= LARGE_FRAME as u64 {
            policy.turn(node).await?;
        }
        if extension.request.is_some() {
            policy.may_ask(node)?;
        }
        match extension.interim {
            None => policy.admit_message(node, bytes),
            // A piece of an answer that this node asked for: of its many pieces only the bytes count.
            Some(_) => policy.admit_piece(node, bytes),
        }
    }

    /// The same of a file in one frame.
    async fn admit_whole_file(&self, bytes: u64) -> Result<(), Forbidden> {
        let (policy, node) = (&self.exchange.policy, self.from.endpoint.addr.node);
        if bytes <= LARGE_FRAME as u64 {
            policy.turn(node).await?;
        }
        policy.admit_file(node, bytes)?;
        policy.count_bytes(node, bytes);
        Ok(())
    }

    fn answer<T>(
        &self,
        kind: FrameType,
        bytes: u64,
        outcome: Result<Outcome<T>, Refusal>,
        notice: impl FnOnce(T) -> Notice,
    ) -> Answer {
        match outcome {
            Ok(Outcome::Stored(stored)) => {
                self.exchange.notices.send(notice(stored));
                Answer::Stored { kind, bytes, duplicate: false }
            }
            Ok(Outcome::Duplicate) => Answer::Stored { kind, bytes, duplicate: true },
            Err(refusal) => {
                self.exchange.tell_of(self.from, &refusal);
                Answer::Failed { kind, reason: refusal.to_string() }
            }
        }
    }

}

/// Those behind what was refused for now must not pass it.
fn note_refusal(row: Option<&Row>, answer: &Answer) {
    if let (Some(row), Answer::Failed { reason, .. }) = (row, answer)
        && !is_refused_for_good(reason)
    {
        row.refuse(reason);
    }
}

fn is_message(content: &Content) -> bool {
    matches!(content, Content::Text(_) | Content::Binary(_) | Content::Json(_))
}

/// Appends an answer, with the times that the sender may have asked for.
fn emit(answer: &Answer, sent_at_ns: Option<u64>, received_at: SystemTime, answers: &mut Vec<u8>) {
    let Some(sent_at_ns) = sent_at_ns else { return answer.emit(answers) };
    let stored_at = unix_ns(SystemTime::now());
    Answer::Timed(Timing {
        ack_sent_at_ns: stored_at,
        inbox_written_at_ns: stored_at,
        inner_ack: answer.text(),
        received_at_ns: unix_ns(received_at),
        sent_at_ns,
    })
    .emit(answers);
}

#[cfg(test)]
mod tests;
