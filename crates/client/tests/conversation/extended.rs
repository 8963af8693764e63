//! The client against a daemon of the extended dialect.

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use crate::fake::Fake;
use pilot_client::ipc::{
    Call, ClientFrame, Code, Command, DaemonFrame, Failure, Health, Info, Reply, Request,
};
use pilot_client::{Addr, Client, Endpoint, Error, NodeId, Port, Stream, StreamId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const S: StreamId = StreamId(7);
const PEER: Endpoint = Endpoint::new(Addr::backbone(NodeId(2)), Port(1000));

/// A stream that the fake daemon calls `id`.
async fn dialed(client: &Client, fake: &mut Fake, id: StreamId) -> Stream {
    let answer = async {
        let tag = fake.expect_tagged(&Request::Dial { to: PEER }).await;
        fake.answer(tag, &Reply::Dialed { stream: id }).await;
    };
    tokio::join!(client.dial(PEER), answer).0.unwrap()
}

fn recv(stream: StreamId, data: &[u8]) -> DaemonFrame<'_> {
    DaemonFrame::Recv { stream, data }
}

#[tokio::test]
async fn answers_may_overtake_each_other() {
    let (client, mut fake) = Fake::extended(1000).await;
    let daemon = async {
        let info = fake.expect_tagged(&Request::Info).await;
        let health = fake.expect_tagged(&Request::Health).await;
        let answer = Reply::json(Command::HealthOk, &Health { peers: 3, ..Health::default() });
        fake.answer(health, &answer).await;
        let answer = Reply::json(Command::InfoOk, &Info { hostname: "a".into(), ..Info::default() });
        fake.answer(info, &answer).await;
    };
    let (info, health, ()) = tokio::join!(client.info(), client.health(), daemon);
    assert_eq!((info.unwrap().hostname.as_str(), health.unwrap().peers), ("a", 3));
}

#[tokio::test]
async fn a_failure_keeps_its_class_and_hint() {
    let (client, mut fake) = Fake::extended(1000).await;
    let failure =
        Failure::new(Code::NotTrusted, "node 2 does not trust you").with_hint("pilotctl handshake 2");
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Dial { to: PEER }).await;
        fake.answer(tag, &Reply::Failure(failure.clone())).await;
    };
    let (result, ()) = tokio::join!(client.dial(PEER), daemon);
    let error = result.unwrap_err();
    assert_eq!((error.code(), error.hint()), (Code::NotTrusted, Some("pilotctl handshake 2")));
}

#[tokio::test]
async fn data_directly_behind_the_answer_of_a_dial_is_kept() {
    let (client, mut fake) = Fake::extended(1000).await;
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Dial { to: PEER }).await;
        let mut reply = Vec::new();
        Reply::Dialed { stream: S }.emit(&mut reply);
        let frames = [
            DaemonFrame::Tagged { tag, reply: &reply[4..] },
            recv(S, b"hel"),
            recv(S, b"lo"),
            DaemonFrame::Finish { stream: S },
        ];
        fake.say_at_once(&frames).await;
    };
    let (stream, ()) = tokio::join!(client.dial(PEER), daemon);
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn half_close_works_in_both_directions() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    stream.write_all(b"question").await.unwrap();
    stream.finish().await.unwrap();
    assert_eq!(stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    fake.expect(&ClientFrame::Request(Request::Send { stream: S, data: b"question" })).await;
    fake.expect(&ClientFrame::Finish { stream: S }).await;

    fake.say_at_once(&[recv(S, b"answer"), DaemonFrame::Finish { stream: S }]).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0, "the end stays the end");

    drop(stream);
    fake.expect(&ClientFrame::Request(Request::Close { stream: S })).await;
}

#[tokio::test]
async fn after_an_orderly_end_nothing_more_is_said_about_the_stream() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    fake.say_at_once(&[recv(S, b"bye"), DaemonFrame::Reply(Reply::Closed { stream: S })]).await;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "bye");
    assert_eq!(Error::from(stream.write(b"x").await.unwrap_err()).code(), Code::Closed);
    drop((stream, client));
    assert_eq!(fake.next().await, None);
}

#[tokio::test]
async fn dropping_the_writing_half_finishes_and_dropping_both_closes() {
    let (client, mut fake) = Fake::extended(1000).await;
    let (reader, writer) = dialed(&client, &mut fake, S).await.into_split();
    drop(writer);
    fake.expect(&ClientFrame::Finish { stream: S }).await;
    drop(reader);
    fake.expect(&ClientFrame::Request(Request::Close { stream: S })).await;
}

#[tokio::test]
async fn closing_waits_for_the_daemon() {
    let (client, mut fake) = Fake::extended(1000).await;
    let stream = dialed(&client, &mut fake, S).await;
    let daemon = async {
        fake.expect(&ClientFrame::Request(Request::Close { stream: S })).await;
        // What was under way meanwhile interests nobody.
        fake.say_at_once(&[recv(S, b"late"), DaemonFrame::Reply(Reply::Closed { stream: S })]).await;
    };
    let (closed, ()) = tokio::join!(stream.close(), daemon);
    closed.unwrap();
}

#[tokio::test]
async fn resetting_tells_the_daemon_so() {
    let (client, mut fake) = Fake::extended(1000).await;
    dialed(&client, &mut fake, S).await.reset();
    let heard = fake.hear().await;
    assert!(matches!(ClientFrame::parse(&heard), Ok(ClientFrame::Reset { stream: S, .. })));
    drop(client);
    assert_eq!(fake.next().await, None);
}

#[tokio::test]
async fn a_writer_stops_at_its_credit_and_goes_on_with_more() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    let data = vec![1; 1500];
    let writer = tokio::spawn(async move { stream.write_all(&data).await.map(|()| stream) });
    fake.expect(&ClientFrame::Request(Request::Send { stream: S, data: &[1; 1000] })).await;
    tokio::task::yield_now().await;
    assert!(!writer.is_finished());
    fake.say(&DaemonFrame::Credit { stream: S, bytes: 300 }).await;
    fake.expect(&ClientFrame::Request(Request::Send { stream: S, data: &[1; 300] })).await;
    fake.say(&DaemonFrame::Credit { stream: S, bytes: 300 }).await;
    fake.expect(&ClientFrame::Request(Request::Send { stream: S, data: &[1; 200] })).await;
    writer.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reader_grants_again_what_it_has_read() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    fake.say(&recv(S, &[1; 600])).await;
    stream.read_exact(&mut [0; 249]).await.unwrap();
    stream.read_exact(&mut [0; 2]).await.unwrap();
    fake.expect(&ClientFrame::Credit { stream: S, bytes: 251 }).await;
    // 400 were left, and 251 came back.
    fake.say(&recv(S, &[1; 651])).await;
    stream.read_exact(&mut [0; 1000]).await.unwrap();
    fake.expect(&ClientFrame::Credit { stream: S, bytes: 349 }).await;
    fake.expect(&ClientFrame::Credit { stream: S, bytes: 651 }).await;
}

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_up_nothing_else() {
    let (client, mut fake) = Fake::extended(1000).await;
    let _unread = dialed(&client, &mut fake, S).await;
    let mut other = dialed(&client, &mut fake, StreamId(8)).await;
    fake.say_at_once(&[recv(S, &[1; 1000]), recv(StreamId(8), b"here")]).await;
    let mut text = [0; 4];
    other.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"here");
}

#[tokio::test]
async fn a_daemon_that_sends_more_than_granted_is_not_believed_any_more() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    fake.say(&recv(S, &[1; 1001])).await;
    let error = Error::from(stream.read(&mut [0; 9]).await.unwrap_err());
    assert!(matches!(error, Error::Protocol(_)), "{error:?}");
}

#[tokio::test]
async fn what_came_before_a_reset_is_read_and_then_the_reason_shows() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    let failure = Failure::new(Code::Timeout, "the peer is silent");
    fake.say_at_once(&[recv(S, b"last"), DaemonFrame::Reset { stream: S, failure: failure.clone() }]).await;
    let mut text = Vec::new();
    let error = stream.read_to_end(&mut text).await.unwrap_err();
    assert_eq!(text, b"last");
    assert_eq!(Error::from(error), Error::Failed(failure.clone()));
    assert_eq!(Error::from(stream.write(b"x").await.unwrap_err()), Error::Failed(failure));
}

#[tokio::test]
async fn frames_for_unknown_streams_are_passed_over() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    let unknown = StreamId(99);
    let frames = [
        recv(unknown, b"x"),
        DaemonFrame::Credit { stream: unknown, bytes: 1 },
        DaemonFrame::Finish { stream: unknown },
        DaemonFrame::Reset { stream: unknown, failure: Failure::new(Code::Internal, "x") },
        DaemonFrame::Reply(Reply::Closed { stream: unknown }),
        recv(S, b"fine"),
    ];
    fake.say_at_once(&frames).await;
    let mut text = [0; 4];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"fine");
}

#[tokio::test]
async fn draining_waits_for_the_peer() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Drain { stream: S }).await;
        fake.answer(tag, &Reply::Drained { stream: S }).await;
    };
    let (drained, ()) = tokio::join!(stream.drain(), daemon);
    drained.unwrap();
}

#[tokio::test]
async fn the_first_small_write_leaves_at_once_and_those_that_follow_leave_together() {
    let (client, mut fake) = Fake::extended(10_000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    for _ in 0..2 {
        for _ in 0..100 {
            assert_eq!(stream.write(b"12345").await.unwrap(), 5);
        }
        // Nothing in here has waited so far, so nobody but the writer can have written it.
        assert_eq!(fake.heard_already(), Some(9 + 5));
        assert_eq!(fake.heard_already(), None);
        assert_eq!(fake.one_read().await, 99 * (9 + 5));
        // Whoever waits for an answer has paused.
        fake.say(&recv(S, b"go on")).await;
        stream.read_exact(&mut [0; 5]).await.unwrap();
    }
}

#[tokio::test]
async fn large_and_small_writes_keep_their_order_in_a_full_pipe() {
    let (client, mut fake) = Fake::extended(1 << 30).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    let pieces: Vec<Vec<u8>> =
        (0..400_u32).map(|i| vec![i as u8; if i % 3 == 0 { 100_000 } else { i as usize }]).collect();
    let expected = pieces.concat();
    let writing = async {
        for (i, piece) in pieces.iter().enumerate() {
            let (front, back) = piece.split_at(piece.len() / 3);
            match i % 2 {
                0 => stream.write_all(piece).await.unwrap(),
                _ => {
                    let parts = [IoSlice::new(front), IoSlice::new(back)];
                    let written = stream.write_vectored(&parts).await.unwrap();
                    stream.write_all(&piece[written..]).await.unwrap();
                }
            }
        }
        stream.flush().await.unwrap();
    };
    let reading = async {
        let mut got = Vec::new();
        while got.len() < expected.len() {
            let heard = fake.hear().await;
            match ClientFrame::parse(&heard) {
                Ok(ClientFrame::Request(Request::Send { stream: S, data })) => got.extend_from_slice(data),
                other => panic!("{other:?}"),
            }
        }
        got
    };
    let ((), got) = tokio::join!(writing, reading);
    assert!(got == expected);
}

#[tokio::test]
async fn header_and_body_leave_as_one_piece() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    let parts = [IoSlice::new(b"head"), IoSlice::new(b"body")];
    assert_eq!(stream.write_vectored(&parts).await.unwrap(), 8);
    fake.expect(&ClientFrame::Request(Request::Send { stream: S, data: b"headbody" })).await;
}

#[tokio::test]
async fn streams_are_accepted_even_when_they_overtake_the_answer_to_bind() {
    let (client, mut fake) = Fake::extended(1000).await;
    let port = Port(5000);
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Bind { port }).await;
        fake.say_at_once(&[DaemonFrame::Accept { port, stream: S, from: PEER }, recv(S, b"hi")]).await;
        fake.answer(tag, &Reply::Bound { port }).await;
    };
    let (listener, ()) = tokio::join!(client.listen(port), daemon);
    let mut stream = listener.unwrap().accept().await.unwrap();
    assert_eq!(stream.peer(), PEER);
    let mut text = [0; 2];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hi");
}

#[tokio::test]
async fn a_dropped_listener_gives_its_port_back_and_turns_waiting_streams_away() {
    let (client, mut fake) = Fake::extended(1000).await;
    let port = Port(5000);
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Bind { port }).await;
        fake.say(&DaemonFrame::Accept { port, stream: S, from: PEER }).await;
        fake.answer(tag, &Reply::Bound { port }).await;
    };
    let (listener, ()) = tokio::join!(client.listen(port), daemon);
    assert_eq!(client.listen(port).await.unwrap_err().code(), Code::AlreadyExists);
    drop(listener.unwrap());
    let heard = fake.hear().await;
    assert!(matches!(ClientFrame::parse(&heard), Ok(ClientFrame::Reset { stream: S, .. })));
    fake.expect_tagged(&Request::Unbind { port }).await;
}

#[tokio::test]
async fn a_refused_port_can_be_asked_for_again() {
    let (client, mut fake) = Fake::extended(1000).await;
    let port = Port(5000);
    for _ in 0..2 {
        let daemon = async {
            let tag = fake.expect_tagged(&Request::Bind { port }).await;
            fake.answer(tag, &Reply::Failure(Failure::new(Code::AlreadyExists, "taken"))).await;
        };
        let (listener, ()) = tokio::join!(client.listen(port), daemon);
        assert_eq!(listener.unwrap_err().code(), Code::AlreadyExists);
    }
}

#[tokio::test]
async fn too_many_streams_at_once_are_turned_away_with_a_reason() {
    let (client, mut fake) = Fake::extended(1000).await;
    let port = Port(5000);
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Bind { port }).await;
        fake.answer(tag, &Reply::Bound { port }).await;
        for stream in (0..=1024).map(StreamId) {
            fake.say(&DaemonFrame::Accept { port, stream, from: PEER }).await;
        }
        fake.hear().await
    };
    let (_listener, heard) = tokio::join!(client.listen(port), daemon);
    let Ok(ClientFrame::Reset { stream, failure }) = ClientFrame::parse(&heard) else { panic!("{heard:?}") };
    assert_eq!((stream, failure.code), (StreamId(1024), Code::Busy));
}

#[tokio::test]
async fn a_dial_that_nobody_waits_for_any_more_is_closed_when_it_succeeds() {
    let (client, mut fake) = Fake::extended(1000).await;
    {
        let dial = client.dial(PEER);
        tokio::pin!(dial);
        assert!(tokio::time::timeout(Duration::ZERO, &mut dial).await.is_err());
    }
    let tag = fake.expect_tagged(&Request::Dial { to: PEER }).await;
    fake.answer(tag, &Reply::Dialed { stream: S }).await;
    fake.expect(&ClientFrame::Request(Request::Close { stream: S })).await;
}

#[tokio::test]
async fn datagrams_reach_their_port_and_leave_from_it() {
    let (client, mut fake) = Fake::extended(1000).await;
    let datagrams = client.datagrams(Port(5000)).unwrap();
    assert_eq!(client.datagrams(Port(5000)).unwrap_err().code(), Code::AlreadyExists);
    let elsewhere = DaemonFrame::RecvFrom { from: PEER, port: Port(5001), data: b"not mine" };
    let mine = DaemonFrame::RecvFrom { from: PEER, port: Port(5000), data: b"mine" };
    fake.say_at_once(&[elsewhere, mine]).await;
    let (from, data) = datagrams.recv_from().await.unwrap();
    assert_eq!((from, &data[..]), (PEER, &b"mine"[..]));
    let daemon = async {
        let tag = fake.expect_tagged(&Request::SendFrom { from: Port(5000), to: PEER, data: b"back" }).await;
        fake.answer(tag, &Reply::Sent).await;
    };
    let (sent, ()) = tokio::join!(datagrams.send_to(PEER, b"back"), daemon);
    sent.unwrap();
}

#[tokio::test]
async fn a_port_that_nobody_has_is_claimed_by_whoever_sends_from_it() {
    let (client, mut fake) = Fake::extended(1000).await;
    let datagrams = client.datagrams(Port(5000)).unwrap();
    let daemon = async {
        let from_there = Request::SendFrom { from: Port(5000), to: PEER, data: b"hello" };
        let tag = fake.expect_tagged(&from_there).await;
        fake.answer(tag, &Reply::Failure(Failure::new(Code::PermissionDenied, "not bound"))).await;
        let tag = fake.expect_tagged(&Request::Bind { port: Port(5000) }).await;
        fake.answer(tag, &Reply::Bound { port: Port(5000) }).await;
        let tag = fake.expect_tagged(&from_there).await;
        fake.answer(tag, &Reply::Sent).await;
        // What may not be sent for another reason is tried once.
        let tag = fake.expect_tagged(&from_there).await;
        fake.answer(tag, &Reply::Failure(Failure::new(Code::PermissionDenied, "not trusted"))).await;
    };
    let sending = async {
        datagrams.send_to(PEER, b"hello").await.unwrap();
        datagrams.send_to(PEER, b"hello").await.unwrap_err().code()
    };
    let (code, ()) = tokio::join!(sending, daemon);
    assert_eq!(code, Code::PermissionDenied);
    drop(datagrams);
    fake.expect_tagged(&Request::Unbind { port: Port(5000) }).await;
}

#[tokio::test]
async fn a_wait_for_the_inbox_that_is_dropped_and_taken_up_again_is_one_question() {
    let (client, mut fake) = Fake::extended(1000).await;
    let unread = pilot_client::mailbox::Filter { unread: true, ..Default::default() };
    let mut inbox = client.inbox(unread).await.unwrap();
    for _ in 0..3 {
        assert!(tokio::time::timeout(Duration::ZERO, inbox.next()).await.is_err());
    }
    let asked = fake.hear().await;
    assert!(matches!(ClientFrame::parse(&asked), Ok(ClientFrame::Tagged { .. })), "{asked:?}");
    let port = Port(5000);
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Bind { port }).await;
        fake.answer(tag, &Reply::Bound { port }).await;
    };
    let (listener, ()) = tokio::join!(client.listen(port), daemon);
    listener.unwrap();
}

#[tokio::test]
async fn addresses_and_numbers_are_resolved_without_asking() {
    let (client, _fake) = Fake::extended(1000).await;
    assert_eq!(client.resolve("2").await.unwrap().address, PEER.addr);
    assert_eq!(client.resolve("0:0000.0000.0002").await.unwrap().node_id, NodeId(2));
}

#[tokio::test]
async fn hostnames_are_resolved_by_the_daemon() {
    let (client, mut fake) = Fake::extended(1000).await;
    let daemon = async {
        let tag = fake.expect_tagged(&Request::Call(Call::Resolve { target: "agent-b".into() })).await;
        let resolved = pilot_client::ipc::Resolved {
            node_id: NodeId(2),
            address: PEER.addr,
            hostname: "agent-b".into(),
            public: false,
        };
        fake.answer(tag, &Reply::json(Command::CallOk, &resolved)).await;
    };
    let (resolved, ()) = tokio::join!(client.resolve("agent-b"), daemon);
    assert_eq!(resolved.unwrap().address, PEER.addr);
}

#[tokio::test]
async fn everybody_who_waits_hears_of_the_end_of_the_daemon() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    fake.say(&recv(S, b"before")).await;
    let end = async {
        fake.expect_tagged(&Request::Info).await;
        drop(fake);
    };
    let (info, ()) = tokio::join!(client.info(), end);
    assert_eq!(info.unwrap_err(), Error::Disconnected);
    let mut text = Vec::new();
    let error = stream.read_to_end(&mut text).await.unwrap_err();
    assert_eq!((&text[..], Error::from(error)), (&b"before"[..], Error::Disconnected));
    assert_eq!(client.dial(PEER).await.unwrap_err(), Error::Disconnected);
}

#[tokio::test]
async fn the_connection_lasts_as_long_as_something_uses_it() {
    let (client, mut fake) = Fake::extended(1000).await;
    let mut stream = dialed(&client, &mut fake, S).await;
    drop(client);
    stream.write_all(b"still here").await.unwrap();
    drop(stream);
    fake.expect(&ClientFrame::Request(Request::Send { stream: S, data: b"still here" })).await;
    fake.expect(&ClientFrame::Request(Request::Close { stream: S })).await;
    assert_eq!(fake.next().await, None);
}

#[tokio::test]
async fn without_a_daemon_the_error_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect_to(directory.path().join("none.sock")).await.unwrap_err();
    assert_eq!(error.code(), Code::NotRunning);
    assert!(error.hint().unwrap().contains("pilotctl daemon start"));
}
