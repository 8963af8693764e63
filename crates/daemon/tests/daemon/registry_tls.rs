//! The registry over TLS: what is remembered, what is refused, and when it is done without.

use std::time::Duration;

use pilot_daemon::{Config, RegistryTls, TlsMode};
use pilot_wire::ipc::{Call, Request, Status};

use crate::common::{Daemon, Home, Rendezvous, within};
use crate::gate::{Gate, Passing};

async fn status(daemon: &Daemon) -> Status {
    daemon.program().await.json(Request::Call(Call::Status)).await
}

/// Waits until the registry counts as away for such a reason.
async fn until_away(daemon: &Daemon, reason: &str) -> String {
    within(reason, async {
        loop {
            let error = status(daemon).await.registry.error.unwrap_or_default();
            if error.contains(reason) {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

fn through(gate: &Gate, home: &Home, rendezvous: &Rendezvous) -> Config {
    let mut config = home.config(rendezvous);
    config.registries = vec![gate.address.to_string()];
    config
}

#[tokio::test]
async fn a_registry_is_reached_over_tls_and_its_certificate_is_remembered() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let daemon = Daemon::start(home.config(&rendezvous)).await;
    let tls = status(&daemon).await.registry.tls.unwrap();
    assert!(tls.used && tls.pinned);
    assert_eq!(tls.fingerprint, rendezvous.registry_fingerprint().to_string());
    daemon.stop().await;
    let kept = std::fs::read_to_string(home.path().join("node.json")).unwrap();
    assert!(kept.contains(&tls.fingerprint), "{kept}");
}

#[tokio::test]
async fn another_certificate_is_refused_until_it_is_set() {
    let mut rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let config = home.config(&rendezvous);
    let daemon = Daemon::start(config.clone()).await;
    rendezvous.kill().await;
    rendezvous.lose_registry_certificate();
    rendezvous.resume().await;
    let error = until_away(&daemon, "another certificate").await;
    assert!(
        error.contains("registry_fingerprint") && error.contains("pilotctl rendezvous status"),
        "{error}"
    );
    daemon.stop().await;
    let fingerprints = vec![rendezvous.registry_fingerprint()];
    let given = RegistryTls { fingerprints, ..RegistryTls::default() };
    let daemon = Daemon::start(Config { registry_tls: given, ..config.clone() }).await;
    assert!(daemon.running.registered);
    daemon.stop().await;
    // The rendezvous of this machine is whoever's it is.
    let own = RegistryTls { remembers: false, ..RegistryTls::default() };
    let daemon = Daemon::start(Config { registry_tls: own, ..config }).await;
    assert!(daemon.running.registered);
    assert!(!status(&daemon).await.registry.tls.unwrap().pinned);
}

#[tokio::test]
async fn a_certificate_that_is_not_the_given_one_is_refused() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let fingerprints = vec![pilot_daemon::Fingerprint([7; 32])];
    let registry_tls = RegistryTls { fingerprints, ..RegistryTls::default() };
    let daemon = Daemon::start(Config { registry_tls, ..home.config(&rendezvous) }).await;
    assert!(!daemon.running.registered);
    until_away(&daemon, "not the one that is set").await;
}

#[tokio::test]
async fn a_registry_that_knows_no_tls_is_used_without_and_that_is_told() {
    let rendezvous = Rendezvous::start().await;
    let gate = Gate::to(rendezvous.registry, Passing::PlainOnly).await;
    let homes = [Home::new(), Home::new()];
    let daemon = Daemon::start(through(&gate, &homes[0], &rendezvous)).await;
    assert!(daemon.running.registered);
    assert!(!status(&daemon).await.registry.tls.unwrap().used);
    let require = RegistryTls { mode: TlsMode::Require, ..RegistryTls::default() };
    let config = Config { registry_tls: require, ..through(&gate, &homes[1], &rendezvous) };
    let daemon = Daemon::start(config).await;
    assert!(!daemon.running.registered);
    until_away(&daemon, "no TLS").await;
}

#[tokio::test]
async fn where_tls_was_seen_nothing_is_said_without_it() {
    let rendezvous = Rendezvous::start().await;
    let gate = Gate::to(rendezvous.registry, Passing::Everything).await;
    let home = Home::new();
    let daemon = Daemon::start(through(&gate, &home, &rendezvous)).await;
    assert!(status(&daemon).await.registry.tls.unwrap().used);
    let config = daemon.config.clone();
    daemon.kill().await;
    gate.set(Passing::PlainOnly);
    let daemon = Daemon::start(config).await;
    assert!(!daemon.running.registered, "whoever is in the way of TLS gets nothing");
    until_away(&daemon, "no TLS").await;
}

#[tokio::test]
async fn without_tls_a_registry_that_has_it_serves_too() {
    let rendezvous = Rendezvous::start().await;
    let home = Home::new();
    let off = RegistryTls { mode: TlsMode::Off, ..RegistryTls::default() };
    let daemon = Daemon::start(Config { registry_tls: off, ..home.config(&rendezvous) }).await;
    assert!(daemon.running.registered);
    assert!(!status(&daemon).await.registry.tls.unwrap().used);
}
