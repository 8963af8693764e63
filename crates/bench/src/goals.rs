//! The goals, and how far each is met.

use crate::report::{Cell, Column, Table};

/// What is compared: a figure, the most or the least that it may be, and its unit.
struct Met {
    figure: f64,
    limit: Limit,
    unit: &'static str,
}

#[derive(Clone, Copy)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

use Limit::{AtLeast, AtMost};

/// Finds figures in the tables of a run.
struct Figures<'a>(&'a [Table]);

impl Figures<'_> {
    /// The median in a row whose name begins like this.
    fn of(&self, table: &str, row: &str, column: &str) -> Option<f64> {
        let table = self.0.iter().find(|known| known.id == table)?;
        let at = table.columns.iter().position(|known| known.name == column)?;
        table.rows.iter().find(|known| known.name.starts_with(row))?.cells[at].median()
    }

    fn ours(&self, table: &str, column: &str) -> Option<f64> {
        self.of(table, "Pilot", column)
    }
}

type Goal = (&'static str, &'static str, fn(&Figures<'_>) -> Option<Met>);

fn met(figure: Option<f64>, limit: Limit, unit: &'static str) -> Option<Met> {
    Some(Met { figure: figure?, limit, unit })
}

const GOALS: &[Goal] = &[
    ("bulk, to the floor", "at least 0.7", |f| met(f.ours("bulk", "to the floor"), AtLeast(0.7), "×")),
    ("bulk, to quinn", "at least 1.7", |f| met(f.ours("bulk", "to QUIC"), AtLeast(1.7), "×")),
    ("CPU per GB", "at most 2.5 s", |f| met(f.ours("bulk", "CPU"), AtMost(2.5), "s")),
    ("RTT 64 B, to the floor", "at most 1.15", |f| met(f.ours("rtt", "to the floor"), AtMost(1.15), "×")),
    ("RTT 64 B, to gRPC unary", "below", |f| {
        let grpc = f.of("rtt", "gRPC", "p50")?;
        met(Some(f.ours("rtt", "p50")? / grpc), AtMost(1.0), "×")
    }),
    ("RTT 64 B, to quinn", "level", |f| met(f.ours("rtt", "to QUIC"), AtMost(1.05), "×")),
    ("small messages, one write each", "400 k/s", |f| {
        met(f.ours("messages", "rate"), AtLeast(400_000.0), "per s")
    }),
    ("small messages, gathered", "3 M/s", |f| met(f.ours("gathered", "rate"), AtLeast(3_000_000.0), "per s")),
    ("new stream on a warm tunnel", "under 300 µs", |f| met(f.ours("dial", "p50"), AtMost(300.0), "µs")),
    ("cold tunnel", "under 3 ms", |f| met(f.ours("cold", "p50"), AtMost(3000.0), "µs")),
    ("stream at 1 % loss, to quinn (CUBIC)", "at least 1", |f| {
        let theirs = f.of("loss", "QUIC (quinn), CUBIC", "1 % loss")?;
        met(Some(f.ours("loss", "1 % loss")? / theirs), AtLeast(1.0), "×")
    }),
    ("stream at 5 % loss, to quinn (CUBIC)", "at least 1", |f| {
        let theirs = f.of("loss", "QUIC (quinn), CUBIC", "5 % loss")?;
        met(Some(f.ours("loss", "5 % loss")? / theirs), AtLeast(1.0), "×")
    }),
    ("idle daemon, memory", "under 6 MB", |f| met(f.of("idle", "registered", "memory"), AtMost(6.0), "MB")),
    ("per idle connection", "under 2 KB", |f| {
        met(f.of("connections", "that dials", "each"), AtMost(2048.0), "bytes")
    }),
    ("per idle peer, sent", "under 1 KB a minute", |f| {
        met(f.of("peers", "", "sent, each"), AtMost(1024.0), "bytes")
    }),
    ("per idle peer, received", "under 1 KB a minute", |f| {
        met(f.of("peers", "", "received, each"), AtMost(1024.0), "bytes")
    }),
    ("rendezvous, memory of 100,000 nodes", "under 200 MB", |f| {
        met(f.of("rendezvous-memory", "all registered", "memory"), AtMost(200.0), "MB")
    }),
    ("rendezvous, lookups on one core", "100 k/s", |f| {
        met(f.of("rendezvous", "lookups", "so on one core"), AtLeast(100_000.0), "per s")
    }),
    ("rendezvous, durable registrations on one core", "20 k/s", |f| {
        met(f.of("rendezvous", "registrations, durable", "so on one core"), AtLeast(20_000.0), "per s")
    }),
    ("relay, one by one, per core", "1 Gbit/s", |f| {
        met(f.of("relay", "one by one", "that is"), AtLeast(1.0), "Gbit/s")
    }),
    ("relay, in trains, per core", "500 k/s", |f| {
        met(f.of("relay", "in trains", "so on one core"), AtLeast(500_000.0), "per s")
    }),
    ("events, copies on the wire for each node", "one", |f| {
        met(f.of("events", "drop-oldest, 200", "wire"), AtMost(1.5), "copies")
    }),
    ("events, deliveries", "1 M/s", |f| {
        met(f.of("events", "drop-oldest", "delivered"), AtLeast(1_000_000.0), "per s")
    }),
];

/// Each goal, what was measured, and by how much it is met or missed.
pub(crate) fn table(tables: &[Table]) -> Table {
    let columns = vec![Column::plain("goal"), Column::plain("measured"), Column::plain("verdict")];
    let mut table = Table::new("goals", "The goals", columns).about("of what");
    let figures = Figures(tables);
    for (name, goal, measure) in GOALS {
        let cells = match measure(&figures) {
            Some(met) => [measured(&met), met.verdict()],
            None => ["-".to_owned(), "not measured".to_owned()],
        };
        let [measured, verdict] = cells.map(Cell::from);
        table.row(*name, vec![(*goal).into(), measured, verdict]);
    }
    table
}

fn measured(met: &Met) -> String {
    format!("{} {}", crate::report::number(met.figure), met.unit)
}

impl Met {
    fn verdict(&self) -> String {
        let (is_met, times) = match self.limit {
            AtMost(limit) => (self.figure <= limit, self.figure / limit),
            AtLeast(limit) => (self.figure >= limit, limit / self.figure),
        };
        if is_met { "met".to_owned() } else { format!("missed by a factor of {times:.2}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict_of(name: &str, tables: &[Table]) -> String {
        let goals = table(tables);
        let row = goals.rows.iter().find(|row| row.name == name).unwrap();
        match &row.cells[2] {
            Cell::Text(text) => text.clone(),
            other @ (Cell::Nothing | Cell::Figure(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_goal_is_met_missed_by_a_factor_or_not_measured() {
        let mut bulk = Table::new("bulk", "", vec![Column::new("CPU", "s/GB"), Column::new("to QUIC", "×")]);
        bulk.row("QUIC (quinn)", vec![Cell::once(4.0), Cell::once(1.0)]);
        bulk.row("Pilot, daemons", vec![Cell::once(2.4), Cell::once(0.85)]);
        let tables = [bulk];
        assert_eq!(verdict_of("CPU per GB", &tables), "met");
        assert_eq!(verdict_of("bulk, to quinn", &tables), "missed by a factor of 2.00");
        assert_eq!(verdict_of("cold tunnel", &tables), "not measured");
    }
}
