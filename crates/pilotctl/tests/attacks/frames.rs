//! Frames that were recorded, altered, made up or meant for somebody else.

use pilot_wire::beacon::Message;
use pilot_wire::packet::{Flags, Header, Packet, Protocol};
use pilot_wire::tunnel::{Extension, Frame, KeyExchange, MESSAGE_LEN, Nonce};
use pilot_wire::{Addr, AgreementPublic, NodeId, Port, Signature};

use crate::common::World;
use crate::middle::{Middle, Overheard};
use crate::target::{Target, assert_hardly_shot_at, befriend, beside, shoot, socket_at};

/// Datagrams that a node has looked at.
const DATAGRAMS: &str = "pilot_node_packets_total{direction=\"in\"}";

/// Frames of each kind that are recorded and altered.
const RECORDED: usize = 6;

/// Addresses that they come from.
const SOURCES: u8 = 40;

/// The largest datagram that there is.
const LARGEST: usize = 65_507;

fn emitted(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.emit(&mut bytes);
    bytes
}

/// Everything that can be made of a frame without a key.
fn altered(frame: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![frame.to_vec(), frame.to_vec()];
    all.extend((0..frame.len()).step_by(5).map(|cut| frame[..cut].to_vec()));
    all.extend((0..frame.len()).step_by(3).map(|byte| {
        let mut changed = frame.to_vec();
        changed[byte] ^= 0x55;
        changed
    }));
    for length in [1500, 9000, LARGEST] {
        let mut longer = frame.to_vec();
        longer.resize(length, 0x5A);
        all.push(longer);
    }
    all
}

/// What nobody who has the keys ever said, in the name of `source`.
fn made_up(source: &Target, destination: NodeId) -> Vec<Vec<u8>> {
    let (identity, source) = (source.key(), source.node);
    let sealed = |counter, length| {
        let ciphertext = vec![0x5A; length];
        emitted(&Frame::Sealed {
            sender: source,
            nonce: Nonce { prefix: [7; 4], counter },
            ciphertext: &ciphertext,
        })
    };
    let key = AgreementPublic::from_bytes([9; 32]);
    let begins = |message: u8| {
        let mut trailer = Vec::new();
        Extension::Initiation { message: [message; MESSAGE_LEN], cookie: None }.emit(&mut trailer);
        let signature = Signature::from_bytes([message; 64]);
        emitted(&Frame::KeyExchange(KeyExchange {
            sender: source,
            agreement: key,
            identity,
            signature,
            trailer: &trailer,
        }))
    };
    let mut syn = Vec::new();
    let (from, to) =
        (Addr::backbone(source).port(Port(49_200)), Addr::backbone(destination).port(Port::ECHO));
    Packet { header: Header::new(Protocol::Stream, Flags::SYN, from, to), payload: b"" }.emit(&mut syn);
    vec![
        sealed(1, 60),
        sealed(1 << 40, 60),
        sealed(u64::MAX, 60),
        sealed(2, 16),
        sealed(3, 9000),
        emitted(&Frame::KeyRequest { sender: source, agreement: key, trailer: &[] }),
        emitted(&Frame::KeyRequest { sender: source, agreement: key, trailer: &[0xFF; 900] }),
        emitted(&Frame::Plain { packet: &syn }),
        emitted(&Frame::Punch),
        begins(1),
        begins(2),
        b"PIL".to_vec(),
        b"PILX what is this".to_vec(),
        Vec::new(),
    ]
}

/// With the nonce of a frame that was really sent, and its counter where it would push everything later out of a window.
fn with_a_huge_counter(frame: &[u8]) -> Option<Vec<u8>> {
    let Ok(Frame::Sealed { sender, nonce, ciphertext }) = Frame::parse(frame) else { return None };
    let nonce = Nonce { counter: nonce.counter | 1 << 50, ..nonce };
    Some(emitted(&Frame::Sealed { sender, nonce, ciphertext }))
}

fn is_key_exchange(heard: &Overheard) -> bool {
    matches!(Frame::parse(&heard.frame), Ok(Frame::KeyExchange(_)))
}

#[test]
fn what_was_recorded_altered_or_made_up_changes_nothing_for_a_stream() {
    let world = World::new();
    let middle = Middle::before(&world.beacon);
    let a = Target::start_behind(&world, middle.address, "agent-a");
    let b = Target::start_behind(&world, middle.address, "agent-b");
    befriend(&a, &b);
    // Many addresses, because key exchanges are looked at up to a rate for each.
    let strangers: Vec<_> = (1..=SOURCES).map(|source| socket_at([127, 0, 2, source])).collect();
    beside(&a.agent, "agent-b", || {
        let before = [a.renewals(), b.renewals()];
        // Signatures are looked at only where nothing else decides before: not for each of these.
        let reasons = ["malformed", "plaintext", "not_authentic", "replayed"];
        let dropped = reasons.map(|reason| [a.dropped(reason), b.dropped(reason)]);
        let recorded = middle.heard();
        let (exchanges, others): (Vec<_>, Vec<_>) = recorded.iter().partition(|heard| is_key_exchange(heard));
        assert!(exchanges.len() >= 2, "nothing was recorded");
        let mut sent = 0;
        // First, while there is time to look at signatures.
        for (source, target) in [(&b, &a), (&a, &b)] {
            for bytes in made_up(source, target.node).iter().cycle().take(240) {
                shoot(&strangers[sent % strangers.len()], target.udp, &mut sent, bytes);
                middle.say(target.udp, &Message::RelayDeliver { source: source.node, frame: bytes });
            }
        }
        for heard in exchanges.into_iter().take(RECORDED).chain(others.into_iter().take(RECORDED)) {
            let to = if heard.destination == a.node { a.udp } else { b.udp };
            for bytes in altered(&heard.frame).iter().chain(&with_a_huge_counter(&heard.frame)) {
                shoot(&strangers[sent % strangers.len()], to, &mut sent, bytes);
            }
            middle.say(to, &Message::RelayDeliver { source: heard.source, frame: &heard.frame });
        }
        for (reason, [of_a, of_b]) in reasons.iter().zip(dropped) {
            a.until_dropped(reason, of_a, 1);
            b.until_dropped(reason, of_b, 1);
        }
        a.assert_unmoved(before[0], 1);
        b.assert_unmoved(before[1], 1);
        // The owners are told once that somebody shows other keys, however often that happens.
        for node in [&a, &b] {
            let alarms = node.count("pilot_node_alarms");
            assert!(alarms <= 4, "{alarms} alarms");
        }
    });
    for stranger in &strangers {
        assert_hardly_shot_at(stranger, 2);
    }
}

#[test]
fn a_key_exchange_recorded_towards_one_node_means_nothing_to_another() {
    let world = World::new();
    let middle = Middle::before(&world.beacon);
    let a = Target::start_behind(&world, middle.address, "agent-a");
    let b = Target::start_behind(&world, middle.address, "agent-b");
    let c = Target::start(&world, "agent-c", &[]);
    befriend(&a, &b);
    befriend(&a, &c);
    let stranger = socket_at([127, 0, 0, 67]);
    beside(&a.agent, "agent-c", || {
        let before = [a.renewals(), c.renewals()];
        let (looked_at, all) = (c.count(DATAGRAMS), middle.heard());
        let towards_b: Vec<_> =
            all.iter().filter(|heard| is_key_exchange(heard) && heard.destination == b.node).collect();
        assert!(!towards_b.is_empty(), "nothing was recorded");
        let mut sent = 0;
        for heard in towards_b.iter().cycle().take(40) {
            shoot(&stranger, c.udp, &mut sent, &heard.frame);
        }
        c.until(DATAGRAMS, looked_at + 40);
        a.assert_unmoved(before[0], 2);
        c.assert_unmoved(before[1], 1);
    });
    a.agent.ok(&["send-message", "agent-c", "--data", "still the same keys", "--now"]);
    assert_hardly_shot_at(&stranger, 1);
}
