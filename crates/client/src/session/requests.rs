//! Requests that wait for their answer.
//!
//! In the extended dialect each has a number and all are under way at once. In the reference dialect there are
//! no numbers, so one is under way and the others queue behind it.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use pilot_wire::StreamId;
use pilot_wire::ipc::{Command, MAX_FRAME, Reply, Request};

use super::{Dialect, Outbox, remember, wake};
use crate::{Error, reference};

/// What a request was answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The stream is open.
    Stream(StreamId),
    /// A text in JSON.
    Json(Bytes),
    /// What a capture has seen.
    Packets(Bytes),
}

pub(super) struct Requests {
    dialect: Dialect,
    next: u32,
    pending: BTreeMap<u32, Pending>,
    /// Reference dialect: the request under way, and those behind it.
    current: Option<u32>,
    queue: VecDeque<(u32, Vec<u8>)>,
}

struct Pending {
    expects: Command,
    state: State,
}

enum State {
    Waiting(Option<Waker>),
    Answered(Result<Answer, Error>),
    /// Nobody wants the answer. Its place is kept, so that it is not taken for another's.
    Forgotten,
}

impl Requests {
    pub(super) const fn new(dialect: Dialect) -> Self {
        Self { dialect, next: 1, pending: BTreeMap::new(), current: None, queue: VecDeque::new() }
    }

    /// Sends the request, or queues it; gives its number.
    pub(super) fn start(&mut self, request: &Request<'_>, outbox: &mut Outbox) -> Result<u32, Error> {
        let Some(expects) = request.answered_by() else {
            return Err(Error::Invalid("a request without an answer cannot be waited for".into()));
        };
        let tag = self.free_tag();
        let mut frame = Vec::new();
        match self.dialect {
            Dialect::Reference => request.emit(&mut frame),
            Dialect::Extended { .. } => request.emit_tagged(tag, &mut frame),
        }
        if frame.len() > 4 + MAX_FRAME {
            return Err(Error::Invalid(format!(
                "a request is at most {MAX_FRAME} bytes, this has {}",
                frame.len()
            )));
        }
        self.pending.insert(tag, Pending { expects, state: State::Waiting(None) });
        match self.dialect {
            Dialect::Extended { .. } => outbox.frame().append(&mut frame),
            Dialect::Reference => {
                self.queue.push_back((tag, frame));
                self.advance(outbox);
            }
        }
        Ok(tag)
    }

    /// Takes a reply; gives back a stream that was opened for nobody.
    pub(super) fn on_reply(
        &mut self,
        tag: Option<u32>,
        frame: &Bytes,
        reply: Reply<'_>,
        outbox: &mut Outbox,
    ) -> Option<StreamId> {
        // Without a number it answers the one request under way, if it can: 1.18 may answer late.
        let tag = tag.or(self.current)?;
        let pending = self.pending.get_mut(&tag)?;
        let command = reply.command();
        let expected = [pending.expects, Command::Error, Command::Failure].contains(&command);
        if self.dialect == Dialect::Reference && !expected {
            return None;
        }
        let answer = if expected { answer(frame, reply) } else { Err(unexpected(pending.expects, command)) };
        let mut orphan = None;
        match &mut pending.state {
            State::Waiting(waker) => {
                wake(waker);
                pending.state = State::Answered(answer);
            }
            State::Forgotten | State::Answered(_) => {
                self.pending.remove(&tag);
                if let Ok(Answer::Stream(stream)) = answer {
                    orphan = Some(stream);
                }
            }
        }
        if self.current == Some(tag) {
            self.current = None;
            self.advance(outbox);
        }
        orphan
    }

    pub(super) fn poll(&mut self, tag: u32, cx: &Context<'_>) -> Poll<Result<Answer, Error>> {
        match self.pending.remove(&tag) {
            Some(Pending { state: State::Answered(answer), .. }) => Poll::Ready(answer),
            Some(Pending { expects, state: State::Waiting(mut waker) }) => {
                remember(&mut waker, cx);
                self.pending.insert(tag, Pending { expects, state: State::Waiting(waker) });
                Poll::Pending
            }
            Some(Pending { state: State::Forgotten, .. }) | None => Poll::Ready(Err(Error::Disconnected)),
        }
    }

    /// Nobody waits any more; gives back a stream that was opened meanwhile.
    pub(super) fn forget(&mut self, tag: u32) -> Option<StreamId> {
        let pending = self.pending.get_mut(&tag)?;
        if let State::Answered(answer) = &pending.state {
            let stream = if let Ok(Answer::Stream(stream)) = answer { Some(*stream) } else { None };
            self.pending.remove(&tag);
            return stream;
        }
        if let Some(place) = self.queue.iter().position(|(queued, _)| *queued == tag) {
            self.queue.remove(place);
            self.pending.remove(&tag);
            return None;
        }
        pending.state = State::Forgotten;
        None
    }

    pub(super) fn fail_all(&mut self, why: &Error) {
        for pending in self.pending.values_mut() {
            if let State::Waiting(waker) = &mut pending.state {
                wake(waker);
                pending.state = State::Answered(Err(why.clone()));
            }
        }
    }

    /// Reference dialect: sends the next request when none is under way.
    fn advance(&mut self, outbox: &mut Outbox) {
        if self.current.is_none()
            && let Some((tag, mut frame)) = self.queue.pop_front()
        {
            self.current = Some(tag);
            outbox.frame().append(&mut frame);
        }
    }

    fn free_tag(&mut self) -> u32 {
        loop {
            let tag = self.next;
            self.next = self.next.wrapping_add(1);
            if !self.pending.contains_key(&tag) {
                return tag;
            }
        }
    }
}

fn answer(frame: &Bytes, reply: Reply<'_>) -> Result<Answer, Error> {
    match reply {
        Reply::Dialed { stream } => Ok(Answer::Stream(stream)),
        Reply::Json { body, .. } => Ok(Answer::Json(shared(frame, body))),
        Reply::Packets { body } => Ok(Answer::Packets(shared(frame, body))),
        Reply::Error { text, .. } => Err(reference::failure(&text).into()),
        Reply::Failure(failure) => Err(failure.into()),
        Reply::Bound { .. }
        | Reply::Closed { .. }
        | Reply::Broadcast
        | Reply::Unbound { .. }
        | Reply::Sent
        | Reply::Drained { .. } => Ok(Answer::Done),
    }
}

fn shared(frame: &Bytes, body: Cow<'_, [u8]>) -> Bytes {
    match body {
        Cow::Borrowed(body) => frame.slice_ref(body),
        Cow::Owned(body) => body.into(),
    }
}

fn unexpected(expected: Command, got: Command) -> Error {
    Error::Protocol(format!("{got:?} came where {expected:?} was expected"))
}
