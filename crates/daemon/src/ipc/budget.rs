//! How much of one program's frames the driver may hold: the brake for a program that asks more than it lets happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pilot_wire::ipc::MAX_FRAME;

use super::bell::Bell;

/// Bytes of frames of one client that the driver may hold: four of the longest.
const BUDGET: usize = 4 << 20;

/// Least that a frame counts, so that small requests are bounded in number: 4096 of them.
const LEAST_CHARGE: usize = 1 << 10;

/// The budget of one client.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    held: AtomicUsize,
    /// A frame waits for its share.
    wanted: AtomicBool,
    bell: Arc<Bell>,
}

/// A frame's share of its client's budget, given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: usize,
    account: Arc<Account>,
}

impl Budget {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self(Arc::new(Account { held: AtomicUsize::new(0), wanted: AtomicBool::new(false), bell }))
    }

    /// The share of a frame of so many bytes; `None` when too much is held, and then the bell rings once some of it is
    /// given back.
    pub(crate) fn charge(&self, frame: usize) -> Option<Charge> {
        let account = &self.0;
        let bytes = frame.clamp(LEAST_CHARGE, MAX_FRAME);
        let fits = || account.held.load(Ordering::SeqCst) + bytes <= BUDGET;
        if !fits() {
            // Other tasks give back at any time: told so first, then looked at again.
            account.wanted.store(true, Ordering::SeqCst);
            if !fits() {
                return None;
            }
        }
        account.held.fetch_add(bytes, Ordering::SeqCst);
        Some(Charge { bytes, account: account.clone() })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.account.wanted.load(Ordering::SeqCst) && self.account.wanted.swap(false, Ordering::SeqCst) {
            self.account.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bell::Board;
    use super::*;
    use crate::driver::ClientId;

    #[test]
    fn what_is_given_back_rings_for_the_frame_that_waits() {
        let board = Board::default();
        let budget = Budget::new(board.bell(ClientId(1)));
        let rung = || {
            let mut clients = Vec::new();
            board.take(&mut clients);
            clients
        };
        let mut held: Vec<_> = (0..4).map(|_| budget.charge(MAX_FRAME).unwrap()).collect();
        drop(budget.charge(0));
        assert_eq!(rung(), [], "nobody waited before");
        assert!(budget.charge(1).is_none());
        held.pop();
        assert_eq!(rung(), [ClientId(1)]);
        assert!(budget.charge(1).is_some());
    }

    #[test]
    fn small_frames_are_bounded_in_number() {
        let budget = Budget::new(Board::default().bell(ClientId(1)));
        let held: Vec<_> = std::iter::from_fn(|| budget.charge(1)).collect();
        assert_eq!(held.len(), BUDGET / LEAST_CHARGE);
    }
}
