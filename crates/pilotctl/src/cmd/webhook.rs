//! `pilotctl set-webhook` and `clear-webhook`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl set-webhook http://localhost:8080/events")]
pub(crate) struct SetArgs {
    /// Where events are posted
    #[arg(value_name = "URL")]
    pub(crate) url: String,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl clear-webhook")]
pub(crate) struct ClearArgs {}

use std::fmt;

use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    webhook: String,
    applied: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.webhook.is_empty() {
            write!(f, "webhook cleared")
        } else {
            write!(f, "webhook set: {}", self.webhook)
        }
    }
}

/// `pilotctl set-webhook`, or `clear-webhook` with an empty URL. The daemon keeps it.
pub(crate) async fn set(ctx: &Context, url: &str) -> Result<Output, Failure> {
    let set = ctx.client().await?.set_webhook(url).await?;
    Ok(Output::of(Report { webhook: set.webhook, applied: true }))
}
