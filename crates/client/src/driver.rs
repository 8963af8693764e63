//! Moves bytes between the socket and the [`Session`].
//!
//! One task per connection reads, and writes what has gathered. Whoever asks for something while nothing else is being
//! written writes it at once, without the task: a request is with the kernel when it has been made. Those that ask for
//! more right away are gathered, so that many small writes are few system calls.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use pilot_wire::StreamId;
use pilot_wire::ipc::{ClientFrame, Command, DIALECT, DaemonFrame, Decoder, Reply, data_header};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::session::{Dialect, MAX_PIECE, PIECES, Session};
use crate::{ConnectError, Error};

/// How long whoever answers on the socket may take to say its first word. A daemon takes well under a
/// millisecond; the time is for a machine that is swapping.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes from this size on go to the socket from where they lie. Smaller ones are worth gathering.
const DIRECT: usize = 16 << 10;

/// Most parts of one vectored write that go directly.
const PARTS: usize = 16;

/// Slices of one system call: headers, and parts, each of which may be cut at the end of a frame.
const SLICES: usize = PARTS + 2 * PIECES;

/// A share in a connection. The connection ends when the last one is gone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Share>);

struct Share(Arc<Connection>);

/// A connection: the state of the conversation, and the way to the daemon.
pub(crate) struct Connection {
    session: Mutex<Session>,
    /// Locked before the session where both are.
    writer: Mutex<Writer>,
}

/// The half of the socket that writes.
struct Writer {
    io: Pin<Box<dyn AsyncWrite + Send>>,
    /// Taken from the outbox, and how much of it is written.
    under_way: Vec<u8>,
    written: usize,
    /// The task's: whoever writes, it is the task that goes on when the socket takes more.
    task: Waker,
}

/// The session, locked. When this is dropped, what was asked of the session is written, or its task told to.
pub(crate) struct Turn<'a> {
    // In this order: the lock is given up before the rest happens.
    session: MutexGuard<'a, Session>,
    _then: Push<'a>,
}

struct Push<'a>(&'a Connection);

impl Link {
    /// The session, for a moment: this must not live across an `await`, and nothing that holds a link may be
    /// dropped meanwhile.
    pub(crate) fn session(&self) -> Turn<'_> {
        let connection = &self.0.0;
        Turn { session: lock(&connection.session), _then: Push(connection) }
    }

    /// A share in a connection that needs no task: to a daemon in this process.
    pub(crate) fn to(connection: Arc<Connection>) -> Self {
        Self(Arc::new(Share(connection)))
    }

    /// Writes to a stream.
    pub(crate) fn poll_write(
        &self,
        stream: StreamId,
        parts: &[IoSlice<'_>],
        cx: &Context<'_>,
    ) -> Poll<Result<usize, Error>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length >= DIRECT
            && parts.len() <= PARTS
            && let Some(written) = self.0.0.poll_write_direct(stream, parts, cx)
        {
            return written;
        }
        self.session().poll_write(stream, parts, cx)
    }

    /// Agrees on a dialect with the daemon at the other end of a connection and starts the task.
    pub(crate) async fn start<R, W>(mut reader: R, mut writer: W) -> Result<Self, ConnectError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let mut decoder = Decoder::new();
        let dialect = tokio::time::timeout(HELLO_TIMEOUT, hello(&mut reader, &mut writer, &mut decoder))
            .await
            .map_err(|_| strange(format!("no answer within {} s", HELLO_TIMEOUT.as_secs())))??;
        let connection = Arc::new(Connection::new(Session::new(dialect), writer));
        tokio::spawn(run(connection.clone(), reader, decoder));
        Ok(Self::to(connection))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.0.session).abandon();
    }
}

/// The connection ends with its task, however that ends, and whoever still holds a link.
struct End<'a>(&'a Connection);

impl Drop for End<'_> {
    fn drop(&mut self) {
        lock(&self.0.session).end(Error::Disconnected);
        lock(&self.0.writer).io = Box::pin(tokio::io::sink());
    }
}

impl Deref for Turn<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Drop for Push<'_> {
    fn drop(&mut self) {
        if lock(&self.0.session).outbox.take_turn() {
            self.0.push();
        }
    }
}

impl Connection {
    fn new(session: Session, writer: impl AsyncWrite + Send + 'static) -> Self {
        let writer =
            Writer { io: Box::pin(writer), under_way: Vec::new(), written: 0, task: Waker::noop().clone() };
        Self { session: Mutex::new(session), writer: Mutex::new(writer) }
    }

    /// To a daemon in this process, which takes what is written from the session itself.
    pub(crate) fn in_process(session: Session) -> Self {
        Self::new(session, tokio::io::sink())
    }

    /// The session, for those who work for the daemon: nothing is written when they are done.
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.session)
    }

    /// Writes what has gathered, unless somebody is at it.
    fn push(&self) {
        let Some(mut writer) = self.try_writer() else {
            // Whoever writes may have looked before this came.
            return lock(&self.session).outbox.ring();
        };
        if let Poll::Ready(Err(_)) = writer.poll_write(&self.session) {
            lock(&self.session).end(Error::Disconnected);
        }
    }

    /// Writes to a stream from where the data lies; `None` when something else is to be written before it.
    fn poll_write_direct(
        &self,
        stream: StreamId,
        parts: &[IoSlice<'_>],
        cx: &Context<'_>,
    ) -> Option<Poll<Result<usize, Error>>> {
        let mut writer = self.try_writer().filter(|writer| writer.is_idle())?;
        // A statement of its own, so that the lock is given up at its end.
        let claimed = lock(&self.session).poll_claim_direct(stream, parts, cx)?;
        let length = match claimed {
            Poll::Ready(Ok(length)) => length,
            Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
            Poll::Pending => return Some(Poll::Pending),
        };
        if writer.write_direct(&self.session, stream, parts, length).is_err() {
            lock(&self.session).end(Error::Disconnected);
        }
        Some(Poll::Ready(Ok(length)))
    }

    fn try_writer(&self) -> Option<MutexGuard<'_, Writer>> {
        match self.writer.try_lock() {
            Ok(writer) => Some(writer),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What the task does. Ready when the connection is over.
    fn poll<R>(&self, reader: &mut R, decoder: &mut Decoder, cx: &mut Context<'_>) -> Poll<()>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let written = {
                let mut writer = lock(&self.writer);
                writer.task.clone_from(cx.waker());
                writer.poll_write(&self.session)
            };
            let may_read = {
                let mut session = lock(&self.session);
                if let Poll::Ready(Err(_)) = written {
                    session.end(Error::Disconnected);
                }
                if session.is_done() {
                    return Poll::Ready(());
                }
                if written.is_ready() && !session.outbox.rest() {
                    continue;
                }
                session.outbox.listen(cx);
                session.may_read()
            };
            if !may_read {
                return Poll::Pending;
            }
            match ready!(pin!(reader.read_buf(decoder.space())).poll(cx)) {
                Ok(0) | Err(_) => lock(&self.session).end(Error::Disconnected),
                Ok(_) => on_frames(&self.session, decoder),
            }
        }
    }
}

impl Writer {
    /// Nothing waits for the socket.
    fn is_idle(&self) -> bool {
        self.written == self.under_way.len()
    }

    /// Writes what is under way and what has gathered. Ready when all is written; otherwise the task will be woken.
    fn poll_write(&mut self, session: &Mutex<Session>) -> Poll<io::Result<()>> {
        loop {
            if self.is_idle() {
                self.under_way.clear();
                self.written = 0;
                if !lock(session).outbox.take(&mut self.under_way) {
                    return Poll::Ready(Ok(()));
                }
            }
            let cx = &mut Context::from_waker(&self.task);
            match ready!(self.io.as_mut().poll_write(cx, &self.under_way[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => {
                    self.written += count;
                    lock(session).outbox.on_written(count);
                }
            }
        }
    }

    /// Writes frames of data, claimed before, from where the data lies. What the socket does not take is copied.
    fn write_direct(
        &mut self,
        session: &Mutex<Session>,
        stream: StreamId,
        parts: &[IoSlice<'_>],
        length: usize,
    ) -> io::Result<()> {
        let mut headers = [[0; 9]; PIECES];
        for (index, header) in headers.iter_mut().enumerate() {
            let piece = length.saturating_sub(index * MAX_PIECE).min(MAX_PIECE);
            *header = data_header(Command::Send, stream, piece);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        let mut put = |bytes| {
            slices[count] = IoSlice::new(bytes);
            count += 1;
        };
        let mut done = 0;
        for part in parts {
            let mut rest = &part[..part.len().min(length - done)];
            while !rest.is_empty() {
                if done % MAX_PIECE == 0 {
                    put(&headers[done / MAX_PIECE]);
                }
                let (now, later) = rest.split_at(rest.len().min(MAX_PIECE - done % MAX_PIECE));
                put(now);
                done += now.len();
                rest = later;
            }
        }
        let slices = &slices[..count];
        let cx = &mut Context::from_waker(&self.task);
        let mut written = match self.io.as_mut().poll_write_vectored(cx, slices) {
            Poll::Ready(result) => result?,
            Poll::Pending => 0,
        };
        lock(session).outbox.on_written(written);
        self.under_way.clear();
        self.written = 0;
        for slice in slices {
            let part = written.min(slice.len());
            self.under_way.extend_from_slice(&slice[part..]);
            written -= part;
        }
        match self.is_idle() {
            true => Ok(()),
            // Asking once more has the task woken when there is room.
            false => match self.poll_write(session) {
                Poll::Ready(result) => result,
                Poll::Pending => Ok(()),
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn strange(reason: impl Into<String>) -> ConnectError {
    ConnectError::Strange { reason: reason.into() }
}

/// Asks for the extended dialect. A reference daemon answers with an error, and then we speak as it does.
async fn hello<R, W>(reader: &mut R, writer: &mut W, decoder: &mut Decoder) -> Result<Dialect, ConnectError>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut greeting = Vec::new();
    ClientFrame::Hello { version: DIALECT }.emit(&mut greeting);
    writer.write_all(&greeting).await.map_err(|error| strange(error.to_string()))?;
    loop {
        while let Some(frame) = decoder.next_frame().map_err(|error| strange(error.to_string()))? {
            match DaemonFrame::parse(&frame).map_err(|error| strange(error.to_string()))? {
                DaemonFrame::HelloOk { version: DIALECT, features } => {
                    return Ok(Dialect::Extended { initial_credit: features.initial_credit });
                }
                DaemonFrame::HelloOk { .. } | DaemonFrame::Reply(Reply::Error { .. } | Reply::Failure(_)) => {
                    return Ok(Dialect::Reference);
                }
                // Datagrams go to every client, even to one that has asked for nothing yet.
                DaemonFrame::RecvFrom { .. } => {}
                DaemonFrame::Tagged { .. }
                | DaemonFrame::Credit { .. }
                | DaemonFrame::Finish { .. }
                | DaemonFrame::Reset { .. }
                | DaemonFrame::Accept { .. }
                | DaemonFrame::Recv { .. }
                | DaemonFrame::Reply(_) => return Err(strange("an answer that nobody asked for")),
            }
        }
        match reader.read_buf(decoder.space()).await {
            Ok(0) => return Err(strange("the connection was closed at once")),
            Ok(_) => {}
            Err(error) => return Err(strange(error.to_string())),
        }
    }
}

async fn run<R>(connection: Arc<Connection>, mut reader: R, mut decoder: Decoder)
where
    R: AsyncRead + Unpin,
{
    let _end = End(&connection);
    on_frames(&connection.session, &mut decoder);
    poll_fn(|cx| connection.poll(&mut reader, &mut decoder, cx)).await;
    // The daemon sees the end of the connection and closes what is left on it.
    let _ = poll_fn(|cx| lock(&connection.writer).io.as_mut().poll_shutdown(cx)).await;
}

fn on_frames(session: &Mutex<Session>, decoder: &mut Decoder) {
    let mut session = lock(session);
    loop {
        let taken = match decoder.next_frame() {
            Ok(Some(frame)) => session.on_frame(&frame),
            Ok(None) => return,
            Err(error) => Err(Error::Protocol(error.to_string())),
        };
        if let Err(error) = taken {
            return session.end(error);
        }
    }
}
