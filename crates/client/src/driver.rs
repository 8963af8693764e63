//! Moves bytes between the socket and the [`Session`]. One task per connection, the only one that does I/O.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use pilot_wire::ipc::{ClientFrame, DIALECT, DaemonFrame, Decoder, Reply};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::session::{Dialect, Session};
use crate::{ConnectError, Error};

/// How long whoever answers on the socket may take to say its first word. A daemon takes well under a
/// millisecond; the time is for a machine that is swapping.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A share in a connection. The connection ends when the last one is gone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Share>);

struct Share(Arc<Mutex<Session>>);

impl Link {
    /// The session, for a moment: the guard must not live across an `await`, and nothing that holds a link may be
    /// dropped meanwhile.
    pub(crate) fn session(&self) -> MutexGuard<'_, Session> {
        lock(&self.0.0)
    }

    /// A share in a connection that needs no task: to a daemon in this process.
    pub(crate) fn to(session: Arc<Mutex<Session>>) -> Self {
        Self(Arc::new(Share(session)))
    }

    /// Agrees on a dialect with the daemon at the other end of `io` and starts the task.
    pub(crate) async fn start<Io>(mut io: Io) -> Result<Self, ConnectError>
    where
        Io: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut decoder = Decoder::new();
        let dialect = tokio::time::timeout(HELLO_TIMEOUT, hello(&mut io, &mut decoder))
            .await
            .map_err(|_| strange(format!("no answer within {} s", HELLO_TIMEOUT.as_secs())))??;
        let session = Arc::new(Mutex::new(Session::new(dialect)));
        tokio::spawn(run(session.clone(), io, decoder));
        Ok(Self::to(session))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        lock(&self.0).abandon();
    }
}

pub(crate) fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

fn strange(reason: impl Into<String>) -> ConnectError {
    ConnectError::Strange { reason: reason.into() }
}

/// Asks for the extended dialect. A reference daemon answers with an error, and then we speak as it does.
async fn hello<Io>(io: &mut Io, decoder: &mut Decoder) -> Result<Dialect, ConnectError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let mut greeting = Vec::new();
    ClientFrame::Hello { version: DIALECT }.emit(&mut greeting);
    io.write_all(&greeting).await.map_err(|error| strange(error.to_string()))?;
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
        match io.read_buf(decoder.space()).await {
            Ok(0) => return Err(strange("the connection was closed at once")),
            Ok(_) => {}
            Err(error) => return Err(strange(error.to_string())),
        }
    }
}

async fn run<Io>(session: Arc<Mutex<Session>>, io: Io, mut decoder: Decoder)
where
    Io: AsyncRead + AsyncWrite,
{
    let (mut reader, mut writer) = tokio::io::split(io);
    let mut under_way = Vec::new();
    let mut next = Vec::new();
    let mut written = 0;
    on_frames(&session, &mut decoder);
    loop {
        let may_read = {
            let session = lock(&session);
            if session.is_done() {
                break;
            }
            session.may_read()
        };
        if written == under_way.len() {
            under_way.clear();
            written = 0;
        }
        let idle = under_way.is_empty();
        tokio::select! {
            () = poll_fn(|cx| {
                let mut session = lock(&session);
                let changed = session.is_done() || session.may_read() != may_read;
                if changed || (idle && session.outbox.take(&mut next, cx)) {
                    return Poll::Ready(());
                }
                session.outbox.listen(cx);
                Poll::Pending
            }) => std::mem::swap(&mut under_way, &mut next),
            result = writer.write(&under_way[written..]), if !idle => match result {
                Ok(0) | Err(_) => lock(&session).end(Error::Disconnected),
                Ok(bytes) => {
                    written += bytes;
                    lock(&session).outbox.on_written(bytes);
                }
            },
            result = reader.read_buf(decoder.space()), if may_read => match result {
                Ok(0) | Err(_) => lock(&session).end(Error::Disconnected),
                Ok(_) => on_frames(&session, &mut decoder),
            },
        }
    }
    // The daemon sees the end of the connection and closes what is left on it.
    let _ = writer.shutdown().await;
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
