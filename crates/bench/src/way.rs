//! The ways between two programs: what is compared.

pub(crate) mod floor;
pub(crate) mod grpc;
pub(crate) mod quic;

use std::{path::Path, sync::Arc, time::Duration};

use pilot_client::{Addr, Client, Endpoint, NodeId, Port};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::{
    Failure,
    process::say,
    work::{Pipe, drive, serve},
};

/// Where the serving program listens at its daemon.
const PORT: Port = Port::STDIO;

/// How long two nodes may take to trust each other.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection that is warm, ready for new streams.
pub(crate) enum Dialer {
    /// There are no streams in TCP: each is a connection.
    Tcp(String),
    Quic(quic::Client),
    /// One stream, through two relays.
    Floor(String),
    /// One stream, sealed and sent by the program itself.
    Inside(Arc<floor::Floor>),
    Pilot(Client, Endpoint),
    /// The same with the node in this program, which lives as long as this.
    PilotInside(pilot::Node, Endpoint),
    /// No streams of bytes: calls.
    Grpc(tonic::transport::Channel, String),
}

impl Dialer {
    /// Opens a stream.
    pub(crate) async fn open(&self) -> Result<Pipe, Failure> {
        Ok(match self {
            Self::Tcp(address) => tcp(TcpStream::connect(address).await?)?,
            Self::Quic(client) => {
                let (writer, reader) = client.connection.open_bi().await?;
                (Box::new(reader), Box::new(writer))
            }
            Self::Floor(socket) => unix(UnixStream::connect(socket).await?),
            Self::Inside(floor) => floor::pipe(floor),
            Self::Pilot(client, to) => pilot(client.dial(*to).await?),
            Self::PilotInside(node, to) => pilot(node.client().dial(*to).await?),
            Self::Grpc(..) => return Err("gRPC has no streams of bytes".into()),
        })
    }

    /// A connection of its own to the same program, where there is such a thing.
    pub(crate) async fn anew(&self) -> Result<Self, Failure> {
        Ok(match self {
            Self::Tcp(address) => Self::Tcp(address.clone()),
            Self::Quic(client) => Self::Quic(client.anew().await?),
            Self::Grpc(_, address) => Self::Grpc(grpc::connect(address).await?, address.clone()),
            Self::Floor(_) | Self::Inside(_) | Self::Pilot(..) | Self::PilotInside(..) => {
                return Err("there is nothing to connect anew".into());
            }
        })
    }

    /// Opens a stream and writes to it, in one go where that is possible.
    pub(crate) async fn open_with(&self, data: &[u8]) -> Result<Pipe, Failure> {
        match self {
            Self::Pilot(client, to) => return Ok(pilot(client.dial_with(*to, data).await?)),
            Self::PilotInside(node, to) => return Ok(pilot(node.client().dial_with(*to, data).await?)),
            Self::Tcp(_) | Self::Quic(_) | Self::Floor(_) | Self::Inside(_) | Self::Grpc(..) => {}
        }
        let (reader, mut writer) = self.open().await?;
        writer.write_all(data).await?;
        writer.flush().await?;
        Ok((reader, writer))
    }
}

/// The serving program: says `ready` and where it is reached, and serves until it is ended.
pub(crate) async fn serving(words: &[&str]) -> Result<(), Failure> {
    match words {
        ["tcp"] => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            say(&listener.local_addr()?.to_string())?;
            loop {
                spawn(tcp(listener.accept().await?.0)?);
            }
        }
        ["quic", folder] => {
            let endpoint = quic::server(Path::new(folder))?;
            say(&endpoint.local_addr()?.to_string())?;
            while let Some(incoming) = endpoint.accept().await {
                tokio::spawn(async move {
                    let connection = incoming.await?;
                    while let Ok((writer, reader)) = connection.accept_bi().await {
                        spawn((Box::new(reader), Box::new(writer)));
                    }
                    Ok::<_, quinn::ConnectionError>(())
                });
            }
            Ok(())
        }
        ["floor", socket] => {
            let stream = UnixStream::connect(socket).await?;
            say("ready")?;
            Ok(serve(unix(stream)).await?)
        }
        ["inside", here, there] => {
            let floor = floor::Floor::new(here, there)?;
            say("ready")?;
            Ok(serve(floor::pipe(&Arc::new(floor))).await?)
        }
        ["pilot", socket] => {
            let client = Client::connect_to(socket).await?;
            accepting(&client, "ready").await
        }
        ["pilot-inside", name, registry, beacon] => {
            let node = inside(name, registry, beacon).await?;
            accepting(&node.client(), &node.id().0.to_string()).await
        }
        ["grpc"] => grpc::serve().await,
        _ => Err(format!("cannot serve {words:?}").into()),
    }
}

/// Takes every stream that comes, and serves it.
async fn accepting(client: &Client, word: &str) -> Result<(), Failure> {
    let mut listener = client.listen(PORT).await?;
    say(word)?;
    // At the end of a measurement the daemon goes first.
    while let Ok(stream) = listener.accept().await {
        spawn(pilot(stream));
    }
    Ok(())
}

/// A node in this program, in a folder that goes with it.
async fn inside(name: &str, registry: &str, beacon: &str) -> Result<pilot::Node, Failure> {
    let node = pilot::Node::builder()
        .registry(registry)
        .beacon(beacon)
        .listen(([127, 0, 0, 1], 0).into())
        .hostname(name)
        .approve_all();
    Ok(node.start().await?)
}

/// The driving program: connects, says `ready`, and does what it is asked.
pub(crate) async fn driving(words: &[&str]) -> Result<(), Failure> {
    let dialer = match words {
        ["tcp", address] => Dialer::Tcp((*address).to_owned()),
        ["quic", address, folder] => Dialer::Quic(quic::Client::new(address, Path::new(folder)).await?),
        ["floor", socket] => Dialer::Floor((*socket).to_owned()),
        ["inside", here, there] => Dialer::Inside(Arc::new(floor::Floor::new(here, there)?)),
        ["pilot", socket, node] => {
            let to = Addr::backbone(NodeId(node.parse()?)).port(PORT);
            Dialer::Pilot(Client::connect_to(socket).await?, to)
        }
        ["pilot-inside", name, registry, beacon, other] => {
            let other = NodeId(other.parse()?);
            let node = inside(name, registry, beacon).await?;
            node.client().handshake(other, "bench").await?;
            node.client().wait_trust(other, PATIENCE).await?;
            Dialer::PilotInside(node, Addr::backbone(other).port(PORT))
        }
        ["grpc", address] => Dialer::Grpc(grpc::connect(address).await?, (*address).to_owned()),
        _ => return Err(format!("cannot drive {words:?}").into()),
    };
    say("ready")?;
    drive(dialer).await
}

/// The daemon of the floor: one program on this side, its like on the other.
pub(crate) async fn relaying(words: &[&str]) -> Result<(), Failure> {
    let [socket, here, there] = words else { return Err("a relay has three words".into()) };
    let listener = UnixListener::bind(socket)?;
    let floor = floor::Floor::new(here, there)?;
    say("ready")?;
    floor.relay(listener.accept().await?.0).await
}

fn spawn(pipe: Pipe) {
    // A stream that fails is seen by whoever drives it.
    tokio::spawn(serve(pipe));
}

fn tcp(stream: TcpStream) -> Result<Pipe, Failure> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    Ok((Box::new(reader), Box::new(writer)))
}

fn unix(stream: UnixStream) -> Pipe {
    let (reader, writer) = stream.into_split();
    (Box::new(reader), Box::new(writer))
}

fn pilot(stream: pilot_client::Stream) -> Pipe {
    let (reader, writer) = stream.into_split();
    (Box::new(reader), Box::new(writer))
}
