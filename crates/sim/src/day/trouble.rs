//! What goes wrong on a [`Day`](super::Day).

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

use super::{CLOCK_OFF, MINUTE, Memory, SECOND, random_nat};
use crate::Home;

/// Something that goes wrong. Where there is a time, it lasts that long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trouble {
    /// The path carries only datagrams of this size any more, and says nothing.
    Narrows(usize),
    /// A box gives everything another port.
    Rebinds,
    /// A box restarts with empty tables.
    BoxRestarts,
    /// A node changes its network; it is told after that time, or never.
    Moves(Home, Option<Duration>),
    /// The same while the peer's box rebinds.
    MovesAndRebinds(Home, Option<Duration>),
    /// Both change their networks at once.
    BothMove(Home, Home, Duration),
    /// The direct way is gone, the one through the beacon is not.
    DirectCut,
    /// The clock on the wall jumps by seconds.
    ClockSteps(i64),
    /// A network is gone, for less than the patience of a stream.
    Outage(Duration),
    /// A machine is suspended, for less than that.
    Sleeps(Duration),
    /// The beacon stops, and starts with empty tables.
    BeaconRestarts(Duration),
    /// Thirty per cent of loss, duplicates, reordering by 100 ms, flipped bits.
    BadLine(Duration),
    /// An attacker sends again what he saw, whole or changed.
    Replays(Duration),
    /// Another stream of the pair is not read.
    Stuck(Duration),
    /// A node is cut off from everybody, for longer than streams wait.
    Partition(Duration),
    /// A machine is suspended for longer than streams wait.
    SleepsLong(Duration),
    /// A node is killed and comes back with this memory.
    Killed(Memory),
    /// All nodes at once.
    AllKilled,
    /// Both are killed and then dial each other at the same instant, and end both streams at the same instant.
    DialEachOther,
    /// The registry is away.
    RegistryAway(Duration),
    /// The registry is away and comes back without knowing where nodes are.
    RegistryRestarts(Duration),
    /// An attacker strips key exchanges while a node is killed and comes back.
    Stripped(Duration),
    /// Nothing goes wrong: a stream is in use, and keys are replaced under it.
    InUse(Duration),
}

impl Trouble {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Narrows(_) => "MTU black hole, 1280 or 576",
            Self::Rebinds => "NAT rebinds",
            Self::BoxRestarts => "NAT restarts",
            Self::Moves(_, Some(_)) => "address changes, noticed",
            Self::Moves(_, None) => "address changes, not noticed",
            Self::MovesAndRebinds(..) => "address changes, peer's NAT rebinds",
            Self::BothMove(..) => "both addresses change",
            Self::DirectCut => "direct way cut, relay not",
            Self::ClockSteps(_) => "clock jumps by up to two days",
            Self::Outage(_) => "network gone, up to 25 s",
            Self::Sleeps(_) => "suspended, up to 50 s",
            Self::BeaconRestarts(_) => "beacon restarts",
            Self::BadLine(_) => "30 % loss, reordering, corruption",
            Self::Replays(_) => "replays and forgeries",
            Self::Stuck(_) => "stuck reader beside",
            Self::Partition(_) => "partition, 2 to 60 min",
            Self::SleepsLong(_) => "suspended for an hour",
            Self::Killed(Memory::All) => "node killed",
            Self::Killed(Memory::Trust) => "node killed, forgets agreements",
            Self::Killed(Memory::Lost) => "node killed, forgets all",
            Self::AllKilled => "all nodes killed",
            Self::DialEachOther => "both killed, dial each other",
            Self::RegistryAway(_) => "registry away for an hour",
            Self::RegistryRestarts(_) => "registry restarts empty",
            Self::Stripped(_) => "exchanges stripped, node killed",
            Self::InUse(_) => "none: keys replaced in use",
        }
    }

    /// How long it lasts.
    pub(super) const fn lasts(self) -> Duration {
        match self {
            Self::Narrows(_)
            | Self::Rebinds
            | Self::BoxRestarts
            | Self::Moves(..)
            | Self::MovesAndRebinds(..)
            | Self::BothMove(..)
            | Self::DirectCut
            | Self::ClockSteps(_)
            | Self::Killed(_)
            | Self::AllKilled
            | Self::DialEachOther => Duration::ZERO,
            Self::Outage(time)
            | Self::Sleeps(time)
            | Self::BeaconRestarts(time)
            | Self::BadLine(time)
            | Self::Replays(time)
            | Self::Stuck(time)
            | Self::Partition(time)
            | Self::SleepsLong(time)
            | Self::RegistryAway(time)
            | Self::RegistryRestarts(time)
            | Self::Stripped(time)
            | Self::InUse(time) => time,
        }
    }
}

/// Something that can go wrong where there is, or is not, a beacon, for nodes that talk to everybody or to friends only.
pub(super) fn random(chance: &mut StdRng, beacon: bool, public: bool) -> Trouble {
    let millis =
        |chance: &mut StdRng, from: u64, to: u64| Duration::from_millis(chance.random_range(from..to));
    match chance.random_range(0..if beacon { 24 } else { 16 }) {
        0 => Trouble::Narrows(if chance.random() { 1280 } else { 576 }),
        1 => {
            let home = random_move(chance, beacon);
            Trouble::Moves(home, Some(millis(chance, 0, 100)))
        }
        2 => {
            let seconds = chance.random_range(1..=CLOCK_OFF);
            Trouble::ClockSteps(if chance.random() { seconds } else { -seconds })
        }
        3 => Trouble::Outage(millis(chance, 500, 25_000)),
        4 => Trouble::Sleeps(millis(chance, 1000, 50_000)),
        5 => Trouble::BadLine(millis(chance, 5000, 30_000)),
        6 => Trouble::Replays(millis(chance, 10_000, 30_000)),
        7 => Trouble::Stuck(millis(chance, 10_000, 40_000)),
        8 => Trouble::Partition(chance.random_range(2..60) * MINUTE),
        9 => Trouble::SleepsLong(60 * MINUTE),
        10 => Trouble::Killed(Memory::All),
        // Who has forgotten whom it trusts is not talked to by friends before they agree again.
        11 => Trouble::Killed(if public { Memory::Lost } else { Memory::Trust }),
        12 if chance.random() => Trouble::AllKilled,
        12 => Trouble::DialEachOther,
        // Strangers are forgotten after five minutes, and cannot be found then.
        13 if !public => Trouble::RegistryAway(60 * MINUTE),
        13 => Trouble::RegistryRestarts(millis(chance, 0, 60_000)),
        14 => Trouble::Stripped(millis(chance, 2000, 20_000)),
        15 => Trouble::InUse(chance.random_range(5..15) * MINUTE),
        16 => Trouble::Rebinds,
        17 => Trouble::BoxRestarts,
        // Without a beacon, nobody could tell.
        18 => Trouble::Moves(random_move(chance, beacon), None),
        19 => {
            let notice = chance.random_bool(0.5).then(|| millis(chance, 0, 100));
            Trouble::MovesAndRebinds(random_move(chance, beacon), notice)
        }
        20 => {
            let homes = [random_move(chance, beacon), random_move(chance, beacon)];
            Trouble::BothMove(homes[0], homes[1], millis(chance, 0, 100))
        }
        21 => Trouble::DirectCut,
        22 => Trouble::BeaconRestarts(millis(chance, 0, 20_000)),
        _ => Trouble::RegistryRestarts(chance.random_range(0..30) * SECOND),
    }
}

fn random_move(chance: &mut StdRng, beacon: bool) -> Home {
    if beacon && chance.random_bool(0.7) { Home::Behind(random_nat(chance)) } else { Home::Public }
}
