//! A daemon under attack: where it is, what it counts, and what goes on beside the attack.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pilot_wire::{NodeId, PublicKey};

use crate::common::{Agent, World, noise};

/// Long enough for a machine under load; nothing waits that long otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two rounds of what goes on beside an attack, and between two bursts of one.
pub(crate) const PACE: Duration = Duration::from_millis(2);

/// A daemon gives the same numbers again for 200 ms.
const FRESH: Duration = Duration::from_millis(250);

/// An agent whose daemon shows what it counts.
pub(crate) struct Target {
    pub(crate) agent: Agent,
    pub(crate) node: NodeId,
    /// Where its tunnels are.
    pub(crate) udp: SocketAddr,
    metrics: String,
}

impl Target {
    pub(crate) fn start(world: &World, name: &str, more: &[&str]) -> Self {
        Self::of(world.machine(name), more)
    }

    /// With the beacon somewhere else.
    pub(crate) fn start_behind(world: &World, beacon: SocketAddr, name: &str) -> Self {
        Self::start_at(world, &world.registry, &beacon.to_string(), name)
    }

    /// At another rendezvous than the world's.
    pub(crate) fn start_at(world: &World, registry: &str, beacon: &str, name: &str) -> Self {
        let mut machine = world.machine(name);
        machine.set_registry(registry, beacon);
        Self::of(machine, &[])
    }

    fn of(mut agent: Agent, more: &[&str]) -> Self {
        let ready = agent.start_and_tell(&[&["--metrics", "127.0.0.1:0"], more].concat());
        let udp = ready["listen"].as_str().unwrap().parse().unwrap();
        let metrics = agent.json(&["status"])["metrics"].as_str().unwrap().to_owned();
        let mut target = Self { node: NodeId::UNSET, udp, metrics, agent };
        target.until("pilot_node_registered", 1);
        let node = target.agent.json(&["status"])["node_id"].as_u64().unwrap();
        target.node = NodeId(u32::try_from(node).unwrap());
        target
    }

    /// A connection to where its metrics are read.
    pub(crate) fn knock(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// What it counts under this name; labels belong to the name. What happened before this is in it.
    pub(crate) fn count(&self, name: &str) -> u64 {
        std::thread::sleep(FRESH);
        self.last_count(name)
    }

    /// The same, perhaps of a moment ago.
    fn last_count(&self, name: &str) -> u64 {
        let mut stream = self.knock();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value: f64 = line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it counts")]
        let count = value as u64;
        count
    }

    /// Frames that it dropped for this reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        self.count(&format!("pilot_node_drops_total{{reason=\"{reason}\"}}"))
    }

    /// Returns when it has dropped so many more for this reason than `before`.
    pub(crate) fn until_dropped(&self, reason: &str, before: u64, more: u64) {
        self.until(&format!("pilot_node_drops_total{{reason=\"{reason}\"}}"), before + more);
    }

    /// Returns when it has counted that far.
    pub(crate) fn until(&self, name: &str, count: u64) {
        let begun = Instant::now();
        while self.last_count(name) < count {
            assert!(begun.elapsed() < PATIENCE, "{name}: {} and not {count}", self.last_count(name));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Its identity, as it tells it.
    pub(crate) fn key(&self) -> PublicKey {
        self.agent.json(&["info"])["public_key"].as_str().unwrap().parse().unwrap()
    }

    /// How often keys were agreed once more: what no attack must cause.
    pub(crate) fn renewals(&self) -> u64 {
        self.count("pilot_node_key_exchanges_total{kind=\"again\"}")
    }

    /// It has agreed on no other keys since, and reaches its friends directly. A machine under load may have used the relay
    /// for a moment; an attack that worked would have it stay there.
    pub(crate) fn assert_unmoved(&self, renewals: u64, friends: u64) {
        assert_eq!(self.renewals(), renewals, "{} has agreed on other keys", self.agent.name);
        self.until("pilot_node_peers{path=\"direct\"}", friends);
    }
}

/// Two that trust each other.
pub(crate) fn befriend(a: &Target, b: &Target) {
    crate::common::befriend(&a.agent, &b.agent);
}

/// Asks one that approves of everybody.
pub(crate) fn ask_for_trust(from: &Target, to: &Target) {
    let asked = from.agent.run(&["handshake", &to.agent.address(), "for the test", "--wait=20s"]);
    assert_eq!(asked.status, 0, "{asked:?}");
}

/// Ends what waits for it, also when the test fails.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Attacks while one stream carries bytes from `from` to the echo of `to` and back. It is one stream from before the
/// attack until after it, and every byte is looked at.
pub(crate) fn beside<T>(from: &Agent, to: &str, attack: impl FnOnce() -> T) -> T {
    let mut running = from.spawn_piped(&["connect", to, "7"]);
    let (mut stdin, mut stdout) = (running.take_stdin(), running.take_stdout());
    let over = AtomicBool::new(false);
    let (begins, begun) = mpsc::channel();
    let result = std::thread::scope(|scope| {
        let talk = scope.spawn(|| {
            let said = noise(16 << 10);
            let mut heard = vec![0; said.len()];
            let mut last = false;
            // One round begins when the attack is over.
            while !last {
                last = over.load(Ordering::SeqCst);
                stdin.write_all(&said).unwrap();
                stdout.read_exact(&mut heard).unwrap();
                assert!(heard == said, "other bytes came back");
                let _ = begins.send(());
                std::thread::sleep(PACE);
            }
            drop(stdin);
            let mut rest = Vec::new();
            stdout.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"", "more came back than was sent");
        });
        let ends = Over(&over);
        begun.recv_timeout(PATIENCE).expect("the stream opens");
        let result = attack();
        drop(ends);
        talk.join().unwrap();
        result
    });
    assert_eq!(running.status(), Some(0));
    result
}

/// A socket of somebody on this loopback address.
pub(crate) fn socket_at(ip: [u8; 4]) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from((ip, 0))).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Sends, but no faster than a receive buffer is emptied. What the system does not take is lost, as in any network.
pub(crate) fn shoot(socket: &UdpSocket, to: SocketAddr, number: &mut usize, datagram: &[u8]) {
    let _ = socket.send_to(datagram, to);
    *number += 1;
    if number.is_multiple_of(64) {
        std::thread::sleep(PACE);
    }
}

/// What has come so far.
pub(crate) fn caught(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 65_536];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
}

/// What an address that never answered may get of so many nodes: three small datagrams of each, and cookies, which are
/// shorter than the initiations that they answer one by one.
pub(crate) fn assert_hardly_shot_at(socket: &UdpSocket, nodes: usize) {
    let is_cookie = |datagram: &Vec<u8>| datagram.len() <= 52 && datagram.starts_with(b"PILK");
    let lengths: Vec<usize> =
        caught(socket).iter().filter(|datagram| !is_cookie(datagram)).map(Vec::len).collect();
    assert!(lengths.len() <= 3 * nodes && lengths.iter().all(|length| *length <= 200), "{lengths:?}");
}
