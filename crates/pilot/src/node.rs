//! A node that runs inside this process.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use pilot_client::local::{self, Door};
use pilot_client::{Addr, Client, NodeId};
use pilot_daemon::{Config, RunError, Running, SocketError};
use tokio::sync::oneshot;

use crate::Builder;
use crate::builder::Place;

/// How long work on the disk may hold up the end of a node's own runtime.
const DISK_LIMIT: Duration = Duration::from_secs(1);

/// Bytes of chance in the name of an ephemeral node's folder.
const NAME_BYTES: usize = 8;

/// A node inside this process: all of a daemon but its socket, and that too if it is asked for ([`Builder::socket`]).
///
/// Its clients ([`Node::client`]) work as long as it does. When it is dropped it ends by itself, in order but
/// unobserved; [`Node::shutdown`] waits for that. A process may have several.
#[derive(Debug)]
pub struct Node {
    running: Running,
    client: Client,
    /// Dropped: the node is asked to end.
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<Result<(), RunError>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address of a registry is none.
    #[error("`{address}` is not the host:port of a registry that has its beacon one port above")]
    Registry {
        /// What was given.
        address: String,
    },
    /// An ephemeral node has no folder.
    #[error("cannot make a folder for the node in {}: {source}", path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no thread or runtime.
    #[error("cannot start a thread for the node: {0}")]
    Thread(io::Error),
    /// The node itself could not start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The node ended before it served.
    #[error("the node ended while it started")]
    Ended,
}

impl StartError {
    /// The class of the failure, in the words of the command line.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Registry { .. } => "invalid_argument",
            Self::Folder { .. } | Self::Thread(_) | Self::Ended => "internal",
            Self::Run(error) => error.code(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Registry { .. } => Some("such as rendezvous.example.com:9000; or name the beacon"),
            Self::Folder { .. } => Some("give the node a folder of its own: Builder::home"),
            Self::Run(RunError::AlreadyRunning { .. }) => {
                Some("a node or daemon has this folder; give each its own: Builder::home")
            }
            Self::Run(RunError::Socket(SocketError::InUse { .. })) => {
                Some("a daemon has this socket: use Client::connect_to, or another path")
            }
            Self::Run(RunError::Listen { .. }) => Some("choose another address or port: Builder::listen"),
            Self::Run(error) => error.hint(),
            Self::Thread(_) | Self::Ended => None,
        }
    }
}

impl Node {
    /// A node to be set up and started.
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) async fn start(builder: Builder) -> Result<Self, StartError> {
        let folder = builder.is_ephemeral().then(Folder::new).transpose()?;
        let place = builder.place;
        let config = builder.into_config(folder.as_ref().map(Folder::path))?;
        let (door, entrance) = local::door();
        let (ready, is_ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let inside = door.clone();
        let life = async move {
            let result = run(config, inside, entrance, ready, stopped).await;
            drop(folder);
            result
        };
        let thread = match place {
            Place::Here => {
                tokio::spawn(async move {
                    // Whoever started it may not care any more.
                    let _ = end.send(life.await);
                });
                None
            }
            Place::OwnThread => Some(on_own_thread(life, end)?),
        };
        let Ok(running) = is_ready.await else {
            return Err(match ended.await {
                Ok(Err(error)) => error.into(),
                Ok(Ok(())) | Err(_) => StartError::Ended,
            });
        };
        let client = door.connect().await.map_err(|_| StartError::Ended)?;
        Ok(Self { running, client, stop: Some(stop), ended, thread })
    }

    /// A client of this node: what [`Client::connect`] is for a daemon. All are the same one; for ports and requests that
    /// end on their own, [`Client::reconnect`] makes another.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The number at the registry; unset if it was never registered.
    #[must_use]
    pub const fn id(&self) -> NodeId {
        self.running.node_id
    }

    /// The address, as it was when the node started.
    #[must_use]
    pub const fn address(&self) -> Addr {
        self.running.address
    }

    /// The name at the registry, or nothing.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.running.hostname
    }

    /// The local address of the tunnel socket (UDP).
    #[must_use]
    pub const fn listen(&self) -> SocketAddr {
        self.running.listen
    }

    /// Whether the registry had confirmed the number when the node started. If not, it goes on trying.
    #[must_use]
    pub const fn is_registered(&self) -> bool {
        self.running.registered
    }

    /// Why the registry had not.
    #[must_use]
    pub fn registry_error(&self) -> Option<&str> {
        self.running.registry_error.as_deref()
    }

    /// Ends the node as a daemon ends: what was written to streams is delivered if it can be in the time of
    /// [`Builder::linger`], peers are told, and clients have [`Error::Ended`](pilot_client::Error::Ended) from then on. Resolves
    /// when nothing of it is left.
    ///
    /// # Errors
    /// None at present: a node that has started has no fatal errors.
    pub async fn shutdown(mut self) -> Result<(), RunError> {
        drop(self.stop.take());
        let ended = (&mut self.ended).await.unwrap_or(Ok(()));
        if let Some(thread) = self.thread.take() {
            // It has done everything; a panic inside has been reported by its hook.
            let _ = thread.join();
        }
        ended
    }
}

async fn run(
    config: Config,
    door: Door,
    entrance: local::Entrance,
    ready: oneshot::Sender<Running>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), RunError> {
    let announce = move |running| {
        // Whoever started it may have given up.
        let _ = ready.send(running);
    };
    let shutdown = async move {
        let _ = stopped.await;
    };
    Box::pin(pilot_daemon::run_behind(door, entrance, config, announce, shutdown)).await
}

fn on_own_thread(
    life: impl Future<Output = Result<(), RunError>> + Send + 'static,
    end: oneshot::Sender<Result<(), RunError>>,
) -> Result<thread::JoinHandle<()>, StartError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
    let work = move || {
        let result = runtime.block_on(life);
        runtime.shutdown_timeout(DISK_LIMIT);
        // Whoever started it may not care any more.
        let _ = end.send(result);
    };
    thread::Builder::new().name("pilot-node".to_owned()).spawn(work).map_err(StartError::Thread)
}

/// The folder of an ephemeral node: private, and removed with it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, StartError> {
        let temporary = std::env::temp_dir();
        let name = pilot_crypto::random_bytes::<NAME_BYTES>().map_err(RunError::from)?;
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = temporary.join(format!("pilot-node-{name}"));
        // Made, not found: a folder that somebody else has put there is refused.
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Ok(Self(path)),
            Err(source) => Err(StartError::Folder { path: temporary, source }),
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is in the folder for temporary files, and private.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
