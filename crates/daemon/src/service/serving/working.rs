//! Requests of others: taken, worked at and answered by this node's programs.

use std::time::Duration;

use bytes::Bytes;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{
    Content, DEFAULT_MAX_FRAME, Delivery, Extension, Interim, InterimKind, MessageId, Outcome, Tag,
};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::outbox::{Body, Kind};
use pilot_wire::serving::{Answer, Held, Letter, PART_MAX, Reply, Taken, Why, decode};
use tokio::time::{Instant, sleep_until};

use super::asking::end_of_wait;
use super::book::{Kept, is_final};
use super::desk::{Grant, Inquiry, Refused};
use super::mail::{self, Arrival};
use super::{Serving, answer_id, inquiry, unix_ms};
use crate::service::Caller;
use crate::service::policy::Forbidden;

/// Longest answer: what fits into one frame with its tag.
const ANSWER_MAX: u64 = (DEFAULT_MAX_FRAME - 4096) as u64;

/// A message that is on disk is on the desk after this long, unless it is not open.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

impl Serving {
    /// From now on this program's end is noticed.
    fn attend(&self, caller: &Caller) {
        if !self.lock().desk.register(caller.id) {
            return;
        }
        let (this, caller) = (self.clone(), caller.clone());
        tokio::spawn(async move {
            caller.gone().await;
            let actions = this.lock().desk.gone(caller.id);
            this.perform(actions);
        });
    }

    pub(super) async fn take(
        &self,
        caller: &Caller,
        from: Option<NodeId>,
        all: bool,
        timeout_ms: u64,
    ) -> Result<Reply, Failure> {
        let deadline = end_of_wait(timeout_ms);
        self.attend(caller);
        self.ready().await;
        let mut changed = self.shared.changed.subscribe();
        let turns = self.lock().desk.turns(caller.id);
        loop {
            changed.mark_unchanged();
            let granted = {
                let mut state = self.lock();
                // Whoever is gone now is removed from the table later, and whoever is not, when it goes.
                if caller.is_gone() {
                    return Err(Failure::new(Code::Closed, "the program is gone"));
                }
                if state.desk.turns(caller.id) != turns {
                    return Ok(Reply::TimedOut);
                }
                state.desk.take(caller.id, from, all, Instant::now(), unix_ms())
            };
            if let Some(grant) = granted {
                let inquiry = &grant.inquiry;
                if let Err(forbidden) = self.shared.policy.may_answer(inquiry.from.node, inquiry.hops) {
                    self.hold_back(caller, &grant.inquiry.inbox, &forbidden);
                    continue;
                }
                match self.work(grant).await? {
                    Some(taken) => return Ok(Reply::Taken(Box::new(taken))),
                    None => continue,
                }
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep_until(deadline) => return Ok(Reply::TimedOut),
                () = caller.gone() => {}
            }
        }
    }

    /// The owner's rules let no program answer this, or not yet.
    fn hold_back(&self, caller: &Caller, id: &str, forbidden: &Forbidden) {
        if let Some(wait) = forbidden.retry_after() {
            let actions = self.lock().desk.hold_back(caller.id, id, Instant::now() + wait);
            return self.perform(actions);
        }
        let refused = self.lock().desk.refuse(caller.id, id);
        if let Some(inquiry) = refused.filter(|inquiry| !inquiry.plain) {
            let hops = inquiry.hops.saturating_add(1);
            let body = Bytes::from(forbidden.to_string());
            let answer = Kept { outcome: Outcome::Declined, kind: Kind::Text, body, hops };
            let this = self.clone();
            tokio::spawn(async move { this.settle(inquiry, answer).await });
        }
    }

    /// None when the message was removed meanwhile.
    async fn work(&self, grant: Grant) -> Result<Option<Taken>, Failure> {
        let Grant { inquiry, run } = grant;
        let Some(letter) = mail::read(&self.shared.store, Some(inquiry.inbox.clone())).await? else {
            self.lock().desk.vanished(&inquiry.inbox);
            return Ok(None);
        };
        let left = inquiry.deadline.saturating_duration_since(Instant::now());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(Taken { letter, run, left_ms, parts: inquiry.parts, hops: inquiry.hops }))
    }

    pub(super) async fn resume(&self, caller: &Caller, held: Vec<Held>) -> Result<Reply, Failure> {
        self.attend(caller);
        self.ready().await;
        let mut state = self.lock();
        if caller.is_gone() {
            return Err(Failure::new(Code::Closed, "the program is gone"));
        }
        Ok(Reply::Resumed { lost: state.desk.resume(caller.id, held, Instant::now()) })
    }

    pub(super) async fn interim(
        &self,
        caller: &Caller,
        id: String,
        kind: InterimKind,
        data: &str,
    ) -> Result<Reply, Failure> {
        let data = decode(data).map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?;
        if data.len() > PART_MAX {
            let message = format!("a piece of {} bytes is over the limit of {PART_MAX}", data.len());
            return Err(Failure::new(Code::InvalidArgument, message));
        }
        let held = self.lock().desk.interim(caller.id, &id);
        let (inquiry, run, number) = match held {
            Ok(held) => held,
            Err(Why::Lost) => {
                // Not of somebody who works at it, then: of a person, perhaps.
                let letter = mail::find(&self.shared.store, &id).await?;
                self.remark(&letter).await?
            }
            Err(why) => return Err(withdrawn(why)),
        };
        if let Some(reply_to) = inquiry.message.filter(|_| inquiry.parts) {
            let interim = Some(Interim { number, kind, run });
            let pilot = Some(Box::new(Extension { interim, ..Extension::default() }));
            let tag = Some(Tag { message_id: None, reply_to: Some(reply_to), pilot });
            let delivery = Delivery { tag, sent_at_ns: None, content: Content::Binary(data.into()) };
            self.shared.outbox.send_live(inquiry.from, delivery).await;
        }
        Ok(Reply::Done {})
    }

    /// A person says something about a message that waits for an answer. It is on disk, and its sender told, a moment before
    /// it is on the desk.
    async fn remark(&self, letter: &Letter) -> Result<(Inquiry, u64, u32), Failure> {
        let inquiry = inquiry(Arrival::read(letter.id.clone(), &mail::message(letter).await?));
        let name = inquiry.message.map(|id| (inquiry.from.node, id));
        let is_open = !inquiry.plain && name.is_some_and(|name| !self.lock().book.is_answered(&name));
        let deadline = Instant::now() + if is_open { ON_ITS_WAY } else { Duration::ZERO };
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let remark = self.lock().desk.remark(&letter.id, unix_ms());
            match remark {
                Ok(remark) => return Ok(remark),
                Err(Refused::Busy) => return Err(worked_at(&letter.id)),
                Err(Refused::Withdrawn(Why::Lost)) if Instant::now() < deadline => {}
                Err(Refused::Withdrawn(_)) => return Err(not_open(&letter.id)),
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep_until(deadline) => {}
            }
        }
    }

    pub(super) async fn answer(&self, caller: &Caller, answer: Answer) -> Result<Reply, Failure> {
        let Answer { id, held, outcome, kind, body, hops } = answer;
        if kind == Kind::File {
            return Err(Failure::new(Code::InvalidArgument, "an answer cannot be a file"));
        }
        let body = read_body(body).await?;
        self.ready().await;
        let by = held.then_some(caller.id);
        let inquiry = match by {
            Some(by) => {
                let begun = self.lock().desk.answering(Some(by), &id);
                match begun {
                    Ok(inquiry) => inquiry,
                    Err(Refused::Busy) => return Err(worked_at(&id)),
                    Err(Refused::Withdrawn(Why::Lost)) => return self.answered_before(&id).await,
                    Err(Refused::Withdrawn(why)) => return Err(withdrawn(why)),
                }
            }
            None => self.inquiry_of(&id).await?,
        };
        let hops = hops.unwrap_or_else(|| inquiry.hops.saturating_add(1));
        let kept = Kept { outcome, kind, body, hops };
        let (inbox, to, reply_to) = (inquiry.inbox.clone(), inquiry.from, inquiry.message.clone());
        // The program may go away meanwhile; the answer is given all the same.
        let this = self.clone();
        let given = tokio::spawn(async move { this.give(by, inquiry, kept).await }).await;
        let message_id =
            given.map_err(|error| Failure::new(Code::Internal, format!("the answer failed: {error}")))??;
        Ok(Reply::Answered { message_id, to, reply_to, id: inbox })
    }

    /// A daemon that was killed after it gave an answer, and before it said so, is asked again: the answer stands.
    async fn answered_before(&self, id: &str) -> Result<Reply, Failure> {
        let Some(letter) = mail::read(&self.shared.store, Some(id.to_owned())).await? else {
            return Err(withdrawn(Why::Lost));
        };
        let message = mail::message(&letter).await?;
        let (to, reply_to) = (message.from, message.message_id);
        let is_answered = |id: &MessageId| self.lock().book.is_answered(&(to.node, id.clone()));
        match reply_to.clone().filter(is_answered) {
            Some(request) => {
                let message_id = answer_id(to.node, &request);
                Ok(Reply::Answered { message_id, to, reply_to, id: letter.id })
            }
            None => Err(withdrawn(Why::Lost)),
        }
    }

    async fn give(
        &self,
        by: Option<crate::driver::ClientId>,
        inquiry: Inquiry,
        answer: Kept,
    ) -> Result<MessageId, Failure> {
        let sent = match self.send(&inquiry, answer.clone()).await {
            Ok(sent) => sent,
            Err(failure) => {
                let actions = self.lock().desk.unanswered(&inquiry.inbox);
                self.perform(actions);
                return Err(failure);
            }
        };
        let again = is_final(answer.outcome);
        let remembered = self.remember(&inquiry, again.then(|| answer.clone())).await;
        let (same, actions) = self.lock().desk.finish(by, &inquiry.inbox, again);
        self.perform(actions);
        for other in same {
            self.settle(other, answer.clone()).await;
        }
        remembered.map(|()| sent)
    }

    /// The message that a person means, to be answered by nobody else meanwhile.
    async fn inquiry_of(&self, text: &str) -> Result<Inquiry, Failure> {
        let letter = mail::find(&self.shared.store, text).await?;
        let message = mail::message(&letter).await?;
        let mut state = self.lock();
        match state.desk.answering(None, &letter.id) {
            Ok(inquiry) => Ok(inquiry),
            Err(Refused::Busy) => Err(worked_at(&letter.id)),
            // A plain message, or a request whose time is over: it can be answered all the same.
            Err(Refused::Withdrawn(_)) => {
                let inquiry = inquiry(Arrival::read(letter.id.clone(), &message));
                let name = inquiry.message.clone().map(|id| (inquiry.from.node, id));
                if !inquiry.plain && name.is_some_and(|name| state.book.is_answered(&name)) {
                    return Err(not_open(&letter.id));
                }
                Ok(inquiry)
            }
        }
    }

    pub(super) async fn watch(&self, caller: &Caller, id: &str, timeout_ms: u64) -> Result<Reply, Failure> {
        let deadline = end_of_wait(timeout_ms);
        self.ready().await;
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Err(why) = self.lock().desk.holds(caller.id, id) {
                return Ok(Reply::Withdrawn { why });
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = sleep_until(deadline) => return Ok(Reply::TimedOut),
                () = caller.gone() => return Err(Failure::new(Code::Closed, "the program is gone")),
            }
        }
    }
}

async fn read_body(body: Body) -> Result<Bytes, Failure> {
    let too_long = |length: u64| {
        Failure::new(
            Code::InvalidArgument,
            format!("an answer of {length} bytes is over the limit of {ANSWER_MAX}"),
        )
        .with_hint("send it as a file: `pilotctl send-file`")
    };
    let body = match body {
        Body::Inline(text) => {
            decode(&text).map_err(|error| Failure::new(Code::InvalidArgument, error.to_string()))?
        }
        Body::Path(path) => {
            let unreadable = |error: std::io::Error| {
                Failure::new(Code::InvalidArgument, format!("`{path}` cannot be read: {error}"))
            };
            let length = tokio::fs::metadata(&path).await.map_err(unreadable)?.len();
            if length > ANSWER_MAX {
                return Err(too_long(length));
            }
            tokio::fs::read(&path).await.map_err(unreadable)?
        }
    };
    match body.len() as u64 {
        length if length > ANSWER_MAX => Err(too_long(length)),
        _ => Ok(body.into()),
    }
}

fn withdrawn(why: Why) -> Failure {
    let code = match why {
        Why::Cancelled | Why::Deadline => Code::Cancelled,
        Why::Answered => Code::AlreadyExists,
        Why::Lost => Code::NotFound,
    };
    Failure::new(code, format!("the request is not to be worked at: {}", why.text()))
}

fn worked_at(id: &str) -> Failure {
    Failure::new(Code::Busy, format!("a program works at `{id}`, or answers it this moment"))
}

fn not_open(id: &str) -> Failure {
    Failure::new(Code::AlreadyExists, format!("`{id}` was answered already, or waits for no answer"))
        .with_hint("`pilotctl send-message NODE TEXT --reply-to ID` sends something more about it")
}
