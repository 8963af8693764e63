//! What the two programs of a measurement do with their streams, whatever carries them: one serves, the other drives
//! and takes the time.
//!
//! Whoever opens a stream says what comes: a kind and a number of bytes, 9 bytes in all. Bytes to echo come back as they
//! come; bytes to swallow are answered with one byte when all are there. Then the next 9 bytes follow.

use std::{
    io,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Failure, way::Dialer};

/// Size of a small message.
pub(crate) const MESSAGE: usize = 64;

/// Small messages that an application puts into one write when it gathers them.
const GATHERED: usize = 64;

/// What a program reads and writes at once.
const PIECE: usize = 256 * 1024;

const ECHO: u8 = b'e';
const SWALLOW: u8 = b's';

/// What the driving program is asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// So many small messages there and back on one stream, one after the other.
    RoundTrips(u32),
    /// So many bytes in one direction.
    Bulk(u64),
    /// So many small messages in one direction, a write for each.
    Messages(u64),
    /// The same, gathered into larger writes.
    Gathered(u64),
    /// So many new streams, each with a small message there and back.
    Dials(u32),
    /// So many new connections, each with a small message there and back on a stream.
    Connects(u32),
    /// So many new streams, which stay open.
    Hold(u32),
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// From the beginning to the end, in seconds.
    pub(crate) seconds: f64,
    /// The median of what took time many times, in microseconds.
    pub(crate) median: f64,
    /// What 99 of 100 stayed below, in microseconds.
    pub(crate) most: f64,
}

/// Both directions of a stream.
pub(crate) type Pipe = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// Serves one stream to its end.
pub(crate) async fn serve((mut reader, mut writer): Pipe) -> io::Result<()> {
    let mut buffer = vec![0; 1024];
    let mut head = [0; 9];
    loop {
        match reader.read_exact(&mut head).await {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let (kind, size) = parse(head);
        // Idle streams keep small buffers.
        if size > buffer.len() as u64 {
            buffer.resize(PIECE, 0);
        }
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            match reader.read(&mut buffer[..most]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => {
                    left -= length as u64;
                    if kind == ECHO {
                        writer.write_all(&buffer[..length]).await?;
                        writer.flush().await?;
                    }
                }
            }
        }
        if kind == SWALLOW {
            writer.write_all(&[1]).await?;
            writer.flush().await?;
        }
    }
}

fn head(kind: u8, size: u64) -> [u8; 9] {
    let mut head = [kind; 9];
    head[1..].copy_from_slice(&size.to_be_bytes());
    head
}

fn parse(head: [u8; 9]) -> (u8, u64) {
    let [kind, size @ ..] = head;
    (kind, u64::from_be_bytes(size))
}

/// Does what the lines of standard input ask for, and answers each with a line.
pub(crate) async fn drive(dialer: Dialer) -> Result<(), Failure> {
    let mut driver = Driver { dialer, standing: None, held: Vec::new() };
    // Connections are looked after while nothing is asked.
    while let Some(line) = tokio::task::spawn_blocking(|| io::stdin().lines().next()).await? {
        let done = driver.work(serde_json::from_str(&line?)?).await?;
        crate::process::say(&serde_json::to_string(&done)?)?;
    }
    Ok(())
}

struct Driver {
    dialer: Dialer,
    /// A stream that stays, as programs that have much to say keep theirs.
    standing: Option<Pipe>,
    held: Vec<Pipe>,
}

impl Driver {
    async fn work(&mut self, task: Task) -> Result<Done, Failure> {
        match task {
            Task::RoundTrips(count) => match &self.dialer {
                Dialer::Grpc(client, _) => {
                    let client = client.clone();
                    let call = || async { crate::way::grpc::call(&client).await };
                    repeated(count, call).await
                }
                Dialer::Tcp(_)
                | Dialer::Quic(_)
                | Dialer::Floor(_)
                | Dialer::Inside(_)
                | Dialer::Pilot(..)
                | Dialer::PilotInside(..) => self.round_trips(count).await,
            },
            Task::Bulk(bytes) => self.swallow(bytes, PIECE).await,
            Task::Messages(count) => self.swallow(count * MESSAGE as u64, MESSAGE).await,
            Task::Gathered(count) => self.swallow(count * MESSAGE as u64, MESSAGE * GATHERED).await,
            Task::Dials(count) => {
                let dialer = &self.dialer;
                if let Dialer::Grpc(channel, _) = dialer {
                    return repeated(count, || crate::way::grpc::call(channel)).await;
                }
                repeated(count, || async { first_echo(dialer).await.map(drop) }).await
            }
            Task::Connects(count) => {
                let dialer = &self.dialer;
                repeated(count, || async {
                    let dialer = dialer.anew().await?;
                    if let Dialer::Grpc(channel, _) = &dialer {
                        return crate::way::grpc::call(channel).await;
                    }
                    first_echo(&dialer).await.map(drop)
                })
                .await
            }
            Task::Hold(count) => {
                let start = Instant::now();
                for _ in 0..count {
                    self.held.push(first_echo(&self.dialer).await?);
                }
                Ok(Done { seconds: start.elapsed().as_secs_f64(), ..Done::default() })
            }
        }
    }

    async fn standing(&mut self) -> Result<&mut Pipe, Failure> {
        if self.standing.is_none() {
            self.standing = Some(self.dialer.open().await?);
        }
        self.standing.as_mut().ok_or_else(|| "no stream".into())
    }

    async fn round_trips(&mut self, count: u32) -> Result<Done, Failure> {
        let (reader, writer) = self.standing().await?;
        writer.write_all(&head(ECHO, u64::from(count) * MESSAGE as u64)).await?;
        let mut times = Vec::new();
        let start = Instant::now();
        let mut message = [7; MESSAGE];
        for _ in 0..count {
            let sent = Instant::now();
            writer.write_all(&message).await?;
            writer.flush().await?;
            reader.read_exact(&mut message).await?;
            times.push(sent.elapsed());
        }
        Ok(of(start.elapsed(), times))
    }

    async fn swallow(&mut self, bytes: u64, piece: usize) -> Result<Done, Failure> {
        let (reader, writer) = self.standing().await?;
        let piece = vec![7; piece];
        let start = Instant::now();
        writer.write_all(&head(SWALLOW, bytes)).await?;
        let mut left = bytes;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            writer.write_all(&piece[..now]).await?;
            left -= now as u64;
        }
        writer.flush().await?;
        reader.read_exact(&mut [0]).await?;
        Ok(of(start.elapsed(), Vec::new()))
    }
}

/// A new stream with a small message there and back.
async fn first_echo(dialer: &Dialer) -> Result<Pipe, Failure> {
    let mut first = [7; 9 + MESSAGE];
    first[..9].copy_from_slice(&head(ECHO, MESSAGE as u64));
    let (mut reader, writer) = dialer.open_with(&first).await?;
    reader.read_exact(&mut [0; MESSAGE]).await?;
    Ok((reader, writer))
}

async fn repeated<F, R>(count: u32, mut work: F) -> Result<Done, Failure>
where
    F: FnMut() -> R,
    R: Future<Output = Result<(), Failure>>,
{
    let (start, mut times) = (Instant::now(), Vec::new());
    for _ in 0..count {
        let begin = Instant::now();
        work().await?;
        times.push(begin.elapsed());
    }
    Ok(of(start.elapsed(), times))
}

fn of(took: Duration, mut times: Vec<Duration>) -> Done {
    times.sort_unstable();
    let at = |part: usize| {
        let last = times.len().checked_sub(1);
        last.map_or(0.0, |last| times[last * part / 100].as_secs_f64() * 1e6)
    };
    Done { seconds: took.as_secs_f64(), median: at(50), most: at(99) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_echoes_and_swallows_on_one_stream_until_its_end() {
        let (near, far) = tokio::io::duplex(100);
        let (reader, writer) = tokio::io::split(far);
        let serving = tokio::spawn(serve((Box::new(reader), Box::new(writer))));
        let (mut reader, mut writer) = tokio::io::split(near);
        writer.write_all(&head(ECHO, 3)).await.unwrap();
        writer.write_all(b"abc").await.unwrap();
        let mut answer = [0; 3];
        reader.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"abc");
        writer.write_all(&head(SWALLOW, 2000)).await.unwrap();
        writer.write_all(&[7; 2000]).await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), 1);
        writer.shutdown().await.unwrap();
        serving.await.unwrap().unwrap();
    }
}
