//! Somebody on the path who records datagrams and sends them again, whole or changed, from anywhere.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use rand::{Rng as _, RngExt, rngs::StdRng};

/// The longest time a recorded datagram is kept.
const KEPT: Duration = Duration::from_secs(20);

/// What the attacker sends.
pub(crate) struct Forgery {
    pub(crate) after: Duration,
    pub(crate) from: SocketAddr,
    pub(crate) datagram: Vec<u8>,
}

/// Makes something of a datagram that was seen on its way from `source`.
pub(crate) fn forge(chance: &mut StdRng, source: SocketAddr, seen: &[u8]) -> Forgery {
    let after = chance.random_range(Duration::ZERO..KEPT);
    let from = if chance.random_bool(0.3) {
        source
    } else {
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, chance.random()), chance.random()))
    };
    let mut datagram = seen.to_vec();
    match chance.random_range(0..6) {
        0..3 => {}
        3 => {
            for _ in 0..chance.random_range(1..10) {
                let at = chance.random_range(0..datagram.len().max(1));
                if let Some(byte) = datagram.get_mut(at) {
                    *byte = chance.random();
                }
            }
        }
        4 => datagram.truncate(chance.random_range(0..=seen.len())),
        _ => {
            // A head that is understood, and then anything.
            datagram.truncate(chance.random_range(0..=4));
            let mut junk = vec![0; chance.random_range(0..200)];
            chance.fill_bytes(&mut junk);
            datagram.extend_from_slice(&junk);
        }
    }
    Forgery { after, from, datagram }
}
