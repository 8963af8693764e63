//! The beacon over the web, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    client::{Client, Server, local, receive, udp},
    identity,
};
use futures_util::{SinkExt, StreamExt};
use pilot_crypto::Identity;
use pilot_rendezvous::{CertificateSource, Config, Web, WebLimits, WebListen, WebTls, registry::Rate};
use pilot_wire::{
    NodeId,
    beacon::Message,
    web::{Greeting, MESSAGE_MAX, PATH, SUBPROTOCOL, signed_text},
};
use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self, Message as Frame,
        client::IntoClientRequest,
        http::{HeaderValue, StatusCode},
        protocol::frame::coding::CloseCode,
    },
};

/// How long an answer may take before the test fails; machines under load are slow.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(folder: &TempDir, limits: WebLimits) -> Config {
    let listen = WebListen::At("127.0.0.1:0".parse().unwrap());
    let mut config = local(&folder.path().join("registry.redb"));
    config.web = Some(Web { listen, tls: WebTls::Off, limits });
    // These are about the limits of the web: what a node may have relayed is not to come before them.
    config.beacon.relay.bytes = Rate { burst: u32::MAX, per_second: 1e12 };
    config
}

struct World {
    server: Server,
    _folder: TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(WebLimits::default())
    }

    fn with(limits: WebLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::start(config(&folder, limits));
        Self { server, _folder: folder }
    }

    fn web(&self) -> SocketAddr {
        self.server.bound.web.unwrap().addr
    }

    fn register(&self, number: u8) -> (Identity, NodeId) {
        let client = Client::registered(self.server.bound.registry, identity(number));
        (client.identity.clone(), client.id)
    }

    /// A node that is registered and on the web.
    async fn visitor(&self, number: u8) -> (Visitor, NodeId) {
        let (identity, node) = self.register(number);
        let mut visitor = Visitor::proven(self.web(), &identity, node).await;
        // The beacon hears of it after the visitor does; what follows over UDP must not overtake that.
        visitor.settled().await;
        (visitor, node)
    }

    /// A node that is registered and at the beacon over UDP.
    fn neighbour(&self, number: u8) -> (UdpSocket, NodeId) {
        let (_, node) = self.register(number);
        let socket = udp();
        socket.connect(self.server.bound.beacon).unwrap();
        socket.send(&emitted(&Message::Discover { node, key: None, proof: None })).unwrap();
        receive(&socket);
        (socket, node)
    }
}

fn emitted(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
struct Closed(Option<CloseCode>, String);

struct Visitor(WebSocketStream<TcpStream>);

impl Visitor {
    async fn connect(web: SocketAddr) -> Self {
        let mut request = format!("ws://{web}{PATH}").into_client_request().unwrap();
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let stream = TcpStream::connect(web).await.unwrap();
        let (socket, response) = client_async(request, stream).await.unwrap();
        assert_eq!(response.headers().get("Sec-WebSocket-Protocol").unwrap(), SUBPROTOCOL);
        Self(socket)
    }

    async fn challenge(&mut self) -> (String, u64) {
        match self.next().await.unwrap() {
            Frame::Text(text) => match Greeting::parse(&text).unwrap() {
                Greeting::AuthChallenge { nonce, ts } => (nonce, ts),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    async fn reply(&mut self, identity: &Identity, node: NodeId, signed: &str) {
        let sig = identity.sign(signed.as_bytes());
        let reply = Greeting::AuthReply { node_id: node, public_key: identity.public(), sig };
        self.0.send(Frame::text(reply.to_text())).await.unwrap();
    }

    async fn proven(web: SocketAddr, identity: &Identity, node: NodeId) -> Self {
        let mut visitor = Self::connect(web).await;
        let (nonce, ts) = visitor.challenge().await;
        visitor.reply(identity, node, &signed_text(node, ts, &nonce)).await;
        assert_eq!(visitor.next().await, Ok(Frame::text(r#"{"type":"auth_ok"}"#)));
        visitor
    }

    async fn send(&mut self, message: &Message<'_>) {
        self.0.send(Frame::binary(emitted(message))).await.unwrap();
    }

    async fn next(&mut self) -> Result<Frame, Closed> {
        let next = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("something comes");
        match next {
            Some(Ok(Frame::Close(Some(frame)))) => Err(Closed(Some(frame.code), frame.reason.to_string())),
            Some(Ok(frame)) => Ok(frame),
            Some(Err(_)) | None => Err(Closed(None, String::new())),
        }
    }

    async fn message(&mut self) -> Vec<u8> {
        match self.next().await.unwrap() {
            Frame::Binary(message) => message.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    /// Returns when the beacon has dealt with everything that was sent before.
    async fn settled(&mut self) {
        self.send(&Message::Discover { node: NodeId::UNSET, key: None, proof: None }).await;
        let reply = self.message().await;
        assert!(matches!(Message::parse(&reply), Ok(Message::DiscoverReply(_))), "{reply:?}");
    }
}

#[tokio::test]
async fn frames_are_relayed_both_ways_between_the_web_and_udp_and_on_the_web() {
    let world = World::new();
    let (mut a, node_a) = world.visitor(1).await;
    let (b, node_b) = world.neighbour(2);
    let (mut c, node_c) = world.visitor(3).await;
    a.send(&Message::Relay { source: node_a, destination: node_b, frame: b"PILSto b" }).await;
    assert_eq!(receive(&b), emitted(&Message::RelayDeliver { source: node_a, frame: b"PILSto b" }));
    b.send(&emitted(&Message::Relay { source: node_b, destination: node_a, frame: b"PILSto a" })).unwrap();
    assert_eq!(a.message().await, emitted(&Message::RelayDeliver { source: node_b, frame: b"PILSto a" }));
    a.send(&Message::Relay { source: node_a, destination: node_c, frame: b"PILSto c" }).await;
    assert_eq!(c.message().await, emitted(&Message::RelayDeliver { source: node_a, frame: b"PILSto c" }));
}

#[tokio::test]
async fn nobody_is_believed_who_does_not_sign_this_challenge_with_the_key_of_the_node() {
    let world = World::new();
    let (a, node_a) = world.register(1);
    let (b, _) = world.register(2);
    let refused = |text: &str| Err(Closed(Some(CloseCode::Policy), text.to_owned()));
    let (mut old_nonce, mut old_ts) = (String::new(), 0);
    for (identity, node, text) in [
        (&a, node_a, ""),
        (&b, node_a, "node 1 has another key"),
        (&a, NodeId(99), "node 99 is not registered here"),
        (&a, node_a, "the signature is not right"),
    ] {
        let mut visitor = Visitor::connect(world.web()).await;
        let (nonce, ts) = visitor.challenge().await;
        assert_ne!(nonce, old_nonce);
        let signed = match text {
            // What was right on another connection is not on this one.
            "the signature is not right" => signed_text(node, old_ts, &old_nonce),
            _ => signed_text(node, ts, &nonce),
        };
        visitor.reply(identity, node, &signed).await;
        match text {
            "" => assert_eq!(visitor.next().await, Ok(Frame::text(r#"{"type":"auth_ok"}"#))),
            text => assert_eq!(visitor.next().await, refused(text)),
        }
        (old_nonce, old_ts) = (nonce, ts);
    }
}

#[tokio::test]
async fn what_is_no_proof_ends_the_connection() {
    let world = World::new();
    for frame in [
        Frame::text("hello"),
        Frame::text(r#"{"type":"auth_ok"}"#),
        Frame::text("x".repeat(60_000)),
        Frame::binary(emitted(&Message::Discover { node: NodeId(1), key: None, proof: None })),
    ] {
        let mut visitor = Visitor::connect(world.web()).await;
        visitor.challenge().await;
        visitor.0.send(frame).await.unwrap();
        let end = visitor.next().await;
        assert!(matches!(&end, Err(Closed(Some(CloseCode::Policy), _))), "{end:?}");
    }
}

#[tokio::test]
async fn who_takes_too_long_to_prove_it_is_turned_away() {
    let world = World::with(WebLimits { auth: Duration::from_millis(1500), ..WebLimits::default() });
    let mut visitor = Visitor::connect(world.web()).await;
    visitor.challenge().await;
    let text = "it took too long to prove who it is".to_owned();
    assert_eq!(visitor.next().await, Err(Closed(Some(CloseCode::Policy), text)));
    // Nor does it help to say nothing at all.
    let mut silent = TcpStream::connect(world.web()).await.unwrap();
    let mut nothing = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut nothing);
    assert_eq!(tokio::time::timeout(PATIENCE, read).await.expect("it ends").unwrap(), 0);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_let_go() {
    let world = World::with(WebLimits { idle: Duration::from_millis(300), ..WebLimits::default() });
    let (mut visitor, _) = world.visitor(1).await;
    assert_eq!(
        visitor.next().await,
        Err(Closed(Some(CloseCode::Away), "nothing was heard for too long".to_owned()))
    );
}

#[tokio::test]
async fn a_second_connection_of_a_node_replaces_the_first() {
    let world = World::new();
    let (b, node_b) = world.neighbour(2);
    let (identity, node) = world.register(1);
    let mut first = Visitor::proven(world.web(), &identity, node).await;
    let mut second = Visitor::proven(world.web(), &identity, node).await;
    let end = Closed(Some(CloseCode::Normal), "the node is on another connection".to_owned());
    assert_eq!(first.next().await, Err(end));
    b.send(&emitted(&Message::Relay { source: node_b, destination: node, frame: b"x" })).unwrap();
    assert_eq!(second.message().await, emitted(&Message::RelayDeliver { source: node_b, frame: b"x" }));
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_connection_and_the_largest_does_not() {
    let world = World::new();
    let (mut a, node_a) = world.visitor(1).await;
    let (mut b, node_b) = world.visitor(2).await;
    let frame = vec![7; MESSAGE_MAX - 9];
    a.send(&Message::Relay { source: node_a, destination: node_b, frame: &frame }).await;
    assert_eq!(b.message().await, emitted(&Message::RelayDeliver { source: node_a, frame: &frame }));
    a.0.send(Frame::binary(vec![5; MESSAGE_MAX + 1])).await.unwrap();
    assert!(a.next().await.is_err());
    b.settled().await;
}

#[tokio::test]
async fn text_after_the_greeting_ends_the_connection() {
    let world = World::new();
    let (mut a, _) = world.visitor(1).await;
    a.0.send(Frame::text("hello")).await.unwrap();
    let end = Closed(Some(CloseCode::Policy), "binary messages are expected".to_owned());
    assert_eq!(a.next().await, Err(end));
}

#[tokio::test]
async fn who_does_not_read_loses_its_own_frames_and_nobody_elses() {
    let limits = WebLimits { write: Duration::from_secs(1), ..WebLimits::default() };
    let world = World::with(limits);
    let (_deaf, node_deaf) = world.visitor(1).await;
    let (mut good, node_good) = world.visitor(2).await;
    let (mut sender, node_sender) = world.visitor(3).await;
    // Far more than the sockets' buffers and the queue hold.
    let frame = vec![7; 60_000];
    for _ in 0..1000 {
        let relay = Message::Relay { source: node_sender, destination: node_deaf, frame: &frame };
        sender.send(&relay).await;
    }
    sender.send(&Message::Relay { source: node_sender, destination: node_good, frame: b"here" }).await;
    let expected = emitted(&Message::RelayDeliver { source: node_sender, frame: b"here" });
    assert_eq!(good.message().await, expected);
    sender.settled().await;
}

#[tokio::test]
async fn a_claim_over_udp_takes_nothing_from_who_is_on_the_web() {
    let world = World::new();
    let (b, node_b) = world.neighbour(2);
    let (mut a, node_a) = world.visitor(1).await;
    let impostor = udp();
    impostor.connect(world.server.bound.beacon).unwrap();
    impostor.send(&emitted(&Message::Discover { node: node_a, key: None, proof: None })).unwrap();
    receive(&impostor);
    impostor
        .send(&emitted(&Message::Relay { source: node_a, destination: node_b, frame: b"false" }))
        .unwrap();
    impostor.send(&emitted(&Message::Discover { node: NodeId::UNSET, key: None, proof: None })).unwrap();
    receive(&impostor);
    b.send(&emitted(&Message::Relay { source: node_b, destination: node_a, frame: b"for a" })).unwrap();
    assert_eq!(a.message().await, emitted(&Message::RelayDeliver { source: node_b, frame: b"for a" }));
    a.send(&Message::Relay { source: node_a, destination: node_b, frame: b"true" }).await;
    assert_eq!(receive(&b), emitted(&Message::RelayDeliver { source: node_a, frame: b"true" }));
}

#[tokio::test]
async fn when_connections_run_out_strangers_go_and_nodes_stay() {
    let world = World::with(WebLimits { max: 2, ..WebLimits::default() });
    let (mut a, _) = world.visitor(1).await;
    let mut stranger = Visitor::connect(world.web()).await;
    stranger.challenge().await;
    let (mut b, _) = world.visitor(2).await;
    assert!(stranger.next().await.is_err(), "it made room");
    a.settled().await;
    b.settled().await;
    // There is nobody left to go.
    let mut refused = TcpStream::connect(world.web()).await.unwrap();
    let mut nothing = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut refused, &mut nothing);
    assert_eq!(tokio::time::timeout(PATIENCE, read).await.expect("it ends").unwrap_or(0), 0);
    drop(a);
    let (identity, node) = world.register(3);
    // The place is free as soon as the end was noticed.
    let mut admitted = false;
    for _ in 0..400 {
        let stream = TcpStream::connect(world.web()).await.unwrap();
        if client_async(format!("ws://{}{PATH}", world.web()), stream).await.is_ok() {
            admitted = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(admitted);
    drop((identity, node));
}

#[tokio::test]
async fn there_is_one_path() {
    let world = World::new();
    let stream = TcpStream::connect(world.web()).await.unwrap();
    match client_async(format!("ws://{}/v2/compat", world.web()), stream).await {
        Err(tungstenite::Error::Http(response)) => assert_eq!(response.status(), StatusCode::NOT_FOUND),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_handshake_is_announced_over_the_web() {
    let world = World::new();
    let (mut a, node_a) = world.visitor(1).await;
    a.settled().await;
    let mut asker = Client::registered(world.server.bound.registry, identity(2));
    let request =
        pilot_wire::registry::Handshake { from_node_id: asker.id, to_node_id: node_a, ..Default::default() };
    asker.ask(pilot_wire::registry::Request::RequestHandshake(request));
    assert_eq!(a.message().await, [0x0A, 0x01]);
}

#[test]
fn beside_the_beacon_a_port_that_is_taken_does_not_matter_and_one_that_was_asked_for_does() {
    let folder = tempfile::tempdir().unwrap();
    let ports = pilot_ports::Ports::reserve();
    let _taken = std::net::TcpListener::bind(ports.web()).unwrap();
    let mut asked = config(&folder, WebLimits::default());
    asked.web.as_mut().unwrap().listen = WebListen::At(ports.web());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(pilot_rendezvous::run(asked.clone(), |_| (), async {})).unwrap_err();
    assert_eq!(error.code(), "already_exists");
    assert!(error.hint().unwrap().contains("--web-listen"));
    asked.web.as_mut().unwrap().listen = WebListen::Beside;
    asked.beacon_addr = ports.beacon();
    runtime
        .block_on(pilot_rendezvous::run(
            asked,
            |bound| {
                assert_eq!(bound.web, None);
                let missing = bound.web_missing.unwrap();
                assert_eq!((missing.addr, missing.why), (ports.web(), ErrorKind::AddrInUse));
            },
            async {},
        ))
        .unwrap();
}

#[test]
fn a_rendezvous_tells_the_fingerprint_of_its_certificate_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder, WebLimits::default());
    config.web.as_mut().unwrap().tls =
        WebTls::On(CertificateSource::Own { folder: folder.path().to_owned() });
    let first = Server::start(config.clone()).bound.web.unwrap().fingerprint;
    assert!(first.is_some());
    assert_eq!(Server::start(config).bound.web.unwrap().fingerprint, first);
}
