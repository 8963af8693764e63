//! `pilotctl task`, `enable-tasks`, `disable-tasks`.

mod exec;
mod report;
mod work;

use std::path::PathBuf;
use std::time::Duration;

use pilot_client::{Category, Client, NewTask, Task, TaskId, TaskState};

use self::report::{Changed, List, Queue, Settings, Shown, Submitted};
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::{duration, input, target};

/// How long a submission or a result is given to arrive before the command ends with it still on its way.
const ARRIVES_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Give a peer a task; it is kept and carried there if the peer is away
    #[command(before_help = "Examples:\n  pilotctl task submit agent-b --task \"summarise this paper\"\n  \
            pilotctl task submit agent-b \"summarise this paper\" --deadline 10m --wait")]
    Submit(SubmitArgs),
    /// Tasks given and received
    #[command(before_help = "Examples:\n  pilotctl task list\n  pilotctl task list --type received")]
    List {
        /// Only ours, or only those of others
        #[arg(long = "type", value_name = "WHICH", value_parser = ["submitted", "received"])]
        category: Option<String>,
    },
    /// One task with its results; without a name, what this node does with tasks
    #[command(
        visible_alias = "status",
        before_help = "Examples:\n  pilotctl task show ID\n  pilotctl task status"
    )]
    Show {
        #[command(flatten)]
        name: Name,
    },
    /// Wait until a task is done, declined, cancelled, failed or expired
    #[command(before_help = "Examples:\n  pilotctl task wait ID\n  pilotctl task wait ID --timeout 1h\n  \
            pilotctl task wait ID --until accepted,executing")]
    Wait {
        #[command(flatten)]
        name: Name,
        /// How long
        #[arg(long, default_value = "5m", value_parser = duration::parse, value_name = "DURATION")]
        timeout: Duration,
        /// Until it is in one of these states instead
        #[arg(long, value_delimiter = ',', value_name = "STATE")]
        until: Vec<TaskState>,
    },
    /// Take a task back, or give an accepted one back
    #[command(
        before_help = "Examples:\n  pilotctl task cancel ID\n  pilotctl task cancel ID --reason \"no longer needed\""
    )]
    Cancel {
        #[command(flatten)]
        name: Name,
        /// Why; the other side reads it
        #[arg(long, alias = "justification", default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Accept a task: the one named, or the next, waiting for it
    #[command(
        before_help = "Examples:\n  pilotctl task accept\n  pilotctl task accept --id ID\n  pilotctl task accept --timeout 1h --json"
    )]
    Accept {
        #[command(flatten)]
        name: Name,
        /// How long to wait for a task
        #[arg(long, default_value = "0s", value_parser = duration::parse, value_name = "DURATION")]
        timeout: Duration,
    },
    /// Refuse a task
    #[command(before_help = "Examples:\n  pilotctl task decline --id ID --justification \"out of memory\"")]
    Decline {
        #[command(flatten)]
        name: Name,
        /// Why; the submitter reads it
        #[arg(long, visible_alias = "reason", value_name = "TEXT")]
        justification: Option<String>,
    },
    /// Begin the next accepted task, and have a program do it if one is named
    #[command(
        before_help = "Examples:\n  pilotctl task execute\n  pilotctl task execute --exec ./summarise.sh\n  \
            pilotctl task execute --accept --exec ./summarise.sh --count 0 --timeout 24h"
    )]
    Execute(work::ExecuteArgs),
    /// Accepted tasks that are not begun, next one first
    #[command(before_help = "Examples:\n  pilotctl task queue")]
    Queue,
    /// Say how far a task is
    #[command(before_help = "Examples:\n  pilotctl task progress ID \"3 of 5 chapters\"")]
    Progress {
        /// Name of the task
        #[arg(value_name = "ID")]
        id: String,
        /// How far
        #[arg(value_name = "TEXT")]
        text: String,
    },
    /// Hand the result of a task in: a text, files, or both
    #[command(
        visible_alias = "complete",
        before_help = "Examples:\n  pilotctl task send-results --id ID --results \"the summary\"\n  \
            pilotctl task complete ID --file summary.md --file table.csv"
    )]
    SendResults(work::ResultArgs),
    /// Give a task up
    #[command(before_help = "Examples:\n  pilotctl task fail ID --reason \"the model ran out of memory\"")]
    Fail {
        #[command(flatten)]
        name: Name,
        /// Why; the submitter reads it
        #[arg(long, alias = "justification", default_value = "failed", value_name = "TEXT")]
        reason: String,
    },
    /// Whether a submitter's score must not be below ours; off unless switched on
    #[command(before_help = "Examples:\n  pilotctl task gate\n  pilotctl task gate on")]
    Gate {
        /// `on` or `off`
        #[arg(value_name = "SWITCH", value_parser = ["on", "off"])]
        switch: Option<String>,
    },
}

/// The task that a command is about, in any of the forms people write.
#[derive(Debug, clap::Args)]
pub(crate) struct Name {
    /// Name of the task
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// The same as a flag
    #[arg(long = "id", visible_alias = "task-id", value_name = "ID", conflicts_with = "id")]
    flag: Option<String>,
}

impl Name {
    fn given(&self) -> Result<Option<TaskId>, Failure> {
        let text = self.id.as_ref().or(self.flag.as_ref());
        let not_found = |text: &String| {
            Failure::new(Code::NotFound, format!("task not found: {text}")).hint("see: pilotctl task list")
        };
        text.map(|text| text.parse().map_err(|_| not_found(text))).transpose()
    }

    fn required(&self) -> Result<TaskId, Failure> {
        let missing = || Failure::usage("the task is missing").hint("name it: --id ID (pilotctl task list)");
        self.given()?.ok_or_else(missing)
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct SubmitArgs {
    /// Who is to do it: hostname, address or node number
    #[arg(value_name = "TARGET")]
    target: Option<String>,
    /// What is to be done; `-` is stdin
    #[arg(value_name = "TEXT")]
    text: Option<String>,
    /// The target as a flag; a single word before it is the text
    #[arg(long, value_name = "TARGET")]
    to: Option<String>,
    /// The text as a flag
    #[arg(long, short = 'd', visible_aliases = ["description", "data"], value_name = "TEXT", allow_hyphen_values = true)]
    task: Option<String>,
    /// A file with the text
    #[arg(long, value_name = "PATH", conflicts_with = "task")]
    task_file: Option<PathBuf>,
    /// A name for the task; the same again is the same task
    #[arg(long, visible_alias = "task-id", value_name = "ID")]
    id: Option<String>,
    /// When it must be finished; without, it must be accepted within a minute of its arrival
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    deadline: Option<Duration>,
    /// Wait for the end and print the result [default: 5m]
    #[arg(long, value_parser = duration::parse, num_args = 0..=1, require_equals = true, default_missing_value = "5m", value_name = "DURATION")]
    wait: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl enable-tasks")]
pub(crate) struct EnableArgs {}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl disable-tasks")]
pub(crate) struct DisableArgs {}

/// `pilotctl task`
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    // What is wrong with the line is said before the daemon is asked for.
    match command {
        Command::Submit(args) => submit(ctx, &args).await,
        Command::List { category } => {
            let category = category.map(|which| match which.as_str() {
                "submitted" => Category::Submitted,
                _ => Category::Received,
            });
            let (tasks, total) = ctx.client().await?.tasks(category).await?;
            Ok(Output::of(List { tasks, total }))
        }
        Command::Show { name } => match name.given()? {
            Some(id) => Ok(Output::of(Shown::of(ctx.client().await?.show_task(&id).await?))),
            None => settings(ctx, None, None).await,
        },
        Command::Wait { name, timeout, until } => {
            let id = name.required()?;
            let client = ctx.client().await?;
            if until.is_empty() {
                return ended(wait_on(&client, &id, timeout).await?);
            }
            Ok(Output::of(Shown::of(client.wait_task_until(&id, &until, timeout).await?)))
        }
        Command::Cancel { name, reason } => {
            let id = name.required()?;
            changed(ctx.client().await?.cancel_task(&id, &reason).await?, "Task cancelled")
        }
        Command::Accept { name, timeout } => {
            let id = name.given()?;
            let client = ctx.client().await?;
            let task = match id {
                Some(id) => client.accept_this_task(&id).await?,
                None => client.accept_task(timeout).await?,
            };
            changed(task, "Task accepted")
        }
        Command::Decline { name, justification } => {
            let id = name.required()?;
            let why = justification.ok_or_else(|| Failure::usage("--justification is required"))?;
            changed(ctx.client().await?.decline_task(&id, &why).await?, "Task declined")
        }
        Command::Execute(args) => work::execute(ctx, &args).await,
        Command::Queue => {
            let (queue, count) = ctx.client().await?.task_queue().await?;
            Ok(Output::of(Queue { queue, count }))
        }
        Command::Progress { id, text } => {
            let id = Name { id: Some(id), flag: None }.required()?;
            changed(ctx.client().await?.report_task_progress(&id, &text).await?, "Progress noted")
        }
        Command::SendResults(args) => work::send_results(ctx, &args).await,
        Command::Fail { name, reason } => {
            let id = name.required()?;
            changed(ctx.client().await?.fail_task(&id, &reason).await?, "Task given up")
        }
        Command::Gate { switch } => settings(ctx, None, switch.map(|switch| switch == "on")).await,
    }
}

/// `pilotctl enable-tasks`, `disable-tasks`
pub(crate) async fn enable(ctx: &Context, enabled: bool) -> Result<Output, Failure> {
    settings(ctx, Some(enabled), None).await
}

async fn settings(ctx: &Context, enabled: Option<bool>, gate: Option<bool>) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let settings = client.task_settings(enabled, gate).await?;
    let node_id = client.info().await?.node_id;
    Ok(Output::of(Settings::of(node_id, settings)))
}

fn changed(task: Task, message: &'static str) -> Result<Output, Failure> {
    Ok(Output::of(Changed { message, task }))
}

/// A task that came to its end: only one with results is a success.
fn ended(task: Task) -> Result<Output, Failure> {
    if task.status.has_results() {
        return Ok(Output::of(Shown::of(task)));
    }
    let state = task.status;
    let why = crate::humane::printable(&task.justification);
    let message = format!("task {} is {state} ({}): {why}", task.task_id, task.a2a_state);
    let code = match state {
        TaskState::New | TaskState::Accepted | TaskState::Executing => Code::Timeout,
        TaskState::Cancelled => Code::Interrupted,
        TaskState::Declined
        | TaskState::Expired
        | TaskState::Completed
        | TaskState::Succeeded
        | TaskState::Failed => Code::Refused,
    };
    let data = serde_json::to_value(Shown::of(task));
    let data = data.map_err(|error| Failure::internal(format!("encoding the result: {error}")))?;
    Err(Failure::new(code, message).with_data(data))
}

async fn submit(ctx: &Context, args: &SubmitArgs) -> Result<Output, Failure> {
    let (target, text) = match (&args.to, &args.target, &args.text) {
        (Some(to), None, None) => (to, None),
        (Some(to), Some(text), None) | (Some(to), None, Some(text)) => (to, Some(text)),
        (None, Some(target), text) => (target, text.as_ref()),
        (None, None, _) => {
            return Err(Failure::usage("the target is missing").hint("pilotctl task submit NODE --task TEXT"));
        }
        (Some(_), Some(_), Some(_)) => {
            return Err(Failure::usage("the target is given twice").hint("leave --to or the first word out"));
        }
    };
    let description = match (text, &args.task, &args.task_file) {
        (None, None, Some(path)) => input::file(path)?,
        (Some(text), None, None) | (None, Some(text), None) => input::data(text)?,
        (None, None, None) => return Err(Failure::usage("--task is required").hint("say what is to be done")),
        (Some(_), ..) | (None, Some(_), Some(_)) => {
            return Err(Failure::usage("the text is given twice").hint("leave one out"));
        }
    };
    let description = String::from_utf8(description).map_err(|_| {
        Failure::usage("a task is described in text").hint("send data with: pilotctl send-file")
    })?;
    let mut task = NewTask::new(&description).answered_within(ARRIVES_WITHIN);
    if let Some(id) = &args.id {
        task = task.named(
            id.parse().map_err(|error: pilot_wire::tasks::TaskIdError| Failure::usage(error.to_string()))?,
        );
    }
    if let Some(deadline) = args.deadline {
        task = task.deadline(deadline);
    }
    let client = ctx.client().await?;
    let peer = target::find(&client, target).await?;
    let submitted = client.submit_task(peer.addr, task).await?;
    let refused = submitted.status == TaskState::Declined;
    match args.wait {
        Some(wait) if !refused => {
            output::note(ctx.format, &format!("task {} submitted, waiting for its end", submitted.task_id));
            let ended_task = wait_on(&client, &submitted.task_id, wait).await?;
            ended(ended_task)
        }
        Some(_) | None => Submitted::of(peer.addr, submitted).output(),
    }
}

/// What ran out is told with what is known by then.
async fn wait_on(client: &Client, id: &TaskId, wait: Duration) -> Result<Task, Failure> {
    match client.wait_task(id, wait).await {
        Ok(task) => Ok(task),
        Err(error) => {
            let failure = Failure::from(error);
            if failure.code != Code::Timeout {
                return Err(failure);
            }
            let task = client.show_task(id).await?;
            match serde_json::to_value(Shown::of(task)) {
                Ok(data) => Err(failure.with_data(data)),
                Err(_) => Err(failure),
            }
        }
    }
}
