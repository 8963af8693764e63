//! `pilotctl reply`.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl reply last 'it is done'\n  pilotctl reply 5156d0a4 --type json --data '{\"ok\":true}'\n  \
    make-report | pilotctl reply last -\n  pilotctl reply last --progress 'half of it is done'\n  \
    pilotctl reply last --fail 'the disk is full'\n  pilotctl reply last --decline 'not today'"
)]
pub(crate) struct Args {
    /// The message: its id in the inbox, its sender's id, the beginning of either, or `last`
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// The answer; `-` is stdin
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    pub(crate) text: Option<String>,
    /// The answer; `-` is stdin
    #[arg(long, short = 'd', value_name = "DATA", allow_hyphen_values = true, conflicts_with_all = ["text", "data_file"])]
    pub(crate) data: Option<String>,
    /// Take the answer from a file
    #[arg(long, alias = "file", value_name = "PATH", conflicts_with = "text")]
    pub(crate) data_file: Option<PathBuf>,
    /// What it is; json is checked before it is sent
    #[arg(long = "type", short = 't', default_value = "text", value_parser = ["text", "json", "binary"], value_name = "TYPE")]
    pub(crate) kind: String,
    /// Say that it was tried and failed; the text is the reason
    #[arg(long, group = "what")]
    pub(crate) fail: bool,
    /// Say that it is not done; the text is the reason
    #[arg(long, group = "what")]
    pub(crate) decline: bool,
    /// A piece of the answer; the answer itself comes later and holds all of it again
    #[arg(long, group = "what")]
    pub(crate) part: bool,
    /// Word of how far it is, before the answer
    #[arg(long, group = "what")]
    pub(crate) progress: bool,
}

use std::fmt;

use pilot_client::{Addr, MessageId, Outgoing, Reaction};
use pilot_wire::serving::Reply;
use serde::Serialize;

use super::send_message::kind;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::Output;
use crate::{input, style};

#[derive(Serialize)]
struct Report {
    /// The message in the inbox.
    id: String,
    /// The answer.
    message_id: MessageId,
    to: Addr,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<MessageId>,
    outcome: &'static str,
    bytes: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: the reply is on its way to {}", style::good(self.outcome), self.to)?;
        writeln!(f, "  answers     {}", self.id)?;
        write!(f, "  message id  {}", self.message_id)
    }
}

#[derive(Serialize)]
struct Remark {
    id: String,
    sent: &'static str,
    bytes: usize,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", style::good("sent"), self.sent)
    }
}

impl Args {
    fn body(&self) -> Result<Vec<u8>, Failure> {
        match (&self.text, &self.data, &self.data_file) {
            (Some(text), _, _) | (None, Some(text), _) => input::data(text),
            (None, None, Some(path)) => input::file(path),
            (None, None, None) => Err(Failure::usage("there is no reply")
                .hint("pilotctl reply ID TEXT, or `-` for stdin; see `pilotctl inbox`")),
        }
    }
}

/// `pilotctl reply`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let body = args.body()?;
    let bytes = body.len();
    let client = ctx.client().await?;
    if args.part || args.progress {
        client.remark(&args.id, args.part, &body).await.map_err(|error| explain(error.into()))?;
        let sent = if args.part { "part" } else { "progress" };
        return Ok(Output::of(Remark { id: args.id.clone(), sent, bytes }));
    }
    let (reaction, outcome) = match (args.fail, args.decline) {
        (true, _) => (Reaction::Fail, "failed"),
        (_, true) => (Reaction::Decline, "declined"),
        (false, false) => (Reaction::Answer, "answered"),
    };
    let answer = Outgoing::new(kind(&args.kind, &body)?, body);
    let reply = client.reply(&args.id, reaction, answer, pilot_client::hops()).await;
    match reply.map_err(|error| explain(error.into()))? {
        Reply::Answered { message_id, to, reply_to, id } => {
            Ok(Output::of(Report { id, message_id, to, reply_to, outcome, bytes }))
        }
        other @ (Reply::Asked { .. }
        | Reply::News { .. }
        | Reply::Taken(_)
        | Reply::TimedOut
        | Reply::Resumed { .. }
        | Reply::Withdrawn { .. }
        | Reply::Done {}
        | Reply::State { .. }) => {
            Err(Failure::internal(format!("the daemon gave an unexpected answer: {other:?}")))
        }
    }
}

fn explain(failure: Failure) -> Failure {
    failure.advise(
        Code::Unsupported,
        "with a daemon of release 1.18.0: pilotctl send-message NODE TEXT --reply-to ID",
    )
}
