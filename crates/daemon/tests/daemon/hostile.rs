//! Bytes that no friend would send.

use std::time::Duration;

use crate::common::{Daemon, Home, Rendezvous};
use crate::streams::Pair;
use pilot_wire::Port;
use tokio::io::AsyncReadExt;

/// A repeatable stream of bytes.
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| {
                self.0 =
                    self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (self.0 >> 56) as u8
            })
            .collect()
    }
}

#[tokio::test]
async fn hostile_datagrams_do_not_disturb_a_stream() {
    let Pair { a, b, rendezvous, .. } = &Pair::of_friends().await;
    let mut program = a.program().await;
    let echo = program.dial(b.at(Port::ECHO)).await.unwrap();
    let attacker = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut noise = Noise(7);
    for round in 0..200usize {
        for target in [a.running.listen, b.running.listen, rendezvous.beacon] {
            let mut datagram = noise.bytes(round * 7 % 1400);
            for magic in [
                &b""[..],
                b"PILT",
                b"PILS",
                b"PILK",
                b"PILA",
                b"PILP",
                b"\x02\x04",
                b"\x06",
                b"\x09",
                b"\x0a\x01",
            ] {
                let length = magic.len().min(datagram.len());
                datagram[..length].copy_from_slice(&magic[..length]);
                let _ = attacker.send_to(&datagram, target).await;
            }
        }
        if round % 50 == 0 {
            program.send(echo, b"tick").await;
            assert_eq!(program.read(echo, 4).await, b"tick");
        }
    }
    program.dial(b.at(Port::ECHO)).await.unwrap();
}

#[tokio::test]
async fn hostile_frames_end_at_most_their_own_connection() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut friend = daemon.program().await;
    let echo = friend.dial(daemon.at(Port::ECHO)).await.unwrap();
    let mut noise = Noise(11);
    for round in 0..300usize {
        let mut attacker = if round % 2 == 0 { daemon.program().await } else { daemon.reference().await };
        let body = noise.bytes(1 + round % 60);
        let mut frame = (body.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        // Every command once with random content, then cut off in the middle of a frame.
        frame[4] = round as u8;
        // `Shutdown` is no attack: a program of the same user may say it.
        attacker.raw(&frame).await;
        attacker.raw(&[0, 0, 1, 0, 0x06, 1]).await;
    }
    friend.send(echo, b"unmoved").await;
    assert_eq!(friend.read(echo, 7).await, b"unmoved");
}

#[tokio::test]
async fn a_frame_beyond_the_limit_ends_the_connection_without_a_reply() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut program = daemon.reference().await;
    program.raw(&[0, 0x10, 0, 1, 0x06]).await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(10), program.stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty());
}

#[tokio::test]
async fn absurd_numbers_in_calls_are_taken_for_large_ones() {
    use pilot_wire::NodeId;
    use pilot_wire::ipc::{Call, Request, TrustState, TrustWait};
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let mut program = daemon.program().await;
    let for_ever = u64::MAX;
    program
        .tell(Request::Call(Call::Ping { node: NodeId(4711), size: u16::MAX, timeout_ms: for_ever }))
        .await;
    program.tell(Request::Call(Call::WaitTrust { node: NodeId(4711), timeout_ms: for_ever })).await;
    let waited: TrustWait =
        program.json(Request::Call(Call::WaitTrust { node: NodeId(4711), timeout_ms: 0 })).await;
    assert_eq!(waited.state, TrustState::None);
}
