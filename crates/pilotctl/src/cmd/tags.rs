//! `pilotctl set-tags`, `clear-tags` and the article forms `tags set`, `tag add`.

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl set-tags gpu summarization")]
pub(crate) struct SetArgs {
    /// Tags of a-z, 0-9 and `-`; a leading `#` is allowed
    #[arg(value_name = "TAG", required = true)]
    pub(crate) tags: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(before_help = "Examples:\n  pilotctl clear-tags")]
pub(crate) struct ClearArgs {}

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Replace the tags; `key=value` becomes `key-value`
    Set {
        /// Tags, separated by commas or spaces
        #[arg(value_name = "TAG", value_delimiter = ',', required = true)]
        tags: Vec<String>,
    },
    /// Add tags to those the node has
    Add {
        /// Tags, separated by commas or spaces
        #[arg(value_name = "TAG", value_delimiter = ',', required = true)]
        tags: Vec<String>,
    },
}

use std::fmt;

use pilot_wire::NodeId;
use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    node_id: NodeId,
    tags: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.tags.is_empty() {
            return write!(f, "tags cleared");
        }
        let tags: Vec<String> = self.tags.iter().map(|tag| format!("#{tag}")).collect();
        write!(f, "tags set: {}", tags.join(" "))
    }
}

/// `pilotctl set-tags`, `clear-tags`
pub(crate) async fn set(ctx: &Context, tags: &[String]) -> Result<Output, Failure> {
    let set = ctx.client().await?.set_tags(tags).await?;
    Ok(Output::of(Report { node_id: set.node_id, tags: set.tags }))
}

/// The article forms.
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    // The registry's tags have no `=`.
    let plain = |tags: Vec<String>| tags.into_iter().map(|tag| tag.replace('=', "-")).collect::<Vec<_>>();
    match command {
        Command::Set { tags } => set(ctx, &plain(tags)).await,
        Command::Add { tags } => {
            let client = ctx.client().await?;
            let node = client.info().await?.node_id;
            let mut all = super::peers::tags(&client, node).await?;
            for tag in plain(tags) {
                if !all.contains(&tag) {
                    all.push(tag);
                }
            }
            set(ctx, &all).await
        }
    }
}
