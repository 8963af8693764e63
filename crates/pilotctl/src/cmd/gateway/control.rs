//! How the other commands speak to the running gateway: a private socket beside the settings, a line of JSON each way.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::bridge::Socket;
use crate::context::Context;
use crate::failure::{Code, Failure};

/// The longest line; a list of all addresses is the longest answer.
const LINE_MAX: u64 = 1 << 20;

/// How long either side waits for the other. A name may have to be looked up.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the gateway waits for a question, and nobody else is answered meanwhile.
const QUESTION: Duration = Duration::from_secs(2);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Request {
    Map { target: String, ip: Option<Ipv4Addr> },
    Unmap { ip: Ipv4Addr },
    List,
    Stop,
}

/// Where the gateway listens.
pub(super) fn path(ctx: &Context) -> PathBuf {
    ctx.settings.home().join("gateway.sock")
}

/// Asks the running gateway.
pub(super) async fn ask<T: DeserializeOwned>(ctx: &Context, request: &Request) -> Result<T, Failure> {
    let path = path(ctx);
    let stream = UnixStream::connect(&path).await.map_err(|_| {
        Failure::new(Code::NotRunning, format!("the gateway is not running (tried `{}`)", path.display()))
            .hint("start it with `pilotctl gateway start`")
    })?;
    let asking = async {
        let mut stream = BufReader::new(stream);
        let question = serde_json::to_string(request).map_err(std::io::Error::from)? + "\n";
        stream.write_all(question.as_bytes()).await?;
        let mut line = String::new();
        stream.take(LINE_MAX).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    };
    let line = tokio::time::timeout(PATIENCE, asking)
        .await
        .map_err(|_| Failure::new(Code::Timeout, "the gateway does not answer"))?
        .map_err(|error| Failure::io("asking the gateway", &error))?;
    let strange = |error: serde_json::Error| Failure::internal(format!("the gateway's answer: {error}"));
    let answer: Value = serde_json::from_str(&line).map_err(strange)?;
    if let Some(code) = answer["code"].as_str() {
        let said = answer["message"].as_str().unwrap_or_default();
        let mut failure = Failure::new(Code::from_name(code), said);
        failure.hint = answer["hint"].as_str().map(str::to_owned);
        return Err(failure);
    }
    serde_json::from_value(answer["ok"].clone()).map_err(strange)
}

/// The question that comes on a connection.
pub(super) async fn question(socket: Socket) -> Option<(Request, BufReader<Socket>)> {
    let mut socket = BufReader::new(socket);
    let mut line = String::new();
    let mut head = (&mut socket).take(LINE_MAX);
    tokio::time::timeout(QUESTION, head.read_line(&mut line)).await.ok()?.ok()?;
    Some((serde_json::from_str(&line).ok()?, socket))
}

/// Answers it. Whoever asked and went away has no use for that.
pub(super) async fn answer(mut socket: BufReader<Socket>, answer: Result<Value, Failure>) {
    let answer = answer.map_or_else(|failure| json!(failure), |value| json!({ "ok": value }));
    let line = format!("{answer}\n");
    drop(tokio::time::timeout(QUESTION, socket.write_all(line.as_bytes())).await);
}
