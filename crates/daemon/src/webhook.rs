//! Posts what happens to a URL of the user's choice (spec/local.md 2.9). Nothing in the daemon waits for it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use pilot_wire::NodeId;
use serde::Serialize;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::{datetime, tls};

/// Events that wait for a slow receiver; further ones are dropped and counted.
const QUEUE: usize = 1024;

/// Time that one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Pauses between the attempts at one event.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// Failed events in a row after which nothing is sent for [`BREAK`].
const FAILURES_MAX: u32 = 5;

/// How long a receiver that keeps failing is left alone.
const BREAK: Duration = Duration::from_secs(30);

/// Longest answer that is read; only its status matters.
const ANSWER_MAX: u64 = 4096;

/// An `http://` or `https://` URL that may be posted to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    url: String,
    tls: bool,
    /// `host:port` to connect to.
    authority: String,
    /// The `Host` header.
    host: String,
    path: String,
}

/// Why a URL is refused. The texts are those of 1.18.0 where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No scheme that the daemon speaks.
    #[error("webhook URL must start with http:// or https://")]
    Scheme,
    /// Nothing between the slashes.
    #[error("webhook URL has no host")]
    Host,
    /// Addresses of this kind serve credentials on cloud machines.
    #[error("URL cannot target link-local address {0}")]
    LinkLocal(IpAddr),
}

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, TargetError> {
        let plain = url.strip_prefix("http://").map(|rest| (false, rest));
        let (tls, rest) = plain
            .or_else(|| url.strip_prefix("https://").map(|rest| (true, rest)))
            .ok_or(TargetError::Scheme)?;
        let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (host, path) = rest.split_at(split);
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::Host);
        }
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let path: String = path.chars().filter(char::is_ascii_graphic).collect();
        let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
            !name.is_empty() && port.parse::<u16>().is_ok() && (!host.starts_with('[') || name.ends_with(']'))
        });
        let port = if tls { 443 } else { 80 };
        let authority = if has_port { host.to_owned() } else { format!("{host}:{port}") };
        let target = Self { url: url.to_owned(), tls, authority, host: host.to_owned(), path };
        if let Some(ip) = target.literal_ip() {
            refuse_link_local(ip)?;
        }
        Ok(target)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The name or address without port and brackets.
    fn name(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    fn literal_ip(&self) -> Option<IpAddr> {
        self.name().parse().ok()
    }
}

fn refuse_link_local(ip: IpAddr) -> Result<(), TargetError> {
    let link_local = match ip.to_canonical() {
        // The second one serves the metadata of machines at Alibaba.
        IpAddr::V4(v4) => v4.is_link_local() || v4 == Ipv4Addr::new(100, 100, 100, 200),
        // The metadata address of AWS over IPv6 is not link-local by number, only by use.
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local() || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    };
    if link_local { Err(TargetError::LinkLocal(ip)) } else { Ok(()) }
}

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: &'static str,
    pub(crate) node: NodeId,
    pub(crate) time: SystemTime,
    pub(crate) data: Option<Value>,
}

#[derive(Serialize)]
struct Body<'a> {
    event_id: u64,
    event: &'a str,
    node_id: NodeId,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a Value>,
}

/// The driver's end: hands events over, never waits.
pub(crate) struct Webhook {
    events: mpsc::Sender<Event>,
    target: watch::Sender<Option<Target>>,
    dropped: u64,
}

impl Webhook {
    /// The two ends: this one, and the task to run.
    pub(crate) fn new(
        target: Option<Target>,
        secret: Option<String>,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (events, queue) = mpsc::channel(QUEUE);
        let (target, watched) = watch::channel(target);
        let tls = Tls::default();
        let poster =
            Poster { queue, target: watched, secret, tls, next_id: 1, failures: 0, silent_until: None };
        (Self { events, target, dropped: 0 }, poster.run())
    }

    pub(crate) fn is_set(&self) -> bool {
        self.target.borrow().is_some()
    }

    pub(crate) fn set(&self, target: Option<Target>) {
        self.target.send_replace(target);
    }

    pub(crate) fn post(&mut self, event: Event) {
        if self.is_set() && self.events.try_send(event).is_err() {
            self.dropped += 1;
        }
    }

    /// Events lost because the receiver was too slow.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

struct Poster {
    queue: mpsc::Receiver<Event>,
    target: watch::Receiver<Option<Target>>,
    secret: Option<String>,
    tls: Tls,
    next_id: u64,
    failures: u32,
    silent_until: Option<tokio::time::Instant>,
}

impl Poster {
    async fn run(mut self) {
        while let Some(event) = self.queue.recv().await {
            let Some(target) = self.target.borrow_and_update().clone() else { continue };
            let id = self.next_id;
            self.next_id += 1;
            if self.silent_until.is_some_and(|until| tokio::time::Instant::now() < until) {
                continue;
            }
            let body = Body {
                event_id: id,
                event: event.name,
                node_id: event.node,
                timestamp: datetime::rfc3339(event.time),
                data: event.data.as_ref(),
            };
            let Ok(body) = serde_json::to_vec(&body) else { continue };
            self.deliver(&target, &body).await;
        }
    }

    async fn deliver(&mut self, target: &Target, body: &[u8]) {
        let request = request(target, body, self.secret.as_deref(), &[]);
        let mut pauses = PAUSES.iter();
        loop {
            let outcome = tokio::time::timeout(ATTEMPT, post(target, &request, &self.tls)).await;
            match outcome {
                Ok(Ok(status)) if status < 500 => {
                    self.failures = 0;
                    self.silent_until = None;
                    return;
                }
                Ok(Ok(_) | Err(_)) | Err(_) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => break,
                },
            }
        }
        self.failures += 1;
        tracing::warn!(url = target.url(), failures = self.failures, "webhook does not answer");
        if self.failures >= FAILURES_MAX {
            self.silent_until = Some(tokio::time::Instant::now() + BREAK);
            self.failures = 0;
        }
    }
}

/// The request that posts `body`, signed if there is a key.
pub(crate) fn request(target: &Target, body: &[u8], secret: Option<&str>, more: &[(&str, &str)]) -> Vec<u8> {
    let mut headers = String::new();
    if let Some(secret) = secret {
        let tag = pilot_crypto::hmac_sha256(secret.as_bytes(), body);
        headers.push_str(&format!("X-Pilot-Signature-256: {}\r\n", hex::encode(tag)));
    }
    for (name, value) in more {
        headers.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n",
        target.path,
        target.host,
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// What TLS needs, made when it is first used.
#[derive(Clone, Default)]
pub(crate) struct Tls(Arc<OnceLock<TlsConnector>>);

impl Tls {
    /// One that believes these authorities only.
    #[cfg(test)]
    pub(crate) fn believing(roots: tokio_rustls::rustls::RootCertStore) -> Self {
        let tls = Self::default();
        let _ = tls.0.set(tls::believing(roots).unwrap());
        tls
    }

    fn connector(&self) -> io::Result<TlsConnector> {
        if let Some(connector) = self.0.get() {
            return Ok(connector.clone());
        }
        let made = tls::believing(tls::authorities_of_system()).map_err(io::Error::other)?;
        Ok(self.0.get_or_init(|| made).clone())
    }
}

/// Sends `request` and returns the status of the answer. No redirect is followed.
pub(crate) async fn post(target: &Target, request: &[u8], tls: &Tls) -> io::Result<u16> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host(&target.authority).await? {
        // A name may resolve to what a literal address is refused for.
        if let Err(refused) = refuse_link_local(address.ip()) {
            last = io::Error::new(io::ErrorKind::PermissionDenied, refused);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) if target.tls => {
                let name = ServerName::try_from(target.name().to_owned()).map_err(io::Error::other)?;
                let stream = tls.connector()?.connect(name, stream).await?;
                return exchange(stream, request).await;
            }
            Ok(stream) => return exchange(stream, request).await,
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, request: &[u8]) -> io::Result<u16> {
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_MAX);
    // The status line is all that is wanted; a receiver that keeps the connection open is not waited for.
    while !answer.contains(&b'\n') {
        if limited.read_buf(&mut answer).await? == 0 {
            break;
        }
    }
    status(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|&byte| byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    pub(crate) fn text(text: &str) {
        let _ = super::status(text.as_bytes());
        if let Ok(target) = super::Target::parse(text) {
            let request = super::request(&target, b"body", None, &[]);
            let head = String::from_utf8_lossy(&request);
            let lines = head.split("\r\n\r\n").next().unwrap_or_default();
            assert!(lines.lines().all(|line| line.contains(": ") || line.starts_with("POST ")), "{lines:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn urls_are_taken_apart_and_bad_ones_refused() {
        let target = Target::parse("http://example.org/hook?a=1").unwrap();
        assert_eq!(
            (&*target.authority, &*target.host, &*target.path),
            ("example.org:80", "example.org", "/hook?a=1")
        );
        assert_eq!(Target::parse("http://[::1]:8080").unwrap().authority, "[::1]:8080");
        assert_eq!(Target::parse("http://[::1]").unwrap().authority, "[::1]:80");
        let secure = Target::parse("https://example.org/hook").unwrap();
        assert_eq!((&*secure.authority, secure.name(), secure.tls), ("example.org:443", "example.org", true));
        assert!(Target::parse("https://100.100.100.200/").is_err());
        assert_eq!(Target::parse("ftp://x"), Err(TargetError::Scheme));
        assert_eq!(Target::parse("http:///x"), Err(TargetError::Host));
        let refused = Target::parse("http://169.254.169.254/x").unwrap_err();
        assert_eq!(refused.to_string(), "URL cannot target link-local address 169.254.169.254");
        assert!(Target::parse("http://[::ffff:169.254.169.254]/").is_err());
    }

    /// An HTTPS server with a certificate of its own making, and the authority to believe it by.
    async fn secure_server() -> (std::net::SocketAddr, tokio_rustls::rustls::RootCertStore) {
        use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
        use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut got = Vec::new();
                while !got.ends_with(b"body") && stream.read_buf(&mut got).await.unwrap_or(0) > 0 {}
                let _ = stream.write_all(b"HTTP/1.1 202 Accepted\r\n\r\n").await;
            }
        });
        (address, roots)
    }

    #[tokio::test]
    async fn https_reaches_a_server_with_a_known_authority_and_no_other() {
        let (address, roots) = secure_server().await;
        let target = Target::parse(&format!("https://localhost:{}/", address.port())).unwrap();
        let request = request(&target, b"body", None, &[]);
        assert_eq!(post(&target, &request, &Tls::believing(roots)).await.unwrap(), 202);
        let error = post(&target, &request, &Tls::default()).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }

    #[tokio::test]
    async fn an_event_arrives_signed_and_with_its_fields() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (mut webhook, task) = Webhook::new(Some(Target::parse(&url).unwrap()), Some("secret".to_owned()));
        tokio::spawn(task);
        webhook.post(Event {
            name: "trust.revoked",
            node: NodeId(7),
            time: UNIX_EPOCH + Duration::from_secs(1),
            data: Some(serde_json::json!({"peer_node_id": 9})),
        });
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"}}") {
            stream.read_buf(&mut got).await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let got = String::from_utf8(got).unwrap();
        let (head, body) = got.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hook HTTP/1.1\r\n"));
        assert_eq!(
            body,
            r#"{"event_id":1,"event":"trust.revoked","node_id":7,"timestamp":"1970-01-01T00:00:01Z","data":{"peer_node_id":9}}"#
        );
        let tag = pilot_crypto::hmac_sha256(b"secret", body.as_bytes());
        let hex: String = tag.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(head.contains(&format!("X-Pilot-Signature-256: {hex}")));
    }
}
