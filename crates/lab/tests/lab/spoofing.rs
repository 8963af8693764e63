//! A third host lies to nodes, to the beacon and to the registry: ways that work do not change, and nobody is shot at.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::time::Duration;

use pilot_interop::Node;
use pilot_lab::Access::{self, FullCone, PortRestricted, Public, Symmetric};
use pilot_lab::Way::{self, Direct, Relay};
use pilot_lab::{BEACON, Host, Lab, REGISTRY, Site, Spoofer, agree, deliver, echo_by, endpoint, report};
use pilot_wire::beacon::{DiscoverProof, Message};
use pilot_wire::registry::frame;
use pilot_wire::{NodeId, PublicKey, Signature};
use serde_json::json;

/// The port of every daemon here, which the attacker knows.
const PORT: u16 = 4000;

/// How many times everything is sent.
const ROUNDS: u32 = 10;

/// What a node may send to an address that has never answered.
const SHOTS_MAX: usize = 3;

/// Bytes of a small datagram.
const SMALL: usize = 200;

/// What the attacker's frames end with.
const JUNK: [u8; 60] = [0x5A; 60];

/// How long the way is watched afterwards.
const WATCHED: Duration = Duration::from_secs(5);

#[test]
fn two_public_nodes() {
    withstands(Public, Public, Direct);
}

#[test]
fn two_nodes_behind_full_cones() {
    withstands(FullCone, FullCone, Direct);
}

#[test]
fn two_nodes_behind_port_restricted_nats() {
    withstands(PortRestricted, PortRestricted, Direct);
}

#[test]
fn two_relayed_nodes() {
    withstands(PortRestricted, Symmetric, Relay);
}

/// A pair that works, an attacker who knows both, and a bystander at whom they shall be made to shoot.
struct Scene {
    a: Node,
    b: Node,
    key_of_b: PublicKey,
    /// Where a and b are seen.
    outside: [SocketAddrV4; 2],
    bystander: UdpSocket,
    victim: SocketAddrV4,
    spoofer: Spoofer,
    attacker: UdpSocket,
    attacker_host: Host,
    /// Bytes that the beacon got in the bystander's name.
    asked: Cell<usize>,
}

fn withstands(first: Access, second: Access, way: Way) {
    let lab = Lab::open();
    let sites = [Site::build(&lab, "a", first), Site::build(&lab, "b", second)];
    let (bystander_host, attacker_host) = (lab.host("v"), lab.host("x"));
    let a = lab.ours_at(PORT, &sites[0].host, "a", &[]);
    let b = lab.ours_at(PORT, &sites[1].host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    deliver(&a, &b, "the first word");
    way.awaited([&a, &b]);
    let bystander = bystander_host.namespace().udp(bystander_host.address(), 9999);
    bystander.set_nonblocking(true).expect("a socket need not wait");
    let attacker = attacker_host.namespace().udp(attacker_host.address(), PORT);
    attacker.set_nonblocking(true).expect("a socket need not wait");
    let scene = Scene {
        key_of_b: b.ctl(&["info"])["public_key"]
            .as_str()
            .and_then(|key| key.parse().ok())
            .expect("b has a key"),
        outside: [outside(&sites[0]), outside(&sites[1])],
        victim: SocketAddrV4::new(bystander_host.address(), 9999),
        spoofer: Spoofer::open(&attacker_host),
        a,
        b,
        bystander,
        attacker,
        attacker_host,
        asked: Cell::new(0),
    };
    let before = [endpoint(&scene.a, &scene.b), endpoint(&scene.b, &scene.a)];
    for _ in 0..ROUNDS {
        scene.attack_node(0);
        scene.attack_node(1);
        scene.attack_beacon();
    }
    scene.attack_registry();
    let (a, b) = (&scene.a, &scene.b);
    deliver(a, b, "after the attack");
    deliver(b, a, "and back");
    echo_by(way, &lab, a, b, 1);
    way.stays([a, b], WATCHED);
    echo_by(way, &lab, b, a, 1);
    let after = [endpoint(a, b), endpoint(b, a)];
    assert_eq!(before, after, "the peers are where they were");
    let caught = received(&scene.attacker);
    let stolen: Vec<_> = caught.iter().filter(|(_, datagram)| is_relayed(datagram)).collect();
    // Its own words may come back to it, but nobody else's come.
    let others = stolen.iter().filter(|(_, datagram)| !datagram.ends_with(&JUNK)).count();
    report(&format!(
        "spoofing: {first} and {second}, {way}: the attacker gets {} of its own frames and {others} of others",
        stolen.len() - others
    ));
    assert_eq!(others, 0, "frames for others come to the attacker");
    let got = received(&scene.bystander);
    let from_beacon = got.iter().filter(|(from, _)| *from == SocketAddr::V4(BEACON));
    let answers: usize = from_beacon.map(|(_, datagram)| datagram.len()).sum();
    for site in &sites {
        let ip = outside(site).ip().to_owned();
        let shots = got.iter().filter(|(from, _)| from.ip() == ip);
        let lengths: Vec<usize> = shots.map(|(_, datagram)| datagram.len()).collect();
        report(&format!(
            "spoofing: {first} and {second}, {way}: {ip} is made to send a bystander datagrams of {lengths:?} bytes"
        ));
        assert!(lengths.len() <= SHOTS_MAX, "the bystander gets {lengths:?} from {ip}");
        assert!(lengths.iter().all(|length| *length <= SMALL), "the bystander gets {lengths:?} from {ip}");
    }
    // The beacon answers whoever seems to ask, but no more than it was asked.
    assert!(answers <= 3 * scene.asked.get(), "the beacon sends the bystander {answers} bytes");
}

impl Scene {
    /// Lies to a node, as the attacker itself, as the beacon and as the peer.
    fn attack_node(&self, side: usize) {
        let (node, peer) = (self.outside[side], self.outside[1 - side]);
        let source = NodeId([self.b.id(), self.a.id()][side]);
        let itself = SocketAddrV4::new(self.attacker_host.address(), PORT);
        let victim = SocketAddr::V4(self.victim);
        let junk = sealed_junk(source);
        let destination = NodeId([self.a.id(), self.b.id()][side]);
        let messages = [
            Message::PunchCommand(victim),
            Message::DiscoverReply(victim),
            Message::RelayDeliver { source, frame: &junk },
            Message::RelayDeliverTo { source, destination, frame: &junk },
            Message::Unknown { node: source },
        ];
        for message in &messages {
            let bytes = emitted(message);
            for claimed in [itself, BEACON, peer, self.victim] {
                self.spoofer.send(claimed, node, &bytes);
            }
        }
        for claimed in [itself, BEACON, peer, self.victim] {
            self.spoofer.send(claimed, node, &junk);
        }
    }

    /// Claims to be b, and asks for punches towards the bystander.
    fn attack_beacon(&self) {
        let (a, b) = (NodeId(self.a.id()), NodeId(self.b.id()));
        let junk = sealed_junk(a);
        let forged = DiscoverProof { nonce: [1; 16], signature: Signature::from_bytes([2; 64]) };
        let messages = [
            Message::Discover { node: b, key: None, proof: None },
            Message::DiscoverEx { node: b, key: None },
            Message::Discover { node: b, key: Some(self.key_of_b), proof: None },
            Message::Discover { node: b, key: Some(self.key_of_b), proof: Some(forged) },
            Message::DiscoverEx { node: b, key: Some(self.key_of_b) },
            Message::PunchRequest { requester: a, target: b, grant: None },
            Message::PunchRequest { requester: b, target: a, grant: None },
            Message::Relay { source: a, destination: b, frame: &junk },
            Message::Relay { source: b, destination: a, frame: &junk },
        ];
        for message in &messages {
            let bytes = emitted(message);
            self.attacker.send_to(&bytes, BEACON).expect("the internet takes datagrams");
            self.spoofer.send(self.victim, BEACON, &bytes);
            self.asked.set(self.asked.get() + bytes.len());
        }
    }

    /// Says at the registry that b is where the bystander is.
    fn attack_registry(&self) {
        let key = self.key_of_b.to_string();
        let place = self.victim.to_string();
        let unsigned = json!({
            "type": "register", "public_key": key, "listen_addr": place, "lan_addrs": [place], "hostname": "b"
        });
        let mut forged = unsigned.clone();
        forged["signature"] = json!("AAAA".repeat(21) + "AA==");
        let punch = json!({ "type": "punch", "node_a": self.a.id(), "node_b": self.b.id() });
        let mut stream = self
            .attacker_host
            .namespace()
            .enter(|| TcpStream::connect(REGISTRY))
            .expect("the registry takes connections");
        for request in [unsigned, forged, punch] {
            let bytes = frame(request.to_string().as_bytes()).expect("it is short");
            stream.write_all(&bytes).expect("the registry listens");
            let mut length = [0; 4];
            stream.read_exact(&mut length).expect("the registry answers");
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut answer).expect("the registry answers");
            let text = String::from_utf8_lossy(&answer);
            assert!(text.contains("error"), "{request} is answered with {text}");
        }
    }
}

/// Where a site's daemon is seen. The symmetric ones' is not known, and an attacker has to guess.
fn outside(site: &Site) -> SocketAddrV4 {
    let router = site.routers.first();
    SocketAddrV4::new(router.map_or(site.host.address(), |router| router.outside()), PORT)
}

/// Something that looks like a sealed frame.
fn sealed_junk(source: NodeId) -> Vec<u8> {
    let mut junk = b"PILS".to_vec();
    junk.extend_from_slice(&source.0.to_be_bytes());
    junk.extend_from_slice(&JUNK);
    junk
}

fn emitted(message: &Message<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.emit(&mut bytes);
    bytes
}

fn is_relayed(datagram: &[u8]) -> bool {
    matches!(
        Message::parse(datagram),
        Ok(Message::RelayDeliver { .. } | Message::RelayDeliverTo { .. } | Message::Relay { .. })
    )
}

/// What has come so far, and from where.
fn received(socket: &UdpSocket) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut all = Vec::new();
    let mut buffer = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut buffer) {
        all.push((from, buffer[..len].to_vec()));
    }
    all
}
