//! What `connections` shows of a stream (spec/local.md 1.9).

use std::time::Duration;

use super::State;

/// A snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Where the stream is in its life.
    pub state: State,
    /// The peer can end one direction alone; one of 1.18 ends both.
    pub half_close: bool,
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Slow-start threshold in bytes; the maximum before the first loss.
    pub slow_start_threshold: u64,
    /// Bytes thought to be in the network.
    pub in_flight: u64,
    /// Smoothed round-trip time, zero before the first sample.
    pub smoothed_rtt: Duration,
    /// Mean deviation of the round-trip time.
    pub rtt_variation: Duration,
    /// Segments not acknowledged.
    pub unacknowledged_segments: u64,
    /// Holes in what was received.
    pub holes: u64,
    /// What the peer still takes, in bytes.
    pub peer_window: u64,
    /// What we still take, in bytes.
    pub receive_window: u64,
    /// Losses are being repaired.
    pub in_recovery: bool,
    /// Payload bytes sent, each counted once.
    pub bytes_sent: u64,
    /// Payload bytes received in order, each counted once.
    pub bytes_received: u64,
    /// Packets sent with data.
    pub segments_sent: u64,
    /// Packets received.
    pub segments_received: u64,
    /// Segments sent again for any reason.
    pub retransmits: u64,
    /// Segments sent again without waiting for a time-out.
    pub fast_retransmits: u64,
    /// Retransmission time-outs.
    pub timeouts: u64,
    /// Selective acknowledgements received.
    pub sacks_received: u64,
    /// Selective acknowledgements sent.
    pub sacks_sent: u64,
    /// Acknowledgements that moved nothing.
    pub duplicate_acks: u64,
}
