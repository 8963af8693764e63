//! Two agents, each with its own daemon: one hands out tasks, the other returns results, both over the event stream.
//! Neither polls, and neither needs an address that the other can reach.
//!
//! ```text
//! cargo run -p pilot-client --example two_agents -- /tmp/a.sock /tmp/b.sock
//! ```
//!
//! The arguments are the sockets of two daemons that trust each other (`pilotctl handshake`, `pilotctl approve`).

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use pilot_client::{Client, Received};
use serde::{Deserialize, Serialize};

const TASKS: &str = "agent-a.tasks";
const RESULTS: &str = "agent-b.results";

#[derive(Debug, Serialize, Deserialize)]
struct Task {
    id: u32,
    numbers: Vec<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    id: u32,
    sum: u64,
}

type Failed = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let sockets: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [a, b] = &sockets[..] else { return Err("usage: two_agents SOCKET-OF-A SOCKET-OF-B".into()) };
    let agent_b = Worker::start(Client::connect_to(b).await?).await?;
    let worker = tokio::spawn(agent_b.work());
    tokio::select! {
        planned = plan(Client::connect_to(a).await?) => planned,
        worked = worker => worked?,
    }
}

/// Agent A: hands out tasks, then waits for the result of each.
async fn plan(client: Client) -> Result<(), Failed> {
    let mut events = client.open_event_stream().await?;
    events.subscribe(RESULTS).await?;
    let tasks = [vec![1, 2, 3], vec![40, 2], vec![]];
    for (id, numbers) in (1..).zip(tasks.clone()) {
        println!("agent-a  task {id}: add {numbers:?}");
        events.publish(TASKS, serde_json::to_vec(&Task { id, numbers })?).await?;
    }
    for _ in &tasks {
        let event = tokio::time::timeout(Duration::from_secs(10), events.next()).await?;
        let outcome: Outcome = serde_json::from_slice(&event.payload)?;
        println!("agent-a  task {} is done: {}", outcome.id, outcome.sum);
    }
    Ok(())
}

/// Agent B: does whatever task comes.
struct Worker {
    events: pilot_client::EventStream,
}

impl Worker {
    /// Ready when it cannot miss a task any more.
    async fn start(client: Client) -> Result<Self, Failed> {
        let mut events = client.open_event_stream().await?;
        events.subscribe(TASKS).await?;
        Ok(Self { events })
    }

    async fn work(mut self) -> Result<(), Failed> {
        loop {
            let Received { payload, publisher, .. } = self.events.next().await;
            let task: Task = serde_json::from_slice(&payload)?;
            let from = publisher.map_or_else(|| "somebody".to_owned(), |addr| addr.to_string());
            println!("agent-b  task {} from {from}", task.id);
            let outcome = Outcome { id: task.id, sum: task.numbers.iter().sum() };
            self.events.publish(RESULTS, serde_json::to_vec(&outcome)?).await?;
        }
    }
}
