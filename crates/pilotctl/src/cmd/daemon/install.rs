//! `pilotctl daemon install` and `pilotctl daemon uninstall`: the daemon under the service manager of this system.

mod manager;
mod units;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use self::manager::{Manager, Words};
use self::units::Facts;
use super::DaemonFlags;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::settings::{self, Flags, KEYS};
use crate::style;

/// Variables of the service of the system.
const SYSTEM_ENVIRONMENT: &str = "/etc/pilot/daemon.env";

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl daemon install --hostname my-agent           only says what it would do\n  \
    pilotctl daemon install --hostname my-agent --registry rendezvous.example.com:9000 --apply\n  \
    sudo pilotctl daemon install --system --registry rendezvous.example.com:9000 --apply",
    after_help = "The service is one of this user and has the state, settings and socket that pilotctl uses anyway. What flags \
    say goes into config.json (--system: /etc/pilot/daemon.env), where `pilotctl config` changes it."
)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonFlags,
    #[command(flatten)]
    place: Place,
    /// Have it run while nobody is logged in, too (`loginctl enable-linger`)
    #[arg(long, conflicts_with = "system")]
    linger: bool,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl daemon uninstall           only says what it would do\n  \
    pilotctl daemon uninstall --apply\n\nState and settings stay.")]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct Place {
    /// A service of the machine, with a user and state of its own
    #[arg(long)]
    system: bool,
    /// Which service manager [default: that of this system]
    #[arg(long, value_parser = ["systemd", "launchd"], value_name = "NAME")]
    manager: Option<String>,
    /// Do it, instead of only saying what would be done
    #[arg(long, visible_alias = "yes")]
    apply: bool,
}

/// One thing to do.
#[derive(Serialize)]
#[serde(tag = "does", rename_all = "snake_case")]
enum Step {
    Write { file: PathBuf, text: String },
    Set { file: PathBuf, values: Flags },
    Remove { file: PathBuf },
    Run { command: Words },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { file, text } => {
                write!(f, "{} {}", style::strong("write"), file.display())?;
                text.lines().try_for_each(|line| write!(f, "\n  {}", style::faint(line)))
            }
            Self::Set { file, values } => {
                write!(f, "{} in {}", style::strong("set"), file.display())?;
                values.iter().try_for_each(|(name, value)| write!(f, "\n  {name} = {value}"))
            }
            Self::Remove { file } => write!(f, "{} {}", style::strong("remove"), file.display()),
            Self::Run { command } => write!(f, "{} {}", style::strong("run"), command.join(" ")),
        }
    }
}

/// What was or would be done.
#[derive(Serialize)]
struct Report {
    manager: &'static str,
    /// Whether it was done.
    applied: bool,
    steps: Vec<Step>,
    /// What is left to the owner.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    by_hand: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip)]
    done: &'static str,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        match self.applied {
            true => write!(f, "{}", style::good(self.done))?,
            false => write!(f, "nothing was changed: add --apply to do it")?,
        }
        if !self.by_hand.is_empty() {
            write!(f, "\n{} cannot be talked to from here; where it runs:", self.manager)?;
            self.by_hand.iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        }
        Ok(())
    }
}

/// `pilotctl daemon install`
pub(super) async fn run(ctx: &Context, args: &InstallArgs) -> Result<Output, Failure> {
    let manager = manager(&args.place)?;
    let executable =
        std::env::current_exe().map_err(|error| Failure::io("finding this executable", &error))?;
    let system = matches!(manager, Manager::SystemdSystem);
    if system {
        fits_the_system(ctx, args, &executable)?;
    }
    let home = ctx.settings.home();
    let usual = std::env::var_os("HOME").map(|home| Path::new(&home).join(".pilot"));
    let home_of_its_own = (!system && usual.as_deref() != Some(home)).then(|| absolute(home));
    let config = args.daemon.config.as_deref().map(absolute);
    let facts = Facts {
        executable: text(&executable)?,
        home: home_of_its_own.as_deref().map(text).transpose()?,
        config: config.as_deref().map(text).transpose()?,
    };
    let file = manager.file();
    let old = read(&file)?;
    if let Some(old) = &old
        && !units::is_ours(old)
    {
        let message = format!("{} is there already, and was not written by this command", file.display());
        return Err(Failure::new(Code::AlreadyExists, message).hint("move it away, or edit it yourself"));
    }
    let is_there = manager.is_there().await;
    let runs = is_there && old.is_some() && manager.runs_it().await;
    if !runs && !system {
        nobody_else_runs(ctx).await?;
    }
    let mut steps = Vec::new();
    steps.extend(settings_step(ctx, args, system)?);
    let new = manager.text(&facts);
    if old.as_ref() != Some(&new) {
        steps.push(Step::Write { file, text: new });
    }
    let mut commands = manager.begin(runs);
    let lingering: Words = ["loginctl", "enable-linger"].map(str::to_owned).into();
    let mut notes = unseen(ctx, args, system);
    if matches!(manager, Manager::SystemdUser { .. }) {
        match args.linger {
            true => commands.push(lingering),
            false => notes.push(
                "it ends when this user logs out, unless `loginctl enable-linger` is run (or --linger given)"
                    .to_owned(),
            ),
        }
    }
    finish(
        &manager,
        &args.place,
        is_there,
        steps,
        commands,
        notes,
        "installed, running, and started with the system",
    )
    .await
}

/// `pilotctl daemon uninstall`
pub(super) async fn undo(args: &UninstallArgs) -> Result<Output, Failure> {
    let manager = manager(&args.place)?;
    let file = manager.file();
    let Some(old) = read(&file)? else {
        let message =
            format!("the daemon is not installed for {}: there is no {}", manager.name(), file.display());
        return Err(Failure::new(Code::NotFound, message));
    };
    if !units::is_ours(&old) {
        let message = format!("{} was not written by `pilotctl daemon install`", file.display());
        return Err(Failure::new(Code::Refused, message).hint("remove it yourself"));
    }
    let is_there = manager.is_there().await;
    let (mut steps, mut last) = (Vec::new(), manager.forget());
    match is_there {
        true => steps.extend(manager.end().into_iter().map(|command| Step::Run { command })),
        false => last.splice(0..0, manager.end()).for_each(drop),
    }
    steps.push(Step::Remove { file });
    let notes = vec!["state and settings stay".to_owned()];
    finish(&manager, &args.place, is_there, steps, last, notes, "taken out").await
}

/// Shows the steps, and with `--apply` takes them. `last` are those for which the manager has to be there.
async fn finish(
    manager: &Manager,
    place: &Place,
    is_there: bool,
    mut steps: Vec<Step>,
    last: Vec<Words>,
    notes: Vec<String>,
    done: &'static str,
) -> Result<Output, Failure> {
    let mut by_hand = Vec::new();
    for command in last {
        match is_there {
            true => steps.push(Step::Run { command }),
            false => by_hand.push(command.join(" ")),
        }
    }
    if place.apply {
        if place.system && !rustix::process::geteuid().is_root() {
            return Err(Failure::new(
                Code::PermissionDenied,
                "a service of the machine is for root to change",
            )
            .hint("run it with sudo, or without --system for one of this user"));
        }
        for step in &steps {
            take(step, manager).await?;
        }
    }
    let done = if is_there { done } else { "the files are as they should be" };
    Ok(Output::of(Report { manager: manager.name(), applied: place.apply, steps, by_hand, notes, done }))
}

async fn take(step: &Step, manager: &Manager) -> Result<(), Failure> {
    match step {
        Step::Write { file, text } => write(file, text),
        Step::Set { file, values } => {
            let values: Vec<_> = values.iter().map(|(name, value)| (*name, Some(value.as_str()))).collect();
            settings::store(file, &values)
        }
        Step::Remove { file } => {
            fs::remove_file(file).map_err(|error| Failure::io(format!("removing {}", file.display()), &error))
        }
        Step::Run { command } => manager::run(command, manager.journal()).await,
    }
}

fn manager(place: &Place) -> Result<Manager, Failure> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || {
        home.ok_or_else(|| Failure::usage("HOME is not set, so there is no place for a service of this user"))
    };
    let launchd = match place.manager.as_deref() {
        Some(name) => name == "launchd",
        None => cfg!(target_os = "macos"),
    };
    match (launchd, place.system) {
        (false, true) => Ok(Manager::SystemdSystem),
        (false, false) => {
            let config =
                std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            let config = config.map_or_else(|| home().map(|home| home.join(".config")), Ok)?;
            Ok(Manager::SystemdUser { config })
        }
        (true, false) => Ok(Manager::Launchd { home: home()?, uid: rustix::process::getuid().as_raw() }),
        (true, true) => Err(Failure::new(Code::Unsupported, "there is no such service for launchd")
            .hint("without --system it is one of this user")),
    }
}

/// A service of the machine has a user of its own, who sees little.
fn fits_the_system(ctx: &Context, args: &InstallArgs, executable: &Path) -> Result<(), Failure> {
    if manager::is_hidden_from_the_system(executable) {
        let message = format!("{} is not for a service of the machine to see", executable.display());
        return Err(Failure::usage(message)
            .hint("install a package, or copy it: sudo install pilotctl /usr/local/bin/ && sudo /usr/local/bin/pilotctl daemon install --system"));
    }
    if args.daemon.config.is_some() || ctx.socket_flag().is_some() || args.daemon.identity.is_some() {
        return Err(Failure::usage("a service of the machine has its own settings, socket and identity")
            .hint("they are /etc/pilot/daemon.env, /run/pilot/pilot.sock and /var/lib/pilot/identity.json"));
    }
    Ok(())
}

/// What flags say, where the service reads it.
fn settings_step(ctx: &Context, args: &InstallArgs, system: bool) -> Result<Option<Step>, Failure> {
    let mut said = args.daemon.settings();
    if let Some(socket) = ctx.socket_flag() {
        said.insert("socket", absolute(socket).display().to_string());
    }
    if said.is_empty() {
        return Ok(None);
    }
    // They were checked when this command's own settings were made of them.
    if !system {
        return Ok(Some(Step::Set { file: absolute(ctx.settings.file()), values: said }));
    }
    if said.values().any(|value| value.contains(['\n', '\r'])) {
        return Err(Failure::usage("a value has more than one line"));
    }
    let file = PathBuf::from(SYSTEM_ENVIRONMENT);
    let old = read(&file)?.unwrap_or_default();
    let variable = |name: &str| KEYS.iter().find(|key| key.name == name).map(|key| key.env);
    let set: Vec<(&str, String)> =
        said.into_iter().filter_map(|(name, value)| Some((variable(name)?, value))).collect();
    Ok(Some(Step::Write { file, text: units::environment(&old, &set) }))
}

/// What is said here and the service will not hear.
fn unseen(ctx: &Context, args: &InstallArgs, system: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let of_the_environment: Vec<&str> = ctx
        .settings
        .all()
        .filter(|(_, setting)| setting.origin == settings::Origin::Environment)
        .map(|(key, _)| key.env)
        .collect();
    if !of_the_environment.is_empty() {
        notes.push(format!(
            "the service does not see the environment of this shell: {} (give flags, or use `pilotctl config --set`)",
            of_the_environment.join(", ")
        ));
    }
    if args.daemon.webhook_secret.is_some() {
        let how = if system {
            "write PILOT_WEBHOOK_SECRET=.. into /etc/pilot/daemon.env"
        } else {
            "systemctl --user edit pilot"
        };
        notes.push(format!("the webhook's secret is not written anywhere: {how}"));
    }
    notes
}

/// Two daemons must never share a state: the service would not start, and say so only in its journal.
async fn nobody_else_runs(ctx: &Context) -> Result<(), Failure> {
    let home = ctx.settings.home();
    let answers = ctx.client_if_running().await?.is_some();
    let in_use = pilot_daemon::is_in_use(home)
        .map_err(|error| Failure::io(format!("looking at {}", home.display()), &error))?;
    let what = match (in_use, answers) {
        (true, _) => format!("a daemon that is no service runs with the state in {}", home.display()),
        (false, true) => format!("another daemon answers on {}", ctx.settings.socket().display()),
        (false, false) => return Ok(()),
    };
    Err(Failure::new(Code::AlreadyExists, what).hint("`pilotctl daemon stop` ends it; then install"))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn text(path: &Path) -> Result<&str, Failure> {
    let printable = path.to_str().filter(|text| !text.chars().any(char::is_control));
    printable
        .ok_or_else(|| Failure::usage(format!("{} has characters that no unit may have", path.display())))
}

fn read(file: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::io(format!("reading {}", file.display()), &error)),
    }
}

/// All of it or nothing. A unit is for everybody to read; what has values may hold secrets.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let doing = |error| Failure::io(format!("writing {}", file.display()), &error);
    if file == Path::new(SYSTEM_ENVIRONMENT) {
        return settings::write_private(file, text.as_bytes()).map_err(doing);
    }
    let beside = file.with_extension(format!("tmp{}", std::process::id()));
    let put = || {
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&beside, text)?;
        fs::rename(&beside, file)
    };
    put().map_err(|error| {
        // It takes space, nothing else, if it cannot be removed.
        drop(fs::remove_file(&beside));
        doing(error)
    })
}
