//! Hosts with networks of their own.

use std::sync::Arc;

use pilot_daemon::Config;
use pilot_wire::Port;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::common::{Daemon, Home, Rendezvous, befriend, within};
use crate::namespace::Namespace;

/// A host: a network namespace, and a thread in it that runs what is given to it.
pub(crate) struct Host {
    pub(crate) space: Arc<Namespace>,
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

    pub(crate) async fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        within("what runs on a host", self.runtime.spawn(future)).await.unwrap()
    }

    pub(crate) async fn daemon(&self, config: Config) -> Daemon {
        self.run(Daemon::start(config)).await
    }
}

/// Two hosts joined by a cable.
pub(crate) struct Cable {
    pub(crate) a: Host,
    pub(crate) b: Host,
}

impl Cable {
    /// `None` when the test named `test` has passed already, in a run of its own.
    pub(crate) fn new(test: &str) -> Option<Self> {
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
    pub(crate) fn move_to(&self, network: &str, options: &str) {
        for (host, last) in [(&self.a, 1), (&self.b, 2)] {
            host.space.ip("addr flush dev eth0 scope global");
            host.space.ip(&format!("addr add {}{options}", network.replace('#', &last.to_string())));
        }
    }

    /// Two nodes that trust each other.
    pub(crate) async fn pair(&self, homes: &[Home; 2]) -> (Rendezvous, [Daemon; 2]) {
        let rendezvous = self.a.run(Rendezvous::start_at("10.77.0.1:0".parse().unwrap())).await;
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
        (rendezvous, [a, b])
    }

    /// The same; then their rendezvous is gone for good.
    pub(crate) async fn friends(&self, homes: &[Home; 2]) -> [Config; 2] {
        let (mut rendezvous, [a, b]) = self.pair(homes).await;
        let configs = [a.config.clone(), b.config.clone()];
        a.kill().await;
        b.kill().await;
        rendezvous.kill().await;
        configs
    }
}

/// `hello` goes over and comes back.
pub(crate) async fn echoes(from: &Daemon, to: &Daemon) -> bool {
    let mut program = from.program().await;
    match program.dial(to.at(Port::ECHO)).await {
        Ok(echo) => {
            program.send(echo, b"hello").await;
            program.read(echo, 5).await == b"hello"
        }
        Err(_) => false,
    }
}
