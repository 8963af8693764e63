//! macOS and the BSDs: a routing socket (`PF_ROUTE`) carries a message for each change, and answers which way leads to an
//! address.

use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `PF_ROUTE`, the same on all of them.
const PF_ROUTE: i32 = 17;

/// The socket.
pub(super) struct Signals(AsyncFd<Socket>);

impl Signals {
    #[expect(
        deprecated,
        reason = "what replaces it is unsafe; this descriptor keeps its number while it lives"
    )]
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::from(PF_ROUTE), Type::RAW, None)?;
        socket.set_nonblocking(true)?;
        Ok(Self(AsyncFd::with_interest(socket, Interest::READABLE)?))
    }

    /// Resolves when the kernel said something.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(received) => return received,
                Err(_would_block) => {}
            }
        }
    }

    /// Throws away what waits.
    pub(super) fn drain(&mut self) {
        while receive(self.0.get_ref()).is_ok() {}
    }
}

fn receive(mut socket: &Socket) -> io::Result<()> {
    // A message that does not fit is cut, which is all the same to us.
    let mut message = [0; 512];
    match socket.read(&mut message) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => Ok(()),
        // ENOBUFS, messages were lost because too many came: a change, too.
        Err(error) if error.raw_os_error() == Some(55) => Ok(()),
        Err(error) => Err(error),
    }
}

/// How long the kernel may take to answer, and how many other messages may come before the answer.
const ANSWER_WAIT: Duration = Duration::from_millis(100);
const OTHER_MESSAGES_MAX: usize = 32;

/// The IPv4 gateway of the default route. Only macOS' form of the message is known here; elsewhere there is none.
pub(in crate::network) fn default_gateway() -> Option<Ipv4Addr> {
    if !cfg!(any(target_os = "macos", target_os = "ios")) {
        return None;
    }
    match ask() {
        Ok(gateway) => gateway,
        Err(error) => {
            tracing::debug!(%error, "the default route is not known");
            None
        }
    }
}

fn ask() -> io::Result<Option<Ipv4Addr>> {
    let mut socket = Socket::new(Domain::from(PF_ROUTE), Type::RAW, None)?;
    socket.set_read_timeout(Some(ANSWER_WAIT))?;
    let question = darwin::Question { pid: std::process::id(), number: 1 };
    match socket.write(&question.emit()) {
        Ok(_) => {}
        // ESRCH: there is no such route.
        Err(error) if error.raw_os_error() == Some(3) => return Ok(None),
        Err(error) => return Err(error),
    }
    let mut message = [0; 2048];
    for _ in 0..OTHER_MESSAGES_MAX {
        let length = socket.read(&mut message)?;
        if let Some(answer) = question.answer(&message[..length.min(message.len())]) {
            return Ok(answer);
        }
    }
    Ok(None)
}

/// `rt_msghdr` of macOS: 92 bytes, numbers in the order of the machine, then addresses padded to 4 bytes each.
mod darwin {
    use std::net::Ipv4Addr;

    const HEADER: usize = 92;
    const VERSION: u8 = 5;
    const GET: u8 = 4;
    /// `RTA_DST`, `RTA_GATEWAY`, `RTA_NETMASK` of `rtm_addrs`.
    const DESTINATION: u32 = 1;
    const GATEWAY: u32 = 2;
    const NETMASK: u32 = 4;
    /// `RTF_UP`, `RTF_GATEWAY`.
    const UP: u32 = 1;
    const THROUGH_GATEWAY: u32 = 2;
    const AF_INET: u8 = 2;
    /// `sizeof(struct sockaddr_in)`.
    const SOCKADDR_IN: usize = 16;

    /// Which way leads to 0.0.0.0/0?
    pub(super) struct Question {
        pub(super) pid: u32,
        pub(super) number: u32,
    }

    impl Question {
        pub(super) fn emit(&self) -> [u8; HEADER + 2 * SOCKADDR_IN] {
            let mut message = [0; HEADER + 2 * SOCKADDR_IN];
            let length = u16::try_from(message.len()).unwrap_or_default();
            message[..2].copy_from_slice(&length.to_ne_bytes());
            message[2] = VERSION;
            message[3] = GET;
            message[8..12].copy_from_slice(&(UP | THROUGH_GATEWAY).to_ne_bytes());
            message[12..16].copy_from_slice(&(DESTINATION | NETMASK).to_ne_bytes());
            message[16..20].copy_from_slice(&self.pid.to_ne_bytes());
            message[20..24].copy_from_slice(&self.number.to_ne_bytes());
            for start in [HEADER, HEADER + SOCKADDR_IN] {
                message[start] = SOCKADDR_IN as u8;
                message[start + 1] = AF_INET;
            }
            message
        }

        /// The gateway that an answer names. `None` for a message that is no answer to this question.
        pub(super) fn answer(&self, message: &[u8]) -> Option<Option<Ipv4Addr>> {
            let header = message.get(..HEADER)?;
            let number = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
            if header[3] != GET || number(16)? != self.pid || number(20)? != self.number {
                return None;
            }
            let (addresses, error) = (number(12)?, number(24)?);
            if error != 0 || addresses & GATEWAY == 0 {
                return Some(None);
            }
            let mut rest = &message[HEADER..];
            if addresses & DESTINATION != 0 {
                rest = after(rest).unwrap_or_default();
            }
            Some(inet(rest))
        }
    }

    /// What follows the first address.
    fn after(addresses: &[u8]) -> Option<&[u8]> {
        let length = usize::from(*addresses.first()?);
        addresses.get(length.next_multiple_of(4).max(4)..)
    }

    fn inet(address: &[u8]) -> Option<Ipv4Addr> {
        let bytes: [u8; 8] = address.get(..8)?.try_into().ok()?;
        let [_, family, _, _, a, b, c, d] = bytes;
        (family == AF_INET).then_some(Ipv4Addr::new(a, b, c, d))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn answer(gateway: &[u8]) -> Vec<u8> {
            let mut message = Question { pid: 7, number: 1 }.emit()[..HEADER].to_vec();
            message[12..16].copy_from_slice(&(DESTINATION | GATEWAY | NETMASK).to_ne_bytes());
            message.extend([16, AF_INET, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            message.extend(gateway);
            // The mask of a default route is an empty address.
            message.extend([0, 0, 0, 0]);
            message
        }

        const GATEWAY_SOCKADDR: [u8; 16] = [16, AF_INET, 0, 0, 192, 168, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];

        #[test]
        fn the_gateway_is_read_from_the_answer() {
            let question = Question { pid: 7, number: 1 };
            let message = answer(&GATEWAY_SOCKADDR);
            assert_eq!(question.answer(&message), Some(Some(Ipv4Addr::new(192, 168, 1, 1))));
            let link = [20, 18, 4, 0, 6, 3, 6, 0, b'e', b'n', b'0', 1, 2, 3, 4, 5, 6, 0, 0, 0];
            assert_eq!(question.answer(&answer(&link)), Some(None), "a default route to a line");
        }

        #[test]
        fn messages_for_others_and_cut_ones_are_no_answer() {
            let message = answer(&GATEWAY_SOCKADDR);
            assert_eq!(Question { pid: 8, number: 1 }.answer(&message), None);
            assert_eq!(Question { pid: 7, number: 2 }.answer(&message), None);
            let question = Question { pid: 7, number: 1 };
            for length in 0..message.len() {
                assert!(
                    !matches!(question.answer(&message[..length]), Some(Some(_))) || length >= HEADER + 24
                );
            }
        }

        #[test]
        fn the_question_says_its_own_length() {
            let message = Question { pid: 7, number: 1 }.emit();
            assert_eq!(u16::from_ne_bytes([message[0], message[1]]), 124);
        }
    }
}
