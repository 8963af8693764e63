//! Files: sent in chunks that the receiver acknowledges, resumed where an earlier try ended, checked by their hash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_crypto::Sha256;
use pilot_wire::dataexchange::{
    Answer, CHUNK_LEN, Content, Decoder, Delivery, FileStream, Frame, FrameType, Init, NamedFile, TransferId,
    WINDOW_CHUNKS,
};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::{Addr, Port};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::message::{read_frame, refused};
use crate::{Client, Error};

/// How long a receiver may take to answer the announcement before it is taken for one that does not know
/// resumable transfers.
const INIT_LIMIT: Duration = Duration::from_secs(5);

/// Tries in a row that bring no byte forward before the transfer is given up.
const FRUITLESS_TRIES: u32 = 5;

/// First pause between two tries; doubled each time.
const PAUSE: Duration = Duration::from_millis(250);

/// Largest file sent whole to a receiver that does not know resumable transfers: its frame limit.
const WHOLE_MAX: u64 = (16 << 20) - 4096;

/// Chunks read from disk and written to the stream at a time.
const BATCH_CHUNKS: u64 = 4;

/// Longest frame a receiver of files sends.
const MAX_ANSWER: usize = 64 << 10;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes the receiver has written.
    pub done: u64,
    /// Bytes of the file.
    pub total: u64,
    /// Bytes it had from an earlier try.
    pub resumed: u64,
}

/// How a file was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// In acknowledged chunks; the receiver has checked the hash.
    FileStream,
    /// In one piece, to a receiver that knows nothing better.
    Whole,
}

/// The receiver has stored a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReceipt {
    /// The name it was announced by.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Bytes sent by this call.
    pub bytes_sent: u64,
    /// Bytes the receiver had from an earlier try.
    pub bytes_resumed: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
    /// How it was carried.
    pub transport: Transport,
    /// From the first byte to the last answer.
    pub elapsed: Duration,
}

impl Client {
    /// Sends a file and waits until the receiver has checked and stored it.
    ///
    /// A broken connection is renewed and the transfer goes on where it stopped, as long as it moves. `progress` is
    /// told of every acknowledgement.
    ///
    /// # Errors
    /// When the file cannot be read, the peer cannot be reached, or it refuses the file.
    pub async fn send_file(
        &self,
        to: Addr,
        path: &Path,
        progress: impl FnMut(Progress),
    ) -> Result<FileReceipt, Error> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Error::Invalid(format!("{} is not a file", path.display())))?;
        self.send_file_as(to, path, &name, progress).await
    }

    /// [`Client::send_file`], under another name than that of the path: what is sent may be a copy.
    ///
    /// # Errors
    /// As [`Client::send_file`].
    pub async fn send_file_as(
        &self,
        to: Addr,
        path: &Path,
        name: &str,
        mut progress: impl FnMut(Progress),
    ) -> Result<FileReceipt, Error> {
        let started = Instant::now();
        let outgoing = OutgoingFile::open(path, name.to_owned()).await?;
        let mut client = self.clone();
        let mut fruitless = 0;
        let mut sent = Sent::default();
        loop {
            let before = sent.done;
            let stream = match client.dial(to.port(Port::DATA_EXCHANGE)).await {
                Ok(stream) => Ok(stream),
                // The first try says at once what is wrong; later ones are about a connection that worked.
                Err(error) if sent.tries == 0 => return Err(error),
                Err(error) => Err(error),
            };
            let ended = match stream {
                Ok(stream) => outgoing.send_over(stream, &mut sent, &mut progress).await,
                Err(error) => Err(Broken::Connection(error)),
            };
            sent.tries += 1;
            match ended {
                Ok(()) => return Ok(outgoing.receipt(&sent, Transport::FileStream, started)),
                Err(Broken::Unsupported) => {
                    let stream = client.dial(to.port(Port::DATA_EXCHANGE)).await?;
                    outgoing.send_whole(stream).await?;
                    sent = Sent { done: outgoing.size, bytes_sent: outgoing.size, ..Sent::default() };
                    progress(Progress { done: outgoing.size, total: outgoing.size, resumed: 0 });
                    return Ok(outgoing.receipt(&sent, Transport::Whole, started));
                }
                Err(Broken::Refused(error)) => return Err(error),
                Err(Broken::Connection(error)) => {
                    fruitless = if sent.done > before { 0 } else { fruitless + 1 };
                    if fruitless >= FRUITLESS_TRIES {
                        return Err(error);
                    }
                    sleep(PAUSE * 2u32.pow(fruitless)).await;
                    client = client.mended(&error).await;
                }
            }
        }
    }
}

/// What has been achieved over all tries.
#[derive(Debug, Default)]
struct Sent {
    tries: u32,
    /// Bytes the receiver has written.
    done: u64,
    /// Bytes it had before the first try.
    resumed: u64,
    bytes_sent: u64,
}

/// Why a try ended before the file was stored.
enum Broken {
    /// The connection failed: another try may go further.
    Connection(Error),
    /// The receiver does not know resumable transfers.
    Unsupported,
    /// The receiver does not want the file, or it cannot be read: another try is no use.
    Refused(Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.into())
    }
}

/// A file opened, hashed and named.
struct OutgoingFile {
    file: Arc<File>,
    name: String,
    size: u64,
    sha256: [u8; 32],
}

impl OutgoingFile {
    async fn open(path: &Path, name: String) -> Result<Self, Error> {
        let unreadable = |error: io::Error| {
            let code = match error.kind() == io::ErrorKind::NotFound {
                true => Code::NotFound,
                false => Code::InvalidArgument,
            };
            Error::from(Failure::new(code, format!("cannot read {}: {error}", path.display())))
        };
        let opened = {
            let path = path.to_owned();
            on_disk(move || {
                let file = File::open(path)?;
                if !file.metadata()?.is_file() {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
                }
                let (size, sha256) = hash(&file)?;
                Ok((file, size, sha256))
            })
        };
        let (file, size, sha256) = opened.await.map_err(unreadable)?;
        Ok(Self { file: Arc::new(file), name, size, sha256 })
    }

    fn receipt(&self, sent: &Sent, transport: Transport, started: Instant) -> FileReceipt {
        FileReceipt {
            name: self.name.clone(),
            bytes: self.size,
            bytes_sent: sent.bytes_sent,
            bytes_resumed: sent.resumed,
            sha256: self.sha256,
            transport,
            elapsed: started.elapsed(),
        }
    }

    fn id(&self) -> TransferId {
        TransferId::of(&self.sha256)
    }

    async fn send_over<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        sent: &mut Sent,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), Broken> {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut decoder = Decoder::new(MAX_ANSWER);
        let init = Init {
            id: self.id(),
            size: self.size,
            sha256: self.sha256,
            chunk: CHUNK_LEN,
            name: Bytes::from(self.name.clone()),
        };
        let mut frame = Vec::new();
        FileStream::Init(init).emit(&mut frame);
        writer.write_all(&frame).await?;
        writer.flush().await?;
        let first = timeout(INIT_LIMIT, self.next_step(&mut reader, &mut decoder)).await;
        let offset = match first.map_err(|_| Broken::Unsupported)?? {
            FileStream::InitAck { offset, .. } if offset <= self.size => offset,
            FileStream::Abort { message, .. } | FileStream::Complete { outcome: Err(message), .. } => {
                return Err(Broken::Refused(refused(&message)));
            }
            other @ (FileStream::InitAck { .. }
            | FileStream::Complete { .. }
            | FileStream::Init(_)
            | FileStream::Chunk { .. }
            | FileStream::Ack { .. }
            | FileStream::Done(_)) => return Err(unexpected(&other)),
        };
        if sent.tries == 0 {
            sent.resumed = offset;
        }
        sent.done = sent.done.max(offset);
        progress(Progress { done: offset, total: self.size, resumed: sent.resumed });
        let (acknowledged, window) = watch::channel(offset);
        let mut bytes_sent = 0;
        let writing = self.write_chunks(&mut writer, offset, window, &mut bytes_sent);
        let reading = self.read_acks(&mut reader, &mut decoder, &acknowledged, |done| {
            sent.done = sent.done.max(done);
            progress(Progress { done, total: self.size, resumed: sent.resumed });
        });
        let ended = tokio::try_join!(writing, reading);
        sent.bytes_sent += bytes_sent;
        ended.map(|_| ())
    }

    async fn write_chunks<S: AsyncWrite>(
        &self,
        writer: &mut WriteHalf<S>,
        from: u64,
        mut acknowledged: watch::Receiver<u64>,
        bytes_sent: &mut u64,
    ) -> Result<(), Broken> {
        let chunk = u64::from(CHUNK_LEN);
        let mut offset = from;
        while offset < self.size {
            let has_room = |done: &u64| offset - *done <= (WINDOW_CHUNKS - 1) * chunk;
            let Ok(done) = acknowledged.wait_for(has_room).await.map(|done| *done) else {
                // The reader has ended; it knows why.
                return std::future::pending().await;
            };
            let end = (done + WINDOW_CHUNKS * chunk).min(offset + BATCH_CHUNKS * chunk).min(self.size);
            let (frames, next) = self.chunks(offset, end).await?;
            writer.write_all(&frames).await?;
            writer.flush().await?;
            *bytes_sent += next - offset;
            offset = next;
        }
        let mut done = Vec::new();
        FileStream::Done(self.id()).emit(&mut done);
        writer.write_all(&done).await?;
        writer.flush().await?;
        Ok(())
    }

    /// The frames of whole chunks from `offset` to `end` (the last may be short), and where the next begins.
    async fn chunks(&self, offset: u64, end: u64) -> Result<(Vec<u8>, u64), Broken> {
        let (file, id, size) = (Arc::clone(&self.file), self.id(), self.size);
        let read = on_disk(move || {
            let mut frames = Vec::new();
            let mut at = offset;
            while at < end {
                let length = u64::from(CHUNK_LEN).min(size - at);
                if at + length > end {
                    break;
                }
                let mut data = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut data, at)?;
                FileStream::Chunk { id, offset: at, data: data.into() }.emit(&mut frames);
                at += length;
            }
            Ok((frames, at))
        });
        read.await.map_err(|error| {
            Broken::Refused(Error::Io(format!("the file changed while it was sent: {error}")))
        })
    }

    async fn read_acks<S: AsyncRead>(
        &self,
        reader: &mut ReadHalf<S>,
        decoder: &mut Decoder,
        acknowledged: &watch::Sender<u64>,
        mut tell: impl FnMut(u64),
    ) -> Result<(), Broken> {
        loop {
            match self.next_step(reader, decoder).await? {
                FileStream::Ack { offset, .. } if offset <= self.size => {
                    acknowledged.send_if_modified(|done| {
                        let is_news = offset > *done;
                        *done = offset.max(*done);
                        is_news
                    });
                    tell(offset);
                }
                FileStream::Complete { outcome: Ok(()), .. } => return Ok(()),
                FileStream::Complete { outcome: Err(message), .. } | FileStream::Abort { message, .. } => {
                    return Err(Broken::Refused(refused(&message)));
                }
                other @ (FileStream::Ack { .. }
                | FileStream::Init(_)
                | FileStream::Chunk { .. }
                | FileStream::Done(_)
                | FileStream::InitAck { .. }) => return Err(unexpected(&other)),
            }
        }
    }

    async fn next_step<S: AsyncRead>(
        &self,
        reader: &mut ReadHalf<S>,
        decoder: &mut Decoder,
    ) -> Result<FileStream, Broken> {
        loop {
            let raw = read_frame(reader, decoder).await.map_err(Broken::Connection)?;
            if raw.kind != FrameType::FILESTREAM {
                return match Answer::parse(&raw) {
                    Ok(answer) if answer.is_unsupported(FrameType::FILESTREAM) => Err(Broken::Unsupported),
                    Ok(answer) => Err(Broken::Refused(refused(&answer.text()))),
                    Err(error) => Err(Broken::Refused(Error::Protocol(error.to_string()))),
                };
            }
            let parsed =
                Frame::parse(raw).map_err(|error| Broken::Refused(Error::Protocol(error.to_string())))?;
            match parsed {
                Frame::FileStream(step) if step.id() == self.id() => return Ok(step),
                // Words about another transfer are not about this one.
                Frame::FileStream(_) | Frame::Delivery(_) | Frame::Control(..) => {}
            }
        }
    }

    async fn send_whole<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> Result<(), Error> {
        if self.size > WHOLE_MAX {
            let failure = Failure::new(
                Code::Unsupported,
                format!(
                    "the receiver takes files of up to {WHOLE_MAX} bytes only; this one has {}",
                    self.size
                ),
            );
            return Err(failure.with_hint("the receiver runs an old release; update it").into());
        }
        let (file, size) = (Arc::clone(&self.file), self.size);
        let data = on_disk(move || {
            let mut data = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut data, 0)?;
            Ok(data)
        })
        .await?;
        let content = Content::File(NamedFile { name: Bytes::from(self.name.clone()), data: data.into() });
        let mut frame = Vec::new();
        Delivery { tag: None, sent_at_ns: None, content }.emit(&mut frame);
        stream.write_all(&frame).await?;
        stream.flush().await?;
        let raw = read_frame(&mut stream, &mut Decoder::new(MAX_ANSWER)).await?;
        match Answer::parse(&raw) {
            Ok(Answer::Stored { .. }) => Ok(()),
            Ok(other) => Err(refused(&other.text())),
            Err(error) => Err(Error::Protocol(error.to_string())),
        }
    }
}

fn unexpected(step: &FileStream) -> Broken {
    Broken::Refused(Error::Protocol(format!("unexpected step of a file transfer: {step:?}")))
}

fn hash(file: &File) -> io::Result<(u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    loop {
        let read = file.read_at(&mut buffer, size)?;
        if read == 0 {
            return Ok((size, hash.finish()));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::DuplexStream;

    async fn file_of(bytes: usize) -> (tempfile::TempDir, OutgoingFile, Vec<u8>) {
        let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.bin");
        std::fs::write(&path, &data).unwrap();
        (directory, OutgoingFile::open(&path, "data.bin".to_owned()).await.unwrap(), data)
    }

    struct Receiver {
        stream: DuplexStream,
        decoder: Decoder,
    }

    impl Receiver {
        async fn next(&mut self) -> FileStream {
            let raw = read_frame(&mut self.stream, &mut self.decoder).await.unwrap();
            match Frame::parse(raw).unwrap() {
                Frame::FileStream(step) => step,
                other @ (Frame::Delivery(_) | Frame::Control(..)) => panic!("{other:?}"),
            }
        }

        async fn say(&mut self, step: FileStream) {
            let mut frame = Vec::new();
            step.emit(&mut frame);
            self.stream.write_all(&frame).await.unwrap();
        }
    }

    fn pair() -> (DuplexStream, Receiver) {
        let (ours, theirs) = tokio::io::duplex(4 << 20);
        (ours, Receiver { stream: theirs, decoder: Decoder::new(1 << 20) })
    }

    #[tokio::test]
    async fn a_transfer_goes_on_where_the_receiver_says_and_keeps_to_the_window() {
        let (_directory, file, data) = file_of(3_000_000).await;
        let (stream, mut receiver) = pair();
        let chunk = u64::from(CHUNK_LEN);
        let mut sent = Sent::default();
        let mut tell = |_| {};
        let receiving = async {
            let FileStream::Init(init) = receiver.next().await else { panic!("no INIT") };
            assert_eq!((init.size, &init.name[..]), (3_000_000, &b"data.bin"[..]));
            receiver.say(FileStream::InitAck { id: init.id, offset: 10 }).await;
            let mut expected = 10;
            let mut acknowledged = 10;
            loop {
                match receiver.next().await {
                    FileStream::Chunk { id, offset, data: bytes } => {
                        assert_eq!(offset, expected);
                        let at = usize::try_from(offset).unwrap();
                        assert!(bytes == data[at..at + bytes.len()]);
                        expected += bytes.len() as u64;
                        assert!(expected - acknowledged <= WINDOW_CHUNKS * chunk);
                        // A slow receiver: it acknowledges when the window is full, or at the end.
                        if expected - acknowledged > (WINDOW_CHUNKS - 1) * chunk || expected == 3_000_000 {
                            acknowledged = expected;
                            receiver.say(FileStream::Ack { id, offset: acknowledged }).await;
                        }
                    }
                    FileStream::Done(id) => {
                        return receiver.say(FileStream::Complete { id, outcome: Ok(()) }).await;
                    }
                    other @ (FileStream::Init(_)
                    | FileStream::Ack { .. }
                    | FileStream::InitAck { .. }
                    | FileStream::Complete { .. }
                    | FileStream::Abort { .. }) => panic!("{other:?}"),
                }
            }
        };
        let (ended, ()) = tokio::join!(file.send_over(stream, &mut sent, &mut tell), receiving);
        assert!(ended.is_ok());
        assert_eq!((sent.resumed, sent.bytes_sent, sent.done), (10, 2_999_990, 3_000_000));
    }

    #[tokio::test]
    async fn receivers_that_do_not_know_transfers_are_recognised() {
        for answer in ["ACK UNKNOWN(7) 68 bytes", "ERR UNKNOWN(7) save failed: unsupported frame type 7"] {
            let (_directory, file, _) = file_of(100).await;
            let (stream, mut receiver) = pair();
            let mut sent = Sent::default();
            let mut tell = |_| {};
            let answering = async {
                receiver.next().await;
                let mut frame = Vec::new();
                Answer::parse_text(answer).unwrap().emit(&mut frame);
                receiver.stream.write_all(&frame).await.unwrap();
            };
            let (ended, ()) = tokio::join!(file.send_over(stream, &mut sent, &mut tell), answering);
            assert!(matches!(ended, Err(Broken::Unsupported)), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_refusal_ends_the_transfer_with_the_receivers_words() {
        let (_directory, file, _) = file_of(1_000_000).await;
        let (stream, mut receiver) = pair();
        let mut sent = Sent::default();
        let mut tell = |_| {};
        let refusing = async {
            let id = receiver.next().await.id();
            receiver.say(FileStream::InitAck { id, offset: 0 }).await;
            receiver.next().await;
            let message = "no space left on the receiver's disk".to_owned();
            receiver.say(FileStream::Abort { id, message }).await;
        };
        let (ended, ()) = tokio::join!(file.send_over(stream, &mut sent, &mut tell), refusing);
        let Err(Broken::Refused(error)) = ended else { panic!("not refused") };
        assert_eq!(error.to_string(), "the receiver did not store it: no space left on the receiver's disk");
    }
}
