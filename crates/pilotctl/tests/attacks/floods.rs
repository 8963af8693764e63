//! More than anybody needs, from many addresses.

use std::sync::atomic::{AtomicBool, Ordering};

use pilot_crypto::{AgreementKey, Identity};
use pilot_wire::tunnel::{Extension, Frame, KeyExchange, MESSAGE_LEN, signed_bytes};
use pilot_wire::{NodeId, PublicKey};

use crate::common::World;
use crate::target::{Over, Target, ask_for_trust, assert_hardly_shot_at, beside, shoot, socket_at};

/// Key exchanges of the flood at least: ten seconds of all the signatures that are checked.
const EXCHANGES: usize = 20_000;

/// And at most, if whom it shall keep out is not through before.
const EXCHANGES_MAX: usize = 1_000_000;

/// Addresses it comes from: together they may have more looked at than there is time for.
const SOURCES: u8 = 240;

/// A key exchange of a node that may exist, under a key that may be its own, signed by `signer`; an initiation behind it.
fn exchange(number: u32, sender: NodeId, identity: PublicKey, signer: &Identity) -> Vec<u8> {
    let mut secret = [1; 32];
    secret[..4].copy_from_slice(&number.to_be_bytes());
    let agreement = AgreementKey::from_bytes(&secret).public();
    let (mut trailer, mut bytes) = (Vec::new(), Vec::new());
    if !number.is_multiple_of(8) {
        let mut message = [0x5A; MESSAGE_LEN];
        message[..4].copy_from_slice(&number.to_be_bytes());
        Extension::Initiation { message, cookie: None }.emit(&mut trailer);
    }
    let signature = signer.sign(&signed_bytes(sender, &agreement));
    Frame::KeyExchange(KeyExchange { sender, agreement, identity, signature, trailer: &trailer })
        .emit(&mut bytes);
    bytes
}

#[test]
fn a_flood_of_key_exchanges_keeps_nobody_out() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &["--trust-auto-approve"]);
    let b = Target::start(&world, "agent-b", &[]);
    let mut c = Target::start(&world, "agent-c", &[]);
    for friend in [&b, &c] {
        ask_for_trust(friend, &a);
    }
    // It has to agree on new keys in the middle of the flood.
    let key = c.key();
    c.agent.kill();
    let sockets: Vec<_> = (0..SOURCES).map(|source| socket_at([127, 0, 1, source + 1])).collect();
    let (wrong, identity) = (Identity::from_seed(&[9; 32]), Identity::from_seed(&[10; 32]));
    let flood: Vec<Vec<u8>> = (0..2000)
        .map(|number| match number % 5 {
            // As friends with another key, as nodes that there are not, and as a friend with its own key, which costs most.
            0 => exchange(number, b.node, wrong.public(), &wrong),
            1 => exchange(number, NodeId(100_000 + number), identity.public(), &identity),
            _ => exchange(number, c.node, key, &wrong),
        })
        .collect();
    let refused = ["too_many", "wrong_key", "not_admitted", "bad_signature"];
    let before: u64 = refused.iter().map(|reason| a.dropped(reason)).sum();
    let renewals = b.renewals();
    beside(&b.agent, "agent-a", || {
        let through = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let ends = Over(&through);
            let flooding = scope.spawn(|| {
                let mut sent = 0;
                while sent < EXCHANGES || (sent < EXCHANGES_MAX && !through.load(Ordering::SeqCst)) {
                    let bytes = &flood[sent % flood.len()];
                    shoot(&sockets[sent % sockets.len()], a.udp, &mut sent, bytes);
                }
            });
            c.agent.start_anyhow();
            let echoed = c.agent.pipe(&["connect", "agent-a", "7"], b"in the middle of the flood");
            assert_eq!(echoed.text(), "in the middle of the flood", "{echoed:?}");
            drop(ends);
            flooding.join().unwrap();
        });
    });
    let after: u64 = refused.iter().map(|reason| a.dropped(reason)).sum();
    assert!(after > before + 1000, "it was no flood: {before} {after}");
    b.assert_unmoved(renewals, 1);
    for socket in &sockets {
        assert_hardly_shot_at(socket, 1);
    }
}
