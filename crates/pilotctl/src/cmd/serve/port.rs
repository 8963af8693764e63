//! `pilotctl serve PORT --to PLACE`: a service of this machine on a port of the network.

use std::sync::Arc;
use std::time::Duration;

use pilot_client::{Client, Listener, Port, Stream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::bridge::{Crossing, Crowd, Daemon, Listening, Notice, Place, Socket, no_service, splice};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::{notify, process};

/// How long the service may take to accept a connection.
const CONNECTING: Duration = Duration::from_secs(10);

/// Before the port is claimed again from a daemon that has come back, if another program has it.
const PAUSE: Duration = Duration::from_secs(2);

/// Takes streams until asked to end.
pub(super) async fn run(ctx: &Context, port: Port, to: Place, limit: u16) -> Result<Output, Failure> {
    let asked_to_end = process::asked_to_end();
    let daemon = Daemon::connect(ctx).await?;
    let listener = daemon.client().await?.listen(port).await?;
    let (sender, incoming) = mpsc::channel(1);
    let mut sources = JoinSet::new();
    sources.spawn(take(daemon, listener, sender, to.clone(), ctx.format));
    listening(port, &to).tell(ctx.format);
    notify::ready();
    let to = Arc::new(to);
    let carry = move |stream| carry(stream, Arc::clone(&to));
    Crowd::new(ctx, limit).attend(incoming, sources, asked_to_end, carry, Stream::reset).await
}

/// Hands on what comes to the port, which is claimed again when the daemon has come back.
async fn take(
    daemon: Daemon,
    mut listener: Listener,
    sender: mpsc::Sender<Stream>,
    to: Place,
    format: Format,
) {
    loop {
        while let Ok(stream) = listener.accept().await {
            if sender.send(stream).await.is_err() {
                return;
            }
        }
        listener = match claim(&daemon, listener.port(), format).await {
            Some(listener) => listener,
            None => return,
        };
        listening(listener.port(), &to).tell(format);
    }
}

fn listening(port: Port, to: &Place) -> Notice {
    Notice::Listening(Listening { kind: None, at: format!("port {port}"), to: Some(to.to_string()) })
}

async fn claim(daemon: &Daemon, port: Port, format: Format) -> Option<Listener> {
    let mut told = false;
    loop {
        let client: Client = daemon.client_at_last().await?;
        match client.listen(port).await {
            Ok(listener) => return Some(listener),
            Err(error) if !told => {
                told = true;
                Notice::Waiting { error: error.into() }.tell(format);
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn carry(stream: Stream, to: Arc<Place>) -> Crossing {
    let peer = stream.peer();
    let connected = match tokio::time::timeout(CONNECTING, Socket::connect(&to)).await {
        Ok(connected) => connected,
        Err(elapsed) => Err(elapsed.into()),
    };
    match connected {
        Ok(socket) => Crossing::of(peer, splice(socket, stream).await),
        Err(error) => {
            stream.reset();
            Crossing::failed(peer, no_service(to, &error))
        }
    }
}
