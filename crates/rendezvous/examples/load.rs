//! Asks a rendezvous as fast as it answers: `cargo run --release -p pilot-rendezvous --example load [STORE]`. It starts its
//! own in the same process, with a file in a temporary folder or with the store that is named (`postgres://...`: of a database
//! that may be filled), and prints requests per second and the latency of one client alone.
#![expect(clippy::print_stdout, reason = "the numbers are its output")]

use pilot_crypto::Identity;
use pilot_rendezvous::{Config, registry::Rate, run, store::StoreUrl};
use pilot_wire::registry::{
    Decoder, Envelope, Register, Registered, Request, Resolve, Response, Signed, frame,
};
use std::{
    error::Error,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
};

type Failure = Box<dyn Error + Send + Sync>;

/// How long each kind of request is sent.
const SPAN: Duration = Duration::from_secs(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder = std::env::temp_dir().join(format!("pilot-load-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let store: StoreUrl = match std::env::args().nth(1) {
        Some(text) => text.parse()?,
        None => folder.join("registry.redb").into(),
    };
    println!("{store}");
    let mut config = Config::new(store);
    config.registry_addr.set_port(0);
    config.beacon_addr.set_port(0);
    config.connections.requests = Rate { burst: u32::MAX, per_second: 1e9 };
    let (ready, bound) = oneshot::channel();
    // The server on one core, the clients on the other.
    std::thread::spawn(move || -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let announce = |bound| {
            // Nobody waits for it any more if the measurement was interrupted.
            let _ = ready.send(bound);
        };
        Ok(runtime.block_on(run(config, announce, std::future::pending()))?)
    });
    let registry = bound.await?.registry;
    println!("{:<24} {:>6} {:>12} {:>12}", "request", "conns", "per second", "ms each");
    for kind in [Kind::Lookup, Kind::Heartbeat, Kind::Resolve, Kind::RegisterKnown, Kind::RegisterNew] {
        for connections in [1, 8, 64] {
            measure(registry, kind, connections).await?;
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Lookup,
    Heartbeat,
    Resolve,
    RegisterKnown,
    RegisterNew,
}

async fn measure(registry: SocketAddr, kind: Kind, connections: u8) -> Result<(), Failure> {
    let mut clients = JoinSet::new();
    let start = Instant::now();
    for seed in 0..connections {
        clients.spawn(client(registry, kind, seed, start + SPAN));
    }
    let mut answered = 0_u32;
    while let Some(count) = clients.join_next().await {
        answered += count??;
    }
    let rate = f64::from(answered) / start.elapsed().as_secs_f64();
    let each = f64::from(connections) * 1000.0 / rate;
    println!("{:<24} {connections:>6} {rate:>12.0} {each:>12.3}", format!("{kind:?}"));
    Ok(())
}

async fn client(registry: SocketAddr, kind: Kind, seed: u8, end: Instant) -> Result<u32, Failure> {
    let mut stream = TcpStream::connect(registry).await?;
    stream.set_nodelay(true)?;
    let mut identity = Identity::from_seed(&[seed; 32]);
    let registered = ask(&mut stream, register(&identity)).await?;
    let Response::Register(Registered { node_id: id, .. }) = registered else {
        return Err(format!("{registered:?}").into());
    };
    let about = Signed { node_id: id, ..Signed::default() };
    let request = match kind {
        Kind::Lookup => Request::Lookup(about),
        Kind::Heartbeat => Request::Heartbeat(about),
        Kind::Resolve => Request::Resolve(Resolve { node_id: id, requester_id: id, ..Resolve::default() }),
        Kind::RegisterKnown | Kind::RegisterNew => register(&identity),
    };
    let mut request = request.sign_with(|text| identity.sign(text));
    let mut answered = 0;
    while Instant::now() < end {
        if kind == Kind::RegisterNew {
            identity = Identity::generate()?;
            request = register(&identity);
        }
        if let Response::Error { error } = ask(&mut stream, request.clone()).await? {
            return Err(error.into());
        }
        answered += 1;
    }
    Ok(answered)
}

fn register(identity: &Identity) -> Request {
    let listen_addr = "127.0.0.1:4000".to_owned();
    let request = Register { public_key: identity.public().into(), listen_addr, ..Register::default() };
    Request::Register(request).sign_with(|text| identity.sign(text))
}

async fn ask(stream: &mut TcpStream, request: Request) -> Result<Response, Failure> {
    stream.write_all(&frame(&Envelope::from(request).to_json())?).await?;
    let mut decoder = Decoder::new();
    loop {
        if let Some(content) = decoder.next()? {
            return Ok(Response::parse(&content)?);
        }
        let mut buffer = [0; 2048];
        match stream.read(&mut buffer).await? {
            0 => return Err("closed".into()),
            length => decoder.feed(&buffer[..length]),
        }
    }
}
