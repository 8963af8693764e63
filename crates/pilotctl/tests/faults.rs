//! What a machine may run out of: a full disk and no more descriptors. Nothing that was acknowledged is lost, whoever asks is
//! told why, and all goes on when there is room again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use common::{Agent, World, befriend};

/// Bytes of a message.
const LENGTH: usize = 1 << 20;

/// Room for the state of a daemon and a few of them.
const DISK: &str = "24m";

/// A daemon whose state directory is a disk of its own, which only it and its children see.
fn on_a_small_disk(world: &World, name: &str) -> Agent {
    let mut agent = world.machine(name);
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let flags = if is_root { "-m" } else { "-Urm" };
    let script = format!("mount -t tmpfs -o size={DISK},mode=0700 none \"$PILOT_HOME\" && exec \"$@\"");
    agent.run_daemon_by(&["unshare", flags, "sh", "-c", &script, "sh"]);
    agent.start(&[]);
    agent
}

/// A file on that disk, as seen from here.
fn seen_from_outside(agent: &Agent, file: &str) -> PathBuf {
    let home = agent.home.strip_prefix("/").unwrap();
    PathBuf::from(format!("/proc/{}/root", agent.pid())).join(home).join(file)
}

#[test]
fn a_full_disk_refuses_messages_with_the_reason_and_loses_none_that_was_acknowledged() {
    let world = World::new();
    let (a, b) = (world.agent("agent-a"), on_a_small_disk(&world, "agent-b"));
    befriend(&a, &b);
    let filler = seen_from_outside(&b, "filler");
    std::fs::write(&filler, vec![1; 4 << 20]).unwrap();
    let file = a.home.join("message");
    std::fs::write(&file, "x".repeat(LENGTH)).unwrap();
    let send =
        || a.run(&["send-message", "agent-b", "--data-file", file.to_str().unwrap(), "--now", "--json"]);

    let mut stored = 0;
    let refused = loop {
        let done = send();
        if done.status != 0 {
            break done.json();
        }
        stored += 1;
        assert!(stored < 24, "they do not fit on the disk");
    };
    assert!(stored > 2, "{stored}: {refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("disk") || message.contains("space") || message.contains("room"), "{refused}");
    let arrived = || b.json(&["inbox", "--limit", "100"])["messages"].as_array().unwrap().len();
    assert_eq!(arrived(), stored, "what was acknowledged is there, and nothing else");

    // The daemon lives: a small question is answered, and with room all goes on.
    assert_eq!(a.run(&["ping", "agent-b", "--count", "1"]).status, 0);
    std::fs::remove_file(&filler).unwrap();
    let done = send();
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(arrived(), stored + 1);
}

#[test]
fn a_full_disk_of_the_sender_is_said_and_nothing_is_queued_that_is_not_on_it() {
    let world = World::new();
    let mut a = on_a_small_disk(&world, "agent-a");
    let b = world.agent("agent-b");
    befriend(&a, &b);
    let mut b = b;
    b.kill();
    // Nobody is there who would show a sign.
    a.set_env("PILOT_SEND_PATIENCE", "12ms");
    let file = world.machine("outside").home;
    std::fs::create_dir_all(&file).unwrap();
    let file = file.join("message");
    std::fs::write(&file, "x".repeat(LENGTH)).unwrap();
    let mut queued = 0;
    let refused = loop {
        let words = ["send-message", "agent-b", "--data-file", file.to_str().unwrap(), "--json"];
        let done = a.run(&words);
        if done.status != 0 {
            break done.json();
        }
        queued += 1;
        assert!(queued < 24, "they do not fit on the disk");
    };
    assert!(queued > 2, "{queued}: {refused}");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("disk") || message.contains("space") || message.contains("room"), "{refused}");
    b.start(&[]);
    let all = || b.json(&["inbox", "--limit", "100"])["messages"].as_array().unwrap().len();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(240);
    while all() < queued && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(all(), queued, "what was queued arrives, and nothing else");
    a.kill();
}

#[test]
fn without_descriptors_new_programs_wait_or_are_refused_and_old_streams_go_on() {
    let world = World::new();
    let mut b = world.machine("agent-b");
    b.run_daemon_by(&["sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    b.start(&[]);
    let a = world.agent("agent-a");
    befriend(&a, &b);
    let _echo = b.spawn_until(&["recv", "1000", "--reply", "echoed", "--count", "0"], "listening");
    let mut stream = a.spawn_piped(&["connect", "agent-b", "7"]);
    let (mut to, mut from) = (stream.take_stdin(), BufReader::new(stream.take_stdout()));
    let mut talk = |word: &str| {
        to.write_all(format!("{word}\n").as_bytes()).unwrap();
        to.flush().unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    };
    talk("before");
    // More programs than there are descriptors for. Some wait in the system's queue, which is as good as a refusal.
    let many: Vec<_> = (0..200).map_while(|_| UnixStream::connect(&b.socket).ok()).collect();
    assert!(many.len() > 50, "{}", many.len());
    talk("while there are none");
    drop(many);
    talk("after");
    assert_eq!(b.json(&["info"])["hostname"], "agent-b");
    let done = a.run(&["connect", "agent-b", "1000", "--message", "hello"]);
    assert_eq!((done.status, done.text().trim()), (0, "echoed"), "{done:?}");
}
