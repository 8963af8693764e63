//! Files and folders as people and scripts send them, with real processes that are killed in the middle.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on stops, and says why")]

mod common;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Agent, World, noise};
use serde_json::{Value, json};

/// What may be under way between two of our nodes when the connection breaks: 128 chunks of 48 KiB.
const WINDOW: u64 = 6 << 20;

/// No process may hold so much, however long the file is.
const MEMORY_KB: u64 = 60 << 10;

/// A file without a repetition, a megabyte at a time.
fn write_noise(path: &Path, megabytes: u64) {
    let block = noise(1_000_000);
    let mut file = BufWriter::new(std::fs::File::create(path).unwrap());
    for number in 0..megabytes {
        file.write_all(&number.to_le_bytes()).unwrap();
        file.write_all(&block[8..]).unwrap();
    }
    file.flush().unwrap();
}

fn received(agent: &Agent) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(agent.home.join("received")).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}

/// Bytes of the one file that is being received.
fn partial(agent: &Agent) -> u64 {
    let entries = std::fs::read_dir(agent.home.join("received/.partial")).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or(0)
}

fn until_partial(agent: &Agent, bytes: u64) {
    let begin = Instant::now();
    while partial(agent) < bytes {
        assert!(begin.elapsed() < Duration::from_secs(120), "{} of {bytes} bytes arrived", partial(agent));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The most memory that a process ever had, in kilobytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").trim().parse().unwrap_or(0)
}

fn sha256(path: &Path) -> String {
    let done = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(done.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Ends the connection that carries files, at one of its ends.
fn cut(agent: &Agent) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(60) {
        let connections = agent.json(&["connections"]);
        let all = connections["connections"].as_array().cloned().unwrap_or_default();
        let is_it = |conn: &&Value| conn["remote_port"] == 1001 || conn["local_port"] == 1001;
        if let Some(id) =
            all.iter().find(is_it).and_then(|conn| conn["id"].as_u64().or(conn["conn_id"].as_u64()))
            && agent.run(&["disconnect", &id.to_string()]).status == 0
        {
            return;
        }
    }
    panic!("no connection to be cut");
}

#[test]
fn a_large_file_survives_the_end_of_its_connection_of_either_daemon_and_of_its_sender() {
    let megabytes = std::env::var("PILOT_TEST_FILE_MB").ok().and_then(|text| text.parse().ok()).unwrap_or(80);
    let size: u64 = megabytes * 1_000_000;
    let world = World::new();
    let (mut a, mut b) = world.friends();
    let path = a.home.join("large.bin");
    write_noise(&path, megabytes);
    let to = b.address();
    let begin = Instant::now();
    let send = |a: &Agent| a.spawn(&["send-file", &to, "large.bin", "--json", "--timeout", "120s"]);
    let mut peaks = Vec::new();
    let mut sending = send(&a);
    until_partial(&b, size / 7);
    cut(&a);
    until_partial(&b, size * 2 / 7);
    b.kill();
    b.start(&[]);
    until_partial(&b, size * 3 / 7);
    peaks.push(peak(a.pid()));
    a.kill();
    a.start(&[]);
    until_partial(&b, size * 4 / 7);
    peaks.push(peak(sending.pid()));
    // The sending process itself: what it had is known from what the receiver has.
    drop(sending);
    sending = send(&a);
    let had = partial(&b);
    until_partial(&b, size * 5 / 7);
    cut(&b);
    until_partial(&b, size * 6 / 7);
    peaks.push(peak(sending.pid()));
    peaks.push(peak(a.pid()));
    peaks.push(peak(b.pid()));
    let done = sending.finish();
    assert_eq!(done.status, 0, "{done:?}");
    let report = done.json()["data"].clone();
    let (sent, resumed) = (report["bytes_sent"].as_u64().unwrap(), report["bytes_resumed"].as_u64().unwrap());
    eprintln!(
        "{size} bytes in {:?}; the last of two senders: {resumed} resumed, {sent} sent, {} of them again; peaks {peaks:?} kB",
        begin.elapsed(),
        sent + resumed - size
    );
    assert!(resumed >= size * 4 / 7 && resumed >= had.min(resumed), "{report}");
    assert!(sent + resumed - size <= WINDOW, "{report}");
    assert!(peaks.iter().all(|peak| *peak < MEMORY_KB), "{peaks:?} kB");
    let found = received(&b);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(sha256(&found[0]), report["sha256"].as_str().unwrap());
    assert_eq!(sha256(&path), report["sha256"].as_str().unwrap());
}

#[test]
fn a_receiver_that_is_killed_in_the_middle_of_a_folder_has_it_whole_in_the_end() {
    let world = World::new();
    let (a, mut b) = world.friends();
    let root = a.home.join("project");
    std::fs::create_dir_all(root.join("src")).unwrap();
    for number in 0..40 {
        std::fs::write(root.join(format!("src/{number}.rs")), noise(3000 + number)).unwrap();
    }
    std::fs::write(root.join("large.bin"), noise(20_000_000)).unwrap();
    let to = b.address();
    let sending = a.spawn(&["send-dir", &to, "project", "--json"]);
    let contents = |b: &Agent| {
        let partial = std::fs::read_dir(b.home.join("received/.partial")).into_iter().flatten().flatten();
        let inside = partial.filter_map(|entry| std::fs::read_dir(entry.path().join("contents")).ok());
        inside.flatten().flatten().filter_map(|entry| Some(entry.metadata().ok()?.len())).sum::<u64>()
    };
    let begin = Instant::now();
    while contents(&b) < 8_000_000 {
        assert!(begin.elapsed() < Duration::from_secs(60), "nothing arrives");
        std::thread::sleep(Duration::from_millis(1));
    }
    b.kill();
    assert!(received(&b).is_empty());
    b.start(&[]);
    let done = sending.finish();
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(done.json()["data"]["files"], 41);
    let found = received(&b);
    assert_eq!(found.len(), 1, "{found:?}");
    let same = std::process::Command::new("diff").arg("-r").arg(&root).arg(&found[0]).status().unwrap();
    assert!(same.success());
}

#[test]
fn a_file_for_a_peer_that_is_away_is_queued_at_once_and_arrives_when_the_peer_is_back() {
    let world = World::new();
    let (mut a, mut b) = world.friends();
    let to = b.address();
    std::fs::write(a.home.join("report.bin"), noise(300_000)).unwrap();
    std::fs::create_dir(a.home.join("folder")).unwrap();
    b.kill();
    // A daemon that has no tunnel to it, as after a night.
    a.kill();
    a.start(&[]);
    let begin = Instant::now();
    let report = a.json(&["send-file", &to, "report.bin", "--name", "report.pdf"]);
    eprintln!("queued after {:?}", begin.elapsed());
    assert!(matches!(report["state"].as_str(), Some("queued" | "sent")), "{report}");
    assert_eq!((&report["filename"], &report["bytes"]), (&json!("report.pdf"), &json!(300_000)));
    let id = report["message_id"].as_str().unwrap().to_owned();
    let now = a.run(&["send-file", &to, "report.bin", "--now", "--json"]);
    assert!([3, 6].contains(&now.status), "{now:?}");
    let folder = a.run(&["send-file", &to, "folder", "--json"]);
    assert!([3, 6].contains(&folder.status), "{folder:?}");
    assert!(folder.json()["hint"].as_str().unwrap().contains("archive"), "{folder:?}");
    assert_eq!(a.run(&["send-file", &to, "folder", "--queue"]).status, 2);
    // The daemon has a copy: what becomes of the file does not matter.
    std::fs::remove_file(a.home.join("report.bin")).unwrap();
    b.start(&[]);
    let waiting = b.spawn_until(&["received", "wait", "--since", "1h", "--timeout", "60s"], "waiting");
    assert_eq!(a.json(&["outbox", "wait", &id, "--timeout", "60s"])["state"], "stored");
    let arrived = waiting.finish();
    assert_eq!(arrived.status, 0, "{arrived:?}");
    let path = arrived.text().trim().to_owned();
    assert!(path.contains("/report-") && path.ends_with(".pdf"), "{path}");
    assert!(std::fs::read(path).unwrap() == noise(300_000));
    assert_eq!(b.json(&["received"])["files"][0]["from_hostname"], "agent-a");
}

#[test]
fn stdin_is_a_file_and_files_are_listed_waited_for_and_removed() {
    let world = World::new();
    let (a, b) = world.friends();
    let data = noise(100_000);
    let done = a.pipe(&["send-file", "agent-b", "-", "--name", "pipe.bin", "--json"], &data);
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(
        (&done.json()["data"]["filename"], &done.json()["data"]["state"]),
        (&json!("pipe.bin"), &json!("stored"))
    );
    let leftovers = std::fs::read_dir(&a.home).unwrap().flatten();
    assert_eq!(leftovers.filter(|entry| entry.file_name().to_string_lossy().contains("stdin")).count(), 0);
    let file = b.json(&["received", "wait", "--since", "1h", "--from", "agent-a"]);
    assert_eq!((&file["bytes"], &file["announced"]), (&json!(100_000), &json!("pipe.bin")));
    assert!(std::fs::read(file["path"].as_str().unwrap()).unwrap() == data);
    let after = file["received_ns"].as_u64().unwrap().to_string();
    let none = b.run(&["received", "wait", "--after", &after, "--timeout", "1ms", "--json"]);
    assert_eq!((none.status, none.json()["code"].as_str()), (6, Some("timeout")));
    a.ok(&["send-file", "agent-b", a.home.join("test.log").to_str().unwrap()]);
    let next = b.json(&["received", "wait", "--after", &after]);
    assert_eq!(next["announced"], "test.log");
    assert_eq!(b.json(&["received", "--from", "agent-a"])["total"], 2);
    assert_eq!(b.json(&["received", "--from", &b.address()])["total"], 0);
    let name = next["name"].as_str().unwrap();
    assert_eq!(b.json(&["received", "rm", name])["cleared"], 1);
    assert_eq!(b.run(&["received", "rm", name]).status, 5);
    assert_eq!(b.run(&["received", "rm", "../inbox"]).status, 5);
    assert_eq!(b.json(&["received", "--clear", "--from", &b.address()])["cleared"], 0);
    assert_eq!(b.json(&["received", "--clear"])["cleared"], 1);
}

#[test]
fn room_is_what_the_settings_say() {
    let world = World::new();
    let a = world.agent("agent-a");
    let mut b = world.machine("agent-b");
    b.ok(&["config", "--set", "received_max_file=100KB"]);
    assert_eq!(b.run(&["config", "--set", "received_max_bytes=much"]).status, 2);
    b.start(&[]);
    common::befriend(&a, &b);
    std::fs::write(a.home.join("small"), noise(100 << 10)).unwrap();
    std::fs::write(a.home.join("large"), noise((100 << 10) + 1)).unwrap();
    a.ok(&["send-file", "agent-b", "small"]);
    let refused = a.run(&["send-file", "agent-b", "large", "--json"]);
    assert_eq!((refused.status, refused.json()["code"].as_str()), (1, Some("refused")), "{refused:?}");
}
