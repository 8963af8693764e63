//! The processes of a way. The benchmark starts itself once for each, inside the machine where it belongs.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job::{Link, ask, work};
use super::ways::{grpc, mqtt, pilot, polling, webhook, websocket};
use super::{Error, chain};

/// One of the two agents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Name {
    /// Who asks.
    A,
    /// Who works.
    B,
}

impl Name {
    /// The peer.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// As it is written.
    pub(crate) const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// From how it is written.
    pub(crate) fn read(text: &str) -> Option<Self> {
        [Self::A, Self::B].into_iter().find(|name| name.letter() == text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

/// What a process is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// The server with the mailboxes that are polled.
    Mailboxes(SocketAddr),
    /// The hub of the WebSockets.
    WebSocketHub(SocketAddr),
    /// The hub of gRPC.
    GrpcHub(SocketAddr),
    /// An agent.
    Agent {
        /// Which.
        name: Name,
        /// How it reaches the other.
        by: By,
        /// It has been there before, and says that it is back.
        returns: bool,
    },
    /// An agent of the chain that works on a document.
    Chain(chain::Member),
}

/// How an agent reaches the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// It looks into its mailbox at a server.
    Polling {
        /// The server.
        server: SocketAddr,
        /// How often.
        period: Duration,
    },
    /// It listens itself, and calls.
    Webhook {
        /// Where it listens.
        listen: SocketAddr,
        /// Where the other is called.
        peer: SocketAddr,
    },
    /// It holds a WebSocket to a hub.
    WebSocket(SocketAddr),
    /// It is a client of a broker.
    Mqtt(SocketAddr),
    /// It holds a stream to a hub.
    Grpc(SocketAddr),
    /// It holds a stream to the other, through its daemon.
    Pilot {
        /// The daemon's socket.
        socket: PathBuf,
        /// Whom it dials; none waits to be dialled.
        peer: Option<String>,
    },
}

/// Plays a role until its end.
pub(crate) async fn play(role: Role) -> Result<(), Error> {
    match role {
        Role::Mailboxes(listen) => polling::serve_boxes(listen).await,
        Role::WebSocketHub(listen) => websocket::serve_hub(listen).await,
        Role::GrpcHub(listen) => grpc::serve_hub(listen).await,
        Role::Agent { name, by, returns } => agent(name, by, returns).await,
        Role::Chain(member) => chain::run(member).await,
    }
}

async fn agent(name: Name, by: By, returns: bool) -> Result<(), Error> {
    let link = match by {
        By::Polling { server, period } => polling::link(name, server, period),
        By::Webhook { listen, peer } => {
            let (link, served) = webhook::link(listen, peer);
            return tokio::select! {
                served = served => served,
                done = live(name, link, returns) => done,
            };
        }
        By::WebSocket(hub) => websocket::link(name, hub),
        By::Mqtt(broker) => mqtt::link(name, broker),
        By::Grpc(hub) => grpc::link(name, hub),
        By::Pilot { socket, peer: Some(peer) } => pilot::dial(socket, peer),
        By::Pilot { socket, peer: None } => pilot::listen(socket),
    };
    live(name, link, returns).await
}

async fn live(name: Name, link: Link, returns: bool) -> Result<(), Error> {
    match name {
        Name::A => ask(link).await,
        Name::B => work(link, returns).await,
    }
}
