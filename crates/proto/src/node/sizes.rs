//! What a peer and a stream cost before they carry anything.

use std::mem::size_of;

use super::peer::Peer;
use super::streams::Entry;
use crate::stream::Stream;

/// Ten thousand idle streams of a daemon have 20 MB between them (docs/performance.md); the rest of that is in tables, in
/// what a stream has on the heap, and with the daemon.
const STREAM_MAX: usize = 1536;

/// A thousand peers are a few megabytes, whatever they do.
const PEER_MAX: usize = 2048;

#[test]
fn an_idle_stream_and_an_idle_peer_stay_small() {
    println!("stream {}, its place {}, peer {}", size_of::<Stream>(), size_of::<Entry>(), size_of::<Peer>());
    assert!(size_of::<Stream>() <= STREAM_MAX, "a stream takes {} bytes", size_of::<Stream>());
    assert!(size_of::<Peer>() <= PEER_MAX, "a peer takes {} bytes", size_of::<Peer>());
}
