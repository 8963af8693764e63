//! Many daemons in one process, each with its own key, its own socket and a place at the registry.

use std::path::{Path, PathBuf};

use pilot_client::{Addr, Client, NodeId, Port};
use pilot_daemon::{Config, Services, run};
use tokio::{io::AsyncReadExt, sync::oneshot, task::JoinSet};

use crate::{Failure, work::MESSAGE};

/// Daemons that start at the same time.
const AT_ONCE: usize = 25;

/// Starts them, lets each open a stream to the hub and end it, says how many have, and waits until it is ended.
pub(crate) async fn play(words: &[&str]) -> Result<(), Failure> {
    let [registry, beacon, folder, hub, count] = words else { return Err("a crowd has five words".into()) };
    let hub = NodeId(hub.parse()?);
    let count: usize = count.parse()?;
    let mut starting = JoinSet::new();
    let mut met = 0;
    for number in 0..count {
        if starting.len() >= AT_ONCE
            && let Some(done) = starting.join_next().await
        {
            done??;
            met += 1;
        }
        let mut config = Config::at(home(Path::new(folder), number));
        config.listen = ([127, 0, 0, 1], 0).into();
        config.registries = vec![(*registry).to_owned()];
        config.beacons = vec![(*beacon).to_owned()];
        config.port_mapping = false;
        config.lan_discovery = false;
        config.pid_file = false;
        config.services = Services { echo: false, data_exchange: false, event_stream: false, tasks: false };
        starting.spawn(meet(config, hub));
    }
    while let Some(done) = starting.join_next().await {
        done??;
        met += 1;
    }
    crate::process::say(&met.to_string())?;
    std::future::pending().await
}

fn home(folder: &Path, number: usize) -> PathBuf {
    folder.join(number.to_string())
}

/// One of them: it goes on after this.
async fn meet(config: Config, hub: NodeId) -> Result<(), Failure> {
    let socket = config.socket.clone();
    let (ready, running) = oneshot::channel();
    let announce = move |running| {
        // Whoever waited has been told by an error.
        let _ = ready.send(running);
    };
    let daemon = tokio::spawn(async move { Box::pin(run(config, announce, std::future::pending())).await });
    if running.await.is_err() {
        daemon.await??;
        return Err("a daemon has ended".into());
    }
    let client = Client::connect_to(&socket).await?;
    let mut stream = client.dial_with(Addr::backbone(hub).port(Port::ECHO), &[7; MESSAGE]).await?;
    stream.read_exact(&mut [0; MESSAGE]).await?;
    stream.close().await?;
    Ok(())
}
