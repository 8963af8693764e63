//! The routers of the lab do what the kinds they are named after do: measured with plain datagrams.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use pilot_lab::{Access, Host, Lab, Nat, Observers, RENDEZVOUS, Site};
use pilot_wire::path::Nat as Seen;

use crate::kinds::KINDS;

#[test]
fn every_kind_is_what_its_name_says() {
    let lab = Lab::without_rendezvous();
    let observers = Observers::open(&lab);
    for (index, (access, expected)) in KINDS.into_iter().enumerate() {
        let site = Site::build(&lab, &format!("s{index}"), access);
        let expected = expected.map(|kind| Seen { mapping: kind.mapping, filtering: kind.filtering });
        assert_eq!(observers.look_at(&site.host, 5000), expected, "{access}");
        if expected.is_some() {
            // Once more with other sockets: what the first look left behind must not change what the second one sees.
            assert_eq!(observers.look_at(&site.host, 6000), expected, "{access}");
        }
        assert!(tcp_gets_out(&lab, &site.host), "{access}");
    }
}

#[test]
fn a_stranger_who_came_too_early_does_not_take_the_port() {
    let lab = Lab::without_rendezvous();
    let observers = Observers::open(&lab);
    for (index, access) in [Access::AddressRestricted, Access::PortRestricted].into_iter().enumerate() {
        let site = Site::build(&lab, &format!("s{index}"), access);
        let stranger = lab.host(&format!("x{index}"));
        let knocks = stranger.namespace().udp(stranger.address(), 7000);
        let outside = SocketAddr::from((site.routers[0].outside(), 5000));
        knocks.send_to(b"early", outside).expect("the internet takes datagrams");
        let socket = site.host.namespace().udp(site.host.address(), 5000);
        assert_eq!(observers.outside(&socket), Some(outside), "{access}");
        socket.send_to(b"hello", knocks.local_addr().expect("it is bound")).expect("a host takes datagrams");
        let mut buffer = [0; 16];
        let (_, from) = knocks.recv_from(&mut buffer).expect("what goes out arrives");
        assert_eq!(from, outside, "{access}");
        knocks.send_to(b"again", outside).expect("the internet takes datagrams");
        let mut receive = || {
            let (len, _) = socket.recv_from(&mut buffer).expect("the answer gets in");
            buffer[..len].to_vec()
        };
        // On a busy machine the early one may be on its way for so long that it is not early any more.
        let answer = match receive() {
            late if late == b"early" => receive(),
            answer => answer,
        };
        assert_eq!(answer, b"again", "{access}");
    }
}

#[test]
fn a_router_that_has_restarted_lets_nobody_in_until_somebody_goes_out() {
    let lab = Lab::without_rendezvous();
    let observers = Observers::open(&lab);
    let mut site = Site::build(&lab, "s", Access::PortRestricted);
    let stranger = lab.host("x");
    let friend = stranger.namespace().udp(stranger.address(), 7000);
    let socket = site.host.namespace().udp(site.host.address(), 5000);
    let outside = observers.outside(&socket).expect("datagrams get out");
    let meet = |text: &[u8]| {
        socket.send_to(text, friend.local_addr().expect("it is bound")).expect("a host takes datagrams");
        friend.recv_from(&mut [0; 16]).expect("what goes out arrives").1
    };
    assert_eq!(meet(b"hello"), outside);
    site.routers[0].restart();
    friend.send_to(b"lost", outside).expect("the internet takes datagrams");
    assert_eq!(meet(b"again"), outside);
    friend.send_to(b"kept", outside).expect("the internet takes datagrams");
    site.routers[0].rebind(33_333);
    friend.send_to(b"lost", outside).expect("the internet takes datagrams");
    let moved = meet(b"there");
    assert_eq!(moved, SocketAddr::from((site.routers[0].outside(), 33_333)));
    friend.send_to(b"kept", moved).expect("the internet takes datagrams");
    let mut buffer = [0; 16];
    for _ in 0..2 {
        let (len, _) = socket.recv_from(&mut buffer).expect("the answer gets in");
        assert_eq!(&buffer[..len], b"kept");
    }
}

#[test]
fn two_hosts_meet_at_the_outside_of_their_router_only_with_hairpinning() {
    for (nat, meets) in [(Nat::PortRestricted, false), (Nat::Symmetric, false), (Nat::Hairpin, true)] {
        let lab = Lab::without_rendezvous();
        let observers = Observers::open(&lab);
        let mut carrier = lab.carrier("carrier", nat);
        let sockets: Vec<_> = (0..2)
            .map(|number| {
                let mut home = lab.home_behind(&mut carrier, &format!("home{number}"), Nat::PortRestricted);
                let host = lab.host_behind(&mut home, &format!("host{number}"));
                (host.namespace().udp(host.address(), 5000 + number), host, home)
            })
            .collect();
        let outside: Vec<_> = sockets
            .iter()
            .map(|(socket, ..)| observers.outside(socket).expect("datagrams get out"))
            .collect();
        // The first two open the way, the next two find it open.
        for text in [b"opens", b"comes"] {
            sockets[0].0.send_to(text, outside[1]).expect("a host takes datagrams");
            sockets[1].0.send_to(text, outside[0]).expect("a host takes datagrams");
        }
        // Behind them goes one that surely arrives, through the same cables.
        for (number, (socket, ..)) in sockets.iter().enumerate() {
            observers.send(b"last", outside[number]);
            let mut buffer = [0; 16];
            let mut came = Vec::new();
            loop {
                let (len, from) = socket.recv_from(&mut buffer).expect("the observer's gets in");
                if &buffer[..len] == b"last" {
                    break;
                }
                assert_eq!(from, outside[1 - number], "{nat}");
                came.push(buffer[..len].to_vec());
            }
            assert_eq!(came.iter().any(|text| text == b"comes"), meets, "{nat}: {came:?}");
        }
    }
}

fn tcp_gets_out(lab: &Lab, host: &Host) -> bool {
    let to = SocketAddr::from((RENDEZVOUS[0], 8443));
    let listener = lab.rendezvous().namespace().enter(|| TcpListener::bind(to)).expect("the port is free");
    let answers =
        thread::spawn(move || listener.accept().and_then(|(mut stream, _)| stream.write_all(b"tcp")));
    let mut text = Vec::new();
    let read = host
        .namespace()
        .enter(|| TcpStream::connect(to).and_then(|mut stream| stream.read_to_end(&mut text)));
    let answered = answers.join().expect("answering does not panic");
    read.is_ok() && answered.is_ok() && text == b"tcp"
}
