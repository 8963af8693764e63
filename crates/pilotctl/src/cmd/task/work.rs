//! The worker's commands: begin a task, and hand its result in.

use std::path::PathBuf;
use std::time::Duration;

use pilot_client::{TaskId, TaskResult};

use super::report::{Changed, Sent};
use super::{ARRIVES_WITHIN, Name, exec};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;
use crate::{duration, input};

#[derive(Debug, clap::Args)]
pub(crate) struct ExecuteArgs {
    #[command(flatten)]
    name: Name,
    /// A command line that does the task: its description comes on stdin, what it prints is the result, and so are the
    /// files it leaves in `$PILOT_TASK_OUT`; an exit status other than 0 means that it failed
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
    /// Accept the next task first when none is accepted
    #[arg(long)]
    accept: bool,
    /// How long to wait for a task
    #[arg(long, default_value = "0s", value_parser = duration::parse, value_name = "DURATION")]
    timeout: Duration,
    /// With `--exec`: how many tasks to do; 0 goes on until none came in time
    #[arg(long, default_value_t = 1, value_name = "COUNT", requires = "exec")]
    count: usize,
    /// With `--exec`: files of any type may go, programs too
    #[arg(long, requires = "exec")]
    any_type: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResultArgs {
    #[command(flatten)]
    name: Name,
    /// The result in words; `-` is stdin
    #[arg(long, visible_aliases = ["result", "text", "data"], value_name = "TEXT", allow_hyphen_values = true)]
    results: Option<String>,
    /// A file of the result; may be given several times
    #[arg(long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Files of any type may go, programs too
    #[arg(long)]
    any_type: bool,
}

/// `pilotctl task execute`
pub(super) async fn execute(ctx: &Context, args: &ExecuteArgs) -> Result<Output, Failure> {
    let id = args.name.given()?;
    let client = ctx.client().await?;
    if let Some(line) = &args.exec {
        let work = exec::Work {
            line,
            id: id.as_ref(),
            accept: args.accept,
            timeout: args.timeout,
            count: args.count,
            any_type: args.any_type,
        };
        return exec::run(ctx, &client, work).await;
    }
    let task = exec::next(&client, id.as_ref(), args.accept, args.timeout).await?;
    Ok(Output::of(Changed { message: "Task execution started", task }))
}

/// `pilotctl task send-results`, `task complete`
pub(super) async fn send_results(ctx: &Context, args: &ResultArgs) -> Result<Output, Failure> {
    let id = args.name.required()?;
    let text = args.results.as_deref().map(input::data).transpose()?;
    if text.is_none() && args.files.is_empty() {
        return Err(Failure::usage("either --results or --file is required"));
    }
    let text = text.map(String::from_utf8).transpose();
    let text =
        text.map_err(|_| Failure::usage("results in words are text").hint("hand data in with --file"))?;
    let mut files = Vec::new();
    for path in &args.files {
        let metadata =
            std::fs::metadata(path).map_err(|e| Failure::io(format!("reading {}", path.display()), &e))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        files.push((name.unwrap_or_default(), metadata.len()));
    }
    let client = ctx.client().await?;
    let task = hand_in(&client, &id, text, &args.files, args.any_type).await?;
    Ok(Output::of(Sent::of(task, args.results.is_some(), &files)))
}

/// Hands a result in and waits a moment for it to arrive.
pub(super) async fn hand_in(
    client: &pilot_client::Client,
    id: &TaskId,
    text: Option<String>,
    files: &[PathBuf],
    any_type: bool,
) -> Result<pilot_client::Task, Failure> {
    let mut result = match text {
        Some(text) => TaskResult::text(text),
        None => TaskResult::default(),
    };
    for path in files {
        result = result.with_file(path);
    }
    if any_type {
        result = result.of_any_type();
    }
    Ok(client.complete_task(id, result.delivered_within(ARRIVES_WITHIN)).await?)
}
