//! One try to carry a parcel over a stream: what is written, and what is read at the same time.

use std::collections::BTreeMap;
use std::time::Duration;

use pilot_wire::dataexchange::{
    Answer, CHUNK_LEN, Control, Decoder, FileStream, Frame, FrameType, Held, RawFrame, TransferId,
    TransferWord, WIDE_WINDOW_CHUNKS, WINDOW_CHUNKS,
};
use pilot_wire::ipc::{Code, Failure};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::parcel::{Parcel, Source};
use super::{Broken, MAX_ANSWER, Progress, Sent, refusal};
use crate::Error;
use crate::message::read_frame;

/// How long a receiver may take to answer the announcement before it is taken for one that does not know resumable
/// transfers.
const INIT_LIMIT: Duration = Duration::from_secs(5);

/// How long one of our nodes may take: its disk may be slow.
const OUR_LIMIT: Duration = Duration::from_secs(60);

/// Chunks read from disk and written to the stream at a time.
const BATCH_CHUNKS: u64 = 4;

/// Files of a folder up to this length are sent without waiting for where to go on.
const SMALL: u64 = BATCH_CHUNKS * CHUNK_LEN as u64;

/// Files of a folder that are under way at a time. Small ones, they are no more than the window of a large one.
const PIPELINE: usize = 32;

/// What the receiver has told so far.
#[derive(Debug, Clone, Default)]
struct Told {
    /// Whether it is one of our nodes; known when that was asked.
    is_ours: Option<bool>,
    /// Which contents of the folder it has.
    held: Option<Held>,
    /// The file for which it has told where to go on, by number, and where.
    granted: Option<(usize, u64)>,
    /// How much of that it has written.
    written: u64,
    /// Files it has checked and stored.
    completed: usize,
}

/// One try.
pub(super) struct Carriage<'a> {
    parcel: &'a Parcel,
    numbers: BTreeMap<TransferId, usize>,
    is_first: bool,
}

impl<'a> Carriage<'a> {
    pub(super) fn new(parcel: &'a Parcel, is_first: bool) -> Self {
        let numbers =
            parcel.sources.iter().enumerate().map(|(number, source)| (source.id(), number)).collect();
        Self { parcel, numbers, is_first }
    }

    /// Carries the parcel until the receiver has stored it.
    pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        sent: &mut Sent,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), Broken> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (told, hears) = watch::channel(Told::default());
        let mut bytes_sent = 0;
        let ended = {
            let writing = self.write(&mut writer, hears, &mut bytes_sent);
            let mut ledger = Ledger::new(self.parcel, sent, progress);
            let reading = self.read(&mut reader, &told, &mut ledger);
            tokio::pin!(writing, reading);
            tokio::select! {
                read = &mut reading => read,
                written = &mut writing => match written {
                    Ok(()) => reading.await,
                    Err(broken) => Err(broken),
                },
            }
        };
        sent.bytes_sent += bytes_sent;
        ended
    }

    fn asks_for_window(&self) -> bool {
        self.parcel.folder.is_none() && self.parcel.size() > WINDOW_CHUNKS * u64::from(CHUNK_LEN)
    }

    async fn write<S: AsyncWrite>(
        &self,
        writer: &mut WriteHalf<S>,
        mut told: watch::Receiver<Told>,
        bytes_sent: &mut u64,
    ) -> Result<(), Broken> {
        let mut frames = Vec::new();
        let mut held = Held::default();
        if let Some(folder) = &self.parcel.folder {
            let name = self.parcel.name.clone();
            Control::Transfer { word: TransferWord::Folder { name } }.emit(&folder.manifest, &mut frames);
            write(writer, &mut frames).await?;
            let heard = timeout(OUR_LIMIT, hear(&mut told, |told| told.held.is_some())).await;
            held = heard.map_err(|_| silent())?.held.unwrap_or_default();
        } else if self.asks_for_window() {
            Control::Transfer { word: TransferWord::WideWindow }.emit(&[], &mut frames);
        }
        let mut begun = 0;
        for (number, source) in self.parcel.sources.iter().enumerate() {
            if held.has(number) {
                continue;
            }
            hear(&mut told, |told| told.completed + PIPELINE > begun).await;
            begun += 1;
            source.init(&self.parcel.name).emit(&mut frames);
            let file = source.file().await.map_err(Broken::Refused)?;
            if self.parcel.folder.is_some() && source.size <= SMALL {
                let (chunks, end) = source.chunks(file, 0, source.size).await.map_err(Broken::Refused)?;
                frames.extend(chunks);
                *bytes_sent += end;
            } else {
                write(writer, &mut frames).await?;
                let (mut offset, window) = self.granted(&mut told, number, source).await?;
                while offset < source.size {
                    let has_room = |told: &Told| {
                        offset - told.written.min(offset) <= (window - 1) * u64::from(CHUNK_LEN)
                    };
                    let written = hear(&mut told, has_room).await.written;
                    let end = (written + window * u64::from(CHUNK_LEN))
                        .min(offset + BATCH_CHUNKS * u64::from(CHUNK_LEN))
                        .min(source.size);
                    let (mut chunks, next) =
                        source.chunks(file.clone(), offset, end).await.map_err(Broken::Refused)?;
                    write(writer, &mut chunks).await?;
                    *bytes_sent += next - offset;
                    offset = next;
                }
            }
            FileStream::Done(source.id()).emit(&mut frames);
            write(writer, &mut frames).await?;
        }
        if self.parcel.folder.is_some() {
            Control::Transfer { word: TransferWord::Done }.emit(&[], &mut frames);
            write(writer, &mut frames).await?;
        }
        Ok(())
    }

    /// Waits until the receiver says where to go on; also says how many chunks may be under way.
    async fn granted(
        &self,
        told: &mut watch::Receiver<Told>,
        number: usize,
        source: &Source,
    ) -> Result<(u64, u64), Broken> {
        let is_granted = |told: &Told| told.granted.is_some_and(|(file, _)| file == number);
        let soon = timeout(INIT_LIMIT, hear(told, is_granted)).await.is_ok();
        if !soon {
            let is_ours = self.parcel.folder.is_some() || told.borrow().is_ours == Some(true);
            // A large file cannot be sent in any other way, and a receiver that once knew this way still does.
            if !is_ours && self.is_first && source.size <= super::WHOLE_MAX {
                return Err(Broken::Unsupported);
            }
        }
        let heard = timeout(OUR_LIMIT, hear(told, is_granted)).await.map_err(|_| silent())?;
        let is_ours = self.parcel.folder.is_some() || heard.is_ours == Some(true);
        let window = if is_ours { WIDE_WINDOW_CHUNKS } else { WINDOW_CHUNKS };
        Ok((heard.granted.map_or(0, |(_, offset)| offset), window))
    }

    async fn read<S: AsyncRead, F: FnMut(Progress)>(
        &self,
        reader: &mut ReadHalf<S>,
        told: &watch::Sender<Told>,
        ledger: &mut Ledger<'_, F>,
    ) -> Result<(), Broken> {
        let mut decoder = Decoder::new(MAX_ANSWER);
        let mut window_asked = self.asks_for_window();
        loop {
            let raw = read_frame(reader, &mut decoder).await.map_err(Broken::Connection)?;
            let is_over = match raw.kind {
                FrameType::FILESTREAM | FrameType::CONTROL => self.on_frame(raw, told, ledger)?,
                FrameType(_) => {
                    let answer = Answer::parse(&raw).map_err(|error| strange(&error))?;
                    if std::mem::take(&mut window_asked) {
                        let is_ours = matches!(answer, Answer::Stored { .. })
                            && !answer.is_unsupported(FrameType::CONTROL);
                        told.send_modify(|told| told.is_ours = Some(is_ours));
                        continue;
                    }
                    self.on_answer(&answer)?
                }
            };
            if is_over {
                return Ok(());
            }
        }
    }

    /// What is not a step of the transfer; true when it is the end.
    fn on_answer(&self, answer: &Answer) -> Result<bool, Broken> {
        let is_folder = self.parcel.folder.is_some();
        if !is_folder && answer.is_unsupported(FrameType::FILESTREAM) {
            return Err(Broken::Unsupported);
        }
        if is_folder && answer.is_unsupported(FrameType::CONTROL) {
            return Err(Broken::Unsupported);
        }
        match answer {
            Answer::Stored { .. } if is_folder => Ok(true),
            Answer::Failed { reason, .. } => Err(Broken::Refused(refusal(reason))),
            other @ (Answer::Stored { .. } | Answer::Refused(_) | Answer::Timed(_)) => {
                Err(Broken::Refused(refusal(&other.text())))
            }
        }
    }

    fn on_frame<F: FnMut(Progress)>(
        &self,
        raw: RawFrame,
        told: &watch::Sender<Told>,
        ledger: &mut Ledger<'_, F>,
    ) -> Result<bool, Broken> {
        let step = match Frame::parse(raw).map_err(|error| strange(&error))? {
            Frame::FileStream(step) => step,
            Frame::Control(Control::Transfer { word: TransferWord::Held }, body) => {
                let held = Held::parse(&body);
                ledger.held(&held);
                told.send_modify(|told| told.held = Some(held));
                return Ok(false);
            }
            Frame::Delivery(_) | Frame::Control(..) => return Ok(false),
        };
        // Words about another transfer are not about this one.
        let Some(number) = self.numbers.get(&step.id()).copied() else { return Ok(false) };
        let size = self.parcel.sources.get(number).map_or(0, |source| source.size);
        match step {
            FileStream::InitAck { offset, .. } if offset <= size => {
                ledger.begins(number, offset);
                told.send_modify(|told| (told.granted, told.written) = (Some((number, offset)), offset));
                Ok(false)
            }
            FileStream::Ack { offset, .. } if offset <= size => {
                ledger.written(number, offset);
                told.send_modify(|told| {
                    if told.granted.is_some_and(|(file, _)| file == number) {
                        told.written = told.written.max(offset);
                    }
                });
                Ok(false)
            }
            FileStream::Complete { outcome: Ok(()), .. } => {
                ledger.written(number, size);
                told.send_modify(|told| told.completed += 1);
                Ok(self.parcel.folder.is_none())
            }
            FileStream::Complete { outcome: Err(message), .. } if message.contains("sha256 mismatch") => {
                Err(Broken::Corrupt(number, message))
            }
            FileStream::Complete { outcome: Err(message), .. } | FileStream::Abort { message, .. } => {
                Err(Broken::Refused(refusal(&message)))
            }
            other @ (FileStream::InitAck { .. }
            | FileStream::Ack { .. }
            | FileStream::Init(_)
            | FileStream::Chunk { .. }
            | FileStream::Done(_)) => Err(Broken::Refused(Error::Protocol(format!(
                "unexpected step of a file transfer: {other:?}"
            )))),
        }
    }
}

/// How much of each file the receiver has, and who is told of it.
struct Ledger<'a, F> {
    sizes: Vec<u64>,
    has: Vec<u64>,
    sent: &'a mut Sent,
    total: u64,
    tell: &'a mut F,
    /// What it has from earlier tries counts as resumed in the first one only.
    is_first: bool,
}

impl<'a, F: FnMut(Progress)> Ledger<'a, F> {
    fn new(parcel: &Parcel, sent: &'a mut Sent, tell: &'a mut F) -> Self {
        let sizes: Vec<u64> = parcel.sources.iter().map(|source| source.size).collect();
        let is_first = sent.tries == 0;
        Self { has: vec![0; sizes.len()], total: parcel.size(), sizes, sent, tell, is_first }
    }

    fn held(&mut self, held: &Held) {
        for number in 0..self.sizes.len() {
            if held.has(number) {
                let size = self.sizes.get(number).copied().unwrap_or(0);
                self.begins(number, size);
            }
        }
    }

    fn begins(&mut self, number: usize, offset: u64) {
        if self.is_first {
            self.sent.resumed += offset;
        }
        self.written(number, offset);
    }

    fn written(&mut self, number: usize, offset: u64) {
        if let Some(has) = self.has.get_mut(number) {
            *has = offset.max(*has);
        }
        let done = self.has.iter().sum();
        self.sent.done = self.sent.done.max(done);
        (self.tell)(Progress { done, total: self.total, resumed: self.sent.resumed });
    }
}

/// Writes what was gathered.
async fn write<S: AsyncWrite>(writer: &mut WriteHalf<S>, frames: &mut Vec<u8>) -> Result<(), Broken> {
    writer.write_all(frames).await?;
    frames.clear();
    writer.flush().await?;
    Ok(())
}

/// What was waited for. When the reader has ended instead, it knows why: nobody waits for the writer then.
async fn hear(told: &mut watch::Receiver<Told>, until: impl FnMut(&Told) -> bool) -> Told {
    // Not matched at once: what is waited for locks it.
    let heard = told.wait_for(until).await.ok().map(|told| told.clone());
    match heard {
        Some(told) => told,
        None => std::future::pending().await,
    }
}

fn silent() -> Broken {
    Broken::Connection(
        Failure::new(Code::Timeout, "the receiver does not answer the announcement of a file").into(),
    )
}

fn strange(error: &dyn std::error::Error) -> Broken {
    Broken::Refused(Error::Protocol(error.to_string()))
}
