//! From a local connection to a port of a peer.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pilot_client::{Addr, Client, Port, Stream};

use super::crowd::Crossing;
use super::daemon::Daemon;
use super::local::Socket;
use super::name::host_name;
use super::splice::splice;
use crate::cmd::connect::explain;
use crate::failure::{Code, Failure};
use crate::target::Target;

/// What fits beside a dial: the first packet of most paths carries about as much.
const FIRST_BYTES: usize = 1 << 10;

/// How long a program may take to say something before the peer is dialled without. Those that speak first do so in
/// microseconds, and save a round trip; those that listen first lose this.
const FIRST_WAIT: Duration = Duration::from_millis(1);

/// How long the address behind a name is used without asking again. The registry is asked each time otherwise.
const NAME_LIFETIME: Duration = Duration::from_secs(10);

/// Names that are remembered. One more makes all be forgotten, and asked for again when they are wanted.
const NAMES_MAX: usize = 1024;

/// How long a daemon that has just started may take to register, and the pause between two looks.
const REGISTERING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_millis(100));

/// A port of a peer: `agent-b:80`, `1:0001.0002.0003:80`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct To {
    pub(crate) target: Target,
    pub(crate) port: Port,
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a port of a peer; write agent-b:80 or 0:0000.0000.0002:80");
        let (target, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map(Port).map_err(|_| wrong())?;
        let target = host_name(target).or_else(|_| Target::parse(target)).map_err(|_| wrong())?;
        Ok(Self { target, port })
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.target, self.port)
    }
}

/// Opens streams to peers.
pub(crate) struct Dialler {
    daemon: Daemon,
    names: Mutex<BTreeMap<String, (Addr, Instant)>>,
}

impl Dialler {
    pub(crate) const fn new(daemon: Daemon) -> Self {
        Self { daemon, names: Mutex::new(BTreeMap::new()) }
    }

    /// Opens a stream that begins with these bytes.
    pub(crate) async fn dial(&self, to: &To, first: &[u8]) -> Result<Stream, Failure> {
        let (patience, pause) = REGISTERING;
        let begin = Instant::now();
        loop {
            match self.try_dial(to, first).await {
                Err(failure) if failure.code == Code::NotRegistered && begin.elapsed() < patience => {
                    tokio::time::sleep(pause).await;
                }
                dialled => {
                    return dialled.map_err(|failure| explain(&to.target.to_string(), to.port, failure));
                }
            }
        }
    }

    async fn try_dial(&self, to: &To, first: &[u8]) -> Result<Stream, Failure> {
        let client = self.daemon.client().await?;
        let endpoint = self.address(&client, &to.target).await?.port(to.port);
        let dialled = match first.is_empty() {
            true => client.dial(endpoint).await,
            false => client.dial_with(endpoint, first).await,
        };
        dialled.map_err(|error| {
            self.forget(&to.target);
            error.into()
        })
    }

    /// Carries what comes on a socket to a port of a peer, and back. One that cannot be reached is a reset.
    pub(crate) async fn carry(&self, socket: Socket, to: &To) -> Crossing {
        let first = socket.first_bytes(FIRST_BYTES, FIRST_WAIT).await;
        match self.dial(to, &first).await {
            Ok(stream) => Self::join(socket, stream, to, first.len()).await,
            Err(failure) => {
                socket.reset();
                Crossing::failed(to, failure)
            }
        }
    }

    /// Carries both ways on a stream that has been given its first bytes.
    pub(crate) async fn join(socket: Socket, stream: Stream, to: &To, first: usize) -> Crossing {
        let mut carried = splice(socket, stream).await;
        carried.sent += first as u64;
        Crossing::of(to, carried)
    }

    async fn address(&self, client: &Client, target: &Target) -> Result<Addr, Failure> {
        let Target::Name(name) = target else { return Ok(target.resolve(client).await?.addr) };
        if let Some((addr, _)) = self.names().get(name).filter(|(_, asked)| asked.elapsed() < NAME_LIFETIME) {
            return Ok(*addr);
        }
        let addr = target.resolve(client).await?.addr;
        let mut names = self.names();
        if names.len() >= NAMES_MAX {
            names.clear();
        }
        names.insert(name.clone(), (addr, Instant::now()));
        Ok(addr)
    }

    fn forget(&self, target: &Target) {
        if let Target::Name(name) = target {
            self.names().remove(name);
        }
    }

    fn names(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (Addr, Instant)>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_a_peer_is_the_peer_a_colon_and_the_port() {
        for (text, shown) in [
            ("agent-b:80", "agent-b:80"),
            ("agent-b.pilot:80", "agent-b:80"),
            ("2:80", "2:80"),
            ("1:0001.0002.0003:443", "1:0001.0002.0003:443"),
        ] {
            assert_eq!(text.parse::<To>().unwrap().to_string(), shown);
        }
        for text in ["agent-b", "agent-b:", "agent-b:65536", "0:0000.0000.0002", "Agent B:80", ":80"] {
            assert!(text.parse::<To>().is_err(), "{text}");
        }
    }
}
