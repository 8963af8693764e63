//! What arrives on the connection of a subscription.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pilot_wire::Addr;
use pilot_wire::events::{Decoder, Event, Note, NoteToken, Position, RESERVED_PREFIX, Source};
use tokio::io::AsyncReadExt;

use super::{Received, Subscribed, refused};
use crate::{Error, Stream};

/// Events and notes of one connection.
pub(super) struct Feed {
    stream: Stream,
    decoder: Decoder,
    broker: Addr,
    token: NoteToken,
    source: Source,
    lost: u64,
    lost_at_least: bool,
    demoted: bool,
    /// Came while the confirmation was awaited.
    early: VecDeque<Step>,
}

/// Something that came.
pub(super) enum Step {
    /// The subscription is in force.
    Subscribed(Subscribed),
    /// An event, and its place.
    Event(Received, Option<Position>),
    /// Nothing up to here is missing; `None` is the broker of the connection.
    At(Option<Addr>, Position),
    /// The broker does not allow it.
    Refused(String),
}

impl Feed {
    pub(super) fn new(stream: Stream, broker: Addr, token: NoteToken) -> Self {
        Self {
            stream,
            decoder: Decoder::new(),
            broker,
            token,
            source: Source::default(),
            lost: 0,
            lost_at_least: false,
            demoted: false,
            early: VecDeque::new(),
        }
    }

    /// Reads until the subscription is in force, or so much has come that it must be. Cancel-safe.
    pub(super) async fn until_subscribed(&mut self, most: usize) -> Result<Subscribed, Error> {
        loop {
            match self.step().await.ok_or(Error::Disconnected)? {
                Step::Subscribed(subscribed) => return Ok(subscribed),
                Step::Refused(reason) => return Err(refused(reason)),
                step @ (Step::Event(..) | Step::At(..)) => self.early.push_back(step),
            }
            if self.early.len() >= most {
                let policy = pilot_wire::events::Overflow::default();
                return Ok(Subscribed { brokers: 0, confirmed: true, policy, queue: 0 });
            }
        }
    }

    /// `None` at the end of the connection. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Step> {
        match self.early.pop_front() {
            Some(step) => Some(step),
            None => self.step().await,
        }
    }

    async fn step(&mut self) -> Option<Step> {
        loop {
            while let Some(event) = self.decoder.next_event().ok()? {
                if let Some(step) = self.read(event) {
                    return Some(step);
                }
            }
            self.decoder.buffer_mut().reserve(16 << 10);
            if self.stream.read_buf(self.decoder.buffer_mut()).await.ok()? == 0 {
                return None;
            }
        }
    }

    fn read(&mut self, event: Event) -> Option<Step> {
        if !event.topic.starts_with(RESERVED_PREFIX) {
            return Some(self.received(event));
        }
        match self.token.read(&event)? {
            Note::Subscribed { brokers, overflow, queue } => {
                return Some(Step::Subscribed(Subscribed {
                    brokers,
                    confirmed: true,
                    policy: overflow,
                    queue,
                }));
            }
            Note::At { broker, at } => return Some(Step::At(broker, at)),
            Note::Replayed { answer: None, at } => return Some(Step::At(None, at)),
            Note::Refused { reason } => return Some(Step::Refused(reason)),
            Note::From(source) => self.source = source,
            Note::Lost { events, at_least, answer: _ } => {
                self.lost += events;
                self.lost_at_least |= at_least;
            }
            Note::Demoted => self.demoted = true,
            Note::Replayed { answer: Some(_), .. } => {}
        }
        None
    }

    fn received(&mut self, event: Event) -> Step {
        let source = std::mem::take(&mut self.source);
        let time = source.time.map_or_else(SystemTime::now, |time| UNIX_EPOCH + Duration::from_nanos(time));
        let received = Received {
            topic: event.topic,
            payload: event.payload,
            publisher: source.publisher,
            hostname: source.hostname,
            broker: Some(source.via.unwrap_or(self.broker)),
            time,
            seq: source.at.map(|at| at.seq),
            replayed: source.replayed,
            lost: std::mem::take(&mut self.lost),
            lost_at_least: std::mem::take(&mut self.lost_at_least),
            demoted: std::mem::take(&mut self.demoted),
        };
        Step::Event(received, source.at)
    }
}
