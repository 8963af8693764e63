//! The article forms `pilotctl events subscribe|publish --topic T`.

use std::time::Duration;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Print events of a topic
    Subscribe {
        /// The topic
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// The node whose events are wanted
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// End after so many events
        #[arg(long, value_name = "COUNT")]
        count: Option<usize>,
        /// End after this time
        #[arg(long, value_parser = crate::duration::parse, value_name = "DURATION")]
        timeout: Option<Duration>,
    },
    /// Publish an event
    Publish {
        /// The topic
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// The node to publish at
        #[arg(long, value_name = "TARGET")]
        target: Option<String>,
        /// The payload; `-` is stdin
        #[arg(long, alias = "payload", value_name = "DATA", allow_hyphen_values = true, default_value = "-")]
        data: String,
    },
}

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Output;

/// The article forms are the same as `subscribe` and `publish`.
pub(crate) async fn run(ctx: &Context, command: Command) -> Result<Output, Failure> {
    let words = |target: Option<String>, topic| target.into_iter().chain([topic]).collect();
    match command {
        Command::Subscribe { topic, target, count, timeout } => {
            let args = super::subscribe::Args { words: words(target, topic), count, timeout };
            super::subscribe::run(ctx, &args).await
        }
        Command::Publish { topic, target, data } => {
            let args = super::publish::Args { words: words(target, topic), data: Some(data) };
            super::publish::run(ctx, &args).await
        }
    }
}
