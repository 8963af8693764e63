//! What a program of a model says to the MCP server.

use std::io::Cursor;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWrite;

/// Far longer than a conversation takes whose end is known from the beginning.
const PATIENCE: Duration = Duration::from_secs(20);

/// Opens a conversation, so that what follows is not refused at once.
const HELLO: &str = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"#,
    r#""clientInfo":{"name":"fuzzer","version":"1"}}}"#,
    "\n",
    r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
    "\n"
);

/// Lines of a client, while there is no daemon. An odd first byte stands for a handshake before them.
pub fn mcp(bytes: &[u8]) {
    let Some((&first, lines)) = bytes.split_first() else { return };
    let hello = if first % 2 == 1 { HELLO } else { "" };
    answers([hello.as_bytes(), lines].concat());
}

/// What the server says to these lines: it ends with them, and has written nothing but its protocol.
fn answers(said: Vec<u8>) -> Vec<Value> {
    let heard = Heard::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let served = pilot_mcp::serve("/nonexistent/pilot.sock", Cursor::new(said), heard.clone());
        // It may say that this is no conversation.
        let _ = tokio::time::timeout(PATIENCE, served).await.expect("the server ends with its client");
    });
    let heard = heard.0.lock().expect("no writer panics");
    assert!(heard.is_empty() || heard.ends_with(b"\n"), "a line that was not finished");
    let lines = heard.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let messages: Vec<Value> =
        lines.map(|line| serde_json::from_slice(line).expect("each line is JSON")).collect();
    for message in &messages {
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
    }
    messages
}

/// Keeps what is written.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl AsyncWrite for Heard {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_reach_the_tools() {
        let call =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"find_peers","arguments":{}}}"#;
        let messages = answers(format!("{HELLO}{call}\n").into_bytes());
        let [hello, answer] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(hello["result"]["serverInfo"]["name"], "pilot");
        assert_eq!(answer["result"]["_meta"]["pilot/error"]["code"], "not_running", "{answer}");
    }
}
