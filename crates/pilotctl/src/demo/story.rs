//! The story, chapter by chapter, each with the checks that make it true.

use serde_json::Value;

use super::stage::{Agent, Stage, read};
use crate::failure::Failure;

/// Bytes of the bulk stream: more than any window on the way, so that flow control takes part.
const STREAM_LEN: usize = 4 << 20;

/// Bytes of the file.
const FILE_LEN: usize = 8 << 20;

/// Plays everything. An error means that something promised did not happen.
pub(crate) async fn play(stage: &mut Stage) -> Result<(), Failure> {
    let (a, b) = (stage.agent("agent-a"), stage.agent("agent-b"));
    start(stage, &a, &b).await?;
    trust(stage, &a, &b).await?;
    reach(stage, &a).await?;
    message(stage, &a, &b).await?;
    stream(stage, &a, &b).await?;
    file(stage, &a, &b).await?;
    events(stage, &a, &b).await?;
    encrypted(stage, &a, &b).await
}

/// Ends all processes of the story; those that never started are no concern.
pub(crate) async fn end(stage: &mut Stage) {
    for name in ["agent-a", "agent-b"] {
        let agent = stage.agent(name);
        drop(stage.ask(&agent, &["daemon", "stop"]).await);
    }
    let machine = stage.agent("rendezvous");
    drop(stage.ask(&machine, &["rendezvous", "stop"]).await);
}

async fn start(stage: &mut Stage, a: &Agent, b: &Agent) -> Result<(), Failure> {
    stage.title("1. A rendezvous and two daemons");
    let machine = stage.agent("rendezvous");
    let anywhere = ["rendezvous", "start", "--registry-addr", "127.0.0.1:0", "--beacon-addr", "127.0.0.1:0"];
    stage.run(&machine, &anywhere).await?;
    let place = stage.ask(&machine, &["rendezvous", "status"]).await?;
    let (registry, beacon) = (text(&place, "registry_addr")?, text(&place, "beacon_addr")?);
    for agent in [a, b] {
        let words =
            ["daemon", "start", "--hostname", agent.name, "--registry", &registry, "--beacon", &beacon];
        stage.run(agent, &[&words[..], &["--listen", "127.0.0.1:0"]].concat()).await?;
    }
    let (address_a, address_b) = (address(stage, a).await?, address(stage, b).await?);
    ensure(address_a != address_b, "both daemons have the same address")?;
    stage.checked(format!("registered: agent-a is {address_a}, agent-b is {address_b}"));
    Ok(())
}

async fn trust(stage: &mut Stage, a: &Agent, b: &Agent) -> Result<(), Failure> {
    stage.title("2. Trust, from both sides");
    let found = stage.run(a, &["find", "agent-b"]).await?;
    ensure(found.contains(&address(stage, b).await?), "find gave another address")?;
    let request = ["handshake", "agent-b", "shall we work together?", "--wait"];
    let asking = stage.background(a, &request, None).await?;
    let waiting = stage.run(b, &["pending", "--wait"]).await?;
    ensure(waiting.contains("shall we work together?"), "the request or its reason did not arrive")?;
    stage.run(b, &["approve", "agent-a"]).await?;
    stage.finish(asking).await?;
    for (one, other) in [(a, b), (b, a)] {
        let trusted = stage.ask(one, &["trust"]).await?;
        let who: Vec<&str> = rows(&trusted, "trusted").filter_map(|row| row["address"].as_str()).collect();
        ensure(who == [address(stage, other).await?], &format!("{} trusts {who:?}", one.name))?;
    }
    stage.checked("each trusts the other, and nobody else");
    Ok(())
}

async fn reach(stage: &mut Stage, a: &Agent) -> Result<(), Failure> {
    stage.title("3. Reaching each other");
    stage.run(a, &["ping", "agent-b", "--count", "3"]).await?;
    Ok(())
}

async fn message(stage: &mut Stage, a: &Agent, b: &Agent) -> Result<(), Failure> {
    stage.title("4. A message, and its reply");
    let task = r#"{"task":"summarize","rows":1842}"#;
    let asking = ["send-message", "agent-b", "--type", "json", "--data", task, "--wait"];
    let asking = stage.background(a, &asking, None).await?;
    // A look back, because the message may have come before this line began.
    let read = stage.run(b, &["inbox", "--wait", "--since", "30s"]).await?;
    ensure(read.contains(task), "the message in the inbox is not the one that was sent")?;
    let arrived = stage.ask(b, &["inbox", "--latest"]).await?;
    let id = text(&arrived["messages"][0], "message_id")?;
    stage.run(b, &["send-message", "agent-a", "Q4 is up 23 %", "--reply-to", &id]).await?;
    let reply = stage.finish(asking).await?;
    ensure(reply.contains("Q4 is up 23 %"), "the reply is not the one that was sent")?;
    stage.checked("agent-a got the answer to its own question, by its id");
    Ok(())
}

async fn stream(stage: &mut Stage, a: &Agent, b: &Agent) -> Result<(), Failure> {
    stage.title("5. A stream");
    let answer = r#"{"rows":[1,2,3]}"#;
    let listening = stage.background(b, &["recv", "1000", "--reply", answer], Some("listening")).await?;
    let query = r#"{"action":"execute_query"}"#;
    let answered = stage.run(a, &["connect", "agent-b", "1000", "--message", query]).await?;
    ensure(answered.trim_end() == answer, "another answer came back")?;
    let heard = stage.finish(listening).await?;
    ensure(heard.trim_end() == query, "another message arrived")?;
    stage.checked("one message each way on one stream, both directions ended by themselves");
    let sent = pattern(STREAM_LEN);
    let back = stage.pipe(a, &["connect", "agent-b", "7"], sent.clone(), "head -c 4M data |").await?;
    ensure(back == sent, "the bytes that came back are not the bytes that were sent")?;
    stage.checked("4 MiB through the echo service and back, byte for byte the same");
    Ok(())
}

async fn file(stage: &mut Stage, a: &Agent, b: &Agent) -> Result<(), Failure> {
    stage.title("6. A file");
    let content = pattern(FILE_LEN);
    std::fs::write(stage.directory.join("report.bin"), &content)
        .map_err(|e| Failure::io("writing the file to send", &e))?;
    stage.run(a, &["send-file", "agent-b", "report.bin"]).await?;
    stage.run(b, &["received"]).await?;
    let received = stage.ask(b, &["received"]).await?;
    let path = text(&received["files"][0], "path")?;
    ensure(read(path.as_ref())? == content, "the file on the other side is another one")?;
    stage.checked("8 MiB arrived, the file is byte for byte the same");
    Ok(())
}

async fn events(stage: &mut Stage, a: &Agent, b: &Agent) -> Result<(), Failure> {
    stage.title("7. Events, both ways, by topic alone");
    for (from, to, topic, payload) in [
        (a, b, "agent-a.tasks", r#"{"id":1,"work":"analyze dataset"}"#),
        (b, a, "agent-b.results", r#"{"status":"complete","confidence":0.95}"#),
    ] {
        let waiting = stage.background(to, &["subscribe", topic, "--count", "1"], Some("subscribed")).await?;
        stage.run(from, &["publish", topic, payload]).await?;
        let heard = stage.finish(waiting).await?;
        ensure(heard.trim_end() == format!("[{topic}] {payload}"), "another event arrived")?;
    }
    stage.checked("tasks went one way, results the other");
    Ok(())
}

async fn encrypted(stage: &mut Stage, a: &Agent, b: &Agent) -> Result<(), Failure> {
    stage.title("8. All of it encrypted");
    for agent in [a, b] {
        stage.run(agent, &["peers"]).await?;
        let peers = stage.ask(agent, &["peers"]).await?;
        let all = rows(&peers, "peers").collect::<Vec<_>>();
        let sealed = all.iter().all(|peer| peer["encrypted"] == true && peer["authenticated"] == true);
        ensure(!all.is_empty() && sealed, &format!("{} has a tunnel in clear", agent.name))?;
    }
    stage.checked("every tunnel is encrypted, and the key of its other end was proved");
    Ok(())
}

async fn address(stage: &Stage, agent: &Agent) -> Result<String, Failure> {
    text(&stage.ask(agent, &["info"]).await?, "address")
}

fn text(value: &Value, field: &str) -> Result<String, Failure> {
    let found = value[field].as_str().map(str::to_owned);
    found.ok_or_else(|| Failure::internal(format!("there is no `{field}` in {value}")))
}

fn rows<'a>(value: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    value[list].as_array().into_iter().flatten()
}

fn ensure(truth: bool, otherwise: &str) -> Result<(), Failure> {
    if truth { Ok(()) } else { Err(Failure::internal(format!("the demo does not hold: {otherwise}"))) }
}

/// Bytes without a short period (xorshift), so that lost, doubled and moved pieces are noticed.
fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
