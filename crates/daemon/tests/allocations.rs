//! What the way from program to program takes from the allocator: two daemons, the programs at both ends and the sockets
//! between them, counted together. A program of its own, because the count is of the whole process.
#![allow(clippy::unwrap_used, reason = "a step that fails is the test's failure, in helpers too")]

#[path = "daemon/common.rs"]
mod common;

use std::alloc::System;

use common::{Daemon, Home, Rendezvous, befriend, within};
use pilot_client::{Client, Port, Stream};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SERVICE: Port = Port(5000);

/// Least payload of a datagram of a bulk transfer.
const SEGMENT: usize = 1024;

const MESSAGES: usize = 1000;

/// Bytes carried before counting, so that buffers have grown to what they will need, and counted.
const BULK: usize = 16 << 20;

async fn client(daemon: &Daemon) -> Client {
    Client::connect_to(&daemon.config.socket).await.unwrap()
}

fn allocations(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

async fn ping_pong(near: &mut Stream, far: &mut Stream) {
    let mut buffer = [0; 64];
    for _ in 0..MESSAGES {
        near.write_all(&[7; 64]).await.unwrap();
        far.read_exact(&mut buffer).await.unwrap();
        far.write_all(&[7; 64]).await.unwrap();
        near.read_exact(&mut buffer).await.unwrap();
    }
}

async fn bulk(near: &mut Stream, far: &mut Stream, piece: &[u8], buffer: &mut [u8]) {
    let writing = async {
        for _ in 0..BULK / piece.len() {
            near.write_all(piece).await.unwrap();
        }
    };
    let reading = async {
        let mut left = BULK;
        while left > 0 {
            left -= far.read(buffer).await.unwrap();
        }
    };
    tokio::join!(writing, reading);
}

#[tokio::test]
async fn messages_and_bulk_take_next_to_nothing_from_the_allocator() {
    let rendezvous = Rendezvous::start().await;
    let homes = [Home::new(), Home::new()];
    let a = Daemon::start(homes[0].config(&rendezvous)).await;
    let b = Daemon::start(homes[1].config(&rendezvous)).await;
    befriend(&a, &b).await;
    let (near, far) = (client(&a).await, client(&b).await);
    let mut listener = far.listen(SERVICE).await.unwrap();
    let (dialed, accepted) = tokio::join!(near.dial(b.at(SERVICE)), listener.accept());
    let (mut near, mut far) = (dialed.unwrap(), accepted.unwrap());
    within("messages and bulk", async {
        ping_pong(&mut near, &mut far).await;
        let region = Region::new(ALLOCATOR);
        ping_pong(&mut near, &mut far).await;
        let count = allocations(&region);
        assert!(count * 10 <= MESSAGES, "{count} allocations for {MESSAGES} round trips");

        let (piece, mut buffer) = (vec![7; 64 << 10], vec![0; 256 << 10]);
        bulk(&mut near, &mut far, &piece, &mut buffer).await;
        let region = Region::new(ALLOCATOR);
        bulk(&mut near, &mut far, &piece, &mut buffer).await;
        let count = allocations(&region);
        let segments = BULK / SEGMENT;
        // Pieces of what arrived, chunks that sockets are read into, handles on both.
        assert!(count * 2 <= segments, "{count} allocations for {segments} segments");
    })
    .await;
}
