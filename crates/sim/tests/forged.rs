//! A third host that forges whatever can be forged: nothing changes for two nodes that talk, and nobody is made to
//! bother others. That no address which never answered gets more than three small packets is checked in every world.
#![expect(clippy::print_stdout, reason = "what was measured is to be read")]

use std::{net::SocketAddr, time::Duration};

use pilot_proto::{Event, PeerEvent, Visibility, node::PathView};
use pilot_sim::{Content, Detail, Host, Nat, Net, Overheard, Pace, Role, Script, TransferId, World};
use pilot_wire::{
    NodeId, Port,
    beacon::{Message, NotifyKind},
    tunnel::Frame,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

const SECOND: Duration = Duration::from_secs(1);

/// The attacker's own address, and the one of somebody he wants to be bothered.
const MALLORY: &str = "192.0.2.66:666";
const VICTIM: &str = "192.0.2.77:7";

/// Twice the pace of the talk below: as long as any segment waits for its acknowledgement.
const NOTHING_NOTICED: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgery {
    PunchCommand,
    DiscoverReply,
    Claim,
    SurveyReply,
    Unknown,
    Notify,
    RelayedReplay,
    KeyExchangeReplay,
    Replay,
}

const FORGERIES: [Forgery; 9] = [
    Forgery::PunchCommand,
    Forgery::DiscoverReply,
    Forgery::Claim,
    Forgery::SurveyReply,
    Forgery::Unknown,
    Forgery::Notify,
    Forgery::RelayedReplay,
    Forgery::KeyExchangeReplay,
    Forgery::Replay,
];

/// From where a forgery says that it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Own,
    Beacon,
    /// The address at which the beacon sees the peer.
    Peer,
}

const SOURCES: [Source; 3] = [Source::Own, Source::Beacon, Source::Peer];

const NATS: [Option<Nat>; 4] = [None, Some(Nat::FULL_CONE), Some(Nat::HOME), Some(Nat::SYMMETRIC)];

#[test]
fn no_forgery_from_anywhere_changes_anything_for_two_nodes_that_talk() {
    let mut failures = Vec::new();
    for nat in NATS {
        for forgery in FORGERIES {
            for source in SOURCES {
                if let Err(reason) = attack(nat, &[forgery], source, 10 * SECOND) {
                    failures.push(format!("{nat:?}, {forgery:?} from {source:?}: {reason}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} attacks worked\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn all_forgeries_at_once_for_five_minutes_change_nothing_either() {
    for nat in NATS {
        for source in SOURCES {
            let result = attack(nat, &FORGERIES, source, 300 * SECOND);
            assert_eq!(result, Ok(()), "{nat:?} from {source:?}");
        }
    }
}

fn attack(nat: Option<Nat>, forgeries: &[Forgery], source: Source, time: Duration) -> Result<(), String> {
    let mut talk = Talk::begin(nat);
    let mut chance = StdRng::seed_from_u64(1);
    let paths = talk.paths();
    let overheard = talk.world.overheard().to_vec();
    let ends = talk.world.elapsed() + time;
    let mut read = talk.read();
    let mut moved = [talk.world.elapsed(); 2];
    while talk.world.elapsed() < ends {
        let forgery = forgeries[chance.random_range(0..forgeries.len())];
        let towards = chance.random_range(0..2);
        talk.forge(forgery, source, towards, &overheard, &mut chance);
        talk.world.run_for(Duration::from_millis(chance.random_range(5..40)));
        let now = talk.world.elapsed();
        let reads = talk.read();
        for side in 0..2 {
            if reads[side] > read[side] {
                moved[side] = now;
            }
            if now - moved[side] > NOTHING_NOTICED {
                show(&talk.world);
                return Err(format!("nothing arrives at side {side} for {:?}", now - moved[side]));
            }
        }
        read = reads;
        if let Some(fault) = talk.world.fault() {
            return Err(fault.to_string());
        }
    }
    if talk.paths() != paths {
        show(&talk.world);
        return Err(format!("paths were {paths:?} and are {:?}", talk.paths()));
    }
    for host in [talk.alice, talk.bob] {
        let moves = talk.world.take_events(host).into_iter().filter(|event| {
            matches!(
                event,
                Event::Peer(
                    _,
                    PeerEvent::Direct(_)
                        | PeerEvent::Relayed
                        | PeerEvent::Silent
                        | PeerEvent::KeyMismatch(_)
                        | PeerEvent::Downgraded
                )
            )
        });
        let moves: Vec<_> = moves.collect();
        if !moves.is_empty() {
            show(&talk.world);
            return Err(format!("{moves:?}"));
        }
    }
    Ok(())
}

/// For whoever looks for the reason: `PILOT_SIM_LINES=1 cargo test ... -- --nocapture`.
fn show(world: &World) {
    if std::env::var_os("PILOT_SIM_LINES").is_some() {
        println!("{}", world.history().lines().join("\n"));
    }
}

/// Two nodes that say something to each other fifty times a second.
struct Talk {
    world: World,
    alice: Host,
    bob: Host,
    id: TransferId,
    /// Where the beacon sees them.
    seen: [SocketAddr; 2],
}

impl Talk {
    fn begin(nat: Option<Nat>) -> Self {
        let lines = std::env::var_os("PILOT_SIM_LINES").is_some();
        let mut world = World::new(1, if lines { Detail::Lines } else { Detail::Digest });
        world.add_beacon();
        world.overhear();
        world.protect(addr(VICTIM));
        world.protect(addr(MALLORY));
        let [alice, bob] = ["alice", "bob"].map(|name| world.node_with(name, Visibility::Public, |_| {}));
        for host in [alice, bob] {
            if let Some(nat) = nat {
                world.set_nat(host, nat);
            }
        }
        world.run_for(5 * SECOND);
        let seen = [alice, bob].map(|host| world.look_at(host).observed().expect("the beacon answers"));
        let talk = Script {
            writes: Pace::Slow { bytes: 100, every: Duration::from_millis(20) },
            ..Script::eager(u64::MAX, Content::Noise(1))
        };
        let id = world.converse(alice, bob, Port(2000), talk, Script { content: Content::Noise(2), ..talk });
        world.run_for(20 * SECOND);
        world.take_events(alice);
        world.take_events(bob);
        Self { world, alice, bob, id, seen }
    }

    fn read(&self) -> [u64; 2] {
        [Role::Dialer, Role::Listener].map(|role| self.world.progress(self.id, role).read)
    }

    fn paths(&self) -> [PathView; 2] {
        [self.world.path(self.alice, self.bob), self.world.path(self.bob, self.alice)]
    }

    /// `towards` 0 is Alice, 1 is Bob.
    fn forge(
        &mut self,
        forgery: Forgery,
        source: Source,
        towards: usize,
        overheard: &[Overheard],
        chance: &mut StdRng,
    ) {
        let beacon = self.world.beacon_addr();
        let peer = [self.bob, self.alice][towards];
        let peer = self.world.number(peer);
        let (mallory, victim) = (addr(MALLORY), addr(VICTIM));
        let from = match source {
            Source::Own => mallory,
            Source::Beacon => beacon,
            // His host, but not the port: that would be he himself.
            Source::Peer => SocketAddr::new(self.seen[1 - towards].ip(), chance.random()),
        };
        let mut to = self.seen[towards];
        let mut out = Vec::new();
        match forgery {
            Forgery::PunchCommand => Message::PunchCommand(victim).emit(&mut out),
            Forgery::DiscoverReply => Message::DiscoverReply(victim).emit(&mut out),
            Forgery::Claim => {
                to = beacon;
                if chance.random() {
                    Message::Discover { node: peer, key: None, proof: None }.emit(&mut out);
                } else {
                    Message::DiscoverEx { node: peer, key: None }.emit(&mut out);
                }
            }
            Forgery::SurveyReply => Message::SurveyReply {
                token: chance.random(),
                observed: victim,
                second_port: Some(7),
                second_addr: Some(victim),
            }
            .emit(&mut out),
            Forgery::Unknown => Message::Unknown { node: peer }.emit(&mut out),
            Forgery::Notify => Message::Notify(NotifyKind::Handshake).emit(&mut out),
            Forgery::RelayedReplay => {
                let Some(frame) = pick(overheard, chance, |_| true) else { return };
                let source = [peer, NodeId(77)][chance.random_range(0..2)];
                Message::RelayDeliver { source, frame: &frame }.emit(&mut out);
            }
            Forgery::KeyExchangeReplay => {
                let exchange =
                    pick(overheard, chance, |frame| matches!(Frame::parse(frame), Ok(Frame::KeyExchange(_))));
                let Some(frame) = exchange else { return };
                out = frame;
            }
            Forgery::Replay => {
                let Some(frame) = pick(overheard, chance, |_| true) else { return };
                out = frame;
            }
        }
        self.world.spoof(from, to, &out);
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A tunnel frame that was overheard, without what a relay puts in front of it.
fn pick(overheard: &[Overheard], chance: &mut StdRng, fits: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let frames: Vec<_> = overheard
        .iter()
        .map(|seen| match Message::parse(&seen.datagram) {
            Ok(Message::Relay { frame, .. } | Message::RelayDeliver { frame, .. }) => frame,
            _ => &seen.datagram[..],
        })
        .filter(|frame| fits(frame))
        .collect();
    (!frames.is_empty()).then(|| frames[chance.random_range(0..frames.len())].to_vec())
}

#[test]
fn a_trusted_peer_that_lies_about_its_addresses_bothers_nobody_and_is_reached_all_the_same() {
    let mut world = World::new(1, Detail::Lines);
    world.add_beacon();
    let [alice, mallory] = ["alice", "mallory"].map(|name| world.node(name));
    for host in [alice, mallory] {
        world.set_nat(host, Nat::HOME);
    }
    world.run_for(5 * SECOND);
    world.befriend(alice, mallory);
    let talk = Script {
        writes: Pace::Slow { bytes: 100, every: SECOND },
        ..Script::eager(u64::MAX, Content::Noise(1))
    };
    let id = world.converse(alice, mallory, Port(2000), talk, Script { content: Content::Noise(2), ..talk });
    let victim = |number: u32| SocketAddr::from(([192, 0, 2, (number % 250) as u8], 7));
    let before = world.sent_by(alice, None);
    for round in 0..60 {
        let lies: Vec<_> = (round * 10..round * 10 + 10).map(victim).collect();
        world.lie_about(mallory, Some(lies[0]), lies[1..5].to_vec());
        world.with_node(mallory, |node, now| node.set_local(now, lies));
        world.run_for(10 * SECOND);
        assert_eq!(world.fault(), None, "round {round}");
    }
    let progress = world.progress(id, Role::Listener);
    assert!(progress.read >= 58_000, "the stream goes on: {progress:?}");
    let sent = world.sent_by(alice, None).datagrams - before.datagrams;
    println!("{sent} datagrams in ten minutes");
    assert!(sent < 600 * 8, "{sent} datagrams in ten minutes");
}

/// The registry names another address, and keeps the true ones to itself.
#[test]
fn a_registry_that_lies_about_a_friend_delays_nothing_as_long_as_the_beacon_is_honest() {
    for nat in NATS {
        let mut world = World::new(1, Detail::Lines);
        world.add_beacon();
        let [alice, bob] = ["alice", "bob"].map(|name| world.node(name));
        for host in [alice, bob] {
            if let Some(nat) = nat {
                let id = world.add_box(Net::Internet, nat);
                world.place(host, Net::Behind(id));
            }
        }
        world.run_for(5 * SECOND);
        world.befriend(alice, bob);
        world.restart(alice);
        world.run_for(5 * SECOND);
        world.lie_about(bob, Some(addr(VICTIM)), vec![]);
        let there = Script::eager(1000, Content::Noise(1));
        let id =
            world.converse(alice, bob, Port(2000), there, Script { content: Content::Noise(2), ..there });
        let arrived = world.run_until(SECOND, |world| world.progress(id, Role::Listener).read == 1000);
        assert!(arrived, "{nat:?}: {:#?}", world.history().lines());
        let direct = world.run_until(2 * SECOND, |world| world.is_direct(alice, bob));
        assert_eq!(direct, nat != Some(Nat::SYMMETRIC), "{nat:?}: {:#?}", world.history().lines());
        assert_eq!(world.fault(), None, "{nat:?}");
    }
}
