//! Looking for a registry among several: attempts that overlap, so that one which is dead or hangs delays nobody much.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::connection::{Access, Connection, Lost};

/// Time for one connection to come about, with TLS.
pub(super) const CONNECT_WAIT: Duration = Duration::from_secs(5);

/// How long a registry may take before the next one is tried beside it. A handshake half around the world takes less.
const HEAD_START: Duration = Duration::from_millis(500);

/// A registry that was reached.
pub(super) struct Found {
    /// Which of the addresses.
    pub(super) index: usize,
    pub(super) connection: Connection,
}

/// Attempts under way. The first that leads to a connection wins; the others end with this.
pub(super) struct Race {
    addresses: Vec<String>,
    access: Access,
    ahead: VecDeque<usize>,
    under_way: JoinSet<(usize, Result<Connection, Lost>)>,
    next: Instant,
    failures: Vec<(usize, Lost)>,
}

impl Race {
    /// Tries `order`, numbers of `addresses`, one after the other.
    pub(super) fn new(addresses: &[String], order: impl IntoIterator<Item = usize>, access: &Access) -> Self {
        Self {
            addresses: addresses.to_vec(),
            access: access.clone(),
            ahead: order.into_iter().collect(),
            under_way: JoinSet::new(),
            next: Instant::now(),
            failures: Vec::new(),
        }
    }

    /// The first that is reached, or why none is. Nothing is lost when the future is dropped before.
    pub(super) async fn finish(&mut self) -> Result<Found, Lost> {
        loop {
            let is_due = self.under_way.is_empty() || Instant::now() >= self.next;
            if is_due && let Some(index) = self.ahead.pop_front() {
                self.start(index);
            }
            tokio::select! {
                ended = self.under_way.join_next() => match ended {
                    Some(Ok((index, Ok(connection)))) => return Ok(Found { index, connection }),
                    Some(Ok((index, Err(lost)))) => {
                        self.failures.push((index, lost));
                        self.next = Instant::now();
                    }
                    // It ended by a fault of ours, which has been told by then.
                    Some(Err(_)) => {}
                    None => return Err(self.failure()),
                },
                () = sleep_until(self.next), if !self.ahead.is_empty() => {}
            }
        }
    }

    fn start(&mut self, index: usize) {
        let (address, access) = (self.addresses[index].clone(), self.access.clone());
        self.next = Instant::now() + HEAD_START;
        self.under_way.spawn(async move {
            let opened = timeout(CONNECT_WAIT, Connection::open(&address, &access)).await;
            (index, opened.unwrap_or(Err(Lost::NoConnection)))
        });
    }

    fn failure(&mut self) -> Lost {
        let mut failures = std::mem::take(&mut self.failures);
        match failures.len() {
            0 => Lost::NoConnection,
            1 => failures.remove(0).1,
            _ => {
                let each = failures.iter().map(|(index, lost)| format!("{}: {lost}", self.addresses[*index]));
                Lost::Everywhere(each.collect::<Vec<_>>().join("; "))
            }
        }
    }
}
