//! Two daemons and a rendezvous: trust, streams both ways, restarts.

mod common;

use common::{Daemon, Home, Rendezvous, befriend};
use pilot_wire::Port;

#[tokio::test]
async fn two_fresh_daemons_agree_and_exchange_bytes_both_ways() {
    let rendezvous = Rendezvous::start().await;
    let (home_a, home_b) = (Home::new(), Home::new());
    let a = Daemon::start(home_a.config(&rendezvous)).await;
    let b = Daemon::start(home_b.config(&rendezvous)).await;
    befriend(&a, &b).await;

    let mut listener = b.program().await;
    listener.bind(Port(5000)).await;
    let mut dialer = a.program().await;
    let out = dialer.dial(b.at(Port(5000))).await.unwrap();
    let (incoming, from) = listener.accept().await;
    assert_eq!(from.addr.node, a.node());

    dialer.send(out, b"hello").await;
    assert_eq!(listener.read(incoming, 5).await, b"hello");
    listener.send(incoming, b"good day").await;
    assert_eq!(dialer.read(out, 8).await, b"good day");
}
