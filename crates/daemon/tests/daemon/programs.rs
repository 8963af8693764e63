//! Local programs: who stalls whom, who may touch what, the exact words of the released daemon.

use crate::common::{CREDIT, Daemon, Home, PATIENCE, Program, Rendezvous};
use crate::streams::Pair;
use pilot_wire::ipc::{ClientFrame, Code, DaemonFrame, Handshake, Info, Reply, Request, Waited};
use pilot_wire::{Addr, NodeId, Port, StreamId};

/// Sends until the daemon grants no more: peer and both daemons then hold what they can.
async fn send_until_stalled(program: &mut Program, stream: StreamId) -> usize {
    let chunk = vec![1; 64 << 10];
    let (mut credit, mut sent) = (CREDIT, 0);
    loop {
        while credit >= chunk.len() {
            program.send(stream, &chunk).await;
            credit -= chunk.len();
            sent += chunk.len();
        }
        match tokio::time::timeout(std::time::Duration::from_millis(500), program.next_or_end()).await {
            Ok(frame) => match DaemonFrame::parse(&frame.unwrap()).unwrap() {
                DaemonFrame::Credit { bytes, .. } => credit += bytes as usize,
                other => panic!("{other:?}"),
            },
            Err(_) => return sent,
        }
    }
}

#[tokio::test]
async fn a_program_that_stops_reading_a_stream_stalls_that_stream_only() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut listener = b.program().await;
    listener.bind(Port(5000)).await;
    let mut dialer = a.program().await;
    let stuck = dialer.dial(b.at(Port(5000))).await.unwrap();
    listener.accept().await;
    // It is never granted anything beyond the first credit.
    let sent = send_until_stalled(&mut dialer, stuck).await;
    assert!(sent < 64 << 20, "somebody buffers without bound: {sent}");

    let live = dialer.dial(b.at(Port(5000))).await.unwrap();
    dialer.send(live, b"still here").await;
    let mut got = Vec::new();
    let mut live_incoming = None;
    while got.len() < 10 {
        let frame = listener.next().await;
        match DaemonFrame::parse(&frame).unwrap() {
            DaemonFrame::Accept { stream, .. } => live_incoming = Some(stream),
            DaemonFrame::Recv { stream, data } if Some(stream) == live_incoming => {
                got.extend_from_slice(data)
            }
            DaemonFrame::Recv { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, b"still here");
}

#[tokio::test]
async fn a_released_driver_that_stops_reading_its_socket_stalls_nobody_else() {
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut stuck_listener = b.reference().await;
    stuck_listener.ask(Request::Bind { port: Port(5000) }).await;
    let mut dialer = a.program().await;
    let stuck = dialer.dial(b.at(Port(5000))).await.unwrap();
    send_until_stalled(&mut dialer, stuck).await;

    let mut listener = b.program().await;
    listener.bind(Port(5001)).await;
    let live = dialer.dial(b.at(Port(5001))).await.unwrap();
    let (incoming, _) = listener.accept().await;
    dialer.send(live, b"still here").await;
    assert_eq!(listener.read(incoming, 10).await, b"still here");

    // Nothing was lost meanwhile: when it reads again, everything is there, in order.
    let mut received = 0;
    while received < CREDIT {
        let frame = stuck_listener.next().await;
        if let DaemonFrame::Recv { data, .. } = DaemonFrame::parse(&frame).unwrap() {
            received += data.len();
        }
    }
}

#[tokio::test]
async fn a_released_driver_that_writes_faster_than_the_peer_reads_is_braked_at_its_socket() {
    use tokio::io::AsyncWriteExt;
    let Pair { a, b, .. } = &Pair::of_friends().await;
    let mut listener = b.program().await;
    listener.bind(Port(5000)).await;
    let mut dialer = a.reference().await;
    let reply = dialer.ask(Request::Dial { to: b.at(Port(5000)) }).await;
    let Ok(Reply::Dialed { stream }) = Reply::parse(&reply) else { panic!("{reply:?}") };
    listener.accept().await;

    let mut frame = Vec::new();
    ClientFrame::Request(Request::Send { stream, data: &[7; 64 << 10] }).emit(&mut frame);
    let mut written = 0;
    let flood = async {
        loop {
            dialer.stream.write_all(&frame).await.unwrap();
            written += frame.len();
        }
    };
    let braked = tokio::time::timeout(std::time::Duration::from_secs(2), flood).await;
    assert!(braked.is_err());
    assert!(written < 64 << 20, "the daemon took {written} bytes that nobody reads");
    let mut other = a.program().await;
    other.dial(b.at(Port::ECHO)).await.expect("others go on");
}

#[tokio::test]
async fn a_program_that_overdraws_its_credit_loses_the_stream_and_nothing_else() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut program = daemon.program().await;
    let mut silent = daemon.program().await;
    silent.bind(Port(5000)).await;
    let stuck = program.dial(daemon.at(Port(5000))).await.unwrap();
    send_until_stalled(&mut program, stuck).await;
    program.send(stuck, &vec![0; CREDIT / 2]).await;
    let frame = program.next().await;
    let Ok(DaemonFrame::Reset { stream, failure }) = DaemonFrame::parse(&frame) else { panic!("{frame:?}") };
    assert_eq!((stream, failure.code), (stuck, Code::InvalidArgument));
    program.dial(daemon.at(Port::ECHO)).await.expect("the program may go on");
}

#[tokio::test]
async fn a_program_touches_only_its_own_streams_and_ports() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut owner = daemon.program().await;
    owner.bind(Port(5000)).await;
    let echo = owner.dial(daemon.at(Port::ECHO)).await.unwrap();
    let mut thief = daemon.program().await;
    thief.send(echo, b"stolen").await;
    thief.say(&ClientFrame::Finish { stream: echo }).await;
    thief.call(Request::Close { stream: echo }).await.unwrap();
    let failure = thief.call(Request::Unbind { port: Port(5000) }).await.unwrap_err();
    assert_eq!(failure.message, "unbind: port is not owned by this client");
    assert_eq!(thief.call(Request::Drain { stream: echo }).await.unwrap_err().code, Code::NotFound);
    owner.send(echo, b"mine").await;
    assert_eq!(owner.read(echo, 4).await, b"mine");
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_free_for_the_next_one() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut first = daemon.program().await;
    first.bind(Port(5000)).await;
    let mut peer = daemon.program().await;
    let stream = peer.dial(daemon.at(Port(5000))).await.unwrap();
    first.accept().await;
    drop(first);
    let end = peer.next().await;
    assert_eq!(DaemonFrame::parse(&end), Ok(DaemonFrame::Finish { stream }));
    let mut second = daemon.program().await;
    second.bind(Port(5000)).await;
}

#[tokio::test]
async fn replies_to_a_released_driver_come_in_the_order_of_its_requests() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut program = daemon.reference().await;
    let wait = Handshake::Wait { node: NodeId(9), timeout: std::time::Duration::from_millis(50) };
    program.say(&ClientFrame::Request(Request::Handshake(wait))).await;
    program.say(&ClientFrame::Request(Request::Dial { to: daemon.at(Port::ECHO) })).await;
    program.say(&ClientFrame::Request(Request::Info)).await;
    let commands = [program.next().await[0], program.next().await[0], program.next().await[0]];
    assert_eq!(commands, [0x10, 0x04, 0x0E]);
}

#[tokio::test]
async fn a_cancelled_dial_is_not_answered_and_blocks_nothing() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let mut config = home.config(&rendezvous);
    // A registry that answers nothing: the dial has something to wait for.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let daemon = Daemon::start(config.clone()).await;
    daemon.stop().await;
    config.registries = vec![silent.local_addr().unwrap().to_string()];
    let starting = tokio::spawn(Daemon::start(config));
    let (_held, _) = silent.accept().await.unwrap();
    let daemon = starting.await.unwrap();
    let mut program = daemon.reference().await;
    let to = Addr::backbone(NodeId(9)).port(Port(7));
    program.say(&ClientFrame::Request(Request::Dial { to })).await;
    program.say(&ClientFrame::Request(Request::Cancel)).await;
    assert_eq!(program.ask(Request::Info).await[0], 0x0E);
}

#[tokio::test]
async fn a_released_driver_sees_what_the_released_daemon_would_say() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let mut config = home.config(&rendezvous);
    config.hostname = Some("agent-a".to_owned());
    let daemon = Daemon::start(config).await;
    let mut program = daemon.reference().await;
    let info = program.ask(Request::Info).await;
    let info: Info = serde_json::from_slice(&info[1..]).unwrap();
    assert_eq!((info.node_id, &*info.hostname), (daemon.node(), "agent-a"));
    assert_eq!(info.ports, 5);
    let tags = program.ask(Request::SetTags { tags: vec!["ml".to_owned(), "gpu".to_owned()] }).await;
    let said = format!(r#"{{"type":"set_tags_ok","node_id":{},"tags":["ml","gpu"]}}"#, daemon.node());
    assert_eq!(&tags[1..], said.as_bytes());
    let waited = program
        .ask(Request::Handshake(Handshake::Wait {
            node: NodeId(2),
            timeout: std::time::Duration::from_millis(10),
        }))
        .await;
    let waited: Waited = serde_json::from_slice(&waited[1..]).unwrap();
    assert!(!waited.trusted);
    let webhook = program.ask(Request::SetWebhook { url: "http://169.254.169.254/x" }).await;
    assert_eq!(&webhook[3..], b"URL cannot target link-local address 169.254.169.254");
}

#[tokio::test]
async fn the_frames_that_the_released_daemon_was_tried_with_get_its_answers() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/vectors/ipc.json");
    let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut replayed = 0;
    for case in vectors["edge_cases"]["v1.18.0"].as_array().unwrap() {
        let (Some(hex), Some(reply)) = (case["request_hex"].as_str(), case["reply"].as_str()) else {
            continue;
        };
        let Some(expected) = expectation(case["case"].as_str().unwrap(), reply) else { continue };
        let request: Vec<u8> =
            (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
        // Very long frames were not recorded whole.
        if request.len() != 4 + u32::from_be_bytes(*request.first_chunk().unwrap()) as usize {
            continue;
        }
        let mut program = daemon.reference().await;
        program.raw(&request).await;
        // Something that is always answered follows, so that silence is seen without waiting.
        program.raw(&[0, 0, 0, 5, 0x08, 0, 0, 0x30, 0x39]).await;
        let answer = tokio::time::timeout(PATIENCE, program.next_or_end()).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer: {case}")).expect("the connection goes on");
        match expected {
            Expected::Silence => assert_eq!(answer[0], 0x09, "{case}"),
            Expected::Error(text) => {
                assert!(answer.starts_with(&[0x0A, 0, 1]), "{case}: {answer:?}");
                assert_eq!(std::str::from_utf8(&answer[3..]).unwrap(), text, "{case}");
            }
        }
        replayed += 1;
    }
    assert!(replayed > 40, "only {replayed} cases");
}

enum Expected {
    Silence,
    Error(String),
}

/// What the recorded daemon did, where it does not hang on the node that was recorded.
fn expectation(case: &str, reply: &str) -> Option<Expected> {
    // The words of Go's JSON parser; and two programs that were connected at the same time.
    if reply.contains("JSON") || case.starts_with("c1 ") || case.starts_with("c2 ") {
        return None;
    }
    if reply == "TIMEOUT" {
        return Some(Expected::Silence);
    }
    let text = reply.strip_prefix("Error code=1 msg=")?;
    let text = text[1..text.len() - 1].to_owned();
    // Node 2 was there when it was recorded.
    (!text.contains("connection refused")).then_some(Expected::Error(text))
}

#[tokio::test]
async fn a_program_may_ask_the_daemon_to_end() {
    use pilot_wire::ipc::{Call, Done};
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let socket = daemon.config.socket.clone();
    let mut program = daemon.program().await;
    let _: Done = program.json(Request::Call(Call::Shutdown)).await;
    assert!(tokio::time::timeout(PATIENCE, program.next_or_end()).await.unwrap().is_none());
    daemon.ended().await;
    assert!(!socket.exists());
}
