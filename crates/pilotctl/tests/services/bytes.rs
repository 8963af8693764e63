//! What TCP promises holds from one socket to the other: every byte, each end, each reset.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::common::{World, noise};
use crate::door::{Door, ask, backwards, joined, service};

#[test]
fn each_direction_ends_by_itself() {
    let (_world, _a, _b, _serving, forwarding) = joined(service(backwards));
    assert_eq!(ask(&mut forwarding.connect(), b"question").unwrap(), b"noitseuq");
    assert_eq!(ask(&mut forwarding.connect(), b"").unwrap(), b"");

    // The service ends first, and hears what is said after that.
    let (heard, hears) = channel();
    let heard = Mutex::new(heard);
    let first = service(move |mut stream| {
        stream.write_all(b"that is all").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        heard.lock().unwrap().send(text).unwrap();
    });
    let (_world, _a, _b, _serving, forwarding) = joined(first);
    let mut stream = forwarding.connect();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "that is all");
    stream.write_all(b"thank you").unwrap();
    drop(stream);
    assert_eq!(hears.recv_timeout(crate::door::PATIENCE).unwrap(), "thank you");
}

#[test]
fn sixty_four_megabytes_go_both_ways_at_once_and_are_the_same() {
    let echo = service(|mut stream| {
        let mut back = stream.try_clone().unwrap();
        drop(std::io::copy(&mut stream, &mut back));
        drop(back.shutdown(Shutdown::Write));
    });
    let (_world, _a, _b, _serving, forwarding) = joined(echo);
    let sent = noise(64 << 20);
    let mut stream = forwarding.connect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut got = Vec::with_capacity(sent.len());
    stream.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == sent, "{} bytes came back", got.len());
    let closed = forwarding.hears("closed");
    assert_eq!((&closed["sent"], &closed["received"]), (&sent.len().into(), &sent.len().into()), "{closed}");
}

/// Ends a connection as a crash does: with bytes that were not read, which makes the system send a reset.
fn reset(mut stream: TcpStream) {
    drop(stream.read(&mut [0; 1]));
}

#[test]
fn a_reset_stays_a_reset_in_both_directions() {
    let (_world, _a, _b, _serving, forwarding) = joined(service(reset));
    let mut stream = forwarding.connect();
    stream.write_all(b"two").unwrap();
    let broken = stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset, "{broken}");

    let (seen, sees) = channel();
    let seen = Mutex::new(seen);
    let watcher = service(move |mut stream| {
        stream.write_all(b"two").unwrap();
        let read = stream.read(&mut [0; 10]).map_err(|error| error.kind());
        seen.lock().unwrap().send(read).unwrap();
    });
    let (_world, _a, _b, _serving, forwarding) = joined(watcher);
    reset(forwarding.connect());
    assert_eq!(sees.recv_timeout(crate::door::PATIENCE).unwrap(), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_service_that_is_down_is_a_reset_and_told_of() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (_world, _a, _b, serving, forwarding) = joined(closed);
    let broken = ask(&mut forwarding.connect(), b"anybody there?").unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::ConnectionReset, "{broken}");
    let told = serving.hears("closed");
    assert_eq!(told["error"]["code"], "refused", "{told}");
    assert!(told["error"]["message"].as_str().unwrap().contains(&closed.to_string()), "{told}");
}

#[test]
fn sockets_with_a_path_serve_at_both_ends() {
    let world = World::new();
    let (a, b) = world.friends();
    let path = world.directory.path().join("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        }
    });
    let _serving = Door::serve(&b, 80, format!("unix:{}", path.display()));
    let near = world.directory.path().join("near.sock");
    let mut forwarding = Door::open(&a, &["forward", &format!("unix:{}", near.display()), "agent-b:80"], 1);
    assert_eq!(forwarding.at[0], format!("unix:{}", near.display()));
    let mut stream = std::os::unix::net::UnixStream::connect(&near).unwrap();
    stream.write_all(b"quiet").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "QUIET");
    forwarding.process.terminate();
    assert_eq!(forwarding.process.status(), Some(0));
    assert!(!near.exists());
}
