//! Carries what waits for one peer: one connection, many messages under way, answers in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilot_client::{Client, Error, Stream};
use pilot_wire::Port;
use pilot_wire::dataexchange::{Content, Decoder, Delivery, Frame, Tag};
use pilot_wire::ipc::{Code, FIRST_BYTES};
use pilot_wire::outbox::Kind;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::desk::Desk;
use super::entry::{Place, Seq};
use super::lane::{Job, LaneKey, Letter, Track};
use super::ledger::carrying::{End, Next};
use crate::service::mailboxes::Mailboxes;

/// Longest answer accepted: answers are lines of text.
const MAX_ANSWER: usize = 64 << 10;

/// Bytes written at a time, so that progress can be seen.
const PIECE: usize = 64 << 10;

/// A connection on which nothing moves for so long although something is under way is given up.
const STALLED: Duration = Duration::from_secs(60);

/// A connection with nothing to carry is kept so long for what may follow. Receivers close idle ones after two minutes.
const LINGER: Duration = Duration::from_secs(30);

/// Messages longer than this are read into memory one at a time.
const LARGE: u64 = 1 << 20;

/// What carriers share.
#[derive(Clone)]
pub(super) struct Carriers {
    pub(super) desk: Arc<Desk>,
    pub(super) client: Client,
    pub(super) mailboxes: Mailboxes,
    /// One permit: a carrier that has read a large message holds it until the message is written.
    pub(super) large: Arc<Semaphore>,
}

impl Carriers {
    /// Carries a lane until it is empty, or it fails.
    pub(super) async fn carry(self, key: LaneKey) {
        let bell = self.desk.enlist(key);
        let end = match key.1 {
            Track::Messages => self.messages(key, &bell).await,
            Track::Files => self.files(key).await,
        };
        self.desk.discharge(key);
        if let End::Unreachable(reason) | End::Broken(reason) = &end {
            tracing::debug!(node = %key.0, reason, "messages wait");
        }
        self.desk.with(|ledger, now| ledger.on_end(key, end, now));
    }

    async fn messages(&self, key: LaneKey, bell: &Notify) -> End {
        let jobs = match self.desk.with(|ledger, now| ledger.next(key, now)) {
            Next::Write(jobs) => jobs,
            Next::Wait | Next::Idle | Next::Leave => return End::Left,
        };
        let mut outgoing = Outgoing::default();
        if let Err(end) = self.encode(jobs, &mut outgoing).await {
            return end;
        }
        let to = self.desk.with(|ledger, _| ledger.address(key)).port(Port::DATA_EXCHANGE);
        let first = outgoing.take_first();
        let stream = match self.client.dial_with(to, &first).await {
            Ok(stream) => stream,
            Err(error) => return End::Unreachable(reason(&error)),
        };
        drop(first);
        self.desk.with(|ledger, _| ledger.on_connected(key));
        self.exchange(key, bell, stream, outgoing).await
    }

    async fn exchange(&self, key: LaneKey, bell: &Notify, stream: Stream, mut outgoing: Outgoing) -> End {
        let (mut reader, mut writer) = stream.into_split();
        let mut decoder = Decoder::new(MAX_ANSWER);
        let mut moved = Instant::now();
        // What came while the connection was made.
        bell.notify_one();
        let mut idle = false;
        loop {
            let patience = if idle { LINGER } else { STALLED };
            decoder.buffer_mut().reserve(1024);
            let rang = tokio::select! {
                read = reader.read_buf(decoder.buffer_mut()) => match read {
                    Ok(0) => return End::HungUp,
                    Ok(_) => match self.on_answers(key, &mut decoder) {
                        Some(()) => true,
                        None => return End::Broken("the receiver answered something strange".to_owned()),
                    },
                    Err(error) => return End::Broken(reason(&error.into())),
                },
                written = outgoing.write(&mut writer), if !outgoing.is_empty() => match written {
                    Ok(()) => outgoing.is_empty(),
                    Err(error) => return End::Broken(reason(&error.into())),
                },
                () = bell.notified() => true,
                () = sleep_until(moved + patience) => match idle {
                    true => return End::Left,
                    false => return End::Broken("the receiver does not answer".to_owned()),
                },
            };
            moved = Instant::now();
            if !rang || !outgoing.is_empty() {
                continue;
            }
            match self.desk.with(|ledger, now| ledger.next(key, now)) {
                Next::Write(jobs) => {
                    idle = false;
                    if let Err(end) = self.encode(jobs, &mut outgoing).await {
                        return end;
                    }
                }
                Next::Wait => idle = false,
                Next::Idle => idle = true,
                Next::Leave => return End::Left,
            }
        }
    }

    fn on_answers(&self, key: LaneKey, decoder: &mut Decoder) -> Option<()> {
        self.desk.with(|ledger, now| {
            while let Some(frame) = decoder.next_frame().ok()? {
                ledger.on_frame(key, &frame, now)?;
            }
            Some(())
        })
    }

    /// Makes frames of jobs. The bytes of messages come from disk where memory does not hold them.
    async fn encode(&self, jobs: Vec<Job>, outgoing: &mut Outgoing) -> Result<(), End> {
        let large = jobs.iter().any(|job| matches!(job, Job::Message(letter) if letter.bytes > LARGE));
        if large && outgoing.large.is_none() {
            // The semaphore is never closed; were it, there would be no limit left to respect.
            outgoing.large = Arc::clone(&self.large).acquire_owned().await.ok();
        }
        let desk = Arc::clone(&self.desk);
        let must_read =
            |job: &Job| matches!(job, Job::Message(letter) if letter.cached.is_none() && letter.bytes > 0);
        let jobs = match jobs.iter().any(must_read) {
            false => Ok(jobs),
            true => {
                let read = tokio::task::spawn_blocking(move || {
                    let mut jobs = jobs;
                    for job in &mut jobs {
                        if let Job::Message(letter) = job
                            && letter.cached.is_none()
                            && letter.bytes > 0
                        {
                            let body = desk.disk.load(letter.seq, letter.place);
                            letter.cached = Some(body.map_err(|error| (Some(letter.seq), error))?);
                        }
                    }
                    Ok::<_, (Option<Seq>, io::Error)>(jobs)
                });
                read.await.unwrap_or_else(|crashed| Err((None, io::Error::other(crashed))))
            }
        };
        let jobs = jobs.map_err(|(seq, error)| {
            tracing::error!(%error, "a message of the outbox cannot be read");
            let reason = format!("the message cannot be read from this node's disk: {error}");
            if let (Some(seq), io::ErrorKind::NotFound) = (seq, error.kind()) {
                // It will not come back, and must not hold up those behind it.
                self.desk.with(|ledger, now| ledger.on_lost(seq, reason.clone(), now));
            }
            End::Broken(reason)
        })?;
        for job in jobs {
            match job {
                Job::Message(letter) => outgoing.push(&Frame::Delivery(delivery(*letter))),
                Job::Word { control, body } => outgoing.push(&Frame::Control(control, body)),
                Job::Live(delivery) => outgoing.push(&Frame::Delivery(*delivery)),
                // The state machine gives files to the other track only.
                Job::File(_) => {}
            }
        }
        Ok(())
    }

    async fn files(&self, key: LaneKey) -> End {
        let Next::Write(jobs) = self.desk.with(|ledger, now| ledger.next(key, now)) else {
            return End::Left;
        };
        for job in jobs {
            let Job::File(letter) = job else { continue };
            let Place::File(number) = letter.place else { continue };
            let path = self.desk.disk.file(number);
            let name = letter.name.as_deref().unwrap_or("file");
            let to = self.desk.with(|ledger, _| ledger.address(key));
            match self.client.send_file_as(to, &path, name, |_| {}).await {
                Ok(receipt) => {
                    let ack = format!("{} bytes, checked", receipt.bytes);
                    self.desk.with(|ledger, now| ledger.on_stored(key, letter.seq, None, ack, now));
                }
                Err(error) => {
                    let reason = reason(&error);
                    if !is_final(&error, &reason) {
                        return End::Unreachable(reason);
                    }
                    self.desk.with(|ledger, now| ledger.on_file_refused(key, letter.seq, reason, now));
                }
            }
        }
        End::Left
    }
}

/// Whether another try with the same file is no use.
fn is_final(error: &Error, reason: &str) -> bool {
    let by_rule = error.code() == Code::Busy && reason.contains("refused by policy: ");
    let unreadable = matches!(error, Error::Io(_) | Error::Invalid(_));
    by_rule || unreadable || matches!(error.code(), Code::Unsupported | Code::Refused)
}

/// Why a try failed, for people.
fn reason(error: &Error) -> String {
    error.to_string()
}

/// The frame of a message.
pub(super) fn delivery(letter: Letter) -> Delivery {
    let body = letter.cached.unwrap_or_default();
    let content = match letter.kind {
        Kind::Text => Content::Text(body),
        Kind::Json => Content::Json(body),
        Kind::Binary | Kind::File => Content::Binary(body),
    };
    let tag = letter.tagged.then(|| Tag {
        message_id: Some(letter.id),
        reply_to: letter.reply_to,
        pilot: Some(Box::new(letter.extension)),
    });
    Delivery { tag, sent_at_ns: None, content }
}

/// Frames that are being written.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    done: usize,
    large: Option<OwnedSemaphorePermit>,
}

impl Outgoing {
    fn push(&mut self, frame: &Frame) {
        frame.emit(&mut self.bytes);
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What goes out with the dial.
    fn take_first(&mut self) -> Bytes {
        let length = self.bytes.len().min(FIRST_BYTES);
        let first = Bytes::copy_from_slice(&self.bytes[..length]);
        self.advance(length);
        first
    }

    fn advance(&mut self, length: usize) {
        self.done += length;
        if self.done == self.bytes.len() {
            *self = Self::default();
        }
    }

    /// Writes the next piece; nothing is lost when this is dropped before it is done.
    async fn write(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let end = self.bytes.len().min(self.done + PIECE);
        let written = writer.write(&self.bytes[self.done..end]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.advance(written);
        Ok(())
    }
}
