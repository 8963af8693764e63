//! WebSocket: both agents hold a connection to a hub, which hands each what the other says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::six_ways::Error;
use crate::six_ways::job::{Ends, HELD, Link};
use crate::six_ways::role::Name;
use crate::six_ways::wire::{KEEP_ALIVE, PAUSE};

/// Who is connected. Of two connections of one agent the newer counts.
type Agents = Arc<Mutex<HashMap<Name, mpsc::Sender<Frame>>>>;

/// The hub.
pub(crate) async fn serve_hub(listen: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(listen).await?;
    let agents = Agents::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let agents = Arc::clone(&agents);
        // An agent that goes comes again.
        tokio::spawn(async move { hand_over(stream, &agents).await.is_ok() });
    }
}

/// An agent's connection at the hub. It says first who it is.
async fn hand_over(stream: TcpStream, agents: &Agents) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let mut socket = accept_async(stream).await.map_err(Error::lost)?;
    let hello = socket.next().await.ok_or(Error::Ended("the agent"))?.map_err(Error::lost)?;
    let me: Name = serde_json::from_str(hello.to_text().map_err(Error::lost)?)?;
    let (out, mut outgoing) = mpsc::channel(HELD);
    agents.lock().unwrap_or_else(PoisonError::into_inner).insert(me, out);
    loop {
        tokio::select! {
            frame = socket.next() => {
                let frame = frame.ok_or(Error::Ended("the agent"))?.map_err(Error::lost)?;
                let other = agents.lock().unwrap_or_else(PoisonError::into_inner).get(&me.other()).cloned();
                if let (true, Some(other)) = (frame.is_text(), other) {
                    // One that has just gone gets nothing.
                    let _ = other.send(frame).await;
                }
            }
            frame = outgoing.recv() => {
                let frame = frame.ok_or(Error::Ended("the agent's turn"))?;
                socket.send(frame).await.map_err(Error::lost)?;
            }
        }
    }
}

/// An agent that connects to the hub, and again when it must.
pub(crate) fn link(me: Name, hub: SocketAddr) -> Link {
    let (link, mut ends) = Link::new();
    tokio::spawn(async move {
        loop {
            // Whatever ended it, the next try begins with a new connection.
            if let Ok(socket) = connect(me, hub).await {
                let _ = hold(socket, &mut ends).await;
            }
            if ends.told.is_closed() {
                return;
            }
            sleep(PAUSE).await;
        }
    });
    link
}

async fn connect(me: Name, hub: SocketAddr) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(hub).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async(format!("ws://{hub}/"), stream).await.map_err(Error::lost)?;
    socket.send(Frame::text(serde_json::to_string(&me)?)).await.map_err(Error::lost)?;
    Ok(socket)
}

async fn hold(mut socket: WebSocketStream<TcpStream>, ends: &mut Ends) -> Result<(), Error> {
    let mut pings = interval(KEEP_ALIVE);
    pings.reset();
    loop {
        tokio::select! {
            frame = socket.next() => {
                let frame = frame.ok_or(Error::Ended("the hub"))?.map_err(Error::lost)?;
                if frame.is_text() {
                    let message = serde_json::from_str(frame.to_text().map_err(Error::lost)?)?;
                    ends.told.send(message).await.map_err(|_| Error::Ended("the agent"))?;
                }
            }
            message = ends.said.recv() => {
                let message = message.ok_or(Error::Ended("the agent"))?;
                let frame = Frame::text(serde_json::to_string(&message)?);
                socket.send(frame).await.map_err(Error::lost)?;
            }
            _ = pings.tick() => socket.send(Frame::Ping(Vec::new().into())).await.map_err(Error::lost)?,
        }
    }
}
