//! Tables as text and as Markdown.

use super::{Cell, Machine, Table};

impl Table {
    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        let rows = self.strings();
        let widths: Vec<usize> = (0..rows[0].len())
            .map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = format!("\n{}\n", self.title);
        for row in &rows {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let fill = " ".repeat(width - cell.chars().count());
                if self.is_words(at) {
                    line += &format!("{cell}{fill}  ");
                } else {
                    line += &format!("{fill}{cell}  ");
                }
            }
            text += &format!("  {}\n", line.trim_end());
        }
        for note in &self.notes {
            text += &format!("  {note}\n");
        }
        text
    }

    /// For a document, without the title.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for (number, row) in self.strings().iter().enumerate() {
            let cells: Vec<String> =
                row.iter().map(|cell| cell.replace('|', "\\|").replace('<', "&lt;")).collect();
            text += &format!("| {} |\n", cells.join(" | "));
            if number == 0 {
                let rule = (0..row.len()).map(|at| if self.is_words(at) { "---|" } else { "--:|" });
                text += &format!("|{}\n", rule.collect::<String>());
            }
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text
    }

    /// Headings and rows.
    fn strings(&self) -> Vec<Vec<String>> {
        let mut heading = vec![self.subject.to_owned()];
        heading.extend(self.columns.iter().map(super::Column::heading));
        let mut rows = vec![heading];
        for row in &self.rows {
            let mut cells = vec![row.name.clone()];
            cells.extend(row.cells.iter().map(cell));
            rows.push(cells);
        }
        rows
    }

    /// Whether a column is read from the left; the first is.
    fn is_words(&self, at: usize) -> bool {
        let Some(at) = at.checked_sub(1) else { return true };
        self.rows.iter().any(|row| matches!(row.cells[at], Cell::Text(_)))
    }
}

fn cell(cell: &Cell) -> String {
    match cell {
        Cell::Nothing => "-".to_owned(),
        Cell::Text(text) => text.clone(),
        Cell::Figure(spread) if spread.runs > 1 => {
            format!("{} ({}..{})", number(spread.median), number(spread.min), number(spread.max))
        }
        Cell::Figure(spread) => number(spread.median),
    }
}

/// With three digits that mean something, and groups of thousands.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        grouped(value)
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else if size >= 1.0 || size == 0.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Machine {
    /// One line for below a table.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, commit {}, {} cores of {}, Linux {}",
            self.date, self.commit, self.cores, self.processor, self.kernel
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, *};

    #[test]
    fn numbers_are_as_exact_as_they_are_worth() {
        let shown = [0.0, 0.0123, 1.234, 12.34, 123.4, 1_234_567.0, -1500.0].map(number);
        assert_eq!(shown, ["0.00", "0.012", "1.23", "12.3", "123", "1,234,567", "-1,500"]);
    }

    #[test]
    fn text_lines_up_and_shows_the_spread() {
        let text = sample().text();
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines[0], "One stream");
        assert_eq!(lines[1], "  side               rate, MB/s  CPU, s/GB  remark");
        assert_eq!(lines[2], "  pilot          410 (400..420)       2.50  a | b");
        assert_eq!(lines[3], "  <quinn>  1,217 (1,200..1,234)          -  -");
        assert_eq!(lines[4], "  Both ends on one machine.");
    }

    #[test]
    fn markdown_is_a_table_whatever_is_in_the_cells() {
        let markdown = sample().markdown();
        let lines: Vec<&str> = markdown.lines().collect();
        assert_eq!(lines[0], "| side | rate, MB/s | CPU, s/GB | remark |");
        assert_eq!(lines[1], "|---|--:|--:|---|");
        assert_eq!(lines[2], "| pilot | 410 (400..420) | 2.50 | a \\| b |");
        assert!(lines[3].starts_with("| &lt;quinn> |"));
    }
}
