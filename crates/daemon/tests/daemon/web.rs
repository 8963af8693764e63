//! Where datagrams do not reach the beacon: over the web, through proxies, and back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pilot_daemon::{Config, ProxySetting, Transport};
use pilot_wire::beacon::{Message, NotifyKind};
use pilot_wire::ipc::{Call, Health, Info, Pong, Request, Status};
use pilot_wire::{NodeId, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinHandle;

use crate::common::{Daemon, Home, Program, Rendezvous, befriend, within};

/// A firewall in front of the beacon's UDP port, for one daemon.
struct Gate {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Gate {
    async fn closed(beacon: SocketAddr) -> Self {
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        outside.connect(beacon).await.unwrap();
        let address = inside.local_addr().unwrap();
        let open = Arc::new(AtomicBool::new(false));
        let passes = Arc::clone(&open);
        let task = tokio::spawn(async move {
            let mut daemon = None;
            let (mut out, mut back) = (vec![0; 65_536], vec![0; 65_536]);
            loop {
                tokio::select! {
                    Ok((length, from)) = inside.recv_from(&mut out) => {
                        daemon = Some(from);
                        if passes.load(Ordering::SeqCst) {
                            let _ = outside.send(&out[..length]).await;
                        }
                    }
                    Ok(length) = outside.recv(&mut back) => {
                        if let (Some(daemon), true) = (daemon, passes.load(Ordering::SeqCst)) {
                            let _ = inside.send_to(&back[..length], daemon).await;
                        }
                    }
                }
            }
        });
        Self { address, open, task }
    }

    fn set(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A beacon's address from which much comes and that takes nothing in: as where a firewall lets no UDP out any more.
struct OneWay {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl OneWay {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut message = Vec::new();
            Message::Notify(NotifyKind::Other(9)).emit(&mut message);
            let (_, daemon) = socket.recv_from(&mut [0; 2048]).await.unwrap();
            loop {
                let _ = socket.send_to(&message, daemon).await;
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        });
        Self { address, task }
    }
}

impl Drop for OneWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A proxy that wants a password and lets everything through then. It knows the name `registry.proxied`.
struct ConnectProxy {
    address: SocketAddr,
    passed: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// `user:secret`
const AUTHORIZATION: &str = "Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=";

impl ConnectProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&passed);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Self::serve(stream, Arc::clone(&count)));
            }
        });
        Self { address, passed, task }
    }

    async fn serve(mut client: TcpStream, passed: Arc<AtomicUsize>) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = client.read_u8().await else { return };
            head.push(byte);
        }
        let head = String::from_utf8(head).unwrap();
        if !head.contains(AUTHORIZATION) {
            let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
            return;
        }
        let to = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
        let to = to.replace("registry.proxied", "127.0.0.1");
        let Ok(mut server) = TcpStream::connect(to).await else {
            let _ = client.write_all(b"HTTP/1.1 502 Bad Gateway\r\n\r\n").await;
            return;
        };
        passed.fetch_add(1, Ordering::SeqCst);
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
    }

    fn setting(&self, credentials: &str) -> ProxySetting {
        ProxySetting { url: format!("http://{credentials}{}", self.address), except: String::new() }
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn on_the_web(home: &Home, rendezvous: &Rendezvous) -> Config {
    let mut config = home.config(rendezvous);
    config.web.url = Some(rendezvous.url());
    config.web.transport = Transport::Web;
    config
}

async fn status(program: &mut Program) -> Status {
    program.json(Request::Call(Call::Status)).await
}

/// Waits until the daemon says that its beacon is reached this way.
async fn until_over(daemon: &Daemon, transport: &str) {
    let mut program = daemon.program().await;
    within(transport, async {
        while status(&mut program).await.transport != transport {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Waits until the last attempt over the web failed with such a reason.
async fn until_failed(daemon: &Daemon, reason: &str) -> String {
    let mut program = daemon.program().await;
    within(reason, async {
        loop {
            let error = status(&mut program).await.web.and_then(|web| web.error).unwrap_or_default();
            if error.contains(reason) {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

async fn ping(program: &mut Program, node: NodeId) -> Option<Pong> {
    let call = Call::Ping { node, size: 32, timeout_ms: 5000 };
    let answer = program.call(Request::Call(call)).await.ok()?;
    Some(serde_json::from_slice(&answer[1..]).unwrap())
}

/// Pings until there is an answer.
async fn until_reached(from: &Daemon, to: &Daemon) -> Pong {
    let mut program = from.program().await;
    within("a pong", async {
        loop {
            if let Some(pong) = ping(&mut program, to.node()).await {
                return pong;
            }
        }
    })
    .await
}

/// A stream carries data there and back.
async fn assert_talk(a: &Daemon, b: &Daemon) {
    let mut program = a.program().await;
    let stream = program.dial(b.at(Port::ECHO)).await.unwrap();
    let data: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    for piece in data.chunks(20_000) {
        program.send(stream, piece).await;
        assert_eq!(program.read(stream, piece.len()).await, piece);
    }
}

#[tokio::test]
async fn daemons_whose_datagrams_do_not_reach_the_beacon_meet_over_the_web_by_themselves() {
    let rendezvous = Rendezvous::start().await;
    let gates = [Gate::closed(rendezvous.beacon).await, Gate::closed(rendezvous.beacon).await];
    let homes = [Home::new(), Home::new()];
    let config = |at: usize| {
        let mut config = homes[at].config(&rendezvous);
        config.beacons = vec![gates[at].address.to_string()];
        config.web.url = Some(rendezvous.url());
        config
    };
    let (a, b) = (Daemon::start(config(0)).await, Daemon::start(config(1)).await);
    until_over(&a, "web").await;
    until_over(&b, "web").await;
    befriend(&a, &b).await;
    until_reached(&a, &b).await;
    until_reached(&b, &a).await;
    assert_talk(&a, &b).await;

    let mut program = a.program().await;
    let info: Info = program.json(Request::Info).await;
    assert_eq!(info.transport, "web");
    let health: Health = program.json(Request::Health).await;
    assert_eq!(health.transport, "web");
    let web = status(&mut program).await.web.unwrap();
    assert_eq!((web.url, web.connected, web.error), (rendezvous.url(), true, None));
    assert!(web.connected_secs.is_some());
}

#[tokio::test]
async fn a_node_on_the_web_and_one_on_udp_reach_each_other() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let web = Daemon::start(on_the_web(&homes[0], &rendezvous)).await;
    let udp = Daemon::start(homes[1].config(&rendezvous)).await;
    until_over(&web, "web").await;
    befriend(&web, &udp).await;
    until_reached(&udp, &web).await;
    assert_talk(&web, &udp).await;
    assert_talk(&udp, &web).await;
}

#[tokio::test]
async fn when_datagrams_pass_again_the_web_is_left_and_streams_go_on() {
    let rendezvous = Rendezvous::start().await;
    let gate = Gate::closed(rendezvous.beacon).await;
    let homes = [Home::new(), Home::new()];
    let mut config = homes[0].config(&rendezvous);
    config.beacons = vec![gate.address.to_string()];
    config.web.url = Some(rendezvous.url());
    config.web.look_every = Duration::from_millis(100);
    let (a, b) = (Daemon::start(config).await, Daemon::start(on_the_web(&homes[1], &rendezvous)).await);
    until_over(&a, "web").await;
    until_over(&b, "web").await;
    befriend(&a, &b).await;
    let mut program = b.program().await;
    let stream = program.dial(a.at(Port::ECHO)).await.unwrap();
    let mut talk = async || {
        program.send(stream, b"the stream goes on").await;
        assert_eq!(program.read(stream, 18).await, b"the stream goes on");
    };
    talk().await;
    gate.set(true);
    until_over(&a, "udp").await;
    talk().await;
    assert_eq!(status(&mut a.program().await).await.web, None, "the connection is let go");
    talk().await;
}

#[tokio::test]
async fn what_still_comes_from_a_beacon_that_does_not_hear_us_keeps_nobody_from_the_web() {
    let rendezvous = Rendezvous::start().await;
    let beacon = OneWay::start().await;
    let home = Home::new();
    let mut config = home.config(&rendezvous);
    config.beacons = vec![beacon.address.to_string()];
    config.web.url = Some(rendezvous.url());
    let daemon = Daemon::start(config).await;
    until_over(&daemon, "web").await;
    // It stays there, with all that comes.
    let mut program = daemon.program().await;
    for _ in 0..50 {
        assert_eq!(status(&mut program).await.transport, "web");
    }
}

#[tokio::test]
async fn a_rendezvous_that_was_killed_is_found_again_over_the_web() {
    let mut rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(on_the_web(&homes[0], &rendezvous)).await;
    let b = Daemon::start(on_the_web(&homes[1], &rendezvous)).await;
    until_over(&a, "web").await;
    until_over(&b, "web").await;
    befriend(&a, &b).await;
    until_reached(&a, &b).await;
    rendezvous.kill().await;
    until_over(&a, "udp").await;
    until_over(&b, "udp").await;
    rendezvous.resume().await;
    until_over(&a, "web").await;
    until_over(&b, "web").await;
    until_reached(&a, &b).await;
    assert_talk(&b, &a).await;
}

#[tokio::test]
async fn the_web_is_reached_through_a_proxy_that_wants_a_password() {
    let rendezvous = Rendezvous::start_with_tls().await;
    let proxy = ConnectProxy::start().await;
    let homes = [Home::new(), Home::new()];
    let mut config = on_the_web(&homes[0], &rendezvous);
    config.web.proxy = Some(proxy.setting("user:secret@"));
    let daemon = Daemon::start(config).await;
    until_over(&daemon, "web").await;
    assert_eq!(proxy.passed.load(Ordering::SeqCst), 1);
    let web = status(&mut daemon.program().await).await.web.unwrap();
    assert_eq!(web.proxy, Some(proxy.address.to_string()));

    for (credentials, reason) in [("", "wants a user name"), ("user:wrong@", "refused the user name")] {
        let home = Home::new();
        let mut config = on_the_web(&home, &rendezvous);
        config.web.proxy = Some(proxy.setting(credentials));
        let daemon = Daemon::start(config).await;
        let error = until_failed(&daemon, reason).await;
        assert!(error.contains("(407)") && !error.contains("wrong"), "{error}");
    }
    let mut config = on_the_web(&homes[1], &rendezvous);
    config.web.proxy = Some(ProxySetting { except: "127.0.0.0/8".to_owned(), ..proxy.setting("") });
    let daemon = Daemon::start(config).await;
    until_over(&daemon, "web").await;
    assert_eq!(proxy.passed.load(Ordering::SeqCst), 1, "the host is excepted");
}

#[tokio::test]
async fn a_certificate_is_remembered_at_first_sight_and_another_one_refused() {
    let mut rendezvous = Rendezvous::start_with_tls().await;
    let home = Home::new();
    let config = on_the_web(&home, &rendezvous);
    let daemon = Daemon::start(config.clone()).await;
    until_over(&daemon, "web").await;
    let first = rendezvous.fingerprint();
    daemon.stop().await;
    let remembered = std::fs::read_to_string(home.path().join("node.json")).unwrap();
    assert!(remembered.contains(&first.to_string()), "{remembered}");

    rendezvous.kill().await;
    rendezvous.lose_certificate();
    rendezvous.resume().await;
    let second = rendezvous.fingerprint();
    assert_ne!(first, second);
    let daemon = Daemon::start(config.clone()).await;
    let error = until_failed(&daemon, "another certificate").await;
    assert!(error.contains(&second.to_string()) && error.contains("beacon_web_fingerprint"), "{error}");
    daemon.stop().await;

    let mut said = config.clone();
    said.web.fingerprint = Some(second);
    let daemon = Daemon::start(said).await;
    until_over(&daemon, "web").await;
    daemon.stop().await;

    let mut wrong = config;
    wrong.web.fingerprint = Some(first);
    let daemon = Daemon::start(wrong).await;
    until_failed(&daemon, "not the one that is set").await;
}

#[tokio::test]
async fn a_beacon_whose_name_cannot_be_looked_up_is_reached_over_the_web() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let config = |at: usize| {
        let mut config = homes[at].config(&rendezvous);
        config.beacons = vec!["no..name:9001".to_owned()];
        config.web.url = Some(rendezvous.url());
        config
    };
    let (a, b) = (Daemon::start(config(0)).await, Daemon::start(config(1)).await);
    until_over(&a, "web").await;
    until_over(&b, "web").await;
    befriend(&a, &b).await;
    assert_talk(&a, &b).await;
}

#[tokio::test]
async fn who_wants_udp_only_never_goes_over_the_web() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let mut config = home.config(&rendezvous);
    config.beacons = vec!["no..name:9001".to_owned()];
    config.web.url = Some(rendezvous.url());
    config.web.transport = Transport::Udp;
    let daemon = Daemon::start(config).await;
    // The name is looked up and not found, which sends others to the web at once.
    let mut program = daemon.program().await;
    for _ in 0..20 {
        let status = status(&mut program).await;
        assert_eq!((status.transport.as_str(), status.web), ("udp", None));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_registry_is_reached_through_the_proxy_where_there_is_no_direct_way() {
    let rendezvous = Rendezvous::start().await;
    let proxy = ConnectProxy::start().await;
    let home = Home::new();
    let mut config = on_the_web(&home, &rendezvous);
    // A name that only the proxy can resolve.
    let registry = format!("registry.proxied:{}", rendezvous.registry.port());
    config.registries = vec![registry.clone()];
    config.web.proxy = Some(proxy.setting("user:secret@"));
    let daemon = Daemon::start(config).await;
    until_over(&daemon, "web").await;
    let registered = status(&mut daemon.program().await).await.registry;
    assert_eq!((registered.address, registered.connected, registered.error), (registry, true, None));
}
