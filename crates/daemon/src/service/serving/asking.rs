//! Requests of this node's programs.

use std::time::Duration;

use pilot_wire::NodeId;
use pilot_wire::dataexchange::{Control, MessageId};
use pilot_wire::ipc::{Code, Failure};
use pilot_wire::outbox::{self, State};
use pilot_wire::serving::{InterimNews, Next, Reply, encode};
use tokio::time::{Instant, sleep_until};

use super::{Serving, mail};
use crate::service::Caller;

/// Longest wait of one call. Whoever wants more asks again.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

/// When a wait ends that begins now.
pub(super) fn end_of_wait(timeout_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(timeout_ms).min(WAIT_MAX)
}

impl Serving {
    /// Listens before it sends: the first pieces may come at once.
    pub(super) async fn ask(&self, send: outbox::Send) -> Result<Reply, Failure> {
        let (Some(id), Some(_)) = (send.message_id.clone(), &send.extension.request) else {
            return Err(Failure::new(Code::InvalidArgument, "a request needs an id and a request tag"));
        };
        self.lock().asked.watch(&id, send.to.node);
        match self.shared.outbox.call(outbox::Request::Send(Box::new(send))).await {
            Ok(outbox::Reply::Item(item)) => Ok(Reply::Asked { id, item: Some(item) }),
            Ok(outbox::Reply::Items { .. }) => Ok(Reply::Asked { id, item: None }),
            Err(failure) => {
                self.lock().asked.forget(&id);
                Err(failure)
            }
        }
    }

    pub(super) async fn next(&self, caller: &Caller, next: Next) -> Result<Reply, Failure> {
        let Next { id, to, since_ns, loose, run, number, state, timeout_ms } = next;
        let deadline = end_of_wait(timeout_ms);
        let news = self.lock().asked.watch(&id, to);
        let answer = mail::answer(&self.shared.store, to, id.clone(), since_ns, loose, deadline);
        let further = self.further(&id, state, deadline);
        tokio::pin!(answer, further);
        loop {
            let changed = news.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let interim = self.interim_after(&id, run, number);
            if !interim.is_empty() {
                return Ok(Reply::News { interim, item: None, answer: None });
            }
            tokio::select! {
                biased;
                () = changed => {}
                letter = &mut answer => {
                    let interim = self.interim_after(&id, run, number);
                    self.lock().asked.forget(&id);
                    return Ok(Reply::News { interim, item: None, answer: Some(Box::new(letter?)) });
                }
                item = &mut further => {
                    return Ok(Reply::News { interim: Vec::new(), item: Some(item), answer: None });
                }
                () = sleep_until(deadline) => {
                    return Ok(Reply::News { interim: Vec::new(), item: None, answer: None });
                }
                () = caller.gone() => return Err(Failure::new(Code::Closed, "the program is gone")),
            }
        }
    }

    fn interim_after(&self, id: &MessageId, run: u64, number: u32) -> Vec<InterimNews> {
        let news = self.lock().asked.after(id, run, number);
        let encoded = news.into_iter().map(|news| InterimNews {
            run: news.run,
            number: news.number,
            kind: news.kind,
            data: encode(&news.data),
        });
        encoded.collect()
    }

    /// The outbox's word when a message has come further; for ever when it does not.
    async fn further(&self, id: &MessageId, known: Option<State>, deadline: Instant) -> Box<outbox::Item> {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let wait = |until| Some(outbox::Request::Wait { id: id.clone(), until, timeout_ms });
        let request = match known {
            None => Some(outbox::Request::Show { id: id.clone() }),
            Some(State::Queued | State::Sent) => wait(State::Stored),
            Some(State::Stored) => wait(State::Read),
            Some(State::Read | State::Answered | State::Expired | State::Refused | State::Cancelled) => None,
        };
        if let Some(request) = request
            && let Ok(outbox::Reply::Item(item)) = self.shared.outbox.call(request).await
            && known.is_none_or(|known| item.state > known)
        {
            return item;
        }
        std::future::pending().await
    }

    /// Takes a request back, wherever it is.
    pub(super) async fn cancel(&self, id: MessageId, to: NodeId) -> Result<Reply, Failure> {
        let taken_back = self.shared.outbox.call(outbox::Request::Cancel { id: id.clone() }).await;
        let never_left = matches!(
            &taken_back,
            Ok(outbox::Reply::Item(item)) if item.state == State::Cancelled && item.attempts == 0
        );
        if !never_left {
            self.shared.outbox.tell(to, Control::Cancel { id }, bytes::Bytes::new()).await;
        }
        Ok(Reply::Done {})
    }
}
