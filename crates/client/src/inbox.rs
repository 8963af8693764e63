//! The inbox as a program uses it: each message as it arrives, or those that are wanted.

use std::pin::Pin;
use std::time::Duration;

use pilot_wire::mailbox::{Entry, Filter, List, Reply, Request, Wait};
use tokio::time::sleep;

use crate::message::{RECONNECT_PAUSE, mail, unexpected};
use crate::{Client, Error, Mail};

/// How long one request of [`Inbox::next`] waits before it is asked again.
const ASK: Duration = Duration::from_secs(3600);

/// Messages as they arrive, in their order. It goes on by itself when the daemon is restarted: what arrives meanwhile is
/// not missed, and nothing is handed out twice.
pub struct Inbox {
    client: Client,
    filter: Filter,
    /// The question that is open at the daemon. It outlives a call that was dropped, so that a program which waits for
    /// several things at once does not leave one behind each time.
    asked: Option<Asked>,
}

type Asked = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send + Sync>>;

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Inbox {
    /// The next message; it counts as read when this returns. Dropped before it does, nothing is lost: the message comes
    /// with the next call.
    ///
    /// # Errors
    /// When the daemon refuses. That it is down is no error: this waits for it.
    pub async fn next(&mut self) -> Result<Mail, Error> {
        loop {
            let (client, filter) = (&self.client, &self.filter);
            let reply = self.asked.get_or_insert_with(|| ask(client.clone(), filter.clone())).as_mut().await;
            self.asked = None;
            match reply {
                Ok(Reply::TimedOut) => {}
                Ok(reply) => {
                    let mail = mail(reply).await?;
                    let mark = Request::Mark { ids: vec![mail.id.clone()], read: true };
                    match self.client.mailbox(mark).await {
                        Ok(_) => {
                            self.filter.since_ns = Some(mail.arrived_ns);
                            return Ok(mail);
                        }
                        Err(error) => self.mend(error).await?,
                    }
                }
                Err(error) => self.mend(error).await?,
            }
        }
    }

    /// Looks for the daemon's next life.
    async fn mend(&mut self, error: Error) -> Result<(), Error> {
        if !matches!(error, Error::Disconnected | Error::Connect(_)) {
            return Err(error);
        }
        sleep(RECONNECT_PAUSE).await;
        self.client = self.client.mended(&error).await;
        Ok(())
    }
}

fn ask(client: Client, filter: Filter) -> Asked {
    let timeout_ms = u64::try_from(ASK.as_millis()).unwrap_or(u64::MAX);
    let wait = Wait { filter, peek: true, timeout_ms, ..Wait::default() };
    Box::pin(async move { client.mailbox(Request::Wait(wait)).await })
}

impl Client {
    /// The messages that arrive from now on and pass `filter`; with `filter.unread`, the unread ones that are there come
    /// first, and with `filter.since_ns`, those that arrived after that.
    ///
    /// # Errors
    /// When the daemon cannot answer.
    pub async fn inbox(&self, mut filter: Filter) -> Result<Inbox, Error> {
        if filter.since_ns.is_none() && !filter.unread {
            let newest = self.list_messages(List::newest(None, 1)).await?;
            filter.since_ns = Some(newest.last().map_or(0, |entry| entry.arrived_ns));
        }
        Ok(Inbox { client: self.clone(), filter, asked: None })
    }

    /// What is in the inbox, oldest first: the newest `list.limit` of what passes the filter, 500 at most. For those
    /// before, ask again with `before_ns` set to the `arrived_ns` of the first.
    ///
    /// # Errors
    /// When the daemon cannot answer.
    pub async fn list_messages(&self, list: List) -> Result<Vec<Entry>, Error> {
        match self.mailbox(Request::List(list)).await? {
            Reply::Messages { messages, .. } => Ok(messages),
            other @ (Reply::Message { .. }
            | Reply::TimedOut
            | Reply::Marked { .. }
            | Reply::Cleared { .. }
            | Reply::Failed { .. }) => Err(unexpected(&other)),
        }
    }

    /// Takes the first unread message that passes `filter`, at once or when it comes; `None` when none came in time. Of
    /// several programs that wait, one gets it. Let `limit` end the wait: when the future is dropped instead, the
    /// message that would have ended it may be taken all the same.
    ///
    /// # Errors
    /// When the daemon cannot wait.
    pub async fn take_message(&self, filter: Filter, limit: Duration) -> Result<Option<Mail>, Error> {
        let filter = Filter { unread: true, ..filter };
        self.wait_mail(Wait { filter, ..Wait::default() }, limit).await
    }

    /// The first message that passes `filter`, at once or when it comes; `None` when none came in time. It counts as read.
    ///
    /// # Errors
    /// When the daemon cannot wait.
    pub async fn next_message(&self, filter: Filter, limit: Duration) -> Result<Option<Mail>, Error> {
        self.wait_mail(Wait { filter, ..Wait::default() }, limit).await
    }

    /// Marks messages as read or unread; returns how many were not so before.
    ///
    /// # Errors
    /// When the daemon cannot write it down.
    pub async fn mark_messages(&self, ids: Vec<String>, read: bool) -> Result<u64, Error> {
        match self.mailbox(Request::Mark { ids, read }).await? {
            Reply::Marked { marked } => Ok(marked),
            other @ (Reply::Message { .. }
            | Reply::Messages { .. }
            | Reply::TimedOut
            | Reply::Cleared { .. }
            | Reply::Failed { .. }) => Err(unexpected(&other)),
        }
    }

    /// Removes messages; returns how many there were.
    ///
    /// # Errors
    /// When the daemon cannot remove them.
    pub async fn remove_messages(&self, ids: Vec<String>) -> Result<u64, Error> {
        match self.mailbox(Request::Remove { ids }).await? {
            Reply::Cleared { cleared } => Ok(cleared),
            other @ (Reply::Message { .. }
            | Reply::Messages { .. }
            | Reply::TimedOut
            | Reply::Marked { .. }
            | Reply::Failed { .. }) => Err(unexpected(&other)),
        }
    }
}
