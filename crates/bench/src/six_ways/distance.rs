//! Distance: what comes to a machine of the lab is held for a fixed time before the machine gets it.
//!
//! The kernel hands each packet's number to this process (NFQUEUE), which lets it go when its time has come. Packets keep
//! their order, and nothing is lost. It works where the kernel has no netem.

use std::io::{self, ErrorKind, Read as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use pilot_lab::Host;
use socket2::{Domain, Protocol, Socket, Type};

use super::Error;
use super::actor::find;

/// Packets that are held at most; the kernel drops what comes beyond, as a full queue of a router would.
const HELD_MAX: u32 = 8_192;

/// How often the end is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Bytes of a netlink message's header, and of the netfilter header after it.
const HEADERS: usize = 16 + 4;

/// The distance of one machine. Without it, packets pass at once.
#[derive(Debug)]
pub(crate) struct Distance {
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Distance {
    /// Holds what comes to `host` for `delay` from now on.
    pub(crate) fn to(host: &Host, delay: Duration) -> Result<Self, Error> {
        let socket = host.namespace().enter(queue).map_err(Error::NoDistance)?;
        host.namespace().enter(divert)?;
        let socket = Arc::new(socket);
        let ended = Arc::new(AtomicBool::new(false));
        let (held, due) = sync_channel(HELD_MAX as usize);
        let (reader, end) = (Arc::clone(&socket), Arc::clone(&ended));
        let threads = vec![
            thread::spawn(move || hold(&reader, delay, &held, &end)),
            thread::spawn(move || let_go(&socket, &due)),
        ];
        Ok(Self { ended, threads })
    }
}

impl Drop for Distance {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that failed has nothing to give back.
            let _ = thread.join();
        }
    }
}

/// Sends what comes over the cable to the queue; past it when nobody serves the queue.
fn divert() -> Result<(), Error> {
    let rule = ["-w", "-A", "INPUT", "!", "-i", "lo", "-j", "NFQUEUE", "--queue-num", "0", "--queue-bypass"];
    let program = find("iptables").ok_or(Error::Missing { what: "iptables", package: "iptables" })?;
    let output = Command::new(program).args(rule).output().map_err(Error::NoDistance)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::NoDistance(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())))
}

/// Queue 0 of the namespace of this thread: packets come without their content.
fn queue() -> io::Result<Socket> {
    const NETLINK: i32 = 16;
    const NETFILTER: i32 = 12;
    const BIND: [u8; 4] = [1, 0, 0, 0];
    const COPY_META: u8 = 1;
    const KEEP_SEGMENTS_TOGETHER: u32 = 4;
    let socket = Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(NETFILTER)))?;
    socket.set_read_timeout(Some(LOOK_AGAIN))?;
    // Less than asked for is enough for what the six ways send.
    socket.set_recv_buffer_size(1 << 21)?;
    let flags = [KEEP_SEGMENTS_TOGETHER.to_be_bytes(), KEEP_SEGMENTS_TOGETHER.to_be_bytes()];
    for attributes in [
        attribute(1, &BIND),
        attribute(2, &[0, 0, 0, 0, COPY_META]),
        attribute(3, &HELD_MAX.to_be_bytes()),
        [attribute(5, &flags[0]), attribute(4, &flags[1])].concat(),
    ] {
        configure(&socket, &attributes)?;
    }
    Ok(socket)
}

/// Sends a configuration and waits for its acknowledgement.
fn configure(socket: &Socket, attributes: &[u8]) -> io::Result<()> {
    const CONFIGURE: u8 = 2;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const ERROR: u16 = 2;
    socket.send(&message(CONFIGURE, REQUEST_AND_ACKNOWLEDGE, attributes))?;
    let mut answer = [0; 256];
    let length = (&*socket).read(&mut answer)?;
    let answer = &answer[..length];
    let code = answer.get(16..20).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match (kind(answer), code) {
        (Some(ERROR), Some(0)) => Ok(()),
        (Some(ERROR), Some(code)) => Err(io::Error::from_raw_os_error(-code)),
        (_, _) => Err(io::Error::other("the kernel does not confirm the queue")),
    }
}

/// Notes when each packet came, until the end.
fn hold(socket: &Socket, delay: Duration, held: &SyncSender<(Instant, [u8; 4])>, ended: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !ended.load(Ordering::Relaxed) {
        let length = match (&*socket).read(&mut buffer) {
            Ok(length) => length,
            // Nothing came for a while, or more than could be told of.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => continue,
            Err(_) => return,
        };
        let due = Instant::now() + delay;
        for id in packets(&buffer[..length]) {
            if held.send((due, id)).is_err() {
                return;
            }
        }
    }
}

/// Lets each packet go when its time has come, until the sender is gone.
fn let_go(socket: &Socket, due: &Receiver<(Instant, [u8; 4])>) {
    const VERDICT: u8 = 1;
    const ACCEPT: u32 = 1;
    while let Ok((time, id)) = due.recv() {
        sleep(time.saturating_duration_since(Instant::now()));
        let verdict = [ACCEPT.to_be_bytes(), id].concat();
        if socket.send(&message(VERDICT, 1, &attribute(2, &verdict))).is_err() {
            return;
        }
    }
}

/// A message of the queue's part of netfilter, for queue 0.
fn message(kind: u8, flags: u16, attributes: &[u8]) -> Vec<u8> {
    const QUEUES: u8 = 3;
    let length = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADERS + attributes.len());
    message.extend_from_slice(&length.to_ne_bytes());
    message.extend_from_slice(&u16::from_be_bytes([QUEUES, kind]).to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    // Sequence number and sender, then: any address family, version 0, queue 0.
    message.extend_from_slice(&[0; 12]);
    message.extend_from_slice(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    attribute.extend_from_slice(value);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

fn kind(message: &[u8]) -> Option<u16> {
    message.get(4..6)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The numbers of the packets that these messages tell of.
fn packets(mut messages: &[u8]) -> Vec<[u8; 4]> {
    let mut found = Vec::new();
    while let Some(length) = messages.first_chunk().map(|length| u32::from_ne_bytes(*length)) {
        let length = (length as usize).clamp(HEADERS, messages.len().max(HEADERS));
        found.extend(messages.get(HEADERS..length).and_then(packet));
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The packet's number among the attributes of a message.
fn packet(mut attributes: &[u8]) -> Option<[u8; 4]> {
    const PACKET: u16 = 1;
    loop {
        let length = u16::from_ne_bytes(*attributes.first_chunk()?);
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        if kind == PACKET {
            return attributes.get(4..)?.first_chunk().copied();
        }
        attributes = attributes.get(usize::from(length.max(4)).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of the kernel about a packet, as it was recorded: the number comes first among the attributes.
    fn told(id: u32) -> Vec<u8> {
        let header = [&id.to_be_bytes()[..], &[8, 0, 1]].concat();
        message(0, 0, &[attribute(1, &header), attribute(5, &[0, 0, 0, 2])].concat())
    }

    #[test]
    fn every_packet_of_a_read_is_found() {
        let read = [told(7), told(0x0102_0304)].concat();
        assert_eq!(packets(&read), [[0, 0, 0, 7], [1, 2, 3, 4]]);
    }

    #[test]
    fn a_packet_is_found_behind_other_attributes() {
        let read =
            message(0, 0, &[attribute(5, &[0, 0, 0, 2]), attribute(1, &[0, 0, 0, 9, 8, 0, 1])].concat());
        assert_eq!(packets(&read), [[0, 0, 0, 9]]);
    }

    #[test]
    fn cut_and_broken_messages_are_passed_over() {
        let whole = told(7);
        for length in 0..whole.len() {
            assert!(packets(&whole[..length]).len() <= 1, "cut at {length}");
        }
        assert!(packets(&[0; 40]).is_empty());
        assert!(packets(&[0xFF; 40]).is_empty());
    }
}
