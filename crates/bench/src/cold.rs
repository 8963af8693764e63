//! Peers that have never met: from nothing but a name at the registry to the first bytes back.

use std::time::Instant;

use pilot_client::{Addr, Port};
use tokio::io::AsyncReadExt;

use crate::{
    Failure, Options,
    report::{Cell, Column, Table},
    side::Kind,
    stage::{Daemon, Stage},
    work::{MESSAGE, Task},
};

/// Peers that are met for each round.
const PEERS: u32 = 8;

/// The table. Each of our figures is a daemon of its own that dials a public node for the first time; quinn makes a new
/// connection each time.
pub(crate) async fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let stage = Stage::open()?;
    let hub = stage.daemon("hub", &["--public"]).await?;
    let mut others = Vec::new();
    for kind in [Kind::Quic, Kind::Tcp, Kind::Grpc] {
        others.push((kind, kind.start(&stage).await?, Vec::new()));
    }
    let peers = if options.quick { 2 } else { PEERS };
    let (mut ours, mut number) = (Vec::new(), 0);
    for _ in 0..options.rounds() {
        let mut times = Vec::new();
        for _ in 0..peers {
            number += 1;
            let peer = stage.daemon(&format!("peer-{number}"), &[]).await?;
            times.push(first_echo(&peer, &hub).await?);
        }
        times.sort_by(f64::total_cmp);
        ours.push(times[times.len() / 2]);
        for (_, side, runs) in &mut others {
            runs.push(side.measure(Task::Connects(peers * 4))?.done.median);
        }
    }
    let columns = vec![Column::new("p50", "µs")];
    let mut table = Table::new("cold", "First contact, until the first 64 bytes are back", columns);
    table = table.about("side").charted(&["p50"]);
    table.row(Kind::Pilot.name(), vec![Cell::of(&ours)]);
    for (kind, _, runs) in &others {
        table.row(kind.name(), vec![Cell::of(runs)]);
    }
    table.note("Pilot (a private node that meets a public one) asks the registry (TLS) for the peer, agrees on keys, opens a stream; the others know the address.");
    Ok(vec![table])
}

/// The time of the very first stream to a peer, in microseconds.
async fn first_echo(from: &Daemon, to: &Daemon) -> Result<f64, Failure> {
    let client = from.client().await?;
    if client.health().await?.peers > 0 {
        return Err("the tunnel is not cold".into());
    }
    let start = Instant::now();
    let mut stream = client.dial_with(Addr::backbone(to.node).port(Port::ECHO), &[7; MESSAGE]).await?;
    stream.read_exact(&mut [0; MESSAGE]).await?;
    Ok(start.elapsed().as_secs_f64() * 1e6)
}
