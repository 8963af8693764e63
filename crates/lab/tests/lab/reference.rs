//! Our node with a node of the released reference behind the NATs that it supports.

use std::time::Duration;

use pilot_interop::until;
use pilot_lab::Access::{self, FullCone, PortRestricted, Public, Symmetric};
use pilot_lab::Way::{self, Direct, Relay};
use pilot_lab::{Lab, Site, deliver, report};

/// The table: how ours is connected, how the reference's is, and the way that our frames take in the end.
macro_rules! pairs {
    ($($name:ident: $ours:ident, $theirs:ident => $way:ident;)*) => {$(
        #[test]
        fn $name() {
            meet($ours, $theirs, $way);
        }
    )*};
}

pairs! {
    public_and_public: Public, Public => Direct;
    public_and_full_cone: Public, FullCone => Direct;
    public_and_port_restricted: Public, PortRestricted => Direct;
    full_cone_and_public: FullCone, Public => Direct;
    full_cone_and_full_cone: FullCone, FullCone => Direct;
    full_cone_and_port_restricted: FullCone, PortRestricted => Direct;
    port_restricted_and_public: PortRestricted, Public => Direct;
    port_restricted_and_full_cone: PortRestricted, FullCone => Direct;
    port_restricted_and_port_restricted: PortRestricted, PortRestricted => Direct;
    symmetric_and_port_restricted: Symmetric, PortRestricted => Relay;
}

/// The reference asks for trust, a message goes each way, and our frames take the way that the table says.
fn meet(first: Access, second: Access, way: Way) {
    let lab = Lab::open();
    let sites = [Site::build(&lab, "ours", first), Site::build(&lab, "theirs", second)];
    let ours = lab.ours(&sites[0].host, "ours", &["--trust-auto-approve"]);
    let theirs = lab.reference(&sites[1].host, "theirs");
    theirs.ctl(&["handshake", &ours.id().to_string(), "lab"]);
    until("both trust each other", || (theirs.trusts(&ours) && ours.trusts(&theirs)).then_some(()));
    let there = deliver(&ours, &theirs, "from ours");
    let back = deliver(&theirs, &ours, "from theirs");
    let begin = std::time::Instant::now();
    until(&format!("ours uses the way: {way}"), || (Way::of(&ours, &theirs) == Some(way)).then_some(()));
    let settled = begin.elapsed();
    let bench = ours.ctl(&["bench", &theirs.address(), "1"]);
    assert_eq!(bench["complete"], true, "{bench}");
    let rate = bench["total_mbps"].as_f64().unwrap_or_default();
    let by_theirs = Way::of(&theirs, &ours);
    if way == Relay {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(Way::of(&ours, &theirs), Some(Relay));
    }
    report(&format!(
        "ours {first}, reference {second}: {way}, by its own account {by_theirs:?}; messages {there:.0?} and \
         {back:.0?}, this way {settled:.2?} later, echo {rate:.1} MB/s"
    ));
}
