//! `pilotctl set-public`, `set-private` and `set-visibility`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl set-public")]
pub(crate) struct PublicArgs {}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl set-private")]
pub(crate) struct PrivateArgs {}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl set-visibility public")]
pub(crate) struct Args {
    /// public or private
    #[arg(value_parser = ["public", "private"], value_name = "VISIBILITY")]
    pub(crate) visibility: String,
}

use std::fmt;

use pilot_wire::ipc::VisibilitySet;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
#[serde(transparent)]
struct Report(VisibilitySet);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.visibility.as_str() {
            "public" => write!(f, "this node is public: everybody resolves and reaches it"),
            _ => write!(f, "this node is private: trusted nodes resolve and reach it"),
        }
    }
}

/// `pilotctl set-public`, `set-private`
pub(crate) async fn set(ctx: &Context, public: bool) -> Result<Output, Failure> {
    let set = ctx.client().await?.set_visibility(public).await?;
    Ok(Output::of(Report(set)))
}
