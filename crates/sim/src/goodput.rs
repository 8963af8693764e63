//! How fast one stream is over a link that is not perfect, in simulated time.

use std::{fmt, time::Duration};

use pilot_proto::{TunnelConfig, Visibility, stream::Congestion};
use pilot_wire::Port;

use crate::{Conditions, Content, Detail, Fault, Finishes, Role, Script, Transfer, World};

/// One large transfer in one direction.
#[derive(Clone, Copy, Debug)]
pub struct Bulk {
    /// How much.
    pub bytes: u64,
    /// What both directions of the link are like.
    pub conditions: Conditions,
    /// The stream speaks as release 1.18 does.
    pub legacy: bool,
}

/// How the nodes of a transfer are set.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How the sender finds its speed.
    pub congestion: Congestion,
    /// The largest datagram that the path is searched for; 1222 or less: none, segments stay at 1152 bytes. What passes
    /// is up to [`Conditions::mtu`].
    pub max_datagram: u16,
}

impl Default for Tuning {
    fn default() -> Self {
        let tunnel = TunnelConfig::default();
        Self { congestion: Congestion::default(), max_datagram: tunnel.max_datagram }
    }
}

/// What a transfer cost.
#[derive(Clone, Copy, Debug)]
pub struct Goodput {
    /// Bytes that the application read, each checked.
    pub bytes: u64,
    /// From the dial until the last byte was read.
    pub took: Duration,
    /// Datagrams of both nodes.
    pub datagrams: u64,
    /// Bytes of these datagrams.
    pub sent: u64,
}

impl Goodput {
    /// Megabytes (10^6) per simulated second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.took.as_secs_f64() / 1e6
    }
}

impl fmt::Display for Goodput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes intact in {:.3} s of simulated time: {:.2} MB/s; {} datagrams, {:.3} bytes on the wire per byte",
            self.bytes,
            self.took.as_secs_f64(),
            self.megabytes_per_second(),
            self.datagrams,
            self.sent as f64 / self.bytes.max(1) as f64,
        )
    }
}

impl Bulk {
    /// Runs the transfer to its end.
    pub fn run(&self, seed: u64) -> Result<Goodput, Fault> {
        self.run_with(seed, Tuning::default())
    }

    /// Runs it between nodes with other settings.
    pub fn run_with(&self, seed: u64, tuning: Tuning) -> Result<Goodput, Fault> {
        let mut world = World::new(seed, Detail::Nothing);
        world.set_conditions(self.conditions);
        let legacy = self.legacy;
        let [dialer, listener] = ["from", "to"].map(|name| {
            world.node_with(name, Visibility::Public, move |config| {
                config.streams.options = !legacy;
                config.streams.congestion = tuning.congestion;
                config.tunnel.max_datagram = tuning.max_datagram;
            })
        });
        let id = world.transfer(Transfer {
            dialer,
            listener,
            port: Port::STDIO,
            starts: Duration::ZERO,
            dialing: Script { write_size: 256 << 10, ..Script::eager(self.bytes, Content::Noise(seed)) },
            listening: Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(0)) },
        });
        let day = Duration::from_secs(24 * 3600);
        world.run_until(day, |world| {
            world.progress(id, Role::Listener).read == self.bytes || world.is_over(id)
        });
        let took = world.elapsed();
        world.run_until(day, |world| world.is_over(id));
        if let Some(fault) = world.fault() {
            return Err(fault.clone());
        }
        for role in [Role::Dialer, Role::Listener] {
            let progress = world.progress(id, role);
            if !progress.complete {
                return Err(Fault::Unfinished(id, role, format!("{progress:?}")));
            }
        }
        Ok(Goodput { bytes: self.bytes, took, datagrams: world.datagrams(), sent: world.bytes_sent() })
    }
}
