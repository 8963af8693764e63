//! Tables of what was measured: as text for people, as Markdown and charts for the documents, as JSON for programs.

mod chart;
mod docs;
mod text;

pub(crate) use docs::{write_charts, write_docs};

use serde::Serialize;

/// One run of the bench.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    /// Where and when it ran.
    pub(crate) machine: Machine,
    /// What was measured.
    pub(crate) tables: Vec<Table>,
}

impl Run {
    /// A run that begins now, on this machine.
    pub(crate) fn new() -> Self {
        Self { machine: Machine::here(), tables: Vec::new() }
    }
}

/// Where and when, for whoever compares.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The day, in UTC, as `2026-11-27`.
    pub(crate) date: String,
    /// The processor as the system names it.
    pub(crate) processor: String,
    /// Processors that this process may use.
    pub(crate) cores: usize,
    /// The version of the system's kernel.
    pub(crate) kernel: String,
    /// The commit that was built, with a `+` when there were changes.
    pub(crate) commit: String,
}

/// What was measured under one heading.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    /// Names the table in documents and files: lower case with hyphens.
    pub(crate) id: &'static str,
    pub(crate) title: String,
    /// What the first column holds.
    pub(crate) subject: &'static str,
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
    /// Sentences below the table.
    pub(crate) notes: Vec<String>,
    /// Names of the columns that are drawn.
    pub(crate) charts: Vec<&'static str>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(id: &'static str, title: impl Into<String>, columns: Vec<Column>) -> Self {
        Self {
            id,
            title: title.into(),
            subject: "",
            columns,
            rows: Vec::new(),
            notes: vec![],
            charts: vec![],
        }
    }

    /// Names the first column.
    pub(crate) fn about(mut self, subject: &'static str) -> Self {
        self.subject = subject;
        self
    }

    /// Has charts of these columns.
    pub(crate) fn charted(mut self, columns: &[&'static str]) -> Self {
        self.charts = columns.to_vec();
        self
    }

    /// Adds a row with a cell for each column.
    pub(crate) fn row(&mut self, name: impl Into<String>, cells: Vec<Cell>) {
        let name = name.into();
        debug_assert_eq!(cells.len(), self.columns.len(), "cells of {name} in {}", self.id);
        self.rows.push(Row { name, cells });
    }

    /// Adds a sentence below the table.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

/// What is measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    /// As it is written after a number: `µs`, `MB/s`; empty for plain numbers and text.
    pub(crate) unit: &'static str,
}

impl Column {
    /// A column of numbers in this unit.
    pub(crate) fn new(name: &'static str, unit: &'static str) -> Self {
        Self { name, unit }
    }

    /// A column of text or plain numbers.
    pub(crate) fn plain(name: &'static str) -> Self {
        Self { name, unit: "" }
    }

    /// Name and unit.
    fn heading(&self) -> String {
        if self.unit.is_empty() { self.name.to_owned() } else { format!("{}, {}", self.name, self.unit) }
    }
}

/// One of those that are compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// One for each column.
    pub(crate) cells: Vec<Cell>,
}

/// What is known about a row.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    /// Was not measured, or makes no sense here.
    Nothing,
    /// Words.
    Text(String),
    /// A figure of several runs.
    Figure(Spread),
}

impl Cell {
    /// The median of the runs, with how far they went apart; nothing of no runs.
    pub(crate) fn of(runs: &[f64]) -> Self {
        Spread::of(runs).map_or(Self::Nothing, Self::Figure)
    }

    /// A figure that was taken once.
    pub(crate) fn once(value: f64) -> Self {
        Self::of(&[value])
    }

    /// The figure, if it is one.
    pub(crate) fn median(&self) -> Option<f64> {
        match self {
            Self::Figure(spread) => Some(spread.median),
            Self::Nothing | Self::Text(_) => None,
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The same figure of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) runs: usize,
}

impl Spread {
    /// Of at least one finite figure.
    pub(crate) fn of(runs: &[f64]) -> Option<Self> {
        let mut sorted: Vec<f64> = runs.iter().copied().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { median: low.midpoint(high), min, max, runs: sorted.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn sample() -> Table {
        let columns = vec![Column::new("rate", "MB/s"), Column::new("CPU", "s/GB"), Column::plain("remark")];
        let mut table = Table::new("bulk", "One stream", columns).about("side").charted(&["rate"]);
        table.row("pilot", vec![Cell::of(&[410.0, 400.0, 420.0]), Cell::once(2.5), "a | b".into()]);
        table.row("<quinn>", vec![Cell::of(&[1234.5, 1200.0]), Cell::Nothing, Cell::Nothing]);
        table.note("Both ends on one machine.");
        table
    }

    #[test]
    fn the_median_of_an_even_number_of_runs_lies_between_the_two_in_the_middle() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max, spread.runs), (2.5, 1.0, 4.0, 4));
        assert_eq!(Spread::of(&[f64::NAN]), None);
        assert_eq!(Cell::of(&[]), Cell::Nothing);
    }

    #[test]
    fn json_has_the_median_and_the_spread_of_every_figure() {
        let run = Run { machine: Machine::here(), tables: vec![sample()] };
        let json: serde_json::Value = serde_json::to_value(&run).unwrap();
        let cells = &json["tables"][0]["rows"][0]["cells"];
        assert_eq!(cells[0]["median"], 410.0);
        assert_eq!(cells[0]["max"], 420.0);
        assert_eq!(cells[2], "a | b");
        assert!(json["tables"][0]["rows"][1]["cells"][1].is_null());
    }
}
