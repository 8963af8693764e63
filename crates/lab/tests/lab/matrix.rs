//! Every way of being connected with every other: which way their frames go.

use std::time::Duration;

use pilot_interop::until;
use pilot_lab::Access::{
    self, AddressRestricted, Carrier, FullCone, NoUdp, PortRestricted, Public, Symmetric,
};
use pilot_lab::Way::{self, Direct, Relay};
use pilot_lab::{Lab, Site, agree, deliver, echo_by, report, transport};

/// How long a relayed pair is watched: long enough for several rounds of punching that must not succeed.
const WATCHED: Duration = Duration::from_secs(3);

/// When a pair must have its way, on a machine that does other things too. The goal is two seconds: what it took is printed.
const SETTLES: Duration = Duration::from_secs(20);

/// The table. Each row is two tests: the first calls the second, and the second calls the first.
macro_rules! pairs {
    ($($name:ident: $first:ident, $second:ident => $way:ident;)*) => {$(
        mod $name {
            #[test]
            fn forth() {
                super::meet(super::$first, super::$second, super::$way);
            }

            #[test]
            fn back() {
                super::meet(super::$second, super::$first, super::$way);
            }
        }
    )*};
}

pairs! {
    public_and_public: Public, Public => Direct;
    public_and_full_cone: Public, FullCone => Direct;
    public_and_address_restricted: Public, AddressRestricted => Direct;
    public_and_port_restricted: Public, PortRestricted => Direct;
    public_and_symmetric: Public, Symmetric => Direct;
    public_and_carrier: Public, Carrier => Direct;

    full_cone_and_full_cone: FullCone, FullCone => Direct;
    full_cone_and_address_restricted: FullCone, AddressRestricted => Direct;
    full_cone_and_port_restricted: FullCone, PortRestricted => Direct;
    full_cone_and_symmetric: FullCone, Symmetric => Direct;
    full_cone_and_carrier: FullCone, Carrier => Direct;

    address_restricted_and_address_restricted: AddressRestricted, AddressRestricted => Direct;
    address_restricted_and_port_restricted: AddressRestricted, PortRestricted => Direct;
    address_restricted_and_symmetric: AddressRestricted, Symmetric => Direct;
    address_restricted_and_carrier: AddressRestricted, Carrier => Direct;

    port_restricted_and_port_restricted: PortRestricted, PortRestricted => Direct;
    port_restricted_and_symmetric: PortRestricted, Symmetric => Relay;
    port_restricted_and_carrier: PortRestricted, Carrier => Direct;

    symmetric_and_symmetric: Symmetric, Symmetric => Relay;
    symmetric_and_carrier: Symmetric, Carrier => Relay;

    carrier_and_carrier: Carrier, Carrier => Direct;

    no_udp_and_public: NoUdp, Public => Relay;
    no_udp_and_full_cone: NoUdp, FullCone => Relay;
    no_udp_and_address_restricted: NoUdp, AddressRestricted => Relay;
    no_udp_and_port_restricted: NoUdp, PortRestricted => Relay;
    no_udp_and_symmetric: NoUdp, Symmetric => Relay;
    no_udp_and_carrier: NoUdp, Carrier => Relay;
    no_udp_and_no_udp: NoUdp, NoUdp => Relay;
}

/// Two fresh nodes agree on trust, and the first sends the second a message; then their frames take the way that the
/// table says, and data goes there and back whole.
fn meet(first: Access, second: Access, way: Way) {
    let lab = Lab::open();
    let sites = [Site::build(&lab, "a", first), Site::build(&lab, "b", second)];
    let a = lab.ours(&sites[0].host, "a", &[]);
    let b = lab.ours(&sites[1].host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    let message = deliver(&a, &b, "the first word");
    let settled = way.awaited([&a, &b]);
    assert!(settled < SETTLES, "{settled:?} until the way was {way}");
    for (node, access) in [(&a, first), (&b, second)] {
        let expected = if access == NoUdp { "web" } else { "udp" };
        until(&format!("{} has its beacon over {expected}", node.name()), || {
            (transport(node) == expected).then_some(())
        });
    }
    let rate = echo_by(way, &lab, &a, &b, 2);
    way.stays([&a, &b], if way == Relay { WATCHED } else { Duration::from_millis(1) });
    report(&format!(
        "{first} to {second}: {way}; first message {message:.0?}, this way {settled:.2?} later, echo {rate:.1} MB/s"
    ));
}
