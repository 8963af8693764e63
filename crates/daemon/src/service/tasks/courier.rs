//! Carries to peers what they are to be told of tasks, for as long as it takes.
//!
//! What is to be told stands in the tasks' files, so nothing is lost with the process. A peer that is away is tried
//! again when there is a sign of it, and after pauses that grow.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use pilot_client::{Client, Stream};
use pilot_wire::dataexchange::Decoder;
use pilot_wire::ipc::Code;
use pilot_wire::tasks::State;
use pilot_wire::tasks::frame::{
    Answer, CHUNK, FileNote, FileStart, INLINE_FILE_MAX, MAX_FRAME, ResultType, Results, ResultsExtension,
    StatusExtension, StatusUpdate, Submit, SubmitExtension, TEXT_MAX, Word, WordError,
};
use pilot_wire::tasks::score::{Outcome as Ended, Proof, Statement};
use pilot_wire::{Addr, NodeId, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::book::Told;
use super::desk::Way;
use super::folders::Folders;
use super::record::{Kept, Key, Moment, PeerKind, Pending, Record};
use crate::handle::{Handle, Sign};

/// Peers that are told something at the same time.
const PEERS_AT_ONCE: usize = 32;

/// How long a stream to a peer may take to come about.
const DIAL_LIMIT: Duration = Duration::from_secs(30);

/// How long a piece may take to leave, and an answer to come.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// First pause after a failure; doubled each time up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(500);

/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Why a peer was not told.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error(transparent)]
    Client(#[from] pilot_client::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no answer in {STEP_LIMIT:?}")]
    Late,
    #[error("the peer cannot be reached")]
    NoStream,
    #[error("the answer makes no sense: {0}")]
    Word(#[from] WordError),
    #[error("the answer is too long")]
    TooLong,
    #[error("the stream ended before the answer")]
    CutShort,
    #[error("the results are not there any more")]
    ResultsGone,
}

/// How a peer fares.
#[derive(Debug, Clone, Copy)]
struct Fortune {
    failures: u32,
    next: Instant,
    /// It was reached, and nobody listened or it was busy: another sign of it says nothing new.
    was_there: bool,
}

/// How a round of words to one peer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Done,
    Away,
    Busy,
}

/// Carries for as long as the daemon runs.
pub(super) async fn run(client: Client, handle: Handle, way: Way) {
    let mut changed = way.changed();
    let mut signs = handle.signs();
    let mut number = handle.numbers();
    let mut fortunes: BTreeMap<NodeId, Fortune> = BTreeMap::new();
    let mut under_way: BTreeSet<NodeId> = BTreeSet::new();
    let mut rounds: JoinSet<(NodeId, Round)> = JoinSet::new();
    loop {
        let mut waiting: BTreeMap<NodeId, Vec<(Key, Pending)>> = BTreeMap::new();
        for (node, key, pending) in way.run(|desk| desk.book.pending()).await.unwrap_or_default() {
            waiting.entry(node).or_default().push((key, pending));
        }
        fortunes.retain(|node, _| waiting.contains_key(node));
        let now = Instant::now();
        for (node, words) in &waiting {
            let due = fortunes.get(node).is_none_or(|fortune| fortune.next <= now);
            // Without a number nobody would know whose words they are.
            let ready = due && handle.node() != NodeId::UNSET && rounds.len() < PEERS_AT_ONCE;
            if ready && under_way.insert(*node) {
                let carrier =
                    Carrier { client: client.clone(), handle: handle.clone(), way: way.clone(), node: *node };
                let words = words.clone();
                let node = *node;
                rounds.spawn(async move { (node, carrier.tell_all(words).await) });
            }
        }
        let idle = waiting.keys().filter(|node| !under_way.contains(node));
        let next = idle.filter_map(|node| fortunes.get(node)).map(|fortune| fortune.next).min();
        tokio::select! {
            open = changed.changed() => if open.is_err() { return },
            open = number.changed() => if open.is_err() { return },
            sign = signs.recv() => match sign {
                Ok(Sign::Peer(node)) => {
                    if let Some(fortune) = fortunes.get_mut(&node).filter(|fortune| !fortune.was_there) {
                        fortune.next = now;
                    }
                }
                Ok(Sign::Network) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    fortunes.values_mut().filter(|fortune| !fortune.was_there).for_each(|f| f.next = now);
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            Some(ended) = rounds.join_next() => match ended {
                Ok((node, round)) => {
                    under_way.remove(&node);
                    fare(&mut fortunes, node, round);
                }
                Err(error) => tracing::error!(%error, "telling a peer of a task crashed"),
            },
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

fn fare(fortunes: &mut BTreeMap<NodeId, Fortune>, node: NodeId, round: Round) {
    if round == Round::Done {
        fortunes.remove(&node);
        return;
    }
    let failures = fortunes.get(&node).map_or(0, |fortune| fortune.failures).saturating_add(1);
    let pause = PAUSE_MIN.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX);
    let was_there = round == Round::Busy;
    fortunes.insert(node, Fortune { failures, next: Instant::now() + pause, was_there });
}

/// Who tells one peer.
struct Carrier {
    client: Client,
    handle: Handle,
    way: Way,
    node: NodeId,
}

impl Carrier {
    /// One after the other, until one fails.
    async fn tell_all(&self, words: Vec<(Key, Pending)>) -> Round {
        for (key, _) in words {
            let outgoing = key.clone();
            let task = self.way.run(move |desk| {
                let folders = desk.folders.clone();
                Some((desk.book.set_out(&outgoing)?, folders))
            });
            let Some((task, folders)) = task.await.flatten() else { continue };
            let Some(pending) = task.pending else { continue };
            let told = match self.tell(&task, pending, &folders).await {
                Ok(told) => told,
                Err(Untold::Client(error)) if error.code() == Code::Refused => Told::NoService,
                Err(error) => {
                    tracing::debug!(task = %key.id, node = %self.node, %error, "not told yet");
                    let reason = error.to_string();
                    let done = move |book: &mut super::book::Book, _| book.failed_to_tell(&key, reason);
                    let _ = self.way.run(|desk| desk.act(done)).await;
                    return Round::Away;
                }
            };
            let proof = self.proof(&task, pending, &told);
            let busy = match &told {
                Told::NoService => true,
                Told::Answer(answer) => answer.status == Answer::LATER,
                Told::Silent => task.peer == PeerKind::Ours || pending == Pending::Submit,
            };
            let revision = task.revision;
            let done = move |book: &mut super::book::Book, now: Moment| {
                book.told(now, &key, (pending, revision), &told, proof);
            };
            if self.way.run(|desk| desk.act(done)).await.is_none_or(|done| done.is_err()) {
                return Round::Busy;
            }
            if busy {
                return Round::Busy;
            }
        }
        Round::Done
    }

    /// What both have signed, once the submitter has answered with its signature.
    fn proof(&self, task: &Record, pending: Pending, told: &Told) -> Option<Proof> {
        let Told::Answer(answer) = told else { return None };
        if pending != Pending::Results || self.node == self.handle.node() {
            return None;
        }
        Some(Proof {
            statement: done(task, self.handle.node())?,
            submitter_signature: answer.pilot.as_ref()?.signature?,
            worker_signature: task.outcome.as_ref()?.signature?,
        })
    }

    async fn tell(&self, task: &Record, pending: Pending, folders: &Folders) -> Result<Told, Untold> {
        let mut line = Line::open(&self.client, self.node).await?;
        match pending {
            Pending::Submit => line.say(&submission(task)).await,
            Pending::Status => line.say(&status(task, task.state, &task.justification)).await,
            Pending::Results if task.peer == PeerKind::Older => {
                let told = line.say(&results_for_older(task, folders).await?).await?;
                // A word of its own on a stream of its own: older releases read one word per stream.
                let mut line = Line::open(&self.client, self.node).await?;
                let last = status(task, State::Succeeded, "Task completed successfully");
                let _ = line.say(&last).await?;
                Ok(told)
            }
            Pending::Results => self.results(&mut line, task, folders).await,
        }
    }

    async fn results(&self, line: &mut Line, task: &Record, folders: &Folders) -> Result<Told, Untold> {
        let outcome = task.outcome.as_ref().ok_or(Untold::ResultsGone)?;
        let mut notes = Vec::new();
        for (index, kept) in (0..).zip(&outcome.files) {
            let note = FileNote { name: kept.name.clone(), size: kept.size, sha256: kept.sha256 };
            let start = FileStart { task_id: task.key.id.clone(), index, file: note.clone() };
            match line.say(&Word::File(start)).await? {
                Told::Answer(answer) if answer.status == Answer::OK => {
                    let offset = answer.pilot.and_then(|extension| extension.offset).unwrap_or_default();
                    if offset < kept.size {
                        match line.send_file(kept, folders, offset).await? {
                            Told::Answer(answer) if answer.status == Answer::OK => {}
                            told @ (Told::Answer(_) | Told::Silent | Told::NoService) => return Ok(told),
                        }
                    }
                }
                told @ (Told::Answer(_) | Told::Silent | Told::NoService) => return Ok(told),
            }
            notes.push(note);
        }
        let text = text(task, folders).await?;
        let at = task.completed.unwrap_or_default().seconds();
        let extension = ResultsExtension { files: notes, at, signature: outcome.signature };
        line.say(&Word::Results(Results {
            result_text: Some(text.unwrap_or_default()),
            pilot: Some(extension),
            ..results(task, ResultType::Text)
        }))
        .await
    }
}

/// What the worker states of a task that is done.
pub(super) fn done(task: &Record, worker: NodeId) -> Option<Statement> {
    Some(Statement {
        task_id: task.key.id.clone(),
        submitter: task.from.node,
        worker,
        outcome: Ended::Done {
            cpu_ms: task.times.cpu_ms?,
            idle_ms: task.times.idle_ms?,
            staged_ms: task.times.staged_ms?,
            at: task.completed?.seconds(),
        },
    })
}

fn submission(task: &Record) -> Word {
    let deadline_ms = task.deadline.map(|deadline| deadline.since(super::now()));
    Word::Submit(Submit {
        task_id: task.key.id.clone(),
        task_description: task.description.clone(),
        from_addr: task.from,
        to_addr: task.to,
        pilot: Some(SubmitExtension { deadline_ms }),
    })
}

fn status(task: &Record, status: State, justification: &str) -> Word {
    let extension = StatusExtension { progress: task.progress.clone(), acceptance: task.acceptance };
    Word::Status(StatusUpdate {
        task_id: task.key.id.clone(),
        status,
        justification: justification.to_owned(),
        pilot: Some(extension),
    })
}

fn results(task: &Record, result_type: ResultType) -> Results {
    Results {
        task_id: task.key.id.clone(),
        result_type,
        result_text: None,
        filename: None,
        file_data: None,
        completed_at: task.completed.map(Moment::text).unwrap_or_default(),
        time_idle_ms: task.times.idle_ms,
        time_staged_ms: task.times.staged_ms,
        time_cpu_ms: task.times.cpu_ms,
        pilot: None,
    }
}

async fn text(task: &Record, folders: &Folders) -> Result<Option<String>, Untold> {
    let Some(name) = task.outcome.as_ref().and_then(|outcome| outcome.text.as_ref()) else {
        return Ok(None);
    };
    let path = folders.results_of(task.key.category).join(name);
    let mut bytes = tokio::fs::read(path).await?;
    bytes.truncate(TEXT_MAX);
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

async fn results_for_older(task: &Record, folders: &Folders) -> Result<Word, Untold> {
    let outcome = task.outcome.as_ref().ok_or(Untold::ResultsGone)?;
    let Some(kept) = outcome.files.first() else {
        let result_text = Some(text(task, folders).await?.unwrap_or_default());
        return Ok(Word::Results(Results { result_text, ..results(task, ResultType::Text) }));
    };
    let mut data = tokio::fs::read(folders.outgoing_file(kept)).await?;
    data.truncate(INLINE_FILE_MAX);
    Ok(Word::Results(Results {
        filename: Some(kept.name.clone()),
        file_data: Some(Bytes::from(data)),
        ..results(task, ResultType::File)
    }))
}

/// A stream to port 1003 of a peer.
struct Line {
    stream: Stream,
    decoder: Decoder,
}

impl Line {
    async fn open(client: &Client, node: NodeId) -> Result<Self, Untold> {
        let dialed = timeout(DIAL_LIMIT, client.dial(Addr::backbone(node).port(Port::TASKS))).await;
        Ok(Self { stream: dialed.map_err(|_| Untold::NoStream)??, decoder: Decoder::new(MAX_FRAME) })
    }

    /// Says a word and waits for what comes of it.
    async fn say(&mut self, word: &Word) -> Result<Told, Untold> {
        let mut out = Vec::new();
        word.emit(&mut out);
        self.send(&out).await?;
        self.answer().await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), Untold> {
        timeout(STEP_LIMIT, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await
        .map_err(|_| Untold::Late)??;
        Ok(())
    }

    async fn send_file(&mut self, kept: &Kept, folders: &Folders, offset: u64) -> Result<Told, Untold> {
        use tokio::io::AsyncSeekExt;
        let mut file = tokio::fs::File::open(folders.outgoing_file(kept)).await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        let mut left = kept.size - offset;
        let mut out = Vec::with_capacity(CHUNK + 8);
        while left > 0 {
            let mut piece = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
            file.read_exact(&mut piece).await?;
            left -= piece.len() as u64;
            out.clear();
            Word::Data(piece.into()).emit(&mut out);
            self.send(&out).await?;
        }
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Told, Untold> {
        timeout(STEP_LIMIT, self.read_answer()).await.map_err(|_| Untold::Late)?
    }

    async fn read_answer(&mut self) -> Result<Told, Untold> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(|_| Untold::TooLong)? {
                return Ok(Told::Answer(Answer::parse(&frame)?));
            }
            if self.stream.read_buf(self.decoder.buffer_mut()).await? == 0 {
                return if self.decoder.is_empty() { Ok(Told::Silent) } else { Err(Untold::CutShort) };
            }
        }
    }
}
