//! Makes the troubles of a day happen, and stop.

use std::time::Duration;

use super::{Episode, Live, Memory, Trouble};
use crate::{Conditions, Home, Host, plan::net_of};

/// Daemons tell a registry that is back where their nodes are within this time, each at one of its own.
const REGISTERS_WITHIN: Duration = Duration::from_secs(5);

impl Live<'_> {
    pub(super) fn begin(&mut self, episode: &Episode) {
        let Episode { who, peer, .. } = *episode;
        match episode.trouble {
            Trouble::Narrows(mtu) => {
                let mtu = mtu.min(self.day.conditions.mtu);
                self.world.set_conditions(Conditions { mtu, ..self.day.conditions });
            }
            Trouble::Rebinds => self.rebind(who),
            Trouble::BoxRestarts => {
                if let Some(id) = self.world.box_of(who) {
                    self.world.restart_box(id);
                }
            }
            Trouble::Moves(home, notice) => self.relocate(who, home, notice),
            Trouble::MovesAndRebinds(home, notice) => {
                self.relocate(who, home, notice);
                self.rebind(peer);
            }
            Trouble::BothMove(home, other, notice) => {
                self.relocate(who, home, Some(notice));
                self.relocate(peer, other, Some(notice));
            }
            Trouble::DirectCut => {
                self.world.set_link(who, peer, Conditions::CUT);
                self.world.set_link(peer, who, Conditions::CUT);
            }
            Trouble::ClockSteps(seconds) => self.world.step_clock(who, seconds),
            Trouble::Outage(_) | Trouble::Partition(_) => self.isolate(who),
            Trouble::Sleeps(_) | Trouble::SleepsLong(_) => self.world.suspend(who),
            Trouble::BeaconRestarts(_) => self.world.stop_beacon(),
            Trouble::BadLine(_) => self.world.set_conditions(Conditions {
                loss: 0.3,
                duplicate: 0.1,
                reorder: 0.3,
                held_back: Duration::from_millis(100),
                corrupt: 0.03,
                ..self.day.conditions
            }),
            Trouble::Replays(_) => self.world.set_attacks(0.2),
            Trouble::Killed(memory) => self.world.restart_with(who, memory),
            Trouble::AllKilled => {
                for host in (0..self.day.nodes.len()).map(Host) {
                    self.world.restart_with(host, Memory::All);
                }
            }
            Trouble::RegistryAway(_) | Trouble::RegistryRestarts(_) => {
                self.world.set_registry_reachable(false)
            }
            Trouble::Stripped(_) => {
                self.world.strip_exchanges(true);
                self.world.restart_with(who, Memory::All);
            }
            Trouble::Stuck(_) | Trouble::DialEachOther | Trouble::InUse(_) => {}
        }
    }

    /// The network is as good as it gets.
    pub(super) fn relent(&mut self, episode: &Episode) {
        match episode.trouble {
            Trouble::Outage(_) | Trouble::Partition(_) | Trouble::BadLine(_) => {
                self.world.set_conditions(self.day.conditions);
            }
            Trouble::Sleeps(_) | Trouble::SleepsLong(_) => self.world.resume(episode.who),
            Trouble::BeaconRestarts(_) => self.world.start_beacon(),
            Trouble::Replays(_) => self.world.set_attacks(0.0),
            Trouble::RegistryAway(_) => self.world.set_registry_reachable(true),
            Trouble::RegistryRestarts(_) => {
                self.world.set_registry_reachable(true);
                self.world.restart_registry(REGISTERS_WITHIN);
            }
            Trouble::Stripped(_) => self.world.strip_exchanges(false),
            Trouble::Narrows(_)
            | Trouble::Rebinds
            | Trouble::BoxRestarts
            | Trouble::Moves(..)
            | Trouble::MovesAndRebinds(..)
            | Trouble::BothMove(..)
            | Trouble::DirectCut
            | Trouble::ClockSteps(_)
            | Trouble::Stuck(_)
            | Trouble::Killed(_)
            | Trouble::AllKilled
            | Trouble::DialEachOther
            | Trouble::InUse(_) => {}
        }
    }

    fn rebind(&mut self, host: Host) {
        if let Some(id) = self.world.box_of(host) {
            self.world.rebind(id);
        }
    }

    fn relocate(&mut self, host: Host, home: Home, notice: Option<Duration>) {
        let net = net_of(&mut self.world, home);
        self.world.move_host(host, net, notice);
    }

    /// Nothing passes between a host and anybody else.
    fn isolate(&mut self, host: Host) {
        for other in (0..self.day.nodes.len()).map(Host).filter(|&other| other != host) {
            self.world.set_link(host, other, Conditions::CUT);
            self.world.set_link(other, host, Conditions::CUT);
        }
        self.world.set_beacon_link(host, Conditions::CUT);
    }
}
