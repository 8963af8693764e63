//! SOCKS5 (RFC 1928) as far as it is meant here: CONNECT to a host name, no authentication.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{PATIENCE, Refusal, destination};
use crate::bridge::{Crossing, Dialler, Socket, To};
use crate::failure::{Code, Failure};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NOTHING_ACCEPTABLE: u8 = 0xFF;
const CONNECT: u8 = 1;

/// SOCKS4's word for no.
const SOCKS4_REFUSED: [u8; 8] = [0, 0x5B, 0, 0, 0, 0, 0, 0];

/// For browsers that take this for an HTTP proxy.
const NOT_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    this port speaks SOCKS5; `pilotctl proxy --http` speaks HTTP\n";

/// The kinds of answers (RFC 1928, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    /// The daemon or the registry is away: nobody is reached.
    NetworkUnreachable = 3,
    /// No such node, or it does not answer.
    HostUnreachable = 4,
    Refused = 5,
    /// Tried, until the time was over.
    Expired = 6,
    CommandNotSupported = 7,
    AddressNotSupported = 8,
}

impl Reply {
    fn of(failure: &Failure) -> Self {
        match failure.code {
            Code::TrustRequired | Code::PermissionDenied => Self::NotAllowed,
            Code::NotFound | Code::Unreachable => Self::HostUnreachable,
            Code::Refused => Self::Refused,
            Code::Timeout => Self::Expired,
            Code::NotRunning | Code::NotRegistered | Code::ConnectionFailed => Self::NetworkUnreachable,
            Code::Internal
            | Code::AlreadyExists
            | Code::Unsupported
            | Code::Failed
            | Code::Interrupted
            | Code::InvalidArgument => Self::GeneralFailure,
        }
    }

    /// With the address from which we connect: none that IP would know.
    const fn words(self) -> [u8; 10] {
        [VERSION, self as u8, 0, 1, 0, 0, 0, 0, 0, 0]
    }
}

/// Attends to one program.
pub(super) async fn serve(mut socket: Socket, dialler: &Dialler) -> Result<Crossing, (Socket, Refusal)> {
    let to = match tokio::time::timeout(PATIENCE, ask(&mut socket)).await {
        Ok(Ok(to)) => to,
        Ok(Err(refusal)) => return Err((socket, refusal)),
        Err(_) => return Err((socket, silent("a SOCKS client did not say where it wants to go"))),
    };
    match dialler.dial(&to, &[]).await {
        Ok(stream) => {
            if socket.write_all(&Reply::Succeeded.words()).await.is_err() {
                stream.reset();
                return Ok(Crossing::failed(&to, Failure::new(Code::ConnectionFailed, "the client is gone")));
            }
            Ok(Dialler::join(socket, stream, &to, 0).await)
        }
        Err(failure) => Err((socket, refusal(Reply::of(&failure), to, failure))),
    }
}

/// The greeting and the request.
async fn ask<Io: AsyncRead + AsyncWrite + Unpin>(io: &mut Io) -> Result<To, Refusal> {
    let gone = |_| silent("a SOCKS client ended before it said where it wants to go");
    let version = io.read_u8().await.map_err(gone)?;
    if version != VERSION {
        return Err(not_socks5(version));
    }
    let mut methods = vec![0; usize::from(io.read_u8().await.map_err(gone)?)];
    io.read_exact(&mut methods).await.map_err(gone)?;
    if !methods.contains(&NO_AUTHENTICATION) {
        let failure = Failure::new(Code::Unsupported, "a SOCKS client wants to authenticate itself")
            .hint("configure it without user name and password");
        let words = vec![VERSION, NOTHING_ACCEPTABLE];
        return Err(Refusal { words, peer: "socks5".into(), failure: failure.into() });
    }
    io.write_all(&[VERSION, NO_AUTHENTICATION]).await.map_err(gone)?;

    let mut head = [0; 4];
    io.read_exact(&mut head).await.map_err(gone)?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        let failure = format!("a SOCKS client begins in version 5 and goes on in version {version}");
        return Err(refusal(Reply::GeneralFailure, "socks5", Failure::new(Code::Unsupported, failure)));
    }
    let host = match kind {
        1 => ip(io.read_u32().await.map(std::net::Ipv4Addr::from).map_err(gone)?),
        4 => ip(io.read_u128().await.map(std::net::Ipv6Addr::from).map_err(gone)?),
        3 => {
            let mut name = vec![0; usize::from(io.read_u8().await.map_err(gone)?)];
            io.read_exact(&mut name).await.map_err(gone)?;
            Ok(String::from_utf8_lossy(&name).into_owned())
        }
        kind => {
            let failure =
                Failure::new(Code::Unsupported, format!("a SOCKS client names a host in form {kind}"));
            Err(refusal(Reply::AddressNotSupported, "socks5", failure))
        }
    }?;
    let port = io.read_u16().await.map_err(gone)?;
    if command != CONNECT {
        let failure =
            Failure::new(Code::Unsupported, "only CONNECT is there; the network has no UDP, and no BIND");
        return Err(refusal(Reply::CommandNotSupported, host, failure));
    }
    destination(&host, port).map_err(|failure| refusal(Reply::of(&failure), host, failure))
}

/// Whoever asks for an IP address has looked a name up elsewhere, or wants to leave the network.
fn ip(address: impl std::fmt::Display) -> Result<String, Refusal> {
    let failure = Failure::new(
        Code::Unsupported,
        format!("{address} is not in this network: the SOCKS client looked a name up by itself"),
    )
    .hint("let the proxy do it: socks5h://, --socks5-hostname");
    Err(refusal(Reply::AddressNotSupported, address, failure))
}

fn not_socks5(version: u8) -> Refusal {
    let (words, what) = match version {
        4 => (SOCKS4_REFUSED.to_vec(), "SOCKS4".to_owned()),
        b'A'..=b'Z' => (NOT_HTTP.to_vec(), "HTTP".to_owned()),
        other => (Vec::new(), format!("version {other}")),
    };
    let failure =
        Failure::new(Code::Unsupported, format!("a client speaks {what}, and SOCKS5 is spoken here"));
    Refusal { words, peer: "socks5".into(), failure: failure.into() }
}

fn refusal(reply: Reply, peer: impl std::fmt::Display, failure: Failure) -> Refusal {
    Refusal { words: reply.words().to_vec(), peer: peer.to_string(), failure: failure.into() }
}

/// A client that says too little is told nothing.
fn silent(message: &str) -> Refusal {
    Refusal {
        words: Vec::new(),
        peer: "socks5".into(),
        failure: Failure::new(Code::ConnectionFailed, message).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client that says this and then nothing more is told, and where it may go.
    async fn told(says: &[u8]) -> (Vec<u8>, Result<String, Code>) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        far.write_all(says).await.unwrap();
        far.shutdown().await.unwrap();
        let asked = ask(&mut near).await;
        let (last, asked) = match asked {
            Ok(to) => (Vec::new(), Ok(to.to_string())),
            Err(refusal) => (refusal.words, Err(refusal.failure.code)),
        };
        drop(near);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        heard.extend(last);
        (heard, asked)
    }

    fn request(command: u8, host: &[u8]) -> Vec<u8> {
        [&[5, 1, 0, 5, command, 0, 3, host.len() as u8], host, &[0, 80]].concat()
    }

    #[tokio::test]
    async fn a_host_name_of_the_network_is_where_it_goes() {
        assert_eq!(told(&request(1, b"agent-b.pilot")).await, (vec![5, 0], Ok("agent-b:80".into())));
    }

    #[tokio::test]
    async fn what_is_not_done_is_answered_with_its_code() {
        let ip4 = [5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 80];
        let ip6 = [&[5, 1, 0, 5, 1, 0, 4][..], &[0; 16], &[0, 80]].concat();
        for (says, code) in [
            (request(1, b"example.com"), 2),
            (request(1, b"a.b.pilot"), 4),
            (request(1, b"\xff\xfe.pilot"), 4),
            (request(1, b""), 2),
            (request(2, b"agent-b.pilot"), 7),
            (request(3, b"agent-b.pilot"), 7),
            (ip4.to_vec(), 8),
            (ip6, 8),
            (vec![5, 1, 0, 5, 1, 0, 9, 0, 0], 8),
        ] {
            let (heard, asked) = told(&says).await;
            assert!(asked.is_err(), "{says:?}");
            assert_eq!(heard, [&[5, 0, 5, code, 0, 1][..], &[0; 6]].concat(), "{says:?}");
        }
        assert_eq!(told(&[5, 1, 2]).await.0, [5, 0xFF]);
        assert_eq!(told(&[5, 0]).await.0, [5, 0xFF]);
        assert_eq!(told(&[4, 1, 0, 80, 127, 0, 0, 1, 0]).await.0, SOCKS4_REFUSED);
        assert_eq!(told(b"GET / HTTP/1.1\r\n\r\n").await.0, NOT_HTTP);
    }

    #[tokio::test]
    async fn whatever_byte_is_changed_the_client_is_told_in_its_language_and_led_nowhere_else() {
        let whole = request(1, b"b.pilot");
        let mut passed = 0;
        for (at, byte) in (0..whole.len()).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
            let mut says = whole.clone();
            says[at] = byte;
            let (heard, asked) = told(&says).await;
            match asked {
                Ok(to) => {
                    passed += 1;
                    let name = says[8..].split(|byte| *byte == b'.').next().unwrap().to_ascii_lowercase();
                    assert!(heard == [5, 0] && to.as_bytes().starts_with(&name), "{says:?}: {to}");
                }
                Err(_) => assert!(
                    matches!(heard[..], [] | [5, 0xFF] | [5, 0] | [5, 0, 5, 1..=8, 0, 1, 0, 0, 0, 0, 0, 0])
                        || heard == SOCKS4_REFUSED
                        || heard == NOT_HTTP,
                    "{says:?}: {heard:?}"
                ),
            }
        }
        assert!(passed > 500, "{passed} of them are requests");
    }

    #[tokio::test]
    async fn every_beginning_of_a_request_that_breaks_off_goes_nowhere() {
        let whole = request(1, b"agent-b.pilot");
        for length in 0..whole.len() {
            let (heard, asked) = told(&whole[..length]).await;
            assert_eq!(asked, Err(Code::ConnectionFailed), "{length}");
            assert!(heard.is_empty() || heard == [5, 0], "{heard:?}");
        }
    }
}
