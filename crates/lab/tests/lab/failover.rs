//! Two rendezvous, one of which is lost while everything between two nodes goes through its beacon.

use std::time::Duration;

use pilot_lab::Access::Symmetric;
use pilot_lab::Way::Relay;
use pilot_lab::{Lab, SECOND, Site, Transfer, agree, echo, report};

/// What is moved, in megabytes, and how fast in bytes per second: the loss is in the middle of it.
const AMOUNT: u64 = 40;
const RATE: u64 = 4 << 20;

/// When the rendezvous is lost, in megabytes that have come.
const MIDDLE: u64 = 12;

/// How long a transfer may stand still. It is printed.
const TOLERATED: Duration = Duration::from_secs(10);

fn relayed_through_the_loss(what: &str, lose: impl FnOnce(&mut Lab)) {
    let mut lab = Lab::open();
    let [one, other] = ["a", "b"].map(|name| Site::build(&lab, name, Symmetric));
    let mut a = lab.ours_at_two(&one.host, "a", &[]);
    let mut b = lab.ours_at_two(&other.host, "b", &["--trust-auto-approve"]);
    agree(&a, &b);
    // They are to begin at the first.
    a.crash();
    b.crash();
    lab.start_second_rendezvous();
    one.host.namespace().enter(|| a.crash_and_restart());
    other.host.namespace().enter(|| b.crash_and_restart());
    echo(&a, &b, 1);
    Relay.awaited([&a, &b]);
    let mut transfer = Transfer::start_at(RATE, &a, &b, AMOUNT);
    transfer.reaches(MIDDLE);
    transfer.watch();
    lose(&mut lab);
    let interruption = transfer.finish();
    for node in [&a, &b] {
        let status = node.ctl(&["status"]);
        assert_eq!(status["registry"], SECOND[0].to_string(), "{status}");
    }
    report(&format!("{what}: a relayed transfer stood still for {:.2?}", interruption.length()));
    assert!(interruption.length() < TOLERATED, "{what}: {:?}", interruption.length());
}

#[test]
fn a_relayed_transfer_goes_on_at_the_second_rendezvous_when_the_first_is_killed() {
    relayed_through_the_loss("rendezvous killed", Lab::stop_rendezvous);
}

#[test]
fn a_relayed_transfer_goes_on_at_the_second_rendezvous_when_the_first_hangs() {
    relayed_through_the_loss("rendezvous stopped", |lab| lab.freeze_rendezvous());
}
