//! `pilotctl publish`.

#[derive(Debug, clap::Args)]
#[command(
    before_help = "Examples:\n  pilotctl publish agent-a.tasks '{\"id\":1}'         to all trusted peers that subscribe\n  \
        pilotctl publish agent-b alerts 'high load'      at one node\n  pilotctl publish alerts --data 'high load'\n  \
        uptime | pilotctl publish metrics/uptime --data -",
    override_usage = "pilotctl publish [OPTIONS] [TARGET] <TOPIC> [PAYLOAD]"
)]
pub(crate) struct Args {
    /// `TOPIC PAYLOAD`, `TARGET TOPIC PAYLOAD`, or with `--data`: `TOPIC`, `TARGET TOPIC`
    #[arg(value_name = "[TARGET] TOPIC [PAYLOAD]", num_args = 1..=3, required = true)]
    pub(crate) words: Vec<String>,
    /// The payload; `-` is stdin
    #[arg(long, short = 'd', value_name = "DATA", allow_hyphen_values = true)]
    pub(crate) data: Option<String>,
}

use std::fmt;

use serde::Serialize;

use crate::context::Context;
use crate::failure::Failure;
use crate::input;
use crate::output::Output;

#[derive(Serialize)]
struct Report {
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    topic: String,
    bytes: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.target {
            Some(target) => format!("at {target}"),
            None => "to all trusted peers that subscribe".to_owned(),
        };
        write!(f, "{} published on {} {place}", crate::humane::count(self.bytes, "byte"), self.topic)
    }
}

/// What the words of a line mean.
#[derive(Debug, PartialEq, Eq)]
struct Publication<'a> {
    target: Option<&'a str>,
    topic: &'a str,
    /// `None`: from `--data`.
    payload: Option<&'a str>,
}

fn read<'a>(words: &'a [String], has_data: bool) -> Result<Publication<'a>, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), has_data) {
        ([topic], true) => Ok(Publication { target: None, topic, payload: None }),
        ([target, topic], true) => Ok(Publication { target: Some(target), topic, payload: None }),
        ([topic, payload], false) => Ok(Publication { target: None, topic, payload: Some(payload) }),
        ([target, topic, payload], false) => {
            Ok(Publication { target: Some(target), topic, payload: Some(payload) })
        }
        (_, true) => {
            Err(Failure::usage("the payload is given twice").hint("leave --data or the last word out"))
        }
        (_, false) => Err(Failure::usage("the payload is missing")
            .hint("pilotctl publish TOPIC PAYLOAD, or `--data -` for stdin")),
    }
}

/// `pilotctl publish`
pub(crate) async fn run(ctx: &Context, args: &Args) -> Result<Output, Failure> {
    let what = read(&args.words, args.data.is_some())?;
    let payload = match (what.payload, &args.data) {
        (Some(word), _) => word.as_bytes().to_vec(),
        (None, data) => input::data(data.as_deref().unwrap_or("-"))?,
    };
    let client = ctx.client().await?;
    let mut events = match what.target {
        Some(node) => super::subscribe::open_at(&client, node).await?,
        None => client.open_event_stream().await?,
    };
    let bytes = payload.len();
    let place = what.target.unwrap_or("this node");
    let explain = |error: pilot_client::Error| super::subscribe::explain(place, error.into());
    events.publish(what.topic, payload).await.map_err(explain)?;
    events.settle().await.map_err(explain)?;
    Ok(Output::of(Report { target: what.target.map(str::to_owned), topic: what.topic.to_owned(), bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_words_and_data_decide_what_they_are() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (two, three) = (words("a b"), words("a b c"));
        let of = |target, topic, payload| Publication { target, topic, payload };
        assert_eq!(read(&two, false), Ok(of(None, "a", Some("b"))));
        assert_eq!(read(&two, true), Ok(of(Some("a"), "b", None)));
        assert_eq!(read(&two[..1], true), Ok(of(None, "a", None)));
        assert_eq!(read(&three, false), Ok(of(Some("a"), "b", Some("c"))));
        assert!(read(&three, true).is_err() && read(&two[..1], false).is_err());
    }
}
