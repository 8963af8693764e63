//! What must hold for every packet, frame, SACK list, beacon message and address, not only for recorded ones.

use pilot_wire::{
    Addr, AgreementPublic, Endpoint, NetworkId, NodeId, ParseError, Port, PublicKey, Reader, Seq, Signature,
    beacon::{DiscoverProof, Message, NotifyKind, PunchGrant, ReplyFrom, is_beacon},
    packet::{Flags, HEADER_LEN, Header, Packet, Protocol},
    sack::{MAX_BLOCKS, MAX_BLOCKS_EXTENDED, SackBlock, SackList, is_lookalike},
    tunnel::{Frame, KeyExchange, Nonce},
};
use proptest::{collection::vec, option, prelude::*};
use std::net::{IpAddr, SocketAddr};

proptest! {
    #[test]
    fn a_packet_survives_emit_and_parse(header in headers(), payload in vec(any::<u8>(), 0..2000)) {
        let packet = Packet { header, payload: &payload };
        let bytes = emitted(|out| packet.emit(out));
        prop_assert_eq!(Packet::parse(&bytes), Ok(packet));
        prop_assert_eq!(Packet::parse_sealed(&bytes), Ok(packet));
        for len in 0..bytes.len() {
            prop_assert!(is_truncated(Packet::parse(&bytes[..len])), "{} of {} bytes", len, bytes.len());
            prop_assert!(is_truncated(Packet::parse_sealed(&bytes[..len])));
        }
    }

    #[test]
    fn a_packet_with_any_bit_flipped_is_not_taken(
        header in headers(), payload in vec(any::<u8>(), 0..100), position in any::<prop::sample::Index>(), bit in 0..8
    ) {
        let mut bytes = emitted(|out| header.emit_with(&[&payload], out));
        let position = position.index(bytes.len());
        bytes[position] ^= 1_u8 << bit;
        prop_assert!(Packet::parse(&bytes).is_err());
    }

    #[test]
    fn it_does_not_matter_in_how_many_parts_a_payload_comes(header in headers(), parts in vec(vec(any::<u8>(), 0..50), 0..5)) {
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let gathered = emitted(|out| header.emit_with(&slices, out));
        let whole = emitted(|out| Packet { header, payload: &parts.concat() }.emit(out));
        prop_assert_eq!(gathered, whole);
    }

    #[test]
    fn a_frame_survives_emit_and_parse(kind in 0..5, sender in nodes(), bytes in vec(any::<u8>(), 16..200), keys in any::<([u8; 32], [u8; 32])>()) {
        let agreement = AgreementPublic::from_bytes(keys.0);
        let mut signature = [7; 64];
        signature[..16].copy_from_slice(&bytes[..16]);
        let frame = match kind {
            0 => Frame::Plain { packet: &bytes },
            1 => Frame::Sealed { sender, nonce: Nonce { prefix: [1, 2, 3, 4], counter: u64::from(sender.0) << 20 }, ciphertext: &bytes },
            2 => Frame::KeyRequest { sender, agreement, trailer: &bytes },
            3 => Frame::KeyExchange(KeyExchange {
                sender,
                agreement,
                identity: PublicKey::from_bytes(keys.1),
                signature: Signature::from_bytes(signature),
                trailer: &bytes,
            }),
            _ => Frame::Punch,
        };
        let wire = emitted(|out| frame.emit(out));
        prop_assert!(!is_beacon(wire[0]));
        prop_assert_eq!(Frame::parse(&wire), Ok(frame));
        // A frame that carries a packet or a trailer of any length is cut short only below its fixed part.
        let fixed = match frame {
            Frame::Plain { .. } => 4,
            Frame::Sealed { .. } => 36,
            Frame::KeyExchange(_) => 136,
            Frame::KeyRequest { .. } => 40,
            Frame::Punch => wire.len(),
        };
        for len in 0..fixed {
            prop_assert!(is_truncated(Frame::parse(&wire[..len])), "{} of {} bytes", len, wire.len());
        }
        for len in fixed..wire.len() {
            prop_assert!(Frame::parse(&wire[..len]).is_ok());
        }
    }

    #[test]
    fn a_beacon_message_survives_emit_and_parse(message in messages()) {
        let wire = emitted(|out| message.emit(out));
        prop_assert!(is_beacon(wire[0]));
        prop_assert_eq!(Message::parse(&wire), Ok(message.clone()));
        let fixed = match message {
            Message::Discover { .. } | Message::DiscoverEx { .. } | Message::RelayDeliver { .. } => 5,
            Message::PunchRequest { .. } | Message::Relay { .. } | Message::RelayDeliverTo { .. } => 9,
            Message::DiscoverReply(_)
            | Message::PunchCommand(_)
            | Message::Sync { .. }
            | Message::Notify(_)
            | Message::Survey { .. }
            | Message::SurveyReply { .. }
            | Message::Unknown { .. }
            | Message::Challenge { .. } => wire.len(),
        };
        for len in 0..fixed {
            prop_assert!(is_truncated(Message::parse(&wire[..len])), "{} of {} bytes", len, wire.len());
        }
        for len in fixed..wire.len() {
            prop_assert!(Message::parse(&wire[..len]).is_ok(), "an optional part cut short is absent");
        }
    }

    #[test]
    fn a_sack_list_survives_emit_and_parse(edges in vec(any::<(u32, u32)>(), 1..=MAX_BLOCKS_EXTENDED), more in vec(any::<u8>(), 0..9)) {
        let mut list = SackList::EMPTY;
        for &(left, right) in &edges {
            let block = SackBlock { left: Seq(left), right: Seq(right) };
            prop_assert!(list.push(block));
        }
        let mut wire = emitted(|out| list.emit(out));
        prop_assert_eq!(wire.len(), list.wire_len());
        for len in 0..wire.len() {
            prop_assert_eq!(SackList::parse(&wire[..len], MAX_BLOCKS_EXTENDED), None);
        }
        wire.extend_from_slice(&more);
        prop_assert_eq!(SackList::parse(&wire, MAX_BLOCKS_EXTENDED), Some(list));
        prop_assert_eq!(SackList::parse(&wire, MAX_BLOCKS).is_some(), edges.len() <= MAX_BLOCKS);
    }

    #[test]
    fn data_is_a_lookalike_exactly_if_it_parses(start in prop_oneof![Just(b"SACK".to_vec()), vec(any::<u8>(), 0..6)], rest in vec(0..40_u8, 0..50)) {
        let data = [start, rest].concat();
        for max_blocks in [MAX_BLOCKS, MAX_BLOCKS_EXTENDED, usize::MAX] {
            prop_assert_eq!(is_lookalike(&data, max_blocks), SackList::parse(&data, max_blocks).is_some());
        }
    }

    #[test]
    fn an_address_survives_text_and_bytes(addr in addrs(), port in any::<u16>()) {
        let endpoint = addr.port(Port(port));
        prop_assert_eq!(addr.to_string().parse(), Ok(addr));
        prop_assert_eq!(addr.to_string().to_lowercase().parse(), Ok(addr));
        prop_assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        prop_assert_eq!(Addr::read(&mut Reader::new(&addr.to_bytes())), Ok(addr));
        let json = serde_json::to_string(&endpoint).unwrap();
        prop_assert_eq!(serde_json::from_str::<Endpoint>(&json).unwrap(), endpoint);
    }

    #[test]
    fn of_two_different_serial_numbers_one_is_later(start in any::<u32>(), distance in 1..=i32::MAX.cast_unsigned()) {
        let (early, late) = (Seq(start), Seq(start) + distance);
        prop_assert!(late.is_after(early) && early.is_before(late) && late.is_at_or_after(early));
        prop_assert!(!early.is_after(late) && !early.is_at_or_after(late));
        prop_assert_eq!((late - early, late - distance), (distance, early));
        prop_assert_eq!((early.later_of(late), late.later_of(early)), (late, late));
    }

    #[test]
    fn whatever_arrives_is_parsed_or_refused(bytes in vec(any::<u8>(), 0..200), first in any::<prop::sample::Index>()) {
        const STARTS: [&[u8]; 8] = [b"PILT", b"PILS", b"PILK", b"PILA", b"PILP", b"SACK\x03", b"\x11\x01\x00\x05", b"\x07\x00\x00\x00\x01\x00\x09"];
        for input in [bytes.clone(), [STARTS[first.index(STARTS.len())], &bytes].concat()] {
            let _ = Packet::parse(&input);
            if let Ok(packet) = Packet::parse_sealed(&input) {
                let again = emitted(|out| packet.emit(out));
                prop_assert_eq!(Packet::parse(&again), Ok(packet));
            }
            if let Ok(frame) = Frame::parse(&input) {
                let again = emitted(|out| frame.emit(out));
                prop_assert_eq!(Frame::parse(&again), Ok(frame));
            }
            if let Ok(message) = Message::parse(&input) {
                let again = emitted(|out| message.emit(out));
                prop_assert_eq!(Message::parse(&again), Ok(message));
            }
        }
    }
}

#[test]
fn a_sync_that_announces_more_nodes_than_it_brings_is_refused() {
    assert!(is_truncated(Message::parse(&[7, 0, 0, 0, 1, 0xFF, 0xFF, 0, 0, 0, 1])));
}

#[test]
fn a_full_sack_list_takes_no_more() {
    let mut list = SackList::EMPTY;
    for _ in 0..MAX_BLOCKS_EXTENDED {
        assert!(list.push(SackBlock::default()));
    }
    assert!(!list.push(SackBlock::default()));
    assert_eq!(list.blocks().len(), MAX_BLOCKS_EXTENDED);
}

#[test]
fn a_list_without_blocks_is_a_plain_acknowledgement() {
    assert!(emitted(|out| SackList::EMPTY.emit(out)).is_empty());
    assert_eq!(SackList::EMPTY.wire_len(), 0);
}

fn emitted(emit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    emit(&mut out);
    out
}

fn is_truncated<T>(result: Result<T, ParseError>) -> bool {
    matches!(result, Err(ParseError::Truncated { need, have }) if have < need)
}

fn nodes() -> impl Strategy<Value = NodeId> {
    any::<u32>().prop_map(NodeId)
}

fn addrs() -> impl Strategy<Value = Addr> {
    (any::<u16>(), nodes()).prop_map(|(network, node)| Addr { network: NetworkId(network), node })
}

fn headers() -> impl Strategy<Value = Header> {
    let protocol = prop_oneof![Just(Protocol::Stream), Just(Protocol::Datagram), Just(Protocol::Control)];
    (protocol, 0..16_u8, (addrs(), addrs()), any::<(u16, u16)>(), any::<(u32, u32, u16)>()).prop_map(
        |(protocol, flags, (src, dst), (src_port, dst_port), (seq, ack, window))| Header {
            protocol,
            flags: Flags::from_bits(flags),
            src,
            dst,
            src_port: Port(src_port),
            dst_port: Port(dst_port),
            seq: Seq(seq),
            ack: Seq(ack),
            window,
        },
    )
}

fn socket_addrs() -> impl Strategy<Value = SocketAddr> {
    any::<(IpAddr, u16)>().prop_map(|(ip, port)| SocketAddr::new(ip.to_canonical(), port))
}

fn messages() -> impl Strategy<Value = Message<'static>> {
    const FRAME: &[u8] = b"PILP and some more";
    let key = || option::of(any::<[u8; 32]>().prop_map(PublicKey::from_bytes));
    let grant = option::of((any::<u64>(), vec(any::<u8>(), 64)).prop_map(|(expiry, signature)| PunchGrant {
        expiry,
        signature: Signature::from_bytes(signature.try_into().expect("64 bytes")),
    }));
    let proof = option::of((any::<[u8; 16]>(), vec(any::<u8>(), 64)).prop_map(|(nonce, signature)| {
        DiscoverProof { nonce, signature: Signature::from_bytes(signature.try_into().expect("64 bytes")) }
    }));
    prop_oneof![
        (nodes(), key(), proof).prop_map(|(node, key, proof)| Message::Discover {
            node,
            key,
            proof: proof.filter(|_| key.is_some())
        }),
        socket_addrs().prop_map(Message::DiscoverReply),
        (nodes(), nodes(), grant).prop_map(|(requester, target, grant)| Message::PunchRequest {
            requester,
            target,
            grant
        }),
        socket_addrs().prop_map(Message::PunchCommand),
        (nodes(), nodes(), 0..FRAME.len()).prop_map(|(source, destination, len)| Message::Relay {
            source,
            destination,
            frame: &FRAME[..len]
        }),
        (nodes(), 0..FRAME.len())
            .prop_map(|(source, len)| Message::RelayDeliver { source, frame: &FRAME[..len] }),
        (any::<u32>(), vec(nodes(), 0..20)).prop_map(|(beacon, nodes)| Message::Sync { beacon, nodes }),
        (nodes(), key()).prop_map(|(node, key)| Message::DiscoverEx { node, key }),
        (nodes(), nodes()).prop_map(|(source, destination)| Message::RelayDeliverTo {
            source,
            destination,
            frame: FRAME
        }),
        (2..=255_u8).prop_map(|kind| Message::Notify(NotifyKind::Other(kind))),
        Just(Message::Notify(NotifyKind::Handshake)),
        (any::<u64>(), 0..3_u8).prop_map(|(token, from)| Message::Survey {
            token,
            from: match from {
                0 => ReplyFrom::Here,
                1 => ReplyFrom::OtherPort,
                _ => ReplyFrom::OtherAddress,
            }
        }),
        (any::<u64>(), socket_addrs(), option::of(1..=u16::MAX), option::of(socket_addrs())).prop_map(
            |(token, observed, second_port, second_addr)| Message::SurveyReply {
                token,
                observed,
                second_port,
                second_addr
            }
        ),
        nodes().prop_map(|node| Message::Unknown { node }),
        any::<[u8; 16]>().prop_map(|nonce| Message::Challenge { nonce }),
    ]
}

const _: () = assert!(HEADER_LEN == 34, "the header length is part of the protocol");
