//! The imagined internet: a bridge with public addresses, a rendezvous, and whoever is plugged in.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::thread;

use pilot_interop::{Node, Place, Process, Program, isolate, until};
use tempfile::TempDir;

use crate::host::Host;
use crate::namespace::Namespace;
use crate::router::{Nat, OUTSIDE, Router};
use crate::trace::Trace;

/// The rendezvous. Its machine has two addresses, because who looks at a NAT needs two places to look from.
pub const RENDEZVOUS: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2)];

/// The registry.
pub const REGISTRY: SocketAddrV4 = SocketAddrV4::new(RENDEZVOUS[0], 9000);

/// The beacon.
pub const BEACON: SocketAddrV4 = SocketAddrV4::new(RENDEZVOUS[0], 9001);

/// The token of the rendezvous.
const TOKEN: &str = "lab";
/// The registry and beacon of a second rendezvous, which a test may start on the same machine.
pub const SECOND: [SocketAddrV4; 2] =
    [SocketAddrV4::new(RENDEZVOUS[0], 9100), SocketAddrV4::new(RENDEZVOUS[0], 9101)];

/// The first host number that is given to those who are plugged in; below are the rendezvous's.
const FIRST_HOST: u32 = 10;

/// The first port that is given to a daemon.
const FIRST_PORT: u16 = 40_000;

/// What every home uses inside, as homes do: addresses of two homes look alike.
const HOME_GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);

/// What every carrier uses inside (RFC 6598).
const CARRIER_GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);

/// An internet of its own with a rendezvous. Nothing in it can reach anything outside.
#[derive(Debug)]
pub struct Lab {
    // Before the namespaces and the folder, so that it is gone when they go.
    rendezvous: Option<Process>,
    second: Option<Process>,
    trace: Trace,
    rendezvous_host: Host,
    internet: Namespace,
    number: u32,
    hosts: AtomicU32,
    ports: AtomicU16,
    folder: TempDir,
}

impl Default for Lab {
    fn default() -> Self {
        Self::open()
    }
}

impl Lab {
    /// Lays the cables and starts a rendezvous.
    pub fn open() -> Self {
        let mut lab = Self::without_rendezvous();
        lab.start_rendezvous();
        lab
    }

    /// Lays the cables. The rendezvous's machine is there, but runs nothing.
    pub fn without_rendezvous() -> Self {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let internet = Namespace::new(&format!("{number}-internet"));
        internet.ip("link add internet type bridge\nlink set internet up");
        let mut rendezvous_host = Host::new(&format!("{number}-rendezvous"));
        let interface = rendezvous_host.next_interface();
        plug(&internet, rendezvous_host.namespace(), &interface);
        let [first, second] = RENDEZVOUS;
        rendezvous_host.attach(&interface, first, None);
        rendezvous_host.namespace().ip(&format!("address add {second}/24 dev {interface}"));
        let folder = tempfile::Builder::new().prefix("pilot-lab-").tempdir().expect("a folder can be made");
        Self {
            rendezvous: None,
            second: None,
            trace: Trace::start(&internet),
            rendezvous_host,
            internet,
            number,
            hosts: AtomicU32::new(0),
            ports: AtomicU16::new(0),
            folder,
        }
    }

    /// A folder for files of a test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The namespace of the cables of the internet.
    pub fn internet(&self) -> &Namespace {
        &self.internet
    }

    /// The machine of the rendezvous.
    pub fn rendezvous(&self) -> &Host {
        &self.rendezvous_host
    }

    /// A host with a public address.
    pub fn host(&self, name: &str) -> Host {
        let mut host = Host::new(&self.full(name));
        self.plug_in(&mut host);
        host
    }

    /// Moves a host to the public internet, where it gets a new address.
    pub fn plug_in(&self, host: &mut Host) {
        let interface = host.next_interface();
        plug(&self.internet, host.namespace(), &interface);
        host.attach(&interface, self.next_address(), None);
    }

    /// A home's router with a public address.
    pub fn home(&self, name: &str, nat: Nat) -> Router {
        self.router(name, nat, HOME_GATEWAY)
    }

    /// A carrier's router with a public address, for homes behind it.
    pub fn carrier(&self, name: &str, nat: Nat) -> Router {
        self.router(name, nat, CARRIER_GATEWAY)
    }

    /// A home's router with an address of the carrier.
    pub fn home_behind(&self, carrier: &mut Router, name: &str, nat: Nat) -> Router {
        let outside = carrier.next_inside();
        let router = Router::new(&self.full(name), nat, HOME_GATEWAY, outside);
        carrier.connect(router.namespace(), OUTSIDE);
        router.go_online(Some(carrier.inside()));
        router
    }

    /// A host behind a router.
    pub fn host_behind(&self, router: &mut Router, name: &str) -> Host {
        let mut host = Host::new(&self.full(name));
        self.move_behind(router, &mut host);
        host
    }

    /// Moves a host behind a router, where it gets a new address.
    pub fn move_behind(&self, router: &mut Router, host: &mut Host) {
        let interface = host.next_interface();
        router.connect(host.namespace(), &interface);
        host.attach(&interface, router.next_inside(), Some(router.inside()));
    }

    /// Starts a daemon of ours on a host. Its home is named like it.
    pub fn ours(&self, host: &Host, name: &str, flags: &[&str]) -> Node {
        self.ours_at(self.next_port(), host, name, flags)
    }

    /// As [`ours`](Self::ours), on a port that others may have too.
    pub fn ours_at(&self, port: u16, host: &Host, name: &str, flags: &[&str]) -> Node {
        let more = ["--log-level", "debug"];
        self.node(Program::Ours, port, host, name, &[&more, flags].concat(), &[], BEACON)
    }

    /// As [`ours`](Self::ours), at another beacon.
    pub fn ours_via(&self, beacon: SocketAddrV4, host: &Host, name: &str, flags: &[&str]) -> Node {
        let more = ["--log-level", "debug"];
        self.node(Program::Ours, self.next_port(), host, name, &[&more, flags].concat(), &[], beacon)
    }

    /// As [`ours`](Self::ours), with variables in its environment.
    pub fn ours_with(&self, environment: &[(&str, &str)], host: &Host, name: &str, flags: &[&str]) -> Node {
        let more = ["--log-level", "debug"];
        self.node(Program::Ours, self.next_port(), host, name, &[&more, flags].concat(), environment, BEACON)
    }

    /// As [`ours`](Self::ours), with the second rendezvous beside the first.
    pub fn ours_at_two(&self, host: &Host, name: &str, flags: &[&str]) -> Node {
        let place = Place {
            folder: self.folder.path(),
            registry: &format!("{REGISTRY},{}", SECOND[0]),
            beacon: &format!("{BEACON},{}", SECOND[1]),
            listen: &format!("0.0.0.0:{}", self.next_port()),
            environment: &[],
        };
        let more = ["--log-level", "debug"];
        host.namespace().enter(|| Node::start(Program::Ours, name, place, &[&more, flags].concat()))
    }

    /// Starts a reference daemon on a host.
    pub fn reference(&self, host: &Host, name: &str) -> Node {
        self.node(Program::Reference, self.next_port(), host, name, &[], &[], BEACON)
    }

    /// A port that no other host of the lab has: routers that keep ports need not choose between two hosts.
    fn next_port(&self) -> u16 {
        FIRST_PORT + self.ports.fetch_add(1, Ordering::Relaxed)
    }

    #[expect(clippy::too_many_arguments, reason = "each caller above says in a name what it leaves out")]
    fn node(
        &self,
        program: Program,
        port: u16,
        host: &Host,
        name: &str,
        flags: &[&str],
        environment: &[(&str, &str)],
        beacon: SocketAddrV4,
    ) -> Node {
        let place = Place {
            folder: self.folder.path(),
            registry: &REGISTRY.to_string(),
            beacon: &beacon.to_string(),
            listen: &format!("0.0.0.0:{port}"),
            environment,
        };
        host.namespace().enter(|| Node::start(program, name, place, flags))
    }

    /// Starts the rendezvous, with what it knew if it has run before, and waits until it answers.
    pub fn start_rendezvous(&mut self) {
        let second_ip = RENDEZVOUS[1].to_string();
        let more = ["--beacon-second-ip", &second_ip];
        self.rendezvous = Some(self.rendezvous_at([REGISTRY, BEACON], "rendezvous", &more));
    }

    /// Starts a second rendezvous that knows now what the first knows, and nothing of what comes.
    pub fn start_second_rendezvous(&mut self) {
        // Only a file that nobody writes is whole.
        self.stop_rendezvous();
        let folder = self.folder.path();
        fs::copy(folder.join("rendezvous.redb"), folder.join("second.redb"))
            .expect("the store can be copied");
        self.start_rendezvous();
        self.second = Some(self.rendezvous_at(SECOND, "second", &[]));
    }

    fn rendezvous_at(&self, [registry, beacon]: [SocketAddrV4; 2], name: &str, more: &[&str]) -> Process {
        let home = self.folder.path();
        let registry = registry.to_string();
        let mut command = Command::new(Program::Ours.pilotctl());
        isolate(&mut command, home, &home.join("none.sock"), &registry);
        command.args(["rendezvous", "run", "--log-level", "debug", "--registry-addr", &registry]);
        command.args(["--beacon-addr", &beacon.to_string()]).args(more);
        command.arg("--store").arg(home.join(format!("{name}.redb"))).env("PILOT_ADMIN_TOKEN", TOKEN);
        self.rendezvous_host.namespace().enter(|| {
            let mut process = Process::start(name, home, &mut command);
            until("the rendezvous answers", || {
                assert!(process.is_running(), "the rendezvous has ended: {}", process.log());
                TcpStream::connect(&registry).ok()
            });
            process
        })
    }

    /// The rendezvous does nothing any more, and nobody is told.
    pub fn freeze_rendezvous(&self) {
        let process = self.rendezvous.as_ref().expect("it runs");
        let stopped = Command::new("kill").args(["-STOP", &process.id().to_string()]).status();
        assert!(stopped.is_ok_and(|status| status.success()), "the rendezvous can be stopped");
    }

    /// Starts another beacon of the rendezvous on a host with this public address. It ends with the process.
    pub fn start_beacon(&self, host: &Host, addr: SocketAddrV4) -> Process {
        let home = self.folder.path().join(format!("beacon-{}", addr.ip()));
        fs::create_dir_all(&home).expect("a folder can be made");
        let registry = REGISTRY.to_string();
        let mut command = Command::new(Program::Ours.pilotctl());
        isolate(&mut command, &home, &home.join("none.sock"), &registry);
        command.args(["rendezvous", "beacon", "--log-level", "debug", "--registry", &registry]);
        command.args(["--beacon-addr", &addr.to_string()]).env("PILOT_ADMIN_TOKEN", TOKEN);
        host.namespace().enter(|| {
            let mut process = Process::start("beacon", &home, &mut command);
            until("the beacon runs", || {
                assert!(process.is_running(), "the beacon has ended: {}", process.log());
                process.log().contains("beacon running").then_some(())
            });
            process
        })
    }

    /// Ends the rendezvous as a crash would.
    pub fn stop_rendezvous(&mut self) {
        self.rendezvous = None;
    }

    fn router(&self, name: &str, nat: Nat, inside: Ipv4Addr) -> Router {
        let router = Router::new(&self.full(name), nat, inside, self.next_address());
        plug(&self.internet, router.namespace(), OUTSIDE);
        router.go_online(None);
        router
    }

    fn next_address(&self) -> Ipv4Addr {
        let number = FIRST_HOST + self.hosts.fetch_add(1, Ordering::Relaxed);
        Ipv4Addr::from(u32::from(RENDEZVOUS[0]) & 0xFFFF_FF00 | number)
    }

    fn full(&self, name: &str) -> String {
        format!("{}-{name}", self.number)
    }
}

impl Drop for Lab {
    /// Of a failed test everything stays: what the cables carried, and the homes with the logs.
    #[expect(clippy::print_stderr, reason = "where the rest is belongs to the report of a failed test")]
    fn drop(&mut self) {
        if thread::panicking() {
            self.folder.disable_cleanup(true);
            let trace = self.folder.path().join("datagrams.txt");
            match fs::write(&trace, self.trace.text()) {
                Ok(()) => eprintln!("--- what the cables carried is in {}, with all logs", trace.display()),
                Err(error) => eprintln!("--- {}: {error}", trace.display()),
            }
        }
    }
}

/// Plugs the interface `there` of another namespace into the internet.
fn plug(internet: &Namespace, other: &Namespace, there: &str) {
    // The other's name is not longer than an interface's may be, if its number stands for it.
    static CABLES: AtomicU32 = AtomicU32::new(0);
    let here = format!("cable{}", CABLES.fetch_add(1, Ordering::Relaxed));
    internet.cable(&here, other, there);
    internet.ip(&format!("link set {here} master internet up"));
}
