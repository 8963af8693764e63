//! What the targets reached.

use std::fmt::Write as _;
use std::process::Command;

use serde_json::json;

use crate::{output_of, root};

/// A run of several targets.
pub(super) struct Report {
    /// Which day it was, in UTC, and which commit.
    when: String,
    commit: String,
    seconds: u64,
    pub(super) rows: Vec<Row>,
}

/// What one target reached.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    name: String,
    executions: u64,
    per_second: u64,
    /// Edges of our crates in the program of this target: reached, and all.
    edges: u64,
    edges_total: u64,
    /// Edges with how often they were taken, and operands that were compared.
    features: u64,
    /// Inputs that reach something that no other does.
    inputs: u64,
}

impl Report {
    pub(super) fn begin(seconds: u64) -> Self {
        let said = |program: &str, args: &[&str]| {
            let output = output_of(Command::new(program).args(args).current_dir(root()));
            output.map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
        };
        Self {
            when: said("date", &["-u", "+%F"]),
            commit: said("git", &["rev-parse", "--short", "HEAD"]),
            seconds,
            rows: Vec::new(),
        }
    }

    /// For whoever ran it.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<20}{:>12}{:>10}{:>18}{:>10}{:>8}\n",
            "target", "executions", "per s", "edges", "features", "inputs"
        );
        for row in &self.rows {
            let edges = format!("{} of {}", row.edges, row.edges_total);
            let Row { name, executions, per_second, features, inputs, .. } = row;
            let _ = writeln!(
                text,
                "{name:<20}{executions:>12}{per_second:>10}{edges:>18}{features:>10}{inputs:>8}"
            );
        }
        text
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!(
            "{}, commit {}, {} s for each target.\n\n\
             | target | executions | per second | edges | of | features | inputs |\n|---|--:|--:|--:|--:|--:|--:|\n",
            self.when, self.commit, self.seconds
        );
        for row in &self.rows {
            let Row { name, executions, per_second, edges, edges_total, features, inputs } = row;
            let _ = writeln!(
                text,
                "| `{name}` | {executions} | {per_second} | {edges} | {edges_total} | {features} | {inputs} |"
            );
        }
        let executions: u64 = self.rows.iter().map(|row| row.executions).sum();
        let _ = writeln!(text, "\n{executions} executions.");
        text
    }

    pub(super) fn json(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            json!({
                "target": row.name,
                "executions": row.executions,
                "executions_per_second": row.per_second,
                "edges": row.edges,
                "edges_total": row.edges_total,
                "features": row.features,
                "inputs": row.inputs,
            })
        });
        let rows: Vec<_> = rows.collect();
        format!(
            "{:#}\n",
            json!({ "date": self.when, "commit": self.commit, "seconds": self.seconds, "targets": rows })
        )
    }
}

impl Row {
    /// Reads what libFuzzer prints.
    pub(super) fn of_log(name: &str, log: &str) -> Option<Self> {
        let stat = |wanted: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix(wanted))?;
            line.trim_start_matches(':').trim().parse().ok()
        };
        let last = log.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: "))?;
        let after = |wanted: &str| {
            let mut words = last.split_whitespace().skip_while(|word| *word != wanted);
            words.nth(1)?.split('/').next()?.parse().ok()
        };
        let total = log.lines().find(|line| line.contains("inline 8-bit counters"))?;
        let total = total.split('(').nth(1)?.split(' ').next()?.parse().ok()?;
        Some(Self {
            name: name.to_owned(),
            executions: stat("stat::number_of_executed_units")?,
            per_second: stat("stat::average_exec_per_sec")?,
            edges: after("cov:")?,
            edges_total: total,
            features: after("ft:")?,
            inputs: after("corp:")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libfuzzer_prints_is_read() {
        let log = "INFO: Loaded 1 modules   (2105 inline 8-bit counters): 2105 [0x55, 0x56), \n\
                   #2\tINITED cov: 20 ft: 21 corp: 1/1b exec/s: 0 rss: 40Mb\n\
                   #4096\tpulse  cov: 120 ft: 221 corp: 33/180b lim: 43 exec/s: 2048 rss: 41Mb\n\
                   #9000\tDONE   cov: 123 ft: 456 corp: 78/12Kb lim: 43 exec/s: 3000 rss: 42Mb\n\
                   Done 9000 runs in 3 second(s)\n\
                   stat::number_of_executed_units: 9000\n\
                   stat::average_exec_per_sec:     3000\n";
        let row = Row::of_log("packet", log).unwrap();
        let expected = Row {
            name: "packet".to_owned(),
            executions: 9000,
            per_second: 3000,
            edges: 123,
            edges_total: 2105,
            features: 456,
            inputs: 78,
        };
        assert_eq!(row, expected);
        assert_eq!(Row::of_log("packet", "thread panicked"), None);
        let report =
            Report { when: "2026-11-27".to_owned(), commit: "abc".to_owned(), seconds: 3, rows: vec![row] };
        assert!(report.markdown().contains("| `packet` | 9000 | 3000 | 123 | 2105 | 456 | 78 |"));
        assert!(report.json().contains("\"executions\": 9000"));
        assert!(report.table().contains("123 of 2105"));
    }
}
