//! `pilotctl send-message --wait`: a request, and what comes of it.

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use pilot_client::{
    Client, DeliveryState as State, MessageId, MessageKind, PendingRequest, RequestEvent, RequestOptions,
    Response,
};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::inbox::Message;
use super::send_message::{Report, Sent};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Format, Output};
use crate::target::Peer;
use crate::{duration, humane, input, process, style};

/// How long a message with `--wait` is tried, when nothing else is said: as every message.
const TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is asked, and how.
pub(crate) struct Question {
    pub(crate) kind: MessageKind,
    pub(crate) body: Vec<u8>,
    pub(crate) reply_to: Option<MessageId>,
    pub(crate) patience: Duration,
    pub(crate) ttl: Option<Duration>,
    pub(crate) key: Option<MessageId>,
    /// Print pieces as they come.
    pub(crate) stream: bool,
}

/// Sends the message and waits for its answer. `report` has what is known before.
pub(crate) async fn run(
    ctx: &Context,
    client: &Client,
    peer: &Peer,
    question: Question,
    mut report: Report,
) -> Result<Output, Failure> {
    let Question { kind, body, reply_to, patience, ttl, key, stream } = question;
    let begin = Instant::now();
    let options = RequestOptions {
        kind,
        deadline: patience,
        key,
        parts: stream,
        ttl: Some(ttl.unwrap_or(TTL)),
        reply_to,
        loose: true,
        ..RequestOptions::default()
    };
    let mut pending = client.request(peer.addr, body, options).await?;
    let mut screen = Screen::new(ctx.format);
    let mut delivered = None;
    let mut asked_to_end = Box::pin(process::asked_to_end());
    let response = loop {
        let next = tokio::select! {
            next = pending.next() => next,
            () = &mut asked_to_end => return Err(taken_back(peer, &mut pending, report).await),
        };
        let event = match next {
            Ok(Some(event)) => event,
            Ok(None) => return Err(Failure::internal("the request ended without an answer")),
            Err(error) => return Err(unanswered(peer, patience, &pending, error.into(), report)),
        };
        match event {
            RequestEvent::State(state) => {
                if state >= State::Stored && delivered.is_none() {
                    delivered = Some(begin.elapsed());
                    ctx.note(style::faint(format!("delivered; waiting for the reply of {}", peer.name())));
                } else if state == State::Read {
                    ctx.note(style::faint(format!("{} is at it", peer.name())));
                }
                screen.event(stream, "state", &json!({ "state": state }))?;
            }
            RequestEvent::Progress(word) => {
                ctx.note(style::faint(humane::printable(&String::from_utf8_lossy(&word))));
                screen.bytes(stream, "progress", &word)?;
            }
            RequestEvent::Part(part) => screen.part(stream, &part)?,
            RequestEvent::Restarted => {
                ctx.note(style::faint("the work was begun anew: the answer begins again"));
                screen.event(stream, "restarted", &json!({}))?;
            }
            RequestEvent::Done(response) => break *response,
        }
    };
    let after = begin.elapsed();
    report.know(Sent::of_request(&pending), delivered.unwrap_or(after));
    ctx.note(style::faint(format!("{} answered after {}", peer.name(), duration::show(after))));
    finish(peer, response, report, after, screen, stream)
}

fn finish(
    peer: &Peer,
    response: Response,
    mut report: Report,
    after: Duration,
    mut screen: Screen,
    stream: bool,
) -> Result<Output, Failure> {
    let mail = response.mail.clone();
    report.answered(Message::new(mail.id, mail.message), after);
    screen.end(stream)?;
    if let Err(error) = response.into_result() {
        let failure = Failure::from(error);
        let message = format!("{}: {}", peer.name(), humane::printable(failure.message.trim_end()));
        return Err(Failure { message, ..failure }.with_data(json!(report)));
    }
    match (stream, screen.format) {
        (true, Format::Text) => Ok(Output::streamed()),
        (true, Format::Json) => {
            screen.event(true, "done", &json!(report))?;
            Ok(Output::streamed())
        }
        (false, _) => Ok(Output::of(report)),
    }
}

/// Nobody waits any more, so nobody needs to work at it.
async fn taken_back(peer: &Peer, pending: &mut PendingRequest, mut report: Report) -> Failure {
    if let Err(error) = pending.cancel().await {
        return error.into();
    }
    report.know(Sent::of_request(pending), Duration::ZERO);
    Failure::new(
        Code::Interrupted,
        format!("interrupted; {} is told that nobody waits for the answer", peer.name()),
    )
    .with_data(json!(report))
}

/// What is known when no answer came.
fn unanswered(
    peer: &Peer,
    patience: Duration,
    pending: &PendingRequest,
    failure: Failure,
    mut report: Report,
) -> Failure {
    let item = pending.item();
    report.know(Sent::of_request(pending), patience);
    if failure.code != Code::Timeout || item.is_some_and(|item| item.state == State::Expired) {
        return failure.with_data(json!(report));
    }
    let state = item.map(|item| item.state);
    let (known, hint) = match state {
        Some(State::Stored) => (
            "it has the message, and nobody there has read it",
            "a reply that comes later is in `pilotctl inbox`",
        ),
        Some(State::Read | State::Answered) => {
            ("the message was read there", "a reply that comes later is in `pilotctl inbox`")
        }
        Some(_) | None => (
            "the message is not delivered yet",
            "it is delivered when the peer can be reached: see `pilotctl outbox`, and `pilotctl why NODE`",
        ),
    };
    let message = format!("no reply from {} within {}: {known}", peer.name(), duration::show(patience));
    Failure::new(Code::Timeout, message).hint(hint).with_data(json!(report))
}

/// Pieces on their way to stdout.
struct Screen {
    format: Format,
    /// Whether a person reads along: then nothing may move the cursor.
    terminal: bool,
    /// The beginning of a character whose end is in the next piece.
    begun: Vec<u8>,
    last: Option<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    #[serde(flatten)]
    content: &'a serde_json::Value,
}

/// Only JSON has such lines.
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.event)
    }
}

impl Screen {
    fn new(format: Format) -> Self {
        Self { format, terminal: std::io::stdout().is_terminal(), begun: Vec::new(), last: None }
    }

    fn event(&self, stream: bool, event: &str, content: &serde_json::Value) -> Result<(), Failure> {
        match (stream, self.format) {
            (true, Format::Json) => output::item(Format::Json, &Line { event, content }),
            (_, Format::Text) | (false, _) => Ok(()),
        }
    }

    fn bytes(&self, stream: bool, event: &str, data: &[u8]) -> Result<(), Failure> {
        let (data, data_b64) = input::shown(data);
        let content = match data {
            Some(data) => json!({ "data": data }),
            None => json!({ "data_b64": data_b64 }),
        };
        self.event(stream, event, &content)
    }

    fn part(&mut self, stream: bool, part: &[u8]) -> Result<(), Failure> {
        if !stream || self.format == Format::Json {
            return self.bytes(stream, "part", part);
        }
        self.last = part.last().copied().or(self.last);
        if !self.terminal {
            return output::raw(part);
        }
        self.begun.extend_from_slice(part);
        let whole = match std::str::from_utf8(&self.begun) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let text = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun = rest;
        output::raw(humane::printable(&text).as_bytes())
    }

    /// A last line without an end gets one.
    fn end(&mut self, stream: bool) -> Result<(), Failure> {
        let open = self.last.is_some_and(|last| last != b'\n');
        if stream && self.format == Format::Text && open { output::raw(b"\n") } else { Ok(()) }
    }
}
