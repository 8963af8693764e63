//! What a node is told before it starts.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pilot_client::NodeId;
use pilot_daemon::{Config, Services};

use crate::{Node, StartError};

/// How long the end of a node may take to deliver what was written, unless [`Builder::linger`] says otherwise.
const LINGER: Duration = Duration::from_secs(2);

/// A node to be. Made by [`Node::builder`].
///
/// Without [`home`](Self::home) and [`identity`](Self::identity) the node is ephemeral: it has a new key, hence a new
/// address, and its inbox and everything else that it keeps are gone with it.
#[derive(Debug, Clone)]
#[must_use = "a node runs once it is started"]
pub struct Builder {
    home: Option<PathBuf>,
    identity: Option<PathBuf>,
    pub(crate) place: Place,
    config: Config,
}

/// Where a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// On the caller's runtime.
    Here,
    /// On a thread and runtime of its own.
    OwnThread,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let mut config = Config::at("");
        config.serve_socket = false;
        config.pid_file = false;
        config.linger = LINGER;
        Self { home: None, identity: None, place: Place::Here, config }
    }

    /// The folder for everything that the node keeps: identity, trust, inbox, received files. It is made if it is
    /// missing, readable by its owner only. Two nodes, or a node and a daemon, cannot share one at the same time.
    pub fn home(mut self, folder: impl Into<PathBuf>) -> Self {
        self.home = Some(folder.into());
        self
    }

    /// The file with the node's key, to which its address is bound; it is made (0600) if it is missing. What else the node
    /// keeps lies in the same folder, unless [`home`](Self::home) says otherwise.
    pub fn identity(mut self, file: impl Into<PathBuf>) -> Self {
        self.identity = Some(file.into());
        self
    }

    /// A registry, `host:port`. More than one may be given, in the order of preference; without any, only known peers are
    /// reached.
    pub fn registry(mut self, address: impl Into<String>) -> Self {
        self.config.registries.push(address.into());
        self
    }

    /// The beacon beside the registry of the same position, `host:port`. Without any, it is taken to be one port above
    /// each registry.
    pub fn beacon(mut self, address: impl Into<String>) -> Self {
        self.config.beacons.push(address.into());
        self
    }

    /// The local address of the tunnel socket (UDP). Unless this is said, all of them, with a port that the system chooses
    /// and the node then keeps.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.config.listen = address;
        self
    }

    /// The name at the registry.
    pub fn hostname(mut self, name: impl Into<String>) -> Self {
        self.config.hostname = Some(name.into());
        self
    }

    /// Whether the node answers everyone, instead of those it trusts only.
    pub fn public(mut self, public: bool) -> Self {
        self.config.public = Some(public);
        self
    }

    /// Trusts these nodes if they ask. All others wait for [`Client::approve`](pilot_client::Client::approve).
    pub fn approve(mut self, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        self.config.approved.extend(nodes);
        self
    }

    /// Trusts every node that asks. For closed networks and experiments.
    pub fn approve_all(mut self) -> Self {
        self.config.trust_auto_approve = true;
        self
    }

    /// Which built-in services run: echo, messages and files, events, tasks. All, unless this is said.
    pub fn services(mut self, services: Services) -> Self {
        self.config.services = services;
        self
    }

    /// None of the built-in services: the node has streams and datagrams of the program's own ports only. Requests for
    /// trust are answered all the same.
    pub fn without_services(self) -> Self {
        self.services(Services { echo: false, data_exchange: false, event_stream: false, tasks: false })
    }

    /// Serves the socket of a daemon too, so that other programs of this user, such as `pilotctl --socket PATH`, use the
    /// node.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.socket = path.into();
        self.config.serve_socket = true;
        self
    }

    /// Runs the node on a thread of its own instead of the caller's runtime. For programs whose tasks work for long without
    /// a break, which would keep the network waiting, and for those that have no runtime that lasts. It costs a
    /// switch between threads whenever program and node talk.
    pub fn own_thread(mut self) -> Self {
        self.place = Place::OwnThread;
        self
    }

    /// How long [`Node::shutdown`] may take to deliver what was written to streams. 2 s, unless this is said.
    pub fn linger(mut self, time: Duration) -> Self {
        self.config.linger = time;
        self
    }

    /// Changes anything else that a daemon can be told. Paths are set when the node starts: see [`home`](Self::home).
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the node, and waits until it serves: until the registry has answered, or has not within 2 s
    /// ([`Node::is_registered`]).
    ///
    /// # Errors
    /// When an address or folder cannot be used; see [`StartError::hint`].
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled, unless the node has a [thread of its own](Self::own_thread).
    pub async fn start(self) -> Result<Node, StartError> {
        Node::start(self).await
    }

    /// What the daemon inside is told, for a node whose folder is this one unless it has another.
    pub(crate) fn into_config(self, ephemeral: Option<&Path>) -> Result<Config, StartError> {
        let Self { home, identity, mut config, .. } = self;
        let beside = identity.as_deref().map(folder_of);
        let home = home.or_else(|| beside.map(Path::to_owned)).or_else(|| ephemeral.map(Path::to_owned));
        let at = Config::at(home.unwrap_or_default());
        config.identity = identity.unwrap_or(at.identity);
        config.home = at.home;
        if !config.serve_socket {
            // There is nothing that anybody could connect to.
            config.socket = PathBuf::new();
        }
        if config.beacons.is_empty() {
            config.beacons =
                config.registries.iter().map(|registry| above(registry)).collect::<Result<_, _>>()?;
        }
        Ok(config)
    }

    pub(crate) const fn is_ephemeral(&self) -> bool {
        self.home.is_none() && self.identity.is_none()
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// The beacon of a rendezvous listens one port above its registry, unless something else is said.
fn above(registry: &str) -> Result<String, StartError> {
    let beacon = registry.rsplit_once(':').and_then(|(host, port)| {
        let port: u16 = port.parse().ok()?;
        Some(format!("{host}:{}", port.checked_add(1)?))
    });
    beacon.ok_or_else(|| StartError::Registry { address: registry.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_keeps_lies_beside_its_identity_unless_it_has_a_home() {
        let config = Node::builder().identity("agents/a.json").into_config(None).unwrap();
        assert_eq!((config.home, config.identity), ("agents".into(), "agents/a.json".into()));
        let config = Node::builder().identity("a.json").into_config(None).unwrap();
        assert_eq!((config.home, config.identity), (".".into(), "a.json".into()));
        let config = Node::builder().home("agents").into_config(None).unwrap();
        assert_eq!((config.home, config.identity), ("agents".into(), "agents/identity.json".into()));
        let both = Node::builder().home("agents").identity("keys/a.json").into_config(None).unwrap();
        assert_eq!((both.home, both.identity), ("agents".into(), "keys/a.json".into()));
    }

    #[test]
    fn the_beacon_is_one_port_above_each_registry_unless_it_is_named() {
        let two = Node::builder().registry("a.example.com:9000").registry("[::1]:7000");
        assert_eq!(two.clone().into_config(None).unwrap().beacons, ["a.example.com:9001", "[::1]:7001"]);
        assert_eq!(two.beacon("b.example.com:1").into_config(None).unwrap().beacons, ["b.example.com:1"]);
        assert!(matches!(
            Node::builder().registry("example.com").into_config(None),
            Err(StartError::Registry { .. })
        ));
    }

    #[test]
    fn no_socket_is_made_unless_it_is_asked_for() {
        let config = Node::builder().home("x").into_config(None).unwrap();
        assert!(!config.serve_socket && !config.pid_file);
        let config = Node::builder().home("x").socket("/run/p.sock").into_config(None).unwrap();
        assert!(config.serve_socket && config.socket == Path::new("/run/p.sock"));
    }
}
