//! The connections under way: how many there may be, what is said of them, and their end.

use std::fmt;
use std::io::ErrorKind;
use std::pin::pin;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::splice::Carried;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use crate::{humane, process, style};

/// How long connections may go on after the command was asked to end; asked again, they end at once.
const GRACE: Duration = Duration::from_secs(10);

/// The same complaint is made again after this.
const SILENCE: Duration = Duration::from_secs(5);

/// Descriptors that the process needs besides those of connections.
const OWN_FILES: usize = 64;

/// What is told while the command runs: people on stderr, programs as one object per line on stdout.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Notice {
    /// Connections are taken from now on.
    Listening(Listening),
    /// One has ended.
    Closed(Crossing),
    /// There were too many.
    TurnedAway { limit: usize },
    /// The daemon ended; listeners stay.
    DaemonGone,
    /// It, or another, is there again.
    DaemonBack,
    /// A port of the network could not be claimed again.
    Waiting { error: Failure },
}

/// Where connections are taken, and where they go.
#[derive(Debug, Serialize)]
pub(crate) struct Listening {
    /// `socks5`, `http`, or nothing where there is one kind only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'static str>,
    pub(crate) at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
}

/// A connection that has ended.
#[derive(Debug, Serialize)]
pub(crate) struct Crossing {
    pub(crate) peer: String,
    /// Bytes to the peer.
    pub(crate) sent: u64,
    /// Bytes from it.
    pub(crate) received: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Failure>,
}

impl Crossing {
    pub(crate) fn of(peer: impl fmt::Display, carried: Carried) -> Self {
        Self {
            peer: peer.to_string(),
            sent: carried.sent,
            received: carried.received,
            error: carried.broken.map(Failure::from),
        }
    }

    pub(crate) fn failed(peer: impl fmt::Display, failure: Failure) -> Self {
        Self { peer: peer.to_string(), sent: 0, received: 0, error: Some(failure) }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listening(Listening { kind, at, to }) => {
                write!(f, "listening on {at}")?;
                kind.map_or(Ok(()), |kind| write!(f, " ({kind})"))?;
                to.as_ref().map_or(Ok(()), |to| write!(f, ", to {to}"))
            }
            Self::Closed(Crossing { peer, error: Some(failure), .. }) => {
                write!(f, "{} {}", style::bad(humane::printable(peer)), failure.message)?;
                failure.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
            }
            Self::Closed(Crossing { peer, sent, received, error: None }) => {
                write!(f, "{} {sent} B sent, {received} B received", humane::printable(peer))
            }
            Self::TurnedAway { limit } => {
                write!(f, "{limit} connections are open; more are turned away (--limit)")
            }
            Self::DaemonGone => f.write_str("the daemon is gone; waiting until it is back"),
            Self::DaemonBack => f.write_str("the daemon is back"),
            Self::Waiting { error } => write!(f, "{}; trying again", error.message),
        }
    }
}

impl Notice {
    /// A reader that is gone ends the process; nothing else can be done about one that does not read.
    pub(crate) fn tell(&self, format: Format) {
        match format {
            Format::Text => output::note(format, &self.to_string()),
            Format::Json => drop(output::item(format, self)),
        }
    }
}

/// Connections under way, one task each.
pub(crate) struct Crowd {
    tasks: JoinSet<Crossing>,
    limit: usize,
    format: Format,
    /// What was last complained of, and when.
    complaint: Option<(String, Instant)>,
}

impl Crowd {
    /// With room for so many.
    pub(crate) fn new(ctx: &Context, limit: u16) -> Self {
        let limit = room_for(usize::from(limit));
        Self { tasks: JoinSet::new(), limit, format: ctx.format, complaint: None }
    }

    /// Attends to what the sources bring until asked to end; then the sources end, and connections under way have a while
    /// to finish. Of those that come when there is no room, each is turned away at once: waiting would look like a
    /// service that hangs.
    pub(crate) async fn attend<T, F>(
        mut self,
        mut incoming: mpsc::Receiver<T>,
        mut sources: JoinSet<()>,
        asked_to_end: impl Future<Output = ()>,
        carry: impl Fn(T) -> F,
        turn_away: impl Fn(T),
    ) -> Result<Output, Failure>
    where
        F: Future<Output = Crossing> + Send + 'static,
    {
        {
            let mut asked_to_end = pin!(asked_to_end);
            loop {
                tokio::select! {
                    Some(new) = incoming.recv() => {
                        if self.tasks.len() < self.limit {
                            self.tasks.spawn(carry(new));
                        } else {
                            turn_away(new);
                            self.complain(&Notice::TurnedAway { limit: self.limit });
                        }
                    }
                    Some(ended) = self.tasks.join_next() => self.on_end(ended)?,
                    () = &mut asked_to_end => break,
                }
            }
        }
        sources.shutdown().await;
        drop(incoming);
        self.finish().await
    }

    async fn finish(mut self) -> Result<Output, Failure> {
        let mut hurry = pin!(process::asked_to_end());
        let mut grace = pin!(tokio::time::sleep(GRACE));
        if !self.tasks.is_empty() {
            let open = humane::count(self.tasks.len(), "connection");
            output::note(self.format, &format!("{open} may finish; once more ends them"));
        }
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    Some(ended) => self.on_end(ended)?,
                    None => break,
                },
                () = &mut hurry => break,
                () = &mut grace => break,
            }
        }
        Ok(Output::streamed())
    }

    /// People hear of failures, programs of everything.
    fn on_end(&mut self, ended: Result<Crossing, JoinError>) -> Result<(), Failure> {
        let crossing = ended.map_err(|error| Failure::internal(format!("a connection crashed: {error}")))?;
        let failed = crossing.error.is_some();
        let notice = Notice::Closed(crossing);
        match self.format {
            Format::Json => notice.tell(Format::Json),
            Format::Text if failed => self.complain(&notice),
            Format::Text => {}
        }
        Ok(())
    }

    /// A thousand connections that fail for one reason are one complaint.
    fn complain(&mut self, notice: &Notice) {
        let text = notice.to_string();
        let is_new =
            self.complaint.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed() >= SILENCE);
        if is_new {
            notice.tell(self.format);
            self.complaint = Some((text, Instant::now()));
        }
    }
}

/// Asks the system for as many descriptors as so many connections need; returns for how many there are enough.
pub(crate) fn room_for(connections: usize) -> usize {
    let wanted = (connections + OWN_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return connections;
    }
    let most = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let got = match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }) {
        Ok(()) => most,
        Err(_) => current.unwrap_or(wanted),
    };
    usize::try_from(got).unwrap_or(connections).saturating_sub(OWN_FILES).clamp(1, connections)
}

/// A service of this machine that cannot be reached.
pub(crate) fn no_service(place: impl fmt::Display, error: &std::io::Error) -> Failure {
    let kind = error.kind();
    let code = if kind == ErrorKind::ConnectionRefused { Code::Refused } else { Code::ConnectionFailed };
    Failure::new(code, format!("no service answers at {place}: {error}"))
}
