//! What a stream costs: the time of a dial and of a small message there and back, and the rate of a large transfer,
//! through the echo service of a peer.
//!
//! ```text
//! cargo run --release -p pilot-client --example measure -- agent-b [MEGABYTES]
//! ```

#![expect(clippy::print_stdout, reason = "it shows what it measured")]

use std::time::{Duration, Instant};

use pilot_client::{Client, Endpoint, Port};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Failed = Box<dyn std::error::Error + Send + Sync>;

const DIALS: usize = 100;
const MESSAGES: usize = 2000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let target = arguments.next().ok_or("usage: measure PEER [MEGABYTES]")?;
    let megabytes: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let client = Client::connect().await?;
    let echo = client.resolve(&target).await?.address.port(Port::ECHO);
    show("dial", dials(&client, echo).await?);
    show("message of 32 bytes and its echo", messages(&client, echo).await?);
    let took = bulk(&client, echo, megabytes << 20).await?;
    println!("{megabytes} MiB and their echo: {took:?}, {:.1} MiB/s", megabytes as f64 / took.as_secs_f64());
    Ok(())
}

async fn dials(client: &Client, echo: Endpoint) -> Result<Vec<Duration>, Failed> {
    let mut times = Vec::new();
    for _ in 0..DIALS {
        let start = Instant::now();
        let stream = client.dial(echo).await?;
        times.push(start.elapsed());
        stream.close().await?;
    }
    Ok(times)
}

async fn messages(client: &Client, echo: Endpoint) -> Result<Vec<Duration>, Failed> {
    let mut stream = client.dial(echo).await?;
    let mut times = Vec::new();
    for _ in 0..MESSAGES {
        let start = Instant::now();
        stream.write_all(&[7; 32]).await?;
        stream.read_exact(&mut [0; 32]).await?;
        times.push(start.elapsed());
    }
    Ok(times)
}

async fn bulk(client: &Client, echo: Endpoint, size: usize) -> Result<Duration, Failed> {
    let (mut reader, mut writer) = client.dial(echo).await?.into_split();
    let start = Instant::now();
    let writing = async {
        let piece = vec![7; 256 * 1024];
        let mut left = size;
        while left > 0 {
            let now = left.min(piece.len());
            writer.write_all(&piece[..now]).await?;
            left -= now;
        }
        Ok::<_, Failed>(())
    };
    let reading = async {
        let mut buffer = vec![0; 256 * 1024];
        let mut got = 0;
        while got < size {
            match reader.read(&mut buffer).await? {
                0 => return Err("the echo ended early".into()),
                length => got += length,
            }
        }
        Ok(())
    };
    tokio::try_join!(writing, reading)?;
    Ok(start.elapsed())
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{what}: median {:?}, 99th of 100 {:?}, longest {:?}", at(50), at(99), at(100));
}
