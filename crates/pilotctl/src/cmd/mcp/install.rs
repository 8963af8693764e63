//! `pilotctl mcp install` and `pilotctl mcp uninstall`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl mcp install --client cursor              only shows the change\n  \
    pilotctl mcp install --client cursor --apply\n  pilotctl mcp install --client vscode --project --apply\n  \
    pilotctl mcp install --client codex --name tools-of-b --peer agent-b",
    after_help = "Everything else in the file stays as it is, and the file as it was is kept beside it. A file with comments, or \
    with an entry in a form that cannot be changed safely, is not touched."
)]
pub(super) struct Args {
    #[command(flatten)]
    place: Place,
    /// Use the server that this peer offers (`pilotctl mcp connect`) instead of this node's own
    #[arg(long, value_name = "TARGET")]
    peer: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl mcp uninstall --client cursor            only shows the change\n  \
    pilotctl mcp uninstall --client cursor --apply"
)]
pub(super) struct UninstallArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// The program
    #[arg(long, value_parser = PossibleValuesParser::new(Client::ALL.map(Client::name)), value_name = "CLIENT")]
    client: String,
    /// The name of the server there
    #[arg(long, default_value = "pilot", value_parser = name, value_name = "NAME")]
    name: String,
    /// The file of the project in this directory, instead of that of this user
    #[arg(long)]
    project: bool,
    /// Another file
    #[arg(long, conflicts_with = "project", value_name = "PATH")]
    file: Option<PathBuf>,
    /// Make the change, instead of only showing it
    #[arg(long)]
    apply: bool,
}

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use pilot_mcp::install::{Client, EditError, Entry, Places, diff};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::style;

/// Longest file that is changed. Those of all programs are far shorter.
const FILE_MAX: u64 = 64 << 20;

/// A change of a file.
#[derive(Serialize)]
struct Report {
    client: &'static str,
    file: PathBuf,
    /// Whether there is anything to change.
    changed: bool,
    /// Whether it was done.
    applied: bool,
    diff: String,
    /// The file as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    backup: Option<PathBuf>,
    /// Where it is documented that the list is kept there.
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        if !self.changed {
            return write!(f, "{file}: nothing to change");
        }
        writeln!(f, "{}", style::strong(file.to_string()))?;
        for line in self.diff.lines() {
            let shown = match line.chars().next() {
                Some('+') => style::good(line).to_string(),
                Some('-') => style::bad(line).to_string(),
                Some(_) | None => style::faint(line).to_string(),
            };
            writeln!(f, "{shown}")?;
        }
        if let Some(remark) = self.remark {
            writeln!(f, "note: {remark}")?;
        }
        writeln!(f, "documented at {}", self.source)?;
        match (self.applied, &self.backup) {
            (false, _) => write!(f, "nothing was changed: add --apply to do it"),
            (true, None) => write!(f, "{}: restart {} to use it", style::good("written"), self.client),
            (true, Some(backup)) => write!(
                f,
                "{}, as it was: {}; restart {} to use it",
                style::good("written"),
                backup.display(),
                self.client
            ),
        }
    }
}

/// What is a bare key in every form: nothing has to be quoted.
fn name(text: &str) -> Result<String, String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match text.chars().all(is_good) && !text.is_empty() && text.len() <= 64 {
        true => Ok(text.to_owned()),
        false => Err("a name has letters, digits, `-` and `_`, at most 64".to_owned()),
    }
}

/// `pilotctl mcp install`
pub(super) fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let executable =
        std::env::current_exe().map_err(|error| Failure::io("finding this executable", &error))?;
    let command = executable.to_str().ok_or_else(|| {
        Failure::usage(format!("the path of this executable is not UTF-8: {}", executable.display()))
    })?;
    let mut words = vec!["mcp".to_owned()];
    if let Some(peer) = &args.peer {
        words.extend(["connect".to_owned(), peer.clone()]);
    }
    // Programs start servers with little of one's environment, so what is not the default is written down.
    let socket = ctx.settings.socket();
    if socket != Path::new("/tmp/pilot.sock") {
        let socket = std::path::absolute(&socket).unwrap_or(socket);
        words.extend(["--socket".to_owned(), socket.display().to_string()]);
    }
    let entry = Entry { name: args.place.name.clone(), command: command.to_owned(), args: words };
    change(&args.place, |client, text| {
        client.with_entry(text, &entry).map_err(|error| (error, Some(client.snippet(&entry))))
    })
}

/// `pilotctl mcp uninstall`
pub(super) fn undo(_: &Context, args: &UninstallArgs) -> Result<Output, Failure> {
    change(&args.place, |client, text| {
        client.without_entry(text, &args.place.name).map_err(|error| (error, None))
    })
}

fn change(
    place: &Place,
    edit: impl FnOnce(Client, &str) -> Result<String, (EditError, Option<String>)>,
) -> Result<Output, Failure> {
    let client = Client::ALL
        .into_iter()
        .find(|client| client.name() == place.client)
        .ok_or_else(|| Failure::usage(format!("no program `{}` is known", place.client)))?;
    let places = places()?;
    let file = match (&place.file, place.project) {
        (Some(file), _) => file.clone(),
        (None, false) => client.user_file(&places),
        (None, true) => {
            let here =
                std::env::current_dir().map_err(|error| Failure::io("finding this directory", &error))?;
            client
                .project_file(&here)
                .ok_or_else(|| Failure::usage(format!("{} keeps no servers with a project", client.name())))?
        }
    };
    // A link stays one: what it points to is changed.
    let file = fs::canonicalize(&file).unwrap_or(file);
    let old = read(&file)?;
    let new = edit(client, old.as_deref().unwrap_or_default()).map_err(|(error, snippet)| {
        let failure = Failure::new(Code::Refused, format!("{}: {error}", file.display()));
        match snippet {
            Some(snippet) => failure.hint(format!("write it there by hand:\n{snippet}")),
            None => failure.hint("take the entry out by hand"),
        }
    })?;
    let shown = diff(old.as_deref().unwrap_or_default(), &new);
    let changed = !shown.is_empty();
    let backup = match (place.apply && changed, &old) {
        (true, Some(old)) => Some(keep(&file, old)?),
        _ => None,
    };
    if place.apply && changed {
        write(&file, &new)?;
    }
    Ok(Output::of(Report {
        client: client.name(),
        file,
        changed,
        applied: place.apply && changed,
        diff: shown,
        backup,
        source: client.source(),
        remark: if place.file.is_none() && !place.project { client.remark(&places) } else { None },
    }))
}

fn places() -> Result<Places, Failure> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = directory("HOME")
        .ok_or_else(|| Failure::new(Code::NotFound, "HOME is not set").hint("name the file with --file"))?;
    Ok(Places {
        home,
        config: directory("XDG_CONFIG_HOME"),
        codex: directory("CODEX_HOME"),
        is_macos: cfg!(target_os = "macos"),
    })
}

/// The text of a file, or none if there is no file.
fn read(file: &Path) -> Result<Option<String>, Failure> {
    let doing = || format!("reading {}", file.display());
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::io(doing(), &error)),
        Ok(about) if about.len() > FILE_MAX => {
            return Err(Failure::new(
                Code::Refused,
                format!("{} is no list of servers: it is too long", file.display()),
            ));
        }
        Ok(_) => {}
    }
    fs::read_to_string(file).map(Some).map_err(|error| Failure::io(doing(), &error))
}

/// Leaves the file as it was beside it, for its owner only: there may be keys in it.
fn keep(file: &Path, old: &str) -> Result<PathBuf, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    // A second change within a second must not write over what the first one kept.
    for number in 0..100 {
        let more = if number == 0 { String::new() } else { format!("-{number}") };
        let backup = with_suffix(file, &format!(".before-pilot-{now}{more}"));
        let mut options = fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&backup) {
            Ok(mut kept) => {
                let written = kept.write_all(old.as_bytes()).and_then(|()| kept.sync_all());
                return match written {
                    Ok(()) => Ok(backup),
                    Err(error) => Err(Failure::io(format!("writing {}", backup.display()), &error)),
                };
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Failure::io(format!("writing {}", backup.display()), &error)),
        }
    }
    Err(Failure::new(Code::AlreadyExists, format!("there are many copies of {} already", file.display())))
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// All of it or nothing, with the permissions that the file had.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let doing = || format!("writing {}", file.display());
    let mode = fs::metadata(file).map_or(0o600, |about| about.permissions().mode() & 0o777);
    let beside = with_suffix(file, &format!(".pilot-{}", std::process::id()));
    let put = || -> io::Result<()> {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut new =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        new.sync_all()?;
        fs::rename(&beside, file)
    };
    put().map_err(|error| {
        // It takes space, nothing else, if it cannot be removed.
        drop(fs::remove_file(&beside));
        Failure::io(doing(), &error)
    })
}
