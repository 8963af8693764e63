//! Daemons that die and come back under commands that go on.

use crate::door::{ask, backwards, joined, service};

#[test]
fn a_daemon_that_comes_back_is_used_again_by_whoever_forwards() {
    let (_world, mut a, _b, _serving, forwarding) = joined(service(backwards));
    assert_eq!(ask(&mut forwarding.connect(), b"before").unwrap(), b"erofeb");
    let mut cut = forwarding.connect();
    std::io::Write::write_all(&mut cut, b"cut").unwrap();
    a.kill();
    forwarding.hears("daemon_gone");
    let broken = ask(&mut cut, b" off").unwrap_err();
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset, "{broken}");
    a.start(&[]);
    forwarding.hears("daemon_back");
    assert_eq!(ask(&mut forwarding.connect(), b"after").unwrap(), b"retfa");
}

#[test]
fn a_connection_that_comes_while_the_daemon_restarts_waits_for_it() {
    let (_world, mut a, _b, _serving, forwarding) = joined(service(backwards));
    a.kill();
    forwarding.hears("daemon_gone");
    let mut early = forwarding.connect();
    let asking = std::thread::spawn(move || ask(&mut early, b"early"));
    a.start(&[]);
    assert_eq!(asking.join().unwrap().unwrap(), b"ylrae");
}

#[test]
fn a_daemon_that_comes_back_gives_its_port_to_whoever_serves() {
    let (_world, _a, mut b, serving, forwarding) = joined(service(backwards));
    assert_eq!(ask(&mut forwarding.connect(), b"before").unwrap(), b"erofeb");
    b.kill();
    serving.hears("daemon_gone");
    b.start(&[]);
    serving.hears("daemon_back");
    serving.hears("listening");
    assert_eq!(ask(&mut forwarding.connect(), b"after").unwrap(), b"retfa");
}
