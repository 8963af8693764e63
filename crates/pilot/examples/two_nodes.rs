//! Two nodes in one process: they trust each other, talk over a stream, send a message and an event.
//!
//! ```text
//! pilotctl rendezvous run --registry-addr 127.0.0.1:9000 --beacon-addr 127.0.0.1:9001
//! cargo run -p pilot --example two_nodes -- 127.0.0.1:9000
//! ```

#![expect(clippy::print_stdout, reason = "it shows what happened")]

use std::time::Duration;

use pilot::{Client, Node, Outgoing, Port, mailbox::Filter};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// A port of this program's own.
const SHOUT: Port = Port(5000);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let registry = std::env::args().nth(1).ok_or("usage: two_nodes REGISTRY")?;
    for line in tell(&registry).await? {
        println!("{line}");
    }
    Ok(())
}

/// What the two say to each other.
pub async fn tell(registry: &str) -> Result<Vec<String>, Failed> {
    // ANCHOR: start
    let here = "127.0.0.1:0".parse()?;
    let alice = Node::builder().registry(registry).listen(here).hostname("alice").start().await?;
    let bob = Node::builder().registry(registry).listen(here).hostname("bob").approve([alice.id()]);
    let bob = bob.start().await?;
    // ANCHOR_END: start

    // ANCHOR: trust
    let (a, b) = (alice.client(), bob.client());
    a.handshake(bob.id(), "we are in one program").await?;
    a.wait_trust(bob.id(), Duration::from_secs(10)).await?;
    // ANCHOR_END: trust

    let said = [stream(&a, &b).await?, message(&a, &b).await?, event(&a, &b).await?];

    // ANCHOR: end
    alice.shutdown().await?;
    bob.shutdown().await?;
    // ANCHOR_END: end
    Ok(said.into())
}

// ANCHOR: stream
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
// ANCHOR_END: stream

// ANCHOR: message
/// One leaves a message in the inbox of the other.
async fn message(a: &Client, b: &Client) -> Result<String, Failed> {
    let bob = a.resolve("bob").await?;
    a.send_message(bob.address, Outgoing::text("process this")).await?;
    let mail = b.take_message(Filter::default(), Duration::from_secs(10)).await?.ok_or("no message came")?;
    Ok(format!("message: {}", mail.message.data.unwrap_or_default()))
}
// ANCHOR_END: message

// ANCHOR: event
/// One publishes what the other subscribes to.
async fn event(a: &Client, b: &Client) -> Result<String, Failed> {
    let (mut theirs, mut ours) = (b.open_event_stream().await?, a.open_event_stream().await?);
    theirs.subscribe("alice.progress").await?;
    ours.publish("alice.progress", r#"{"done":1}"#).await?;
    let event = theirs.next().await;
    Ok(format!("event: {} {}", event.topic, String::from_utf8_lossy(&event.payload)))
}
// ANCHOR_END: event
