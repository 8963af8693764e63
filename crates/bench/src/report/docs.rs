//! Tables and charts in the documents, between markers that name them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Machine, Table};
use crate::Failure;

/// The root of the repository this was built from.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Puts each table between `<!-- bench ID -->` and `<!-- /bench -->` of the document, with its charts, which go to
/// `docs/images/DOCUMENT/`. Tables that the document has no place for are an error.
pub(crate) fn write_docs(document: &str, tables: &[Table], machine: &Machine) -> Result<(), Failure> {
    let path = root().join(document);
    let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
    let mut text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let images = root().join("docs/images").join(&name);
    write_charts(&images, tables)?;
    for table in tables {
        let mut content = table.markdown();
        for chart in charts(table) {
            content += &format!("\n![{}](images/{name}/{chart})\n", table.title);
        }
        content += &format!("\n{}.\n", machine.line());
        text = filled(&text, table.id, &content)?;
    }
    fs::write(&path, text)?;
    Ok(())
}

/// Writes the charts of the tables as `TABLE-COLUMN.svg`.
pub(crate) fn write_charts(folder: &Path, tables: &[Table]) -> Result<(), Failure> {
    fs::create_dir_all(folder)?;
    for table in tables {
        for column in &table.charts {
            if let Some(svg) = table.chart(column) {
                fs::write(folder.join(file(table, column)), svg)?;
            }
        }
    }
    Ok(())
}

fn charts(table: &Table) -> impl Iterator<Item = String> {
    let drawn = table.charts.iter().filter(|column| table.chart(column).is_some());
    drawn.map(|column| file(table, column))
}

fn file(table: &Table, column: &str) -> String {
    let column = column.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!("{}-{column}.svg", table.id)
}

/// The document with other content at one place.
fn filled(document: &str, id: &str, content: &str) -> Result<String, String> {
    let (begin, end) = (format!("<!-- bench {id} -->"), "<!-- /bench -->");
    let missing = || format!("the document has no place for the table `{id}`: `{begin}` and `{end}`");
    let (before, rest) = document.split_once(&begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(end).ok_or_else(missing)?;
    Ok(format!("{before}{begin}\n{content}{end}{after}"))
}

impl Machine {
    /// This one, now.
    pub(crate) fn here() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let processor = processors
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map_or("an unknown processor", |name| name.trim_start_matches([' ', '\t', ':']));
        let commit = said("git", &["rev-parse", "--short=10", "HEAD"]);
        let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
        Self {
            date: said("date", &["-u", "+%Y-%m-%d"]),
            processor: processor.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: said("uname", &["-r"]),
            commit: format!("{commit}{}", if changed { "+" } else { "" }),
        }
    }
}

/// What a program says in one line; nothing if it cannot be run.
fn said(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).current_dir(root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_place_of_a_document_changes() {
        let before = "a\n<!-- bench one -->\nold\n<!-- /bench -->\nb\n<!-- bench two -->\n<!-- /bench -->\n";
        let after = filled(before, "one", "new\n").unwrap();
        assert_eq!(after, before.replace("old", "new"));
        assert_eq!(filled(&after, "one", "new\n").unwrap(), after);
        assert!(filled(before, "three", "").unwrap_err().contains("`three`"));
    }
}
