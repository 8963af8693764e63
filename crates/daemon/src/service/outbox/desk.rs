//! Where the state machine meets tasks and disk: one lock around it, and everything it wants done is done on release.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pilot_wire::ipc::{Code, Failure};
use pilot_wire::outbox::{Item, State};
use tokio::sync::{Notify, oneshot, watch};

use crate::trace::Tracer;

use super::disk::{Disk, OpenError};
use super::entry::{Now, Seq};
use super::lane::LaneKey;
use super::ledger::{Effects, LIMITS, Ledger};

/// Applications that wait for a message to come further, at the same time.
const WAITERS_MAX: usize = 4096;

/// Pause before the disk is tried again that refused.
const DISK_AGAIN: Duration = Duration::from_secs(1);

/// How often, and after what pause, a database is opened that an earlier life of this daemon may hold yet.
const LOCKED_TRIES: u32 = 250;
const LOCKED_PAUSE: Duration = Duration::from_millis(20);

/// Whether the outbox can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Opening,
    Open,
    /// Why not.
    Closed(String),
}

struct Waiter {
    until: State,
    tell: oneshot::Sender<Item>,
}

/// A hand-over that waits for the disk.
type Writing = Vec<oneshot::Sender<Result<(), String>>>;

struct Core {
    ledger: Ledger,
    waiters: BTreeMap<Seq, Vec<Waiter>>,
    waiting: usize,
    writing: BTreeMap<Seq, Writing>,
    carriers: HashMap<LaneKey, Arc<Notify>>,
    files: u64,
    open_again: bool,
    over: bool,
}

/// Shared by everybody who has to do with the outbox.
pub(super) struct Desk {
    core: Mutex<Core>,
    /// Rung when there is something to write, or the end has come.
    disk_bell: Condvar,
    pub(super) disk: Disk,
    /// Rung when lanes may want carriers.
    pub(super) look: Notify,
    /// Rung when there is room for live pieces.
    pub(super) live_room: Notify,
    phase: watch::Sender<Phase>,
    tracer: Tracer,
}

/// Told when a change is on disk, or why it will not be.
type OnDisk = oneshot::Receiver<Result<(), String>>;

impl Desk {
    pub(super) fn new(disk: Disk, seed: u32) -> Self {
        let core = Core {
            ledger: Ledger::new(LIMITS, seed),
            waiters: BTreeMap::new(),
            waiting: 0,
            writing: BTreeMap::new(),
            carriers: HashMap::new(),
            files: 0,
            open_again: false,
            over: false,
        };
        Self {
            core: Mutex::new(core),
            disk_bell: Condvar::new(),
            disk,
            look: Notify::new(),
            live_room: Notify::new(),
            phase: watch::Sender::new(Phase::Opening),
            tracer: Tracer::default(),
        }
    }

    /// The same for an outbox whose deliveries are traced.
    pub(super) fn traced(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// Nothing here leaves the state half changed when it panics, so the lock is never given up.
    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the state machine, and what it wants done after that.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Ledger, Now) -> T) -> T {
        let now = Now::read();
        let mut core = self.lock();
        let result = change(&mut core.ledger, now);
        self.follow_up(&mut core, now);
        result
    }

    fn follow_up(&self, core: &mut Core, now: Now) {
        let over = std::mem::take(&mut core.ledger.effects.over);
        if self.tracer.is_on() {
            for span in over.into_iter().filter_map(|seq| core.ledger.delivery(seq)) {
                self.tracer.record(|| span);
            }
        }
        let Effects { changes, nudged, moved, over: _, look, live_room } = &mut core.ledger.effects;
        let (nudged, moved) = (std::mem::take(nudged), std::mem::take(moved));
        let (look, live_room) = (std::mem::take(look), std::mem::take(live_room));
        if !changes.is_empty() {
            self.disk_bell.notify_one();
        }
        for key in nudged {
            if let Some(carrier) = core.carriers.get(&key) {
                carrier.notify_one();
            }
        }
        for seq in moved {
            core.tell_waiters(seq, now);
        }
        if look {
            self.look.notify_one();
        }
        if live_room {
            self.live_room.notify_waiters();
        }
    }

    /// Waits until the outbox can be used. One that could not be opened is tried again.
    pub(super) async fn ready(&self) -> Result<(), Failure> {
        let mut phase = self.phase.subscribe();
        if matches!(*phase.borrow_and_update(), Phase::Closed(_)) {
            self.phase.send_replace(Phase::Opening);
            self.lock().open_again = true;
            self.disk_bell.notify_one();
        }
        let settled = phase.wait_for(|phase| *phase != Phase::Opening).await.map(|phase| phase.clone());
        match settled {
            Ok(Phase::Open) => Ok(()),
            Ok(Phase::Closed(reason)) => {
                Err(Failure::new(Code::Internal, format!("the outbox cannot be opened: {reason}"))
                    .with_hint("see the daemon's log; `--now` sends without it"))
            }
            Ok(Phase::Opening) | Err(_) => Err(stopping()),
        }
    }

    /// A number for a long body.
    pub(super) fn file_number(&self) -> u64 {
        let mut core = self.lock();
        core.files += 1;
        core.files
    }

    /// Does something with the state machine that concerns a message, which then has to be on disk: what to wait for.
    pub(super) fn write<E>(
        &self,
        change: impl FnOnce(&mut Ledger, Now) -> Result<(Seq, bool), E>,
    ) -> Result<(Seq, bool, OnDisk), E> {
        let now = Now::read();
        let mut core = self.lock();
        let (seq, is_new) = change(&mut core.ledger, now)?;
        let (tell, told) = oneshot::channel();
        match core.ledger.is_durable(seq) {
            // Whoever asked is told at once; it cannot have gone.
            true => drop(tell.send(Ok(()))),
            false => core.writing.entry(seq).or_default().push(tell),
        }
        self.follow_up(&mut core, now);
        Ok((seq, is_new, told))
    }

    /// The message as it is, or what to wait for until it comes as far as `until`.
    pub(super) fn wait(
        &self,
        seq: Seq,
        until: State,
    ) -> Result<Result<Item, oneshot::Receiver<Item>>, Failure> {
        let now = Now::read();
        let mut core = self.lock();
        if core.ledger.has_reached(seq, until) {
            return core.ledger.item(seq, now).map(Ok).ok_or_else(forgotten);
        }
        if core.waiting >= WAITERS_MAX {
            core.drop_gone_waiters();
        }
        if core.waiting >= WAITERS_MAX {
            return Err(Failure::new(Code::Busy, "too many programs wait for messages")
                .with_hint("ask with `pilotctl outbox show ID`"));
        }
        let (tell, told) = oneshot::channel();
        core.waiting += 1;
        core.waiters.entry(seq).or_default().push(Waiter { until, tell });
        Ok(Err(told))
    }

    /// The bell of a lane's carrier.
    pub(super) fn enlist(&self, key: LaneKey) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        self.lock().carriers.insert(key, Arc::clone(&bell));
        bell
    }

    pub(super) fn discharge(&self, key: LaneKey) {
        self.lock().carriers.remove(&key);
    }

    /// What is to be written is still written; then the thread of the disk ends.
    pub(super) fn end(&self) {
        self.lock().over = true;
        self.disk_bell.notify_one();
        self.phase.send_replace(Phase::Closed("the daemon is stopping".to_owned()));
    }

    /// The thread of the disk: one commit for all that came while the last one was written.
    pub(super) fn run_disk(&self) {
        while !self.open() {
            let mut core = self.lock();
            while !core.open_again {
                if core.over {
                    return;
                }
                core = self.disk_bell.wait(core).unwrap_or_else(PoisonError::into_inner);
            }
            core.open_again = false;
        }
        loop {
            let changes = {
                let mut core = self.lock();
                loop {
                    let changes = std::mem::take(&mut core.ledger.effects.changes);
                    if !changes.is_empty() {
                        break changes;
                    }
                    if core.over {
                        return;
                    }
                    core = self.disk_bell.wait(core).unwrap_or_else(PoisonError::into_inner);
                }
            };
            let written = self.disk.commit(&changes);
            let now = Now::read();
            let mut core = self.lock();
            match written {
                Ok(()) => {
                    core.ledger.committed(&changes);
                    core.written(changes.keys(), &Ok(()));
                    self.follow_up(&mut core, now);
                }
                Err(reason) => {
                    tracing::error!(reason, "the outbox cannot be written");
                    core.written(changes.keys(), &Err(reason));
                    core.ledger.not_committed(changes);
                    if core.over {
                        return;
                    }
                    let waited = self.disk_bell.wait_timeout(core, DISK_AGAIN);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
            }
        }
    }

    fn open(&self) -> bool {
        let mut tries = 0;
        let opened = loop {
            match self.disk.open() {
                Err(OpenError::Locked(_)) if tries < LOCKED_TRIES && !self.lock().over => {
                    tries += 1;
                    std::thread::sleep(LOCKED_PAUSE);
                }
                opened => break opened,
            }
        };
        match opened {
            Ok(records) => {
                let mut core = self.lock();
                for (seq, record) in records {
                    core.ledger.load(seq, record);
                }
                let needed = core.ledger.files();
                core.files = self.disk.sweep(&needed);
                self.follow_up(&mut core, Now::read());
                drop(core);
                self.phase.send_replace(Phase::Open);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the outbox cannot be opened");
                self.phase.send_replace(Phase::Closed(error.to_string()));
                false
            }
        }
    }
}

impl Core {
    fn tell_waiters(&mut self, seq: Seq, now: Now) {
        let Some(waiters) = self.waiters.get_mut(&seq) else { return };
        let before = waiters.len();
        let ledger = &self.ledger;
        let mut kept = Vec::new();
        for waiter in std::mem::take(waiters) {
            match ledger.has_reached(seq, waiter.until).then(|| ledger.item(seq, now)) {
                // It may have stopped waiting.
                Some(Some(item)) => drop(waiter.tell.send(item)),
                Some(None) => {}
                None if waiter.tell.is_closed() => {}
                None => kept.push(waiter),
            }
        }
        self.waiting -= before - kept.len();
        match kept.is_empty() {
            true => drop(self.waiters.remove(&seq)),
            false => *waiters = kept,
        }
    }

    fn drop_gone_waiters(&mut self) {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.tell.is_closed());
            !waiters.is_empty()
        });
        self.waiting = self.waiters.values().map(Vec::len).sum();
    }

    fn written<'a>(&mut self, seqs: impl Iterator<Item = &'a Seq>, outcome: &Result<(), String>) {
        for seq in seqs {
            for tell in self.writing.remove(seq).unwrap_or_default() {
                let _ = tell.send(outcome.clone());
            }
        }
    }
}

/// The daemon ends.
pub(super) fn stopping() -> Failure {
    Failure::new(Code::Closed, "the daemon is stopping")
}

/// A message that is not known, or not any more.
pub(super) fn forgotten() -> Failure {
    Failure::new(Code::NotFound, "the outbox does not know this message")
        .with_hint("settled messages are forgotten after seven days, or when 10,000 newer ones are settled")
}
