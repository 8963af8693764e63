//! Two hosts in a network of their own, and no rendezvous.

use std::time::Duration;

use pilot_daemon::Config;

use crate::common::{Home, within};
use crate::hosts::{Cable, echoes};

fn at_port(config: &Config, port: u16) -> Config {
    let mut config = config.clone();
    config.listen.set_port(port);
    config
}

#[tokio::test]
async fn friends_in_one_network_find_each_other_without_a_rendezvous() {
    let name = "lan::friends_in_one_network_find_each_other_without_a_rendezvous";
    let Some(cable) = Cable::new(name) else { return };
    let homes = [Home::new(), Home::new()];
    let [a_config, b_config] = cable.friends(&homes).await;
    // Nothing that was remembered of the other holds any more: neither addresses nor ports.
    cable.move_to("10.78.0.#/24 dev eth0", "");
    let a = cable.a.daemon(at_port(&a_config, 41_001)).await;
    let b = cable.b.daemon(at_port(&b_config, 41_002)).await;
    assert!(!a.running.registered && !b.running.registered);
    assert!(echoes(&a, &b).await, "the first one finds the second");
    assert!(echoes(&b, &a).await, "and the other way");

    // One restarts somewhere else while the other waits.
    b.kill().await;
    let b = cable.b.daemon(at_port(&b_config, 41_003)).await;
    within("the peer at its new port", async {
        while !echoes(&a, &b).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    // It was the discovery that did it.
    a.kill().await;
    b.kill().await;
    let mute = |config: &Config, port| Config { lan_discovery: false, ..at_port(config, port) };
    let a = cable.a.daemon(mute(&a_config, 41_004)).await;
    let b = cable.b.daemon(mute(&b_config, 41_005)).await;
    assert!(!echoes(&a, &b).await, "found without being looked for");
}

#[tokio::test]
async fn friends_find_each_other_in_a_network_that_has_only_ipv6() {
    let name = "lan::friends_find_each_other_in_a_network_that_has_only_ipv6";
    let Some(cable) = Cable::new(name) else { return };
    let homes = [Home::new(), Home::new()];
    let [a_config, b_config] = cable.friends(&homes).await;
    cable.move_to("fd78::#/64 dev eth0", " nodad");
    let a = cable.a.daemon(at_port(&a_config, 41_001)).await;
    let b = cable.b.daemon(at_port(&b_config, 41_002)).await;
    assert!(echoes(&a, &b).await);
    assert!(echoes(&b, &a).await);
}
