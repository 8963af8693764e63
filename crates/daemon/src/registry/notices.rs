//! A second connection on which the registry says at once that something waits for the node.
//!
//! The beacon says so too, in one datagram that may be lost or come before the beacon knows the node. Registries that do
//! not know the question answer with an error; then the beacon and the heartbeat are all there is.

use std::pin::Pin;
use std::time::Duration;

use pilot_wire::registry::{Envelope, Notices as News, Response};
use tokio::time::{Instant, sleep_until, timeout};

use super::CONNECT_WAIT;
use super::connection::{Access, Connection, Lost};

/// How long the registry may keep the question, in milliseconds: less than it keeps an idle connection.
pub(super) const PATIENCE_MS: u32 = 240_000;

/// The answer is overdue after this long.
const ANSWER_WAIT: Duration = Duration::from_secs(270);

/// First pause after a notice for which nothing was found; doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Pause after other notices, in which further ones gather.
const PAUSE_BETWEEN: Duration = Duration::from_millis(20);

/// Pause after a failure, and after an answer that is none.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(30);

type Question = Pin<Box<dyn Future<Output = Result<(Connection, Response), Lost>> + Send>>;

/// The standing question.
pub(super) struct Notices {
    address: String,
    access: Access,
    envelope: Envelope,
    state: State,
    pause: Duration,
}

/// What is learned by waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Notice {
    /// What the registry says.
    News(News),
    /// A connection on which the question stood was lost: the registry may be gone.
    Broken,
}

enum State {
    Resting { until: Instant, connection: Option<Connection> },
    Asking(Question),
}

impl Notices {
    /// Asks with `envelope`, which is signed, at the registry of that address.
    pub(super) fn new(address: String, access: Access, envelope: Envelope) -> Self {
        let state = State::Resting { until: Instant::now(), connection: None };
        Self { address, access, envelope, state, pause: PAUSE_MIN }
    }

    /// Resolves with the next notice. Nothing is lost when the future is dropped before.
    pub(super) async fn next(&mut self) -> Notice {
        loop {
            match &mut self.state {
                State::Resting { until, connection } => {
                    sleep_until(*until).await;
                    let question = ask(
                        self.address.clone(),
                        self.access.clone(),
                        self.envelope.clone(),
                        connection.take(),
                    );
                    self.state = State::Asking(Box::pin(question));
                }
                State::Asking(question) => {
                    let answer = question.await;
                    if let Some(notice) = self.rest_after(answer) {
                        return notice;
                    }
                }
            }
        }
    }

    /// What waited was fetched: the next notice will be about something else.
    pub(super) fn fetched(&mut self) {
        self.pause = PAUSE_MIN;
        if let State::Resting { until, .. } = &mut self.state {
            *until = Instant::now();
        }
    }

    fn rest_after(&mut self, answer: Result<(Connection, Response), Lost>) -> Option<Notice> {
        let now = Instant::now();
        let (pause, connection, notice) = match answer {
            Ok((connection, Response::AwaitNotices(news))) if news.waiting => {
                let pause = self.pause;
                self.pause = (pause * 2).min(PAUSE_MAX);
                (pause, Some(connection), Some(Notice::News(news)))
            }
            Ok((connection, Response::AwaitNotices(news))) => {
                self.pause = PAUSE_MIN;
                let is_empty = news == News::default();
                let pause = if is_empty { Duration::ZERO } else { PAUSE_BETWEEN };
                (pause, Some(connection), (!is_empty).then_some(Notice::News(news)))
            }
            Ok((_, other)) => {
                tracing::debug!(?other, "the registry does not give notice");
                (PAUSE_AFTER_FAILURE, None, None)
            }
            Err(lost) => {
                tracing::debug!(%lost, "no notices from the registry");
                (PAUSE_AFTER_FAILURE, None, Some(Notice::Broken))
            }
        };
        self.state = State::Resting { until: now + pause, connection };
        notice
    }
}

async fn ask(
    address: String,
    access: Access,
    envelope: Envelope,
    connection: Option<Connection>,
) -> Result<(Connection, Response), Lost> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => match timeout(CONNECT_WAIT, Connection::open(&address, &access)).await {
            Ok(opened) => opened?,
            Err(_) => return Err(Lost::NoConnection),
        },
    };
    connection.queue(&envelope);
    let answer = async {
        loop {
            if let Some(reply) = connection.exchange().await? {
                return Response::parse(&reply).map_err(|error| Lost::Malformed(error.to_string()));
            }
        }
    };
    let answer = timeout(ANSWER_WAIT, answer).await.map_err(|_| Lost::Silent)??;
    Ok((connection, answer))
}
