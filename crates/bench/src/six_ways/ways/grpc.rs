//! gRPC: both agents hold a stream in both directions to a hub, which hands each what the other says.
//!
//! The types are written by hand, as `protoc` would generate them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio::time::sleep;
use tonic::body::Body;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{Service, http};
use tonic::metadata::MetadataValue;
use tonic::server::NamedService;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::six_ways::Error;
use crate::six_ways::job::{Ends, HELD, Kind, Link, Message};
use crate::six_ways::role::Name;
use crate::six_ways::wire::{KEEP_ALIVE, PAUSE};

/// The method, as `service Hub { rpc Talk (stream Envelope) returns (stream Envelope); }` of `package ways` has it.
const TALK: &str = "/ways.Hub/Talk";

/// Whose stream it is.
const AGENT: &str = "agent";

/// A message as protobuf has it.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(enumeration = "EnvelopeKind", tag = "1")]
    kind: i32,
    #[prost(uint32, tag = "2")]
    round: u32,
    #[prost(fixed64, tag = "3")]
    at: u64,
    #[prost(uint32, tag = "4")]
    pause: u32,
    #[prost(string, tag = "5")]
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum EnvelopeKind {
    Task = 0,
    Answer = 1,
    News = 2,
    Back = 3,
}

impl From<Message> for Envelope {
    fn from(message: Message) -> Self {
        let kind = match message.kind {
            Kind::Task => EnvelopeKind::Task,
            Kind::Answer => EnvelopeKind::Answer,
            Kind::News => EnvelopeKind::News,
            Kind::Back => EnvelopeKind::Back,
        };
        let Message { round, at, pause, text, .. } = message;
        Self { kind: kind.into(), round, at, pause, text }
    }
}

impl From<Envelope> for Message {
    fn from(envelope: Envelope) -> Self {
        let kind = match envelope.kind() {
            EnvelopeKind::Task => Kind::Task,
            EnvelopeKind::Answer => Kind::Answer,
            EnvelopeKind::News => Kind::News,
            EnvelopeKind::Back => Kind::Back,
        };
        let Envelope { round, at, pause, text, .. } = envelope;
        Self { kind, round, at, pause, text }
    }
}

/// Who holds a stream. Of two streams of one agent the newer counts.
type Agents = Arc<Mutex<HashMap<Name, mpsc::Sender<Result<Envelope, Status>>>>>;

/// The hub.
pub(crate) async fn serve_hub(listen: SocketAddr) -> Result<(), Error> {
    let server = Server::builder().tcp_nodelay(true).http2_keepalive_interval(Some(KEEP_ALIVE));
    server.clone().add_service(Hub::default()).serve(listen).await.map_err(Error::lost)
}

/// The service, as `tonic-build` would generate it for one method.
#[derive(Clone, Debug, Default)]
struct Hub(Agents);

impl NamedService for Hub {
    const NAME: &'static str = "ways.Hub";
}

impl Service<http::Request<Body>> for Hub {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let talk = Talk(Arc::clone(&self.0));
        Box::pin(async move {
            if request.uri().path() != TALK {
                return Ok(Status::unimplemented("the hub can talk only").into_http());
            }
            let codec = ProstCodec::<Envelope, Envelope>::default();
            Ok(tonic::server::Grpc::new(codec).streaming(talk, request).await)
        })
    }
}

/// The method.
struct Talk(Agents);

impl Service<Request<Streaming<Envelope>>> for Talk {
    type Response = Response<ReceiverStream<Result<Envelope, Status>>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<Envelope>>) -> Self::Future {
        let agent = request.metadata().get(AGENT).and_then(|name| name.to_str().ok()).and_then(Name::read);
        let Some(me) = agent else {
            return std::future::ready(Err(Status::invalid_argument("who are you?")));
        };
        let (out, outgoing) = mpsc::channel(HELD);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(me, out);
        tokio::spawn(hand_over(Arc::clone(&self.0), me, request.into_inner()));
        std::future::ready(Ok(Response::new(ReceiverStream::new(outgoing))))
    }
}

/// Gives the other what this agent says, as long as it speaks.
async fn hand_over(agents: Agents, me: Name, mut said: Streaming<Envelope>) {
    while let Ok(Some(envelope)) = said.message().await {
        let other = agents.lock().unwrap_or_else(PoisonError::into_inner).get(&me.other()).cloned();
        if let Some(other) = other {
            // One that has just gone gets nothing.
            let _ = other.send(Ok(envelope)).await;
        }
    }
}

/// An agent that talks with the hub, and again when it must.
pub(crate) fn link(me: Name, hub: SocketAddr) -> Link {
    let (link, mut ends) = Link::new();
    tokio::spawn(async move {
        while !ends.told.is_closed() {
            // Whatever ended it, the next try begins with a new connection.
            let _ = talk(me, hub, &mut ends).await;
            sleep(PAUSE).await;
        }
    });
    link
}

async fn talk(me: Name, hub: SocketAddr, ends: &mut Ends) -> Result<(), Error> {
    let endpoint = Endpoint::from_shared(format!("http://{hub}")).map_err(Error::lost)?;
    let endpoint =
        endpoint.tcp_nodelay(true).http2_keep_alive_interval(KEEP_ALIVE).keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(Error::lost)?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(Error::lost)?;
    let (out, outgoing) = mpsc::channel(HELD);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert(AGENT, MetadataValue::from_static(me.letter()));
    let codec = ProstCodec::<Envelope, Envelope>::default();
    let path = http::uri::PathAndQuery::from_static(TALK);
    let mut incoming = client.streaming(request, path, codec).await.map_err(Error::lost)?.into_inner();
    loop {
        tokio::select! {
            envelope = incoming.message() => {
                let envelope: Envelope = envelope.map_err(Error::lost)?.ok_or(Error::Ended("the hub"))?;
                ends.told.send(envelope.into()).await.map_err(|_| Error::Ended("the agent"))?;
            }
            message = ends.said.recv() => {
                let message = message.ok_or(Error::Ended("the agent"))?;
                out.send(message.into()).await.map_err(|_| Error::Ended("the hub"))?;
            }
        }
    }
}
