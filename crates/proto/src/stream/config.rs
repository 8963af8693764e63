//! The limits and times of a stream.

use std::time::Duration;

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            send_buffer: 4 << 20,
            receive_buffer: 4 << 20,
            path_segment: 1152,
            max_segment: 16 << 10,
            initial_window: 40 << 10,
            max_rto: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(30),
            give_up: Duration::from_secs(60),
            keepalive: Some(Duration::from_secs(60)),
            idle_timeout: Some(Duration::from_secs(120)),
            time_wait: Duration::from_secs(3),
            finish_timeout: Duration::from_secs(60),
            options: true,
        }
    }
}
