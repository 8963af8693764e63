//! A rendezvous that looks busy, to look at its dashboard: `cargo run -p pilot-rendezvous --example showcase`. It prints
//! where the page is and goes on until it is interrupted. The picture in docs/rendezvous.md is of it.
#![expect(clippy::print_stdout, reason = "the address is its output")]

use pilot_crypto::Identity;
use pilot_rendezvous::{Bound, Config, Http, registry::Rate, run};
use pilot_wire::{
    NetworkId, NodeId,
    beacon::Message,
    registry::{
        CreateNetwork, Decoder, Envelope, JoinNetwork, Pair, Register, Request, Response, SetTags,
        SetVisibility, Signed, frame,
    },
};
use std::{
    error::Error,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::oneshot,
};

type Failure = Box<dyn Error + Send + Sync>;

const ADMIN: &str = "showcase";
const NODES: u16 = 240;
const NETWORKS: [(&str, &str, u16); 5] = [
    ("market", "open", 2),
    ("weather-desk", "open", 3),
    ("translators", "open", 5),
    ("atelier", "token", 7),
    ("lab", "invite", 9),
];
const TAGS: [&str; 12] = [
    "weather",
    "translation",
    "search",
    "maps",
    "summaries",
    "code-review",
    "images",
    "finance",
    "calendar",
    "music",
    "chess",
    "recipes",
];
const VERSIONS: [&str; 5] = ["v1.18.0", "pilot 0.1.0", "pilot 0.1.0", "v1.17.2", "v1.9.1"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("pilot-showcase-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let mut config = Config::new(folder.join("registry.redb"));
    config.registry_addr.set_port(0);
    config.beacon_addr.set_port(0);
    config.registry.admin_token = Some(ADMIN.to_owned());
    config.connections.requests = Rate { burst: u32::MAX, per_second: 1e9 };
    config.http = Some(Http { step: Duration::from_secs(1), ..Http::beside() });
    let (ready, bound) = oneshot::channel();
    let announce = |bound| {
        // Nobody waits for it any more if this was interrupted.
        let _ = ready.send(bound);
    };
    let showing = async { show(bound.await?).await };
    tokio::select! {
        ended = run(config, announce, std::future::pending()) => ended?,
        ended = showing => ended?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(std::fs::remove_dir_all(&folder)?)
}

async fn show(bound: Bound) -> Result<(), Failure> {
    println!("http://{}/", bound.http.ok_or("no pages")?);
    let mut talk = Talk::open(bound.registry).await?;
    let sockets = [UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?];
    let mut nodes: Vec<(NodeId, Identity)> = Vec::new();
    let mut dice = Dice(7);
    let mut turn = 0_u64;
    let start = Instant::now();
    loop {
        // Nodes come one after the other, and then some each second.
        for _ in 0..=dice.roll(8) {
            if nodes.len() < usize::from(NODES) {
                nodes.push(talk.newcomer(nodes.len(), &mut dice).await?);
            }
        }
        if nodes.len() > 20 && turn.is_multiple_of(3) {
            talk.befriend(&nodes, &mut dice).await?;
        }
        let swell = 1.0 + (start.elapsed().as_secs_f64() / 7.0).sin() / 2.0;
        let count = u64::try_from(nodes.len())?;
        for (share, kind) in [(3, 0), (5, 1), (2, 2), (30, 3)] {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a few"
            )]
            let times = (count as f64 * swell / f64::from(share)) as u64 + dice.roll(4);
            for _ in 0..times {
                talk.chat(kind, &nodes, &mut dice).await?;
            }
        }
        if nodes.len() > 1 {
            relay(bound.beacon, &sockets, [nodes[0].0, nodes[1].0], 40 + dice.roll(160)).await?;
        }
        turn += 1;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Frames from one node to the other.
async fn relay(
    beacon: SocketAddr,
    sockets: &[UdpSocket; 2],
    nodes: [NodeId; 2],
    frames: u64,
) -> Result<(), Failure> {
    let mut out = Vec::new();
    for (socket, node) in sockets.iter().zip(nodes) {
        out.clear();
        Message::Discover { node, key: None, proof: None }.emit(&mut out);
        socket.send_to(&out, beacon).await?;
    }
    let [source, destination] = nodes;
    for _ in 0..frames {
        out.clear();
        Message::Relay { source, destination, frame: &[7; 1200] }.emit(&mut out);
        sockets[0].send_to(&out, beacon).await?;
    }
    Ok(())
}

/// A client of the registry.
struct Talk {
    stream: TcpStream,
    decoder: Decoder,
}

impl Talk {
    async fn open(registry: SocketAddr) -> Result<Self, Failure> {
        Ok(Self { stream: TcpStream::connect(registry).await?, decoder: Decoder::new() })
    }

    async fn newcomer(&mut self, number: usize, dice: &mut Dice) -> Result<(NodeId, Identity), Failure> {
        let identity = Identity::generate()?;
        let request = Register {
            public_key: identity.public().into(),
            listen_addr: "127.0.0.1:4000".to_owned(),
            version: version_of(NodeId(u32::try_from(number + 1)?)),
            ..Register::default()
        };
        let Response::Register(registered) = self.ask(&identity, Request::Register(request), "").await?
        else {
            return Err("not registered".into());
        };
        let node_id = registered.node_id;
        if number == 0 {
            for (name, rule, _) in NETWORKS {
                let (name, join_rule, token) = (name.to_owned(), rule.to_owned(), "showcase".to_owned());
                let enterprise = rule == "invite";
                let network =
                    CreateNetwork { node_id, name, join_rule, token, enterprise, ..CreateNetwork::default() };
                self.ask(&identity, Request::CreateNetwork(network), ADMIN).await?;
            }
        }
        if dice.roll(3) > 0 {
            let visible = SetVisibility { node_id, public: true, ..SetVisibility::default() };
            self.ask(&identity, Request::SetVisibility(visible), "").await?;
            // Low numbers more often than high ones.
            let tags = [dice.roll(12).min(dice.roll(12)), dice.roll(12).min(dice.roll(12))];
            let tags =
                tags.into_iter().filter_map(|at| Some((*TAGS.get(usize::try_from(at).ok()?)?).to_owned()));
            self.ask(
                &identity,
                Request::SetTags(SetTags { node_id, tags: tags.collect(), ..SetTags::default() }),
                "",
            )
            .await?;
        }
        for (id, (_, _, every)) in (1..).zip(NETWORKS) {
            if number.is_multiple_of(usize::from(every)) {
                let join = JoinNetwork { node_id, network_id: NetworkId(id), ..JoinNetwork::default() };
                self.ask(&identity, Request::JoinNetwork(join), ADMIN).await?;
            }
        }
        Ok((node_id, identity))
    }

    async fn befriend(&mut self, nodes: &[(NodeId, Identity)], dice: &mut Dice) -> Result<(), Failure> {
        let (one, other) = (dice.pick(nodes), dice.pick(nodes));
        for ((node_id, identity), (peer_id, _)) in [(one, other), (other, one)] {
            let pair = Pair { node_id: *node_id, peer_id: *peer_id, ..Pair::default() };
            self.ask(identity, Request::ReportTrust(pair), "").await?;
        }
        Ok(())
    }

    async fn chat(&mut self, kind: u8, nodes: &[(NodeId, Identity)], dice: &mut Dice) -> Result<(), Failure> {
        let (node_id, identity) = dice.pick(nodes);
        let about = Signed { node_id: *node_id, ..Signed::default() };
        let request = match kind {
            0 => Request::Heartbeat(about),
            1 => Request::Lookup(about),
            2 => Request::PollHandshakes(about),
            _ => Request::Register(Register {
                public_key: identity.public().into(),
                listen_addr: "127.0.0.1:4000".to_owned(),
                version: version_of(*node_id),
                ..Register::default()
            }),
        };
        self.ask(identity, request, "").await.map(drop)
    }

    async fn ask(&mut self, identity: &Identity, request: Request, token: &str) -> Result<Response, Failure> {
        let request = request.sign_with(|text| identity.sign(text));
        let envelope = Envelope::with_token(request, token);
        self.stream.write_all(&frame(&envelope.to_json())?).await?;
        loop {
            if let Some(content) = self.decoder.next()? {
                return Ok(Response::parse(&content)?);
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).await? {
                0 => return Err("closed".into()),
                length => self.decoder.feed(&buffer[..length]),
            }
        }
    }
}

fn version_of(node: NodeId) -> String {
    Dice(u64::from(node.0)).pick(&VERSIONS).to_string()
}

/// Numbers that look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        let at = self.roll(u64::try_from(from.len()).unwrap_or(1).max(1));
        &from[usize::try_from(at).unwrap_or(0)]
    }
}
