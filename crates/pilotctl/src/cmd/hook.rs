//! `pilotctl hook`.

use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl hook add --exec './on-message.sh' --from agent-b\n  pilotctl hook list"
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Run a program or post to a URL for each message that arrives from now on
    Add(AddArgs),
    /// All hooks and how they fared
    List(ListArgs),
    /// Do it no more
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Do it now, once, with a message made up for it
    Test(TestArgs),
}

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl hook add --exec 'jq -r .data >> messages.txt'\n  \
    pilotctl hook add --exec './work.sh' --from agent-b --type json --match task --timeout 30s\n  \
    pilotctl hook add --url https://example.com/hook --secret-file hook.key",
    after_help = "A program is run by `sh -c` in the daemon's home folder, with the message as one JSON document on \
    stdin and PILOT_MESSAGE_ID, PILOT_INBOX_ID, PILOT_FROM, PILOT_FROM_HOSTNAME, PILOT_TYPE, PILOT_REPLY_TO, \
    PILOT_HOPS and PILOT_EVENT_ID in its environment; nothing a peer wrote is part of the command. Exit status 0 takes the message \
    (it counts as read); anything else is tried again, after 1 s, 2 s, up to 5 min, for a day. A URL is posted the same \
    document; 2xx takes it. With a key, X-Pilot-Signature-256 is the HMAC-SHA256 of the body in hexadecimal. Both \
    happen at least once: the event id tells repetitions."
)]
pub(crate) struct AddArgs {
    /// The command line to run
    #[arg(long, value_name = "CMD", required_unless_present = "url", conflicts_with = "url")]
    pub(crate) exec: Option<String>,
    /// The http or https URL to post to
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// File with the key that posts are signed with; `-` is stdin
    #[arg(long, value_name = "PATH", requires = "url")]
    pub(crate) secret_file: Option<PathBuf>,
    /// Only for messages of this node
    #[arg(long, value_name = "TARGET")]
    pub(crate) from: Option<String>,
    /// Only for messages of this type
    #[arg(long = "type", value_parser = ["text", "json", "binary"], ignore_case = true, value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Only for messages with this text in their body
    #[arg(long = "match", value_name = "TEXT")]
    pub(crate) text: Option<String>,
    /// How long a program may run before it is killed [default: 5m]
    #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION", requires = "exec")]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl hook list")]
pub(crate) struct ListArgs {}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl hook remove 1")]
pub(crate) struct RemoveArgs {
    /// Number of the hook
    #[arg(value_name = "ID")]
    pub(crate) id: u64,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl hook test 1")]
pub(crate) struct TestArgs {
    /// Number of the hook
    #[arg(value_name = "ID")]
    pub(crate) id: u64,
}

use std::fmt;
use std::path::Path;

use pilot_wire::hooks::{Action, Hook, Matching, Reply, Request};
use pilot_wire::ipc::Call;
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{duration, humane, input, style, target};

/// `pilotctl hook`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    match &args.command {
        Command::Add(args) => add(ctx, args).await,
        Command::List(ListArgs {}) => match ask(ctx, Request::List).await? {
            Reply::Hooks { hooks } => Ok(Output::of(Listed { total: hooks.len(), hooks })),
            other @ (Reply::Hook(_) | Reply::Tested { .. }) => Err(unexpected(&other)),
        },
        Command::Remove(args) => match ask(ctx, Request::Remove { id: args.id }).await? {
            Reply::Hook(hook) => Ok(Output::of(Shown { word: "removed", hook: *hook })),
            other @ (Reply::Hooks { .. } | Reply::Tested { .. }) => Err(unexpected(&other)),
        },
        Command::Test(args) => test(ctx, args.id).await,
    }
}

async fn ask(ctx: &Context, request: Request) -> Result<Reply, Failure> {
    Ok(ctx.client().await?.call(Call::Hooks(request)).await?)
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::internal(format!("the daemon gave an unexpected answer: {reply:?}"))
}

async fn add(ctx: &Context, args: &AddArgs) -> Result<Output, Failure> {
    let secret = args.secret_file.as_deref().map(secret).transpose()?;
    let action = match (&args.exec, &args.url) {
        (Some(command), None) => Action::Exec {
            command: command.clone(),
            timeout_ms: args.timeout.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        },
        (None, Some(url)) => Action::Post { url: url.clone(), signed: secret.is_some() },
        (Some(_), Some(_)) | (None, None) => {
            return Err(
                Failure::usage("either --exec or --url is needed").hint("see `pilotctl hook add --help`")
            );
        }
    };
    let from = match &args.from {
        Some(text) => Some(target::find(&ctx.client().await?, text).await?.node),
        None => None,
    };
    let matching = Matching { from, kind: args.kind.clone(), text: args.text.clone() };
    match ask(ctx, Request::Add { action, matching, secret }).await? {
        Reply::Hook(hook) => Ok(Output::of(Shown { word: "added", hook: *hook })),
        other @ (Reply::Hooks { .. } | Reply::Tested { .. }) => Err(unexpected(&other)),
    }
}

/// The key, without the line break that editors put behind it.
fn secret(path: &Path) -> Result<String, Failure> {
    let bytes = if path == Path::new("-") { input::data("-")? } else { input::file(path)? };
    let text = String::from_utf8(bytes).map_err(|_| Failure::usage("the key is not text"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(Failure::usage(format!("there is no key in {}", path.display()))),
        key => Ok(key.to_owned()),
    }
}

async fn test(ctx: &Context, id: u64) -> Result<Output, Failure> {
    let reply = ask(ctx, Request::Test { id }).await?;
    let Reply::Tested { ok, outcome, output, took_ms } = reply else { return Err(unexpected(&reply)) };
    let tested = Tested { ok, outcome, output, took_ms };
    if tested.ok {
        return Ok(Output::of(tested));
    }
    let mut failure = Failure::new(Code::Refused, format!("hook {id} failed: {}", tested.outcome));
    if !tested.output.is_empty() {
        failure = failure.hint(format!("it printed: {}", humane::printable(&tested.output)));
    }
    Err(failure.with_data(serde_json::json!(tested)))
}

#[derive(Serialize)]
struct Listed {
    hooks: Vec<Hook>,
    total: usize,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hooks.is_empty() {
            return f.write_str("no hooks");
        }
        let hooks: Vec<String> = self.hooks.iter().map(in_words).collect();
        f.write_str(&hooks.join("\n"))
    }
}

#[derive(Serialize)]
struct Shown {
    #[serde(skip)]
    word: &'static str,
    #[serde(flatten)]
    hook: Hook,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", style::good(self.word), in_words(&self.hook))
    }
}

fn in_words(hook: &Hook) -> String {
    let action = match &hook.action {
        Action::Exec { command, timeout_ms: None } => format!("run {command}"),
        Action::Exec { command, timeout_ms: Some(limit) } => {
            format!("run {command} (at most {})", duration::show(Duration::from_millis(*limit)))
        }
        Action::Post { url, signed: true } => format!("post to {url}, signed"),
        Action::Post { url, signed: false } => format!("post to {url}"),
    };
    let matching = &hook.matching;
    let from = matching.from.map_or_else(String::new, |node| format!(" from node {node}"));
    let kind = matching.kind.as_ref().map_or_else(String::new, |kind| format!(" of type {kind}"));
    let text = matching.text.as_ref().map_or_else(String::new, |text| format!(" with `{text}`"));
    let failed = if hook.failed > 0 { format!(" · {} given up", hook.failed) } else { String::new() };
    let skipped =
        if hook.skipped > 0 { format!(" · {} of them skipped", hook.skipped) } else { String::new() };
    let mut words = format!(
        "hook {}: for each message{from}{kind}{text}, {action}\n  {} done{skipped} · {} waiting{failed}",
        hook.id, hook.done, hook.pending
    );
    if let Some(skip) = &hook.last_skip {
        words.push_str(&format!("\n  {} {}", style::strong("skipped:"), humane::printable(skip)));
    }
    if let Some(held) = &hook.held {
        words.push_str(&format!("\n  {} {}", style::strong("held back:"), humane::printable(held)));
    }
    if let Some(error) = &hook.last_error {
        words.push_str(&format!("\n  {} {}", style::bad("last failure:"), humane::printable(error)));
    }
    words
}

#[derive(Serialize)]
struct Tested {
    ok: bool,
    outcome: String,
    output: String,
    took_ms: u64,
}

impl fmt::Display for Tested {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} after {} ms", style::good("ok:"), self.outcome, self.took_ms)?;
        if !self.output.is_empty() {
            write!(f, "\n{}", humane::printable(&self.output))?;
        }
        Ok(())
    }
}
