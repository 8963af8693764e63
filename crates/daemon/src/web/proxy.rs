//! A way through an HTTP proxy: `CONNECT` (RFC 9110 9.3.6), and for which hosts there is none.

use std::fmt;
use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::Uri;

use super::target::{authority, host_of};

/// Longest answer of a proxy that is read. They are a few lines; some send a page with a refusal, which is not read.
const ANSWER_MAX: usize = 8 << 10;

/// A proxy and where it is not to be used.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    host: String,
    port: u16,
    /// The value of the header, if the proxy wants to know who asks.
    authorization: Option<String>,
    bypass: Vec<Bypass>,
}

/// Hosts that are reached without the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Bypass {
    Everything,
    /// A domain and all in it.
    Domain(String),
    /// The addresses that begin with the bits of this one.
    Network(IpAddr, u8),
}

/// Why a text is no proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It cannot be read at all.
    #[error("the proxy is not a URL such as http://proxy.example:3128")]
    Unreadable,
    /// A kind of proxy that is not spoken to.
    #[error("proxies of the kind `{0}` are not supported, only http://")]
    Scheme(String),
}

/// Why a proxy did not let us through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the proxy {0} cannot be reached: {1}")]
    Unreachable(String, io::Error),
    #[error("the proxy {0} broke off: {1}")]
    BrokeOff(String, io::Error),
    #[error("the proxy {0} wants a user name and a password (407): http://USER:PASSWORD@{0}")]
    Unauthorized(String),
    #[error("the proxy {0} refused the user name or the password (407)")]
    WrongCredentials(String),
    #[error("the proxy {proxy} does not let us through to {to}: {status}")]
    Status { proxy: String, to: String, status: String },
    #[error("the proxy {0} answered with something that is not HTTP")]
    Nonsense(String),
}

impl Proxy {
    /// `http://[user:password@]host:port`, and a list as in `NO_PROXY`: domains, addresses, networks, `*`.
    pub(crate) fn parse(url: &str, no_proxy: &str) -> Result<Self, ProxyError> {
        // Many write only host and port.
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let uri: Uri = url.parse().map_err(|_| ProxyError::Unreadable)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(ProxyError::Scheme(other.to_owned())),
            None => return Err(ProxyError::Unreadable),
        }
        let host = host_of(&uri).ok_or(ProxyError::Unreadable)?;
        let user = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@'));
        let authorization = user.map(|(user, _)| {
            let mut plain = percent_decoded(user);
            if !user.contains(':') {
                plain.push(b':');
            }
            format!("Basic {}", STANDARD.encode(plain))
        });
        Ok(Self {
            host,
            port: uri.port_u16().unwrap_or(80),
            authorization,
            bypass: no_proxy.split([',', ' ']).filter_map(Bypass::parse).collect(),
        })
    }

    /// Whether the host is to be reached through it.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        !self.bypass.iter().any(|bypass| bypass.covers(host))
    }

    /// A connection to the host through the proxy. Names are resolved by the proxy.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, Refused> {
        let shown = self.to_string();
        let mut stream = TcpStream::connect((&*self.host, self.port))
            .await
            .map_err(|error| Refused::Unreachable(shown.clone(), error))?;
        let to = authority(host, port);
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(authorization) = &self.authorization {
            request += &format!("Proxy-Authorization: {authorization}\r\n");
        }
        request += "\r\n";
        let head = async {
            stream.set_nodelay(true)?;
            stream.write_all(request.as_bytes()).await?;
            read_head(&mut stream).await
        };
        let head = head.await.map_err(|error| Refused::BrokeOff(shown.clone(), error))?;
        let head = head.ok_or_else(|| Refused::Nonsense(shown.clone()))?;
        match status(&head) {
            Some((200..300, _)) => Ok(stream),
            Some((407, _)) if self.authorization.is_none() => Err(Refused::Unauthorized(shown)),
            Some((407, _)) => Err(Refused::WrongCredentials(shown)),
            Some((_, status)) => Err(Refused::Status { proxy: shown, to, status: status.to_owned() }),
            None => Err(Refused::Nonsense(shown)),
        }
    }
}

/// Host and port: a password is not for logs.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&authority(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// Reads to the empty line and not a byte more: what follows is the peer's. `None` if there is none.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= ANSWER_MAX {
            return Ok(None);
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).ok())
}

/// The status code, and the status line after the version.
fn status(head: &str) -> Option<(u16, &str)> {
    let line = head.lines().next()?;
    let status = line.strip_prefix("HTTP/1.")?.split_once(' ')?.1;
    Some((status.get(..3)?.parse().ok()?, status.trim_end()))
}

impl Bypass {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim().to_ascii_lowercase();
        match entry.as_str() {
            "" => return None,
            "*" => return Some(Self::Everything),
            _ => {}
        }
        let (ip, bits) = entry.split_once('/').map_or((&*entry, None), |(ip, bits)| (ip, Some(bits)));
        if let Ok(ip) = ip.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            let all = if ip.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Some(all), |bits| bits.parse().ok().filter(|bits| *bits <= all))?;
            return Some(Self::Network(ip, bits));
        }
        let domain = entry.trim_start_matches("*.").trim_start_matches('.');
        // A port after the name is ignored: the host decides.
        let domain = domain.split_once(':').map_or(domain, |(domain, _)| domain);
        (!domain.is_empty()).then(|| Self::Domain(domain.to_owned()))
    }

    fn covers(&self, host: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Domain(domain) => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                host == *domain || host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'))
            }
            Self::Network(network, bits) => {
                host.parse().is_ok_and(|ip: IpAddr| is_within(ip.to_canonical(), *network, *bits))
            }
        }
    }
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let number = |ip| match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()) << 96, 32),
        IpAddr::V6(ip) => (ip.to_bits(), 128),
    };
    let ((ip, family), (network, other)) = (number(ip), number(network));
    let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
    family == other && (ip ^ network) & mask == 0
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = escaped.and_then(|digits| {
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok().map(|()| byte[0])
        });
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &str) {
    let (url, list) = text.split_once('\n').unwrap_or((text, text));
    let _ = status(text);
    if let Ok(proxy) = Proxy::parse(url, list) {
        let header = proxy.authorization.as_deref().unwrap_or_default();
        assert!(!header.contains(['\r', '\n']), "{header:?}");
        let _ = proxy.is_for(url);
        let _ = proxy.is_for("192.168.1.1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn proxy(url: &str) -> Proxy {
        Proxy::parse(url, "").unwrap()
    }

    #[test]
    fn proxies_are_read_and_their_passwords_not_shown() {
        let found = proxy("http://us%40er:p%3Aw@Proxy.example:3128/");
        assert_eq!((&*found.host, found.port), ("Proxy.example", 3128));
        assert_eq!(found.authorization, Some(format!("Basic {}", STANDARD.encode("us@er:p:w"))));
        assert_eq!(format!("{found} {found:?}"), "Proxy.example:3128 Proxy(Proxy.example:3128)");
        assert_eq!(proxy("proxy:8080").to_string(), "proxy:8080");
        assert_eq!(proxy("http://[::1]").to_string(), "[::1]:80");
        assert_eq!(proxy("http://u@h").authorization, Some(format!("Basic {}", STANDARD.encode("u:"))));
        assert_eq!(Proxy::parse("socks5://h:1080", ""), Err(ProxyError::Scheme("socks5".to_owned())));
        assert_eq!(Proxy::parse("http://", ""), Err(ProxyError::Unreadable));
    }

    #[test]
    fn hosts_may_be_excepted() {
        for (list, host, through) in [
            ("", "a.example", true),
            ("*", "a.example", false),
            ("example", "a.example", false),
            (".Example, other", "A.example.", false),
            ("*.example", "a.example", false),
            ("ple", "a.example", true),
            ("a.example:443", "a.example", false),
            ("10.0.0.0/8", "10.200.0.1", false),
            ("10.0.0.0/8", "11.0.0.1", true),
            ("10.0.0.1", "10.0.0.1", false),
            ("10.0.0.1", "10.0.0.2", true),
            ("0.0.0.0/0", "10.0.0.2", false),
            ("0.0.0.0/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:1::1", false),
            ("::1/129", "::1", true),
        ] {
            let proxy = Proxy::parse("http://proxy:1", list).unwrap();
            assert_eq!(proxy.is_for(host), through, "{list}: {host}");
        }
    }

    /// A proxy that answers one request.
    async fn answering(answer: &'static str) -> (Proxy, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await.unwrap().unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            head
        });
        (proxy(&format!("http://u:p@{address}")), task)
    }

    #[tokio::test]
    async fn a_proxy_that_agrees_is_passed_and_what_follows_is_the_peers() {
        let (proxy, request) = answering("HTTP/1.1 200 Connection established\r\nX: y\r\n\r\nhello").await;
        let mut stream = proxy.connect("2001:db8::1", 443).await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(&hello, b"hello");
        let credentials = STANDARD.encode("u:p");
        assert_eq!(
            request.await.unwrap(),
            format!(
                "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\
                 Proxy-Authorization: Basic {credentials}\r\n\r\n"
            )
        );
    }

    #[tokio::test]
    async fn a_proxy_that_does_not_agree_says_why() {
        for (answer, reason) in [
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "(407)"),
            (
                "HTTP/1.0 403 Forbidden by policy\r\n\r\n",
                "does not let us through to b.example:443: 403 Forbidden by policy",
            ),
            ("SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
            ("HTTP/1.1 20", "broke off"),
        ] {
            let (proxy, _request) = answering(answer).await;
            let error = proxy.connect("b.example", 443).await.unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("u:p"), "{answer}: {error}");
        }
        let error = proxy("http://127.0.0.1:1").connect("b.example", 443).await.unwrap_err().to_string();
        assert!(error.contains("cannot be reached"), "{error}");
    }
}
