//! A way to a registry that can be stopped up, or let nothing but plain frames through.

#![allow(unreachable_pub, clippy::print_stdout, reason = "part of tests, which say what they measured")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passing {
    Everything,
    /// Connections are taken and nothing comes back, as from a process that is stopped.
    Nothing,
    /// Who begins with TLS is disconnected, as by a registry that takes that for a frame which is too long.
    PlainOnly,
}

/// A TCP way that lives until it is dropped.
pub struct Gate {
    pub address: SocketAddr,
    passing: watch::Sender<Passing>,
    task: JoinHandle<()>,
}

impl Gate {
    pub async fn to(registry: SocketAddr, passing: Passing) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passing = watch::Sender::new(passing);
        let state = passing.clone();
        let task = tokio::spawn(async move {
            let mut ways = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                ways.spawn(pass(client, registry, state.subscribe()));
            }
        });
        Self { address, passing, task }
    }

    pub fn set(&self, passing: Passing) {
        self.passing.send_replace(passing);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, registry: SocketAddr, passing: watch::Receiver<Passing>) {
    let mut first = [0];
    if client.peek(&mut first).await.is_err() || (*passing.borrow() == Passing::PlainOnly && first == [0x16])
    {
        return;
    }
    let Ok(server) = TcpStream::connect(registry).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, passing.clone()) => {}
        () = copy(from_server, to_client, passing) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut passing: watch::Receiver<Passing>,
) {
    let mut bytes = vec![0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if passing.wait_for(|passing| *passing != Passing::Nothing).await.is_err()
            || to.write_all(&bytes[..count]).await.is_err()
        {
            return;
        }
    }
}

/// How long something took, for people to read.
pub fn told(what: &str, took: Duration) {
    println!("{what}: {} ms", took.as_millis());
}
