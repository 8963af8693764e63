//! The client against a daemon that speaks the reference dialect only.

use std::time::Duration;

use crate::fake::Fake;
use pilot_client::ipc::{
    Call, ClientFrame, Code, Command, DaemonFrame, Done, Handshake, Health, Info, Reply, Request,
};
use pilot_client::ipc::{TrustState, Waited};
use pilot_client::{Addr, Client, Endpoint, Error, NodeId, Port, Stream, StreamId};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const S: StreamId = StreamId(7);
const PEER: Endpoint = Endpoint::new(Addr::backbone(NodeId(2)), Port(1000));

fn request(request: Request<'_>) -> ClientFrame<'_> {
    ClientFrame::Request(request)
}

fn reply(reply: Reply<'_>) -> DaemonFrame<'_> {
    DaemonFrame::Reply(reply)
}

async fn dialed(client: &Client, fake: &mut Fake) -> Stream {
    let answer = async {
        fake.expect(&request(Request::Dial { to: PEER })).await;
        fake.say(&reply(Reply::Dialed { stream: S })).await;
    };
    tokio::join!(client.dial(PEER), answer).0.unwrap()
}

#[tokio::test]
async fn one_request_is_under_way_at_a_time() {
    let (client, mut fake) = Fake::reference().await;
    let daemon = async {
        fake.expect(&request(Request::Info)).await;
        fake.say(&reply(Reply::json(Command::InfoOk, &Info { hostname: "a".into(), ..Info::default() })))
            .await;
        fake.expect(&request(Request::Health)).await;
        fake.say(&reply(Reply::json(Command::HealthOk, &Health { peers: 3, ..Health::default() }))).await;
    };
    let (info, health, ()) = tokio::join!(client.info(), client.health(), daemon);
    assert_eq!((info.unwrap().hostname.as_str(), health.unwrap().peers), ("a", 3));
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_not_taken_for_the_answer() {
    let (client, mut fake) = Fake::reference().await;
    let daemon = async {
        fake.expect(&request(Request::Health)).await;
        fake.say(&reply(Reply::json(Command::InfoOk, &Info::default()))).await;
        fake.say(&reply(Reply::json(Command::HealthOk, &Health { peers: 3, ..Health::default() }))).await;
    };
    let (health, ()) = tokio::join!(client.health(), daemon);
    assert_eq!(health.unwrap().peers, 3);
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_not_given_to_the_next() {
    let (client, mut fake) = Fake::reference().await;
    assert!(tokio::time::timeout(Duration::ZERO, client.dial(PEER)).await.is_err());
    let daemon = async {
        fake.expect(&request(Request::Dial { to: PEER })).await;
        fake.say(&reply(Reply::Dialed { stream: S })).await;
        // The forgotten stream is closed, and only then comes the next request's turn.
        let mut heard = [fake.hear().await, fake.hear().await];
        heard.sort();
        assert_eq!(ClientFrame::parse(&heard[0]), Ok(request(Request::Dial { to: PEER })));
        assert_eq!(ClientFrame::parse(&heard[1]), Ok(request(Request::Close { stream: S })));
        fake.say(&reply(Reply::Dialed { stream: StreamId(8) })).await;
    };
    let (stream, ()) = tokio::join!(client.dial(PEER), daemon);
    assert_eq!(stream.unwrap().id(), StreamId(8));
}

#[tokio::test]
async fn texts_become_classes() {
    let (client, mut fake) = Fake::reference().await;
    let daemon = async {
        fake.expect(&request(Request::Dial { to: PEER })).await;
        fake.say(&reply(Reply::Error { code: 1, text: "connection refused".into() })).await;
    };
    let (stream, ()) = tokio::join!(client.dial(PEER), daemon);
    assert_eq!(stream.unwrap_err().code(), Code::Refused);
}

#[tokio::test]
async fn data_and_end_that_come_before_the_answer_of_a_dial_are_kept() {
    let (client, mut fake) = Fake::reference().await;
    let daemon = async {
        fake.expect(&request(Request::Dial { to: PEER })).await;
        let early = [DaemonFrame::Recv { stream: S, data: b"early" }, reply(Reply::Closed { stream: S })];
        fake.say_at_once(&early).await;
        fake.say(&reply(Reply::Dialed { stream: S })).await;
    };
    let (stream, ()) = tokio::join!(client.dial(PEER), daemon);
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "early");
}

#[tokio::test]
async fn data_that_comes_before_its_stream_is_announced_is_kept() {
    let (client, mut fake) = Fake::reference().await;
    let port = Port(5000);
    let daemon = async {
        fake.expect(&request(Request::Bind { port })).await;
        let accept = DaemonFrame::Accept { port, stream: S, from: PEER };
        fake.say_at_once(&[DaemonFrame::Recv { stream: S, data: b"hi" }, accept]).await;
        fake.say(&reply(Reply::Bound { port })).await;
    };
    let (listener, ()) = tokio::join!(client.listen(port), daemon);
    let mut stream = listener.unwrap().accept().await.unwrap();
    let mut text = [0; 2];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"hi");
}

#[tokio::test]
async fn finishing_keeps_the_stream_open_because_1_18_knows_no_half_close() {
    let (client, mut fake) = Fake::reference().await;
    let mut stream = dialed(&client, &mut fake).await;
    stream.write_all(b"question").await.unwrap();
    stream.finish().await.unwrap();
    fake.expect(&request(Request::Send { stream: S, data: b"question" })).await;
    fake.say(&DaemonFrame::Recv { stream: S, data: b"answer" }).await;
    let mut text = [0; 6];
    stream.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"answer");
    let daemon = async {
        fake.expect(&request(Request::Close { stream: S })).await;
        fake.say(&reply(Reply::Closed { stream: S })).await;
    };
    let (closed, ()) = tokio::join!(stream.close(), daemon);
    closed.unwrap();
}

#[tokio::test]
async fn closing_confirmed_twice_disturbs_nobody() {
    let (client, mut fake) = Fake::reference().await;
    drop(dialed(&client, &mut fake).await);
    fake.expect(&request(Request::Close { stream: S })).await;
    fake.say_at_once(&[reply(Reply::Closed { stream: S }), reply(Reply::Closed { stream: S })]).await;
    let daemon = async {
        fake.expect(&request(Request::Health)).await;
        fake.say(&reply(Reply::json(Command::HealthOk, &Health::default()))).await;
    };
    let (health, ()) = tokio::join!(client.health(), daemon);
    health.unwrap();
}

#[tokio::test]
async fn what_the_daemon_has_no_word_for_is_refused_here() {
    let (client, _fake) = Fake::reference().await;
    assert!(client.is_reference());
    let error = client.call::<Done>(Call::Shutdown).await.unwrap_err();
    assert_eq!(error.code(), Code::Unsupported);
}

#[tokio::test]
async fn datagrams_fall_back_to_the_unconfirmed_form() {
    let (client, mut fake) = Fake::reference().await;
    let datagrams = client.datagrams(Port(5000)).unwrap();
    let daemon = async {
        fake.expect(&request(Request::SendToConfirm { to: PEER, data: b"x" })).await;
        fake.say(&reply(Reply::Error { code: 1, text: "unknown command: 0x39".into() })).await;
        fake.expect(&request(Request::SendTo { to: PEER, data: b"x" })).await;
    };
    let (sent, ()) = tokio::join!(datagrams.send_to(PEER, b"x"), daemon);
    sent.unwrap();
}

#[tokio::test]
async fn a_wait_for_trust_is_one_request_of_1_18() {
    let (client, mut fake) = Fake::reference().await;
    let timeout = Duration::from_secs(5);
    let daemon = async {
        let heard = fake.hear().await;
        let Ok(ClientFrame::Request(Request::Handshake(Handshake::Wait { node, .. }))) =
            ClientFrame::parse(&heard)
        else {
            panic!("{heard:?}")
        };
        let answer = Waited { node_id: node, trusted: true };
        fake.say(&reply(Reply::json(Command::HandshakeOk, &answer))).await;
    };
    let (waited, ()) = tokio::join!(client.wait_trust(NodeId(2), timeout), daemon);
    assert_eq!(waited.unwrap().state, TrustState::Trusted);
}

#[tokio::test]
async fn a_lost_connection_fails_what_waits_behind() {
    let (client, mut fake) = Fake::reference().await;
    let end = async {
        fake.expect(&request(Request::Info)).await;
        drop(fake);
    };
    let (info, health, ()) = tokio::join!(client.info(), client.health(), end);
    assert_eq!((info.unwrap_err(), health.unwrap_err()), (Error::Disconnected, Error::Disconnected));
}
