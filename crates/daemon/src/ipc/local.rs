//! Clients in this process: the built-in services, and the program around the node. No socket and no task is between
//! them and the driver, which takes what they wrote and hands them what it has for them itself.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use pilot_client::local::{End, Frames, Item, Taken};
use pilot_wire::StreamId;
use pilot_wire::ipc::{Command, MAX_FRAME, data_header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::io::{BUDGET, LEAST_CHARGE, Received};
use super::outbox::Outbox;
use crate::driver::ClientId;

/// Bytes of a frame that a client in this process still gets as one buffer with others.
const JOINED_MAX: usize = 16 << 10;

/// What is queued towards a client.
pub(crate) enum Outlet {
    /// For the writer of its socket.
    Socket(Outbox),
    /// For itself.
    Local(Handover),
}

/// What one turn has for a client in this process.
pub(crate) struct Handover {
    end: Arc<End>,
    items: Vec<Item>,
}

impl Outlet {
    /// Whether the client keeps up: if not, produce nothing more for it until it does. One in this process is bounded by
    /// credit and by its own requests alone.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Socket(outbox) => outbox.has_room(),
            Self::Local(_) => true,
        }
    }

    /// Queues the frame that `emit` appends, length included.
    pub(crate) fn push(&mut self, emit: impl FnOnce(&mut Vec<u8>)) {
        match self {
            Self::Socket(outbox) => outbox.push(emit),
            Self::Local(handover) => match handover.items.last_mut() {
                Some(Item::Frames(frames)) if frames.len() < JOINED_MAX => emit(frames),
                Some(Item::Frames(_) | Item::Data { .. }) | None => {
                    let mut frames = Vec::new();
                    emit(&mut frames);
                    handover.items.push(Item::Frames(frames));
                }
            },
        }
    }

    /// Queues data of a stream without copying it.
    pub(crate) fn push_data(&mut self, stream: StreamId, data: Bytes) {
        match self {
            Self::Socket(outbox) => {
                outbox.push_data(&data_header(Command::Recv, stream, data.len()), data);
            }
            Self::Local(handover) => handover.items.push(Item::Data { stream, data }),
        }
    }

    /// Hands over what is queued, unless the writer is still busy.
    pub(crate) fn flush(&mut self) {
        match self {
            Self::Socket(outbox) => outbox.flush(),
            Self::Local(handover) => handover.flush(),
        }
    }

    /// Hands over what is queued even if the writer is busy, for nothing will follow.
    pub(crate) fn flush_last(&mut self) {
        match self {
            Self::Socket(outbox) => outbox.flush_last(),
            Self::Local(handover) => handover.flush(),
        }
    }

    /// The writer has written the last batch.
    pub(crate) fn written(&mut self) {
        if let Self::Socket(outbox) = self {
            outbox.written();
        }
    }
}

impl Handover {
    fn flush(&mut self) {
        if !self.items.is_empty() {
            self.end.deliver(&mut self.items);
        }
    }
}

/// All clients in this process, seen from the driver.
pub(crate) struct Locals {
    tower: Arc<Tower>,
    clients: BTreeMap<ClientId, Local>,
}

/// One of them.
struct Local {
    end: Arc<End>,
    bell: Arc<Bell>,
    waker: Waker,
    items: VecDeque<Item>,
    /// Frames begun of the first item.
    frames: Frames,
    budget: Arc<Semaphore>,
    /// The frame that the budget is used up for.
    choked: Option<Choked>,
    gone: bool,
}

struct Choked {
    frame: Bytes,
    charge: Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>,
}

/// What a client in this process did.
#[derive(Debug)]
pub(crate) enum LocalEvent {
    /// It sent a frame.
    Frame(Received),
    /// It wrote to one of its streams.
    Data(StreamId, Bytes),
    /// It is gone.
    Gone,
}

/// Wakes the driver.
#[derive(Default)]
struct Tower {
    rung: AtomicBool,
    driver: AtomicWaker,
}

/// Says which client it was.
struct Bell {
    rung: AtomicBool,
    tower: Arc<Tower>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.tower.rung.store(true, Ordering::Release);
        self.tower.driver.wake();
    }
}

impl Locals {
    pub(crate) fn new() -> Self {
        Self { tower: Arc::default(), clients: BTreeMap::new() }
    }

    /// A new client; gives the way to it.
    pub(crate) fn add(&mut self, id: ClientId, end: End) -> Outlet {
        let end = Arc::new(end);
        let bell = Arc::new(Bell { rung: AtomicBool::new(false), tower: self.tower.clone() });
        // It may have written something before.
        bell.wake_by_ref();
        let local = Local {
            end: end.clone(),
            waker: bell.clone().into(),
            bell,
            items: VecDeque::new(),
            frames: Frames::default(),
            budget: Arc::new(Semaphore::new(BUDGET)),
            choked: None,
            gone: false,
        };
        self.clients.insert(id, local);
        Outlet::Local(Handover { end, items: Vec::new() })
    }

    pub(crate) fn remove(&mut self, id: ClientId) {
        self.clients.remove(&id);
    }

    /// Resolves when a client has done something. May be dropped and called again.
    pub(crate) async fn rung(&mut self) {
        poll_fn(|cx| {
            // In this order, so that a bell in between is heard.
            self.tower.driver.register(cx.waker());
            match self.tower.rung.swap(false, Ordering::AcqRel) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// The clients that have done something since this was last asked.
    pub(crate) fn take_rung(&self) -> Vec<ClientId> {
        let rung = |local: &Local| local.bell.rung.swap(false, Ordering::AcqRel);
        self.clients.iter().filter(|(_, local)| rung(local)).map(|(id, _)| *id).collect()
    }

    /// A client has more than was taken in this turn.
    pub(crate) fn ring(&self, id: ClientId) {
        if let Some(local) = self.clients.get(&id) {
            local.bell.wake_by_ref();
        }
    }

    /// Whether a client has done something that nobody has looked at.
    pub(crate) fn is_rung(&self) -> bool {
        self.clients.values().any(|local| local.bell.rung.load(Ordering::Acquire))
    }

    /// The next thing that a client did; `None` until its bell rings again.
    pub(crate) fn next(&mut self, id: ClientId) -> Option<LocalEvent> {
        self.clients.get_mut(&id)?.next()
    }
}

impl Local {
    fn next(&mut self) -> Option<LocalEvent> {
        if let Some(choked) = &mut self.choked {
            let Poll::Ready(charge) = choked.charge.as_mut().poll(&mut Context::from_waker(&self.waker))
            else {
                return None;
            };
            let frame = std::mem::take(&mut choked.frame);
            self.choked = None;
            return charge.map(|charge| LocalEvent::Frame(Received { frame, charge }));
        }
        loop {
            if let Some(frame) = self.frames.next() {
                return self.charged(frame);
            }
            match self.items.pop_front() {
                Some(Item::Frames(frames)) => self.frames = Frames::of(frames),
                Some(Item::Data { stream, data }) => return Some(LocalEvent::Data(stream, data)),
                None if self.gone => return Some(LocalEvent::Gone),
                None => {
                    self.gone = self.end.take(&mut self.items, &self.waker) == Taken::Gone;
                    if self.items.is_empty() && !self.gone {
                        return None;
                    }
                }
            }
        }
    }

    /// The frame, once there is budget for it.
    fn charged(&mut self, frame: Bytes) -> Option<LocalEvent> {
        let charge = frame.len().clamp(LEAST_CHARGE, MAX_FRAME) as u32;
        match self.budget.clone().try_acquire_many_owned(charge) {
            Ok(charge) => Some(LocalEvent::Frame(Received { frame, charge })),
            Err(_) => {
                let budget = self.budget.clone();
                let charge = Box::pin(async move { budget.acquire_many_owned(charge).await.ok() });
                self.choked = Some(Choked { frame, charge });
                // Registers for the wake-up.
                self.next()
            }
        }
    }
}
