//! A command that takes connections, and what it tells.

use std::io::{BufRead, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Agent, Running, World};

/// Nothing here takes so long; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `serve`, `forward`, `proxy` or `gateway start`, from the moment on at which it takes connections.
pub(crate) struct Door {
    pub(crate) process: Running,
    /// Where it listens, one after the other.
    pub(crate) at: Vec<String>,
    told: Receiver<Value>,
}

impl Door {
    /// Starts it and waits until it has said so many times where it listens.
    pub(crate) fn open(agent: &Agent, words: &[&str], listeners: usize) -> Self {
        let mut command = agent.command(&[words, &["--json"]].concat());
        command.stdin(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut process = Running::start(command);
        let at = (0..listeners)
            .map(|_| {
                let said = process.json_line();
                assert_eq!(said["event"], "listening", "{said}");
                said["at"].as_str().unwrap().to_owned()
            })
            .collect();
        let stdout = process.take_stdout();
        let (teller, told) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if teller.send(serde_json::from_str(&line).unwrap()).is_err() {
                    // Read on, so that the process never waits for us.
                    continue;
                }
            }
        });
        Self { process, at, told }
    }

    /// A service of this machine on a port of the network.
    pub(crate) fn serve(agent: &Agent, port: u16, to: impl ToString) -> Self {
        Self::open(agent, &["serve", &port.to_string(), "--to", &to.to_string()], 1)
    }

    /// A free port of this machine for a port of a peer.
    pub(crate) fn forward(agent: &Agent, to: &str) -> Self {
        Self::open(agent, &["forward", "127.0.0.1:0", to], 1)
    }

    /// The next thing that it tells with this name.
    pub(crate) fn hears(&self, event: &str) -> Value {
        loop {
            let told =
                self.told.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no `{event}` was told of"));
            if told["event"] == event {
                return told;
            }
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.at[0].parse().unwrap())
    }
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(address).unwrap())
}

pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Two friends: `agent-b` serves what listens at `to` on port 80, `agent-a` forwards a port of its machine to that.
pub(crate) fn joined(to: impl ToString) -> (World, Agent, Agent, Door, Door) {
    let world = World::new();
    let (a, b) = world.friends();
    let serving = Door::serve(&b, 80, to);
    let forwarding = Door::forward(&a, "agent-b:80");
    (world, a, b, serving, forwarding)
}

/// A service: what it does with each connection, in a thread of its own.
pub(crate) fn service(attend: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let attend = std::sync::Arc::new(attend);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let attend = attend.clone();
            std::thread::spawn(move || attend(patient(stream)));
        }
    });
    address
}

/// Runs until the test is over.
pub(crate) fn in_background<F: Future<Output = ()>>(service: impl FnOnce() -> F + Send + 'static) {
    std::thread::spawn(move || runtime().block_on(service()));
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Says something, and nothing more, and gives what comes back until the end.
pub(crate) fn ask(stream: &mut TcpStream, question: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(question)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Answers what was asked, once that is over, backwards.
pub(crate) fn backwards(mut stream: TcpStream) {
    let mut question = Vec::new();
    if stream.read_to_end(&mut question).is_ok() {
        question.reverse();
        drop(stream.write_all(&question));
    }
}
