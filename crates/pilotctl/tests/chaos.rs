//! Messages both ways between two daemons while processes are killed and stand still at random moments: everything that
//! was acknowledged arrives, once, in order.
//!
//! `PILOT_CHAOS_MESSAGES=10000` makes it as long as it is meant to be; `PILOT_CHAOS_SEED` repeats a run's choices. The
//! link between two processes on loopback cannot be pulled without privileges: a daemon that is stopped (SIGSTOP) and
//! goes on later looks the same to its peer.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on stops, and says why")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{Agent, World};
use pilot_client::{Addr, Client, DeliveryState, OutboxFilter, Outgoing, Queued};
use pilot_wire::ipc::Code;
use pilot_wire::mailbox::StoredMessage;
use rustix::process::{Pid, Signal, kill_process};

/// One disturbance for so many messages.
const MESSAGES_PER_BLOW: usize = 150;

/// Only turns a hang into a failure.
const PATIENCE: Duration = Duration::from_secs(240);

/// Messages that were acknowledged, over both senders.
#[derive(Default)]
struct Progress {
    count: Mutex<usize>,
    moved: Condvar,
}

impl Progress {
    fn step(&self) {
        *self.count.lock().unwrap() += 1;
        self.moved.notify_all();
    }

    /// Waits until so many were acknowledged, or nothing more comes for `limit`; how many there are.
    fn wait_for(&self, wanted: usize, limit: Duration) -> usize {
        let count = self.count.lock().unwrap();
        *self.moved.wait_timeout_while(count, limit, |count| *count < wanted).unwrap().0
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

async fn connect(socket: &Path) -> Client {
    let begin = Instant::now();
    loop {
        match Client::connect_to(socket).await {
            Ok(client) => return client,
            Err(error) => {
                assert!(begin.elapsed() < PATIENCE, "{error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Hands over messages one after the other, each until it is acknowledged, over one connection as long as it lasts.
async fn send_all(socket: PathBuf, to: Addr, count: usize, progress: Arc<Progress>) -> usize {
    let mut client = connect(&socket).await;
    let mut repeated = 0;
    for number in 0..count {
        let id = format!("chaos-{number}").parse().unwrap();
        let message = Outgoing { message_id: Some(id), ..Outgoing::text(number.to_string()) };
        let begin = Instant::now();
        loop {
            match client.queue(Queued::new(to, message.clone())).await {
                Ok(_) => break,
                // Its daemon was killed, or is just starting.
                Err(error)
                    if matches!(
                        error.code(),
                        Code::NotRunning | Code::Busy | Code::Closed | Code::Internal
                    ) =>
                {
                    assert!(begin.elapsed() < PATIENCE, "{error}");
                    repeated += 1;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    client = connect(&socket).await;
                }
                Err(error) => panic!("message {number}: {error}"),
            }
        }
        progress.step();
    }
    repeated
}

async fn all_delivered(socket: &Path, last: usize) {
    let client = connect(socket).await;
    let id = format!("chaos-{}", last - 1).parse().unwrap();
    let item = client.outbox_wait(&id, DeliveryState::Stored, PATIENCE).await.unwrap();
    let left = client.outbox(OutboxFilter { pending: true, ..OutboxFilter::default() }).await.unwrap();
    assert_eq!((item.state, left.pending), (DeliveryState::Stored, 0), "{left:?}");
}

/// What lies in the inbox, in the order in which it arrived.
fn arrived(home: &Path) -> Vec<String> {
    let mut messages: BTreeMap<(String, String), StoredMessage> = BTreeMap::new();
    for file in std::fs::read_dir(home.join("inbox")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let message: StoredMessage = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            // Fractions of seconds without their trailing zeros do not sort as text.
            let (seconds, fraction) = message.received_at.trim_end_matches('Z').split_once('.').unwrap();
            let time = format!("{seconds}.{fraction:0<9}");
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            messages.insert((time, name), message);
        }
    }
    messages.into_values().map(|message| message.data.unwrap()).collect()
}

fn signal(agent: &Agent, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(agent.pid()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

#[derive(Default, Debug)]
struct Blows {
    daemons: u32,
    rendezvous: u32,
    standstills: u32,
}

/// Until both senders are done: something happens at random counts of messages.
fn disturb(
    world: &mut World,
    agents: &mut [Agent; 2],
    random: &mut Random,
    progress: &Progress,
    total: usize,
) -> Blows {
    let mut blows = Blows::default();
    let mut at = 0;
    let mut rendezvous_is_up = true;
    loop {
        at += 1 + random.below(2 * MESSAGES_PER_BLOW);
        let count = progress.wait_for(at.min(total), PATIENCE);
        assert!(count >= at.min(total), "{count} of {total} messages were handed over, and no more come");
        if at >= total {
            break;
        }
        match random.below(8) {
            0..5 => {
                let agent = &mut agents[random.below(2)];
                agent.kill();
                agent.start_anyhow();
                blows.daemons += 1;
            }
            5 => {
                match rendezvous_is_up {
                    true => world.kill_rendezvous(),
                    false => world.restart_rendezvous(),
                }
                rendezvous_is_up = !rendezvous_is_up;
                blows.rendezvous += 1;
            }
            _ => {
                let agent = &agents[random.below(2)];
                signal(agent, Signal::STOP);
                progress.wait_for(at + random.below(MESSAGES_PER_BLOW), Duration::from_secs(2));
                signal(agent, Signal::CONT);
                blows.standstills += 1;
            }
        }
    }
    if !rendezvous_is_up {
        world.restart_rendezvous();
    }
    blows
}

#[test]
fn every_acknowledged_message_arrives_once_and_in_order_whatever_is_killed() {
    let count = usize::try_from(number_from("PILOT_CHAOS_MESSAGES").unwrap_or(1000)).unwrap();
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let seed = number_from("PILOT_CHAOS_SEED").unwrap_or(u64::try_from(clock).unwrap()) | 1;
    eprintln!("PILOT_CHAOS_SEED={seed} PILOT_CHAOS_MESSAGES={count}");
    let mut world = World::new();
    let (a, b) = world.friends();
    let addresses = [a.address(), b.address()].map(|address| address.parse::<Addr>().unwrap());
    let mut agents = [a, b];
    let progress = Arc::new(Progress::default());
    let begin = Instant::now();
    let senders = [0, 1].map(|side| {
        let (socket, to) = (agents[side].socket.clone(), addresses[1 - side]);
        let progress = Arc::clone(&progress);
        std::thread::spawn(move || runtime().block_on(send_all(socket, to, count, progress)))
    });
    let blows = disturb(&mut world, &mut agents, &mut Random(seed), &progress, 2 * count);
    let repeated: Vec<usize> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
    let handed_over = begin.elapsed();
    for agent in &agents {
        runtime().block_on(all_delivered(&agent.socket, count));
    }
    eprintln!(
        "{count} messages each way: handed over in {:.1} s ({repeated:?} repetitions), delivered in {:.1} s; {blows:?}",
        handed_over.as_secs_f64(),
        begin.elapsed().as_secs_f64()
    );
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    for agent in &agents {
        let arrived = arrived(&agent.home);
        let wrong = arrived.iter().zip(&expected).position(|(arrived, expected)| arrived != expected);
        assert_eq!((arrived.len(), wrong), (count, None), "in the inbox of {}", agent.name);
    }
    assert!(blows.daemons > 0, "{blows:?}");
}
