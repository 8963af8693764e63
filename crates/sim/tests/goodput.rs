//! How much of a link one stream gets, with loss. The floors are what must not be lost again; the table is printed.

use std::time::Duration;

use pilot_sim::{Bulk, Conditions};

/// 100 Mbit/s and 20 ms of round trip.
const LINE: Conditions =
    Conditions { delay: Duration::from_millis(10), bandwidth: Some(12_500_000), ..Conditions::PERFECT };

#[test]
fn a_stream_uses_most_of_a_clean_line_and_keeps_going_on_a_lossy_one() {
    // With random loss p, congestion control of the Reno family gets about 1.22 segments / (round trip * sqrt p).
    for (loss, megabytes, floor) in [(0.0, 20, 10.5), (0.01, 10, 0.7), (0.05, 5, 0.25)] {
        let conditions = Conditions { loss, ..LINE }.queue_of_one_round_trip(50);
        let bulk = Bulk { bytes: megabytes * 1_000_000, conditions, legacy: false };
        let goodput = bulk.run(7).expect("every byte arrives");
        println!("{:.0} % loss: {goodput}", loss * 100.0);
        assert!(goodput.megabytes_per_second() >= floor, "{:.0} % loss: {goodput}", loss * 100.0);
    }
}
