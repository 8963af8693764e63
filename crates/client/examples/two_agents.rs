//! Two agents, each with its own daemon: one hands out tasks, the other returns results, both over the event stream.
//! Neither polls, and neither needs an address that the other can reach.
//!
//! ```text
//! cargo run -p pilot-client --example two_agents -- /tmp/a.sock /tmp/b.sock
//! ```
//!
//! The arguments are the sockets of two daemons that trust each other (`pilotctl handshake`, `pilotctl approve`). Either
//! daemon may be restarted meanwhile: subscriptions go on by themselves, and a task without a result is given again.

#![expect(clippy::print_stdout, reason = "it shows what happens")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use pilot_client::{Client, EventStream, Received};
use serde::{Deserialize, Serialize};

const TASKS: &str = "agent-a.tasks";
const RESULTS: &str = "agent-b.results";

/// Numbers to add.
#[derive(Debug, Serialize, Deserialize)]
pub struct Task {
    /// Which task.
    pub id: u32,
    /// The numbers.
    pub numbers: Vec<u64>,
}

/// Their sum.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Of which task.
    pub id: u32,
    /// The sum.
    pub sum: u64,
}

/// Whatever went wrong.
pub type Failed = Box<dyn Error + Send + Sync>;

/// How long a result is awaited before its task is given again: an event that a daemon had taken ends with it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Pause before the next try while the own daemon is away.
const PAUSE: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let sockets: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [a, b] = &sockets[..] else { return Err("usage: two_agents SOCKET-OF-A SOCKET-OF-B".into()) };
    let agent_b = Worker::start(Client::connect_to(b).await?).await?;
    let worker = tokio::spawn(agent_b.work());
    let mut agent_a = Planner::start(Client::connect_to(a).await?).await?;
    let planning = async {
        for (id, numbers) in (1..).zip([vec![1, 2, 3], vec![40, 2], vec![]]) {
            agent_a.ask(Task { id, numbers }).await?;
        }
        Ok(())
    };
    tokio::select! {
        planned = planning => planned,
        worked = worker => worked?,
    }
}

/// Agent A: hands out tasks, and waits for the result of each.
pub struct Planner {
    events: EventStream,
}

impl Planner {
    /// Ready when it cannot miss a result any more.
    pub async fn start(client: Client) -> Result<Self, Failed> {
        let mut events = client.open_event_stream().await?;
        events.subscribe(RESULTS).await?;
        Ok(Self { events })
    }

    /// Has a task done.
    pub async fn ask(&mut self, task: Task) -> Result<Outcome, Failed> {
        println!("agent-a  task {}: add {:?}", task.id, task.numbers);
        let payload = serde_json::to_vec(&task)?;
        loop {
            publish(&mut self.events, TASKS, &payload).await;
            if let Ok(outcome) = tokio::time::timeout(PATIENCE, self.result_of(task.id)).await {
                let outcome = outcome?;
                println!("agent-a  task {} is done: {}", outcome.id, outcome.sum);
                return Ok(outcome);
            }
            println!("agent-a  task {} again", task.id);
        }
    }

    async fn result_of(&mut self, id: u32) -> Result<Outcome, Failed> {
        loop {
            let event = self.events.next().await;
            let outcome: Outcome = serde_json::from_slice(&event.payload)?;
            if outcome.id == id {
                return Ok(outcome);
            }
        }
    }
}

/// Agent B: does whatever task comes.
pub struct Worker {
    events: EventStream,
}

impl Worker {
    /// Ready when it cannot miss a task any more.
    pub async fn start(client: Client) -> Result<Self, Failed> {
        let mut events = client.open_event_stream().await?;
        events.subscribe(TASKS).await?;
        Ok(Self { events })
    }

    /// Works for ever.
    pub async fn work(mut self) -> Result<(), Failed> {
        loop {
            let Received { payload, publisher, hostname, .. } = self.events.next().await;
            let task: Task = serde_json::from_slice(&payload)?;
            let from = hostname.or(publisher.map(|addr| addr.to_string()));
            println!("agent-b  task {} from {}", task.id, from.as_deref().unwrap_or("somebody"));
            let outcome = Outcome { id: task.id, sum: task.numbers.iter().sum() };
            publish(&mut self.events, RESULTS, &serde_json::to_vec(&outcome)?).await;
        }
    }
}

/// Publishes when the own daemon is there, now or later.
async fn publish(events: &mut EventStream, topic: &str, payload: &[u8]) {
    while let Err(error) = events.publish(topic, payload.to_vec()).await {
        println!("{topic} must wait: {error}");
        tokio::time::sleep(PAUSE).await;
    }
}
