//! The Rust driver with whole daemons: what an application sees.

use crate::common::{Daemon, PATIENCE, within};
use crate::streams::Pair;
use pilot_client::{Client, Error, Stream};
use pilot_wire::Port;
use pilot_wire::ipc::Code;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORT: Port = Port(5000);

/// Two daemons that trust each other, an application on each, and a stream between the applications.
struct Applications {
    pair: Pair,
    a: Client,
    b: Client,
    near: Stream,
    far: Stream,
}

impl Applications {
    async fn start() -> Self {
        let pair = Pair::of_friends().await;
        let a = Client::connect_to(&pair.a.config.socket).await.unwrap();
        let b = Client::connect_to(&pair.b.config.socket).await.unwrap();
        let mut listener = b.listen(PORT).await.unwrap();
        let near = a.dial(pair.b.at(PORT)).await.unwrap();
        let far = within("the stream", listener.accept()).await.unwrap();
        Self { pair, a, b, near, far }
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| ((i + seed) * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn each_direction_ends_on_its_own() {
    let Applications { pair: _pair, mut near, mut far, .. } = Applications::start().await;
    near.write_all(b"question").await.unwrap();
    near.finish().await.unwrap();
    let mut text = String::new();
    within("the question", far.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "question");
    far.write_all(b"answer").await.unwrap();
    far.close().await.unwrap();
    text.clear();
    within("the answer", near.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn megabytes_pass_in_both_directions_at_once() {
    const SIZE: usize = 12 << 20;
    let Applications { near, far, .. } = &mut Applications::start().await;
    let there = pattern(SIZE, 1);
    let back = pattern(SIZE, 2);
    let (mut near_reader, mut near_writer) = tokio::io::split(near);
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let (mut got_there, mut got_back) = (Vec::new(), Vec::new());
    let all = async {
        tokio::try_join!(
            async {
                near_writer.write_all(&there).await?;
                near_writer.shutdown().await
            },
            async {
                far_writer.write_all(&back).await?;
                far_writer.shutdown().await
            },
            far_reader.read_to_end(&mut got_there),
            near_reader.read_to_end(&mut got_back),
        )
    };
    tokio::time::timeout(4 * PATIENCE, all).await.expect("megabytes took too long").unwrap();
    assert!(got_there == there, "what arrived there is what was sent");
    assert!(got_back == back, "what came back is what was sent");
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_up_no_other_of_the_same_program() {
    let Applications { pair, a, b, mut near, far: _unread } = Applications::start().await;
    // More than every buffer on the way can hold.
    let flood = tokio::spawn(async move { near.write_all(&vec![1; 64 << 20]).await.map(|()| near) });
    let mut listener = b.listen(Port(5001)).await.unwrap();
    for round in 0..20 {
        let mut other = within("a dial", a.dial(pair.b.at(Port(5001)))).await.unwrap();
        let mut accepted = within("a stream", listener.accept()).await.unwrap();
        let sent = pattern(100_000, round);
        let mut got = vec![0; sent.len()];
        let exchange = async { tokio::try_join!(other.write_all(&sent), accepted.read_exact(&mut got)) };
        within("an exchange beside the flood", exchange).await.unwrap();
        assert!(got == sent);
    }
    assert!(!flood.is_finished(), "the flood waits for its reader");
    flood.abort();
}

#[tokio::test]
async fn hundreds_of_streams_run_side_by_side() {
    let Applications { pair, a, .. } = Applications::start().await;
    let echo = pair.b.at(Port::ECHO);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let client = a.clone();
        tasks.spawn(async move {
            let mut stream = client.dial(echo).await?;
            let sent = pattern(20_000, number);
            stream.write_all(&sent).await?;
            stream.finish().await?;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await?;
            assert!(got == sent);
            Ok::<_, Error>(())
        });
    }
    within("all streams", async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_that_goes_away_leaves_no_stream_and_no_port_behind() {
    let Applications { pair, a, b, near, mut far } = Applications::start().await;
    let kept = a.listen(Port(5001)).await.unwrap();
    drop((near, kept, a));
    assert_eq!(within("the end of the stream", far.read(&mut [0; 9])).await.unwrap(), 0);
    let again = Client::connect_to(&pair.a.config.socket).await.unwrap();
    // The departure and the new claim come through different connections, so the first tries may be early.
    let claim = async {
        loop {
            match again.listen(Port(5001)).await {
                Ok(listener) => return listener,
                Err(error) => assert_eq!(error.code(), Code::AlreadyExists),
            }
        }
    };
    within("the port", claim).await;
    drop(b);
}

#[tokio::test]
async fn a_dropped_stream_still_delivers_what_was_written() {
    const SIZE: usize = 3 << 20;
    let Applications { pair: _pair, mut near, mut far, .. } = Applications::start().await;
    let sent = pattern(SIZE, 3);
    let expected = sent.clone();
    tokio::spawn(async move { near.write_all(&sent).await });
    let mut got = Vec::new();
    within("everything", far.read_to_end(&mut got)).await.unwrap();
    assert!(got == expected);
}

#[tokio::test]
async fn drain_resolves_when_the_peer_has_everything_even_unread() {
    let Applications { pair: _pair, mut near, mut far, .. } = Applications::start().await;
    near.write_all(&pattern(100_000, 4)).await.unwrap();
    within("the acknowledgement", near.drain()).await.unwrap();
    near.reset();
    let mut got = Vec::new();
    let error = within("the failure", far.read_to_end(&mut got)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(got.len(), 100_000, "what had arrived can still be read");
}

#[tokio::test]
async fn errors_say_what_happened_and_what_to_do() {
    let Applications { pair, a, .. } = Applications::start().await;
    let refused = a.dial(pair.b.at(Port(5999))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Refused);
    let unknown = a.resolve("nobody-has-this-name").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let taken = a.listen(Port::ECHO).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    pair.a.stop().await;
    let gone = a.info().await.unwrap_err();
    assert_eq!(gone.code(), Code::NotRunning);
}

#[tokio::test]
async fn when_the_daemon_dies_every_wait_of_its_programs_ends() {
    let Applications { pair, a, mut near, far: _unread, .. } = Applications::start().await;
    let mut listener = a.listen(Port(5001)).await.unwrap();
    let mut idle = a.dial(pair.b.at(Port::ECHO)).await.unwrap();
    let waits = async {
        tokio::join!(
            async { near.write_all(&vec![1; 64 << 20]).await.map_err(Error::from).unwrap_err() },
            async { idle.read(&mut [0; 9]).await.map_err(Error::from).unwrap_err() },
            async { listener.accept().await.unwrap_err() },
        )
    };
    let (waits, ()) = within("the end of every wait", async { tokio::join!(waits, pair.a.kill()) }).await;
    assert_eq!(waits, (Error::Disconnected, Error::Disconnected, Error::Disconnected));
}

#[tokio::test]
async fn an_event_stream_goes_on_when_its_own_daemon_was_restarted() {
    let Applications { pair, a, b, .. } = Applications::start().await;
    let mut at_a = a.open_event_stream().await.unwrap();
    let mut at_b = b.open_event_stream().await.unwrap();
    within("the subscription", at_b.subscribe("a.*")).await.unwrap();
    at_a.publish("a.before", "1").await.unwrap();
    assert_eq!(within("an event", at_b.next()).await.topic, "a.before");

    let config = pair.a.config.clone();
    pair.a.kill().await;
    let _restarted = Daemon::start(config).await;
    // What is published before the subscription is renewed reaches nobody, so it is said until it is heard.
    let heard = async {
        loop {
            tokio::select! {
                event = at_b.next() => return event,
                () = tokio::time::sleep(std::time::Duration::from_millis(50)) => {
                    at_a.publish("a.after", "2").await.unwrap();
                }
            }
        }
    };
    assert_eq!(within("an event after the restart", heard).await.topic, "a.after");
}

#[tokio::test]
async fn what_is_written_with_a_dial_arrives_before_everything_else_whatever_its_length() {
    let Applications { pair, a, b, .. } = &Applications::start().await;
    let mut listener = b.listen(Port(5002)).await.unwrap();
    for length in [0, 1, 1118, 5000, 16 << 10, (16 << 10) + 1, 300_000, 2 << 20] {
        let sent = pattern(length + 10, length);
        let (first, rest) = sent.split_at(length);
        let mut near = None;
        let writing = async {
            let stream = near.insert(a.dial_with(pair.b.at(Port(5002)), first).await?);
            stream.write_all(rest).await?;
            stream.finish().await
        };
        let reading = async {
            let mut far = listener.accept().await?;
            let mut got = Vec::new();
            far.read_to_end(&mut got).await?;
            Ok::<_, Error>(got)
        };
        let (written, got) = within("the exchange", async { tokio::join!(writing, reading) }).await;
        written.unwrap();
        assert!(got.unwrap() == sent, "{length} bytes with the dial");
    }
}

#[tokio::test]
async fn a_dial_with_data_that_nobody_takes_fails_as_any() {
    let Applications { pair, a, .. } = &Applications::start().await;
    let refused = within("the refusal", a.dial_with(pair.b.at(Port(5999)), b"hello")).await.unwrap_err();
    assert_eq!(refused.code(), Code::Refused);
}
