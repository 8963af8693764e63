//! `pilotctl daemon stop`: the daemon is asked over its socket; if it does not answer there, by its pid file.

use std::fmt;
use std::time::Duration;

use pilot_wire::ipc::{Call, Done, Status};
use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::process::{self, Ending};

#[derive(Serialize)]
struct Stopped {
    pid: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    forced: bool,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.forced { ", by force: it did not end in time" } else { "" };
        write!(f, "daemon stopped (pid {}{how})", self.pid)
    }
}

pub(super) async fn stop(ctx: &Context, timeout: Duration) -> Result<Output, Failure> {
    let (pid, ending) = match asked(ctx).await {
        Ok(pid) => (pid, process::wait_until_gone(pid, timeout).await?),
        Err(failure) => {
            let pid = pid_from_file(ctx).filter(|pid| process::is_running(*pid)).ok_or(failure)?;
            (pid, process::stop(pid, timeout).await?)
        }
    };
    Ok(Output::of(Stopped { pid, forced: ending == Ending::Forced }))
}

async fn asked(ctx: &Context) -> Result<u32, Failure> {
    let client = ctx.client().await?;
    let status: Status = client.call(Call::Status).await.map_err(|error| {
        Failure::from(error)
            .advise(Code::Unsupported, "it is a daemon of the reference: end it where it was started")
    })?;
    let _: Done = client.call(Call::Shutdown).await?;
    Ok(status.pid)
}

fn pid_from_file(ctx: &Context) -> Option<u32> {
    std::fs::read_to_string(ctx.settings.home().join("pilot.pid")).ok()?.trim().parse().ok()
}
