//! A rendezvous and a beacon of its that runs apart, over real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test that meets what it does not expect must fail, and says what it met"
)]

mod common;

use common::{
    client::{Client, Server, local, receive, udp},
    identity, pair,
};
use pilot_rendezvous::{BeaconConfig, BoundBeacon, RegistryTrust, RunError, beacon, run_beacon};
use pilot_wire::{
    NodeId,
    beacon::{DiscoverProof, Message},
    registry::{BeaconLink, Request, Response},
};
use std::{
    net::{SocketAddr, UdpSocket},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::oneshot;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(registry: SocketAddr) -> BeaconConfig {
    BeaconConfig {
        registries: vec![registry.to_string()],
        admin_token: String::new(),
        registry_trust: RegistryTrust::Authorities,
        beacon_addr: "127.0.0.1:0".parse().unwrap(),
        beacon_id: Some(77),
        beacon_advertise: None,
        second_beacon_ip: None,
        beacon: beacon::Config::default(),
        web: None,
    }
}

/// A beacon in a thread of its own, stopped when dropped.
struct Outpost {
    bound: BoundBeacon,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), RunError>>>,
}

impl Outpost {
    fn start(config: BeaconConfig) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, bound) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shutdown = async {
                let _ = stopped.await;
            };
            runtime.block_on(run_beacon(config, |bound| ready.send(bound).unwrap(), shutdown))
        });
        let bound = bound.recv().expect("it starts");
        Self { bound, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Outpost {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

fn emitted(message: &Message<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    message.emit(&mut out);
    out
}

/// A socket that this beacon knows as the node's.
fn at_beacon(beacon: SocketAddr, node: NodeId) -> UdpSocket {
    let socket = udp();
    socket.connect(beacon).unwrap();
    socket.send(&emitted(&Message::Discover { node, key: None, proof: None })).unwrap();
    assert_eq!(Message::parse(&receive(&socket)), Ok(Message::DiscoverReply(socket.local_addr().unwrap())));
    socket
}

/// Sends the message again and again until this kind of one arrives at the other end.
fn until(from: &UdpSocket, message: &[u8], to: &UdpSocket, kind: u8) -> Vec<u8> {
    let begin = Instant::now();
    to.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [0; 2048];
    while begin.elapsed() < PATIENCE {
        from.send(message).unwrap();
        while let Ok(length) = to.recv(&mut buffer) {
            if buffer[0] == kind {
                return buffer[..length].to_vec();
            }
        }
    }
    panic!("nothing of kind {kind:02x} arrived");
}

fn world() -> (TempDir, Server, Outpost) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(local(&folder.path().join("registry.redb")));
    let outpost = Outpost::start(config(server.bound.registry));
    (folder, server, outpost)
}

#[test]
fn nodes_at_two_beacons_reach_each_other_and_are_introduced_if_they_trust_each_other() {
    let (_folder, server, outpost) = world();
    let mut a = Client::registered(server.bound.registry, identity(1));
    let mut b = Client::registered(server.bound.registry, identity(2));
    let socket_a = at_beacon(server.bound.beacon, a.id);
    let socket_b = at_beacon(outpost.bound.beacon, b.id);
    let frame = |source, destination| emitted(&Message::Relay { source, destination, frame: b"PILSx" });
    let deliver = |source| emitted(&Message::RelayDeliver { source, frame: b"PILSx" });
    assert_eq!(until(&socket_a, &frame(a.id, b.id), &socket_b, 0x06), deliver(a.id));
    assert_eq!(until(&socket_b, &frame(b.id, a.id), &socket_a, 0x06), deliver(b.id));

    // The one asks its registry in memory, the other over the network.
    assert!(matches!(a.ask(Request::ReportTrust(pair(a.id, b.id))), Response::ReportTrust {}));
    assert!(matches!(b.ask(Request::ReportTrust(pair(b.id, a.id))), Response::ReportTrust {}));
    let command = |socket: &UdpSocket| emitted(&Message::PunchCommand(socket.local_addr().unwrap()));
    for (requester, target, from, to) in [(&a, &b, &socket_a, &socket_b), (&b, &a, &socket_b, &socket_a)] {
        let punch =
            emitted(&Message::PunchRequest { requester: requester.id, target: target.id, grant: None });
        assert_eq!(until(from, &punch, to, 0x04), command(from));
        from.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut told = receive(from);
        while told[0] != 0x04 {
            told = receive(from);
        }
        assert_eq!(told, command(to));
    }
}

#[test]
fn strangers_at_two_beacons_are_not_introduced() {
    let (_folder, server, outpost) = world();
    let a = Client::registered(server.bound.registry, identity(1));
    let b = Client::registered(server.bound.registry, identity(2));
    let socket_a = at_beacon(server.bound.beacon, a.id);
    let socket_b = at_beacon(outpost.bound.beacon, b.id);
    let frame = emitted(&Message::Relay { source: b.id, destination: a.id, frame: b"PILSx" });
    until(&socket_b, &frame, &socket_a, 0x06);
    let punch = emitted(&Message::PunchRequest { requester: b.id, target: a.id, grant: None });
    socket_b.send(&punch).unwrap();
    // A question that is put later is answered later: whoever it is about is introduced to itself by nobody, but B's key
    // comes with it.
    let key = Some(b.identity.public());
    let discover = emitted(&Message::Discover { node: b.id, key, proof: None });
    until(&socket_b, &discover, &socket_b, 0x0E);
    until(&socket_b, &frame, &socket_a, 0x06);
    socket_a.set_nonblocking(true).unwrap();
    let mut buffer = [0; 2048];
    while let Ok(length) = socket_a.recv(&mut buffer) {
        assert_eq!(buffer[0], 0x06, "{:?}", &buffer[..length]);
    }
}

#[test]
fn a_beacon_apart_has_a_node_prove_who_it_is_and_it_is_found_there() {
    let (_folder, server, outpost) = world();
    let a = Client::registered(server.bound.registry, identity(1));
    let b = Client::registered(server.bound.registry, identity(2));
    let socket_a = at_beacon(server.bound.beacon, a.id);
    let prove = |socket: &UdpSocket| {
        let key = Some(b.identity.public());
        let discover = emitted(&Message::Discover { node: b.id, key, proof: None });
        let asked = until(socket, &discover, socket, 0x0E);
        let Ok(Message::Challenge { nonce }) = Message::parse(&asked) else { panic!("{asked:?}") };
        let signature = b.identity.sign(&DiscoverProof::signed_bytes(b.id, &nonce));
        let proof = Some(DiscoverProof { nonce, signature });
        until(socket, &emitted(&Message::Discover { node: b.id, key, proof }), socket, 0x02);
    };
    let frame = emitted(&Message::Relay { source: a.id, destination: b.id, frame: b"PILSx" });
    // First at the beacon of the rendezvous, then at the other one.
    let before = udp();
    before.connect(server.bound.beacon).unwrap();
    prove(&before);
    until(&socket_a, &frame, &before, 0x06);
    let after = udp();
    after.connect(outpost.bound.beacon).unwrap();
    // As nodes do, it says again where it is: which of two claims within a few milliseconds is the later one, beacons
    // cannot tell.
    prove(&after);
    let begin = Instant::now();
    after.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let discover = emitted(&Message::Discover { node: b.id, key: Some(b.identity.public()), proof: None });
    let is_delivered = || {
        after.send(&discover).unwrap();
        socket_a.send(&frame).unwrap();
        let mut buffer = [0; 2048];
        std::iter::from_fn(|| after.recv(&mut buffer).ok().map(|_| buffer[0])).any(|kind| kind == 0x06)
    };
    while !is_delivered() {
        assert!(begin.elapsed() < PATIENCE, "it is not found at its new beacon");
    }
}

#[test]
fn both_beacons_are_in_the_list_and_one_that_ended_leaves_nobody_unserved() {
    let (_folder, server, outpost) = world();
    let mut a = Client::registered(server.bound.registry, identity(1));
    let listed = |client: &mut Client| match client.ask(Request::BeaconList {}) {
        Response::BeaconList { beacons } => beacons.into_iter().map(|beacon| beacon.addr).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let both = listed(&mut a);
    for addr in [server.bound.beacon, outpost.bound.beacon] {
        assert!(both.contains(&addr.to_string()), "{both:?}");
    }
    let b = Client::registered(server.bound.registry, identity(2));
    let frame = emitted(&Message::Relay { source: a.id, destination: b.id, frame: b"PILSx" });
    let socket_a = at_beacon(server.bound.beacon, a.id);
    let socket_b = at_beacon(outpost.bound.beacon, b.id);
    until(&socket_a, &frame, &socket_b, 0x06);
    drop(outpost);
    // The node goes to the other one.
    let socket_b = at_beacon(server.bound.beacon, b.id);
    until(&socket_a, &frame, &socket_b, 0x06);
}

#[test]
fn the_secret_of_the_mesh_survives_a_restart_and_is_the_same_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let secret = || {
        let server = Server::start(local(&folder.path().join("registry.redb")));
        let mut client = Client::connect(server.bound.registry);
        let link = BeaconLink { beacon_id: 5, addr: "127.0.0.1:5".to_owned(), ..BeaconLink::default() };
        match client.ask(Request::BeaconLink(link)) {
            Response::BeaconLink(linked) => {
                assert_eq!(linked.beacons.len(), 1, "the one of the rendezvous");
                linked.mesh_secret
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(secret() == secret());
}

#[test]
fn a_beacon_goes_on_without_its_registry_and_starts_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(local(&folder.path().join("registry.redb")));
    let registry = server.bound.registry;
    let outpost = Outpost::start(config(registry));
    drop(server);
    let (a, b) = (NodeId(1), NodeId(2));
    let socket_a = at_beacon(outpost.bound.beacon, a);
    let socket_b = at_beacon(outpost.bound.beacon, b);
    let frame = emitted(&Message::Relay { source: a, destination: b, frame: b"PILSx" });
    until(&socket_a, &frame, &socket_b, 0x06);
    drop(outpost);
    let outpost = Outpost::start(config(registry));
    at_beacon(outpost.bound.beacon, a);
}

#[test]
fn a_beacon_tells_its_token_to_no_registry_but_the_one_whose_certificate_it_was_given() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(local(&folder.path().join("registry.redb")));
    let right = server.bound.registry_fingerprint;
    let trusting = |fingerprint| BeaconConfig {
        registry_trust: RegistryTrust::Fingerprints(vec![fingerprint]),
        ..config(server.bound.registry)
    };
    assert!(is_announced(&server, trusting(right)));
    assert!(!is_announced(&server, trusting([0; 32])), "somebody with another certificate got the token");
}

/// Whether the registry has heard of a beacon with these settings by the time it is ready.
fn is_announced(server: &Server, config: BeaconConfig) -> bool {
    let outpost = Outpost::start(config);
    let mut client = Client::registered(server.bound.registry, identity(1));
    let Response::BeaconList { beacons } = client.ask(Request::BeaconList {}) else { panic!() };
    beacons.iter().any(|beacon| beacon.addr == outpost.bound.beacon.to_string())
}
