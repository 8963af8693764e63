//! gRPC, WebSocket and A2A with their own libraries, between two agents behind NATs of their own.

use std::convert::Infallible;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{SinkExt, StreamExt};
use pilot_lab::Access::{AddressRestricted, PortRestricted};
use pilot_lab::{Host, Lab, Site, Way, agree};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::{Channel, Server, server::TcpIncoming};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::services::door;

/// Serves on a thread of this host until the test is over; says where.
fn serve<F: Future<Output = ()>>(
    host: &Host,
    service: impl FnOnce(tokio::net::TcpListener) -> F + Send + 'static,
) -> SocketAddr {
    let listener = host.namespace().enter(|| TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    listener.set_nonblocking(true).expect("it can wait for others");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        runtime().block_on(async {
            service(tokio::net::TcpListener::from_std(listener).expect("a listener")).await;
        });
    });
    address
}

/// Does something in the network of this host.
fn on<T: Send>(host: &Host, work: impl Future<Output = T> + Send) -> T {
    host.namespace().enter(|| {
        let limit = Duration::from_secs(60);
        runtime().block_on(async { tokio::time::timeout(limit, work).await }).expect("done within a minute")
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[derive(Clone, PartialEq, prost::Message)]
struct Word {
    #[prost(string, tag = "1")]
    text: String,
}

/// Answers each word with capitals, as soon as it has come.
#[derive(Clone)]
struct Shout;

impl NamedService for Shout {
    const NAME: &'static str = "lab.Shout";
}

type Words = Pin<Box<dyn futures_util::Stream<Item = Result<Word, Status>> + Send>>;

impl StreamingService<Word> for Shout {
    type Response = Word;
    type ResponseStream = Words;
    type Future = std::future::Ready<Result<Response<Words>, Status>>;

    fn call(&mut self, request: Request<Streaming<Word>>) -> Self::Future {
        let louder = |word: Result<Word, Status>| word.map(|word| Word { text: word.text.to_uppercase() });
        std::future::ready(Ok(Response::new(Box::pin(request.into_inner().map(louder)))))
    }
}

impl Service<http::Request<Body>> for Shout {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let codec = ProstCodec::<Word, Word>::default();
        Box::pin(async move { Ok(tonic::server::Grpc::new(codec).streaming(Shout, request).await) })
    }
}

async fn grpc(listener: tokio::net::TcpListener) {
    let incoming = TcpIncoming::from(listener);
    Server::builder().add_service(Shout).serve_with_incoming(incoming).await.expect("it serves");
}

fn path() -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static("/lab.Shout/Each")
}

async fn converse_by_grpc(at: SocketAddr) {
    let channel =
        Channel::from_shared(format!("http://{at}")).expect("a URL").connect().await.expect("a connection");
    let mut client = tonic::client::Grpc::new(channel);
    let word = |text: String| Word { text };
    for number in 0..20 {
        client.ready().await.expect("it is ready");
        let asked = Request::new(word(format!("call {number}")));
        let answer: Response<Word> =
            client.unary(asked, path(), ProstCodec::<Word, Word>::default()).await.expect("an answer");
        assert_eq!(answer.into_inner().text, format!("CALL {number}"));
    }
    // Each word is said when the one before was answered: both directions are open all the time.
    let (say, said) = tokio::sync::mpsc::channel(1);
    let words = futures_util::stream::unfold(said, |mut said| async move {
        said.recv().await.map(|word: Word| (word, said))
    });
    say.send(word("word 0".into())).await.expect("room");
    client.ready().await.expect("it is ready");
    let answers: Response<Streaming<Word>> = client
        .streaming(Request::new(words), path(), ProstCodec::<Word, Word>::default())
        .await
        .expect("a stream");
    let mut answers = answers.into_inner();
    for number in 0..50 {
        let answer = answers.message().await.expect("no error").expect("an answer");
        assert_eq!(answer.text, format!("WORD {number}"));
        if number < 49 {
            say.send(word(format!("word {}", number + 1))).await.expect("room");
        }
    }
    drop(say);
    assert_eq!(answers.message().await.expect("it ends well"), None);
}

async fn websocket(listener: tokio::net::TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a WebSocket");
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.expect("it is taken");
            }
        }
    }
}

async fn converse_by_websocket(at: SocketAddr) {
    let stream = tokio::net::TcpStream::connect(at).await.expect("a connection");
    let (mut socket, _) =
        tokio_tungstenite::client_async("ws://agent-b/", stream).await.expect("a WebSocket");
    let large = tungstenite::Message::binary(vec![7; 1 << 20]);
    for message in [tungstenite::Message::text("hello"), large, tungstenite::Message::text("")] {
        socket.send(message.clone()).await.expect("it is sent");
        assert_eq!(socket.next().await.expect("an answer").expect("no error"), message);
    }
    socket.close(None).await.expect("it closes");
    assert!(matches!(socket.next().await, Some(Ok(tungstenite::Message::Close(_)))));
}

/// An agent of the A2A protocol: its card, and a task that it takes.
async fn a2a(listener: tokio::net::TcpListener) {
    let card = || async {
        Json(json!({
            "protocolVersion": "0.3.0", "name": "Counter", "description": "Counts words", "version": "1.0.0",
            "url": "http://agent-b.pilot/a2a", "preferredTransport": "JSONRPC",
            "capabilities": { "streaming": false },
            "defaultInputModes": ["text/plain"], "defaultOutputModes": ["text/plain"],
            "skills": [{ "id": "count", "name": "Count", "description": "Counts words", "tags": ["text"] }],
        }))
    };
    let call = |Json(call): Json<Value>| async move {
        let text = call["params"]["message"]["parts"][0]["text"].as_str().unwrap_or_default();
        let count = text.split_whitespace().count().to_string();
        Json(json!({ "jsonrpc": "2.0", "id": call["id"], "result": {
            "kind": "task", "id": "task-1", "contextId": "context-1", "status": { "state": "completed" },
            "artifacts": [{ "artifactId": "count", "parts": [{ "kind": "text", "text": count }] }],
        }}))
    };
    let agent = Router::new().route("/.well-known/agent-card.json", get(card)).route("/a2a", post(call));
    axum::serve(listener, agent).await.expect("it serves");
}

/// What curl gets through the proxy of this host.
fn through_proxy(host: &Host, words: &[&str]) -> Value {
    let mut command = std::process::Command::new("curl");
    command.args(["-q", "-sS", "--max-time", "60", "--proxy", "http://127.0.0.1:8118", "--noproxy", ""]);
    let done = host.namespace().enter(|| command.args(words).output()).expect("curl runs");
    serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done:?}"))
}

#[test]
fn grpc_websocket_and_a2a_work_behind_two_nats() {
    let lab = Lab::open();
    let near = Site::build(&lab, "a", PortRestricted);
    let far = Site::build(&lab, "b", AddressRestricted);
    let a = lab.ours(&near.host, "agent-a", &[]);
    let b = lab.ours(&far.host, "agent-b", &["--trust-auto-approve"]);
    agree(&a, &b);
    Way::Direct.awaited([&a, &b]);
    let services = [
        ("50051", serve(&far.host, grpc)),
        ("8001", serve(&far.host, websocket)),
        ("80", serve(&far.host, a2a)),
    ];
    let _serving = services.map(|(port, at)| door(&far.host, &b, &["serve", port, "--to", &at.to_string()]));
    let _forwarding = [("127.0.0.1:9001", "agent-b:50051"), ("127.0.0.1:9002", "agent-b:8001")]
        .map(|(listen, to)| door(&near.host, &a, &["forward", listen, to]));
    let _proxy = door(&near.host, &a, &["proxy", "--http", "127.0.0.1:8118"]);

    on(&near.host, converse_by_grpc(SocketAddr::from(([127, 0, 0, 1], 9001))));
    on(&near.host, converse_by_websocket(SocketAddr::from(([127, 0, 0, 1], 9002))));
    let card = through_proxy(&near.host, &["http://agent-b.pilot/.well-known/agent-card.json"]);
    assert_eq!(card["name"], "Counter");
    let task = json!({ "jsonrpc": "2.0", "id": 7, "method": "message/send", "params": { "message": {
        "kind": "message", "role": "user", "messageId": "m-1",
        "parts": [{ "kind": "text", "text": "three words here" }] } } });
    let url = card["url"].as_str().expect("the card has an address");
    let answer = through_proxy(&near.host, &["--json", &task.to_string(), url]);
    assert_eq!(answer["result"]["artifacts"][0]["parts"][0]["text"], "3", "{answer}");
}
