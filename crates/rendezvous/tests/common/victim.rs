//! A rendezvous in a process of its own, to be killed.

use super::client;
use pilot_rendezvous::{run, store::StoreUrl};
use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

/// The body of a test named `a_process_to_be_killed`, which every file that uses [`Victim`] must have.
pub(crate) fn be_killed() {
    let Ok(store) = std::env::var("PILOT_TEST_STORE") else { return };
    let store: StoreUrl = store.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let announce = |bound: pilot_rendezvous::Bound| {
        let mut out = std::io::stdout();
        writeln!(out, "\nregistry={}", bound.registry).unwrap();
    };
    runtime.block_on(run(client::at(store), announce, std::future::pending())).unwrap();
}

pub(crate) struct Victim {
    pub(crate) process: Child,
    pub(crate) registry: SocketAddr,
}

impl Victim {
    /// `store`: a path or a URL.
    pub(crate) fn start(store: &str) -> Self {
        Self::launch(Command::new(std::env::current_exe().unwrap()), store)
    }

    /// Its files may grow to 1200 kB; a new store has 1032.
    #[cfg(target_os = "linux")]
    pub(crate) fn start_on_a_full_disk(store: &str) -> Self {
        let mut shell = Command::new("bash");
        shell.args(["-c", "trap '' XFSZ; ulimit -S -f 1200; exec \"$0\" \"$@\""]);
        shell.arg(std::env::current_exe().unwrap());
        Self::launch(shell, store)
    }

    fn launch(mut command: Command, store: &str) -> Self {
        let mut process = command
            .args(["--exact", "a_process_to_be_killed", "--nocapture"])
            .env("PILOT_TEST_STORE", store)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let registry = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("registry=").map(str::to_owned))
            .expect("it starts");
        Self { process, registry: registry.parse().unwrap() }
    }

    pub(crate) fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
