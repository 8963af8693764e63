//! The tables of what was found.

use std::time::Duration;

use pilot_lab::Way as Path;

use super::chain::{AGENTS, Handing, STEPS};
use super::document::Document;
use super::measure::{Found, Measured, Reach};
use super::relay::Chained;
use super::scene::Used;
use crate::report::{Cell, Column, Table};

/// All tables.
pub(crate) fn all(
    distance: Option<Duration>,
    rest: Duration,
    far: &[Found],
    near: &[Found],
    reach: &[Reach],
    chain: &[Chained],
) -> Vec<Table> {
    vec![
        latency(distance, far),
        nearby(near),
        cost(far),
        at_rest(rest, far),
        restart(far),
        reached(reach),
        chained(chain),
    ]
}

fn latency(distance: Option<Duration>, found: &[Found]) -> Table {
    let where_ = distance.map_or("machines side by side".into(), |distance| {
        format!("{} ms from each machine to each other", distance.as_millis())
    });
    let columns = vec![Column::new("answer", "ms"), Column::new("news", "ms")];
    let mut table = Table::new("six-ways-latency", format!("Answer and news; {where_}"), columns)
        .about("way")
        .charted(&["answer", "news"]);
    fill(&mut table, found, |measured| vec![milliseconds(&measured.answers), milliseconds(&measured.news)]);
    paths(&mut table, found);
    table
}

fn nearby(found: &[Found]) -> Table {
    let columns = vec![Column::new("answer", "µs"), Column::new("news", "µs")];
    let mut table = Table::new("six-ways-nearby", "Answer and news; machines side by side", columns)
        .about("way")
        .charted(&["answer", "news"]);
    fill(&mut table, found, |measured| vec![Cell::of(&measured.answers), Cell::of(&measured.news)]);
    paths(&mut table, found);
    table
}

fn cost(found: &[Found]) -> Table {
    let columns = vec![
        Column::new("wire", "bytes"),
        Column::new("CPU of agents and daemons", "µs"),
        Column::new("CPU of what is hosted", "µs"),
        Column::plain("requests wasted"),
    ];
    let mut table = Table::new("six-ways-cost", "For each useful message", columns)
        .about("way")
        .charted(&["wire", "CPU of agents and daemons"]);
    fill(&mut table, found, |measured| {
        let Used { agents, hosted, bytes, empty } = measured.used;
        let each = |whole: f64| Cell::once(whole / float(measured.messages().max(1)));
        vec![each(float(bytes)), each(agents * 1e6), each(hosted * 1e6), each(float(empty))]
    });
    table
}

fn at_rest(span: Duration, found: &[Found]) -> Table {
    let columns = vec![
        Column::new("wire", "bytes/min"),
        Column::new("CPU of agents and daemons", "ms/min"),
        Column::new("CPU of what is hosted", "ms/min"),
        Column::new("requests wasted", "1/min"),
    ];
    let title = format!("While nobody says anything, seen for {} s", span.as_secs());
    let mut table = Table::new("six-ways-rest", title, columns).about("way").charted(&["wire"]);
    fill(&mut table, found, |measured| {
        let Used { agents, hosted, bytes, empty } = measured.rest;
        let minutely = |whole: f64| Cell::once(whole * 60.0 / span.as_secs_f64());
        vec![minutely(float(bytes)), minutely(agents * 1e3), minutely(hosted * 1e3), minutely(float(empty))]
    });
    table
}

fn restart(found: &[Found]) -> Table {
    let columns = vec![Column::new("agent", "ms"), Column::new("agent and its daemon", "ms")];
    let title = "From a new start of B to its first news at A, after it was killed";
    let mut table = Table::new("six-ways-restart", title, columns).about("way").charted(&["agent"]);
    fill(&mut table, found, |measured| {
        vec![Cell::of(&measured.returns), Cell::of(&measured.returns_with_daemon)]
    });
    table
}

fn reached(found: &[Reach]) -> Table {
    let columns = vec![
        Column::plain("A public, B behind a NAT"),
        Column::plain("both behind NATs"),
        Column::plain("both behind symmetric NATs"),
        Column::plain("must be hosted"),
        Column::plain("must be opened, for both behind NATs"),
        Column::plain("can read the messages"),
    ];
    let title = "Whether it works with nothing opened in any router, and what it needs";
    let mut table = Table::new("six-ways-reach", title, columns).about("way");
    for Reach { way, works } in found {
        let mut cells: Vec<Cell> = works.iter().map(works_so).collect();
        cells.extend([way.hosted(), way.opened(), way.readers()].map(Cell::from));
        table.row(way.protocol(), cells);
    }
    table
}

fn works_so(works: &Result<Option<Path>, String>) -> Cell {
    match works {
        Ok(None) => "yes".into(),
        Ok(Some(path)) => format!("yes, {}", word(*path)).into(),
        Err(reason) if reason.contains("missing") => format!("not measured: {reason}").into(),
        Err(_) => "no".into(),
    }
}

fn chained(found: &[Chained]) -> Table {
    let columns = vec![
        Column::new("handed on", "bytes"),
        Column::plain("tokens"),
        Column::new("wire", "bytes"),
        Column::new("took", "ms"),
    ];
    let title = format!("{AGENTS} agents in a chain, {STEPS} steps on one document");
    let mut table =
        Table::new("six-ways-chain", title, columns).about("what is handed on").charted(&["tokens"]);
    for Chained { handing, by, bytes, wire, took } in found {
        let name = match handing {
            Handing::Whole => format!("{by}, whole document"),
            Handing::Deltas => format!("{by}, deltas"),
        };
        let cells = [float(*bytes), float(*bytes) / 4.0, float(*wire), float(*took) / 1e6];
        table.row(name, cells.map(Cell::once).into());
    }
    table.note(format!(
        "The document has {} bytes, about {} tokens; a token is counted as four bytes.",
        Document::new().bytes(),
        Document::new().bytes() / 4
    ));
    table
}

/// A row for each way; one that was not measured says so below.
fn fill(table: &mut Table, found: &[Found], cells: impl Fn(&Measured) -> Vec<Cell>) {
    for Found { way, measured } in found {
        match measured {
            Ok(measured) => table.row(way.to_string(), cells(measured)),
            Err(reason) => {
                table.row(way.to_string(), vec![Cell::Nothing; table.columns.len()]);
                table.note(format!("{way}: not measured: {reason}."));
            }
        }
    }
}

/// Says so where Pilot did not go the way that the row is about.
fn paths(table: &mut Table, found: &[Found]) {
    use super::way::Way::{PilotDirect, PilotRelayed};
    for Found { way, measured } in found {
        let Ok(Measured { path: Some(path), .. }) = measured else { continue };
        if matches!((way, path), (PilotDirect, Path::Relay) | (PilotRelayed, Path::Direct)) {
            table.note(format!("{way}: the frames went another way, {}.", word(*path)));
        }
    }
}

const fn word(path: Path) -> &'static str {
    match path {
        Path::Direct => "direct",
        Path::Relay => "relayed",
    }
}

fn milliseconds(microseconds: &[f64]) -> Cell {
    let runs: Vec<f64> = microseconds.iter().map(|figure| figure / 1_000.0).collect();
    Cell::of(&runs)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes are exact in a float")]
fn float(count: u64) -> f64 {
    count as f64
}
