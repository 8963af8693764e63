//! One stream over a link that loses datagrams, in virtual time: ours as the daemon runs it, and quinn's state machines on
//! the same link.

mod quinn_world;

use std::time::Duration;

use pilot_sim::{Bulk, Conditions};
use quinn_proto::congestion::{BbrConfig, CubicConfig};

use crate::{
    Failure, Options,
    report::{Cell, Column, Table},
};

/// 100 Mbit/s and 20 ms of round trip.
const LINE: Conditions =
    Conditions { delay: Duration::from_millis(10), bandwidth: Some(12_500_000), ..Conditions::PERFECT };

/// Share of datagrams that vanish, and how much is sent.
const LOSSES: [(&str, f64, u64); 3] =
    [("no loss", 0.0, 20_000_000), ("1 % loss", 0.01, 10_000_000), ("5 % loss", 0.05, 5_000_000)];

/// The table; the simulator needs no rounds to be exact, but other seeds lose other datagrams.
pub(crate) fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let columns = LOSSES.map(|(name, ..)| Column::new(name, "MB/s")).to_vec();
    let title = "One stream over 100 Mbit/s and 20 ms with random loss, simulated";
    let mut table = Table::new("loss", title, columns).about("side").charted(&["1 % loss", "5 % loss"]);
    table.row(
        "Pilot",
        each(options, |conditions, bytes, seed| {
            let goodput = Bulk { bytes, conditions, legacy: false }.run(seed);
            goodput.map(|goodput| goodput.megabytes_per_second()).map_err(|fault| format!("{fault:?}").into())
        })?,
    );
    table.row(
        "QUIC (quinn), CUBIC",
        each(options, |conditions, bytes, seed| {
            quinn_world::megabytes_per_second(CubicConfig::default(), conditions, bytes, seed)
        })?,
    );
    table.row(
        "QUIC (quinn), BBR",
        each(options, |conditions, bytes, seed| {
            quinn_world::megabytes_per_second(BbrConfig::default(), conditions, bytes, seed)
        })?,
    );
    table.note("The queue before the link holds one round trip. Runs differ by their seed: the same one for each side.");
    Ok(vec![table])
}

fn each(
    options: &Options,
    run: impl Fn(Conditions, u64, u64) -> Result<f64, Failure>,
) -> Result<Vec<Cell>, Failure> {
    let mut cells = Vec::new();
    for (_, loss, bytes) in LOSSES {
        let conditions = Conditions { loss, ..LINE }.queue_of_one_round_trip(50);
        let bytes = if options.quick { bytes / 10 } else { bytes };
        let runs = (1..=u64::from(options.rounds())).map(|seed| run(conditions, bytes, seed));
        cells.push(Cell::of(&runs.collect::<Result<Vec<f64>, Failure>>()?));
    }
    Ok(cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_slows_quinn_down_and_a_seed_repeats_itself() {
        let run = |loss| {
            let conditions = Conditions { loss, ..LINE }.queue_of_one_round_trip(50);
            quinn_world::megabytes_per_second(CubicConfig::default(), conditions, 2_000_000, 1).unwrap()
        };
        let (clean, lossy) = (run(0.0), run(0.05));
        assert!(clean < 12.5 && lossy < clean, "{clean} and {lossy}");
        assert!(lossy > 0.05, "{lossy}");
    }
}
