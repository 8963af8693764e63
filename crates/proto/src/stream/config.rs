//! The limits and times of a stream.

use std::{num::NonZeroU32, time::Duration};

use pilot_wire::Seq;

use super::Congestion;

/// Buffers smaller than this could not hold one segment and a window for the next.
const MIN_BUFFER: usize = 16 << 10;

/// What a stream may use and how long it waits. The memory of one connection is bounded by
/// `send_buffer + receive_buffer` and a few per cent for book-keeping; idle connections hold no buffers at all.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes that are kept until the peer acknowledged them. A write takes what fits.
    pub send_buffer: usize,
    /// Bytes that are kept until the application read them, in order or not. This is what the window announces.
    pub receive_buffer: usize,
    /// Payload bytes per packet that any path carries without fragments (spec/dataplane.md 3.3).
    pub path_segment: u16,
    /// The largest segment that we take from a peer that asks.
    pub max_segment: u16,
    /// The first congestion window in bytes, as the reference has it (spec/dataplane.md 3.7).
    pub initial_window: u32,
    /// How the stream finds out how fast it may send.
    pub congestion: Congestion,
    /// The longest wait between two transmissions of the same segment.
    pub max_rto: Duration,
    /// How long a dial may stay without an answer. Peers behind relays need up to 30 s (spec/dataplane.md 7).
    pub connect_timeout: Duration,
    /// How long sent data may stay unacknowledged by a peer from which nothing is heard (RFC 5482).
    pub give_up: Duration,
    /// After this much silence the peer is probed; nothing means never.
    pub keepalive: Option<Duration>,
    /// After this much silence, probes included, the stream ends; nothing means never.
    pub idle_timeout: Option<Duration>,
    /// How long the ports of a closed stream stay reserved for stray packets.
    pub time_wait: Duration,
    /// How long a closed stream waits for the peer to finish its side.
    pub finish_timeout: Duration,
    /// Whether stream options are offered in the SYN. Off, the peer takes us for release 1.18.
    pub options: bool,
    /// Whether a SYN carries the first bytes of the stream, and those of a peer's SYN are taken. Whoever takes them must
    /// not [`accept`](super::Stream::accept) a late copy of the SYN after the stream is over.
    pub early_data: bool,
    /// Where the sequence numbers of our side begin. At random if nothing is said; the wrap of 32 bits can be tried with it.
    pub first_sequence: Option<Seq>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            send_buffer: 4 << 20,
            receive_buffer: 4 << 20,
            path_segment: 1152,
            max_segment: 16 << 10,
            initial_window: 40 << 10,
            congestion: Congestion::default(),
            max_rto: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(30),
            give_up: Duration::from_secs(60),
            keepalive: Some(Duration::from_secs(60)),
            idle_timeout: Some(Duration::from_secs(120)),
            time_wait: Duration::from_secs(10),
            finish_timeout: Duration::from_secs(60),
            options: true,
            early_data: true,
            first_sequence: None,
        }
    }
}

/// The part of [`Config`] that every stream carries, in milliseconds: ten thousand idle streams shall not hold ten
/// thousand copies of it all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) send_buffer: usize,
    pub(super) receive_buffer: usize,
    connect_timeout: u32,
    give_up: u32,
    keepalive: Option<NonZeroU32>,
    idle_timeout: Option<NonZeroU32>,
    time_wait: u32,
    finish_timeout: u32,
    max_segment: u16,
    pub(super) options: bool,
    pub(super) early_data: bool,
}

impl Limits {
    pub(super) fn of(config: &Config) -> Self {
        let optional = |time: Option<Duration>| time.and_then(|time| NonZeroU32::new(millis(time)));
        Self {
            send_buffer: config.send_buffer.max(MIN_BUFFER),
            receive_buffer: config.receive_buffer.max(MIN_BUFFER),
            connect_timeout: millis(config.connect_timeout),
            give_up: millis(config.give_up),
            keepalive: optional(config.keepalive),
            idle_timeout: optional(config.idle_timeout),
            time_wait: millis(config.time_wait),
            finish_timeout: millis(config.finish_timeout),
            max_segment: config.max_segment,
            options: config.options,
            early_data: config.options && config.early_data,
        }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        time(self.connect_timeout)
    }

    pub(super) fn give_up(&self) -> Duration {
        time(self.give_up)
    }

    pub(super) fn keepalive(&self) -> Option<Duration> {
        self.keepalive.map(|millis| time(millis.get()))
    }

    pub(super) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout.map(|millis| time(millis.get()))
    }

    pub(super) fn time_wait(&self) -> Duration {
        time(self.time_wait)
    }

    pub(super) fn finish_timeout(&self) -> Duration {
        time(self.finish_timeout)
    }

    pub(super) fn max_segment(&self) -> u16 {
        self.max_segment
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn time(millis: u32) -> Duration {
    Duration::from_millis(u64::from(millis))
}
