//! As much of HTTP as a scraper and a probe need: one GET for each connection. Whoever asks slowly, much or nonsense gets
//! an answer or none, and is gone after a few seconds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pilot_metrics::CONTENT_TYPE;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{Desk, Silent};

/// Connections at the same time. For a further one the oldest that has not asked yet, or has its answer, is closed: whoever
/// asks half a question keeps nobody waiting.
const CONNECTIONS: usize = 8;

/// Longest request, all headers included.
const REQUEST_MAX: usize = 8 << 10;

/// How long the request may take to come.
const ASKING: Duration = Duration::from_secs(5);

/// How long the answer may take to go.
const ANSWERING: Duration = Duration::from_secs(5);

/// Pause after the system had no descriptor for a connection.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

const PLAIN: &str = "text/plain; charset=utf-8";

pub(super) async fn serve(listener: TcpListener, desk: Desk) {
    serve_with(listener, desk, ASKING).await;
}

async fn serve_with(listener: TcpListener, desk: Desk, asking: Duration) {
    let desk = Arc::new(desk);
    let mut places = Places::default();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                places.make_room().await;
                let desk = Arc::clone(&desk);
                places.take(|is_answered| async move { answer(stream, &desk, asking, &is_answered).await });
            }
            Err(error) => {
                tracing::warn!(%error, "metrics: no connection can be taken");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// The connections, oldest first. They end with the daemon.
#[derive(Default)]
struct Places {
    tasks: JoinSet<()>,
    taken: VecDeque<Place>,
}

struct Place {
    task: AbortHandle,
    /// Between question and answer, which takes no longer than the loop's patience: then it is not closed for another.
    is_answered: Arc<AtomicBool>,
}

impl Places {
    async fn make_room(&mut self) {
        loop {
            while self.tasks.try_join_next().is_some() {}
            self.taken.retain(|place| !place.task.is_finished());
            if self.taken.len() < CONNECTIONS {
                return;
            }
            let idle = self.taken.iter().position(|place| !place.is_answered.load(Ordering::Relaxed));
            match idle.and_then(|oldest| self.taken.remove(oldest)) {
                Some(place) => place.task.abort(),
                None => drop(self.tasks.join_next().await),
            }
        }
    }

    fn take<F>(&mut self, serve: impl FnOnce(Arc<AtomicBool>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let is_answered = Arc::<AtomicBool>::default();
        let task = self.tasks.spawn(serve(Arc::clone(&is_answered)));
        self.taken.push_back(Place { task, is_answered });
    }
}

async fn answer<S>(mut stream: S, desk: &Desk, asking: Duration, is_answered: &AtomicBool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Whoever says nothing in time is told nothing.
    let Ok(Some(request)) = timeout(asking, read_request(&mut stream)).await else { return };
    is_answered.store(true, Ordering::Relaxed);
    let response = respond(&request, desk).await;
    let written = async {
        stream.write_all(response.as_bytes()).await?;
        stream.shutdown().await?;
        is_answered.store(false, Ordering::Relaxed);
        // What it had more to say is taken, as closing on it would tear the answer down.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(ANSWERING, written).await;
}

/// What is asked, or why it cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    Metrics { body: bool },
    Health { body: bool },
    Elsewhere,
    OtherMethod,
    TooLong,
    Nonsense,
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    loop {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            return Some(parse(&head[..end]));
        }
        if head.len() > REQUEST_MAX {
            return Some(Request::TooLong);
        }
    }
}

fn parse(head: &[u8]) -> Request {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else { return Request::Nonsense };
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Request::Nonsense;
    };
    if !version.starts_with("HTTP/1.") {
        return Request::Nonsense;
    }
    let body = match method {
        "GET" => true,
        "HEAD" => false,
        _ => return Request::OtherMethod,
    };
    match target.split('?').next() {
        Some("/metrics") => Request::Metrics { body },
        Some("/healthz") => Request::Health { body },
        _ => Request::Elsewhere,
    }
}

async fn respond(request: &Request, desk: &Desk) -> String {
    match *request {
        Request::Metrics { body } => match desk.metrics().await {
            Ok(text) => response("200 OK", CONTENT_TYPE, &text, body),
            Err(why) => unavailable(why, body),
        },
        Request::Health { body } => match desk.health().await {
            Ok(()) => response("200 OK", PLAIN, "ok\n", body),
            Err(why) => unavailable(why, body),
        },
        Request::Elsewhere => response("404 Not Found", PLAIN, "there are /metrics and /healthz\n", true),
        Request::OtherMethod => response("405 Method Not Allowed", PLAIN, "ask with GET\n", true),
        Request::TooLong => {
            response("431 Request Header Fields Too Large", PLAIN, "the request is too long\n", true)
        }
        Request::Nonsense => response("400 Bad Request", PLAIN, "this is no request\n", true),
    }
}

fn unavailable(why: Silent, body: bool) -> String {
    response("503 Service Unavailable", PLAIN, &format!("{why}\n"), body)
}

fn response(status: &str, kind: &str, text: &str, body: bool) -> String {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let length = text.len();
    let text = if body { text } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
         Connection: close\r\n\r\n{text}"
    )
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(head: &[u8]) {
    let _ = parse(head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn two_paths_are_served_and_nothing_else_is() {
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost: x"), Request::Metrics { body: true });
        assert_eq!(parse(b"HEAD /metrics?x=y HTTP/1.0"), Request::Metrics { body: false });
        assert_eq!(parse(b"GET /healthz HTTP/1.1"), Request::Health { body: true });
        assert_eq!(parse(b"GET /metrics/.. HTTP/1.1"), Request::Elsewhere);
        assert_eq!(parse(b"POST /metrics HTTP/1.1"), Request::OtherMethod);
        for nonsense in
            [&b""[..], b"GET", b"GET /metrics", b"GET /metrics HTTP/2", b"GET  /x HTTP/1.1", b"\xff a b"]
        {
            assert_eq!(parse(nonsense), Request::Nonsense, "{nonsense:?}");
        }
    }

    #[tokio::test]
    async fn a_request_that_never_ends_is_cut_off_by_its_length() {
        let (mut client, mut server) = tokio::io::duplex(1 << 20);
        client.write_all(&[b'x'; 3 * REQUEST_MAX]).await.unwrap();
        assert_eq!(read_request(&mut server).await, Some(Request::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_loses_its_place() {
        let (commands, _inbox) = tokio::sync::mpsc::channel(1);
        let desk = Desk { commands, last: tokio::sync::Mutex::default() };
        let (_client, server) = tokio::io::duplex(64);
        // The clock stands still but for what is waited for, so that this ends says all.
        answer(server, &desk, ASKING, &AtomicBool::default()).await;
    }

    /// Reads to the end what comes back for `question`.
    async fn ask(stream: &mut TcpStream, question: &[u8]) -> String {
        stream.write_all(question).await.unwrap();
        let mut text = String::new();
        let read = stream.read_to_string(&mut text);
        timeout(Duration::from_secs(30), read).await.expect("no answer in half a minute").unwrap();
        text
    }

    #[tokio::test]
    async fn half_questions_keep_nobody_waiting() {
        let (commands, _inbox) = tokio::sync::mpsc::channel(1);
        let desk = Desk { commands, last: tokio::sync::Mutex::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // No patience ends here: that there is an answer is due to the places.
        let _server = JoinSet::from_iter([serve_with(listener, desk, Duration::from_secs(3600))]);
        let mut slow = VecDeque::new();
        for _ in 0..CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /half").await.unwrap();
            slow.push_back(stream);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        let response = ask(&mut stream, b"GET /whole HTTP/1.1\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
        // The oldest made room; the one after it can still ask the rest.
        let mut oldest = slow.pop_front().unwrap();
        assert_eq!(timeout(Duration::from_secs(30), oldest.read(&mut [0; 8])).await.unwrap().unwrap_or(0), 0);
        let response = ask(&mut slow.pop_front().unwrap(), b" HTTP/1.1\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.1 404 "), "{response}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_does_not_turn_is_reported_and_not_waited_for() {
        let (commands, _inbox) = tokio::sync::mpsc::channel(1);
        let desk = Desk { commands, last: tokio::sync::Mutex::default() };
        let response = respond(&Request::Health { body: true }, &desk).await;
        assert!(response.starts_with("HTTP/1.1 503 "), "{response}");
        assert!(response.ends_with("the daemon's loop does not answer\n"), "{response}");
    }
}
