//! How much of a link one stream gets, with loss. The floors are what must not be lost again; the table is printed.

use std::time::Duration;

use pilot_sim::{Bulk, Conditions};

/// 10 MB/s and 40 ms of round trip: what a good access line has.
const LINE: Conditions =
    Conditions { delay: Duration::from_millis(20), bandwidth: Some(10_000_000), ..Conditions::PERFECT };

#[test]
fn a_stream_uses_most_of_a_clean_line_and_keeps_going_on_a_lossy_one() {
    let table = [(0.0, 8.0), (0.01, 5.0), (0.05, 1.5)];
    for (loss, floor) in table {
        let conditions = Conditions { loss, ..LINE }.queue_of_one_round_trip(50);
        let goodput = Bulk { bytes: 20_000_000, conditions, legacy: false }.run(7).unwrap();
        println!("{:.0} % loss: {goodput}", loss * 100.0);
        assert!(goodput.megabytes_per_second() >= floor, "{:.0} % loss: {goodput}", loss * 100.0);
    }
}
