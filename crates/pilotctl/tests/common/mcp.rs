//! A client of the Model Context Protocol that says line by line what it wants: no library stands between.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use serde_json::{Value, json};

use super::Agent;

pub(crate) const LEGACY: &str = "2025-11-25";
pub(crate) const MODERN: &str = "2026-07-28";

/// How long anything may take before the test has failed.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A conversation with a server.
pub(crate) struct Session {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What came while something else was waited for.
    early: Vec<Value>,
    next: u64,
    version: &'static str,
}

impl Session {
    /// Starts a server and says nothing yet.
    pub(crate) fn start(agent: &Agent, words: &[&str], version: &'static str) -> Self {
        let mut child = agent.command(words).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|count| count > 0) {
                eprint!("mcp: {line}");
                line.clear();
            }
        });
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Session { stdin: child.stdin.take(), child, lines, early: Vec::new(), next: 0, version }
    }

    /// A server with which the conversation has begun, as its revision wants it.
    pub(crate) fn open(agent: &Agent, version: &'static str) -> Self {
        Self::open_with(agent, &["mcp"], version)
    }

    pub(crate) fn open_with(agent: &Agent, words: &[&str], version: &'static str) -> Self {
        let mut session = Self::start(agent, words, version);
        if version == LEGACY {
            let answer = session.ask("initialize", initialize(version));
            assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
            session.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        }
        session
    }

    pub(crate) fn raw(&mut self, line: &[u8]) {
        self.write(line).unwrap();
    }

    fn write(&mut self, line: &[u8]) -> std::io::Result<()> {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line)?;
        stdin.write_all(b"\n")?;
        stdin.flush()
    }

    pub(crate) fn say(&mut self, message: &Value) {
        self.raw(message.to_string().as_bytes());
    }

    /// Sends a request; its id.
    pub(crate) fn send(&mut self, method: &str, params: Value) -> u64 {
        self.try_send(method, params).expect("the server takes what it is sent")
    }

    fn try_send(&mut self, method: &str, mut params: Value) -> Option<u64> {
        self.next += 1;
        if self.version == MODERN {
            let meta = &mut params["_meta"];
            meta["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
            meta["io.modelcontextprotocol/clientInfo"] = json!({ "name": "test", "version": "1" });
        }
        let request = json!({ "jsonrpc": "2.0", "id": self.next, "method": method, "params": params });
        self.write(request.to_string().as_bytes()).ok()?;
        Some(self.next)
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        let params = json!({ "requestId": id, "reason": "enough" });
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }));
    }

    fn line(&mut self, limit: Duration) -> Option<Value> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                let value: Value = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("not the protocol: {error}: {line}"));
                assert_eq!(value["jsonrpc"], "2.0", "{line}");
                Some(value)
            }
            Err(RecvTimeoutError::Timeout) => panic!("the server said nothing for {limit:?}"),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// The first message for which `fits`, whenever it came.
    pub(crate) fn wait(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.early.iter().position(&fits) {
            return self.early.remove(at);
        }
        loop {
            let message = self.line(LIMIT).expect("the server ended");
            if fits(&message) {
                return message;
            }
            self.early.push(message);
        }
    }

    pub(crate) fn answer(&mut self, id: u64) -> Value {
        self.wait(|message| message["id"] == id && message.get("method").is_none())
    }

    pub(crate) fn notification(&mut self, method: &str) -> Value {
        self.wait(|message| message["method"] == method)
    }

    /// Whether such a message has come by now: nothing is waited for.
    pub(crate) fn has_come(&mut self, fits: impl Fn(&Value) -> bool) -> bool {
        while let Ok(line) = self.lines.try_recv() {
            self.early.push(serde_json::from_str(&line).unwrap());
        }
        self.early.iter().any(fits)
    }

    /// A request and its answer.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// The same, where the server may have ended: none then.
    pub(crate) fn try_ask(&mut self, method: &str, params: Value) -> Option<Value> {
        let id = self.try_send(method, params)?;
        loop {
            let message = self.line(LIMIT)?;
            if message["id"] == id {
                return Some(message);
            }
        }
    }

    /// Starts a call of a tool; its id.
    pub(crate) fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "p" } });
        self.send("tools/call", params)
    }

    /// Calls a tool; its result, whichever.
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.ask("tools/call", json!({ "name": tool, "arguments": arguments }));
        assert!(answer.get("error").is_none(), "{tool}: {answer}");
        answer["result"].clone()
    }

    /// Calls a tool that must do what it is asked to; its structured result.
    pub(crate) fn ok(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.call(tool, arguments);
        assert_ne!(result["isError"], true, "{tool}: {result}");
        result["structuredContent"].clone()
    }

    /// Closes its input and waits for its end; the exit status and what it still said.
    pub(crate) fn close(mut self) -> (Option<i32>, Vec<Value>) {
        drop(self.stdin.take());
        let mut said = std::mem::take(&mut self.early);
        while let Some(message) = self.line(LIMIT) {
            said.push(message);
        }
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

pub(crate) fn initialize(version: &str) -> Value {
    json!({
        "protocolVersion": version,
        "capabilities": {},
        "clientInfo": { "name": "test", "version": "1" },
    })
}
