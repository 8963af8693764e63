//! An executor: takes streams on port 1000, reads one line of JSON on each, works, and answers with lines of JSON.
//!
//! ```text
//! cargo run -p pilot-client --example executor
//! ```
//!
//! `sdk/python/examples/orchestrator.py` is the other side; `echo '{"action":"execute_query","query":"select 1"}' | pilotctl connect
//! worker-node 1000` does as well. The socket of the daemon is that of `PILOT_SOCKET`.

#![expect(clippy::print_stdout, reason = "it says when it is ready")]

use std::error::Error;

use pilot_client::{Client, Port, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest question that is read.
const MAX_QUESTION: u64 = 64 << 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let client = Client::connect().await?;
    let mut listener = client.listen(Port::STDIO).await?;
    println!("ready");
    loop {
        let stream = listener.accept().await?;
        tokio::spawn(async move {
            let peer = stream.peer();
            if let Err(error) = serve(stream).await {
                println!("{peer}: {error}");
            }
        });
    }
}

async fn serve(stream: Stream) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (reader, mut writer) = stream.into_split();
    let mut question = String::new();
    reader.take(MAX_QUESTION).read_to_string(&mut question).await?;
    let answer = match serde_json::from_str::<Value>(&question) {
        Ok(question) if question["action"] == "execute_query" => {
            for done in 1..=2 {
                let step = json!({"status": "working", "done": done, "total": 2});
                writer.write_all(format!("{step}\n").as_bytes()).await?;
            }
            execute(question["query"].as_str().unwrap_or_default())
        }
        Ok(_) => json!({"status": "error", "reason": "unknown action"}),
        Err(error) => json!({"status": "error", "reason": error.to_string()}),
    };
    writer.write_all(format!("{answer}\n").as_bytes()).await?;
    writer.finish().await?;
    Ok(())
}

/// Knows how to select sums of whole numbers.
fn execute(query: &str) -> Value {
    let numbers =
        query.strip_prefix("select ").map(|sum| sum.split('+').map(|number| number.trim().parse::<i64>()));
    match numbers.and_then(|numbers| numbers.collect::<Result<Vec<_>, _>>().ok()) {
        Some(numbers) => {
            json!({"status": "ok", "result": numbers.iter().fold(0_i64, |sum, n| sum.saturating_add(*n))})
        }
        None => json!({"status": "error", "reason": "no such query"}),
    }
}
