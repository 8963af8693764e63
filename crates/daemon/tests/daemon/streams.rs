//! Two daemons and a rendezvous: trust, streams both ways, streams to oneself.

use crate::common::{CREDIT, Daemon, Home, Rendezvous, befriend};
use pilot_wire::ipc::{ClientFrame, Code, DaemonFrame, Failure, Handshake, Reply, Request};
use pilot_wire::{NodeId, Port};

/// Two daemons that trust each other.
pub(crate) struct Pair {
    pub(crate) a: Daemon,
    pub(crate) b: Daemon,
    pub(crate) rendezvous: Rendezvous,
    pub(crate) homes: [Home; 2],
}

impl Pair {
    pub(crate) async fn of_friends() -> Self {
        let rendezvous = Rendezvous::start().await;
        let homes = [Home::new(), Home::new()];
        let a = Daemon::start(homes[0].config(&rendezvous)).await;
        let b = Daemon::start(homes[1].config(&rendezvous)).await;
        befriend(&a, &b).await;
        Self { a, b, rendezvous, homes }
    }
}

#[tokio::test]
async fn two_fresh_daemons_agree_and_exchange_bytes_both_ways() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
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

#[tokio::test]
async fn a_side_that_has_finished_still_receives_and_the_end_is_told_once() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut listener = b.program().await;
    listener.bind(Port(5000)).await;
    let mut dialer = a.program().await;
    let out = dialer.dial(b.at(Port(5000))).await.unwrap();
    let (incoming, _) = listener.accept().await;

    dialer.send(out, b"question").await;
    dialer.say(&ClientFrame::Finish { stream: out }).await;
    assert_eq!(listener.read(incoming, 8).await, b"question");
    let end = listener.next().await;
    assert_eq!(DaemonFrame::parse(&end), Ok(DaemonFrame::Finish { stream: incoming }));

    listener.send(incoming, b"answer").await;
    listener.call(Request::Drain { stream: incoming }).await.unwrap();
    listener.say(&ClientFrame::Finish { stream: incoming }).await;
    assert_eq!(dialer.read(out, 6).await, b"answer");
    let ends = [dialer.next().await, dialer.next().await];
    assert_eq!(DaemonFrame::parse(&ends[0]), Ok(DaemonFrame::Finish { stream: out }));
    assert_eq!(DaemonFrame::parse(&ends[1]), Ok(DaemonFrame::Reply(Reply::Closed { stream: out })));
    let end = listener.next().await;
    assert_eq!(DaemonFrame::parse(&end), Ok(DaemonFrame::Reply(Reply::Closed { stream: incoming })));
}

#[tokio::test]
async fn a_private_node_talks_to_itself_and_echo_returns_every_byte() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut program = daemon.program().await;
    let echo = program.dial(daemon.at(Port::ECHO)).await.unwrap();
    let sent: Vec<u8> = (0..CREDIT as u32).map(|i| (i % 251) as u8).collect();
    program.send(echo, &sent[..CREDIT / 2]).await;
    program.send(echo, &sent[CREDIT / 2..]).await;
    assert!(program.read(echo, CREDIT).await == sent);
    program.say(&ClientFrame::Finish { stream: echo }).await;
    let end = program.next().await;
    assert_eq!(DaemonFrame::parse(&end), Ok(DaemonFrame::Finish { stream: echo }));
}

#[tokio::test]
async fn megabytes_arrive_whole_through_the_tunnel() {
    const SIZE: usize = 8 << 20;
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut listener = b.program().await;
    listener.bind(Port(5000)).await;
    let mut dialer = a.program().await;
    let out = dialer.dial(b.at(Port(5000))).await.unwrap();
    let (incoming, _) = listener.accept().await;

    let sent: Vec<u8> = (0..SIZE as u32).map(|i| (i % 253) as u8).collect();
    let sending = async {
        let mut credit = CREDIT;
        let mut rest = &sent[..];
        while !rest.is_empty() {
            while credit == 0 {
                let frame = dialer.next().await;
                let Ok(DaemonFrame::Credit { bytes, .. }) = DaemonFrame::parse(&frame) else { panic!() };
                credit += bytes as usize;
            }
            let (now, later) = rest.split_at(rest.len().min(credit).min(100_000));
            dialer.send(out, now).await;
            credit -= now.len();
            rest = later;
        }
    };
    let ((), received) = tokio::join!(sending, listener.read(incoming, SIZE));
    assert!(received == sent);
}

#[tokio::test]
async fn a_refused_a_closed_and_an_unknown_destination_are_told_apart() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut program = a.program().await;
    let code = |result: Result<_, Failure>| result.map(|_: pilot_wire::StreamId| ()).unwrap_err().code;
    assert_eq!(code(program.dial(b.at(Port(5999))).await), Code::Refused);
    let nobody = pilot_wire::Addr::backbone(NodeId(4711)).port(Port(7));
    assert_eq!(code(program.dial(nobody).await), Code::NotFound);
}

#[tokio::test]
async fn a_stranger_is_told_to_ask_for_trust_and_not_what_the_node_runs() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    let mut program = a.program().await;
    for port in [Port::ECHO, Port(5999)] {
        let failure = program.dial(b.at(port)).await.unwrap_err();
        assert_eq!(failure.code, Code::NotTrusted);
        assert!(failure.hint.unwrap().contains("handshake"));
    }
}

#[tokio::test]
async fn after_trust_is_taken_back_the_peer_is_cut_off() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut at_a = a.program().await;
    at_a.dial(b.at(Port::ECHO)).await.unwrap();
    let mut at_b = b.program().await;
    at_b.handshake(Handshake::Revoke { node: a.node() }).await.unwrap();
    let refused = at_b.handshake(Handshake::Revoke { node: a.node() }).await.unwrap_err();
    assert_eq!(refused.message, format!("node {} was not trusted", a.node()));
    assert!(at_a.dial(b.at(Port::ECHO)).await.is_err());
}

#[tokio::test]
async fn a_ping_is_answered_by_the_node_itself() {
    use pilot_wire::ipc::{Call, Pong};
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut program = a.program().await;
    let ping = Call::Ping { node: b.node(), size: 100, timeout_ms: 5000 };
    let pong: Pong = program.json(Request::Call(ping)).await;
    assert_eq!(pong.node_id, b.node());
    assert!(pong.rtt_us > 0);
    let ping = Call::Ping { node: NodeId(4711), size: 0, timeout_ms: 100 };
    assert_eq!(program.call(Request::Call(ping)).await.unwrap_err().code, Code::Unreachable);
}

#[tokio::test]
async fn datagrams_reach_the_port_they_are_for() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut owner = b.program().await;
    owner.bind(Port(6000)).await;
    let mut other = b.program().await;
    other.bind(Port(6001)).await;
    let mut legacy = b.reference().await;
    legacy.ask(Request::Bind { port: Port(6002) }).await;

    let mut sender = a.program().await;
    sender.bind(Port(7000)).await;
    let data = b"gram";
    sender.call(Request::SendFrom { from: Port(7000), to: b.at(Port(6000)), data }).await.unwrap();
    for program in [&mut owner, &mut legacy] {
        let frame = program.next().await;
        let from = a.at(Port(7000));
        assert_eq!(DaemonFrame::parse(&frame), Ok(DaemonFrame::RecvFrom { from, port: Port(6000), data }));
    }
    sender.call(Request::SendToConfirm { to: b.at(Port(6001)), data: b"other" }).await.unwrap();
    let frame = other.next().await;
    assert!(
        matches!(
            DaemonFrame::parse(&frame),
            Ok(DaemonFrame::RecvFrom { port: Port(6001), data: b"other", .. })
        ),
        "the datagram for another port never came here"
    );
    let too_large = vec![0; 70_000];
    let failure =
        sender.call(Request::SendToConfirm { to: b.at(Port(6000)), data: &too_large }).await.unwrap_err();
    assert_eq!(failure.message, "payload too large: 70000 bytes (max 65535)");
}
