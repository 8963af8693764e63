//! The rendezvous of this machine, for a daemon that was given no registry: found, or else started.

use std::time::Duration;

use tokio::net::TcpStream;

use crate::cmd::rendezvous::Ready;
use crate::failure::{Code, Failure};
use crate::process;
use crate::settings::Settings;

/// Long enough for a busy machine; on loopback an answer takes microseconds.
const CONNECT: Duration = Duration::from_secs(2);

/// How long a rendezvous may take to open its store and its sockets.
const START: Duration = Duration::from_secs(15);

/// Where a daemon is to register.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) registries: Vec<String>,
    /// Beside each registry its beacon.
    pub(crate) beacons: Vec<String>,
    /// Whether it is this machine's own, which nobody configured.
    pub(crate) own: bool,
    /// The address of a rendezvous that had to be started for this.
    pub(crate) started: Option<String>,
}

/// The configured registry, or this machine's own, started if it is not there.
pub(crate) async fn registry(settings: &Settings) -> Result<Registry, Failure> {
    let configured = settings.registries();
    if !configured.is_empty() {
        let beacons = beacons(settings, &configured)?;
        return Ok(Registry { registries: configured, beacons, own: false, started: None });
    }
    let address = reachable(settings.get("registry_addr").unwrap_or("127.0.0.1:9000"));
    let beacon = settings.get("beacon").or(settings.get("beacon_addr")).unwrap_or("127.0.0.1:9001");
    let beacon = reachable(beacon);
    let started = find_or_start(settings, &address).await?;
    Ok(Registry { registries: vec![address], beacons: vec![beacon], own: true, started })
}

/// The beacons that are set, one for each registry or one for all; or else the one beside each.
fn beacons(settings: &Settings, registries: &[String]) -> Result<Vec<String>, Failure> {
    let set = settings.list("beacon");
    match set.len() {
        0 => registries.iter().map(|registry| beside(registry)).collect(),
        1 => Ok(set),
        count if count == registries.len() => Ok(set),
        count => {
            let message = format!("{count} beacons for {} registries", registries.len());
            Err(Failure::usage(message)
                .hint("give one beacon for each registry, in the same order, or one for all"))
        }
    }
}

/// The beacon of a rendezvous listens one port above its registry, unless something else is said.
fn beside(registry: &str) -> Result<String, Failure> {
    let parsed = registry.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parsed.and_then(|(host, port)| Some((host, port.checked_add(1)?))) {
        Some((host, port)) => Ok(format!("{host}:{port}")),
        None => {
            Err(Failure::usage(format!("`{registry}` has no port above it for the beacon"))
                .hint("set --beacon"))
        }
    }
}

/// An address to connect to for one to listen on.
fn reachable(listen: &str) -> String {
    let port = |prefix: &str| listen.strip_prefix(prefix).filter(|port| port.parse::<u16>().is_ok());
    match port("0.0.0.0:").or_else(|| port(":")) {
        Some(port) => format!("127.0.0.1:{port}"),
        None => listen.to_owned(),
    }
}

/// `Some(address)` if it had to be started. Of several that try at once one starts it, the others wait for the
/// lock and find it; one that raced another user's loses the bind, and finds it too.
async fn find_or_start(settings: &Settings, address: &str) -> Result<Option<String>, Failure> {
    if answers(address).await {
        return Ok(None);
    }
    let _lock = lock(settings).await?;
    if answers(address).await {
        return Ok(None);
    }
    let words: Vec<String> = ["rendezvous", "run", "--json"].map(str::to_owned).into();
    match process::start("rendezvous", &words, &[], &log_path(settings), START).await {
        Ok(data) => {
            let ready: Ready = serde_json::from_value(data)
                .map_err(|e| Failure::internal(format!("the rendezvous' report is not understood: {e}")))?;
            Ok(Some(ready.registry_addr))
        }
        Err(failure) if failure.code == Code::AlreadyExists && answers(address).await => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// Whether somebody takes connections at `address`.
pub(crate) async fn answers(address: &str) -> bool {
    matches!(tokio::time::timeout(CONNECT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

pub(crate) fn log_path(settings: &Settings) -> std::path::PathBuf {
    settings.home().join("rendezvous.log")
}

/// Held by the one that starts it; let go when the file is closed, also by a crash.
async fn lock(settings: &Settings) -> Result<std::fs::File, Failure> {
    let path = settings.home().join("rendezvous.lock");
    let shown = path.display().to_string();
    let locked = tokio::task::spawn_blocking(move || {
        crate::settings::private_directory(path.parent().unwrap_or(&path))?;
        let file = std::fs::File::create(&path)?;
        file.lock()?;
        Ok(file)
    });
    match locked.await {
        Ok(Ok(file)) => Ok(file),
        Ok(Err(e)) => Err(Failure::io(format!("locking {shown}"), &e)),
        Err(e) => Err(Failure::internal(format!("locking {shown}: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beacon_is_one_port_above_the_registry() {
        assert_eq!(beside("rendezvous.example.com:9000").unwrap(), "rendezvous.example.com:9001");
        assert_eq!(beside("host:65535").unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn an_address_to_listen_on_becomes_one_to_connect_to() {
        assert_eq!(reachable("0.0.0.0:9000"), "127.0.0.1:9000");
        assert_eq!(reachable(":9000"), "127.0.0.1:9000");
        assert_eq!(reachable("10.0.0.5:9000"), "10.0.0.5:9000");
    }
}
