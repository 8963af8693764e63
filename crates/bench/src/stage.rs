//! A rendezvous and daemons of ours, each a process of `pilotctl`, in a temporary folder.

use std::{
    net::{TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use pilot_client::{Client, NodeId};
use tempfile::TempDir;

use crate::{
    Failure,
    process::{Process, isolated},
};

/// A daemon that is not there after this does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The environment variable that says which `pilotctl` is measured.
pub(crate) const PROGRAM: &str = "PILOT_BENCH_PILOTCTL";

/// Builds `pilotctl` as this executable was built, if cargo runs it, and says where it is.
pub(crate) fn prepare() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os(PROGRAM) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    // Tests are one folder deeper.
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).ok_or("no folder")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "pilotctl"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if folder.ends_with("release") {
            build.arg("--release");
        }
        if !build.status()?.success() {
            return Err("pilotctl does not build".into());
        }
    }
    let program = folder.join("pilotctl");
    if !program.exists() {
        return Err(format!("{} is missing: build it, or name one in {PROGRAM}", program.display()).into());
    }
    Ok(program)
}

/// A rendezvous, and a place for daemons.
#[derive(Debug)]
pub(crate) struct Stage {
    program: PathBuf,
    /// Ends with the stage.
    _rendezvous: Process,
    registry: String,
    beacon: String,
    // Last, so that it goes after the processes that have files in it.
    folder: TempDir,
}

/// A daemon with its home.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) process: Process,
    pub(crate) socket: PathBuf,
    pub(crate) node: NodeId,
}

impl Stage {
    /// Starts a rendezvous.
    pub(crate) fn open() -> Result<Self, Failure> {
        let program = prepare()?;
        let folder = tempfile::Builder::new().prefix("pilot-bench-").tempdir()?;
        let (registry, beacon) = (free_tcp()?, free_udp()?);
        let mut command = isolated(&program, folder.path());
        command.args(["rendezvous", "run", "--registry-addr", &registry, "--beacon-addr", &beacon]);
        command.args(["--web-listen", "off", "--http-listen", "off", "--store"]);
        command.arg(folder.path().join("rendezvous.redb"));
        let rendezvous =
            Process::start("rendezvous", &mut command, Some(&folder.path().join("rendezvous.log")))?;
        until("the rendezvous answers", || std::net::TcpStream::connect(&registry).ok())?;
        Ok(Self { program, _rendezvous: rendezvous, registry, beacon, folder })
    }

    /// Where the registry is.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Where the beacon is.
    pub(crate) fn beacon(&self) -> &str {
        &self.beacon
    }

    /// A folder that lives as long as the stage.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a daemon with the settings that everybody has, and these flags, and waits until it is registered.
    pub(crate) async fn daemon(&self, name: &str, flags: &[&str]) -> Result<Daemon, Failure> {
        let home = self.folder.path().join(name);
        std::fs::create_dir_all(&home)?;
        let socket = home.join("p.sock");
        let mut command = isolated(&self.program, &home);
        command.args([
            "daemon",
            "run",
            "--listen",
            "127.0.0.1:0",
            "--hostname",
            name,
            "--trust-auto-approve",
        ]);
        command.args(["--registry", &self.registry, "--beacon", &self.beacon, "--no-port-mapping"]);
        command.args(["--no-lan-discovery"]).args(flags).arg("--socket").arg(&socket);
        let process = Process::start(name, &mut command, Some(&home.join("log")))?;
        let start = Instant::now();
        loop {
            if let Ok(client) = Client::connect_to(&socket).await
                && let Ok(info) = client.info().await
                && info.node_id != NodeId::UNSET
            {
                return Ok(Daemon { process, socket, node: info.node_id });
            }
            if start.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
                return Err(format!("the daemon {name} does not register:\n{log}").into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Daemon {
    /// A client of it.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        Ok(Client::connect_to(&self.socket).await?)
    }

    /// Trusts the other, which approves whoever asks.
    pub(crate) async fn befriend(&self, other: &Self) -> Result<(), Failure> {
        let client = self.client().await?;
        client.handshake(other.node, "bench").await?;
        client.wait_trust(other.node, PATIENCE).await?;
        Ok(())
    }
}

/// Looks again and again until there is something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T, Failure> {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if start.elapsed() > PATIENCE {
            return Err(format!("waited too long until {what}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An address of loopback with a port that nobody uses.
pub(crate) fn free_tcp() -> Result<String, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The same for UDP.
pub(crate) fn free_udp() -> Result<String, Failure> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
