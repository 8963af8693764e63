//! `pilotctl set-hostname` and `clear-hostname`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl set-hostname my-agent")]
pub(crate) struct SetArgs {
    /// 1 to 63 of a-z, 0-9 and `-`
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl clear-hostname")]
pub(crate) struct ClearArgs {}

use std::fmt;

use serde::Serialize;

use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::settings::is_hostname;

#[derive(Serialize)]
struct Report {
    hostname: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<pilot_wire::NodeId>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.hostname.is_empty() {
            write!(f, "hostname cleared")
        } else {
            write!(f, "hostname set: {}", self.hostname)
        }
    }
}

/// `pilotctl set-hostname`, or `clear-hostname` with an empty name.
pub(crate) async fn set(ctx: &Context, name: &str) -> Result<Output, Failure> {
    if !name.is_empty() && !is_hostname(name) {
        return Err(Failure::usage(format!("`{name}` is not a hostname"))
            .hint("1 to 63 of a-z, 0-9 and `-`, no `-` at either end"));
    }
    let client = ctx.client().await?;
    let set = client
        .set_hostname(name)
        .await
        .map_err(|error| Failure::from(error).advise(Code::AlreadyExists, "choose another name"))?;
    let node_id = (!name.is_empty()).then_some(set.node_id);
    Ok(Output::of(Report { hostname: name.to_owned(), node_id }))
}
