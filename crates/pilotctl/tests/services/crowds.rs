//! Many connections, one after the other and at once, and no more than there may be.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::common::World;
use crate::door::{Door, ask, backwards, joined, patient, service};

/// Answers a line of four bytes with the same.
fn echo_four(mut stream: TcpStream) {
    let mut four = [0; 4];
    while stream.read_exact(&mut four).is_ok() {
        if stream.write_all(&four).is_err() {
            return;
        }
    }
}

/// Without a thread for each connection.
fn many_fours() -> std::net::SocketAddr {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    crate::door::in_background(move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut four = [0; 4];
                while stream.read_exact(&mut four).await.is_ok() && stream.write_all(&four).await.is_ok() {}
            });
        }
    });
    address
}

#[test]
fn ten_thousand_connections_one_after_the_other_are_all_answered() {
    let (_world, _a, _b, _serving, forwarding) = joined(many_fours());
    for number in 0..10_000_u32 {
        let mut stream = forwarding.connect();
        stream.set_nodelay(true).unwrap();
        stream.write_all(&number.to_be_bytes()).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        assert_eq!(u32::from_be_bytes(answer), number);
    }
}

#[test]
fn five_hundred_connections_at_once_are_all_answered_and_stay_apart() {
    let (_world, a, _b, _serving, forwarding) = joined(many_fours());
    let mut streams: Vec<TcpStream> = (0..500).map(|_| forwarding.connect()).collect();
    for round in 0..2_u32 {
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(&(round << 16 | number as u32).to_be_bytes()).unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut answer = [0; 4];
            stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("connection {number}: {error}"));
            assert_eq!(u32::from_be_bytes(answer), round << 16 | number as u32);
        }
    }
    assert_eq!(a.json(&["connections"])["total"], 500);
}

#[test]
fn one_connection_too_many_is_turned_away_at_once_and_another_may_take_its_place() {
    let world = World::new();
    let (a, b) = world.friends();
    let _serving = Door::serve(&b, 80, service(echo_four));
    let forwarding = Door::open(&a, &["forward", "127.0.0.1:0", "agent-b:80", "--limit", "2"], 1);
    let open = || {
        let mut stream = forwarding.connect();
        stream.write_all(b"four").and_then(|()| stream.read_exact(&mut [0; 4])).map(|()| stream)
    };
    let first = open().unwrap();
    let _second = open().unwrap();
    let refused = open().unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
    assert_eq!(forwarding.hears("turned_away")["limit"], 2);
    drop(first);
    forwarding.hears("closed");
    open().unwrap();

    // The same on the side that serves.
    let limited =
        Door::open(&b, &["serve", "81", "--to", &service(echo_four).to_string(), "--limit", "1"], 1);
    let forwarding = Door::forward(&a, "agent-b:81");
    let mut first = forwarding.connect();
    first.write_all(b"four").and_then(|()| first.read_exact(&mut [0; 4])).unwrap();
    let refused = ask(&mut forwarding.connect(), b"four").unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{refused}");
    assert_eq!(limited.hears("turned_away")["limit"], 1);
}

#[test]
fn asked_to_end_it_takes_no_more_and_lets_open_connections_finish() {
    let (_world, _a, _b, mut serving, mut forwarding) = joined(service(backwards));
    let mut stream = forwarding.connect();
    stream.write_all(b"begun").unwrap();
    // It has been taken: something came through.
    let port = forwarding.at[0].clone();
    let probe = ask(&mut forwarding.connect(), b"ab").unwrap();
    assert_eq!(probe, b"ba");
    forwarding.process.terminate();
    let refused = std::iter::from_fn(|| Some(TcpStream::connect(&port))).find_map(Result::err).unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(ask(&mut patient(stream), b" and ended").unwrap(), b"dedne dna nugeb");
    assert_eq!(forwarding.process.status(), Some(0));
    serving.process.terminate();
    assert_eq!(serving.process.status(), Some(0));
}
