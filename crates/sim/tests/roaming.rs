//! The ground moves under a transfer: addresses change, boxes restart, beacons and networks go and come back. How long no
//! byte arrives, to the microsecond.
#![expect(clippy::print_stdout, reason = "what was measured is to be read")]

use std::time::Duration;

use pilot_proto::Visibility;
use pilot_sim::{
    Conditions, Content, Detail, Fault, Finishes, Host, Nat, Net, Role, Script, TransferId, World,
};
use pilot_wire::Port;

const SECOND: Duration = Duration::from_secs(1);

/// Data flows again within this time from when the network is back.
const LIMIT: Duration = SECOND;

/// Narrow, so that a transfer lasts.
const LINK: Conditions = Conditions {
    delay: Duration::from_millis(20),
    bandwidth: Some(300_000),
    queue: 30_000,
    ..Conditions::PERFECT
};

/// When a daemon sees that its addresses are others.
const NOTICE: Option<Duration> = Some(Duration::from_millis(50));

/// What happens to one of two nodes in the middle of a transfer. When it returns, the network is as good as it gets.
struct Mishap {
    name: &'static str,
    /// The boxes in front of both.
    nats: Option<Nat>,
    happens: fn(&mut World, Host, Host),
}

const MISHAPS: [Mishap; 19] = [
    Mishap {
        name: "moves to another home, notices",
        nats: Some(Nat::HOME),
        happens: |world, host, _| move_home(world, host, NOTICE),
    },
    Mishap {
        name: "moves to another home, does not notice",
        nats: Some(Nat::HOME),
        happens: |world, host, _| move_home(world, host, None),
    },
    Mishap {
        name: "moves from a home to the internet, notices",
        nats: Some(Nat::HOME),
        happens: |world, host, _| world.move_host(host, Net::Internet, NOTICE),
    },
    Mishap {
        name: "moves on the internet, does not notice",
        nats: None,
        happens: |world, host, _| world.move_host(host, Net::Internet, None),
    },
    Mishap {
        name: "moves behind a symmetric box, notices",
        nats: Some(Nat::HOME),
        happens: |world, host, _| {
            let id = world.add_box(Net::Internet, Nat::SYMMETRIC);
            world.move_host(host, Net::Behind(id), NOTICE);
        },
    },
    Mishap {
        name: "both move to other homes, both notice",
        nats: Some(Nat::HOME),
        happens: |world, host, peer| {
            move_home(world, host, NOTICE);
            move_home(world, peer, NOTICE);
        },
    },
    Mishap { name: "its box rebinds", nats: Some(Nat::HOME), happens: |world, host, _| rebind(world, host) },
    Mishap {
        name: "its box restarts, ports preserved",
        nats: Some(Nat::HOME),
        happens: |world, host, _| restart_box(world, host),
    },
    Mishap {
        name: "its box restarts, ports sequential",
        nats: Some(Nat::PORT_RESTRICTED),
        happens: |world, host, _| restart_box(world, host),
    },
    Mishap {
        name: "its symmetric box restarts",
        nats: Some(Nat::SYMMETRIC),
        happens: |world, host, _| restart_box(world, host),
    },
    Mishap {
        name: "the direct way is cut, the relay is not",
        nats: Some(Nat::HOME),
        happens: |world, host, peer| {
            world.set_link(host, peer, Conditions::CUT);
            world.set_link(peer, host, Conditions::CUT);
        },
    },
    Mishap {
        name: "its network is gone for 1.3 s",
        nats: Some(Nat::HOME),
        happens: |world, host, peer| outage(world, host, peer, Duration::from_millis(1300)),
    },
    Mishap {
        name: "its network is gone for 5 s",
        nats: Some(Nat::HOME),
        happens: |world, host, peer| outage(world, host, peer, 5 * SECOND),
    },
    Mishap {
        name: "its network is gone for 7.7 s",
        nats: Some(Nat::HOME),
        happens: |world, host, peer| outage(world, host, peer, Duration::from_millis(7700)),
    },
    Mishap {
        name: "its network is gone for 26 s",
        nats: Some(Nat::HOME),
        happens: |world, host, peer| outage(world, host, peer, Duration::from_millis(26_400)),
    },
    Mishap {
        name: "the beacon stops, way direct",
        nats: Some(Nat::HOME),
        happens: |world, _, _| world.stop_beacon(),
    },
    Mishap {
        name: "the beacon is gone for 5 s, way relayed",
        nats: Some(Nat::SYMMETRIC),
        happens: |world, _, _| {
            world.stop_beacon();
            world.run_for(5 * SECOND);
            world.start_beacon();
        },
    },
    Mishap {
        name: "sleeps for 10 s",
        nats: Some(Nat::HOME),
        happens: |world, host, _| {
            world.suspend(host);
            world.run_for(10 * SECOND);
            world.resume(host);
        },
    },
    Mishap {
        name: "sleeps for 50 s",
        nats: Some(Nat::HOME),
        happens: |world, host, _| {
            world.suspend(host);
            world.run_for(50 * SECOND);
            world.resume(host);
        },
    },
];

#[test]
fn a_transfer_goes_on_within_a_second_whatever_happens_to_one_end() {
    let mut table = Table::default();
    for mishap in &MISHAPS {
        for (victim, sender) in [
            (Role::Dialer, Role::Dialer),
            (Role::Dialer, Role::Listener),
            (Role::Listener, Role::Dialer),
            (Role::Listener, Role::Listener),
        ] {
            let what = if victim == sender { "sends" } else { "receives" };
            let name = format!("{:<44} {victim:?} {what}", mishap.name);
            table.row(name, interrupted(mishap, victim, sender));
        }
    }
    table.judge();
}

/// The longest time without a byte, from when the network was back.
fn interrupted(mishap: &Mishap, victim: Role, sender: Role) -> Result<Duration, String> {
    let (mut world, alice, bob) = pair(mishap.nats);
    let much = Script::eager(500_000_000, Content::Noise(1));
    let silent = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    let (dialing, listening) = if sender == Role::Dialer { (much, silent) } else { (silent, much) };
    let id = world.converse(alice, bob, Port(2000), dialing, listening);
    world.run_for(5 * SECOND);
    let reader = sender.other();
    assert!(world.progress(id, reader).read > 500_000, "{}: not under way", mishap.name);

    let (host, peer) = if victim == Role::Dialer { (alice, bob) } else { (bob, alice) };
    (mishap.happens)(&mut world, host, peer);
    // What is under way still arrives and says nothing.
    let read = |world: &World| world.progress(id, reader).read;
    let step = Duration::from_millis(10);
    let (mut longest, mut since, mut last) = (Duration::ZERO, world.elapsed(), read(&world));
    for _ in 0..1000 {
        world.run_for(step);
        if read(&world) > last {
            last = read(&world);
            since = world.elapsed();
        }
        longest = longest.max(world.elapsed() - since);
    }
    show(&world, longest > LIMIT);
    match (world.fault(), &world.progress(id, reader).ended) {
        (None, None) => Ok(longest),
        (fault, ended) => Err(format!("fault {fault:?}, stream {ended:?}")),
    }
}

#[test]
fn after_a_pause_of_a_minute_an_idle_stream_works_at_once_whatever_happened() {
    let mut table = Table::default();
    for mishap in &MISHAPS {
        for (victim, speaker) in [
            (Role::Dialer, Role::Dialer),
            (Role::Dialer, Role::Listener),
            (Role::Listener, Role::Dialer),
            (Role::Listener, Role::Listener),
        ] {
            let what = if victim == speaker { "speaks" } else { "is spoken to" };
            let name = format!("{:<44} {victim:?} {what}", mishap.name);
            table.row(name, idle(mishap, victim, speaker));
        }
    }
    table.judge();
}

/// How long a message takes on a stream that was idle during the mishap and for a minute after it.
fn idle(mishap: &Mishap, victim: Role, speaker: Role) -> Result<Duration, String> {
    let (mut world, alice, bob) = pair(mishap.nats);
    world.with_node(bob, |node, _| node.listen(Port(2000))).map_err(|error| error.to_string())?;
    let to = world.addr(bob).port(Port(2000));
    let ours = world.with_node(alice, |node, now| node.dial(now, to)).map_err(|error| error.to_string())?;
    world.run_for(5 * SECOND);
    let (theirs, _) = world.take_incoming(bob).ok_or("no stream")?;
    let (host, peer) = if victim == Role::Dialer { (alice, bob) } else { (bob, alice) };
    (mishap.happens)(&mut world, host, peer);
    world.run_for(60 * SECOND);

    let (from, from_stream, to, to_stream) =
        if speaker == Role::Dialer { (alice, ours, bob, theirs) } else { (bob, theirs, alice, ours) };
    let began = world.elapsed();
    world
        .with_node(from, |node, now| node.write(now, from_stream, "hello".into()))
        .map_err(|error| error.to_string())?;
    loop {
        world.run_for(Duration::from_millis(5));
        let read = world
            .with_node(to, |node, now| node.read(now, to_stream, 100))
            .map_err(|error| error.to_string())?;
        let took = world.elapsed() - began;
        if read == pilot_proto::Read::Data("hello".into()) {
            return world.fault().map_or(Ok(took), |fault| Err(fault.to_string()));
        }
        if took > 30 * SECOND {
            show(&world, true);
            return Err("nothing arrives".into());
        }
    }
}

#[test]
fn a_peer_that_restarts_takes_a_new_message_within_a_second_on_every_kind_of_path() {
    let mut table = Table::default();
    for nats in
        [None, Some(Nat::FULL_CONE), Some(Nat::HOME), Some(Nat::PORT_RESTRICTED), Some(Nat::SYMMETRIC)]
    {
        for (restarts, speaks) in [("bob", "alice"), ("bob", "bob"), ("both", "alice")] {
            let (mut world, alice, bob) = pair(nats);
            let first = message(&mut world, alice, bob, Port(2000));
            assert!(world.run_until(5 * SECOND, |world| world.is_over(first)));
            world.run_for(30 * SECOND);
            world.restart(bob);
            if restarts == "both" {
                world.restart(alice);
            }
            let (from, to) = if speaks == "alice" { (alice, bob) } else { (bob, alice) };
            let began = world.elapsed();
            let again = message(&mut world, from, to, Port(2001));
            let arrived =
                world.run_until(10 * SECOND, |world| world.progress(again, Role::Listener).read == 1000);
            let took = world.elapsed() - began;
            show(&world, took > LIMIT);
            let result =
                if arrived { Ok(took) } else { Err(format!("{:?}", world.progress(again, Role::Dialer))) };
            table.row(format!("{restarts} restarts, {speaks} speaks, {}", name(nats)), result);
        }
    }
    table.judge();
}

#[test]
fn a_stream_outlives_an_hour_of_sleep_if_it_may_idle_that_long() {
    let mut table = Table::default();
    for nats in [None, Some(Nat::HOME), Some(Nat::SYMMETRIC)] {
        for sleeper in [Role::Dialer, Role::Listener] {
            let (mut world, alice, bob) = pair_with(nats, |config| {
                config.streams.idle_timeout = Some(7200 * SECOND);
                config.streams.give_up = 7200 * SECOND;
            });
            let slowly = pilot_sim::Pace::Slow { bytes: 100, every: SECOND };
            let talk = Script { writes: slowly, ..Script::eager(100_000, Content::Noise(1)) };
            let back = Script { content: Content::Noise(2), ..talk };
            let id = world.converse(alice, bob, Port(2000), talk, back);
            world.run_for(10 * SECOND);
            let host = if sleeper == Role::Dialer { alice } else { bob };
            world.suspend(host);
            world.run_for(3600 * SECOND);
            world.resume(host);
            let reads =
                |world: &World| [Role::Dialer, Role::Listener].map(|role| world.progress(id, role).read);
            let (before, began) = (reads(&world), world.elapsed());
            let goes_on = world.run_until(30 * SECOND, |world| {
                let now = reads(world);
                now[0] > before[0] && now[1] > before[1]
            });
            let took = world.elapsed() - began;
            show(&world, took > LIMIT);
            let result =
                if goes_on { Ok(took) } else { Err(format!("{:?}", world.progress(id, Role::Dialer))) };
            table.row(format!("{sleeper:?} sleeps, {}", name(nats)), result);
        }
    }
    table.judge();
}

#[test]
fn a_hundred_megabytes_arrive_whole_while_everything_changes() {
    let (mut world, alice, bob) = pair(Some(Nat::HOME));
    world.set_conditions(Conditions { bandwidth: Some(10_000_000), queue: 400_000, ..LINK });
    let much = Script { write_size: 256 << 10, ..Script::eager(100_000_000, Content::Noise(1)) };
    let silent = Script { finishes: Finishes::AfterPeer, ..Script::eager(0, Content::Noise(2)) };
    let id = world.converse(alice, bob, Port(2000), much, silent);
    world.run_for(2 * SECOND);
    move_home(&mut world, alice, NOTICE);
    world.run_for(2 * SECOND);
    rebind(&mut world, bob);
    world.run_for(2 * SECOND);
    world.stop_beacon();
    restart_box(&mut world, alice);
    world.run_for(SECOND);
    world.start_beacon();
    world.run_for(2 * SECOND);
    move_home(&mut world, bob, NOTICE);
    assert!(
        world.run_until(120 * SECOND, |world| world.is_over(id)),
        "{:?}",
        world.progress(id, Role::Listener)
    );
    assert_eq!(world.fault(), None);
    assert!(world.progress(id, Role::Listener).complete && world.progress(id, Role::Dialer).complete);
}

/// Rows of times, of which none may be longer than [`LIMIT`].
#[derive(Default)]
struct Table {
    rows: Vec<(String, Result<Duration, String>)>,
}

impl Table {
    fn row(&mut self, name: String, result: Result<Duration, String>) {
        self.rows.push((name, result));
    }

    fn judge(&self) {
        let mut failed = 0;
        for (name, result) in &self.rows {
            let bad = !matches!(result, Ok(took) if *took <= LIMIT);
            failed += u32::from(bad);
            let mark = if bad { "  <--" } else { "" };
            match result {
                Ok(took) => println!("{name:<66} {:>8.3} s{mark}", took.as_secs_f64()),
                Err(reason) => println!("{name:<66} {reason}{mark}"),
            }
        }
        assert!(failed == 0, "{failed} of {} rows took longer than {LIMIT:?}", self.rows.len());
    }
}

fn name(nats: Option<Nat>) -> &'static str {
    match nats {
        None => "public",
        Some(Nat::FULL_CONE) => "full cone",
        Some(Nat::HOME) => "home",
        Some(Nat::PORT_RESTRICTED) => "port-restricted",
        Some(Nat::SYMMETRIC) => "symmetric",
        Some(_) => "another box",
    }
}

/// For whoever looks for the reason: `PILOT_SIM_LINES=1 cargo test ... -- --nocapture`.
fn show(world: &World, failed: bool) {
    if failed && std::env::var_os("PILOT_SIM_LINES").is_some() {
        println!("{}", world.history().lines().join("\n"));
    }
}

fn move_home(world: &mut World, host: Host, notice: Option<Duration>) {
    let id = world.add_box(Net::Internet, Nat::HOME);
    world.move_host(host, Net::Behind(id), notice);
}

fn rebind(world: &mut World, host: Host) {
    let id = world.box_of(host).expect("a box");
    world.rebind(id);
}

fn restart_box(world: &mut World, host: Host) {
    let id = world.box_of(host).expect("a box");
    world.restart_box(id);
}

fn outage(world: &mut World, host: Host, peer: Host, time: Duration) {
    let set = |world: &mut World, conditions| {
        world.set_link(host, peer, conditions);
        world.set_link(peer, host, conditions);
        world.set_beacon_link(host, conditions);
    };
    set(world, Conditions::CUT);
    world.run_for(time);
    set(world, LINK);
}

fn pair(nats: Option<Nat>) -> (World, Host, Host) {
    pair_with(nats, |_| {})
}

/// Two nodes that have been running for a while and have not talked.
fn pair_with(nats: Option<Nat>, configure: fn(&mut pilot_proto::Config)) -> (World, Host, Host) {
    let lines = std::env::var_os("PILOT_SIM_LINES").is_some();
    let mut world = World::new(1, if lines { Detail::Lines } else { Detail::Digest });
    world.set_conditions(LINK);
    world.add_beacon();
    let [alice, bob] = ["alice", "bob"].map(|name| world.node_with(name, Visibility::Public, configure));
    for host in [alice, bob] {
        if let Some(nat) = nats {
            world.set_nat(host, nat);
        }
    }
    world.run_for(5 * SECOND);
    assert_eq!(world.fault(), None::<&Fault>);
    (world, alice, bob)
}

fn message(world: &mut World, from: Host, to: Host, port: Port) -> TransferId {
    let there = Script::eager(1000, Content::Noise(3));
    let back = Script { finishes: Finishes::AfterPeer, ..Script::eager(1000, Content::Noise(4)) };
    world.converse(from, to, port, there, back)
}
