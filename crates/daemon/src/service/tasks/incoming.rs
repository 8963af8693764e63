//! Port 1003: what peers say about tasks, and what they are answered.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pilot_crypto::verify;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{Decoder, FrameTooLarge, FrameType};
use pilot_wire::registry::{Request, Response, Signed};
use pilot_wire::tasks::frame::{
    Answer, FileStart, MAX_FRAME, ResultType, Results, Submit, TEXT_MAX, Word, WordError,
};
use pilot_wire::tasks::score::{Outcome as Ended, Statement};
use pilot_wire::tasks::{State, TaskId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::Remote;
use super::super::policy::Forbidden;
use super::Tasks;
use super::book::Book;
use super::folders::{Arriving, Folders, Incoming, Refused};
use super::record::{Outcome, Times};

/// A connection on which nothing moves for so long is closed.
const IDLE: Duration = Duration::from_secs(120);

/// Bytes read at a time.
const READ_LEN: usize = 64 << 10;

/// A frame longer than this is read one at a time per peer, and [`LARGE_FRAMES`] over all.
const LARGE_FRAME: usize = 1 << 20;

/// Large frames held at the same time, over all peers.
pub(super) const LARGE_FRAMES: usize = 2;

/// How far a worker's account may go beyond what the submitter saw, in milliseconds.
const ACCOUNT_SLACK: u64 = 10_000;

/// Why a connection was closed by this side.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Closed {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A frame over the limit.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
    /// A frame without meaning.
    #[error(transparent)]
    Word(#[from] WordError),
    /// Bytes of a file that nobody announced.
    #[error("bytes of a file that was not announced")]
    Unannounced,
    /// Nothing moved.
    #[error("idle")]
    Idle,
    /// This side cannot store anything.
    #[error("the disk refuses")]
    Disk,
}

impl Tasks {
    /// Serves one connection until the peer ends it. `large_of_peer` has one permit.
    pub(in super::super) async fn serve<S>(
        &self,
        mut stream: S,
        from: &Remote,
        large_of_peer: &Semaphore,
    ) -> Result<(), Closed>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut decoder = Decoder::new(MAX_FRAME);
        let mut file: Option<(FileStart, Box<Incoming>)> = None;
        let mut large = None;
        loop {
            while let Some(frame) = decoder.next_frame()? {
                let word = Word::parse(&frame)?;
                let (kind, is_last) = (word.kind(), matches!(word, Word::Submit(_)));
                if let Some((answer, kind)) = self.on_word(from, word, kind, &mut file).await? {
                    let mut out = Vec::new();
                    answer.emit(kind, &mut out);
                    timeout(IDLE, stream.write_all(&out)).await.map_err(|_| Closed::Idle)??;
                    stream.flush().await?;
                }
                large = None;
                if is_last {
                    // As released nodes do: the submitter knows by it that nothing more comes.
                    let _ = stream.shutdown().await;
                    return Ok(());
                }
            }
            if large.is_none() && decoder.announced()?.is_some_and(|length| length > LARGE_FRAME) {
                // The semaphores are never closed; were they, no limit would be left to respect.
                large = Some((large_of_peer.acquire().await.ok(), self.large_frames.acquire().await.ok()));
            }
            decoder.buffer_mut().reserve(READ_LEN);
            let read =
                timeout(IDLE, stream.read_buf(decoder.buffer_mut())).await.map_err(|_| Closed::Idle)??;
            if read == 0 {
                let _ = stream.shutdown().await;
                return Ok(());
            }
        }
    }

    async fn on_word(
        &self,
        from: &Remote,
        word: Word,
        kind: FrameType,
        file: &mut Option<(FileStart, Box<Incoming>)>,
    ) -> Result<Option<(Answer, FrameType)>, Closed> {
        let node = from.endpoint.addr.node;
        let answer = match word {
            Word::Submit(word) => self.on_submit(node, word).await?,
            Word::Status(word) => self.book(move |book, now| book.on_status(now, node, word)).await?,
            Word::Results(word) => self.on_results(from, word).await?,
            Word::File(start) => self.on_file(node, start, file).await?,
            Word::Data(data) => {
                self.policy.count_bytes(node, data.len() as u64);
                let kind = Word::File(file.as_ref().ok_or(Closed::Unannounced)?.0.clone()).kind();
                return Ok(self.on_data(data, file).await?.map(|answer| (answer, kind)));
            }
        };
        Ok(Some((answer, kind)))
    }

    async fn book<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Book, super::record::Moment) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        self.way.run(|desk| desk.act(act)).await.and_then(Result::ok).ok_or(Closed::Disk)
    }

    fn is_welcome(&self, node: NodeId) -> bool {
        node == self.handle.node() || self.handle.trusted().borrow().contains(&node)
    }

    async fn on_submit(&self, node: NodeId, word: Submit) -> Result<Answer, Closed> {
        let id = word.task_id.clone();
        if !self.is_welcome(node) {
            return Ok(Book::reply(&id, Answer::REFUSED, "this node takes tasks of nodes it trusts only"));
        }
        let bytes = word.task_description.len() as u64;
        let allowed = self.policy.may_task(node).and_then(|()| self.policy.admit_message(node, bytes));
        if let Err(forbidden) = allowed {
            return Ok(against(&id, &forbidden));
        }
        let waiting = self.waiting();
        let settings = self.way.run(|desk| desk.settings).await.ok_or(Closed::Disk)?;
        if !settings.enabled && waiting == 0 {
            let why = "this node takes no tasks at present (its owner can run: pilotctl enable-tasks)";
            return Ok(Book::reply(&id, Answer::REFUSED, why));
        }
        if settings.gate
            && node != self.handle.node()
            && let Some(refusal) = self.gate(node).await
        {
            return Ok(Book::reply(&id, refusal.0, refusal.1));
        }
        self.book(move |book, now| book.on_submit(now, node, word)).await
    }

    /// The rule of released nodes: who has earned less than we have is not worked for.
    async fn gate(&self, submitter: NodeId) -> Option<(u16, String)> {
        let (theirs, ours) = tokio::join!(self.score_of(submitter), self.score_of(self.handle.node()));
        match (theirs, ours) {
            (Some(theirs), Some(ours)) if theirs < ours => {
                Some((Answer::REFUSED, format!("Polo score too low: submitter={theirs}, receiver={ours}")))
            }
            (Some(_), Some(_)) => None,
            (None, _) | (_, None) => {
                Some((Answer::LATER, "the registry does not tell the scores at present".to_owned()))
            }
        }
    }

    /// A node's score, if the registry tells it.
    pub(super) async fn score_of(&self, node: NodeId) -> Option<i32> {
        let request = Request::GetPoloScore(Signed { node_id: node, ..Signed::default() });
        let reply = self.handle.registry(request).await.ok()?;
        match Response::parse(&reply) {
            Ok(Response::GetPoloScore(score)) => Some(score.polo_score),
            Ok(_) | Err(_) => None,
        }
    }

    async fn on_results(&self, from: &Remote, word: Results) -> Result<Answer, Closed> {
        let node = from.endpoint.addr.node;
        let id = word.task_id.clone();
        let times =
            Times { idle_ms: word.time_idle_ms, staged_ms: word.time_staged_ms, cpu_ms: word.time_cpu_ms };
        let ours = word.pilot.is_some();
        let (before, keeps) = {
            let id = id.clone();
            let look = move |book: &mut Book, _| {
                book.awaits_results(node, &id).map(|record| (record.clone(), !record.state.has_results()))
            };
            match self.book(look).await? {
                Ok(awaited) => awaited,
                Err(refusal) => return Ok(*refusal),
            }
        };
        if keeps {
            let folders = self.folders().await.ok_or(Closed::Disk)?;
            let word = word.clone();
            let stored = blocking(move || store(&folders, node, word)).await?;
            let outcome = match stored {
                Ok(Some(outcome)) => outcome,
                Ok(None) => {
                    return Ok(Book::reply(&id, Answer::LATER, "a file of the results has not arrived"));
                }
                Err(refused @ (Refused::Disk(_) | Refused::Full)) => {
                    return Ok(Book::reply(&id, Answer::LATER, refused.to_string()));
                }
                Err(refused) => return Ok(Book::reply(&id, Answer::REFUSED, refused.to_string())),
            };
            let id = id.clone();
            let answer =
                self.book(move |book, now| book.on_results(now, node, &id, times, outcome, ours)).await?;
            if answer.status != Answer::OK {
                return Ok(answer);
            }
        }
        let mut answer = Book::reply(&id, Answer::OK, "results received");
        if let Some(extension) = &mut answer.pilot {
            extension.signature = self.countersign(from, &word, &before).await;
        }
        Ok(answer)
    }

    /// The submitter's word for the registry, if the worker's account agrees with what was seen here.
    async fn countersign(
        &self,
        from: &Remote,
        word: &Results,
        task: &super::record::Record,
    ) -> Option<pilot_wire::Signature> {
        let (extension, key) = (word.pilot.as_ref()?, from.key?);
        let (cpu_ms, idle_ms, staged_ms) = (word.time_cpu_ms?, word.time_idle_ms?, word.time_staged_ms?);
        let now = task.completed.unwrap_or_else(super::now);
        let seen = now.since(task.created).saturating_add(ACCOUNT_SLACK);
        let claimed = cpu_ms.saturating_add(idle_ms).saturating_add(staged_ms);
        let outcome = Ended::Done { cpu_ms, idle_ms, staged_ms, at: extension.at };
        let statement = Statement {
            task_id: word.task_id.clone(),
            submitter: self.handle.node(),
            worker: from.endpoint.addr.node,
            outcome,
        };
        let (by_submitter, by_worker) = statement.texts();
        if claimed > seen || !verify(&key, by_worker.as_bytes(), &extension.signature?) {
            tracing::info!(task = %word.task_id, "the worker's account of its work is not signed for");
            return None;
        }
        self.handle.sign(by_submitter).await
    }

    async fn on_file(
        &self,
        node: NodeId,
        start: FileStart,
        file: &mut Option<(FileStart, Box<Incoming>)>,
    ) -> Result<Answer, Closed> {
        let id = start.task_id.clone();
        let awaited = {
            let id = id.clone();
            self.book(move |book, _| book.awaits_results(node, &id).map(|record| record.state)).await?
        };
        match awaited {
            Ok(State::Completed | State::Succeeded) => {
                // They come again because our answer was lost: nothing is to be sent.
                *file = None;
                return Ok(at(&id, start.file.size));
            }
            Ok(_) => {}
            Err(refusal) => return Ok(*refusal),
        }
        if let Err(forbidden) = self.policy.admit_file(node, start.file.size) {
            return Ok(against(&id, &forbidden));
        }
        let folders = self.folders().await.ok_or(Closed::Disk)?;
        let announced = start.clone();
        // An earlier file of this connection is closed before the same one is opened again.
        *file = None;
        let begun = blocking(move || {
            let mut begun = folders.begin(node, &announced)?;
            if let Arriving::Begun(incoming) = &mut begun
                && incoming.is_whole()?
            {
                return Ok(Arriving::Here);
            }
            Ok(begun)
        });
        match begun.await? {
            Ok(Arriving::Here) => Ok(at(&id, start.file.size)),
            Ok(Arriving::Begun(incoming)) => {
                let answer = at(&id, incoming.written());
                *file = Some((start, incoming));
                Ok(answer)
            }
            Err(refused @ (Refused::Disk(_) | Refused::Full)) => {
                Ok(Book::reply(&id, Answer::LATER, refused.to_string()))
            }
            Err(refused) => Ok(Book::reply(&id, Answer::REFUSED, refused.to_string())),
        }
    }

    async fn on_data(
        &self,
        data: Bytes,
        file: &mut Option<(FileStart, Box<Incoming>)>,
    ) -> Result<Option<Answer>, Closed> {
        let (start, mut incoming) = file.take().ok_or(Closed::Unannounced)?;
        let (incoming, written) = blocking(move || {
            let written = incoming.write(&data);
            (incoming, written)
        })
        .await?;
        let id = &start.task_id;
        match written {
            Ok(false) => {
                *file = Some((start, incoming));
                Ok(None)
            }
            Ok(true) => Ok(Some(at(id, start.file.size))),
            Err(refused @ Refused::Disk(_)) => Ok(Some(Book::reply(id, Answer::LATER, refused.to_string()))),
            Err(refused) => Ok(Some(Book::reply(id, Answer::LATER, refused.to_string()))),
        }
    }

    async fn folders(&self) -> Option<Folders> {
        self.way.run(|desk| desk.folders.clone()).await
    }
}

/// Puts what came with results where results are. `None` if a file is missing.
fn store(folders: &Folders, from: NodeId, word: Results) -> Result<Option<Outcome>, Refused> {
    let id = &word.task_id;
    let mut outcome = Outcome::default();
    let text = word.result_text.filter(|_| word.result_type == ResultType::Text);
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        if text.len() > TEXT_MAX && word.pilot.is_some() {
            return Err(Refused::TooLarge);
        }
        outcome.text = Some(folders.keep_text(id, &text)?);
    }
    if let (ResultType::File, Some(data)) = (word.result_type, &word.file_data) {
        outcome.files.push(folders.keep_file(id, word.filename.as_deref().unwrap_or_default(), data)?);
    }
    if let Some(extension) = word.pilot {
        match folders.adopt(from, id, &extension.files, outcome.text.as_ref())? {
            Some(kept) => outcome.files.extend(kept),
            None => return Ok(None),
        }
    }
    Ok(Some(outcome))
}

/// What a peer is told whom the owner's rules keep away.
fn against(id: &TaskId, forbidden: &Forbidden) -> Answer {
    let status = if forbidden.retry_after().is_some() { Answer::LATER } else { Answer::REFUSED };
    Book::reply(id, status, forbidden.to_string())
}

fn at(id: &TaskId, offset: u64) -> Answer {
    let mut answer = Book::reply(id, Answer::OK, "here so far");
    if let Some(extension) = &mut answer.pilot {
        extension.offset = Some(offset);
    }
    answer
}

/// Work that waits for the disk, on a thread for such work.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Closed> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Closed::Disk)
}

/// Room for large frames of all peers.
pub(super) fn large_frames() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LARGE_FRAMES))
}
