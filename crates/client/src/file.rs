//! Files and folders: sent in chunks that the receiver acknowledges, resumed where an earlier try ended, checked by their
//! hashes.

mod carry;
mod parcel;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_wire::dataexchange::{Answer, Content, Decoder, Delivery, NamedFile, is_refused_for_good};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::{Addr, Port};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use self::carry::Carriage;
use self::parcel::Parcel;
use crate::message::{read_frame, refused};
use crate::{Client, Error};

/// First pause between two tries; doubled each time up to [`PAUSE_MAX`], and from the start when one brought bytes forward.
const PAUSE: Duration = Duration::from_millis(250);

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// How long a transfer that was under way is tried again without a byte being brought forward, unless one says otherwise.
const PATIENCE: Duration = Duration::from_secs(90);

/// Largest file sent whole to a receiver that does not know resumable transfers: its frame limit.
const WHOLE_MAX: u64 = (16 << 20) - 4096;

/// Longest frame a receiver of files sends.
const MAX_ANSWER: usize = 64 << 10;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes the receiver has written.
    pub done: u64,
    /// Bytes to be sent in all: the file, or all different files of the folder.
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

/// The receiver has stored a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReceipt {
    /// The name it was announced by.
    pub name: String,
    /// Its length; that of all files in the folder.
    pub bytes: u64,
    /// Bytes of files sent by this call, those sent again after an interruption included.
    pub bytes_sent: u64,
    /// Bytes the receiver had from an earlier try.
    pub bytes_resumed: u64,
    /// Its SHA-256; that of the folder's manifest, which has those of all files.
    pub sha256: [u8; 32],
    /// How it was carried.
    pub transport: Transport,
    /// From the first byte to the last answer.
    pub elapsed: Duration,
    /// How many files the folder has, if it was one.
    pub files: Option<u64>,
    /// What is in the folder and was not sent: links and whatever else is no file. Paths inside it.
    pub skipped: Vec<String>,
}

/// How a file is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// The name the receiver shall see; the last part of the path when absent.
    pub name: Option<String>,
    /// For how long a transfer that broke off is tried again without a byte being brought forward; 90 seconds by default.
    /// The first try is not repeated when the peer cannot be reached at all.
    pub patience: Duration,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { name: None, patience: PATIENCE }
    }
}

impl Client {
    /// Sends a file, or a folder with all files in it, and waits until the receiver has checked and stored it.
    ///
    /// A broken connection is renewed and the transfer goes on where it stopped, as long as it moves; a later call goes on
    /// where this one stopped, too. `progress` is told of every acknowledgement. Memory does not depend on the file's
    /// length. Folders are for our own nodes; a receiver of release 1.18.0 cannot take them.
    ///
    /// # Errors
    /// When the file cannot be read, the peer cannot be reached, or it refuses the file: for good with
    /// [`Code::Refused`], or for now with [`Code::Busy`].
    pub async fn send_file(
        &self,
        to: Addr,
        path: &Path,
        progress: impl FnMut(Progress),
    ) -> Result<FileReceipt, Error> {
        self.send_file_with(to, path, FileOptions::default(), progress).await
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
        progress: impl FnMut(Progress),
    ) -> Result<FileReceipt, Error> {
        let options = FileOptions { name: Some(name.to_owned()), ..FileOptions::default() };
        self.send_file_with(to, path, options, progress).await
    }

    /// [`Client::send_file`], as the options say.
    ///
    /// # Errors
    /// As [`Client::send_file`].
    pub async fn send_file_with(
        &self,
        to: Addr,
        path: &Path,
        options: FileOptions,
        mut progress: impl FnMut(Progress),
    ) -> Result<FileReceipt, Error> {
        let started = Instant::now();
        let name = match options.name {
            Some(name) => name,
            None => name_of(path)?,
        };
        let parcel = Parcel::open(path, &name).await?;
        let mut client = self.clone();
        let mut sent = Sent::default();
        let mut moved = Instant::now();
        let mut pause = PAUSE;
        loop {
            let before = sent.done;
            let ended = match client.dial(to.port(Port::DATA_EXCHANGE)).await {
                Ok(stream) => {
                    Carriage::new(&parcel, sent.tries == 0).run(stream, &mut sent, &mut progress).await
                }
                // The first try says at once what is wrong; later ones are about a connection that worked.
                Err(error) if sent.tries == 0 || is_final(&error) => return Err(error),
                Err(error) => Err(Broken::Connection(error)),
            };
            sent.tries += 1;
            match ended {
                Ok(()) => return Ok(receipt(parcel, &sent, Transport::FileStream, started)),
                Err(Broken::Unsupported) => {
                    let stream = client.dial(to.port(Port::DATA_EXCHANGE)).await?;
                    send_whole(&parcel, stream).await?;
                    let total = parcel.size();
                    sent = Sent { done: total, bytes_sent: total, ..Sent::default() };
                    progress(Progress { done: total, total, resumed: 0 });
                    return Ok(receipt(parcel, &sent, Transport::Whole, started));
                }
                Err(Broken::Refused(error)) => return Err(error),
                Err(Broken::Corrupt(number, message)) => {
                    let source = parcel.sources.get(number);
                    match source {
                        Some(source) if !source.is_unchanged().await => return Err(source.changed()),
                        // What the receiver had of it was damaged, by a power failure for instance; it has removed it.
                        Some(_) if !sent.is_restarted => sent.is_restarted = true,
                        Some(_) | None => return Err(refused(&message)),
                    }
                }
                Err(Broken::Connection(error)) => {
                    if sent.done > before {
                        (moved, pause) = (Instant::now(), PAUSE);
                    }
                    if moved.elapsed() >= options.patience {
                        return Err(error);
                    }
                    sleep(pause).await;
                    pause = (2 * pause).min(PAUSE_MAX);
                    client = client.mended(&error).await;
                }
            }
        }
    }
}

fn name_of(path: &Path) -> Result<String, Error> {
    // `.` and `a/..` have names only when one asks where they are.
    let name = match path.file_name() {
        Some(name) => Some(name.to_owned()),
        None => path.canonicalize().ok().and_then(|path| path.file_name().map(ToOwned::to_owned)),
    };
    let name =
        name.ok_or_else(|| Error::Invalid(format!("{} has no name to send it under", path.display())))?;
    Ok(name.to_string_lossy().into_owned())
}

/// Whether trying again within seconds cannot help.
fn is_final(error: &Error) -> bool {
    matches!(error.code(), Code::NotTrusted | Code::PermissionDenied | Code::NotFound | Code::InvalidArgument)
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
    /// A file was sent from its beginning again, because it arrived damaged.
    is_restarted: bool,
}

/// Why a try ended before the file was stored.
#[derive(Debug)]
enum Broken {
    /// The connection failed: another try may go further.
    Connection(Error),
    /// The receiver does not know resumable transfers, or no folders.
    Unsupported,
    /// The receiver does not want the file, or it cannot be read: another try is no use.
    Refused(Error),
    /// What the receiver has of this file is not what was sent; its words.
    Corrupt(usize, String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Connection(error.into())
    }
}

/// The receiver's no: for good when it is about the file itself, for now when it is about room.
fn refusal(message: &str) -> Error {
    const FOR_GOOD: [&str; 6] = [
        "unsafe file name",
        "the file has no name",
        "the receiver accepts up to",
        "in the folder",
        "in the manifest",
        "the folder has",
    ];
    if is_refused_for_good(message) || FOR_GOOD.iter().any(|words| message.contains(words)) {
        let failure = Failure::new(Code::Refused, format!("the receiver does not accept it: {message}"));
        return failure.with_hint("nothing was delivered; trying again does not help").into();
    }
    refused(message)
}

fn receipt(parcel: Parcel, sent: &Sent, transport: Transport, started: Instant) -> FileReceipt {
    FileReceipt {
        bytes: parcel.bytes(),
        bytes_sent: sent.bytes_sent,
        bytes_resumed: sent.resumed,
        sha256: parcel.sha256.0,
        transport,
        elapsed: started.elapsed(),
        files: parcel.folder.as_ref().map(|folder| folder.files),
        skipped: parcel.folder.map(|folder| folder.skipped).unwrap_or_default(),
        name: parcel.name,
    }
}

/// Sends a small file in one frame.
async fn send_whole<S: AsyncRead + AsyncWrite + Unpin>(parcel: &Parcel, mut stream: S) -> Result<(), Error> {
    let unsupported = |message: String, hint: &str| Failure::new(Code::Unsupported, message).with_hint(hint);
    let (None, [source]) = (&parcel.folder, &parcel.sources[..]) else {
        let message = "the receiver runs a release that takes no folders".to_owned();
        return Err(unsupported(
            message,
            "send an archive: tar c DIR | pilotctl send-file NODE - --name DIR.tar",
        )
        .into());
    };
    if source.size > WHOLE_MAX {
        let message =
            format!("the receiver takes files of up to {WHOLE_MAX} bytes only; this one has {}", source.size);
        return Err(unsupported(message, "the receiver runs an old release; update it").into());
    }
    let data = source.whole().await?;
    let content = Content::File(NamedFile { name: Bytes::from(parcel.name.clone()), data });
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

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilot_wire::dataexchange::{
        CHUNK_LEN, Control, FileStream, Frame, FrameType, TransferWord, WINDOW_CHUNKS,
    };
    use tokio::io::DuplexStream;

    async fn file_of(bytes: usize) -> (tempfile::TempDir, Parcel, Vec<u8>) {
        let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data.bin");
        std::fs::write(&path, &data).unwrap();
        (directory, Parcel::open(&path, "data.bin").await.unwrap(), data)
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

    async fn carry(parcel: &Parcel, stream: DuplexStream, sent: &mut Sent) -> Result<(), Broken> {
        Carriage::new(parcel, true).run(stream, sent, &mut |_| {}).await
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
        let receiving = async {
            // As release 1.18.0 says to what it does not know.
            let raw = read_frame(&mut receiver.stream, &mut receiver.decoder).await.unwrap();
            assert_eq!(raw.kind, FrameType::CONTROL);
            let reason = "unsupported frame type 80".to_owned();
            answer(&mut receiver, Answer::Failed { kind: FrameType::CONTROL, reason }).await;
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
        let (ended, ()) = tokio::join!(carry(&file, stream, &mut sent), receiving);
        assert!(ended.is_ok());
        assert_eq!((sent.resumed, sent.bytes_sent, sent.done), (10, 2_999_990, 3_000_000));
    }

    #[tokio::test]
    async fn receivers_that_do_not_know_transfers_are_recognised() {
        for answer in ["ACK UNKNOWN(7) 68 bytes", "ERR UNKNOWN(7) save failed: unsupported frame type 7"] {
            let (_directory, file, _) = file_of(100).await;
            let (stream, mut receiver) = pair();
            let mut sent = Sent::default();
            let answering = async {
                receiver.next().await;
                let mut frame = Vec::new();
                Answer::parse_text(answer).unwrap().emit(&mut frame);
                receiver.stream.write_all(&frame).await.unwrap();
            };
            let (ended, ()) = tokio::join!(carry(&file, stream, &mut sent), answering);
            assert!(matches!(ended, Err(Broken::Unsupported)), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_refusal_ends_the_transfer_with_the_receivers_words() {
        let (_directory, file, _) = file_of(1_000_000).await;
        let (stream, mut receiver) = pair();
        let mut sent = Sent::default();
        let refusing = async {
            let raw = read_frame(&mut receiver.stream, &mut receiver.decoder).await.unwrap();
            assert_eq!(raw.kind, FrameType::CONTROL);
            answer(&mut receiver, Answer::parse_text("ACK TEXT 0 bytes").unwrap()).await;
            let id = receiver.next().await.id();
            receiver.say(FileStream::InitAck { id, offset: 0 }).await;
            receiver.next().await;
            let message = "no space left on the receiver's disk".to_owned();
            receiver.say(FileStream::Abort { id, message }).await;
        };
        let (ended, ()) = tokio::join!(carry(&file, stream, &mut sent), refusing);
        let Err(Broken::Refused(error)) = ended else { panic!("not refused") };
        assert_eq!(error.to_string(), "the receiver did not store it: no space left on the receiver's disk");
    }

    async fn answer(receiver: &mut Receiver, answer: Answer) {
        let mut frame = Vec::new();
        answer.emit(&mut frame);
        receiver.stream.write_all(&frame).await.unwrap();
    }

    #[tokio::test]
    async fn one_of_our_nodes_is_given_more_at_a_time() {
        let (_directory, file, _) = file_of(5_000_000).await;
        let (stream, mut receiver) = pair();
        let mut sent = Sent::default();
        let receiving = async {
            let raw = read_frame(&mut receiver.stream, &mut receiver.decoder).await.unwrap();
            assert!(matches!(
                Frame::parse(raw).unwrap(),
                Frame::Control(Control::Transfer { word: TransferWord::WideWindow }, _)
            ));
            answer(&mut receiver, Answer::Stored { kind: FrameType::TEXT, bytes: 0, duplicate: false }).await;
            let id = receiver.next().await.id();
            receiver.say(FileStream::InitAck { id, offset: 0 }).await;
            // Everything comes though nothing is acknowledged.
            let mut chunks = 0;
            loop {
                if let FileStream::Done(id) = receiver.next().await {
                    return receiver.say(FileStream::Complete { id, outcome: Ok(()) }).await;
                }
                chunks += 1;
                assert!(chunks <= 102);
            }
        };
        let (ended, ()) = tokio::join!(carry(&file, stream, &mut sent), receiving);
        ended.unwrap();
        assert_eq!(sent.bytes_sent, 5_000_000);
    }

    #[tokio::test]
    async fn a_receiver_that_ends_the_transfer_too_soon_does_not_keep_the_sender_waiting() {
        let (_directory, file, _) = file_of(500_000).await;
        let (stream, mut receiver) = pair();
        let mut sent = Sent::default();
        let receiving = async {
            let id = receiver.next().await.id();
            receiver.say(FileStream::InitAck { id, offset: 0 }).await;
            receiver.say(FileStream::Complete { id, outcome: Ok(()) }).await;
        };
        let (ended, ()) = tokio::join!(carry(&file, stream, &mut sent), receiving);
        ended.unwrap();
    }

    #[test]
    fn what_is_refused_for_good_and_what_for_now_are_told_apart() {
        for message in ["unsafe file name", "the receiver accepts up to 5 bytes in one file or folder"] {
            assert_eq!(refusal(message).code(), Code::Refused, "{message}");
        }
        for message in ["no space left on the receiver's disk", "storage for received files is full"] {
            assert_eq!(refusal(message).code(), Code::Busy, "{message}");
        }
    }

    #[tokio::test]
    async fn a_receiver_that_takes_no_folders_is_recognised_and_an_archive_advised() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), "x").unwrap();
        let folder = Parcel::open(directory.path(), "folder").await.unwrap();
        for words in ["ACK UNKNOWN(80) 68 bytes", "ERR UNKNOWN(80) save failed: unsupported frame type 80"] {
            let (stream, mut receiver) = pair();
            let mut sent = Sent::default();
            let answering = async {
                read_frame(&mut receiver.stream, &mut receiver.decoder).await.unwrap();
                answer(&mut receiver, Answer::parse_text(words).unwrap()).await;
            };
            let (ended, ()) = tokio::join!(carry(&folder, stream, &mut sent), answering);
            assert!(matches!(ended, Err(Broken::Unsupported)), "{words}");
        }
        let advice = send_whole(&folder, tokio::io::duplex(1).0).await.unwrap_err();
        assert_eq!(advice.code(), Code::Unsupported);
        assert!(advice.hint().unwrap().contains("tar"));
    }
}
