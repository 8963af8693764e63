//! Dial, transfer, close, for minutes: nothing may grow.

use std::time::{Duration, Instant};

use pilot_client::{Addr, Client, Endpoint, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    Failure, Options,
    report::{Cell, Column, Table},
    stage::{Daemon, Stage},
};

/// Bytes of each transfer, there and back.
const TRANSFER: usize = 256 * 1024;
/// Samples that are taken.
const SAMPLES: u32 = 60;
/// Memory that may come and go without meaning anything: the allocator keeps some.
const SLACK: f64 = 1.0;

/// What a daemon holds at one time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// In MB.
    memory: f64,
    files: f64,
    streams: f64,
}

/// The table, and an error if something grew.
pub(crate) async fn tables(options: &Options) -> Result<Vec<Table>, Failure> {
    let stage = Stage::open()?;
    let (a, b) = (stage.daemon("a", &[]).await?, stage.daemon("b", &[]).await?);
    a.befriend(&b).await?;
    let to = Addr::backbone(b.node).port(Port::ECHO);
    let span = if options.quick { Duration::from_secs(6) } else { Duration::from_secs(60) * options.minutes };
    let (start, mut transfers, mut samples) = (Instant::now(), 0, Vec::new());
    let client = a.client().await?;
    for number in 1..=SAMPLES {
        let end = start + span / SAMPLES * number;
        while Instant::now() < end {
            let once = || transfer(&client, to);
            tokio::try_join!(once(), once(), once(), once())?;
            transfers += 4;
        }
        samples.push([sample(&a).await?, sample(&b).await?]);
    }
    let columns = vec![
        Column::new("memory at first", "MB"),
        Column::new("at last", "MB"),
        Column::plain("files at first"),
        Column::plain("at last"),
        Column::plain("streams at last"),
    ];
    let title = format!(
        "{:.0} s of dial, transfer, close: {transfers} transfers of 256 KiB there and back",
        span.as_secs_f64()
    );
    let mut table = Table::new("soak", title, columns).about("daemon");
    let mut grown = Vec::new();
    for (at, name) in ["that dials", "that accepts"].into_iter().enumerate() {
        let all: Vec<Sample> = samples.iter().map(|both| both[at]).collect();
        let (first, last) = ends(&all);
        table.row(
            name,
            [first.memory, last.memory, first.files, last.files, last.streams].map(Cell::once).to_vec(),
        );
        if let Some(what) = growth(first, last) {
            grown.push(format!("the daemon {name}: {what}"));
        }
    }
    table.note("At first is the median of the second fifth of the time, at last that of the last fifth.");
    if grown.is_empty() {
        Ok(vec![table])
    } else {
        Err(format!("{}\nsomething grows: {}", table.text(), grown.join("; ")).into())
    }
}

async fn transfer(client: &Client, to: Endpoint) -> Result<(), Failure> {
    let (mut reader, mut writer) = client.dial(to).await?.into_split();
    let data = vec![7; TRANSFER];
    let writing = async {
        writer.write_all(&data).await?;
        writer.finish().await?;
        Ok::<_, Failure>(())
    };
    let mut back = Vec::with_capacity(TRANSFER);
    let reading = async { Ok(reader.read_to_end(&mut back).await?) };
    tokio::try_join!(writing, reading)?;
    if back.len() != TRANSFER {
        return Err(format!("{} bytes of {TRANSFER} came back", back.len()).into());
    }
    Ok(())
}

async fn sample(daemon: &Daemon) -> Result<Sample, Failure> {
    let health = daemon.client().await?.health().await?;
    #[expect(clippy::cast_precision_loss, reason = "these are few")]
    let (files, streams) = (daemon.process.files() as f64, health.connections as f64);
    Ok(Sample { memory: daemon.process.memory() / 1e6, files, streams })
}

/// The medians of the second and of the last fifth: what is opened at the start is no growth.
fn ends(samples: &[Sample]) -> (Sample, Sample) {
    let fifth = samples.len() / 5;
    let median = |part: &[Sample]| {
        let of = |field: fn(&Sample) -> f64| {
            let mut values: Vec<f64> = part.iter().map(field).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        Sample { memory: of(|s| s.memory), files: of(|s| s.files), streams: of(|s| s.streams) }
    };
    (median(&samples[fifth..2 * fifth]), median(&samples[4 * fifth..]))
}

/// What has grown by more than chance.
fn growth(first: Sample, last: Sample) -> Option<String> {
    let mut grown = Vec::new();
    if last.memory > first.memory * 1.05 + SLACK {
        grown.push(format!("memory from {:.1} to {:.1} MB", first.memory, last.memory));
    }
    if last.files > first.files + 1.0 {
        grown.push(format!("files from {} to {}", first.files, last.files));
    }
    if last.streams > first.streams + 8.0 {
        grown.push(format!("streams from {} to {}", first.streams, last.streams));
    }
    (!grown.is_empty()).then(|| grown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_leak_is_growth_and_what_comes_at_the_start_is_not() {
        let steady = |number: f64| Sample {
            memory: if number < 10.0 { 8.0 } else { 12.0 },
            files: 20.0,
            streams: 3.0,
        };
        let leaking = |number: f64| Sample {
            memory: 12.0 + number / 20.0,
            files: 20.0 + number / 10.0,
            streams: number,
        };
        let of = |sample: &dyn Fn(f64) -> Sample| {
            let samples: Vec<Sample> = (0..60).map(|number| sample(f64::from(number))).collect();
            let (first, last) = ends(&samples);
            growth(first, last)
        };
        assert_eq!(of(&steady), None);
        let leak = of(&leaking).unwrap();
        assert!(leak.contains("memory") && leak.contains("files") && leak.contains("streams"), "{leak}");
    }
}
