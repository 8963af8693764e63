//! Two nodes in one process: they trust each other, talk over a stream, send a message and an event.
//!
//! ```text
//! pilotctl rendezvous run --registry-addr 127.0.0.1:9000 --beacon-addr 127.0.0.1:9001
//! cargo run -p pilot --example two_nodes -- 127.0.0.1:9000
//! ```

#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::path::Path;
use std::time::Duration;

use pilot::{Addr, Client, Node, Outgoing, Port, mailbox::Filter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A port of this program's own.
const SHOUT: Port = Port(5000);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let Some(registry) = std::env::args().nth(1) else {
        println!("through the daemon: {}", through_the_daemon().await?);
        return Ok(());
    };
    let folder = std::env::temp_dir().join("two_nodes");
    for line in tell(&registry, &folder).await? {
        println!("{line}");
    }
    Ok(())
}

/// Without a registry to join: who this machine's daemon is.
async fn through_the_daemon() -> Result<Addr, Failed> {
    let client = Client::connect().await?;
    Ok(client.info().await?.address)
}

/// What the two say to each other. The second one keeps its address, in `folder`.
pub async fn tell(registry: &str, folder: &Path) -> Result<Vec<String>, Failed> {
    let here = "127.0.0.1:0".parse()?;
    let alice = Node::builder().registry(registry).listen(here).hostname("alice").start().await?;
    let node = Node::builder().registry(registry).listen(here).identity(folder.join("identity.json"));
    let bob = node.hostname("bob").approve([alice.id()]).start().await?;

    let (a, b) = (alice.client(), bob.client());
    a.handshake(bob.id(), "we are in one program").await?;
    a.wait_trust(bob.id(), Duration::from_secs(10)).await?;

    let said = [stream(&a, &b).await?, message(&a, &b).await?, event(&a, &b).await?];

    alice.shutdown().await?;
    bob.shutdown().await?;
    Ok(said.into())
}

/// One dials by name, the other accepts and answers.
async fn stream(a: &Client, b: &Client) -> Result<String, Failed> {
    let mut listener = b.listen(SHOUT).await?;
    let (mut dialled, mut accepted) = tokio::try_join!(a.dial_target("bob", SHOUT), listener.accept())?;
    dialled.write_all(b"hello").await?;
    dialled.finish().await?;
    let mut heard = String::new();
    accepted.read_to_string(&mut heard).await?;
    accepted.write_all(heard.to_uppercase().as_bytes()).await?;
    accepted.finish().await?;
    let mut answer = String::new();
    dialled.read_to_string(&mut answer).await?;
    Ok(format!("stream: {answer}"))
}

/// One leaves a message in the inbox of the other.
async fn message(a: &Client, b: &Client) -> Result<String, Failed> {
    let bob = a.resolve("bob").await?;
    a.send_message(bob.address, Outgoing::text("process this")).await?;
    let mail = b.take_message(Filter::default(), Duration::from_secs(10)).await?.ok_or("no message came")?;
    Ok(format!("message: {}", mail.message.data.unwrap_or_default()))
}

/// One publishes what the other subscribes to.
async fn event(a: &Client, b: &Client) -> Result<String, Failed> {
    let (mut theirs, mut ours) = (b.open_event_stream().await?, a.open_event_stream().await?);
    theirs.subscribe("alice.progress").await?;
    ours.publish("alice.progress", r#"{"done":1}"#).await?;
    let event = theirs.next().await;
    Ok(format!("event: {} {}", event.topic, String::from_utf8_lossy(&event.payload)))
}
