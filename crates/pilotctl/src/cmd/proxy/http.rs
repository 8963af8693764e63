//! An HTTP proxy (RFC 9110, 9112): CONNECT, and requests for `http://` addresses.
//!
//! One request per connection: its head is rewritten for the service, which is asked to close, and from then on bytes are
//! passed on as they are. So nothing has to be understood of bodies, and a request cannot be cut in another place than
//! the service cuts it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::{PATIENCE, Refusal, destination};
use crate::bridge::{Crossing, Dialler, Socket, To};
use crate::failure::{Code, Failure};

/// The longest head of a request. Browsers stay below 8 KiB.
const HEAD_MAX: usize = 16 << 10;

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Headers that are meant for the proxy, or for the connection to it.
const OURS: [&str; 6] =
    ["connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection"];

/// Headers that say where a request ends, or to whom it goes; no `Connection` header takes them away.
const NEEDED: [&str; 4] = ["content-length", "host", "transfer-encoding", "upgrade"];

/// What a program wants.
#[derive(Debug, PartialEq, Eq)]
enum Ask {
    /// A connection.
    Tunnel(To),
    /// An answer to this request.
    Request { to: To, head: String },
}

/// Why not: the status of the answer, its error type (RFC 9209), and the reason.
#[derive(Debug)]
struct No {
    status: &'static str,
    error: &'static str,
    failure: Failure,
}

/// Attends to one program.
pub(super) async fn serve(mut socket: Socket, dialler: &Dialler) -> Result<Crossing, (Socket, Refusal)> {
    let read = match tokio::time::timeout(PATIENCE, read_head(&mut socket)).await {
        Ok(read) => read,
        Err(_) => Err(No::new("408 Request Timeout", "http_request_error", "the request did not end")),
    };
    let asked = read.and_then(|(head, rest)| Ok((parse(&head)?, rest)));
    let (ask, rest) = match asked {
        Ok(asked) => asked,
        Err(no) => return Err((socket, no.refusal("http"))),
    };
    let (to, first, welcome) = match ask {
        Ask::Tunnel(to) => (to, rest, ESTABLISHED),
        Ask::Request { to, head } => (to, [head.as_bytes(), &rest].concat(), &b""[..]),
    };
    match dialler.dial(&to, &first).await {
        Ok(stream) => {
            if socket.write_all(welcome).await.is_err() {
                stream.reset();
                return Ok(Crossing::failed(&to, Failure::new(Code::ConnectionFailed, "the client is gone")));
            }
            Ok(Dialler::join(socket, stream, &to, first.len()).await)
        }
        Err(failure) => Err((socket, No::of(failure).refusal(&to.to_string()))),
    }
}

/// The head of the request, and what came behind it.
async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> Result<(Vec<u8>, Vec<u8>), No> {
    let mut head = Vec::with_capacity(1024);
    loop {
        // The end may lie across two reads.
        let looked = head.len().saturating_sub(3);
        let read = io.read_buf(&mut head).await.unwrap_or(0);
        if let Some(at) = head[looked..].windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = head.split_off(looked + at + 4);
            return Ok((head, rest));
        }
        if read == 0 {
            return Err(No::new("400 Bad Request", "http_request_error", "the request broke off"));
        }
        if head.len() > HEAD_MAX {
            let message = "the head of the request is longer than 16 KiB";
            return Err(No::new("431 Request Header Fields Too Large", "http_request_error", message));
        }
    }
}

fn parse(head: &[u8]) -> Result<Ask, No> {
    let bad = |message: &str| No::new("400 Bad Request", "http_request_error", message);
    let head = std::str::from_utf8(head).map_err(|_| bad("the head of the request is not text"))?;
    if head.bytes().any(|byte| byte == 0) || head.replace("\r\n", "").contains(['\r', '\n']) {
        return Err(bad("the head of the request has bytes that none may have"));
    }
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let request = lines.next().unwrap_or_default();
    let words: Vec<&str> = request.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(bad("the first line is no request")) };
    if !is_token(method) {
        return Err(bad("the first line is no request"));
    }
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err(No::new(
            "505 HTTP Version Not Supported",
            "http_request_error",
            "HTTP/1.1 is spoken here",
        ));
    }
    if method == "CONNECT" {
        let (host, port) = authority(target, None).ok_or_else(|| bad("CONNECT wants host:port"))?;
        return destination(host, port).map(Ask::Tunnel).map_err(No::of);
    }
    let address = strip_scheme(target).ok_or_else(|| {
        bad("this is a proxy: it takes CONNECT, and requests for http:// addresses, not for pages of its own")
    })?;
    let (host_port, path) = address.split_at(address.find(['/', '?', '#']).unwrap_or(address.len()));
    let (host, port) = authority(host_port, Some(80)).ok_or_else(|| bad("the address has no host"))?;
    let to = destination(host, port).map_err(No::of)?;
    let path = path.split('#').next().unwrap_or_default();
    let root = match path.as_bytes().first() {
        Some(b'/') => "",
        None if method == "OPTIONS" => "*",
        None | Some(_) => "/",
    };
    let mut out = format!("{method} {root}{path} {version}\r\nHost: {host_port}\r\n");
    pass_on(lines, &mut out).ok_or_else(|| bad("a header is not one"))?;
    Ok(Ask::Request { to, head: out })
}

/// Writes the headers that are for the service, and those that we owe it.
fn pass_on<'a>(lines: impl Iterator<Item = &'a str>, out: &mut String) -> Option<()> {
    let headers: Vec<(&str, String)> = lines
        .map(|line| {
            let (name, _) = line.split_once(':').filter(|(name, _)| is_token(name))?;
            Some((line, name.to_ascii_lowercase()))
        })
        .collect::<Option<_>>()?;
    let of_connection: Vec<String> = headers
        .iter()
        .filter(|(_, name)| name == "connection")
        .filter_map(|(line, _)| line.split_once(':'))
        .flat_map(|(_, value)| value.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect();
    let upgrades = of_connection.iter().any(|word| word == "upgrade")
        && headers.iter().any(|(_, name)| name == "upgrade");
    for (line, name) in &headers {
        let named = of_connection.contains(name) && !NEEDED.contains(&name.as_str());
        let is_idle_upgrade = name == "upgrade" && !upgrades;
        if !OURS.contains(&name.as_str()) && !named && !is_idle_upgrade {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    out.push_str("Via: 1.1 pilot\r\nConnection: ");
    out.push_str(if upgrades { "upgrade" } else { "close" });
    out.push_str("\r\n\r\n");
    Some(())
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    scheme.eq_ignore_ascii_case("http").then_some(rest)
}

/// `host:port`; nobody is let in by a name and a password in front of it.
fn authority(text: &str, usual: Option<u16>) -> Option<(&str, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address in brackets has colons of its own.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        Some(_) | None => (text, usual?),
    };
    (!host.is_empty() && !host.contains('@')).then_some((host, port))
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

impl No {
    fn new(status: &'static str, error: &'static str, message: &str) -> Self {
        Self { status, error, failure: Failure::new(Code::InvalidArgument, message) }
    }

    fn of(failure: Failure) -> Self {
        let (status, error) = match failure.code {
            Code::TrustRequired | Code::PermissionDenied => ("403 Forbidden", "http_request_denied"),
            Code::NotFound => ("502 Bad Gateway", "destination_not_found"),
            Code::Refused => ("502 Bad Gateway", "connection_refused"),
            Code::Unreachable => ("502 Bad Gateway", "destination_unavailable"),
            Code::Timeout => ("504 Gateway Timeout", "connection_timeout"),
            Code::NotRunning | Code::NotRegistered | Code::ConnectionFailed => {
                ("503 Service Unavailable", "destination_unavailable")
            }
            Code::Internal
            | Code::AlreadyExists
            | Code::Unsupported
            | Code::Failed
            | Code::Interrupted
            | Code::InvalidArgument => ("502 Bad Gateway", "proxy_internal_error"),
        };
        Self { status, error, failure }
    }

    fn refusal(self, peer: &str) -> Refusal {
        let Self { status, error, failure } = self;
        let hint = failure.hint.iter().map(|hint| format!("{hint}\n")).collect::<String>();
        let body = format!("{}\n{hint}", failure.message);
        let words = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Proxy-Status: pilot; error={error}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        Refusal { words: words.into_bytes(), peer: peer.to_owned(), failure: failure.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(head: &str) -> Result<(String, String), &'static str> {
        match parse(head.as_bytes()) {
            Ok(Ask::Tunnel(to)) => Ok((to.to_string(), String::new())),
            Ok(Ask::Request { to, head }) => Ok((to.to_string(), head)),
            Err(no) => Err(&no.status[..3]),
        }
    }

    #[test]
    fn a_request_is_rewritten_for_the_service() {
        let head = "GET http://agent-b.pilot/a?b=c HTTP/1.1\r\nHost: else\r\nAccept: */*\r\nX-Hop: 1\r\n\
            Connection: keep-alive, x-hop, content-length\r\nProxy-Connection: keep-alive\r\nContent-Length: 0\r\n\r\n";
        let (to, head) = asked(head).unwrap();
        assert_eq!(to, "agent-b:80");
        assert_eq!(
            head,
            "GET /a?b=c HTTP/1.1\r\nHost: agent-b.pilot\r\nAccept: */*\r\nContent-Length: 0\r\nVia: 1.1 pilot\r\n\
             Connection: close\r\n\r\n"
        );
        let (to, head) = asked("OPTIONS http://2.pilot:8080 HTTP/1.0\r\n\r\n").unwrap();
        assert_eq!((to.as_str(), &head[..40]), ("2:8080", "OPTIONS * HTTP/1.0\r\nHost: 2.pilot:8080\r\n"));
        assert!(
            asked("GET http://2.pilot?x#y HTTP/1.1\r\n\r\n").unwrap().1.starts_with("GET /?x HTTP/1.1\r\n")
        );
    }

    #[test]
    fn a_websocket_keeps_its_upgrade_and_others_lose_it() {
        let upgrade =
            "GET http://b.pilot/ HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n";
        let (_, head) = asked(upgrade).unwrap();
        assert!(
            head.contains("Upgrade: websocket\r\n") && head.ends_with("Connection: upgrade\r\n\r\n"),
            "{head}"
        );
        let (_, head) = asked("GET http://b.pilot/ HTTP/1.1\r\nUpgrade: h2c\r\n\r\n").unwrap();
        assert!(!head.contains("Upgrade") && head.ends_with("Connection: close\r\n\r\n"), "{head}");
    }

    #[test]
    fn connect_is_a_tunnel() {
        assert_eq!(
            asked("CONNECT agent-b.pilot:443 HTTP/1.1\r\n\r\n"),
            Ok(("agent-b:443".into(), String::new()))
        );
    }

    #[test]
    fn what_goes_nowhere_is_told_so() {
        for (head, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "400"),
            ("GET https://agent-b.pilot/ HTTP/1.1\r\n\r\n", "400"),
            ("GET http://me:pw@agent-b.pilot/ HTTP/1.1\r\n\r\n", "400"),
            ("GET http:///x HTTP/1.1\r\n\r\n", "400"),
            ("GET http://agent-b.pilot:99999/ HTTP/1.1\r\n\r\n", "400"),
            ("CONNECT agent-b.pilot HTTP/1.1\r\n\r\n", "400"),
            ("GET  http://agent-b.pilot/ HTTP/1.1\r\n\r\n", "400"),
            ("G\tT http://agent-b.pilot/ HTTP/1.1\r\n\r\n", "400"),
            ("GET http://agent-b.pilot/ HTTP/1.1\r\nA : b\r\n\r\n", "400"),
            ("GET http://agent-b.pilot/ HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", "400"),
            ("GET http://agent-b.pilot/ HTTP/1.1\r\nA: b\nC: d\r\n\r\n", "400"),
            ("GET http://agent-b.pilot/ HTTP/1.1\r\nA: \0\r\n\r\n", "400"),
            ("PRI * HTTP/2.0\r\n\r\n", "505"),
            ("GET http://example.com/ HTTP/1.1\r\n\r\n", "403"),
            ("CONNECT [::1]:443 HTTP/1.1\r\n\r\n", "403"),
            ("CONNECT 127.0.0.1:443 HTTP/1.1\r\n\r\n", "403"),
            ("GET http://a.b.pilot/ HTTP/1.1\r\n\r\n", "502"),
            ("\r\n\r\n", "400"),
        ] {
            assert_eq!(asked(head), Err(status), "{head:?}");
        }
    }

    /// What is put into requests, or in place of a byte.
    const PIECES: [&str; 19] = [
        "",
        "\r\n",
        "\r",
        "\n",
        "\0",
        " ",
        "\t",
        ":",
        "/",
        "@",
        "#",
        "?",
        "*",
        ",",
        "é",
        "http://",
        "\r\nHost: x",
        "\r\nConnection: host",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: x",
    ];

    #[test]
    fn whatever_is_changed_in_a_request_its_service_gets_one_head_that_names_that_service() {
        let mut passed = 0;
        for head in [
            "GET http://agent-b.pilot/a?b=c HTTP/1.1\r\nHost: else\r\nProxy-Authorization: Basic x\r\n\r\n",
            "POST http://2.pilot:8080/#x HTTP/1.0\r\nConnection: close, upgrade\r\nUpgrade: h2c\r\nContent-Length: 1\r\n\r\n",
            "OPTIONS http://1-0001.0002.0003.pilot HTTP/1.1\r\n\r\n",
        ] {
            let places = (0..head.len()).flat_map(|at| [(at, at), (at, at + 1)]);
            for ((from, to), piece) in places.flat_map(|place| PIECES.map(|piece| (place, piece))) {
                let changed = [&head[..from], piece, &head[to..]].concat();
                // `read_head` takes the first head only.
                let changed = changed.split_inclusive("\r\n\r\n").next().unwrap();
                let Ok((to, out)) = asked(changed) else { continue };
                passed += 1;
                let lines = out.strip_suffix("\r\n\r\n").unwrap_or_else(|| panic!("{changed:?}: {out:?}"));
                let (request, headers) = lines.split_once("\r\n").unwrap();
                let words: Vec<&str> = request.split(' ').collect();
                assert!(
                    words.len() == 3 && (words[1].starts_with('/') || words[1] == "*"),
                    "{changed:?}: {request}"
                );
                let headers: Vec<(String, &str)> = headers
                    .split("\r\n")
                    .map(|line| line.split_once(':').unwrap_or_else(|| panic!("{changed:?}: {line:?}")))
                    .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
                    .collect();
                let values = |wanted: &str| -> Vec<&str> {
                    headers.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect()
                };
                assert!(!lines.replace("\r\n", "").contains(['\r', '\n', '\0']), "{changed:?}: {out:?}");
                assert_eq!(
                    (values("connection").len(), values("proxy-authorization")),
                    (1, vec![]),
                    "{changed:?}"
                );
                let [host] = values("host")[..] else { panic!("{changed:?}: {out:?}") };
                let (host, port) = authority(host, Some(80)).unwrap();
                assert_eq!(destination(host, port).ok().map(|to| to.to_string()), Some(to), "{changed:?}");
            }
        }
        assert!(passed > 1000, "{passed} of them are requests");
    }

    #[tokio::test]
    async fn heads_are_read_to_their_end_whole_short_or_too_long() {
        let whole = b"GET http://b.pilot/ HTTP/1.1\r\n\r\nbody";
        let (head, rest) = read_head(&mut &whole[..]).await.unwrap();
        assert_eq!((head.len(), &rest[..]), (whole.len() - 4, &b"body"[..]));
        for length in 0..whole.len() - 4 {
            assert_eq!(read_head(&mut &whole[..length]).await.unwrap_err().status, "400 Bad Request");
        }
        let endless = vec![b'a'; HEAD_MAX + 1];
        assert!(read_head(&mut &endless[..]).await.unwrap_err().status.starts_with("431"));
    }
}
