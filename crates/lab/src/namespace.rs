//! A network namespace: made, entered, and gone again with everything in it.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::thread;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::tool::{attempt, tool};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// What the names of all our namespaces start with; the number of the process that made them follows.
const PREFIX: &str = "plab-";

/// How long a receive on a socket of the lab waits. Long for something that comes, for the lab has no distances.
pub(crate) const SOCKET_PATIENCE: Duration = Duration::from_secs(5);

/// A network namespace. It is deleted when this is dropped, also when a test fails.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with nothing but its loopback interface. No two of a machine may have one name.
    pub fn new(name: &str) -> Self {
        clean_once();
        let name = format!("{PREFIX}{}-{name}", std::process::id());
        tool("ip", &["netns", "add", &name], "");
        let namespace = Self { name };
        namespace.ip("link set lo up");
        namespace
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs lines of `ip` in here.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        tool("ip", &["-n", &self.name, "-batch", "-"], lines);
    }

    /// Loads a file of `nft` rules in here.
    #[track_caller]
    pub fn nft(&self, rules: &str) {
        self.enter(|| tool("nft", &["-f", "-"], rules));
    }

    /// Objects of the rules in here, as JSON.
    #[track_caller]
    pub(crate) fn nft_list(&self, what: &str) -> String {
        self.enter(|| tool("nft", &["--json", "list", what], ""))
    }

    /// Sets a kernel parameter of this namespace, such as `net/ipv4/ip_forward`.
    #[track_caller]
    pub fn set(&self, parameter: &str, value: &str) {
        let path = Path::new("/proc/sys").join(parameter);
        // The file is looked up in the namespace of the thread that opens it.
        let written = self.enter(|| fs::write(&path, value));
        written.unwrap_or_else(|error| panic!("{} = {value}: {error}", path.display()));
    }

    /// Whether there is such a parameter.
    pub fn has(&self, parameter: &str) -> bool {
        let path = Path::new("/proc/sys").join(parameter);
        self.enter(|| path.exists())
    }

    /// Connects this namespace's interface `here` with the interface `there` of another one, as a cable would.
    pub fn cable(&self, here: &str, other: &Self, there: &str) {
        let line =
            format!("link add {here} netns {} type veth peer name {there} netns {}", self.name, other.name);
        tool("ip", &["-batch", "-"], &line);
    }

    /// Does something on a thread that lives in here: its sockets and the programs it starts belong to this namespace
    /// for ever.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let path = path_of(&self.name);
                let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap_or_else(|error| panic!("enter {}: {error}", self.name));
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A UDP socket in here. Its receives end after a while.
    #[track_caller]
    pub fn udp(&self, ip: Ipv4Addr, port: u16) -> UdpSocket {
        let socket = self.enter(|| UdpSocket::bind(SocketAddr::from((ip, port))));
        let socket = socket.unwrap_or_else(|error| panic!("{ip}:{port} in {}: {error}", self.name));
        socket.set_read_timeout(Some(SOCKET_PATIENCE)).expect("a socket takes a time-out");
        socket
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

fn path_of(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// Ends what still runs in a namespace and deletes it.
fn delete(name: &str) {
    let inside = attempt("ip", &["netns", "pids", name], "");
    for id in String::from_utf8_lossy(&inside.stdout).split_whitespace() {
        attempt("kill", &["-KILL", id], "");
    }
    // Nothing can be done about one that stays; the next run tries again.
    attempt("ip", &["netns", "delete", name], "");
}

/// Deletes what runs that were killed have left behind, once per process.
fn clean_once() {
    static CLEANED: Once = Once::new();
    CLEANED.call_once(|| {
        for name in left_over().unwrap_or_default() {
            delete(&name);
        }
    });
}

/// Names of namespaces whose makers are gone.
fn left_over() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(NAMES)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some((maker, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if !Path::new("/proc").join(maker).exists() {
            names.push(name);
        }
    }
    Ok(names)
}
