//! `pilotctl man`: manual pages, made from the parser itself.

use std::fmt;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;
use serde::Serialize;

use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::{humane, reference};

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl man send-message | man -l -\n  pilotctl man --dir ~/.local/share/man/man1"
)]
pub(crate) struct Args {
    /// The command; the program itself if it is left out
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub(crate) command: Vec<String>,
    /// Write the pages of all commands into this directory, which is made if need be
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Written {
    dir: PathBuf,
    pages: usize,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", humane::count(self.pages, "page"), self.dir.display())
    }
}

/// The page itself is the output, with `--json` too: `man` reads it.
pub(crate) fn run(args: &Args) -> Result<Output, Failure> {
    let program = reference::program();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).map_err(|e| Failure::io(format!("making {}", dir.display()), &e))?;
        let pages = write_all(&program, dir)?;
        return Ok(Output::of(Written { dir: dir.clone(), pages }));
    }
    let mut command = &program;
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| {
            let name = args.command.join(" ");
            Failure::new(Code::NotFound, format!("there is no command `{name}`"))
                .hint("`pilotctl --help` lists them")
        })?;
    }
    output::raw(&page(command).map_err(|e| Failure::io("writing the page", &e))?)?;
    Ok(Output::streamed())
}

/// A page for each command that people see; how many.
fn write_all(command: &Command, dir: &Path) -> Result<usize, Failure> {
    let file = dir.join(format!("{}.1", name(command)));
    let writing = |e| Failure::io(format!("writing {}", file.display()), &e);
    std::fs::write(&file, page(command).map_err(writing)?).map_err(writing)?;
    reference::shown(command).try_fold(1, |pages, sub| Ok(pages + write_all(sub, dir)?))
}

/// `pilotctl-task-submit`
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command) -> std::io::Result<Vec<u8>> {
    // The version of the program, also on the pages of its parts; no date, so that a page is made the same twice.
    let man = Man::new(command.clone())
        .title(name(command).to_uppercase())
        .date("")
        .source(concat!("pilotctl ", env!("CARGO_PKG_VERSION")))
        .manual("Pilot");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if let Some(examples) = command.get_before_help() {
        let text = examples.to_string();
        verbatim("EXAMPLES", text.strip_prefix("Examples:\n").unwrap_or(&text), &mut page);
    }
    if command.get_arguments().any(|arg| !arg.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if reference::shown(command).next().is_some() {
        man.render_subcommands_section(&mut page)?;
    }
    verbatim("EXIT STATUS", &statuses(), &mut page);
    verbatim("FILES", FILES, &mut page);
    Ok(page)
}

const FILES: &str = "\
~/.pilot          state of the node: identity, trust, inbox, outbox, settings (config.json)
/tmp/pilot.sock   the socket of the daemon, unless PILOT_SOCKET or the settings say otherwise";

fn statuses() -> String {
    let mut text = String::from("0  ok");
    for status in 1..=u8::MAX {
        let codes: Vec<&str> = Code::TABLE.iter().filter(|row| row.2 == status).map(|row| row.1).collect();
        if codes.is_empty() {
            break;
        }
        text.push_str(&format!("\n{status}  {}", codes.join(", ").replace('_', " ")));
    }
    text
}

/// A section of lines as they are. Backslashes, and dots and quotes that begin a line, mean something to troff.
fn verbatim(heading: &str, text: &str, page: &mut Vec<u8>) {
    page.extend_from_slice(format!(".SH \"{heading}\"\n.nf\n").as_bytes());
    for line in text.lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        page.extend_from_slice(format!("{guard}{line}\n").as_bytes());
    }
    page.extend_from_slice(b".fi\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_examples_options_and_exit_statuses() {
        let program = reference::program();
        let page = String::from_utf8(page(program.find_subcommand("ping").unwrap()).unwrap()).unwrap();
        assert!(page.contains(".TH PILOTCTL-PING 1"), "{page}");
        assert!(page.contains(".SH \"EXAMPLES\"\n.nf\n  pilotctl ping"), "{page}");
        assert!(page.contains("\\-\\-count"), "{page}");
        assert!(page.contains("7  not running"), "{page}");
    }

    #[test]
    fn what_troff_would_take_for_a_request_is_text() {
        let mut page = Vec::new();
        verbatim("X", ".fi\na\\b --c", &mut page);
        assert_eq!(page, b".SH \"X\"\n.nf\n\\&.fi\na\\eb \\-\\-c\n.fi\n");
    }
}
