//! Who has news: connections of local programs that can be read or written again, or may go on.
//!
//! The loop serves every connection itself. So that it looks only at those where something happened, each connection is
//! polled with a waker of its own, its bell; a bell that rings puts its connection on the board and wakes the loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::driver::ClientId;

/// Whose bells rang.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Mutex<Rung>>);

#[derive(Debug, Default)]
struct Rung {
    /// Each connection at most once, in the order of ringing.
    clients: Vec<ClientId>,
    /// The loop, while it waits.
    driver: Option<Waker>,
}

/// The bell of one connection. It counts once until it is [answered](Bell::answer).
#[derive(Debug)]
pub(crate) struct Bell {
    client: ClientId,
    rang: AtomicBool,
    board: Board,
}

impl Board {
    pub(crate) fn bell(&self, client: ClientId) -> Arc<Bell> {
        Arc::new(Bell { client, rang: AtomicBool::new(false), board: self.clone() })
    }

    /// Ready when a bell rang that was not taken yet.
    pub(crate) fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        let mut rung = self.lock();
        if !rung.clients.is_empty() {
            return Poll::Ready(());
        }
        match &mut rung.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => rung.driver = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether a bell rang that was not taken yet.
    pub(crate) fn is_rung(&self) -> bool {
        !self.lock().clients.is_empty()
    }

    /// Exchanges the list of connections whose bells rang for `empty`.
    pub(crate) fn take(&self, empty: &mut Vec<ClientId>) {
        debug_assert!(empty.is_empty(), "what was taken before has been served");
        let mut rung = self.lock();
        // It is awake, and looks again before it waits.
        rung.driver = None;
        std::mem::swap(&mut rung.clients, empty);
    }

    fn lock(&self) -> MutexGuard<'_, Rung> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bell {
    pub(crate) fn ring(&self) {
        if self.rang.swap(true, Ordering::AcqRel) {
            return;
        }
        let driver = {
            let mut rung = self.board.lock();
            rung.clients.push(self.client);
            rung.driver.take()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// The connection is looked at now: what happens from here on rings again.
    pub(crate) fn answer(&self) {
        self.rang.store(false, Ordering::Release);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(board: &Board) -> Vec<ClientId> {
        let mut taken = Vec::new();
        board.take(&mut taken);
        taken
    }

    #[test]
    fn a_bell_counts_once_until_it_is_answered() {
        let board = Board::default();
        let (first, second) = (board.bell(ClientId(1)), board.bell(ClientId(2)));
        second.ring();
        first.ring();
        second.ring();
        assert_eq!(taken(&board), [ClientId(2), ClientId(1)]);
        first.ring();
        assert_eq!(taken(&board), [], "nobody has looked yet");
        first.answer();
        first.ring();
        assert_eq!(taken(&board), [ClientId(1)]);
    }

    #[test]
    fn a_bell_wakes_the_loop_that_waits() {
        struct Count(std::sync::atomic::AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(0.into()));
        let waker = Waker::from(count.clone());
        let board = Board::default();
        let bells = [board.bell(ClientId(1)), board.bell(ClientId(2))];
        assert!(board.poll_rung(&Context::from_waker(&waker)).is_pending());
        bells.iter().for_each(|bell| bell.ring());
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "one wake-up is enough");
        assert!(board.poll_rung(&Context::from_waker(&waker)).is_ready());
    }
}
