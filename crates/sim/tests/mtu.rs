//! Streams use what the path carries, whatever that is and whatever becomes of it.

use std::time::Duration;

use pilot_proto::Visibility;
use pilot_sim::{Conditions, Content, Detail, Finishes, Host, Role, Script, Transfer, TransferId, World};
use pilot_wire::Port;

/// Half of it takes longer than any search.
const BYTES: u64 = 100_000_000;

/// What is enough where nothing has to be found first.
const LITTLE: u64 = 4_000_000;

/// 10 MB/s and 20 ms of round trip, for datagrams of at most so many bytes.
fn line(mtu: usize) -> Conditions {
    let line = Conditions {
        delay: Duration::from_millis(10),
        bandwidth: Some(10_000_000),
        mtu,
        ..Conditions::PERFECT
    };
    line.queue_of_one_round_trip(50)
}

struct Case {
    world: World,
    id: TransferId,
    from: Host,
    to: Host,
    bytes: u64,
}

impl Case {
    fn new(conditions: Conditions, bytes: u64, legacy: bool) -> Self {
        let mut world = World::new(5, Detail::Nothing);
        world.set_conditions(conditions);
        let from = world.node_with("from", Visibility::Public, |_| {});
        let to = world.node_with("to", Visibility::Public, move |config| config.streams.options = !legacy);
        let id = world.transfer(Transfer {
            dialer: from,
            listener: to,
            port: Port::STDIO,
            starts: Duration::ZERO,
            dialing: Script::eager(bytes, Content::Noise(1)),
            listening: Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(0)) },
        });
        Self { world, id, from, to, bytes }
    }

    fn read(&self) -> u64 {
        self.world.progress(self.id, Role::Listener).read
    }

    fn run_until_read(&mut self, bytes: u64) {
        let id = self.id;
        let done = |world: &World| world.progress(id, Role::Listener).read >= bytes;
        assert!(self.world.run_until(Duration::from_secs(120), done), "{:?}", self.world.fault());
    }

    /// Datagrams from the sender from now to the end, by length.
    fn lengths_to_the_end(&mut self) -> Vec<usize> {
        self.world.record_datagrams(self.from, self.to);
        self.run_until_read(self.bytes);
        self.world.take_recorded().iter().map(Vec::len).collect()
    }
}

#[test]
fn most_of_a_transfer_goes_in_the_largest_datagrams_that_pass() {
    for (mtu, expected) in [(1472, 1472), (1400, 1392), (1240, 1222), (8972, 8972), (65_535, 16_454)] {
        let mut case = Case::new(line(mtu), BYTES, false);
        case.run_until_read(BYTES / 2);
        let lengths = case.lengths_to_the_end();
        let full = lengths.iter().filter(|&&len| len == expected).count();
        assert!(full * 10 > lengths.len() * 8, "{mtu}: {full} of {}", lengths.len());
        // A probe of the next larger size may still be on its way.
        let larger = lengths.iter().filter(|&&len| len > expected).count();
        assert!(larger <= 3, "{mtu}: {larger} larger ones");
    }
}

#[test]
fn a_peer_of_the_reference_gets_no_probe_and_no_larger_segment() {
    let mut case = Case::new(line(65_535), LITTLE, true);
    assert!(case.lengths_to_the_end().iter().all(|&len| len <= 1222));
}

#[test]
fn a_path_that_narrows_stops_a_transfer_for_about_a_second_and_loses_nothing() {
    for (before, after) in [(1472, 1372), (16_454, 1472), (8972, 1240)] {
        let mut case = Case::new(line(before), BYTES, false);
        case.run_until_read(BYTES / 4);
        case.world.set_conditions(line(after));
        let narrowed = case.world.elapsed();
        // What is under way still arrives.
        case.world.run_for(Duration::from_millis(100));
        let arrived = case.read();
        case.run_until_read(arrived + 1);
        let gap = case.world.elapsed() - narrowed;
        assert!(gap < Duration::from_millis(1300), "{before} to {after}: {gap:?}");
        case.run_until_read(BYTES / 2);
        let lengths = case.lengths_to_the_end();
        assert!(lengths.iter().filter(|&&len| len > after).count() <= 12, "probes only");
    }
}

#[test]
fn a_path_that_carries_less_than_the_base_works_in_fragments() {
    let mut case = Case::new(line(1172), LITTLE, false);
    case.run_until_read(LITTLE);
    assert!(case.world.elapsed() < Duration::from_secs(5), "{:?}", case.world.elapsed());
}

#[test]
fn a_train_that_arrives_as_one_batch_is_acknowledged_once() {
    // No bandwidth: what leaves in one instant arrives in one.
    let conditions = Conditions { delay: Duration::from_millis(10), ..Conditions::PERFECT };
    let mut case = Case::new(conditions, LITTLE, false);
    case.world.record_datagrams(case.to, case.from);
    case.run_until_read(LITTLE);
    let acknowledgements = case.world.take_recorded().len() as u64;
    // 2,850 segments come in trains of sixteen and less.
    assert!(acknowledgements < LITTLE / 1402 / 5, "{acknowledgements} for {LITTLE} bytes");
}
