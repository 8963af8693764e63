//! gRPC: tonic, unary calls without TLS. The types are written by hand, so that nobody needs protoc.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::{Failure, work::MESSAGE};

/// What is called with, and what is answered.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) content: Vec<u8>,
}

/// Answers every call with its content.
#[derive(Clone)]
struct Echo;

impl Service<Request<Message>> for Echo {
    type Response = Response<Message>;
    type Error = Status;
    type Future = std::future::Ready<Result<Response<Message>, Status>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Message>) -> Self::Future {
        std::future::ready(Ok(Response::new(request.into_inner())))
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let codec = ProstCodec::<Message, Message>::default();
        Box::pin(async move { Ok(tonic::server::Grpc::new(codec).unary(Echo, request).await) })
    }
}

/// Says where it is reached, and serves until it is ended.
pub(super) async fn serve() -> Result<(), Failure> {
    let incoming = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true));
    crate::process::say(&incoming.local_addr()?.to_string())?;
    Ok(Server::builder().add_service(Echo).serve_with_incoming(incoming).await?)
}

/// A warm channel.
pub(super) async fn connect(address: &str) -> Result<Channel, Failure> {
    Ok(Channel::from_shared(format!("http://{address}"))?.tcp_nodelay(true).connect().await?)
}

/// One call and its answer.
pub(crate) async fn call(channel: &Channel) -> Result<(), Failure> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/bench.Echo/Call");
    let codec = ProstCodec::<Message, Message>::default();
    let message = Message { content: vec![7; MESSAGE] };
    let answer: Response<Message> = client.unary(Request::new(message), path, codec).await?;
    if answer.get_ref().content.len() != MESSAGE {
        return Err("another answer".into());
    }
    Ok(())
}
