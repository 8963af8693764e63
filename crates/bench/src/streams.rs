//! One stream, as large and as small as it gets: throughput, round trips, small messages, new streams.

use crate::{
    Failure, Options,
    report::{Cell, Column, Table},
    side::{Cost, Kind, Side},
    stage::Stage,
    work::{MESSAGE, Task},
};

/// What is asked for, and what is taken from it.
struct Measure {
    id: &'static str,
    title: &'static str,
    kinds: &'static [Kind],
    task: Task,
    quick: Task,
    columns: &'static [(&'static str, &'static str)],
    figures: fn(Task, &Cost) -> Vec<f64>,
    /// Of the columns, the one that is compared with the floor and with QUIC.
    compared: usize,
    notes: &'static [&'static str],
}

const ALL: &[Kind] = &[Kind::Pilot, Kind::PilotInside, Kind::Quic, Kind::Tcp, Kind::Floor, Kind::FloorInside];
/// Without a daemon's socket in between nothing holds the floor back, and it repeats nothing that it loses.
const HELD_BACK: &[Kind] = &[Kind::Pilot, Kind::PilotInside, Kind::Quic, Kind::Tcp, Kind::Floor];
const CALLS: &[Kind] =
    &[Kind::Pilot, Kind::PilotInside, Kind::Quic, Kind::Tcp, Kind::Grpc, Kind::Floor, Kind::FloorInside];
const DIALS: &[Kind] = &[Kind::Pilot, Kind::PilotInside, Kind::Quic, Kind::Tcp, Kind::Grpc];

/// Bytes in one direction.
const BULK: Measure = Measure {
    id: "bulk",
    title: "One stream in one direction",
    kinds: ALL,
    task: Task::Bulk(300_000_000),
    quick: Task::Bulk(20_000_000),
    columns: &[("rate", "MB/s"), ("CPU", "s/GB"), ("wire", "bytes/byte")],
    figures: |task, cost| {
        let bytes = amount(task);
        vec![bytes / cost.done.seconds / 1e6, cost.cpu / bytes * 1e9, cost.wire / bytes]
    },
    compared: 0,
    notes: &["Wire: bytes on the loopback interface, which counts a train of datagrams as one packet."],
};

/// A small message there and back.
const ROUND_TRIPS: Measure = Measure {
    id: "rtt",
    title: "64 bytes there and back on a warm stream",
    kinds: CALLS,
    task: Task::RoundTrips(4000),
    quick: Task::RoundTrips(200),
    columns: &[("p50", "µs"), ("p99", "µs"), ("CPU", "µs each")],
    figures: |task, cost| vec![cost.done.median, cost.done.most, cost.cpu / amount(task) * 1e6],
    compared: 0,
    notes: &[],
};

/// Small messages in one direction.
const MESSAGES: Measure = Measure {
    id: "messages",
    title: "Messages of 64 bytes in one direction, a write for each",
    kinds: HELD_BACK,
    task: Task::Messages(400_000),
    quick: Task::Messages(20_000),
    columns: &[("rate", "messages/s"), ("CPU", "µs each")],
    figures: |task, cost| vec![amount(task) / cost.done.seconds, cost.cpu / amount(task) * 1e6],
    compared: 0,
    notes: &[],
};

/// The same in larger writes.
const GATHERED: Measure = Measure {
    id: "gathered",
    title: "Messages of 64 bytes in one direction, 64 of them in a write",
    task: Task::Gathered(4_000_000),
    quick: Task::Gathered(200_000),
    ..MESSAGES
};

/// New streams.
const DIAL: Measure = Measure {
    id: "dial",
    title: "A new stream on a warm connection, until the first 64 bytes are back",
    kinds: DIALS,
    task: Task::Dials(1000),
    quick: Task::Dials(50),
    columns: &[("p50", "µs"), ("p99", "µs"), ("CPU", "µs each")],
    figures: ROUND_TRIPS.figures,
    compared: 0,
    notes: &["TCP has no streams, so each is a connection; a gRPC call is a stream of HTTP/2."],
};

/// How much a task is: bytes, messages, or times.
fn amount(task: Task) -> f64 {
    match task {
        Task::RoundTrips(count) | Task::Dials(count) | Task::Connects(count) | Task::Hold(count) => {
            f64::from(count)
        }
        #[expect(clippy::cast_precision_loss, reason = "measurements are no more exact")]
        Task::Bulk(count) | Task::Messages(count) | Task::Gathered(count) => count as f64,
    }
}

/// Large amounts in one direction.
pub(crate) async fn bulk(options: &Options) -> Result<Vec<Table>, Failure> {
    compare(options, &[BULK]).await
}

/// Round trips.
pub(crate) async fn round_trips(options: &Options) -> Result<Vec<Table>, Failure> {
    compare(options, &[ROUND_TRIPS]).await
}

/// Small messages.
pub(crate) async fn messages(options: &Options) -> Result<Vec<Table>, Failure> {
    compare(options, &[MESSAGES, GATHERED]).await
}

/// New streams.
pub(crate) async fn dials(options: &Options) -> Result<Vec<Table>, Failure> {
    compare(options, &[DIAL]).await
}

/// Starts all sides once, and lets them work in turns.
async fn compare(options: &Options, measures: &[Measure]) -> Result<Vec<Table>, Failure> {
    let stage = Stage::open()?;
    let mut sides = Vec::new();
    for &kind in CALLS {
        if measures.iter().any(|measure| measure.kinds.contains(&kind)) {
            sides.push(kind.start(&stage).await?);
        }
    }
    measures.iter().map(|measure| measured(options, measure, &mut sides)).collect()
}

fn measured(options: &Options, measure: &Measure, sides: &mut [Side]) -> Result<Table, Failure> {
    let task = if options.quick { measure.quick } else { measure.task };
    let mut sides: Vec<&mut Side> =
        sides.iter_mut().filter(|side| measure.kinds.contains(&side.kind)).collect();
    let mut figures: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); measure.columns.len()]; sides.len()];
    for side in &mut sides {
        // Windows open, paths are probed, pages are there.
        side.measure(measure.quick)?;
    }
    for _ in 0..options.rounds() {
        for (side, figures) in sides.iter_mut().zip(&mut figures) {
            let cost = side.measure(task)?;
            for (runs, figure) in figures.iter_mut().zip((measure.figures)(task, &cost)) {
                runs.push(figure);
            }
        }
    }
    let mut columns: Vec<Column> =
        measure.columns.iter().map(|&(name, unit)| Column::new(name, unit)).collect();
    let references: Vec<(&str, usize)> = [("to the floor", Kind::Floor), ("to QUIC", Kind::Quic)]
        .into_iter()
        .filter_map(|(name, kind)| Some((name, sides.iter().position(|side| side.kind == kind)?)))
        .collect();
    columns.extend(references.iter().map(|&(name, _)| Column::new(name, "×")));
    let mut table = Table::new(measure.id, measure.title, columns).about("side");
    table.charts = vec![measure.columns[0].0, "CPU"];
    for (side, runs) in sides.iter().zip(&figures) {
        let mut cells: Vec<Cell> = runs.iter().map(|runs| Cell::of(runs)).collect();
        for &(_, reference) in &references {
            // Of the same round: what disturbs one disturbs the other.
            let theirs = &figures[reference][measure.compared];
            let ratios: Vec<f64> =
                runs[measure.compared].iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
            cells.push(Cell::of(&ratios));
        }
        table.row(side.kind.name(), cells);
    }
    for note in measure.notes {
        table.note(*note);
    }
    debug_assert_eq!(MESSAGE, 64, "the titles say so");
    Ok(table)
}
