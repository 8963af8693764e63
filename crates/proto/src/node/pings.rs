//! Pings without an answer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use pilot_wire::{NodeId, Port};

use super::Via;
use crate::PingId;

/// How long an answer is waited for.
const LIFE: Duration = Duration::from_secs(5);

/// Pings kept. Beyond this the oldest is given up.
pub(super) const PINGS_MAX: usize = 4096;

/// What a ping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Somebody wants to know.
    Application(PingId),
    /// To see whether the peer is there, and whether the way that the ping goes leads to it.
    Way,
}

#[derive(Debug)]
struct Ping {
    peer: NodeId,
    port: Port,
    token: [u8; 8],
    sent: Instant,
    /// Which way it went, once it did.
    via: Option<Via>,
    purpose: Purpose,
}

/// A ping that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answered {
    pub(super) purpose: Purpose,
    /// Which way the ping went.
    pub(super) sent: Option<Via>,
    pub(super) rtt: Duration,
}

/// All pings, the oldest first.
#[derive(Debug)]
pub(super) struct Pings {
    waiting: VecDeque<Ping>,
    next_port: u16,
}

impl Pings {
    pub(super) fn new() -> Self {
        Self { waiting: VecDeque::new(), next_port: *Port::EPHEMERAL.start() }
    }

    /// Pings without an answer so far.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Registers a ping and gives the port it is sent from. Returns a ping that had to make room.
    pub(super) fn start(
        &mut self,
        now: Instant,
        peer: NodeId,
        token: [u8; 8],
        purpose: Purpose,
    ) -> (Port, Option<Purpose>) {
        let port = Port(self.next_port);
        self.next_port = self.next_port.checked_add(1).unwrap_or(*Port::EPHEMERAL.start());
        let displaced = if self.waiting.len() >= PINGS_MAX { self.waiting.pop_front() } else { None };
        self.waiting.push_back(Ping { peer, port, token, sent: now, via: None, purpose });
        (port, displaced.map(|ping| ping.purpose))
    }

    /// The ping from this port goes out this way.
    pub(super) fn went(&mut self, peer: NodeId, port: Port, via: Via) {
        let ping = self.waiting.iter_mut().rev().find(|ping| ping.peer == peer && ping.port == port);
        if let Some(ping) = ping {
            ping.via.get_or_insert(via);
        }
    }

    /// The ping that this pong answers.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        peer: NodeId,
        port: Port,
        payload: &[u8],
    ) -> Option<Answered> {
        let answers =
            |ping: &Ping| ping.peer == peer && ping.port == port && payload.starts_with(&ping.token);
        let index = self.waiting.iter().position(answers)?;
        self.waiting.remove(index).map(|ping| Answered {
            purpose: ping.purpose,
            sent: ping.via,
            rtt: now - ping.sent,
        })
    }

    /// A ping that was given up.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Purpose> {
        self.waiting.front().filter(|ping| ping.sent + LIFE <= now)?;
        self.waiting.pop_front().map(|ping| ping.purpose)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|ping| ping.sent + LIFE)
    }
}
