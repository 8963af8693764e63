//! Nodes that ask a registry as fast as it answers, over connections that they share.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use pilot_crypto::Identity;
use pilot_wire::{
    NodeId,
    registry::{Decoder, Envelope, Register, Registered, Request, Resolve, Response, Signed, frame},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Failure;

/// Numbers of the nodes of each connection.
pub(super) fn shares(nodes: usize, connections: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let connections = connections.clamp(1, nodes.max(1));
    (0..connections).map(move |at| at * nodes / connections..(at + 1) * nodes / connections)
}

/// What is asked for again and again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Lookup,
    Resolve,
    Beat,
    Register,
}

/// A node: its requests are signed once, as those of 1.18.0 are, which signs the same text for each.
struct Node {
    id: NodeId,
    register: Arc<[u8]>,
    beat: Arc<[u8]>,
    resolve: Arc<[u8]>,
    lookup: Arc<[u8]>,
    identity: Identity,
}

/// A connection that speaks for its share of the nodes.
pub(super) struct Conn {
    stream: TcpStream,
    decoder: Decoder,
    nodes: Vec<Node>,
}

impl Conn {
    /// Connects, and makes keys and requests of its nodes.
    pub(super) async fn open(registry: SocketAddr, share: std::ops::Range<usize>) -> Result<Self, Failure> {
        let stream = TcpStream::connect(registry).await?;
        stream.set_nodelay(true)?;
        let nodes = share.map(|number| {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&u64::try_from(number)?.to_be_bytes());
            let identity = Identity::from_seed(&seed);
            let port = 1024 + number % 60_000;
            let request = Register {
                public_key: identity.public().into(),
                listen_addr: format!("127.0.0.1:{port}"),
                version: "v1.18.0".to_owned(),
                hostname: format!("node-{number}"),
                lan_addrs: vec![format!("192.168.{}.{}:{port}", number / 256 % 256, number % 256)],
                ..Register::default()
            };
            let register = signed(&identity, Request::Register(request))?;
            let none: Arc<[u8]> = Arc::from([]);
            let [beat, resolve, lookup] = std::array::from_fn(|_| Arc::clone(&none));
            Ok(Node { id: NodeId::UNSET, register, beat, resolve, lookup, identity })
        });
        let nodes = nodes.collect::<Result<Vec<_>, Failure>>()?;
        Ok(Self { stream, decoder: Decoder::new(), nodes })
    }

    /// Registers them one after the other.
    pub(super) async fn register_all(mut self) -> Result<Self, Failure> {
        for at in 0..self.nodes.len() {
            let request = Arc::clone(&self.nodes[at].register);
            let response = self.ask(&request).await?;
            let Response::Register(Registered { node_id, .. }) = response else {
                return Err(format!("{response:?}").into());
            };
            self.nodes[at].id = node_id;
        }
        for node in &mut self.nodes {
            let about = || Signed { node_id: node.id, ..Signed::default() };
            node.beat = signed(&node.identity, Request::Heartbeat(about()))?;
            node.lookup = signed(&node.identity, Request::Lookup(about()))?;
            let (node_id, requester_id) = (node.id, node.id);
            let resolve = Resolve { node_id, requester_id, ..Resolve::default() };
            node.resolve = signed(&node.identity, Request::Resolve(resolve))?;
        }
        Ok(self)
    }

    /// Asks as fast as it is answered; how often it was.
    pub(super) async fn hammer(&mut self, kind: Kind, end: Instant) -> Result<u32, Failure> {
        for turn in 0_u32.. {
            if Instant::now() >= end {
                return Ok(turn);
            }
            let node = &self.nodes[usize::try_from(turn)? % self.nodes.len()];
            let request = Arc::clone(match kind {
                Kind::Lookup => &node.lookup,
                Kind::Resolve => &node.resolve,
                Kind::Beat => &node.beat,
                Kind::Register => &node.register,
            });
            self.ask(&request).await?;
        }
        Ok(0)
    }

    async fn ask(&mut self, request: &[u8]) -> Result<Response, Failure> {
        self.stream.write_all(request).await?;
        loop {
            if let Some(content) = self.decoder.next()? {
                let response = Response::parse(&content)?;
                if let Response::Error { error } = response {
                    return Err(error.into());
                }
                return Ok(response);
            }
            let mut buffer = [0; 2048];
            match self.stream.read(&mut buffer).await? {
                0 => return Err("closed".into()),
                length => self.decoder.feed(&buffer[..length]),
            }
        }
    }
}

fn signed(identity: &Identity, request: Request) -> Result<Arc<[u8]>, Failure> {
    let envelope = Envelope::from(request.sign_with(|text| identity.sign(text)));
    Ok(frame(&envelope.to_json())?.into())
}
