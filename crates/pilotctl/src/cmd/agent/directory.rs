//! `pilotctl agent directory`: the agent that finds agents.

use std::fmt;

use pilot_client::{Addr, Client, Incoming, MessageKind, Outgoing, ServeOptions};
use pilot_wire::NetworkId;
use pilot_wire::networks::FoundCard;
use pilot_wire::registry::CardQuery;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::DirectoryArgs;
use crate::context::Context;
use crate::failure::{Code, Failure};
use crate::output::{self, Output};
use crate::{humane, process, style};

/// Agents in an answer if nobody says how many, and the most.
const LIMIT: u32 = 10;
const LIMIT_MAX: u32 = 50;

/// Longest text that is searched for, in bytes: the registry takes no more.
const TEXT_MAX: usize = 500;

/// What is asked.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Question {
    text: String,
    tag: String,
    limit: Option<u32>,
}

impl Question {
    /// An object with these fields, or words.
    fn read(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value @ Value::Object(_)) => serde_json::from_value(value).unwrap_or_default(),
            Ok(Value::String(text)) => Self { text, ..Self::default() },
            Ok(_) | Err(_) => {
                Self { text: String::from_utf8_lossy(body).trim().to_owned(), ..Self::default() }
            }
        }
    }
}

/// One request and what became of it.
#[derive(Serialize)]
struct Served {
    from: Addr,
    text: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    tag: String,
    found: u32,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = humane::preview(&self.text, 60);
        let tag = if self.tag.is_empty() { String::new() } else { format!(" #{}", self.tag) };
        let found = humane::count(u64::from(self.found), "agent");
        write!(f, "{} · {what}{tag} · {found}", style::strong(self.from.to_string()))
    }
}

/// `pilotctl agent directory`
pub(super) async fn run(ctx: &Context, args: &DirectoryArgs) -> Result<Output, Failure> {
    let client = ctx.client().await?;
    let network = super::network(&client, args.network.as_deref()).await?;
    // Programs of release 1.18.0 ask with plain messages, and look for a reply in their inbox.
    let mut server = client.serve(ServeOptions { from: None, all: true }).await?;
    ctx.note(style::faint(format!("serving requests with agents of network {network}")));
    loop {
        tokio::select! {
            incoming = server.next() => {
                if let Some(served) = serve(&client, network, incoming?).await? {
                    output::item(ctx.format, &served)?;
                }
                if args.once {
                    return Ok(Output::streamed());
                }
            }
            () = process::asked_to_end() => return Ok(Output::streamed()),
        }
    }
}

async fn serve(client: &Client, network: NetworkId, incoming: Incoming) -> Result<Option<Served>, Failure> {
    let from = incoming.sender();
    let Question { mut text, tag, limit } = Question::read(&incoming.body()?);
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    let limit = limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let answered = match find(client, network, &text, &tag, limit).await {
        Ok((agents, total)) => {
            let agents: Vec<Value> = agents.iter().map(shown).collect();
            let answer = json!({"network_id": network, "text": text, "total": total, "agents": agents});
            incoming.answer(Outgoing::new(MessageKind::Json, answer.to_string())).await.map(|_| total)
        }
        Err(failure) => incoming.fail(failure.message).await.map(|_| 0),
    };
    match answered {
        Ok(found) => Ok(Some(Served { from, text, tag, found })),
        // Taken back, or answered by somebody, in the moment of the answer.
        Err(error) => match Failure::from(error) {
            failure if matches!(failure.code, Code::Interrupted | Code::AlreadyExists | Code::NotFound) => {
                Ok(None)
            }
            failure => Err(failure),
        },
    }
}

/// Agents in which all of the words occur; if there are none, those in which most do.
async fn find(
    client: &Client,
    network_id: NetworkId,
    text: &str,
    tag: &str,
    limit: u32,
) -> Result<(Vec<FoundCard>, u32), Failure> {
    let query =
        CardQuery { network_id, text: text.to_owned(), tag: tag.to_owned(), limit, ..CardQuery::default() };
    let (agents, total, _) = client.find_cards(&query, "").await?;
    if total > 0 || text.is_empty() {
        return Ok((agents, total));
    }
    let (agents, total, _) = client.find_cards(&CardQuery { any: true, ..query }, "").await?;
    Ok((agents, total))
}

/// An agent as programs and models read it, with what to write in order to ask it.
fn shown(found: &FoundCard) -> Value {
    let card = &found.card;
    json!({
        "name": card.name,
        "description": card.description,
        "tags": card.tags,
        "methods": card.methods,
        "node": card.node,
        "address": card.address,
        "online": found.online,
        "ask": format!("pilotctl send-message {} --data '...' --wait", card.address),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_words_or_objects() {
        let words = |text: &str| Question { text: text.to_owned(), ..Question::default() };
        assert_eq!(Question::read(b" weather in Berlin\n"), words("weather in Berlin"));
        assert_eq!(Question::read(b"\"time\""), words("time"));
        assert_eq!(Question::read(b"42"), words("42"));
        let asked = Question::read(br#"{"text":"time","tag":"geo","limit":3,"more":1}"#);
        assert_eq!(asked, Question { text: "time".to_owned(), tag: "geo".to_owned(), limit: Some(3) });
    }
}
