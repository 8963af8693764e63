//! Two nodes, a network in the hands of the script, a third node that is registered and hostile, hurried applications, and a
//! registry that may be slow or wrong.
//!
//! Whatever the script says: nobody panics; the outputs end; tables stay within their bounds; nothing is sent in clear, no nonce
//! is used twice, and an address that never answered gets what it may get; what is read from a stream of the two is what was
//! written to it; time always has somewhere to go; and afterwards, over an honest network, the two find each other again.

mod puppet;
mod side;
mod watch;
mod world;

use std::net::{Ipv4Addr, SocketAddr};

use pilot_crypto::Identity;
use pilot_wire::{NodeId, Port};

use crate::script::Script;
use world::World;

/// One script against two nodes.
pub fn node(input: &[u8]) {
    let mut script = Script::new(input);
    let mut world = World::new(script.byte(), script.byte());
    while !script.is_over() {
        world.step(&mut script);
    }
    world.calm_down();
    world.meet_again();
}

/// The two, and the hostile one.
const IDS: [NodeId; 3] = [NodeId(1), NodeId(2), NodeId(3)];

/// Which of them the hostile one is.
const PUPPET: usize = 2;

/// Where both listen.
const PORT: Port = Port(1000);

fn identity(index: usize) -> Identity {
    Identity::from_seed(&[index as u8 + 1; 32])
}

/// Where a participant lives, or moved to.
fn home(index: usize, place: u8) -> SocketAddr {
    (Ipv4Addr::new(10, 0, place & 3, index as u8 + 1), 4000).into()
}

/// Somebody who has nothing to do with any of it.
fn stranger(number: u8) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, number & 7), 4000).into()
}

fn beacon() -> SocketAddr {
    (Ipv4Addr::new(203, 0, 113, 1), 9001).into()
}

/// The byte that stands at a position of a stream: of which stream, the dialler and its port say, and the direction.
fn expected(tag: u64, position: u64) -> u8 {
    ((position ^ tag.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}
