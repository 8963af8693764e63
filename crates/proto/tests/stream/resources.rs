//! What a stream costs, and what a hostile peer cannot make it cost.

use std::time::Duration;

use pilot_proto::stream::{Config, Stream};
use proptest::prelude::*;

use crate::{
    pair::{App, Link, Pair},
    script::{Peer, Script},
};

#[test]
fn an_idle_stream_is_small() {
    let size = size_of::<Stream>();
    println!("{size} bytes per idle stream");
    assert!(size <= 1536, "{size}");
}

#[test]
fn a_reader_that_stops_stops_the_sender_at_the_buffer() {
    let link = Link::perfect(Duration::from_millis(1));
    let config = Config { receive_buffer: 100_000, send_buffer: 50_000, ..Config::default() };
    let stuck = App { reads_per_ms: Some(0), ..App::reader() };
    let mut pair = Pair::new(3, [link; 2], [App::sender(1_000_000), stuck], [config; 2]);
    pair.run_until(Duration::from_secs(20), |_| false);
    let unread = pair.sides[1].stream.as_ref().unwrap().unread();
    assert!((90_000..=100_000).contains(&unread), "{unread}");
    assert!(pair.sides[0].written <= 150_000);
    pair.sides[1].app.reads_per_ms = None;
    pair.pump(1);
    assert!(pair.run_until(Duration::from_secs(60), Pair::both_gone));
    assert_eq!(pair.sides[1].received, 1_000_000);
}

#[test]
fn a_slow_reader_is_not_made_slower() {
    let link = Link::perfect(Duration::from_millis(1));
    let config = Config { receive_buffer: 64 << 10, ..Config::default() };
    for options in [true, false] {
        let config = Config { options, ..config };
        let slow = App { reads_per_ms: Some(5000), ..App::reader() };
        let mut pair = Pair::new(4, [link; 2], [App::sender(2_000_000), slow], [config; 2]);
        assert!(pair.run_until(Duration::from_secs(30), |pair| pair.sides[1].received == 2_000_000));
        assert!(pair.elapsed() < Duration::from_millis(600), "options {options}: {:?}", pair.elapsed());
    }
}

proptest! {
    /// Any sequence of packets in any state: no panic, no endless answers, no timer that never rests.
    #[test]
    fn hostile_packets_neither_panic_nor_amplify(
        extended: bool,
        packets in proptest::collection::vec(
            (0u8..16, -70_000i64..70_000, -3000i64..3000, any::<u16>(), 0usize..3000, 0u64..500, any::<u8>()),
            1..100,
        ),
    ) {
        let peer = if extended { Peer::Extended } else { Peer::Legacy };
        let mut script = Script::open(Config::default(), peer);
        let answered = script.hostile(&packets);
        // Each packet may cause an answer and a train of retransmissions of the little that was written.
        prop_assert!(answered <= packets.len() * 20 + 200, "{answered} packets for {}", packets.len());
    }
}
