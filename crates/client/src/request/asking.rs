//! The side that asks.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer that does not belong to the question is an error, whichever it is"
)]

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use pilot_wire::Addr;
use pilot_wire::dataexchange::{Extension, InterimKind, MessageId, Outcome, RequestTag};
use pilot_wire::ipc::{Call, Code, Failure};
use pilot_wire::outbox::{Item, Send, State};
use pilot_wire::serving::{InterimNews, Next, Reply, Request, decode};
use tokio::time::{Instant, sleep};

use super::parts::{Parts, Piece};
use super::{hops, is_restarting, unexpected, wire_kind};
use crate::message::{self, RECONNECT_PAUSE, new_message_id, unix_ns};
use crate::outbox::body_of;
use crate::{Client, Error, Mail, MessageKind};

/// How long an answer is waited for when nothing else is said.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a request is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestOptions {
    /// What its bytes are.
    pub kind: MessageKind,
    /// How long the answer is waited for here, and how long it is worked at there. At most a day.
    pub deadline: Duration,
    /// Requests under one key are carried out once: a second one gets the answer of the first, for a day.
    pub key: Option<MessageId>,
    /// Whether pieces of the answer and word of progress are wanted before it.
    pub parts: bool,
    /// For how long the request is delivered; for as long as the answer is waited for, when absent.
    pub ttl: Option<Duration>,
    /// Its id; chosen at random when absent. The same id again is the same request.
    pub message_id: Option<MessageId>,
    /// The message that it answers itself.
    pub reply_to: Option<MessageId>,
    /// Whether a message of that node that names nothing may be the answer, as programs of release 1.18.0 send them.
    pub loose: bool,
    /// How many programs in a row have answered by themselves to bring it about; see [`hops`].
    pub hops: u8,
    /// Whether the request is taken back when the [`PendingRequest`] is dropped before its end.
    pub cancel_on_drop: bool,
}

impl Default for RequestOptions {
    fn default() -> Self {
        Self {
            kind: MessageKind::Text,
            deadline: DEADLINE,
            key: None,
            parts: false,
            ttl: None,
            message_id: None,
            reply_to: None,
            loose: false,
            hops: hops(),
            cancel_on_drop: false,
        }
    }
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It has come further on its way.
    State(State),
    /// How far the work is, in the worker's words.
    Progress(Bytes),
    /// The next bytes of the answer.
    Part(Bytes),
    /// The work was begun anew: the parts so far are not of the answer.
    Restarted,
    /// The end. With parts, those since the last restart are the answer's bytes.
    Done(Box<Response>),
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How the request ended. A message of a node that says nothing of that counts as done.
    pub outcome: Outcome,
    /// The message, which is in the inbox.
    pub mail: Mail,
    /// Its bytes.
    pub body: Bytes,
}

impl Response {
    /// The answer, if the work was done; otherwise the worker's reason.
    ///
    /// # Errors
    /// With the class `failed`, `refused` when the worker declined, or `cancelled`.
    pub fn into_result(self) -> Result<Self, Error> {
        let code = match self.outcome {
            Outcome::Done => return Ok(self),
            Outcome::Failed => Code::Failed,
            Outcome::Declined => Code::Refused,
            Outcome::Cancelled => Code::Cancelled,
        };
        let said = String::from_utf8_lossy(&self.body);
        let message = match (said.trim(), self.outcome) {
            ("", Outcome::Declined) => "the request was declined".to_owned(),
            ("", _) => format!("the request has {}", code.as_str()),
            (said, _) => said.to_owned(),
        };
        Err(Failure::new(code, message).into())
    }
}

/// A request under way.
pub struct PendingRequest {
    client: Client,
    id: MessageId,
    to: Addr,
    options: RequestOptions,
    sent_ns: u64,
    deadline: Instant,
    parts: Parts,
    item: Option<Item>,
    events: VecDeque<Event>,
    over: bool,
}

impl std::fmt::Debug for PendingRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingRequest").field("id", &self.id).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Client {
    /// Sends a request. It is on the disk of this node when this returns; a node that is not there gets it when it is
    /// back, if the deadline has not passed.
    ///
    /// # Errors
    /// When the daemon does not take it.
    pub async fn request(
        &self,
        to: Addr,
        data: impl Into<Bytes>,
        options: RequestOptions,
    ) -> Result<PendingRequest, Error> {
        let data = data.into();
        let id = match &options.message_id {
            Some(id) => id.clone(),
            None => new_message_id()?,
        };
        let (body, _carried) = body_of(data).await?;
        let tag = RequestTag {
            deadline_ms: millis(options.deadline),
            key: options.key.clone(),
            parts: options.parts,
        };
        let send = Send {
            to,
            kind: wire_kind(options.kind),
            body,
            name: None,
            message_id: Some(id.clone()),
            reply_to: options.reply_to.clone(),
            extension: Extension { request: Some(tag), hops: options.hops, ..Extension::default() },
            ttl_ms: Some(millis(options.ttl.unwrap_or(options.deadline))),
            until: None,
            wait_ms: 0,
        };
        let sent_ns = unix_ns(SystemTime::now());
        let deadline = Instant::now() + options.deadline;
        let mut client = self.clone();
        let ask = Call::Serving(Request::Ask(Box::new(send)));
        let reply = loop {
            match client.call(ask.clone()).await {
                // The id makes it the same request.
                Err(error @ (Error::Disconnected | Error::Connect(_))) if Instant::now() < deadline => {
                    sleep(RECONNECT_PAUSE).await;
                    client = client.mended(&error).await;
                }
                other => break other?,
            }
        };
        let item = match reply {
            Reply::Asked { item, .. } => item.map(|item| *item),
            other => return Err(unexpected(&other)),
        };
        let mut pending = PendingRequest {
            client,
            id,
            to,
            options,
            sent_ns,
            deadline,
            parts: Parts::default(),
            item: None,
            events: VecDeque::new(),
            over: false,
        };
        if let Some(item) = item {
            pending.on_item(item)?;
        }
        Ok(pending)
    }
}

impl PendingRequest {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &MessageId {
        &self.id
    }

    /// Who was asked.
    #[must_use]
    pub const fn to(&self) -> Addr {
        self.to
    }

    /// What the outbox knows of it.
    #[must_use]
    pub const fn item(&self) -> Option<&Item> {
        self.item.as_ref()
    }

    /// The next thing that happens; none after the end. Nothing is polled, and it may be dropped and called again.
    ///
    /// # Errors
    /// [`Code::Timeout`] when the deadline is over; [`Self::item`] tells how far the request came. Otherwise when the
    /// request cannot be delivered, was taken back before it was, or the daemon cannot be asked.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.over {
                return Ok(None);
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.over = true;
                return Err(self.timed_out());
            }
            let (run, number) = self.parts.seen();
            let next = Next {
                id: self.id.clone(),
                to: self.to.node,
                since_ns: self.sent_ns,
                loose: self.options.loose,
                run,
                number,
                state: self.item.as_ref().map(|item| item.state),
                timeout_ms: millis(left).max(1),
            };
            match self.client.call(Call::Serving(Request::Next(next))).await {
                Ok(Reply::News { interim, item, answer }) => {
                    self.on_interim(interim);
                    if let Some(item) = item {
                        self.on_item(*item)?;
                    }
                    if let Some(letter) = answer {
                        self.on_answer(message::mail(letter.into_reply()).await?)?;
                    }
                }
                Ok(other) => return Err(unexpected(&other)),
                Err(error) if is_restarting(&error) => {
                    sleep(RECONNECT_PAUSE.min(left)).await;
                    self.client = self.client.mended(&error).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn on_interim(&mut self, interim: Vec<InterimNews>) {
        for InterimNews { run, number, kind, data } in interim {
            // What is no base64 counts as lost.
            let (kind, data) = match decode(&data) {
                Ok(data) => (kind, data.into()),
                Err(_) => (InterimKind::Progress, Bytes::new()),
            };
            let pieces = self.parts.on_piece(run, number, kind, data);
            self.hand_out(pieces);
        }
    }

    fn hand_out(&mut self, pieces: Vec<Piece>) {
        self.events.extend(pieces.into_iter().map(|piece| match piece {
            Piece::Part(data) => Event::Part(data),
            Piece::Progress(data) => Event::Progress(data),
            Piece::Restarted => Event::Restarted,
        }));
    }

    fn on_item(&mut self, item: Item) -> Result<(), Error> {
        if self.item.as_ref().is_some_and(|known| known.state >= item.state) {
            return Ok(());
        }
        let (state, reason) = (item.state, item.reason.clone());
        self.item = Some(item);
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        let (code, message) = match state {
            State::Queued | State::Sent | State::Stored | State::Read | State::Answered => {
                self.events.push_back(Event::State(state));
                return Ok(());
            }
            State::Expired => (Code::Timeout, format!("the request could not be delivered in time{reason}")),
            State::Refused => (Code::Refused, format!("{} does not take the request{reason}", self.to)),
            State::Cancelled => {
                (Code::Cancelled, "the request was taken back before it was delivered".to_owned())
            }
        };
        self.over = true;
        Err(Failure::new(code, message).into())
    }

    fn on_answer(&mut self, mail: Mail) -> Result<(), Error> {
        let body: Bytes = mail.message.body().map_err(|error| Error::Protocol(error.to_string()))?.into();
        let said = mail.message.pilot.as_ref().and_then(|pilot| pilot.outcome);
        let outcome = said.unwrap_or(Outcome::Done);
        if self.options.parts && outcome == Outcome::Done {
            let pieces = self.parts.on_answer(&body);
            self.hand_out(pieces);
        }
        self.events.push_back(Event::Done(Box::new(Response { outcome, mail, body })));
        self.over = true;
        Ok(())
    }

    fn timed_out(&self) -> Error {
        let known = match self.item.as_ref().map(|item| item.state) {
            None => "nothing is known of the request",
            Some(State::Queued) => "the request waits here to be delivered",
            Some(State::Sent) => "the request is on its way",
            Some(State::Stored) => "the request is in its inbox, and nobody has taken it",
            Some(_) => "a program there has taken the request",
        };
        let waited = self.options.deadline.as_millis();
        let message = format!("no answer from {} within {waited} ms; {known}", self.to);
        Failure::new(Code::Timeout, message).into()
    }

    /// Waits for the answer; pieces and progress are passed over.
    ///
    /// # Errors
    /// As [`Self::next`] and [`Response::into_result`].
    pub async fn answer(&mut self) -> Result<Response, Error> {
        loop {
            match self.next().await? {
                Some(Event::Done(response)) => return response.into_result(),
                Some(Event::State(_) | Event::Progress(_) | Event::Part(_) | Event::Restarted) => {}
                None => return Err(Error::Invalid("the answer was handed out already".to_owned())),
            }
        }
    }

    /// Takes the request back. It ends with the outcome `cancelled`, or with an answer that was faster: wait for it with
    /// [`Self::next`].
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn cancel(&mut self) -> Result<(), Error> {
        cancel(&self.client, self.id.clone(), self.to).await
    }
}

async fn cancel(client: &Client, id: MessageId, to: Addr) -> Result<(), Error> {
    match client.call(Call::Serving(Request::Cancel { id, to: to.node })).await? {
        Reply::Done {} => Ok(()),
        other => Err(unexpected(&other)),
    }
}

impl Drop for PendingRequest {
    fn drop(&mut self) {
        if !self.options.cancel_on_drop || self.over {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, id, to) = (self.client.clone(), self.id.clone(), self.to);
            runtime.spawn(async move { cancel(&client, id, to).await });
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
