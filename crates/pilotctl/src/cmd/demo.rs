//! `pilotctl demo`.

/// Play the whole story on this machine and check it
#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl demo\n  pilotctl demo --json\n  pilotctl demo --keep")]
pub(crate) struct Args {
    /// Leave the temporary directory with identities, logs and inboxes where it is
    #[arg(long)]
    pub(crate) keep: bool,
}

use std::fmt;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use crate::context::Context;
use crate::demo::{Entry, Stage, end, play};
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{duration, process, style};

#[derive(Serialize)]
struct Report {
    ok: bool,
    total_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    story: Vec<Entry>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let took = duration::show(std::time::Duration::from_secs_f64(self.total_ms / 1e3));
        let all = format!("Everything happened as told, in {took}.");
        writeln!(f, "\n{} {}", style::good("✓"), style::strong(all))?;
        if let Some(directory) = &self.directory {
            writeln!(f, "Identities, inboxes and logs are kept in {directory}")?;
        }
        write!(f, "Next: pilotctl daemon start --hostname my-agent")
    }
}

/// `pilotctl demo`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let mut stage = Stage::new(ctx.format)?;
    let begin = Instant::now();
    let played = tokio::select! {
        played = Box::pin(play(&mut stage)) => played,
        () = process::asked_to_end() => Err(Failure::new(Code::Interrupted, "the demo was interrupted")),
    };
    let total_ms = begin.elapsed().as_secs_f64() * 1e3;
    end(&mut stage).await;
    let directory = args.keep.then(|| stage.directory.display().to_string());
    if !args.keep {
        stage.remove()?;
    }
    let story = std::mem::take(&mut stage.record);
    match played {
        Ok(()) => Ok(Output::of(Report { ok: true, total_ms, directory, story })),
        Err(failure) => Err(failure.with_data(json!({ "story": story, "directory": directory }))),
    }
}
