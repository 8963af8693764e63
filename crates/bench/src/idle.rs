//! What a daemon costs that has nothing to do: alone, with connections that are open and quiet, with peers.

use std::time::Duration;

use crate::{
    Failure, Options,
    process::Process,
    report::{Cell, Column, Table},
    side::Side,
    stage::Stage,
    work::Task,
};

mod crowd;

pub(crate) use crowd::play;

/// Connections that are opened.
const CONNECTIONS: u32 = 10_000;
/// Daemons that accept them.
const ACCEPTING: u32 = 4;
/// Peers that are met.
const PEERS: u32 = 1000;
/// How long a daemon is watched that does nothing.
const WATCH: Duration = Duration::from_secs(30);
/// Start-up is over after this, and the threads that it needed have ended.
const SETTLE: Duration = Duration::from_secs(15);

/// A daemon by itself, and one with a warm tunnel.
pub(crate) async fn alone(options: &Options) -> Result<Vec<Table>, Failure> {
    let stage = Stage::open()?;
    let lone = stage.daemon("lone", &[]).await?;
    let (a, b) = (stage.daemon("a", &[]).await?, stage.daemon("b", &[]).await?);
    a.befriend(&b).await?;
    let columns = vec![
        Column::new("memory", "MB"),
        Column::new("wake-ups", "in 30 s"),
        Column::new("CPU", "ms in 30 s"),
        Column::plain("threads"),
    ];
    let mut table = Table::new("idle", "A daemon that has nothing to do", columns).about("daemon");
    let watch = if options.quick { Duration::from_secs(2) } else { WATCH };
    tokio::time::sleep(if options.quick { Duration::from_secs(1) } else { SETTLE }).await;
    let watched = [("registered, no peers", &lone.process), ("with a peer", &a.process)];
    let before = watched.map(|(_, process)| (process.wake_ups(), process.cpu()));
    tokio::time::sleep(watch).await;
    let scale = WATCH.as_secs_f64() / watch.as_secs_f64();
    for ((name, process), (wake_ups, cpu)) in watched.into_iter().zip(before) {
        table.row(
            name,
            vec![
                Cell::once(process.memory() / 1e6),
                Cell::once(process.wake_ups().since(&wake_ups) * scale),
                Cell::once((process.cpu() - cpu) * 1e3 * scale),
                Cell::once(process.threads()),
            ],
        );
    }
    table.note("Memory is what is resident, with the pages of the executable that are in use.");
    Ok(vec![table])
}

/// Many connections that are open and quiet: a daemon with a program for each of several peers, because there is a limit
/// to the streams of one program, and to those of one peer.
pub(crate) async fn connections(options: &Options) -> Result<Vec<Table>, Failure> {
    let stage = Stage::open()?;
    let hub = stage.daemon("hub", &[]).await?;
    let count = if options.quick { 200 } else { CONNECTIONS } / ACCEPTING;
    let (mut accepting, mut pairs) = (Vec::new(), Vec::new());
    for number in 0..ACCEPTING {
        let other = stage.daemon(&format!("other-{number}"), &[]).await?;
        hub.befriend(&other).await?;
        let mut programs = Side::programs(&hub, &other)?;
        // A first one, so that what is there once is there.
        programs.measure(Task::Hold(1))?;
        accepting.push(other);
        pairs.push(programs);
    }
    let memory = || (hub.process.memory(), accepting.iter().map(|other| other.process.memory()).sum::<f64>());
    let before = memory();
    let mut seconds = 0.0;
    for programs in &mut pairs {
        seconds += programs.measure(Task::Hold(count))?.done.seconds;
    }
    let after = memory();
    let columns =
        vec![Column::new("memory before", "MB"), Column::new("after", "MB"), Column::new("each", "bytes")];
    let mut table = Table::new("connections", "Connections that are open and quiet", columns).about("daemon");
    let all = f64::from(count * ACCEPTING);
    let each = f64::from(ACCEPTING);
    let rows = [
        (format!("that dials {}", count * ACCEPTING), before.0, after.0, after.0 - before.0),
        (format!("that accepts {count}"), before.1 / each, after.1 / each, after.1 - before.1),
    ];
    for (name, before, after, grown) in rows {
        table.row(name, [before / 1e6, after / 1e6, grown / all].map(Cell::once).to_vec());
    }
    table.note(format!(
        "Each has carried 64 bytes there and back; all were opened in {seconds:.1} s. {ACCEPTING} daemons accept, each with a program."
    ));
    Ok(vec![table])
}

/// Many peers that say nothing.
pub(crate) async fn peers(options: &Options) -> Result<Vec<Table>, Failure> {
    let stage = Stage::open()?;
    let hub = stage.daemon("hub", &["--public"]).await?;
    let client = hub.client().await?;
    let count = if options.quick { 10 } else { PEERS };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = hub.process.memory();
    let crowd = Process::role(&[
        "crowd",
        stage.registry(),
        stage.beacon(),
        &stage.folder().join("crowd").display().to_string(),
        &hub.node.0.to_string(),
        &count.to_string(),
    ])?;
    let met = crowd.line_within(Duration::from_secs(180))?;
    let memory = hub.process.memory();
    // Twice the time between probes, so that each peer has been probed.
    let watch = if options.quick { Duration::from_secs(2) } else { Duration::from_secs(60) };
    let (start, wake_ups, cpu) = (client.health().await?, hub.process.wake_ups(), hub.process.cpu());
    tokio::time::sleep(watch).await;
    let end = client.health().await?;
    let per_minute = 60.0 / watch.as_secs_f64() / f64::from(count);
    #[expect(clippy::cast_precision_loss, reason = "measurements are no more exact")]
    let wire = |from: u64, to: u64| (to.saturating_sub(from)) as f64 * per_minute;
    let columns = vec![
        Column::new("memory, each", "bytes"),
        Column::new("sent, each", "bytes/min"),
        Column::new("received, each", "bytes/min"),
        Column::new("CPU", "ms/s"),
        Column::new("wake-ups", "per s"),
    ];
    let mut table =
        Table::new("peers", "Peers that trust each other and say nothing", columns).about("peers");
    let seconds = watch.as_secs_f64();
    table.row(
        format!("{count} ({met} met, {} known)", end.peers),
        vec![
            Cell::once((memory - before) / f64::from(count)),
            Cell::once(wire(start.bytes_sent, end.bytes_sent)),
            Cell::once(wire(start.bytes_recv, end.bytes_recv)),
            Cell::once((hub.process.cpu() - cpu) * 1e3 / seconds),
            Cell::once(hub.process.wake_ups().since(&wake_ups) / seconds),
        ],
    );
    table.note("Bytes as the daemon counts them, in UDP; the peers are whole daemons in one process.");
    Ok(vec![table])
}
