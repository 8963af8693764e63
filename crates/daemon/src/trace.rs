//! What a user waited for, as spans of OpenTelemetry, sent to a collector by OTLP over HTTP in its JSON form. Off unless a
//! collector is named; then nothing is kept and nothing is sent.
//!
//! The form is small and frozen (OTLP 1.0), and the daemon has the HTTP client of its webhook: written by hand, this costs
//! no dependency, where the crates of OpenTelemetry would bring a second stack of HTTP, protobuf and TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::webhook::{self, Target, TargetError, Tls};

/// Spans that wait for the collector. Beyond, they are dropped and counted: nothing waits for it.
const QUEUE: usize = 1024;

/// Spans in one request.
const BATCH: usize = 256;

/// For so long further spans are waited for, so that there are few requests.
const GATHERING: Duration = Duration::from_millis(500);

/// Time that one request may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Pauses after a collector that did not take spans, doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Longest text of an attribute. Peers may have had a say in it.
const TEXT_MAX: usize = 256;

/// What tells a span apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId {
    trace: [u8; 16],
    span: [u8; 8],
}

impl SpanId {
    /// Begins a trace.
    fn root() -> Self {
        Self { trace: random(), span: random() }
    }

    /// Something that is waited for because of this.
    pub(crate) fn child(self) -> Self {
        Self { span: random(), ..self }
    }
}

/// Without randomness two spans look like one, and nothing else is harmed.
fn random<const N: usize>() -> [u8; N] {
    pilot_crypto::random_bytes().unwrap_or([1; N])
}

/// A value of an attribute.
#[derive(Debug, Clone)]
pub(crate) enum Field {
    Text(String),
    Number(u64),
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Something that is over.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) began: SystemTime,
    pub(crate) ended: SystemTime,
    pub(crate) fields: Vec<(&'static str, Field)>,
    /// Why it came to nothing.
    pub(crate) failed: Option<String>,
}

impl Span {
    /// A span of its own that ends now.
    pub(crate) fn since(name: &'static str, began: Instant) -> Self {
        Self::between(name, wall(began))
    }

    /// The same where the begin is known by the clock.
    pub(crate) fn between(name: &'static str, began: SystemTime) -> Self {
        let ended = SystemTime::now().max(began);
        Self { name, id: SpanId::root(), parent: None, began, ended, fields: Vec::new(), failed: None }
    }

    pub(crate) fn with(mut self, name: &'static str, field: impl Into<Field>) -> Self {
        self.fields.push((name, field.into()));
        self
    }

    pub(crate) fn failed(mut self, why: Option<String>) -> Self {
        self.failed = why;
        self
    }
}

/// When something began by the clock.
fn wall(at: Instant) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(at.elapsed()).unwrap_or(now)
}

/// Takes what is over. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracer(Option<Way>);

#[derive(Debug, Clone)]
struct Way {
    spans: mpsc::Sender<Span>,
    dropped: Arc<AtomicU64>,
}

impl Tracer {
    /// One for a collector, and the task that sends to it. `endpoint` is the base of its URLs, as in
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`.
    ///
    /// # Errors
    /// When that is no URL.
    pub(crate) fn to(endpoint: &str) -> Result<(Self, impl Future<Output = ()> + Send + use<>), TargetError> {
        let target = Target::parse(&format!("{}/v1/traces", endpoint.trim_end_matches('/')))?;
        let (spans, queue) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let exporter = Exporter { queue, target, dropped: Arc::clone(&dropped) };
        Ok((Self(Some(Way { spans, dropped })), exporter.run()))
    }

    /// Whether anybody wants to know.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The name of a span that begins now; `None` if nobody wants to know.
    pub(crate) fn begin(&self) -> Option<SpanId> {
        self.is_on().then(SpanId::root)
    }

    /// Something is over. It is made only if somebody wants to know.
    pub(crate) fn record(&self, span: impl FnOnce() -> Span) {
        if let Some(way) = &self.0
            && way.spans.try_send(span()).is_err()
        {
            way.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Spans that were lost, because there were too many or the collector did not take them; `None` if there is none.
    pub(crate) fn dropped(&self) -> Option<u64> {
        self.0.as_ref().map(|way| way.dropped.load(Ordering::Relaxed))
    }
}

struct Exporter {
    queue: mpsc::Receiver<Span>,
    target: Target,
    dropped: Arc<AtomicU64>,
}

impl Exporter {
    async fn run(mut self) {
        let (tls, mut pause) = (Tls::default(), None);
        let mut batch = Vec::new();
        while self.queue.recv_many(&mut batch, BATCH).await > 0 {
            if batch.len() < BATCH {
                sleep(GATHERING).await;
                while batch.len() < BATCH
                    && let Ok(span) = self.queue.try_recv()
                {
                    batch.push(span);
                }
            }
            match self.send(&batch, &tls).await {
                Ok(()) => pause = None,
                Err(why) => {
                    self.dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    if pause.is_none() {
                        tracing::warn!(collector = self.target.url(), why, "spans are lost");
                    }
                    let next = pause.map_or(PAUSE_MIN, |before: Duration| (before * 2).min(PAUSE_MAX));
                    pause = Some(next);
                    sleep(next).await;
                }
            }
            batch.clear();
        }
    }

    async fn send(&self, batch: &[Span], tls: &Tls) -> Result<(), String> {
        let body = document(batch).to_string();
        let request = webhook::request(&self.target, body.as_bytes(), None, &[]);
        match timeout(ATTEMPT, webhook::post(&self.target, &request, tls)).await {
            Ok(Ok(200..=299)) => Ok(()),
            Ok(Ok(status)) => Err(format!("HTTP status {status}")),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        }
    }
}

/// `ExportTraceServiceRequest`, in JSON.
fn document(batch: &[Span]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let about: [(&'static str, Field); 2] =
        [("service.name", "pilot".into()), ("service.version", version.into())];
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(&about)},
        "scopeSpans": [{
            "scope": {"name": "pilot-daemon", "version": version},
            "spans": batch.iter().map(span).collect::<Vec<_>>(),
        }],
    }]})
}

fn span(span: &Span) -> Value {
    /// SPAN_KIND_INTERNAL
    const KIND: u8 = 1;
    /// STATUS_CODE_ERROR
    const ERROR: u8 = 2;
    let nanos = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string();
    let mut value = json!({
        "traceId": hex::encode(span.id.trace),
        "spanId": hex::encode(span.id.span),
        "name": span.name,
        "kind": KIND,
        "startTimeUnixNano": nanos(span.began),
        "endTimeUnixNano": nanos(span.ended),
        "attributes": attributes(&span.fields),
        "status": {},
    });
    if let Some(parent) = span.parent {
        value["parentSpanId"] = hex::encode(parent.span).into();
    }
    if let Some(why) = &span.failed {
        value["status"] = json!({"code": ERROR, "message": short(why)});
    }
    value
}

fn attributes(fields: &[(&'static str, Field)]) -> Vec<Value> {
    let value = |field: &Field| match field {
        Field::Text(text) => json!({"stringValue": short(text)}),
        // 64 bits are a text in this form.
        Field::Number(number) => json!({"intValue": number.to_string()}),
    };
    fields.iter().map(|(key, field)| json!({"key": key, "value": value(field)})).collect()
}

fn short(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn without_a_collector_no_span_is_even_made() {
        let tracer = Tracer::default();
        tracer.record(|| unreachable!("nobody wants to know"));
        assert_eq!((tracer.begin(), tracer.dropped()), (None, None));
        assert!(Tracer::to("collector:4318").is_err());
    }

    #[test]
    fn a_span_is_written_as_the_protocol_wants_it() {
        let parent = SpanId { trace: [0xab; 16], span: [0x01; 8] };
        let span = Span {
            id: SpanId { trace: [0xab; 16], span: [0x02; 8] },
            parent: Some(parent),
            ended: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_000_000_007),
            ..Span::between("pilot.path", UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        };
        let span = span.with("pilot.peer", "x".repeat(999)).with("pilot.bytes", 7).failed(Some("no".into()));
        let document = document(&[span]);
        let resource = &document["resourceSpans"][0];
        assert_eq!(
            resource["resource"]["attributes"][0],
            json!({"key": "service.name", "value": {"stringValue": "pilot"}})
        );
        let expected = json!({
            "traceId": "ab".repeat(16),
            "spanId": "02".repeat(8),
            "parentSpanId": "01".repeat(8),
            "name": "pilot.path",
            "kind": 1,
            "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000000000000007",
            "attributes": [
                {"key": "pilot.peer", "value": {"stringValue": "x".repeat(TEXT_MAX)}},
                {"key": "pilot.bytes", "value": {"intValue": "7"}},
            ],
            "status": {"code": 2, "message": "no"},
        });
        assert_eq!(resource["scopeSpans"][0]["spans"], json!([expected]));
    }

    /// Reads one request whole and answers it.
    async fn take(mut stream: TcpStream) -> (String, Value) {
        let mut read = Vec::new();
        loop {
            assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "cut off");
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await.unwrap();
                return (head.to_owned(), serde_json::from_str(body).unwrap());
            }
        }
    }

    #[tokio::test]
    async fn spans_go_to_the_collector_together() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tracer, exporting) = Tracer::to(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        for name in ["pilot.dial", "pilot.path"] {
            tracer.record(|| Span::since(name, Instant::now()));
        }
        let collecting = async { take(listener.accept().await.unwrap().0).await };
        let (head, body) = tokio::select! {
            taken = collecting => taken,
            () = exporting => panic!("the exporter ended"),
        };
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
        let names: Vec<_> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
        assert_eq!((names, tracer.dropped()), (vec!["pilot.dial", "pilot.path"], Some(0)));
    }

    #[tokio::test]
    async fn what_a_dead_collector_does_not_take_is_dropped_and_counted() {
        // Bound and not listened on: whoever connects is refused at once.
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = dead.local_addr().unwrap();
        drop(dead);
        let (tracer, exporting) = Tracer::to(&format!("http://{address}")).unwrap();
        for _ in 0..QUEUE + 5 {
            tracer.record(|| Span::since("pilot.dial", Instant::now()));
        }
        assert_eq!(tracer.dropped(), Some(5));
        let exporting = tokio::spawn(exporting);
        while tracer.dropped() == Some(5) {
            tokio::task::yield_now().await;
        }
        exporting.abort();
        assert_eq!(tracer.dropped(), Some(5 + BATCH as u64));
    }
}
