//! The floor: what a daemon in the middle cannot do without, and nothing more. Bytes are sealed with AES-256-GCM into
//! datagrams of 1400 bytes, sent in trains with one call and opened in place. There is no stream, no retransmission
//! and no congestion control; the only thing said back is how much has arrived, so that nothing overflows. Nor are there
//! secrets: the key is known to all, and both ends count from zero.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{UdpSocket, UnixStream},
};

use crate::{Failure, work::Pipe};

/// Bytes of a datagram: what the goals are for.
const DATAGRAM: usize = 1400;
/// In front of the content: a counter, which is the nonce too. Its first bit says that it is about arrivals.
const HEAD: usize = 8;
const TAG: usize = 16;
const CONTENT: usize = DATAGRAM - HEAD - TAG;
/// Datagrams of a train: what fits into 64 KiB.
const TRAIN: usize = 46;
/// Bytes on their way at most.
const WINDOW: u64 = 1 << 20;
/// Bytes that arrive before it is said how many.
const TELL: u64 = WINDOW / 4;
/// Socket buffers asked of the kernel.
const BUFFER: usize = 4 << 20;
/// What a train comes in.
const BATCH: usize = 65_536;
/// Says that a datagram is about arrivals.
const ARRIVALS: u64 = 1 << 63;

/// One end.
pub(crate) struct Floor {
    socket: UdpSocket,
    state: UdpSocketState,
    peer: SocketAddr,
    key: LessSafeKey,
    counter: AtomicU64,
    sent: AtomicU64,
    acknowledged: AtomicU64,
    /// Of the writer, while the window is full.
    full: Mutex<Option<Waker>>,
}

/// What has arrived: where each piece of content lies in the buffer of the receiver.
#[derive(Default)]
struct Arrived {
    pieces: VecDeque<(usize, usize)>,
    total: u64,
    told: u64,
}

impl Floor {
    /// An end at `here`; the other is `there`. Both have the same key.
    pub(crate) fn new(here: &str, there: &str) -> Result<Self, Failure> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        socket.set_recv_buffer_size(BUFFER)?;
        socket.set_send_buffer_size(BUFFER)?;
        socket.set_nonblocking(true)?;
        socket.bind(&here.parse::<SocketAddr>()?.into())?;
        let socket = UdpSocket::from_std(socket.into())?;
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_| "no key")?;
        let zero = || AtomicU64::new(0);
        Ok(Self {
            socket,
            state,
            peer: there.parse()?,
            key: LessSafeKey::new(key),
            counter: zero(),
            sent: zero(),
            acknowledged: zero(),
            full: Mutex::new(None),
        })
    }

    /// Between a program and the other end, until the program ends its stream.
    pub(crate) async fn relay(&self, stream: UnixStream) -> Result<(), Failure> {
        let (reader, mut writer) = stream.into_split();
        let out = async {
            let mut buffer = vec![0; TRAIN * CONTENT];
            let mut train = Vec::new();
            loop {
                reader.readable().await?;
                match reader.try_read(&mut buffer) {
                    Ok(0) => return Ok::<_, Failure>(()),
                    Ok(length) => {
                        std::future::poll_fn(|cx| self.poll_window(cx)).await;
                        self.seal(&buffer[..length], &mut train)?;
                        std::future::poll_fn(|cx| self.poll_send(cx, &train)).await?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let back = async {
            let mut buffer = vec![0; BATCH];
            let mut arrived = Arrived::default();
            loop {
                std::future::poll_fn(|cx| self.poll_receive(cx, &mut buffer, &mut arrived)).await?;
                while !arrived.pieces.is_empty() {
                    let slices: Vec<IoSlice<'_>> =
                        arrived.pieces.iter().map(|&(from, to)| IoSlice::new(&buffer[from..to])).collect();
                    let written = writer.write_vectored(&slices).await?;
                    self.consume(&mut arrived, written)?;
                }
            }
        };
        tokio::select! {
            ended = out => ended,
            ended = back => ended,
        }
    }

    /// Whether there is room for a train.
    fn has_room(&self) -> bool {
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        self.sent.load(Ordering::Relaxed).saturating_sub(acknowledged) < WINDOW
    }

    /// Ready when there is; somebody else receives meanwhile.
    fn poll_window(&self, cx: &Context<'_>) -> Poll<()> {
        if self.has_room() {
            return Poll::Ready(());
        }
        *locked(&self.full) = Some(cx.waker().clone());
        if self.has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Makes a train of at most [`TRAIN`] datagrams.
    fn seal(&self, data: &[u8], train: &mut Vec<u8>) -> io::Result<()> {
        train.clear();
        for content in data.chunks(CONTENT) {
            self.seal_one(0, content, train)?;
        }
        self.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn seal_one(&self, kind: u64, content: &[u8], train: &mut Vec<u8>) -> io::Result<()> {
        let head = (self.counter.fetch_add(1, Ordering::Relaxed) | kind).to_be_bytes();
        train.extend_from_slice(&head);
        let from = train.len();
        train.extend_from_slice(content);
        let sealed = self.key.seal_in_place_separate_tag(nonce(head), Aad::from(head), &mut train[from..]);
        train.extend_from_slice(sealed.map_err(|_| io::Error::other("cannot seal"))?.as_ref());
        Ok(())
    }

    fn poll_send(&self, cx: &mut Context<'_>, train: &[u8]) -> Poll<io::Result<()>> {
        let segment_size = (train.len() > DATAGRAM).then_some(DATAGRAM);
        let transmit =
            Transmit { destination: self.peer, ecn: None, contents: train, segment_size, src_ip: None };
        loop {
            let send = || self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
            match self.socket.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_send_ready(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Receives until there is content.
    fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        arrived: &mut Arrived,
    ) -> Poll<io::Result<()>> {
        while arrived.pieces.is_empty() {
            ready!(self.poll_batch(cx, buffer, arrived))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Receives with one call.
    fn poll_batch(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        arrived: &mut Arrived,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut metas = [RecvMeta::default()];
            let received = self.socket.try_io(Interest::READABLE, || {
                let mut slices = [IoSliceMut::new(buffer)];
                self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut metas)
            });
            match received {
                Ok(_) => return Poll::Ready(self.open(&metas[0], buffer, arrived)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_recv_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn open(&self, meta: &RecvMeta, buffer: &mut [u8], arrived: &mut Arrived) -> io::Result<()> {
        let mut from = 0;
        while from < meta.len {
            let to = (from + meta.stride.max(1)).min(meta.len);
            let bad = || io::Error::other("a datagram that is not ours");
            let (head, sealed) = buffer[from..to].split_first_chunk_mut::<HEAD>().ok_or_else(bad)?;
            let opened = self.key.open_in_place(nonce(*head), Aad::from(*head), sealed).map_err(|_| bad())?;
            if u64::from_be_bytes(*head) & ARRIVALS == 0 {
                let begin = from + HEAD;
                arrived.pieces.push_back((begin, begin + opened.len()));
            } else {
                let total = u64::from_be_bytes(opened[..8].try_into().map_err(|_| bad())?);
                self.acknowledged.fetch_max(total, Ordering::Relaxed);
                if let Some(waker) = locked(&self.full).take() {
                    waker.wake();
                }
            }
            from = to;
        }
        Ok(())
    }

    /// So many bytes have been taken over; says so from time to time.
    fn consume(&self, arrived: &mut Arrived, mut count: usize) -> io::Result<()> {
        arrived.total += count as u64;
        while let Some((from, to)) = arrived.pieces.front_mut() {
            let now = count.min(*to - *from);
            *from += now;
            count -= now;
            if *from < *to {
                break;
            }
            arrived.pieces.pop_front();
        }
        if arrived.total - arrived.told >= TELL {
            arrived.told = arrived.total;
            let mut message = Vec::new();
            self.seal_one(ARRIVALS, &arrived.total.to_be_bytes(), &mut message)?;
            let transmit = Transmit {
                destination: self.peer,
                ecn: None,
                contents: &message,
                segment_size: None,
                src_ip: None,
            };
            // The next one says more.
            let _ = self.state.try_send(UdpSockRef::from(&self.socket), &transmit);
        }
        Ok(())
    }
}

fn nonce(head: [u8; HEAD]) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - HEAD..].copy_from_slice(&head);
    Nonce::assume_unique_for_key(nonce)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Both directions for a program that seals and sends by itself.
pub(super) fn pipe(floor: &Arc<Floor>) -> Pipe {
    let incoming = Arc::new(Mutex::new((vec![0; BATCH], Arrived::default())));
    let reader = Reader { floor: Arc::clone(floor), incoming: Arc::clone(&incoming) };
    let writer = Writer { floor: Arc::clone(floor), incoming, train: Vec::new(), taken: 0 };
    (Box::new(reader), Box::new(writer))
}

/// What was received, and where in it content lies that was not read.
type Incoming = Arc<Mutex<(Vec<u8>, Arrived)>>;

struct Reader {
    floor: Arc<Floor>,
    incoming: Incoming,
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (buffer, arrived) = &mut *locked(&self.incoming);
        ready!(self.floor.poll_receive(cx, buffer, arrived))?;
        let mut count = 0;
        for &(from, to) in &arrived.pieces {
            let now = (to - from).min(into.remaining());
            into.put_slice(&buffer[from..from + now]);
            count += now;
        }
        self.floor.consume(arrived, count)?;
        Poll::Ready(Ok(()))
    }
}

struct Writer {
    floor: Arc<Floor>,
    incoming: Incoming,
    /// What is sealed and not sent.
    train: Vec<u8>,
    /// How much of the data is in it.
    taken: usize,
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Self { floor, incoming, train, taken } = self.get_mut();
        if train.is_empty() {
            // Whoever writes only receives here what is said about arrivals.
            while !floor.has_room() {
                let (buffer, arrived) = &mut *locked(incoming);
                if !arrived.pieces.is_empty() {
                    return Poll::Ready(Err(io::Error::other("nobody reads what has arrived")));
                }
                ready!(floor.poll_batch(cx, buffer, arrived))?;
            }
            *taken = data.len().min(TRAIN * CONTENT);
            floor.seal(&data[..*taken], train)?;
        }
        ready!(floor.poll_send(cx, train))?;
        train.clear();
        Poll::Ready(Ok(*taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_is_written_at_one_end_is_read_at_the_other() {
        let (one, two) = (crate::stage::free_udp().unwrap(), crate::stage::free_udp().unwrap());
        let near = Arc::new(Floor::new(&one, &two).unwrap());
        let far = Arc::new(Floor::new(&two, &one).unwrap());
        let ((_near_reader, mut writer), (mut reader, _far_writer)) = (pipe(&near), pipe(&far));
        // Less than what needs to be acknowledged: nobody reads at the near end.
        let data: Vec<u8> = (0..WINDOW as u32 / 2).map(|number| (number / 7) as u8).collect();
        let mut read = vec![0; data.len()];
        let (written, got) = tokio::join!(writer.write_all(&data), reader.read_exact(&mut read));
        written.unwrap();
        got.unwrap();
        assert!(read == data);
    }
}
