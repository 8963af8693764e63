//! Programs of this machine that mean harm: at the daemon's socket, at its metrics, as another user.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{PILOTCTL, World};
use crate::target::{PATIENCE, Target, befriend, beside};

/// The user with no rights.
const NOBODY: &str = "65534";

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

/// As nobody, if whoever runs the test may do so.
fn as_nobody(program: &Path, words: &[&str], target: &Target) -> Option<std::process::Output> {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]).arg(program).args(words);
    command.env("PILOT_SOCKET", &target.agent.socket).env("PILOT_HOME", "/nonexistent").current_dir("/");
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    is_root.then(|| command.stdin(Stdio::null()).output().unwrap())
}

#[test]
fn another_user_of_the_machine_neither_uses_the_socket_nor_reads_what_is_kept() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    a.agent.ok(&["send-message", "agent-b", "--data", "for its owner only", "--now"]);
    assert_eq!(mode(&b.agent.socket), 0o600);
    for secret in ["identity.json", "trust.json", "node.json"] {
        let path = b.agent.home.join(secret);
        if path.exists() {
            assert_eq!(mode(&path), 0o600, "{secret}");
        }
    }
    assert_eq!(mode(&b.agent.home.join("identity.json")), 0o600);
    for message in std::fs::read_dir(b.agent.home.join("inbox")).unwrap().flatten() {
        assert_eq!(mode(&message.path()) & 0o077, 0, "{}", message.path().display());
    }
    // A copy that everybody may run, and the way to it and to the socket open: what refuses is the daemon.
    let open = tempfile::Builder::new().prefix("pilot").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(open.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(world.directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let program = open.path().join("pilotctl");
    if std::fs::hard_link(PILOTCTL, &program).is_err() {
        std::fs::copy(PILOTCTL, &program).unwrap();
    }
    let listed = as_nobody(&program, &["inbox", "--json"], &b);
    if let Some(listed) = listed {
        assert_ne!(listed.status.code(), Some(0), "{listed:?}");
        assert!(!String::from_utf8_lossy(&listed.stdout).contains("owner only"), "{listed:?}");
        // Even where somebody opened the file for all: the daemon asks the system who is there.
        std::fs::set_permissions(&b.agent.socket, PermissionsExt::from_mode(0o666)).unwrap();
        let refused = as_nobody(&program, &["inbox", "--json"], &b).unwrap();
        assert_ne!(refused.status.code(), Some(0), "{refused:?}");
        assert!(!String::from_utf8_lossy(&refused.stdout).contains("owner only"), "{refused:?}");
        for file in ["identity.json", "inbox"] {
            let path = b.agent.home.join(file);
            let read = as_nobody(Path::new("/bin/ls"), &["-R", path.to_str().unwrap()], &b).unwrap();
            let peeked = as_nobody(Path::new("/bin/cat"), &[path.to_str().unwrap()], &b).unwrap();
            assert!(read.status.code() != Some(0) || peeked.status.code() != Some(0), "{file} is read");
        }
    }
    assert_eq!(b.agent.json(&["inbox"])["messages"].as_array().map(Vec::len), Some(1));
}

#[test]
fn programs_that_are_hostile_slow_or_many_keep_no_other_from_the_daemon() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    let connect = || {
        let stream = UnixStream::connect(&a.agent.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    beside(&a.agent, "agent-b", || {
        // Silent ones, ones that stop in the middle, and one that asks without reading.
        let mut stuck: Vec<UnixStream> = (0..60).map(|_| connect()).collect();
        for stream in stuck.iter_mut().step_by(2) {
            stream.write_all(&[0, 0, 1, 0, 0x0D, b'{']).unwrap();
        }
        let mut deaf = connect();
        deaf.set_nonblocking(true).unwrap();
        let info = [0, 0, 0, 1, 0x0D].repeat(10_000);
        let mut written = 0;
        while written < 64 << 20
            && let Ok(length) = deaf.write(&info)
        {
            written += length;
        }
        // Announced and not sent: 64 MiB, 4 GiB, nothing; then every command, with nothing and with too much behind it.
        for announced in [64_u32 << 20, u32::MAX, 0] {
            let mut stream = connect();
            stream.write_all(&announced.to_be_bytes()).unwrap();
            let _ = stream.write_all(&[0x0D; 64]);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
        for command in 0..=u8::MAX {
            let deep: &[u8] = if command.is_multiple_of(16) { &[b'['; 60_000] } else { b"{" };
            for behind in [&b""[..], &[0xFF; 3], deep] {
                let mut stream = connect();
                let length = u32::try_from(behind.len() + 1).unwrap();
                let frame = [&length.to_be_bytes(), &[command][..], behind].concat();
                let _ = stream.write_all(&frame);
            }
        }
        a.until("pilot_node_programs", 30);
        let mut metrics: Vec<TcpStream> = Vec::new();
        for half in [&b""[..], b"G", b"GET /metrics HTTP/1.1\r\nX: ", &[b'x'; 9000]] {
            for _ in 0..8 {
                let mut stream = a.knock();
                let _ = stream.write_all(half);
                metrics.push(stream);
            }
        }
        assert_eq!(a.agent.json(&["status"])["running"], true);
        a.agent.ok(&["send-message", "agent-b", "--data", "beside them", "--now"]);
        drop((metrics, stuck, deaf));
    });
}
