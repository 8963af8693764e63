//! Clients of a rendezvous that mean harm: at the registry's port, on its pages, at the beacon's port for the web.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{Rendezvous, World};
use crate::target::{PATIENCE, Target, befriend, beside};

/// What a rendezvous may keep of all of this. One bomb that is believed is more.
const MEMORY: u64 = 48 << 20;

/// A length and what follows, not necessarily as long.
fn framed(length: u32, content: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes(), content].concat()
}

fn whole(content: &[u8]) -> Vec<u8> {
    framed(u32::try_from(content.len()).unwrap(), content)
}

/// Documents that cost a careless reader its stack, its memory or its time.
fn bombs() -> Vec<Vec<u8>> {
    const LONG: usize = 900_000;
    let nested = |open: &str, close: &str, count: usize| {
        let inner = [open.repeat(count), close.repeat(count)].concat();
        whole(format!("{{\"type\":\"lookup\",\"node_id\":{inner}}}").as_bytes())
    };
    let field = |value: &str| whole(format!("{{\"type\":\"lookup\",\"node_id\":{value}}}").as_bytes());
    vec![
        nested("[", "]", 400_000),
        nested("{\"a\":[", "]}", 100_000),
        whole("[".repeat(LONG).as_bytes()),
        field("1e999999999"),
        field("-1"),
        field(&"9".repeat(LONG)),
        field(&format!("0.{}", "1".repeat(LONG))),
        field(&format!("\"{}\"", "\\u0000".repeat(LONG / 6))),
        field(&format!("\"{}\"", "x".repeat(LONG))),
        whole(format!("{{{}\"type\":\"lookup\"}}", "\"node_id\":1,".repeat(LONG / 12)).as_bytes()),
        whole(format!("{{{}\"type\":\"x\"}}", "\"\":{},".repeat(LONG / 6)).as_bytes()),
        whole(&[0xFF; 4096]),
        whole(b"\xEF\xBB\xBF{\"type\":\"lookup\"}"),
        // Announced and not sent: 64 MiB, 4 GiB, nothing.
        framed(64 << 20, b"{\"type\":"),
        framed(u32::MAX, b"{\"type\":"),
        framed(0, b""),
        b"\x16\x03\x01\xff\xff not tls at all".to_vec(),
        [b"GET / HTTP/1.1\r\n".to_vec(), b"X: y\r\n".repeat(10_000)].concat(),
    ]
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).map_or(0, |kib: u64| kib << 10)
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends it, and that nothing follows; what is answered before the end, or before so many bytes.
fn throw(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // It may hang up in the middle.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    hear(stream)
}

/// A page. Who asks stays until it has come: HTTP takes one that says no more for one that is gone.
fn page(address: &str, path: &str) -> String {
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    String::from_utf8(hear(stream)).unwrap()
}

fn hear(stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let ended = stream.take(64 << 10).read_to_end(&mut answer);
    let hung_up = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
    assert!(ended.as_ref().err().is_none_or(hung_up), "it waits: {ended:?}");
    answer
}

#[test]
fn bombs_and_slow_clients_cost_a_rendezvous_their_own_connection() {
    let world = World::new();
    let anywhere = ["--http-listen", "127.0.0.1:0", "--web-listen", "127.0.0.1:0"];
    let attacked = Rendezvous::start(world.directory.path().join("attacked"), &anywhere);
    let at = |name: &str| Target::start_at(&world, &attacked.registry, &attacked.beacon, name);
    let (a, b) = (at("agent-a"), at("agent-b"));
    befriend(&a, &b);
    let doors = [&attacked.registry, &attacked.pages, &attacked.web];
    let before = resident(attacked.pid());
    beside(&a.agent, "agent-b", || {
        // Half of something, and then nothing: more of them than a thread for each would like.
        let mut stuck = Vec::new();
        for door in &doors {
            for half in [&b""[..], b"\0", b"\0\0\x10\0{", b"GET / HTTP/1.1\r\nHost:", b"\x16\x03\x01\x02"] {
                for _ in 0..8 {
                    let mut stream = connect(door);
                    stream.write_all(half).unwrap();
                    stuck.push(stream);
                }
            }
        }
        for bomb in bombs() {
            for door in &doors {
                throw(door, &bomb);
            }
        }
        // Who asks and never reads.
        let mut deaf = connect(&attacked.registry);
        deaf.set_nonblocking(true).unwrap();
        let asked = whole(b"{\"type\":\"list_networks\"}").repeat(1000);
        while deaf.write(&asked).is_ok() {}
        stuck.push(deaf);
        // The registry serves the others meanwhile: who is new, and who is looked for.
        let newcomer = at("newcomer").agent;
        newcomer.ok(&["set-public"]);
        assert_eq!(a.agent.json(&["find", "newcomer"])["address"], newcomer.address());
        let page = page(&attacked.pages, "/healthz");
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
        let grown = resident(attacked.pid()).saturating_sub(before);
        assert!(grown < MEMORY, "{grown} bytes more");
        drop(stuck);
    });
}
