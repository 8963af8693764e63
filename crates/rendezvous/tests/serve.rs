//! The rendezvous over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    about,
    client::{Client, Server, local, receive, udp},
    identity, pair,
};
use pilot_crypto::verify;
use pilot_rendezvous::{Config, RunError, run, store::StoreError};
use pilot_wire::{
    NodeId,
    beacon::Message,
    registry::{
        AwaitNotices, Envelope, Handshake, ListedNode, Request, Response, frame, seal::attestation_of,
    },
};
use std::net::{TcpStream, UdpSocket};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn server(folder: &TempDir) -> Server {
    Server::start(local(&folder.path().join("registry.redb")))
}

fn handshake(from_node_id: NodeId, to_node_id: NodeId) -> Request {
    Request::RequestHandshake(Handshake { from_node_id, to_node_id, ..Handshake::default() })
}

// The protocol on the socket.

#[test]
fn pipelined_requests_are_answered_in_order() {
    let folder = folder();
    let server = server(&folder);
    let mut client = Client::registered(server.bound.registry, identity(1));
    let mut frames = Vec::new();
    for node in [1, 99, 1] {
        let json = format!("{{\"type\":\"lookup\",\"node_id\":{node}}}");
        frames.extend(frame(json.as_bytes()).unwrap());
    }
    client.send_raw(&frames);
    assert!(matches!(client.receive(), Some(Response::Lookup(_))));
    assert!(matches!(client.receive(), Some(Response::Error { .. })));
    assert!(matches!(client.receive(), Some(Response::Lookup(_))));
}

#[test]
fn the_registry_attests_to_what_it_serves_when_asked_with_one_key_for_ever() {
    let folder = folder();
    let attested = || {
        let server = server(&folder);
        let mut client = Client::registered(server.bound.registry, identity(1));
        let envelope = Envelope { attest: true, ..Request::Lookup(about(client.id)).into() };
        client.send_raw(&frame(&envelope.to_json()).unwrap());
        let reply = client.receive_raw().unwrap();
        let (attestation, bytes) = attestation_of(&reply).unwrap().expect("it was asked for");
        assert!(verify(&attestation.key, &bytes, &attestation.signature));
        let altered = String::from_utf8(reply).unwrap().replace("\"public\":false", "\"public\":true");
        let (_, bytes) = attestation_of(altered.as_bytes()).unwrap().unwrap();
        assert!(!verify(&attestation.key, &bytes, &attestation.signature));
        client.send(Request::Lookup(about(client.id)));
        assert_eq!(attestation_of(&client.receive_raw().unwrap()).unwrap(), None, "nobody asked");
        attestation.key
    };
    assert_eq!(attested(), attested());
}

#[test]
fn nonsense_ends_its_connection_and_unknown_requests_do_not() {
    let folder = folder();
    let server = server(&folder);
    for bytes in [
        frame(b"[1,2]").unwrap(),
        frame(b"{bad").unwrap(),
        b"\0\0\0\0".to_vec(),
        b"\0\x10\0\x01".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
    ] {
        let mut client = Client::connect(server.bound.registry);
        client.send_raw(&bytes);
        assert_eq!(client.receive(), None, "{bytes:?}");
    }
    let mut client = Client::connect(server.bound.registry);
    for json in
        ["null", "{}", "{\"type\":\"frobnicate\"}", "{\"type\":\"lookup\",\"node_id\":1,\"node_id\":2}"]
    {
        client.send_raw(&frame(json.as_bytes()).unwrap());
        assert!(matches!(client.receive(), Some(Response::Error { .. })), "{json}");
    }
}

#[test]
fn a_frame_of_the_greatest_length_is_taken() {
    let folder = folder();
    let server = server(&folder);
    let mut client = Client::registered(server.bound.registry, identity(1));
    let mut json = b"{\"type\":\"lookup\",\"node_id\":1}".to_vec();
    json.resize(pilot_wire::registry::MAX_FRAME, b' ');
    client.send_raw(&frame(&json).unwrap());
    assert!(matches!(client.receive(), Some(Response::Lookup(_))));
}

// Clients that behave badly.

#[test]
fn clients_that_stall_cost_their_own_connection() {
    let folder = folder();
    let server = server(&folder);
    // Half a frame; nothing at all; requests without ever reading a reply.
    let mut half = Client::connect(server.bound.registry);
    half.send_raw(&[0, 0, 1, 0, b'{']);
    let _silent = Client::connect(server.bound.registry);
    let mut deaf = Client::connect(server.bound.registry);
    deaf.stream.set_nonblocking(true).unwrap();
    let requests = frame(b"{\"type\":\"list_networks\"}").unwrap().repeat(2000);
    while std::io::Write::write(&mut deaf.stream, &requests).is_ok() {}
    let mut client = Client::registered(server.bound.registry, identity(1));
    assert!(client.is_served());
}

#[test]
fn when_connections_run_out_the_silent_strangers_go_first() {
    let folder = folder();
    let mut config = local(&folder.path().join("registry.redb"));
    config.connections.max = 4;
    let server = Server::start(config);
    let mut known = Client::registered(server.bound.registry, identity(1));
    let mut strangers: Vec<Client> = Vec::new();
    for _ in 0..8 {
        let mut stranger = Client::connect(server.bound.registry);
        assert!(
            matches!(stranger.ask(Request::BeaconList {}), Response::BeaconList { .. }),
            "newcomers get in"
        );
        strangers.push(stranger);
    }
    assert!(known.is_served());
    assert_eq!(strangers[0].receive(), None, "the first stranger had to go");
}

#[test]
fn a_client_that_is_idle_is_disconnected() {
    let folder = folder();
    let mut config = local(&folder.path().join("registry.redb"));
    config.connections.idle = std::time::Duration::from_millis(50);
    let server = Server::start(config);
    let mut client = Client::connect(server.bound.registry);
    assert_eq!(client.receive(), None);
}

// Starting.

fn starts(config: Config) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(run(config, |_| (), async {}))
}

#[test]
fn of_two_with_one_address_or_one_store_the_second_fails_clearly() {
    let folder = folder();
    let store = folder.path().join("registry.redb");
    let server = Server::start(local(&store));
    let same_store = starts(local(&store)).unwrap_err();
    assert!(matches!(same_store, RunError::Store(StoreError::Locked { .. })), "{same_store}");
    assert_eq!(same_store.code(), "already_exists");
    let other = folder.path().join("other.redb");
    let same_addr = Config { registry_addr: server.bound.registry, ..local(&other) };
    let same_addr = starts(same_addr).unwrap_err();
    assert!(matches!(&same_addr, RunError::Bind { what: "registry", .. }), "{same_addr}");
    assert_eq!(same_addr.code(), "already_exists");
    assert!(!other.exists(), "it has touched nothing");
}

#[test]
fn a_damaged_store_is_not_started_with() {
    let folder = folder();
    let store = folder.path().join("registry.redb");
    std::fs::write(&store, b"not a store at all, but long enough to be looked at".repeat(100)).unwrap();
    let before = std::fs::read(&store).unwrap();
    let error = starts(local(&store)).unwrap_err();
    assert_eq!(error.code(), "store_unusable");
    assert!(error.to_string().contains("left untouched"), "{error}");
    assert_eq!(std::fs::read(&store).unwrap(), before);
}

// Notices and introductions.

#[test]
fn a_handshake_reaches_a_waiting_node_at_once_and_by_both_ways() {
    let folder = folder();
    let server = server(&folder);
    let mut asker = Client::registered(server.bound.registry, identity(1));
    let target = Client::registered(server.bound.registry, identity(2));
    let socket = at_beacon(&server, target.id);
    let mut ear = Client::connect(server.bound.registry);
    ear.identity = target.identity.clone();
    let wait = AwaitNotices { node_id: target.id, timeout_ms: 240_000, ..AwaitNotices::default() };
    ear.send(Request::AwaitNotices(wait));
    // The registry has the request once it answers a later one.
    let mut later = Client::connect(server.bound.registry);
    later.ask(Request::BeaconList {});
    assert!(matches!(asker.ask(handshake(asker.id, target.id)), Response::RequestHandshake { .. }));
    assert_eq!(ear.receive(), Some(common::notices(true)));
    assert_eq!(receive(&socket), [0x0A, 0x01]);
}

#[test]
fn a_node_that_stops_waiting_is_not_waited_for() {
    let folder = folder();
    let server = server(&folder);
    let target = Client::registered(server.bound.registry, identity(2));
    for _ in 0..20 {
        let mut ear = Client::connect(server.bound.registry);
        ear.identity = target.identity.clone();
        let wait = AwaitNotices { node_id: target.id, timeout_ms: 240_000, ..AwaitNotices::default() };
        ear.send(Request::AwaitNotices(wait));
    }
    let mut client = Client::registered(server.bound.registry, identity(1));
    assert!(client.is_served());
}

/// A socket that the beacon knows as the node's.
fn at_beacon(server: &Server, node: NodeId) -> UdpSocket {
    let socket = udp();
    socket.connect(server.bound.beacon).unwrap();
    let mut discover = Vec::new();
    Message::Discover { node, key: None, proof: None }.emit(&mut discover);
    socket.send(&discover).unwrap();
    assert_eq!(Message::parse(&receive(&socket)), Ok(Message::DiscoverReply(socket.local_addr().unwrap())));
    socket
}

#[test]
fn the_beacon_introduces_those_who_trust_each_other() {
    let folder = folder();
    let server = server(&folder);
    let mut a = Client::registered(server.bound.registry, identity(1));
    let mut b = Client::registered(server.bound.registry, identity(2));
    let (socket_a, socket_b) = (at_beacon(&server, a.id), at_beacon(&server, b.id));
    let mut punch = Vec::new();
    Message::PunchRequest { requester: a.id, target: b.id, grant: None }.emit(&mut punch);
    let mut relay = Vec::new();
    Message::Relay { source: a.id, destination: b.id, frame: b"PILSx" }.emit(&mut relay);
    // Refused; the relayed frame behind it shows that it was dealt with.
    socket_a.send(&punch).unwrap();
    socket_a.send(&relay).unwrap();
    assert_eq!(receive(&socket_b), b"\x06\0\0\0\x01PILSx");
    assert!(matches!(a.ask(Request::ReportTrust(pair(a.id, b.id))), Response::ReportTrust {}));
    assert!(matches!(b.ask(Request::ReportTrust(pair(b.id, a.id))), Response::ReportTrust {}));
    socket_a.send(&punch).unwrap();
    let told = |socket: &UdpSocket| match Message::parse(&receive(socket)).unwrap() {
        Message::PunchCommand(addr) => addr,
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&socket_a), socket_b.local_addr().unwrap());
    assert_eq!(told(&socket_b), socket_a.local_addr().unwrap());
}

#[test]
fn many_clients_at_once_are_served_and_kept() {
    let folder = folder();
    let store = folder.path().join("registry.redb");
    let server = Server::start(local(&store));
    let registry = server.bound.registry;
    let threads: Vec<_> = (0..8_u8)
        .map(|thread| {
            std::thread::spawn(move || {
                let client = |seed: u8| Client::registered(registry, identity(thread * 25 + seed)).id;
                (0..25).map(client).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut ids: Vec<NodeId> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=200).map(NodeId).collect::<Vec<_>>());
    drop(server);
    let server = Server::start(local(&store));
    let mut admin = Client::connect(server.bound.registry);
    let query = r#"{"type":"list_nodes","network_id":0,"admin_token":"adm"}"#;
    admin.send_raw(&frame(query.as_bytes()).unwrap());
    let nodes: Vec<ListedNode> = match admin.receive() {
        Some(Response::ListNodes { nodes }) => nodes,
        other => panic!("{other:?}"),
    };
    assert_eq!(nodes.len(), 200);
    drop(TcpStream::connect(server.bound.registry).unwrap());
}
