//! Captures of real daemons, read by `tshark` with the dissector of `packaging/wireshark`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::World;
use serde_json::Value;

const PILOT_MAGICS: [&[u8]; 4] = [b"PILS", b"PILA", b"PILK", b"PILT"];

/// What the note says once packets are caught.
const READY: &str = "listening";

fn dissector() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/wireshark/pilot.lua")
}

/// The packets of a file as the dissector decodes them.
fn decoded(file: &Path) -> Vec<Value> {
    let script = format!("lua_script:{}", dissector().display());
    let mut command = Command::new("tshark");
    command.args(["-X", &script, "-T", "json", "--no-duplicate-keys", "-r"]).arg(file);
    let done = command.output().unwrap_or_else(|error| {
        panic!("tshark cannot be run ({error}): apt-get install tshark, as .ci/run does")
    });
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(!errors.contains("Lua"), "{errors}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Every value of a field in a packet, at whatever depth.
fn values<'a>(tree: &'a Value, field: &str) -> Vec<&'a str> {
    match tree {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match (name == field, value.as_str(), value.as_array()) {
                (true, Some(text), _) => vec![text],
                (true, None, Some(list)) => list.iter().filter_map(Value::as_str).collect(),
                _ => values(value, field),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(|item| values(item, field)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn value<'a>(packet: &'a Value, field: &str) -> Option<&'a str> {
    values(packet, field).first().copied()
}

/// The type of the last block of a pcapng file, whose length stands at its end.
fn last_block(file: &[u8]) -> u32 {
    let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    word(file.len() - word(file.len() - 4) as usize)
}

const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;

/// Whole packets in a file that is being written.
fn packets_in(mut file: &[u8]) -> usize {
    let mut count = 0;
    while let Some((head, _)) = file.split_first_chunk::<8>() {
        let [a, b, c, d, e, f, g, h] = *head;
        let length = u32::from_le_bytes([e, f, g, h]) as usize;
        let Some(rest) = file.get(length.max(12)..) else { break };
        count += usize::from(u32::from_le_bytes([a, b, c, d]) == ENHANCED_PACKET);
        file = rest;
    }
    count
}

#[test]
fn what_two_agents_say_is_decoded_by_wireshark() {
    let world = World::new();
    let (a, b) = world.friends();
    let file = a.home.join("out.pcapng");
    // One that others may read is there before.
    std::fs::write(&file, "old").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let capture = a.spawn_until(&["capture", "-w", "out.pcapng", "--peer", "agent-b"], READY);

    a.ok(&["ping", "agent-b", "--count", "1"]);
    let listening = b.spawn_until(&["listen", "5000", "--count", "1", "--timeout", "20s"], "listening");
    a.ok(&["dgram", "agent-b", "5000", "--data", "a datagram"]);
    assert!(listening.finish().text().contains("a datagram"));
    assert_eq!(a.ok(&["connect", "agent-b", "7", "--message", "a stream in clear"]), "a stream in clear");
    a.ok(&["send-message", "agent-b", "--data", "hello", "--until", "stored"]);
    capture.interrupt();
    let done = capture.finish();
    assert_eq!(done.status, 0, "{done:?}");
    assert!(done.text().contains("0 dropped → out.pcapng"), "{done:?}");

    let bytes = std::fs::read(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(last_block(&bytes), INTERFACE_STATISTICS);
    let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
    assert!(holds(b"a stream in clear") && holds(b"a datagram"));
    assert!(!PILOT_MAGICS.iter().any(|magic| holds(magic)), "no frame of the tunnel is in it");

    let packets = decoded(&file);
    assert!(packets.len() >= 8, "{}", packets.len());
    for packet in &packets {
        assert_eq!(value(packet, "pilot.meta.version"), Some("1"), "{packet}");
        assert_eq!(value(packet, "pilot.version"), Some("1"), "{packet}");
        assert_eq!(value(packet, "pilot.checksum.ok"), Some("1"), "{packet}");
        assert_eq!(value(packet, "pilot.encrypted"), Some("1"), "{packet}");
        assert_eq!(value(packet, "pilot.endpoint.ip"), Some("127.0.0.1"), "{packet}");
        assert!(values(packet, "_ws.expert.message").is_empty(), "{packet}");
    }
    let all = |field: &str| packets.iter().filter_map(|p| value(p, field)).collect::<BTreeSet<_>>();
    assert_eq!(all("pilot.direction"), ["1", "2"].into());
    assert!(all("pilot.protocol").is_superset(&["1", "2", "3"].into()), "{:?}", all("pilot.protocol"));
    let (ours, theirs) = (a.address(), b.address());
    assert_eq!(all("pilot.src"), [ours.as_str(), theirs.as_str()].into());

    let find = |what: &str, wanted: &dyn Fn(&Value) -> bool| {
        packets.iter().find(|packet| wanted(packet)).unwrap_or_else(|| panic!("no {what}")).clone()
    };
    let is = |packet: &Value, field: &str, wanted: &str| value(packet, field) == Some(wanted);
    let syn = find("SYN to the echo port", &|p| {
        is(p, "pilot.flags", "0x01") && is(p, "pilot.dstport", "7") && is(p, "pilot.direction", "2")
    });
    assert_eq!((value(&syn, "pilot.flags.syn"), value(&syn, "pilot.src")), (Some("1"), Some(ours.as_str())));
    assert_eq!(value(&syn, "pilot.option.sack_blocks"), Some("32"), "the options of ours: {syn}");
    find("SYN|ACK", &|p| is(p, "pilot.flags", "0x03") && is(p, "pilot.direction", "1"));
    find("stream of a message", &|p| is(p, "pilot.dstport", "1001") && is(p, "pilot.stream", "1"));
    let datagram = find("datagram", &|p| is(p, "pilot.dstport", "5000"));
    assert_eq!(value(&datagram, "pilot.payload"), Some("61:20:64:61:74:61:67:72:61:6d"));
    find("ping", &|p| is(p, "pilot.ping", "1"));
    find("pong", &|p| is(p, "pilot.pong", "1"));
}

#[test]
fn a_filter_lets_only_its_peer_and_port_through_and_lines_say_what_was_seen() {
    let world = World::new();
    let (a, _b) = world.friends();
    let capture = a.spawn_until(&["capture", "--peer", "agent-b", "--port", "7", "--count", "3"], READY);
    a.ok(&["ping", "agent-b", "--count", "1"]);
    a.ok(&["connect", "agent-b", "7", "--message", "hello"]);
    let done = capture.finish();
    let text = done.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((done.status, lines.len()), (0, 3), "{done:?}");
    assert!(lines.iter().all(|line| line.contains(":7 ") && line.contains(" stream [")), "{text}");
    assert!(lines[0].contains(" out ") && lines[0].contains(" [S] seq "), "{text}");
    assert!(lines[1].contains(" in ") && lines[1].contains(" [S.] seq "), "{text}");
}

#[test]
fn programs_get_an_object_for_each_packet_and_the_counts_at_the_end() {
    let world = World::new();
    let (a, b) = world.friends();
    let mut capture = a.spawn(&["capture", "--json", "--port", "7"]);
    // It says nothing before the first packet, so there are packets until it does.
    let stop = std::sync::atomic::AtomicBool::new(false);
    let first = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                a.ok(&["connect", "agent-b", "7", "--message", "hello"]);
            }
        });
        let first = capture.json_line();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        first
    });
    assert_eq!((&first["protocol"], &first["path"]), (&"stream".into(), &"direct".into()), "{first}");
    let ends = [&first["src"], &first["dst"]].map(|end| end.as_str().unwrap().to_owned());
    assert_eq!(BTreeSet::from(ends), [a.address(), b.address()].into());
    assert!(first["time_ns"].as_u64().unwrap() > 1_700_000_000_000_000_000);
    capture.interrupt();
    let done = capture.finish();
    let last: Value = serde_json::from_str(done.text().lines().last().unwrap()).unwrap();
    assert_eq!((done.status, last["dropped"].as_u64()), (0, Some(0)), "{done:?}");
    let lines = u64::try_from(done.text().lines().count()).unwrap();
    // All lines but the last are packets, and one was read before.
    assert_eq!(last["packets"].as_u64(), Some(lines), "{done:?}");
}

#[test]
fn a_capture_on_stdout_is_a_file_and_nothing_else() {
    let world = World::new();
    let (a, _b) = world.friends();
    let capture = a.spawn_until(&["capture", "-w", "-", "--count", "2"], READY);
    a.ok(&["ping", "agent-b", "--count", "2"]);
    let done = capture.finish();
    assert_eq!(done.status, 0, "{done:?}");
    assert_eq!(done.stdout[..4], 0x0A0D_0D0A_u32.to_le_bytes());
    assert_eq!(last_block(&done.stdout), INTERFACE_STATISTICS);
    let file = a.home.join("piped.pcapng");
    std::fs::write(&file, &done.stdout).unwrap();
    assert_eq!(decoded(&file).len(), 2);

    let both = a.run(&["capture", "-w", "-", "--json"]);
    assert_eq!((both.status, both.json()["code"].as_str()), (2, Some("invalid_argument")), "{both:?}");
}

#[test]
fn a_file_is_whole_also_when_the_daemon_was_killed() {
    let world = World::new();
    let (mut a, _b) = world.friends();
    let capture = a.spawn_until(&["capture", "-w", "out.pcapng"], READY);
    a.ok(&["ping", "agent-b", "--count", "1"]);
    let file = a.home.join("out.pcapng");
    // The ping may be over before its packets are here.
    let deadline = Instant::now() + Duration::from_secs(20);
    while packets_in(&std::fs::read(&file).unwrap()) < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    a.kill();
    let done = capture.finish();
    assert_ne!(done.status, 0, "{done:?}");
    assert_eq!(last_block(&std::fs::read(&file).unwrap()), INTERFACE_STATISTICS);
    assert!(decoded(&file).len() >= 2);
}

#[test]
fn packets_of_the_golden_vectors_are_decoded_as_they_say() {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire/tests/vectors/dataplane.json"),
    );
    let vectors: Value = serde_json::from_str(&text.unwrap()).unwrap();
    let vectors = vectors["packets"].as_array().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vectors.pcap");
    // The older format, which has no options: magic of nanoseconds, version 2.4, no limit, USER0.
    let mut bytes = Vec::new();
    for word in [0xA1B2_3C4D_u32, 2 | 4 << 16, 0, 0, 1 << 18, 147] {
        bytes.extend(word.to_le_bytes());
    }
    for vector in vectors {
        let wire = vector["wire"].as_str().unwrap();
        // The description of how it went: received, from nowhere.
        let mut packet = vec![0; 24];
        packet[..2].copy_from_slice(&[1, 1]);
        packet
            .extend((0..wire.len()).step_by(2).map(|at| u8::from_str_radix(&wire[at..at + 2], 16).unwrap()));
        let length = u32::try_from(packet.len()).unwrap();
        for word in [0, 0, length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(packet);
    }
    std::fs::write(&file, bytes).unwrap();
    let packets = decoded(&file);
    assert_eq!(packets.len(), vectors.len());
    for (packet, vector) in packets.iter().zip(vectors) {
        for (field, name) in [
            ("pilot.version", "version"),
            ("pilot.protocol", "protocol"),
            ("pilot.srcport", "src_port"),
            ("pilot.dstport", "dst_port"),
            ("pilot.seq", "seq"),
            ("pilot.ack", "ack"),
            ("pilot.window", "window"),
        ] {
            let wanted = vector[name].to_string();
            assert_eq!(value(packet, field), Some(wanted.as_str()), "{field} of {vector}");
        }
        let flags = format!("0x{:02x}", vector["flags"].as_u64().unwrap());
        assert_eq!(value(packet, "pilot.flags"), Some(flags.as_str()), "{vector}");
        assert_eq!(value(packet, "pilot.checksum.ok"), Some("1"), "{vector}");
    }
}

#[test]
fn the_page_about_captures_says_what_happens() {
    common::tour::check_among_friends("docs/capture.md", &["alice", "bob"], 4);
}
