//! `pilotctl top` with real daemons: one table for programs, and live on a terminal.

mod common;

use std::process::Command;

use common::{PILOTCTL, World};

#[test]
fn one_table_needs_no_terminal() {
    let world = World::new();
    let (a, b) = world.friends();
    a.ok(&["ping", "agent-b", "--count", "1"]);
    let _open = b.spawn_until(&["recv", "1000", "--reply", "later"], "listening");
    let shown = a.json(&["top", "--once", "--interval", "200ms"]);
    assert_eq!(shown["node"]["hostname"], "agent-a");
    let rendezvous = &shown["rendezvous"];
    assert_eq!(
        (&rendezvous["registered"], &rendezvous["registry"]),
        (&true.into(), &world.registry.as_str().into())
    );
    let peer = &shown["peers"][0];
    assert_eq!((&peer["name"], &peer["path"]), (&"agent-b".into(), &"direct".into()), "{shown}");
    assert_eq!(peer["address"], b.address());
    for rate in [&peer["in_per_sec"], &peer["out_per_sec"], &shown["totals"]["in_per_sec"]] {
        assert!(rate.is_u64(), "{shown}");
    }
    let totals = &shown["totals"];
    assert!(totals["bytes_in"].as_u64().unwrap() > 0 && totals["queued_packets"] == 0, "{shown}");

    let text = a.ok(&["top", "--once", "--interval", "200ms"]);
    let row = text.lines().find(|line| line.starts_with("agent-b ")).unwrap_or_else(|| panic!("{text}"));
    assert!(row.contains(&b.address()) && row.contains(" direct "), "{row}");
}

#[test]
fn a_transfer_shows_in_the_rates_of_its_peer_and_of_its_stream() {
    let world = World::new();
    let (a, _b) = world.friends();
    let mut sending = a.spawn_piped(&["connect", "agent-b", "7"]);
    let mut input = sending.take_stdin();
    let mut echo = sending.take_stdout();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let shown = std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if input.write_all(&[7; 4096]).is_err() {
                    break;
                }
            }
            drop(input);
        });
        scope.spawn(|| drop(std::io::copy(&mut echo, &mut std::io::sink())));
        // One that began before the stream was open shows nothing yet.
        let moves = |shown: &serde_json::Value| {
            shown["streams"][0]["out_per_sec"].as_u64().is_some_and(|rate| rate > 0)
        };
        let shown = (0..50).map(|_| a.json(&["top", "--once", "--interval", "200ms"])).find(moves);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        shown.expect("a stream that carries data shows a rate")
    });
    let stream = &shown["streams"][0];
    assert_eq!(
        (&stream["peer"], &stream["remote_port"], &stream["state"]),
        (&"agent-b".into(), &7.into(), &"ESTABLISHED".into())
    );
    assert!(stream["window"].as_u64().unwrap() > 0);
    assert!(shown["peers"][0]["out_per_sec"].as_u64().unwrap() > 0, "{shown}");
}

#[test]
fn without_a_terminal_it_says_what_to_do_instead() {
    let world = World::new();
    let a = world.machine("agent-a");
    for words in [&["top", "--json"][..], &["top"]] {
        let done = a.run(words);
        assert_eq!(done.status, 2, "{words:?}: {done:?}");
        let said = done.stderr.clone() + &done.text();
        assert!(said.contains("pilotctl top --once"), "{said}");
    }
    assert_eq!(a.run(&["top", "--once"]).status, 7, "no daemon runs");
    assert_eq!(a.run(&["top", "--once", "--interval", "1ms"]).status, 2);
}

/// Runs `pilotctl top` on a terminal of 80 by 24: waits for the peer, opens its details, closes them, quits. Prints what
/// it saw last when something does not come.
const ON_A_TERMINAL: &str = r#"
import fcntl, os, pty, select, struct, sys, termios, time

program, peer = sys.argv[1:]
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
before = termios.tcgetattr(slave)
child = os.fork()
if child == 0:
    os.close(master)
    os.login_tty(slave) if hasattr(os, "login_tty") else (os.setsid(), fcntl.ioctl(slave, termios.TIOCSCTTY, 0), [os.dup2(slave, n) for n in range(3)])
    os.execv(program, [program, "top", "--interval", "200ms"])

seen = b""

def read(until):
    global seen
    deadline = time.monotonic() + 30
    while not until():
        ready, _, _ = select.select([master], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            sys.exit(f"nothing more came after {seen[-3000:]!r}")
        seen += os.read(master, 65536)

read(lambda: peer.encode() in seen and b"quit" in seen)
assert b"\x1b[?1049h" in seen, "it draws on the second page"
if "NO_COLOR" in os.environ:
    import re
    assert not re.search(rb"\x1b\[[0-9;]*(3[0-7]|38;5;[0-9]+)m", seen), seen
seen = b""
os.write(master, b"\r")
read(lambda: b"their NAT" in seen or b"trust" in seen)
os.write(master, b"q")
ended = 0
deadline = time.monotonic() + 30
while ended == 0 and time.monotonic() < deadline:
    if select.select([master], [], [], 0.05)[0]:
        seen += os.read(master, 65536)
    ended, status = os.waitpid(child, os.WNOHANG)
if ended == 0:
    os.kill(child, 9)
    sys.exit("it did not end")
while select.select([master], [], [], 0)[0]:
    seen += os.read(master, 65536)
assert os.waitstatus_to_exitcode(status) == 0, status
assert b"\x1b[?1049l" in seen, seen
assert termios.tcgetattr(slave) == before, "the terminal is as it was"
"#;

#[test]
fn on_a_terminal_it_shows_the_peer_and_q_puts_the_terminal_back() {
    let world = World::new();
    let (a, _b) = world.friends();
    a.ok(&["ping", "agent-b", "--count", "1"]);
    for colour in [true, false] {
        let mut command = Command::new("python3");
        command.args(["-c", ON_A_TERMINAL, PILOTCTL, "agent-b"]).env("TERM", "xterm-256color");
        command.env("HOME", &a.home).env("PILOT_HOME", &a.home).env("PILOT_SOCKET", &a.socket);
        if colour {
            command.env_remove("NO_COLOR")
        } else {
            command.env("NO_COLOR", "1")
        };
        let done = command.output().expect("python3 has the terminal: apt-get install python3");
        let said = [done.stdout, done.stderr].concat();
        assert!(done.status.success(), "colour {colour}: {}", String::from_utf8_lossy(&said));
    }
}
