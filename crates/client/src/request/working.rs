//! The side that answers.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "an answer that does not belong to the question is an error, whichever it is"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use pilot_wire::dataexchange::{InterimKind, MessageId, Outcome};
use pilot_wire::ipc::Call;
use pilot_wire::mailbox::StoredMessage;
use pilot_wire::serving::{Answer, Held, PART_MAX, Reply, Request, Taken, Why, encode};
use pilot_wire::{Addr, NodeId};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

use super::{is_restarting, unexpected, wire_kind};
use crate::message::{self, RECONNECT_PAUSE};
use crate::outbox::body_of;
use crate::{Client, ConnectError, Error, Mail, Outgoing};

/// How long one call waits before it is made again.
const TURN: Duration = Duration::from_secs(3600);

/// Which requests are answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServeOptions {
    /// Only those of this node.
    pub from: Option<NodeId>,
    /// Plain messages too, of those that arrive from now on: programs of release 1.18.0 ask with such ones.
    pub all: bool,
}

/// Hands out requests to be answered. Each is held until it is answered, or dropped, or this program ends: then another
/// program gets it.
#[derive(Debug)]
pub struct Server {
    link: Arc<Link>,
    options: ServeOptions,
    /// The call under way. It outlives a [`Server::next`] that was dropped, so that nothing it brings is lost.
    taking: Option<JoinHandle<Result<Reply, Error>>>,
}

/// A connection that is mended when the daemon was restarted; what is held is held again then.
#[derive(Debug)]
struct Link {
    current: tokio::sync::Mutex<(u64, Client)>,
    held: Mutex<BTreeMap<String, Work>>,
}

#[derive(Debug, Clone, Copy)]
struct Work {
    run: u64,
    sent: u32,
}

impl Client {
    /// Answers requests of other nodes.
    ///
    /// # Errors
    /// When the daemon cannot be reached.
    pub async fn serve(&self, options: ServeOptions) -> Result<Server, Error> {
        // A connection of its own, so that requests are given back when the server is dropped.
        let client = match self.reconnect().await {
            Ok(client) => client,
            Err(ConnectError::Strange { .. }) => self.clone(),
            Err(error) => return Err(error.into()),
        };
        if client.is_reference() {
            return Err(Error::Unsupported("serving"));
        }
        let link = Link { current: tokio::sync::Mutex::new((0, client)), held: Mutex::default() };
        Ok(Server { link: Arc::new(link), options, taking: None })
    }

    /// Answers a message of the inbox, whoever works at it: by its id there, its sender's id, the beginning of either, or
    /// `last`. `hops` as for requests.
    ///
    /// # Errors
    /// When there is no such message, or it is a request that was answered already.
    pub async fn reply(
        &self,
        id: &str,
        reaction: Reaction,
        answer: Outgoing,
        hops: u8,
    ) -> Result<Reply, Error> {
        let (body, _carried) = body_of(answer.data).await?;
        let request = Request::Answer(Answer {
            id: id.to_owned(),
            held: false,
            outcome: reaction.outcome(),
            kind: wire_kind(answer.kind),
            body,
            hops: Some(hops),
        });
        match self.call(Call::Serving(request)).await? {
            reply @ Reply::Answered { .. } => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends a piece of the answer to a request that nobody works at, or word of progress.
    ///
    /// # Errors
    /// When there is no such request, or it is worked at or answered.
    pub async fn remark(&self, id: &str, is_part: bool, data: &[u8]) -> Result<(), Error> {
        let kind = if is_part { InterimKind::Part } else { InterimKind::Progress };
        for piece in pieces(data) {
            let request = Request::Interim { id: id.to_owned(), kind, data: encode(piece) };
            match self.call(Call::Serving(request)).await? {
                Reply::Done {} => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }
}

/// What is said to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// This is the answer.
    Answer,
    /// It was tried, and it failed; the message says why.
    Fail,
    /// It is not tried; the message says why.
    Decline,
}

impl Reaction {
    const fn outcome(self) -> Outcome {
        match self {
            Self::Answer => Outcome::Done,
            Self::Fail => Outcome::Failed,
            Self::Decline => Outcome::Declined,
        }
    }
}

/// Never empty, so that an empty word of progress is one.
fn pieces(data: &[u8]) -> Vec<&[u8]> {
    match data {
        [] => vec![data],
        _ => data.chunks(PART_MAX).collect(),
    }
}

impl Link {
    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Work>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_held(&self) -> Vec<Held> {
        let held = self.held();
        let held = held.iter().map(|(id, work)| Held { id: id.clone(), run: work.run, sent: work.sent });
        held.collect()
    }

    async fn call(&self, request: Request) -> Result<Reply, Error> {
        loop {
            let (generation, client) = self.current.lock().await.clone();
            match client.call(Call::Serving(request.clone())).await {
                Err(error) if is_restarting(&error) => self.mend(generation).await?,
                other => return other,
            }
        }
    }

    /// Connects to the daemon that runs now, and holds again what was held; waits for one as long as it takes.
    async fn mend(&self, generation: u64) -> Result<(), Error> {
        let mut current = self.current.lock().await;
        if current.0 != generation {
            return Ok(());
        }
        loop {
            sleep(RECONNECT_PAUSE).await;
            let client = match current.1.reconnect().await {
                Ok(client) => client,
                Err(ConnectError::NotRunning { .. }) => continue,
                Err(ConnectError::Unusable { .. }) => continue,
                Err(
                    error
                    @ (ConnectError::Denied { .. } | ConnectError::Strange { .. } | ConnectError::Ended),
                ) => {
                    return Err(error.into());
                }
            };
            let resume = Request::Resume { held: self.all_held() };
            match client.call::<Reply>(Call::Serving(resume)).await {
                Ok(_) => {
                    *current = (generation + 1, client);
                    return Ok(());
                }
                Err(error) if is_restarting(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Server {
    /// The next request. Nothing is polled; a daemon that is restarted is waited for. It may be dropped and called again:
    /// nothing is lost by that.
    ///
    /// # Errors
    /// When the daemon cannot hand out requests.
    pub async fn next(&mut self) -> Result<Incoming, Error> {
        let timeout_ms = u64::try_from(TURN.as_millis()).unwrap_or(u64::MAX);
        let ServeOptions { from, all } = self.options;
        loop {
            let link = Arc::clone(&self.link);
            let take =
                move || tokio::spawn(async move { link.call(Request::Take { from, all, timeout_ms }).await });
            let taking = self.taking.get_or_insert_with(take);
            let taken = taking.await.map_err(|error| Error::Io(error.to_string()));
            self.taking = None;
            match taken?? {
                Reply::Taken(taken) => return Incoming::new(Arc::clone(&self.link), *taken).await,
                Reply::TimedOut => {}
                other => return Err(unexpected(&other)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let (Some(taking), Ok(runtime)) = (self.taking.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let link = Arc::clone(&self.link);
        runtime.spawn(async move {
            let (_, client) = link.current.lock().await.clone();
            if client.call::<Reply>(Call::Serving(Request::Leave)).await.is_err() {
                // With the connection ended everything that it held.
                return taking.abort();
            }
            if let Ok(Ok(Reply::Taken(taken))) = taking.await {
                let _ = link.call(Request::Release { id: taken.letter.id }).await;
            }
        });
    }
}

/// A request that this program holds. When it is dropped without an answer, it is given back.
#[derive(Debug)]
pub struct Incoming {
    link: Arc<Link>,
    mail: Mail,
    parts: bool,
    hops: u8,
    deadline: Instant,
    withdrawn: watch::Receiver<Option<Why>>,
    watching: AbortHandle,
    /// The parts that were sent.
    sent: BytesMut,
    answered: bool,
}

impl Incoming {
    async fn new(link: Arc<Link>, taken: Taken) -> Result<Self, Error> {
        let Taken { letter, run, left_ms, parts, hops } = taken;
        let deadline = Instant::now() + Duration::from_millis(left_ms);
        link.held().insert(letter.id.clone(), Work { run, sent: 0 });
        let (tell, withdrawn) = watch::channel(None);
        let (watched, id) = (Arc::clone(&link), letter.id.clone());
        let watching = tokio::spawn(async move {
            let timeout_ms = u64::try_from(TURN.as_millis()).unwrap_or(u64::MAX);
            loop {
                match watched.call(Request::Watch { id: id.clone(), timeout_ms }).await {
                    Ok(Reply::TimedOut) => {}
                    Ok(Reply::Withdrawn { why }) => break tell.send_replace(Some(why)),
                    Ok(_) | Err(_) => break tell.send_replace(Some(Why::Lost)),
                }
            }
        })
        .abort_handle();
        let id = letter.id.clone();
        match message::mail(letter.into_reply()).await {
            Ok(mail) => Ok(Self {
                link,
                mail,
                parts,
                hops,
                deadline,
                withdrawn,
                watching,
                sent: BytesMut::new(),
                answered: false,
            }),
            Err(error) => {
                watching.abort();
                link.held().remove(&id);
                let _ = link.call(Request::Release { id }).await;
                Err(error)
            }
        }
    }

    /// Its id in the inbox.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.mail.id
    }

    /// The message.
    #[must_use]
    pub const fn message(&self) -> &StoredMessage {
        &self.mail.message
    }

    /// Its bytes.
    ///
    /// # Errors
    /// When its file is damaged.
    pub fn body(&self) -> Result<Vec<u8>, Error> {
        self.mail.message.body().map_err(|error| Error::Protocol(error.to_string()))
    }

    /// Who asks: the address that the tunnel proved.
    #[must_use]
    pub const fn sender(&self) -> Addr {
        self.mail.message.from
    }

    /// Until when the answer is waited for.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether pieces and progress are wanted before the answer. If not, they cost nothing.
    #[must_use]
    pub const fn wants_parts(&self) -> bool {
        self.parts
    }

    /// How many programs in a row have answered by themselves to bring it about.
    #[must_use]
    pub const fn hops(&self) -> u8 {
        self.hops
    }

    /// Whether it is not to be worked at any more: taken back, over time, or answered by somebody else.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.withdrawn.borrow().is_some()
    }

    /// Waits until it is not to be worked at any more, and says why.
    pub async fn cancelled(&self) -> Why {
        self.withdrawal().await
    }

    /// The same, for as long as this value is needed elsewhere meanwhile.
    pub fn withdrawal(&self) -> impl Future<Output = Why> + Send + 'static {
        let mut withdrawn = self.withdrawn.clone();
        async move {
            match withdrawn.wait_for(Option::is_some).await {
                Ok(why) => why.unwrap_or(Why::Lost),
                Err(_) => Why::Lost,
            }
        }
    }

    /// Says how far the work is.
    ///
    /// # Errors
    /// With the class `cancelled` when it is not to be worked at any more.
    pub async fn progress(&mut self, word: impl AsRef<[u8]>) -> Result<(), Error> {
        let word = word.as_ref();
        self.interim(InterimKind::Progress, word.get(..PART_MAX).unwrap_or(word)).await
    }

    /// Sends the next bytes of the answer; [`Self::finish`] sends all of them as the answer. The requester gets each byte
    /// once, also if a part is lost.
    ///
    /// # Errors
    /// With the class `cancelled` when it is not to be worked at any more.
    pub async fn part(&mut self, data: impl AsRef<[u8]>) -> Result<(), Error> {
        for piece in data.as_ref().chunks(PART_MAX) {
            self.sent.extend_from_slice(piece);
            self.interim(InterimKind::Part, piece).await?;
        }
        Ok(())
    }

    async fn interim(&self, kind: InterimKind, data: &[u8]) -> Result<(), Error> {
        if !self.parts {
            return Ok(());
        }
        let id = self.mail.id.clone();
        let reply = self.link.call(Request::Interim { id: id.clone(), kind, data: encode(data) }).await?;
        if let Some(work) = self.link.held().get_mut(&id) {
            work.sent += 1;
        }
        match reply {
            Reply::Done {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Answers with the parts that were sent, as text if they are.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn finish(mut self) -> Result<MessageId, Error> {
        let sent = std::mem::take(&mut self.sent).freeze();
        let answer = match std::str::from_utf8(&sent) {
            Ok(_) => Outgoing::new(crate::MessageKind::Text, sent),
            Err(_) => Outgoing::new(crate::MessageKind::Binary, sent),
        };
        self.answer(answer).await
    }

    /// Answers. When this returns, the answer survives a crash of the daemon, and the request is not handed out again.
    ///
    /// # Errors
    /// With the class `cancelled` when it was not to be worked at any more.
    pub async fn answer(self, answer: Outgoing) -> Result<MessageId, Error> {
        self.end(Reaction::Answer, answer).await
    }

    /// Says that it failed, and why.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn fail(self, why: impl Into<String>) -> Result<MessageId, Error> {
        self.end(Reaction::Fail, Outgoing::text(why)).await
    }

    /// Says that it is not done, and why.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn decline(self, why: impl Into<String>) -> Result<MessageId, Error> {
        self.end(Reaction::Decline, Outgoing::text(why)).await
    }

    async fn end(mut self, reaction: Reaction, answer: Outgoing) -> Result<MessageId, Error> {
        let (body, _carried) = body_of(answer.data).await?;
        let request = Request::Answer(Answer {
            id: self.mail.id.clone(),
            held: true,
            outcome: reaction.outcome(),
            kind: wire_kind(answer.kind),
            body,
            hops: None,
        });
        // From here on it is not given back, whatever happens: it may be answered.
        self.answered = true;
        let reply = self.link.call(request).await;
        match reply? {
            Reply::Answered { message_id, .. } => Ok(message_id),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives it back: another program, or this one, gets it again.
    ///
    /// # Errors
    /// When the daemon cannot be asked.
    pub async fn release(mut self) -> Result<(), Error> {
        self.answered = true;
        let id = self.mail.id.clone();
        self.link.held().remove(&id);
        self.link.call(Request::Release { id }).await.map(drop)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.watching.abort();
        let id = self.mail.id.clone();
        self.link.held().remove(&id);
        if let (false, Ok(runtime)) = (self.answered, tokio::runtime::Handle::try_current()) {
            let link = Arc::clone(&self.link);
            runtime.spawn(async move { link.call(Request::Release { id }).await });
        }
    }
}
