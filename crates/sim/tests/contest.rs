//! CUBIC and BBR on links of every kind, alone and against each other. The tables are what they do today: a change that
//! moves a figure is seen in the review. docs/streams.md shows them.

use std::{fmt::Write, time::Duration};

use pilot_proto::stream::Congestion;
use pilot_sim::{Conditions, Contest, Flow, Outcome};

/// What Ethernet carries of a stream.
const SEGMENT: u16 = 1402;

const BOTH: [Congestion; 2] = [Congestion::Cubic, Congestion::Bbr];

/// A line of so many megabits with this round trip, and room for so many of its products of both in front of it.
fn line(megabits: u64, rtt_millis: u64, room: f64) -> Conditions {
    let bandwidth = megabits * 125_000;
    let product = bandwidth * rtt_millis / 1000;
    let queue = ((product as f64 * room) as u64).max(4 * 1500);
    let delay = Duration::from_micros(rtt_millis * 500);
    Conditions { delay, bandwidth: Some(bandwidth), queue, ..Conditions::PERFECT }
}

fn run(conditions: Conditions, flows: &[(Congestion, u64)], seconds: u64, counts_from: u64) -> Outcome {
    let flows = flows.iter().map(|&(congestion, starts)| Flow {
        congestion,
        segment: SEGMENT,
        starts: Duration::from_secs(starts),
    });
    let [lasts, counts_from] = [seconds, counts_from].map(Duration::from_secs);
    Contest { conditions, flows: flows.collect(), lasts, counts_from }.run(7)
}

fn name(congestion: Congestion) -> &'static str {
    match congestion {
        Congestion::Cubic => "cubic",
        Congestion::Bbr => "bbr",
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// What the links are, how they behave, and for how many seconds a stream has them.
fn links() -> Vec<(&'static str, Conditions, u64)> {
    let usual = line(100, 20, 1.0);
    let lossy = |loss, conditions| Conditions { loss, ..conditions };
    let jitter = Conditions { jitter: Duration::from_millis(5), ..usual };
    let reorder = Conditions { reorder: 0.02, held_back: Duration::from_millis(10), ..usual };
    vec![
        ("100 Mbit/s, 20 ms, room 1", usual, 20),
        ("the same, 1 % loss", lossy(0.01, usual), 20),
        ("the same, 5 % loss", lossy(0.05, usual), 20),
        ("the same, 5 ms jitter", jitter, 20),
        ("the same, 2 % overtaken", reorder, 20),
        ("100 Mbit/s, 20 ms, room 0.1", line(100, 20, 0.1), 20),
        ("the same, 1 % loss", lossy(0.01, line(100, 20, 0.1)), 20),
        ("20 Mbit/s, 40 ms, room 10", line(20, 40, 10.0), 30),
        ("the same, 1 % loss", lossy(0.01, line(20, 40, 10.0)), 30),
        ("1 Mbit/s, 50 ms, room 2", line(1, 50, 2.0), 60),
        ("10 Mbit/s, 200 ms, room 1", line(10, 200, 1.0), 60),
        ("the same, 1 % loss", lossy(0.01, line(10, 200, 1.0)), 60),
        ("100 Mbit/s, 200 ms, room 1", line(100, 200, 1.0), 20),
        ("1000 Mbit/s, 1 ms, room 1", line(1000, 1, 1.0), 1),
        ("1000 Mbit/s, 20 ms, room 1", line(1000, 20, 1.0), 3),
        ("the same, 1 % loss", lossy(0.01, line(1000, 20, 1.0)), 3),
    ]
}

#[test]
fn one_stream_on_links_of_every_kind() {
    let mut table = String::new();
    writeln!(
        table,
        "{:<30} {:>6} {:>9} {:>9} {:>9} {:>8}",
        "link", "", "Mbit/s", "wait p50", "p95 ms", "again %"
    )
    .unwrap();
    for (what, conditions, seconds) in links() {
        for congestion in BOTH {
            let outcome = run(conditions, &[(congestion, 0)], seconds, 0);
            let share = outcome.shares[0];
            writeln!(
                table,
                "{what:<30} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>8.2}",
                name(congestion),
                share.megabits,
                millis(outcome.wait(0.5)),
                millis(outcome.wait(0.95)),
                share.repeated * 100.0,
            )
            .unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn two_streams_share_a_bottleneck() {
    use Congestion::{Bbr, Cubic};
    let mut table = String::new();
    writeln!(
        table,
        "{:<28} {:>15} {:>9} {:>9} {:>6} {:>9}",
        "link", "first, second", "Mbit/s", "Mbit/s", "Jain", "wait p50"
    )
    .unwrap();
    for (what, conditions) in [
        ("100 Mbit/s, 20 ms, room 0.5", line(100, 20, 0.5)),
        ("100 Mbit/s, 20 ms, room 1", line(100, 20, 1.0)),
        ("100 Mbit/s, 20 ms, room 4", line(100, 20, 4.0)),
    ] {
        for (first, second) in [(Cubic, Cubic), (Bbr, Bbr), (Cubic, Bbr), (Bbr, Cubic)] {
            let outcome = run(conditions, &[(first, 0), (second, 1)], 20, 8);
            writeln!(
                table,
                "{what:<28} {:>15} {:>9.1} {:>9.1} {:>6.2} {:>9.1}",
                format!("{}, {}", name(first), name(second)),
                outcome.shares[0].megabits,
                outcome.shares[1].megabits,
                outcome.fairness(),
                millis(outcome.wait(0.5)),
            )
            .unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let conditions = Conditions { loss: 0.02, jitter: Duration::from_millis(3), ..line(50, 20, 1.0) };
    for congestion in BOTH {
        let shares = || format!("{:?}", run(conditions, &[(congestion, 0), (congestion, 1)], 5, 0).shares);
        assert_eq!(shares(), shares());
    }
}

#[test]
fn bbr_comes_back_from_measuring_the_round_trip() {
    let outcome = run(line(100, 40, 1.0), &[(Congestion::Bbr, 0)], 35, 15);
    assert!(outcome.shares[0].megabits > 85.0, "{:?}", outcome.shares);
}

#[test]
fn bbr_is_not_slowed_by_random_loss_and_leaves_deep_queues_short() {
    for loss in [0.01, 0.05] {
        let outcome = run(Conditions { loss, ..line(100, 20, 1.0) }, &[(Congestion::Bbr, 0)], 20, 5);
        assert!(outcome.shares[0].megabits > 70.0, "{loss}: {:?}", outcome.shares);
    }
    let deep = line(20, 40, 10.0);
    let waits = BOTH.map(|congestion| run(deep, &[(congestion, 0)], 30, 5).wait(0.95));
    assert!(waits[1] * 3 < waits[0], "{waits:?}");
}
