//! Days of a few nodes, with everything that can go wrong, and what has to hold after each of it. `crates/sim/nightly` runs
//! ten thousand hours of the same with other seeds.

use std::time::Duration;

use pilot_sim::{Day, Detail, Episode, Fault, Host, Programme, Trouble};

/// A debug build takes about half a minute of one processor for it.
const HOURS: u64 = 1000;

/// Troubles of long worlds with a name of their own.
const KINDS: usize = 26;

#[test]
fn hundreds_of_hours_with_everything_that_can_go_wrong_lose_nothing_and_go_on_in_time() {
    let report = Programme { hours: HOURS, seed: 0, plans_per_day: 0, jobs: None }.run();
    println!("{report}");
    assert!(
        report.is_passed(),
        "{} worlds failed, {} recovered late",
        report.failures.len(),
        report.late.len()
    );
    assert_eq!(report.recoveries.len(), KINDS, "some kinds of trouble did not happen");
    assert!(report.simulated >= Duration::from_secs(HOURS * 3600));
}

/// Each was late by minutes or seconds once. What they show: the few packets to an address that proved nothing are all lost;
/// the peer is heard another way than ours goes, and ours is dead.
#[test]
fn days_that_were_late_once_are_in_time() {
    for (seed, troubles) in [(1_000_217, 17), (1_000_225, 10)] {
        let mut day = Day::random(seed);
        // Up to the trouble that was felt too long.
        day.troubles.truncate(troubles);
        let (_, journal, result) = day.run(Detail::Digest);
        assert_eq!(result, Ok(()), "day {seed}: {journal:?}");
    }
}

#[test]
fn the_same_day_gives_the_same_history() {
    let mut day = Day::random(3);
    day.troubles.truncate(6);
    let [first, second] = [(), ()].map(|()| day.run(Detail::Digest).0.history().digest());
    assert_eq!(first, second);
}

#[test]
fn a_stream_that_does_not_outlive_what_happens_is_told() {
    let mut day = Day::random(1);
    day.troubles = vec![Episode {
        rest: Duration::from_secs(600),
        who: Host(0),
        peer: Host(1),
        who_dials: true,
        // Longer than streams wait.
        trouble: Trouble::Outage(Duration::from_secs(600)),
    }];
    let (_, journal, result) = day.run(Detail::Digest);
    assert!(matches!(result, Err(Fault::Slow { .. } | Fault::Failed(..))), "{result:?}");
    assert!(journal.recoveries.len() <= 1);
}
