//! gRPC, WebSocket and A2A as their own libraries speak them.

use std::net::SocketAddr;

use axum::body::Bytes;
use axum::http::{HeaderMap, Request, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{SinkExt, StreamExt};
use h2::{RecvStream, SendStream};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::door::{Door, in_background, joined, runtime};
use crate::web::{curl, site};

/// A message of gRPC as it stands in the stream: not compressed, its length, itself.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), message].concat().into()
}

/// The messages of one direction of a call.
struct Messages {
    body: RecvStream,
    gathered: Vec<u8>,
}

impl Messages {
    fn of(body: RecvStream) -> Self {
        Self { body, gathered: Vec::new() }
    }

    /// The next one, or nothing at the end.
    async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = self.gathered.get(1..5) {
                let end = 5 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
                if self.gathered.len() >= end {
                    return Some(self.gathered.drain(..end).skip(5).collect());
                }
            }
            let data = self.body.data().await?.unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.gathered.extend_from_slice(&data);
        }
    }

    /// What the server says of the call when it is over.
    async fn status(&mut self) -> String {
        let trailers = self.body.trailers().await.unwrap().unwrap();
        trailers["grpc-status"].to_str().unwrap().to_owned()
    }
}

/// gRPC over HTTP/2: `/test.Shout/Each` answers each message with capitals, as soon as it has come.
fn grpc_service() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    in_background(move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(shout(request, respond));
                }
            });
        }
    });
    address
}

async fn shout(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let known = request.uri().path() == "/test.Shout/Each";
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut answer = respond.send_response(head, false).unwrap();
    let mut questions = Messages::of(request.into_body());
    while let Some(question) = questions.next().await {
        if known {
            answer.send_data(framed(&question.to_ascii_uppercase()), false).unwrap();
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", if known { "0" } else { "12" }.parse().unwrap());
    answer.send_trailers(trailers).unwrap();
}

/// Begins a call.
async fn call(
    client: &h2::client::SendRequest<Bytes>,
    path: &str,
) -> (SendStream<Bytes>, h2::client::ResponseFuture) {
    let head = Request::post(format!("http://agent-b.pilot{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (answer, questions) = client.clone().ready().await.unwrap().send_request(head, false).unwrap();
    (questions, answer)
}

#[test]
fn grpc_calls_and_streams_go_through() {
    let (_world, _a, _b, _serving, forwarding) = joined(grpc_service());
    let at = forwarding.at[0].clone();
    runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for number in 0..100 {
            let (mut questions, answer) = call(&client, "/test.Shout/Each").await;
            questions.send_data(framed(format!("call {number}").as_bytes()), true).unwrap();
            let mut answers = Messages::of(answer.await.unwrap().into_body());
            assert_eq!(answers.next().await.unwrap(), format!("CALL {number}").as_bytes());
            assert_eq!((answers.next().await, answers.status().await.as_str()), (None, "0"));
        }
        let (mut questions, answer) = call(&client, "/test.Shout/None").await;
        questions.send_data(framed(b"x"), true).unwrap();
        let mut refused = Messages::of(answer.await.unwrap().into_body());
        assert_eq!((refused.next().await, refused.status().await.as_str()), (None, "12"));

        // Each answer comes before the next question: both directions are open all the time, and the call beside it.
        let (mut questions, answer) = call(&client, "/test.Shout/Each").await;
        let (mut beside, its_answer) = call(&client, "/test.Shout/Each").await;
        let mut answers = Messages::of(answer.await.unwrap().into_body());
        for number in 0..100 {
            questions.send_data(framed(format!("word {number}").as_bytes()), number == 99).unwrap();
            assert_eq!(answers.next().await.unwrap(), format!("WORD {number}").as_bytes());
        }
        assert_eq!((answers.next().await, answers.status().await.as_str()), (None, "0"));
        beside.send_data(framed(b"last"), true).unwrap();
        let mut answers = Messages::of(its_answer.await.unwrap().into_body());
        assert_eq!(answers.next().await.unwrap(), b"LAST");
    });
}

fn websocket_service() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    in_background(move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    address
}

#[test]
fn a_websocket_carries_messages_both_ways_and_closes_in_order() {
    let (_world, a, _b, _serving, forwarding) = joined(websocket_service());
    let proxy = Door::open(&a, &["proxy", "--http", "127.0.0.1:0"], 1);
    let converse = |at: String, url: &'static str| {
        runtime().block_on(async move {
            let stream = tokio::net::TcpStream::connect(at).await.unwrap();
            let (mut socket, answer) = tokio_tungstenite::client_async(url, stream).await.unwrap();
            assert_eq!(answer.status(), 101);
            let large = vec![7; 1 << 20];
            for message in [Message::text("hello"), Message::binary(large), Message::text("")] {
                socket.send(message.clone()).await.unwrap();
                assert_eq!(socket.next().await.unwrap().unwrap(), message);
            }
            socket.close(None).await.unwrap();
            assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
            assert!(socket.next().await.is_none_or(|end| end.is_err()));
        });
    };
    converse(forwarding.at[0].clone(), "ws://agent-b/");
    // A proxy may be asked for a WebSocket as for any page: by the whole address in the first line.
    converse(proxy_for_websockets(&proxy.at[0]), "ws://agent-b.pilot/");
}

/// Where a client that knows nothing of proxies talks to one: the first line is made what a proxy wants.
fn proxy_for_websockets(proxy: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let proxy = proxy.to_owned();
    in_background(move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(proxy).await.unwrap();
        near.read_exact(&mut [0; 5]).await.unwrap();
        far.write_all(b"GET http://agent-b.pilot/").await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
    });
    address
}

/// An agent as the A2A protocol describes it (JSON-RPC binding): its card, and tasks that it takes.
fn a2a_agent() -> SocketAddr {
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
        let answer = match call["method"].as_str() {
            Some("message/send") => json!({ "result": {
                "kind": "task", "id": "task-1", "contextId": "context-1", "status": { "state": "completed" },
                "artifacts": [{ "artifactId": "count",
                    "parts": [{ "kind": "text", "text": text.split_whitespace().count().to_string() }] }],
            }}),
            _ => json!({ "error": { "code": -32601, "message": "Method not found" } }),
        };
        let mut answer = answer;
        (answer["jsonrpc"], answer["id"]) = (json!("2.0"), call["id"].clone());
        Json(answer)
    };
    site(Router::new().route("/.well-known/agent-card.json", get(card)).route("/a2a", post(call)))
}

#[test]
fn an_a2a_agent_is_found_by_its_card_and_given_a_task_at_the_address_in_it() {
    let (_world, a, _b, _serving, _forwarding) = joined(a2a_agent());
    let proxy = Door::open(&a, &["proxy", "--socks5", "127.0.0.1:0", "--http", "127.0.0.1:0"], 2);
    for through in [["--socks5-hostname", proxy.at[0].as_str()], ["--proxy", proxy.at[1].as_str()]] {
        let get = |words: &[&str]| -> Value {
            let done = curl(&[&through[..], words].concat());
            serde_json::from_str(&done.body).unwrap_or_else(|error| panic!("{error}: {done:?}"))
        };
        let card = get(&["http://agent-b.pilot/.well-known/agent-card.json"]);
        assert_eq!(
            (card["name"].as_str(), card["preferredTransport"].as_str()),
            (Some("Counter"), Some("JSONRPC"))
        );
        let call = |method: &str| {
            let call = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": { "message": {
                "kind": "message", "role": "user", "messageId": "m-1",
                "parts": [{ "kind": "text", "text": "three words here" }] } } });
            get(&["--json", &call.to_string(), card["url"].as_str().unwrap()])
        };
        let task = call("message/send");
        assert_eq!(
            (&task["id"], &task["result"]["status"]["state"]),
            (&json!(7), &json!("completed")),
            "{task}"
        );
        assert_eq!(task["result"]["artifacts"][0]["parts"][0]["text"], "3");
        assert_eq!(call("no/such")["error"]["code"], -32601);
    }
}
