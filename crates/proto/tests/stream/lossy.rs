//! Every byte once and in order, whatever the link does.

use std::time::Duration;

use pilot_proto::stream::{CloseReason, Config};
use proptest::prelude::*;

use crate::pair::{App, Link, Pair};

fn link() -> impl Strategy<Value = Link> {
    (
        0.0..0.3f64,
        0.0..0.1f64,
        0.0..0.05f64,
        0u64..40,
        0u64..100,
        proptest::option::of(100_000u64..10_000_000),
    )
        .prop_map(|(loss, duplicate, corrupt, delay, jitter, rate)| Link {
            delay: Duration::from_millis(delay),
            jitter: Duration::from_millis(jitter),
            loss,
            duplicate,
            corrupt,
            rate,
            queue: 200_000,
        })
}

fn app() -> impl Strategy<Value = App> {
    (0u64..60_000, 1usize..9000, any::<bool>(), proptest::option::of(1000usize..20_000)).prop_map(
        |(sends, chunk, finishes, reads_per_ms)| App {
            pattern: crate::pair::Pattern::Mixed,
            sends,
            chunk,
            finishes,
            closes_after: Some(u64::MAX),
            reads_per_ms,
        },
    )
}

fn config(options: bool, buffer: usize) -> Config {
    Config { options, send_buffer: buffer, receive_buffer: buffer, ..Config::default() }
}

proptest! {
    #[test]
    fn both_directions_arrive_complete_and_end(
        seed: u64,
        links in (link(), link()),
        apps in (app(), app()),
        options: bool,
        buffers in (16_000usize..200_000, 16_000usize..200_000),
    ) {
        // Somebody must end first: each closes as soon as it has read everything that the other sends.
        let (mut a, mut b) = apps;
        a.closes_after = Some(b.sends);
        b.closes_after = Some(a.sends);
        let config = [config(options, buffers.0), config(options, buffers.1)];
        let mut pair = Pair::new(seed, [links.0, links.1], [a, b], config);
        let gone = pair.run_until(Duration::from_secs(600), Pair::both_gone);
        prop_assert!(gone, "not over after {:?}: {}", pair.elapsed(), pair.show());
        let [a, b] = &pair.sides;
        let reasons = (a.reason, b.reason);
        // A peer that took all and is gone may be missed by the one that waits for its last acknowledgement.
        let silent_end = |reason| matches!(reason, Some(CloseReason::Finished | CloseReason::TimedOut { .. } | CloseReason::Discarded { .. }));
        prop_assert!(silent_end(a.reason) && silent_end(b.reason), "{reasons:?}");
        if a.reason == Some(CloseReason::Finished) {
            prop_assert_eq!(b.received, a.app.sends);
        }
        if b.reason == Some(CloseReason::Finished) {
            prop_assert_eq!(a.received, b.app.sends);
        }
    }
}

#[test]
fn a_link_that_loses_a_third_still_delivers_everything() {
    for seed in 0..20 {
        let link = Link {
            loss: 0.3,
            duplicate: 0.05,
            jitter: Duration::from_millis(30),
            ..Link::perfect(Duration::from_millis(10))
        };
        let mut pair =
            Pair::new(seed, [link; 2], [App::sender(200_000), App::reader()], [Config::default(); 2]);
        let done = pair.run_until(Duration::from_secs(300), |pair| pair.sides[1].received == 200_000);
        assert!(done, "seed {seed}: {} bytes after {:?}", pair.sides[1].received, pair.elapsed());
    }
}

#[test]
fn a_transfer_goes_on_within_a_second_of_an_outage() {
    for options in [true, false] {
        let link = Link { rate: Some(2_000_000), queue: 100_000, ..Link::perfect(Duration::from_millis(20)) };
        let config = Config { options, ..Config::default() };
        let mut pair = Pair::new(5, [link; 2], [App::sender(10_000_000), App::reader()], [config; 2]);
        let back = Duration::from_secs(21);
        pair.outage = Some((Duration::from_secs(1), back));
        pair.run_until(back, |_| false);
        let before = pair.sides[1].received;
        // The path tells the stream that the peer is heard again.
        pair.now = pair.start + back;
        let now = pair.now;
        for side in 0..2 {
            pair.sides[side].stream.as_mut().unwrap().path_recovered(now);
            pair.pump(side);
        }
        pair.run_until(back + Duration::from_secs(1), |_| false);
        let moved = pair.sides[1].received - before;
        assert!(moved > 500_000, "options {options}: {moved} bytes in the first second");
        assert!(pair.run_until(Duration::from_secs(60), Pair::both_gone));
        assert_eq!(pair.sides[1].received, 10_000_000);
    }
}

proptest! {
    /// Sizes of the path change at will, both ways, while packets get lost.
    #[test]
    fn changing_paths_lose_nothing(seed: u64, sizes in proptest::collection::vec(200u16..5000, 1..30), looks_like_sack: bool) {
        let link = Link { loss: 0.1, jitter: Duration::from_millis(5), ..Link::perfect(Duration::from_millis(10)) };
        let mut app = App::sender(150_000);
        if looks_like_sack {
            app.pattern = crate::pair::Pattern::Lists;
        }
        let mut reader = App::reader();
        reader.pattern = app.pattern;
        let mut pair = Pair::new(seed, [link; 2], [app, reader], [Config::default(); 2]);
        for (i, &size) in sizes.iter().enumerate() {
            pair.run_until(Duration::from_millis(30 * (i as u64 + 1)), |_| false);
            let now = pair.now;
            if let Some(stream) = &mut pair.sides[0].stream {
                stream.set_path_segment(now, size);
            }
            pair.pump(0);
        }
        prop_assert!(pair.run_until(Duration::from_secs(120), Pair::both_gone), "{}", pair.show());
        prop_assert_eq!(pair.sides[1].received, 150_000);
    }
}

#[test]
fn a_pause_of_the_path_costs_little_more_than_itself() {
    let link = Link { rate: Some(5_000_000), queue: 200_000, ..Link::perfect(Duration::from_millis(20)) };
    let mut pair = Pair::new(6, [link; 2], [App::sender(20_000_000), App::reader()], [Config::default(); 2]);
    pair.run_until(Duration::from_secs(1), |_| false);
    let before = pair.sides[0].stream.as_ref().unwrap().stats();
    // Everything under way is held up, and nothing is lost.
    pair.hold_up(Duration::from_millis(700));
    pair.run_until(Duration::from_millis(1760), |_| false);
    let after = pair.sides[0].stream.as_ref().unwrap().stats();
    let repeated = after.retransmits - before.retransmits;
    println!(
        "pause: {repeated} retransmits, window {} and then {}",
        before.congestion_window, after.congestion_window
    );
    assert!(after.timeouts > before.timeouts && repeated < 40, "{after:?}");
    assert!(after.congestion_window * 3 > before.congestion_window);
}
