//! What a rendezvous costs with many nodes, for its memory, for lookups and for registrations that are on disk before they
//! are answered. It has one thread; the processor time is its own, so that other programs make rates lower but costs
//! hardly higher.

mod nodes;

use std::time::{Duration, Instant};

use nodes::{Conn, Kind, shares};
use pilot_rendezvous::{Config, registry::Rate, store::StoreUrl};
use tokio::task::JoinSet;

use crate::{
    Failure, Options,
    process::Process,
    report::{Cell, Column, Table},
};

/// How long each kind of request is sent.
const SPAN: Duration = Duration::from_secs(4);
/// Nodes that register.
const NODES: u32 = 100_000;

/// The role: a rendezvous on one thread with this store, until it is ended.
pub(crate) async fn play(words: &[&str]) -> Result<(), Failure> {
    let [store] = words else { return Err("a rendezvous has one word".into()) };
    let mut config = Config::new(store.parse::<StoreUrl>()?);
    config.registry_addr.set_port(0);
    config.beacon_addr.set_port(0);
    config.connections.requests = Rate { burst: u32::MAX, per_second: 1e9 };
    let (ready, bound) = tokio::sync::oneshot::channel();
    let announce = |bound: pilot_rendezvous::Bound| {
        // Whoever waited has been told by an error.
        let _ = ready.send(bound.registry);
    };
    let say = async {
        match bound.await {
            Ok(registry) => crate::process::say(&registry.to_string()),
            Err(_) => Ok(()),
        }
    };
    let (ended, said) = tokio::join!(pilot_rendezvous::run(config, announce, std::future::pending()), say);
    ended?;
    said
}

/// The table.
pub(crate) async fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let nodes = options.nodes.unwrap_or(if options.quick { 1000 } else { NODES });
    let span = if options.quick { Duration::from_secs(1) } else { SPAN };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store");
    let store = options.store.clone().unwrap_or_else(|| file.display().to_string());
    let rendezvous = Process::role(&["rendezvous", &store])?;
    let registry = rendezvous.line()?.parse()?;
    let empty = rendezvous.memory();
    let columns = vec![
        Column::new("rate", "per s"),
        Column::new("CPU", "µs each"),
        Column::new("so on one core", "per s"),
    ];
    let title = format!("A rendezvous with {nodes} nodes");
    let mut table = Table::new("rendezvous", title, columns).about("request").charted(&["so on one core"]);
    let mut conns = Vec::new();
    for share in shares(usize::try_from(nodes)?, options.connections) {
        conns.push(Conn::open(registry, share).await?);
    }

    // Keys and signatures were made before the clock runs.
    let (start, before) = (Instant::now(), rendezvous.cpu());
    let mut tasks: JoinSet<Result<Conn, Failure>> = conns.into_iter().map(Conn::register_all).collect();
    let mut conns = Vec::new();
    while let Some(conn) = tasks.join_next().await {
        conns.push(conn??);
    }
    row(&mut table, "registrations, durable", f64::from(nodes), start.elapsed(), rendezvous.cpu() - before);
    let memory = rendezvous.memory();

    for (name, kind) in [
        ("lookups", Kind::Lookup),
        ("resolves, signed", Kind::Resolve),
        ("heartbeats", Kind::Beat),
        ("registrations of known keys", Kind::Register),
    ] {
        let (start, before) = (Instant::now(), rendezvous.cpu());
        let mut tasks = JoinSet::new();
        for mut conn in std::mem::take(&mut conns) {
            tasks.spawn(async move { conn.hammer(kind, start + span).await.map(|count| (count, conn)) });
        }
        let mut answered = 0.0;
        while let Some(done) = tasks.join_next().await {
            let (count, conn) = done??;
            answered += f64::from(count);
            conns.push(conn);
        }
        row(&mut table, name, answered, start.elapsed(), rendezvous.cpu() - before);
    }
    table.note("The rate is that of two processes on this machine, of which one makes the requests.");
    let mut of_memory = Table::new(
        "rendezvous-memory",
        format!("Memory of a rendezvous with {nodes} nodes"),
        vec![Column::new("memory", "MB"), Column::new("each", "bytes")],
    );
    of_memory = of_memory.about("rendezvous");
    of_memory.row("empty", vec![Cell::once(empty / 1e6), Cell::Nothing]);
    let each = (memory - empty) / f64::from(nodes);
    of_memory.row("all registered", vec![Cell::once(memory / 1e6), Cell::once(each)]);
    of_memory.row("after the requests", vec![Cell::once(rendezvous.memory() / 1e6), Cell::Nothing]);
    drop((conns, rendezvous));
    let start = Instant::now();
    let again = Process::role(&["rendezvous", &store])?;
    again.line()?;
    of_memory.row("started again", vec![Cell::once(again.memory() / 1e6), Cell::Nothing]);
    of_memory.note(format!(
        "{} connections. Started again, it serves after {:.2} s ({:.2} s of processor time); its file has {:.0} MB.",
        options.connections,
        start.elapsed().as_secs_f64(),
        again.cpu(),
        std::fs::metadata(&file).map_or(0.0, |file| megabytes(file.len())),
    ));
    Ok(vec![table, of_memory])
}

fn row(table: &mut Table, name: &str, count: f64, took: Duration, cpu: f64) {
    let figures = [count / took.as_secs_f64(), cpu / count.max(1.0) * 1e6, count / cpu.max(1e-9)];
    table.row(name, figures.map(Cell::once).to_vec());
}

#[expect(clippy::cast_precision_loss, reason = "measurements are no more exact")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
