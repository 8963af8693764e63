//! Two hosts in a network of their own, and no rendezvous.

use std::sync::Arc;
use std::time::Duration;

use pilot_daemon::Config;
use pilot_wire::Port;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::common::{Daemon, Home, Rendezvous, befriend, within};
use crate::namespace::Namespace;

/// A host: a network namespace, and a thread in it that runs what is given to it.
struct Host {
    space: Arc<Namespace>,
    runtime: Handle,
    /// The thread ends with it.
    _until: oneshot::Sender<()>,
}

impl Host {
    fn new(space: Namespace) -> Self {
        let space = Arc::new(space);
        let (until, ended) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let entered = Arc::clone(&space);
        std::thread::spawn(move || {
            entered.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tell.send(runtime.handle().clone()).unwrap();
            let _ = runtime.block_on(ended);
        });
        Self { space, runtime: told.recv().unwrap(), _until: until }
    }

    async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        within("what runs on a host", self.runtime.spawn(future)).await.unwrap()
    }

    async fn daemon(&self, config: Config) -> Daemon {
        self.run(Daemon::start(config)).await
    }
}

/// Two hosts joined by a cable.
struct Cable {
    a: Host,
    b: Host,
}

impl Cable {
    /// `None` when the test named `test` has passed already, in a run of its own.
    fn new(test: &str) -> Option<Self> {
        let (a, b) = (Namespace::new(test)?, Namespace::make());
        a.ip(&format!("link add eth0 type veth peer name eth0 netns {}", b.pid()));
        for (space, last) in [(&a, 1), (&b, 2)] {
            space.ip("link set lo up");
            space.ip("link set eth0 up");
            space.ip(&format!("addr add 10.77.0.{last}/24 dev eth0"));
        }
        Some(Self { a: Host::new(a), b: Host::new(b) })
    }

    /// Both hosts have other addresses from now on.
    fn move_to(&self, network: &str, options: &str) {
        for (host, last) in [(&self.a, 1), (&self.b, 2)] {
            host.space.ip("addr flush dev eth0 scope global");
            host.space.ip(&format!("addr add {}{options}", network.replace('#', &last.to_string())));
        }
    }

    /// Two nodes trust each other; then their rendezvous is gone for good.
    async fn friends(&self, homes: &[Home; 2]) -> [Config; 2] {
        let mut rendezvous = self.a.run(Rendezvous::start_at("10.77.0.1:0".parse().unwrap())).await;
        let configs = [0, 1].map(|index| {
            let mut config = homes[index].config(&rendezvous);
            config.listen = "0.0.0.0:0".parse().unwrap();
            config
        });
        let a = self.a.daemon(configs[0].clone()).await;
        let b = self.b.daemon(configs[1].clone()).await;
        befriend(&a, &b).await;
        // Whoever asked through the registry knows the other's key from the first tunnel on.
        assert!(echoes(&a, &b).await && echoes(&b, &a).await);
        a.kill().await;
        b.kill().await;
        rendezvous.kill().await;
        configs
    }
}

fn at_port(config: &Config, port: u16) -> Config {
    let mut config = config.clone();
    config.listen.set_port(port);
    config
}

/// `hello` goes over and comes back.
async fn echoes(from: &Daemon, to: &Daemon) -> bool {
    let mut program = from.program().await;
    match program.dial(to.at(Port::ECHO)).await {
        Ok(echo) => {
            program.send(echo, b"hello").await;
            program.read(echo, 5).await == b"hello"
        }
        Err(_) => false,
    }
}

#[tokio::test]
async fn friends_in_one_network_find_each_other_without_a_rendezvous() {
    let name = "lan::friends_in_one_network_find_each_other_without_a_rendezvous";
    let Some(cable) = Cable::new(name) else { return };
    let homes = [Home::new(), Home::new()];
    let [a_config, b_config] = cable.friends(&homes).await;
    // Nothing that was remembered of the other holds any more: neither addresses nor ports.
    cable.move_to("10.78.0.#/24 dev eth0", "");
    let a = cable.a.daemon(at_port(&a_config, 41_001)).await;
    let b = cable.b.daemon(at_port(&b_config, 41_002)).await;
    assert!(!a.running.registered && !b.running.registered);
    assert!(echoes(&a, &b).await, "the first one finds the second");
    assert!(echoes(&b, &a).await, "and the other way");

    // One restarts somewhere else while the other waits.
    b.kill().await;
    let b = cable.b.daemon(at_port(&b_config, 41_003)).await;
    within("the peer at its new port", async {
        while !echoes(&a, &b).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    // It was the discovery that did it.
    a.kill().await;
    b.kill().await;
    let mute = |config: &Config, port| Config { lan_discovery: false, ..at_port(config, port) };
    let a = cable.a.daemon(mute(&a_config, 41_004)).await;
    let b = cable.b.daemon(mute(&b_config, 41_005)).await;
    assert!(!echoes(&a, &b).await, "found without being looked for");
}

#[tokio::test]
async fn friends_find_each_other_in_a_network_that_has_only_ipv6() {
    let name = "lan::friends_find_each_other_in_a_network_that_has_only_ipv6";
    let Some(cable) = Cable::new(name) else { return };
    let homes = [Home::new(), Home::new()];
    let [a_config, b_config] = cable.friends(&homes).await;
    cable.move_to("fd78::#/64 dev eth0", " nodad");
    let a = cable.a.daemon(at_port(&a_config, 41_001)).await;
    let b = cable.b.daemon(at_port(&b_config, 41_002)).await;
    assert!(echoes(&a, &b).await);
    assert!(echoes(&b, &a).await);
}
