//! The sides that are compared: each is two programs that talk to each other, with what is between them.

use crate::{
    Failure,
    process::Process,
    stage::{Daemon, Stage, free_udp},
    work::{Done, Task},
};

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Our daemons, each a process, and the driver.
    Pilot,
    /// Our nodes, each inside the program that uses it.
    PilotInside,
    /// QUIC.
    Quic,
    Tcp,
    Grpc,
    /// The floor with a daemon in the middle.
    Floor,
    /// The floor with everything in the two programs.
    FloorInside,
}

impl Kind {
    /// As tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pilot => "Pilot, daemons",
            Self::PilotInside => "Pilot, no daemon",
            Self::Quic => "QUIC (quinn)",
            Self::Tcp => "TCP, plain",
            Self::Grpc => "gRPC unary (tonic)",
            Self::Floor => "floor",
            Self::FloorInside => "floor, no daemon",
        }
    }

    /// Starts its processes.
    pub(crate) async fn start(self, stage: &Stage) -> Result<Side, Failure> {
        let folder = stage.folder().join(format!("{self:?}"));
        std::fs::create_dir(&folder)?;
        let folder = folder.display().to_string();
        match self {
            Self::Pilot => Side::pilot(stage).await,
            Self::PilotInside => {
                let at = [stage.registry(), stage.beacon()];
                let server = Process::role(&[&["serve", "pilot-inside", "bench-d"], &at[..]].concat())?;
                let node = server.line()?;
                let driver = driver(&[&["pilot-inside", "bench-c"], &at[..], &[&node]].concat())?;
                Ok(Side { kind: self, driver, others: vec![server] })
            }
            Self::Quic => {
                let server = Process::role(&["serve", "quic", &folder])?;
                let driver = driver(&["quic", &server.line()?, &folder])?;
                Ok(Side { kind: self, driver, others: vec![server] })
            }
            Self::Tcp | Self::Grpc => {
                let name = if self == Self::Tcp { "tcp" } else { "grpc" };
                let server = Process::role(&["serve", name])?;
                let driver = driver(&[name, &server.line()?])?;
                Ok(Side { kind: self, driver, others: vec![server] })
            }
            Self::Floor => {
                let (here, there) = (free_udp()?, free_udp()?);
                let (near, far) = (format!("{folder}/near"), format!("{folder}/far"));
                let relay = ready(Process::role(&["relay", &near, &here, &there])?)?;
                let other = ready(Process::role(&["relay", &far, &there, &here])?)?;
                let server = ready(Process::role(&["serve", "floor", &far])?)?;
                Ok(Side {
                    kind: self,
                    driver: driver(&["floor", &near])?,
                    others: vec![relay, other, server],
                })
            }
            Self::FloorInside => {
                let (here, there) = (free_udp()?, free_udp()?);
                let server = ready(Process::role(&["serve", "inside", &there, &here])?)?;
                Ok(Side { kind: self, driver: driver(&["inside", &here, &there])?, others: vec![server] })
            }
        }
    }
}

fn driver(words: &[&str]) -> Result<Process, Failure> {
    ready(Process::role(&[&["drive"][..], words].concat())?)
}

fn ready(process: Process) -> Result<Process, Failure> {
    process.line()?;
    Ok(process)
}

/// Its processes.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) kind: Kind,
    driver: Process,
    others: Vec<Process>,
}

/// What a task took, of all processes of a side.
#[derive(Clone, Debug)]
pub(crate) struct Cost {
    pub(crate) done: Done,
    /// Processor time, in seconds.
    pub(crate) cpu: f64,
    /// Bytes over the loopback interface.
    pub(crate) wire: f64,
}

impl Side {
    async fn pilot(stage: &Stage) -> Result<Self, Failure> {
        let (a, b) = (stage.daemon("bench-a", &[]).await?, stage.daemon("bench-b", &[]).await?);
        a.befriend(&b).await?;
        Self::between(a, b)
    }

    /// Two programs at two daemons that trust each other.
    pub(crate) fn between(a: Daemon, b: Daemon) -> Result<Self, Failure> {
        let mut side = Self::programs(&a, &b)?;
        side.others.splice(0..0, [a.process, b.process]);
        Ok(side)
    }

    /// The two programs alone.
    pub(crate) fn programs(a: &Daemon, b: &Daemon) -> Result<Self, Failure> {
        let server = ready(Process::role(&["serve", "pilot", &b.socket.display().to_string()])?)?;
        let driver = driver(&["pilot", &a.socket.display().to_string(), &b.node.0.to_string()])?;
        Ok(Self { kind: Kind::Pilot, driver, others: vec![server] })
    }

    /// Has a task done, and counts what it cost.
    pub(crate) fn measure(&mut self, task: Task) -> Result<Cost, Failure> {
        let (cpu, wire) = (self.cpu(), crate::process::loopback_bytes());
        let done = self.driver.ask(&serde_json::to_string(&task)?);
        let done = done.map_err(|error| format!("{}: {error}", self.kind.name()))?;
        Ok(Cost { done, cpu: self.cpu() - cpu, wire: crate::process::loopback_bytes() - wire })
    }

    fn cpu(&self) -> f64 {
        self.driver.cpu() + self.others.iter().map(Process::cpu).sum::<f64>()
    }
}
