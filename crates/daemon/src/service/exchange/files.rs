//! Files and folders on one connection: what is under way, step by step.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pilot_crypto::Sha256;
use pilot_wire::dataexchange::{
    Answer, ContentHash, Control, FileStream, FrameType, Init, Manifest, NO_ACTIVE_TRANSFER, TransferId,
    TransferWord,
};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Closed, Exchange};
use crate::service::disk::Refusal;
use crate::service::received::{
    Announced, Begun, Complete, Content, Folder, Origin, Partial, SafeName, Transfer, TransferError,
};
use crate::service::{Notice, Remote};
use crate::trace::Span;

/// How often a new connection asks whether the older one of the same transfer has ended.
const TAKE_OVER_TRIES: usize = 3;

/// How long the older connection of a transfer gets to end.
const TAKE_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// What a connection receives.
pub(super) struct Receiving<'a> {
    exchange: &'a Exchange,
    from: &'a Remote,
    current: Option<Current>,
    folder: Option<CurrentFolder>,
    /// For whoever takes the transfer over.
    cancel: watch::Sender<bool>,
    /// When the file under way began to come, and its bytes.
    begun: Option<(Instant, u64)>,
}

/// The file under way.
enum Current {
    /// One by itself.
    File(Box<Transfer>),
    /// One of the folder.
    Content(TransferId, Box<Partial>),
    /// One that is here already.
    Here(TransferId),
}

/// The folder under way.
enum CurrentFolder {
    Open(Box<Folder>),
    /// It is here already.
    Here,
}

impl Current {
    fn id(&self) -> TransferId {
        match self {
            Self::File(transfer) => transfer.id(),
            Self::Content(id, _) | Self::Here(id) => *id,
        }
    }

    fn partial(&mut self) -> Option<&mut Partial> {
        match self {
            Self::File(transfer) => Some(&mut transfer.partial),
            Self::Content(_, partial) => Some(partial),
            Self::Here(_) => None,
        }
    }
}

impl<'a> Receiving<'a> {
    pub(super) fn new(exchange: &'a Exchange, from: &'a Remote) -> Self {
        Self { exchange, from, current: None, folder: None, cancel: watch::channel(false).0, begun: None }
    }

    /// True once another connection takes the transfer over.
    pub(super) fn cancelled(&self) -> watch::Receiver<bool> {
        self.cancel.subscribe()
    }

    /// One step of a transfer; appends what is answered.
    pub(super) async fn step(&mut self, step: FileStream, answers: &mut Vec<u8>) -> Result<(), Closed> {
        let id = step.id();
        let answer = match step {
            FileStream::Init(init) => self.begin(init).await?,
            FileStream::Chunk { offset, data, .. } => self.chunk(id, offset, data).await?,
            FileStream::Done(_) => self.done(id).await?,
            FileStream::Abort { message, .. } => {
                tracing::debug!(from = %self.from.endpoint, message, "the sender gave a transfer up");
                self.current = None;
                return Ok(());
            }
            // A receiver's own words, sent to a receiver.
            FileStream::Ack { .. } | FileStream::InitAck { .. } | FileStream::Complete { .. } => {
                abort(id, NO_ACTIVE_TRANSFER)
            }
        };
        answer.emit(answers);
        Ok(())
    }

    async fn begin(&mut self, init: Init) -> Result<FileStream, Closed> {
        let (id, size) = (init.id, init.size);
        self.current = None;
        self.begun = Some((Instant::now(), size));
        let begun = match self.folder.take() {
            None => self.begin_file(init).await?,
            Some(CurrentFolder::Here) => Err("the folder is complete".to_owned()),
            Some(CurrentFolder::Open(folder)) => {
                let (folder, begun) = on_disk(move || {
                    let begun = folder.begin(&init);
                    (folder, begun)
                })
                .await?;
                self.folder = Some(CurrentFolder::Open(folder));
                match begun {
                    Ok(Content::Missing(partial)) => Ok(Current::Content(id, partial)),
                    Ok(Content::Held) => Ok(Current::Here(id)),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        Ok(match begun {
            Ok(mut current) => {
                let offset = current.partial().map_or(size, |partial| partial.written());
                self.current = Some(current);
                FileStream::InitAck { id, offset }
            }
            Err(reason) => {
                self.trace(Some(&reason));
                abort(id, &reason)
            }
        })
    }

    async fn begin_file(&self, init: Init) -> Result<Result<Current, String>, Closed> {
        let id = init.id;
        let name = match SafeName::parse(&init.name) {
            Ok(name) => name,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let origin = Origin::of(self.from);
        let files = &self.exchange.files;
        let begun =
            take_over(|| files.begin(origin.clone(), init.clone(), name.clone(), self.cancel.clone()));
        match begun.await {
            Ok(Some(Begun::Ready(mut transfer))) => {
                let prepared = on_disk(move || transfer.partial.prepare().map(|()| transfer)).await?;
                Ok(prepared.map(Current::File).map_err(|refusal| self.refuse(&refusal)))
            }
            Ok(Some(Begun::Here)) => Ok(Ok(Current::Here(id))),
            Ok(Some(Begun::Busy(_)) | None) => {
                Ok(Err("the same transfer is running on another connection".to_owned()))
            }
            Err(refusal) => Ok(Err(self.refuse(&refusal))),
        }
    }

    /// Whether the owner's rules let a file or folder of this length in.
    async fn admit(&self, bytes: u64) -> Result<(), String> {
        let (policy, node) = (&self.exchange.policy, self.from.endpoint.addr.node);
        let admitted = policy.turn(node).await.and_then(|()| policy.admit_file(node, bytes));
        admitted.map_err(|forbidden| forbidden.to_string())
    }

    /// What a peer is told of a refusal; our owner is told, too.
    fn refuse(&self, refusal: &Refusal) -> String {
        self.exchange.tell_of(self.from, refusal);
        refusal.to_string()
    }

    async fn chunk(&mut self, id: TransferId, offset: u64, data: Bytes) -> Result<FileStream, Closed> {
        let Some(mut current) = self.take(id) else {
            return Ok(abort(id, NO_ACTIVE_TRANSFER));
        };
        let (policy, node) = (&self.exchange.policy, self.from.endpoint.addr.node);
        if let Err(forbidden) = policy.turn(node).await {
            return Ok(abort(id, &forbidden.to_string()));
        }
        policy.count_bytes(node, data.len() as u64);
        let (current, written) = on_disk(move || {
            let end = offset.saturating_add(data.len() as u64);
            let written = match current.partial() {
                Some(partial) => partial.write(offset, &data).map(|()| partial.written()),
                None => Ok(end),
            };
            (current, written)
        })
        .await?;
        Ok(match written {
            Ok(offset) => {
                self.current = Some(current);
                FileStream::Ack { id, offset }
            }
            Err(TransferError::Storage(refusal)) => abort(id, &self.refuse(&refusal)),
            Err(error) => abort(id, &error.to_string()),
        })
    }

    async fn done(&mut self, id: TransferId) -> Result<FileStream, Closed> {
        let Some(current) = self.take(id) else {
            return Ok(abort(id, NO_ACTIVE_TRANSFER));
        };
        let outcome = match current {
            Current::Here(_) => Ok(()),
            Current::Content(_, partial) => on_disk(move || Folder::keep(*partial)).await?,
            Current::File(transfer) => match on_disk(move || transfer.complete()).await? {
                Ok(complete) => self.finish(complete).await,
                Err(error) => Err(error),
            },
        };
        let outcome = outcome.map_err(|error| error.to_string());
        self.trace(outcome.as_ref().err());
        Ok(FileStream::Complete { id, outcome })
    }

    fn trace(&mut self, failed: Option<&String>) {
        let (Some((began, bytes)), Some(handle)) = (self.begun.take(), &self.exchange.handle) else { return };
        let span =
            || Span::since("pilot.file", began).with("pilot.peer", self.from.endpoint.addr.to_string());
        handle.tracer().record(|| span().with("pilot.bytes", bytes).failed(failed.cloned()));
    }

    async fn finish(&self, complete: Complete) -> Result<(), TransferError> {
        let arrived = self.exchange.files.finish(complete).await?;
        self.exchange.notices.send(Notice::file_received(arrived));
        Ok(())
    }

    fn take(&mut self, id: TransferId) -> Option<Current> {
        self.current.take_if(|current| current.id() == id)
    }

    /// A folder is announced.
    pub(super) async fn folder(
        &mut self,
        name: String,
        body: Bytes,
        answers: &mut Vec<u8>,
    ) -> Result<(), Closed> {
        self.current = None;
        self.folder = None;
        match self.open_folder(name, body).await? {
            Ok(held) => Control::Transfer { word: TransferWord::Held }.emit(&held, answers),
            Err(reason) => failed(reason).emit(answers),
        }
        Ok(())
    }

    async fn open_folder(&mut self, said: String, body: Bytes) -> Result<Result<Vec<u8>, String>, Closed> {
        let name = match SafeName::parse(said.as_bytes()) {
            Ok(name) => name,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let read = on_disk(move || {
            Manifest::parse(&body).map(|manifest| (manifest, ContentHash(Sha256::digest(&body))))
        });
        let (manifest, sha256) = match read.await? {
            Ok(read) => read,
            Err(error) => return Ok(Err(error.to_string())),
        };
        if let Err(reason) = self.admit(manifest.bytes()).await {
            return Ok(Err(reason));
        }
        let origin = Origin::of(self.from);
        let files = &self.exchange.files;
        let begun = take_over(|| {
            let announced =
                Announced { name: name.clone(), said: said.clone(), manifest: manifest.clone(), sha256 };
            files.begin_folder(origin.clone(), announced, self.cancel.clone())
        });
        match begun.await {
            Ok(Some(Begun::Ready(folder))) => {
                let (folder, held) = on_disk(move || {
                    let held = folder.held();
                    (folder, held)
                })
                .await?;
                self.folder = Some(CurrentFolder::Open(folder));
                Ok(Ok(held.as_bytes().to_vec()))
            }
            Ok(Some(Begun::Here)) => {
                self.folder = Some(CurrentFolder::Here);
                Ok(Ok(vec![u8::MAX; manifest.contents().len().div_ceil(8)]))
            }
            Ok(Some(Begun::Busy(_)) | None) => {
                Ok(Err("the same folder is coming on another connection".to_owned()))
            }
            Err(refusal) => Ok(Err(self.refuse(&refusal))),
        }
    }

    /// All files of the folder were sent.
    pub(super) async fn folder_done(&mut self, answers: &mut Vec<u8>) -> Result<(), Closed> {
        self.current = None;
        let built = match self.folder.take() {
            Some(CurrentFolder::Here) => Ok(()),
            Some(CurrentFolder::Open(folder)) => match on_disk(move || folder.build()).await? {
                Ok(complete) => self.finish(complete).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            },
            None => Err("no folder was announced".to_owned()),
        };
        match built {
            Ok(()) => Answer::Stored { kind: FrameType::TEXT, bytes: 0, duplicate: false }.emit(answers),
            Err(reason) => failed(reason).emit(answers),
        }
        Ok(())
    }
}

/// Begins a transfer, after the older connection of the same one has ended. `None` when that does not end.
async fn take_over<T, F>(begin: impl Fn() -> F) -> Result<Option<Begun<T>>, Refusal>
where
    F: Future<Output = Result<Begun<T>, Refusal>>,
{
    for _ in 0..TAKE_OVER_TRIES {
        match begin().await? {
            Begun::Busy(mut alive) => {
                // Closed when the other connection lets go; that is the only thing that can happen to it.
                let _ = timeout(TAKE_OVER_PATIENCE, alive.changed()).await;
            }
            begun @ (Begun::Ready(_) | Begun::Here) => return Ok(Some(begun)),
        }
    }
    Ok(None)
}

fn failed(reason: String) -> Answer {
    // As to a TEXT frame, as every control frame is answered.
    Answer::Failed { kind: FrameType::TEXT, reason }
}

fn abort(id: TransferId, message: &str) -> FileStream {
    FileStream::Abort { id, message: message.to_owned() }
}

async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Closed> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Closed::Io(std::io::Error::other(error)))
}
