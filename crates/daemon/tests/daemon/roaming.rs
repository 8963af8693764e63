//! A host whose addresses change while its daemon runs.

use std::time::{Duration, Instant};

use pilot_wire::Port;
use pilot_wire::ipc::{Call, Info, Request, Status};

use crate::common::{Daemon, Home, within};
use crate::hosts::Cable;

async fn info(daemon: &Daemon) -> Info {
    daemon.program().await.json(Request::Info).await
}

async fn until_addresses(daemon: &Daemon, wanted: &[&str]) {
    within("the addresses", async {
        loop {
            let addresses = info(daemon).await.network.unwrap().addresses;
            let found: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            if found == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn another_address_is_noticed_and_the_stream_and_the_registration_go_on() {
    let name = "roaming::another_address_is_noticed_and_the_stream_and_the_registration_go_on";
    let Some(cable) = Cable::new(name) else { return };
    let homes = [Home::new(), Home::new()];
    let (_rendezvous, [a, b]) = cable.pair(&homes).await;
    let mut program = b.program().await;
    let echo = program.dial(a.at(Port::ECHO)).await.unwrap();
    program.send(echo, b"before").await;
    assert_eq!(program.read(echo, 6).await, b"before");
    until_addresses(&b, &["10.77.0.2"]).await;

    let space = &cable.b.space;
    space.ip("addr del 10.77.0.2/24 dev eth0");
    space.ip("addr add 10.77.0.99/24 dev eth0");
    let back = Instant::now();
    program.send(echo, b"after").await;
    assert_eq!(program.read(echo, 5).await, b"after");
    eprintln!("data after {} ms", back.elapsed().as_millis());
    until_addresses(&b, &["10.77.0.99"]).await;
    eprintln!("noticed after {} ms", back.elapsed().as_millis());

    within("the registration from the new address", async {
        loop {
            let status: Status = b.program().await.json(Request::Call(Call::Status)).await;
            if status.registry.connected && info(&b).await.endpoint.starts_with("10.77.0.99:") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    eprintln!("registered anew after {} ms", back.elapsed().as_millis());
}
