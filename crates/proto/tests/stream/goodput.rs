//! How fast a stream is on links with loss, in virtual time.

use std::time::Duration;

use pilot_proto::stream::Config;

use crate::pair::{App, Link, Pair};

/// Megabits per second of payload over `seconds` of virtual time.
fn goodput(seed: u64, link: Link, config: Config, seconds: u64) -> (f64, Pair) {
    let app = App { sends: u64::MAX / 2, ..App::sender(0) };
    let mut pair = Pair::new(seed, [link, Link { loss: 0.0, ..link }], [app, App::reader()], [config; 2]);
    pair.run_until(Duration::from_secs(seconds), |_| false);
    (pair.sides[1].received as f64 * 8.0 / 1e6 / seconds as f64, pair)
}

fn measured(loss: f64, seconds: u64, config: Config) -> f64 {
    let link = Link {
        loss,
        rate: Some(100_000_000 / 8),
        queue: 250_000,
        ..Link::perfect(Duration::from_millis(10))
    };
    let (mbit, pair) = goodput(7, link, config, seconds);
    let stats = pair.sides[0].stream.as_ref().unwrap().stats();
    println!(
        "loss {loss}: {mbit:.1} Mbit/s, window {}, rtt {:?}, {} retransmits, {} time-outs, {} packets out, {} acks",
        stats.congestion_window,
        stats.smoothed_rtt,
        stats.retransmits,
        stats.timeouts,
        pair.sides[0].emitted,
        pair.sides[1].emitted,
    );
    mbit
}

#[test]
fn recovery_does_not_collapse_under_random_loss() {
    // What RFC 9438 promises in its Reno-friendly region: about 1.2 / sqrt(loss) segments per round trip.
    assert!(measured(0.0, 3, Config::default()) > 80.0);
    assert!(measured(0.01, 30, Config::default()) > 5.0);
    assert!(measured(0.05, 30, Config::default()) > 1.8);
}

#[test]
fn the_reference_dialect_is_limited_by_its_128_segments_only() {
    let legacy = Config { options: false, ..Config::default() };
    assert!(measured(0.0, 3, legacy) > 50.0);
    assert!(measured(0.01, 30, legacy) > 5.0);
}

#[test]
fn reordering_is_not_taken_for_loss() {
    let link = Link {
        jitter: Duration::from_millis(4),
        rate: Some(12_500_000),
        queue: 500_000,
        ..Link::perfect(Duration::from_millis(10))
    };
    let (mbit, pair) = goodput(1, link, Config::default(), 3);
    let stats = pair.sides[0].stream.as_ref().unwrap().stats();
    println!(
        "reordering: {mbit:.1} Mbit/s, {} of {} segments repeated",
        stats.retransmits, stats.segments_sent
    );
    assert!(mbit > 40.0, "{mbit}");
    assert!(stats.retransmits * 20 < stats.segments_sent);
}
