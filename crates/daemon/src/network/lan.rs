//! Nodes that trust each other find each other in one network, with no rendezvous in reach: by multicast DNS.
//!
//! A node announces a name that only holders of its key recognise, its addresses there and its port. Nothing is trusted of
//! what comes: the announcement of a peer that we trust already is a hint where to try, and the tunnel proves the rest.
//! A node that trusts nobody neither speaks nor listens.

mod message;
mod schedule;
mod sockets;
mod tag;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pilot_wire::ipc::LanStatus;
use pilot_wire::{NodeId, PublicKey};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{News, Surroundings, tell};
use crate::driver::Command;

use message::{Announcement, Message};
use schedule::Schedule;
use sockets::{DATAGRAM_MAX, Sockets};
use tag::Instance;

/// Each announcement costs a hash for each peer that we trust. So many are spent in a second, a few hundredths of it:
/// strangers must not keep a host busy, and a room full of nodes must not hide a peer.
const HASHES_PER_SECOND: usize = 50_000;

/// Addresses of one peer that are passed on.
const ADDRESSES_MAX: usize = 4;

/// A peer that says the same again is passed on after this long: by then the node may have given the address up.
const AGAIN: Duration = Duration::from_secs(2);

/// Pause after an error of a socket.
const AFTER_TROUBLE: Duration = Duration::from_secs(1);

/// Time that taking the announcement back may take when the daemon stops.
const GOODBYE: Duration = Duration::from_millis(200);

/// Whom to look for, and as whom to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Book {
    pub(crate) own: PublicKey,
    /// The peers that we trust and whose key we know.
    pub(crate) peers: Vec<(NodeId, PublicKey)>,
}

/// The running part.
pub(crate) struct Lan {
    wish: Arc<Notify>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Lan {
    /// Speaks and listens for as long as the value lives. `listen` is the address of the tunnel socket.
    pub(crate) fn start(
        listen: SocketAddr,
        seen: watch::Receiver<Surroundings>,
        book: watch::Receiver<Book>,
        driver: mpsc::Sender<Command>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let wish = Arc::new(Notify::new());
        let finder = Finder {
            listen,
            seen,
            book,
            driver,
            wish: Arc::clone(&wish),
            told: BTreeMap::new(),
            shown: None,
        };
        Self { wish, stop, task: tokio::spawn(finder.run(stopped)) }
    }

    /// Our node misses a peer: ask who is there.
    pub(crate) fn wish(&self) -> Arc<Notify> {
        Arc::clone(&self.wish)
    }

    /// Takes the announcement back.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        let abort = self.task.abort_handle();
        if timeout(GOODBYE, self.task).await.is_err() {
            abort.abort();
        }
    }
}

/// The task.
struct Finder {
    listen: SocketAddr,
    seen: watch::Receiver<Surroundings>,
    book: watch::Receiver<Book>,
    driver: mpsc::Sender<Command>,
    wish: Arc<Notify>,
    /// What was passed on of each peer. Bounded by the peers that we trust.
    told: BTreeMap<NodeId, (Vec<SocketAddr>, Instant)>,
    shown: Option<LanStatus>,
}

/// Why a stay in a network ended.
enum End {
    /// Another network, another key, an old name: begin anew.
    Changed,
    /// The driver is gone.
    Over,
}

impl Finder {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            match self.stay(&mut stopped).await {
                End::Changed => {}
                End::Over => return,
            }
        }
    }

    /// One name in one set of networks.
    async fn stay(&mut self, stopped: &mut oneshot::Receiver<()>) -> End {
        let here = self.seen.borrow_and_update().clone();
        let book = self.book.borrow_and_update().clone();
        let opened = match (book.peers.is_empty(), Instance::draw(&book.own)) {
            (true, _) => Err("this node trusts nobody yet".to_owned()),
            (false, Err(error)) => Err(error.to_string()),
            (false, Ok(instance)) => {
                let links = sockets::links(&here.interfaces, &here.reachable(self.listen));
                Sockets::open(links).map(|sockets| (sockets, instance))
            }
        };
        let reason = opened.as_ref().err().cloned().unwrap_or_default();
        self.show(LanStatus { on: opened.is_ok(), reason }).await;
        match opened {
            Ok((sockets, instance)) => {
                let stay = Stay { sockets, instance, here, port: self.listen.port() };
                let end = tokio::select! {
                    end = self.talk(&stay, book.own) => end,
                    _ = stopped => End::Over,
                };
                stay.announce(true).await;
                end
            }
            Err(_) => tokio::select! {
                changed = self.seen.changed() => changed.map_or(End::Over, |()| End::Changed),
                changed = self.book.changed() => changed.map_or(End::Over, |()| End::Changed),
                _ = stopped => End::Over,
            },
        }
    }

    async fn talk(&mut self, stay: &Stay, own: PublicKey) -> End {
        let mut schedule = Schedule::new(Instant::now(), delay());
        let mut allowance = Allowance::new(Instant::now());
        let mut buffer = vec![0; DATAGRAM_MAX];
        loop {
            tokio::select! {
                heard = stay.sockets.hear(&mut buffer) => match heard {
                    Ok((length, from)) if sockets::is_from_around(&stay.here.interfaces, from) => {
                        match Message::parse(&buffer[..length]) {
                            Some(Message::Question { known }) if !known.contains(&stay.instance) => {
                                schedule.on_question(Instant::now(), delay());
                            }
                            // Whoever asks knows us: most often it is our own question that comes back.
                            Some(Message::Question { .. }) | None => {}
                            Some(Message::Announced(announced)) => {
                                let cost = self.book.borrow().peers.len();
                                for announcement in announced {
                                    if allowance.take(Instant::now(), cost) {
                                        self.on_announcement(stay, &announcement).await;
                                    }
                                }
                            }
                        }
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "nothing is heard in the network any more");
                        // A network that went away, most likely: begin anew, but not all the time.
                        sleep(AFTER_TROUBLE).await;
                        return End::Changed;
                    }
                },
                () = sleep_until(schedule.next()) => {
                    let due = schedule.take(Instant::now());
                    if due.renew {
                        return End::Changed;
                    }
                    if due.announce {
                        stay.announce(false).await;
                    }
                    if due.ask {
                        stay.ask().await;
                    }
                }
                () = self.wish.notified() => schedule.on_wish(Instant::now()),
                changed = self.seen.changed() => {
                    if changed.is_err() {
                        return End::Over;
                    }
                    if self.seen.borrow_and_update().interfaces != stay.here.interfaces {
                        return End::Changed;
                    }
                }
                changed = self.book.changed() => {
                    if changed.is_err() {
                        return End::Over;
                    }
                    let book = self.book.borrow_and_update();
                    if book.own != own || book.peers.is_empty() {
                        return End::Changed;
                    }
                    self.told.retain(|node, _| book.peers.iter().any(|(peer, _)| peer == node));
                    drop(book);
                    // Somebody new may have announced itself before it was trusted.
                    schedule.on_wish(Instant::now());
                }
            }
        }
    }

    /// Somebody announces itself: is it a peer?
    async fn on_announcement(&mut self, stay: &Stay, announcement: &Announcement) {
        if announcement.instance == stay.instance || announcement.port == 0 {
            return;
        }
        let is_peer = |(_, key): &&(NodeId, PublicKey)| announcement.instance.is_of(key);
        let found = self.book.borrow().peers.iter().find(is_peer).map(|(node, _)| *node);
        let Some(node) = found else { return };
        // An address elsewhere is not what an announcement in this network is for.
        let around =
            announcement.addresses.iter().filter(|ip| sockets::is_around(&stay.here.interfaces, **ip));
        let addresses: Vec<_> =
            around.take(ADDRESSES_MAX).map(|ip| SocketAddr::new(*ip, announcement.port)).collect();
        let now = Instant::now();
        if let Some((before, at)) = self.told.get(&node)
            && *before == addresses
            && now < *at + AGAIN
        {
            return;
        }
        self.told.insert(node, (addresses.clone(), now));
        for address in addresses {
            tell(&self.driver, News::Sighted(node, address)).await;
        }
    }

    async fn show(&mut self, status: LanStatus) {
        if self.shown.as_ref() != Some(&status) {
            self.shown = Some(status.clone());
            tell(&self.driver, News::Lan(status)).await;
        }
    }
}

/// One name in one set of networks.
struct Stay {
    sockets: Sockets,
    instance: Instance,
    here: Surroundings,
    port: u16,
}

impl Stay {
    async fn announce(&self, goodbye: bool) {
        for link in &self.sockets.links {
            let addresses = link.addresses.clone();
            let announcement = Announcement { instance: self.instance, port: self.port, addresses };
            self.sockets.say(link, &announcement.emit(goodbye)).await;
        }
    }

    async fn ask(&self) {
        for link in &self.sockets.links {
            self.sockets.say(link, &message::question(self.instance)).await;
        }
    }
}

/// How many hashes may be spent on announcements.
struct Allowance {
    left: usize,
    since: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { left: HASHES_PER_SECOND, since: now }
    }

    fn take(&mut self, now: Instant, cost: usize) -> bool {
        if now >= self.since + Duration::from_secs(1) {
            *self = Self::new(now);
        }
        let granted = self.left > 0;
        self.left = self.left.saturating_sub(cost);
        granted
    }
}

/// RFC 6762 6: 20 to 120 ms, so that not everybody answers at the same moment.
fn delay() -> Duration {
    let [share] = pilot_crypto::random_bytes().unwrap_or([u8::MAX]);
    Duration::from_millis(20 + u64::from(share) * 100 / 255)
}

#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing {
    use super::{Announcement, Message};

    /// A datagram of the local network (RFC 6762).
    pub fn lan(datagram: &[u8]) {
        let announced = match Message::parse(datagram) {
            Some(Message::Announced(announced)) => announced,
            Some(Message::Question { known }) => {
                assert!(known.len() <= datagram.len());
                return;
            }
            None => return,
        };
        for announcement in announced {
            let again = Message::parse(&Announcement::emit(&announcement, false));
            assert_eq!(again, Some(Message::Announced(vec![announcement])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_announcements_costs_a_bounded_number_of_hashes() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let granted = (0..10_000).filter(|_| allowance.take(start, 1000)).count();
        assert_eq!(granted, HASHES_PER_SECOND / 1000);
        assert!(
            allowance.take(start + Duration::from_secs(1), usize::MAX),
            "one a second, however many peers"
        );
        assert!(!allowance.take(start + Duration::from_secs(1), 1));
    }
}
