//! Notices changes of this host's addresses and routes: through a netlink socket on Linux, a routing socket on macOS and
//! the BSDs, and by looking from time to time where neither is to be had.

#[cfg(any(target_os = "linux", target_os = "android"))]
#[path = "watch/netlink.rs"]
mod signals;

// Compiled for tests everywhere, because it runs where nobody tests it.
#[cfg(any(
    test,
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    expect(dead_code, reason = "only its messages can be tested here")
)]
mod routing_socket;

#[cfg(any(
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
))]
use routing_socket as signals;

#[cfg(not(any(
    target_os = "linux",
    target_os = "android",
    target_os = "macos",
    target_os = "ios",
    target_os = "freebsd",
    target_os = "netbsd",
    target_os = "openbsd",
    target_os = "dragonfly"
)))]
#[path = "watch/none.rs"]
mod signals;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Surroundings;
use signals::Signals;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use signals::default_gateway;

/// How long after the first sign of a change the host is looked at: changes come in bursts, an address with its routes.
const BURST: Duration = Duration::from_millis(50);

/// The same while signs keep coming: on a router they never end.
const LONG_BURST: Duration = Duration::from_millis(500);

/// Time between looks where the system tells nothing.
const POLL: Duration = Duration::from_secs(5);

/// Keeps `seen` up to date for as long as somebody reads it.
pub(crate) async fn watch(seen: watch::Sender<Surroundings>) {
    let mut source = Source::open();
    // What changed between the first look and the opening of the socket gives no sign.
    publish(&seen);
    let mut last = None;
    loop {
        tokio::select! {
            () = source.changed() => {}
            () = seen.closed() => return,
        }
        let calm = last.is_none_or(|last: Instant| last.elapsed() > 2 * LONG_BURST);
        sleep(if calm { BURST } else { LONG_BURST }).await;
        last = Some(Instant::now());
        source.forget();
        publish(&seen);
    }
}

fn publish(seen: &watch::Sender<Surroundings>) {
    let now = Surroundings::look();
    seen.send_if_modified(|before| {
        let changed = *before != now;
        if changed {
            *before = now;
        }
        changed
    });
}

/// Where signs of a change come from.
enum Source {
    System(Signals),
    Polling,
}

impl Source {
    fn open() -> Self {
        match Signals::open() {
            Ok(signals) => Self::System(signals),
            Err(error) => {
                tracing::info!(%error, "changes of the network are looked for every {} s", POLL.as_secs());
                Self::Polling
            }
        }
    }

    /// Resolves when something may have changed.
    async fn changed(&mut self) {
        match self {
            Self::Polling => sleep(POLL).await,
            Self::System(signals) => {
                if let Err(error) = signals.wait().await {
                    tracing::warn!(%error, "the system does not tell of changes of the network any more");
                    *self = Self::Polling;
                }
            }
        }
    }

    /// The host is about to be looked at: what was told so far is covered by that.
    fn forget(&mut self) {
        if let Self::System(signals) = self {
            signals.drain();
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::IpAddr;

    use super::super::testing::Namespace;
    use super::*;

    async fn until(
        seen: &mut watch::Receiver<Surroundings>,
        what: &str,
        wanted: impl FnMut(&Surroundings) -> bool,
    ) {
        let outcome = tokio::time::timeout(Duration::from_secs(20), seen.wait_for(wanted)).await;
        outcome.unwrap_or_else(|_| panic!("waited too long for {what}")).expect("somebody watches");
    }

    #[test]
    fn addresses_and_routes_that_come_and_go_are_noticed() {
        let Some(space) =
            Namespace::new("network::watch::tests::addresses_and_routes_that_come_and_go_are_noticed")
        else {
            return;
        };
        space.ip("link set lo up");
        space.ip("link add eth0 type veth peer name eth1");
        space.ip("link set eth1 up");
        let test = async {
            let (sender, mut seen) = watch::channel(Surroundings::look());
            let watching = tokio::spawn(watch(sender));
            let has = |ip: &str| {
                let ip: IpAddr = ip.parse().unwrap();
                move |here: &Surroundings| here.interfaces.iter().any(|interface| interface.ip == ip)
            };
            assert!(!has("10.7.0.2")(&seen.borrow()));
            space.ip("addr add 10.7.0.2/24 dev eth0");
            space.ip("link set eth0 up");
            until(&mut seen, "the address", has("10.7.0.2")).await;
            space.ip("route add default via 10.7.0.1");
            let gateway =
                |here: &Surroundings| here.routes.gateway.as_ref().map(|gateway| gateway.ip.octets());
            until(&mut seen, "the gateway", |here| gateway(here) == Some([10, 7, 0, 1])).await;
            space.ip("route replace default via 10.7.0.9");
            until(&mut seen, "another gateway", |here| gateway(here) == Some([10, 7, 0, 9])).await;
            space.ip("addr add fd07::2/64 dev eth0 nodad");
            until(&mut seen, "the IPv6 address", has("fd07::2")).await;
            space.ip("addr del 10.7.0.2/24 dev eth0");
            until(&mut seen, "the end", |here| !has("10.7.0.2")(here) && gateway(here).is_none()).await;
            drop(seen);
            let end = tokio::time::timeout(Duration::from_secs(20), watching).await;
            end.expect("ends by itself").expect("no panic");
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                space.enter();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(test);
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
    }
}
