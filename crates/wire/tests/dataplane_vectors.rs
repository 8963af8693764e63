//! The data plane formats against vectors that were recorded from running nodes of other implementations.

use pilot_wire::{
    Addr, AgreementPublic, Endpoint, NodeId, ParseError, Port, PublicKey, Seq, Signature,
    beacon::{Message, PunchGrant},
    packet::Packet,
    sack::{MAX_BLOCKS, SackBlock, SackList, is_lookalike},
    tunnel::Frame,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

fn vectors<T: DeserializeOwned>(section: &str) -> T {
    let mut all: Value =
        serde_json::from_str(include_str!("vectors/dataplane.json")).expect("the vectors are JSON");
    serde_json::from_value(all[section].take()).unwrap_or_else(|error| panic!("{section}: {error}"))
}

#[derive(Deserialize)]
struct Named {
    name: String,
    #[serde(with = "hex::serde")]
    wire: Vec<u8>,
}

#[derive(Deserialize)]
struct AddrVector {
    text: String,
    ok: bool,
    canonical: Option<String>,
    bytes: Option<String>,
    network: Option<u16>,
    node: Option<u32>,
    port: Option<u16>,
}

#[test]
fn addresses_parse_as_in_the_reference() {
    for vector in vectors::<Vec<AddrVector>>("addr_parse") {
        let parsed = vector.text.parse::<Addr>();
        assert_eq!(parsed.is_ok(), vector.ok, "{:?}: {parsed:?}", vector.text);
        let Ok(addr) = parsed else { continue };
        assert_eq!(Some(addr.to_string()), vector.canonical);
        assert_eq!(Some(hex::encode(addr.to_bytes())), vector.bytes);
        assert_eq!((Some(addr.network.0), Some(addr.node.0)), (vector.network, vector.node));
    }
}

#[test]
fn endpoints_parse_as_in_the_reference() {
    for vector in vectors::<Vec<AddrVector>>("socketaddr_parse") {
        let parsed = vector.text.parse::<Endpoint>();
        assert_eq!(parsed.is_ok(), vector.ok, "{:?}: {parsed:?}", vector.text);
        let Ok(endpoint) = parsed else { continue };
        assert_eq!(Some(endpoint.to_string()), vector.canonical);
        assert_eq!(Some(hex::encode(endpoint.addr.to_bytes())), vector.bytes);
        assert_eq!(Some(endpoint.port.0), vector.port);
    }
}

#[derive(Deserialize)]
struct PacketVector {
    name: String,
    version: u8,
    flags: u8,
    protocol: u8,
    src: String,
    dst: String,
    src_port: u16,
    dst_port: u16,
    seq: u32,
    ack: u32,
    window: u16,
    #[serde(with = "hex::serde")]
    payload: Vec<u8>,
    #[serde(with = "hex::serde")]
    wire: Vec<u8>,
}

#[test]
fn packets_are_read_and_written_as_by_the_reference() {
    for vector in vectors::<Vec<PacketVector>>("packets") {
        if vector.version != 1 {
            assert_eq!(Packet::parse(&vector.wire), Err(ParseError::Version(vector.version)));
            continue;
        }
        let packet = Packet::parse(&vector.wire).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
        let header = packet.header;
        assert_eq!(header.protocol.number(), vector.protocol);
        assert_eq!(header.flags.bits(), vector.flags);
        assert_eq!(hex::encode(header.src.to_bytes()), vector.src);
        assert_eq!(hex::encode(header.dst.to_bytes()), vector.dst);
        assert_eq!((header.src_port, header.dst_port), (Port(vector.src_port), Port(vector.dst_port)));
        assert_eq!((header.seq, header.ack), (Seq(vector.seq), Seq(vector.ack)));
        assert_eq!(header.window, vector.window);
        assert_eq!(packet.payload, vector.payload);

        let mut whole = Vec::new();
        packet.emit(&mut whole);
        assert_eq!(hex::encode(whole), hex::encode(&vector.wire), "{}", vector.name);

        let mut gathered = b"headroom".to_vec();
        let (first, second) = vector.payload.split_at(vector.payload.len() / 2);
        header.emit_with(&[first, second], &mut gathered);
        assert_eq!(gathered[8..], vector.wire, "{}", vector.name);

        let mut followed = vector.wire.clone();
        followed.extend_from_slice(b"what comes after the payload does not count");
        assert_eq!(Packet::parse(&followed), Ok(packet));
        assert_eq!(Packet::parse_sealed(&followed), Ok(packet));
    }
}

#[test]
fn serial_numbers_compare_as_in_the_reference() {
    #[derive(Deserialize)]
    struct Vector {
        a: u32,
        b: u32,
        a_after_b: bool,
        a_after_or_eq_b: bool,
    }
    for Vector { a, b, a_after_b, a_after_or_eq_b } in vectors::<Vec<Vector>>("serial") {
        assert_eq!(Seq(a).is_after(Seq(b)), a_after_b, "{a} after {b}");
        assert_eq!(Seq(a).is_at_or_after(Seq(b)), a_after_or_eq_b, "{a} at or after {b}");
    }
}

#[test]
fn sack_lists_are_recognised_as_by_the_reference() {
    #[derive(Deserialize)]
    struct Vector {
        #[serde(with = "hex::serde")]
        wire: Vec<u8>,
        decoded: Option<Vec<(u32, u32)>>,
        is_sack: Option<bool>,
        blocks: Option<usize>,
    }
    for vector in vectors::<Vec<Vector>>("sack") {
        let list = SackList::parse(&vector.wire, MAX_BLOCKS);
        assert_eq!(is_lookalike(&vector.wire, MAX_BLOCKS), list.is_some());
        if let Some(is_sack) = vector.is_sack {
            assert_eq!(list.is_some(), is_sack, "{:02x?}", vector.wire);
            assert_eq!(list.map_or(0, |list| list.blocks().len()), vector.blocks.unwrap());
        }
        if let Some(decoded) = vector.decoded {
            let list = list.unwrap();
            assert_eq!(list.blocks(), blocks(&decoded));
            let mut out = Vec::new();
            list.emit(&mut out);
            assert_eq!((out.len(), &out), (list.wire_len(), &vector.wire));
        }
    }
}

#[test]
fn a_sack_list_of_several_blocks_has_the_bytes_of_the_reference() {
    #[derive(Deserialize)]
    struct Vector {
        blocks: Vec<(u32, u32)>,
        #[serde(with = "hex::serde")]
        wire: Vec<u8>,
    }
    let vector: Vector = vectors("sack_blocks_from_ooo");
    assert_eq!(SackList::parse(&vector.wire, MAX_BLOCKS).unwrap().blocks(), blocks(&vector.blocks));
}

#[test]
fn data_that_the_reference_swallows_is_known_as_a_lookalike() {
    #[derive(Deserialize)]
    struct Vector {
        #[serde(with = "hex::serde")]
        sack_lookalike_payload: Vec<u8>,
    }
    let Vector { sack_lookalike_payload: data } = vectors("behaviour");
    assert!(is_lookalike(&data, MAX_BLOCKS));
    assert!(!is_lookalike(&data[1..], MAX_BLOCKS), "cut one byte later it is ordinary data");
}

#[test]
fn key_exchange_frames_have_the_bytes_and_the_signed_text_of_the_reference() {
    #[derive(Deserialize)]
    struct Vector {
        #[serde(flatten)]
        frame: Named,
        signed: Option<String>,
    }
    for vector in vectors::<Vec<Vector>>("frames_keyexchange") {
        let frame = assert_frame_survives(&vector.frame);
        if let (Frame::KeyExchange(exchange), Some(signed)) = (frame, vector.signed) {
            assert_eq!(hex::encode(exchange.signed_bytes()), signed);
            assert!(exchange.trailer.is_empty());
        }
    }
}

#[test]
fn plain_and_sealed_frames_have_the_layout_of_the_reference() {
    #[derive(Deserialize)]
    struct Sealed {
        #[serde(flatten)]
        frame: Named,
        nonce_prefix: String,
        counter: u64,
        #[serde(with = "hex::serde")]
        plain: Vec<u8>,
    }
    for frame in vectors::<Vec<Named>>("frames_plain") {
        assert!(
            matches!(assert_frame_survives(&frame), Frame::Plain { packet } if packet == &frame.wire[4..])
        );
    }
    for vector in vectors::<Vec<Sealed>>("frames_secure") {
        let Frame::Sealed { nonce, ciphertext, .. } = assert_frame_survives(&vector.frame) else {
            panic!("{} is not sealed", vector.frame.name);
        };
        assert_eq!((hex::encode(nonce.prefix), nonce.counter), (vector.nonce_prefix, vector.counter));
        assert_eq!(ciphertext.len(), vector.plain.len() + pilot_wire::tunnel::TAG_LEN);
    }
}

#[test]
fn beacon_messages_have_the_bytes_of_the_reference() {
    for vector in vectors::<Vec<Named>>("beacon") {
        assert_message_survives(&vector.wire, &vector.name);
    }
}

#[test]
fn beacon_messages_with_optional_parts_are_understood() {
    #[derive(Deserialize)]
    struct Discover {
        node: u32,
        #[serde(with = "hex::serde")]
        wire: Vec<u8>,
    }
    #[derive(Deserialize)]
    struct Punch {
        requester: u32,
        target: u32,
        expiry: u64,
        signed: String,
        #[serde(with = "hex::serde")]
        wire: Vec<u8>,
    }
    for vector in vectors::<Vec<Discover>>("discover_with_pubkey") {
        let key = PublicKey::from_bytes(vector.wire[5..].try_into().unwrap());
        let message = assert_message_survives(&vector.wire, "discover with key");
        assert_eq!(message, Message::Discover { node: NodeId(vector.node), key: Some(key), proof: None });
    }
    for vector in vectors::<Vec<Punch>>("punch_grant") {
        let (requester, target) = (NodeId(vector.requester), NodeId(vector.target));
        let signature = Signature::from_bytes(vector.wire[17..].try_into().unwrap());
        let grant = Some(PunchGrant { expiry: vector.expiry, signature });
        let message = assert_message_survives(&vector.wire, "punch request with grant");
        assert_eq!(message, Message::PunchRequest { requester, target, grant });
        assert_eq!(PunchGrant::signed_text(requester, target, vector.expiry), vector.signed);
    }
}

#[test]
fn keys_have_one_text_each() {
    let key = PublicKey::from_bytes([0xFB; 32]);
    let text = key.to_string();
    assert_eq!(text.parse(), Ok(key));
    assert_eq!(serde_json::to_string(&key).unwrap(), format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<PublicKey>(&format!("\"{text}\"")).unwrap(), key);
    assert_eq!(key.fingerprint(), "fbfb-fbfb-fbfb-fbfb-fbfb");

    let unpadded = text.trim_end_matches('=');
    let other_trailing_bits = text.replace("s=", "t=");
    assert_ne!(other_trailing_bits, text);
    for wrong in [unpadded, &other_trailing_bits, &text.replace('+', "-"), &format!("{text}\n"), ""] {
        assert!(wrong.parse::<PublicKey>().is_err(), "{wrong:?}");
    }
    assert!(text.parse::<Signature>().is_err(), "too short for a signature");
    assert!(text.parse::<AgreementPublic>().is_ok());
}

#[test]
fn an_ipv4_address_in_ipv6_clothing_is_the_ipv4_address() {
    let mapped = hex::decode("021000000000000000000000ffffcb0071079c40").unwrap();
    let plain = Message::parse(&mapped).unwrap();
    assert_eq!(plain, Message::DiscoverReply("203.0.113.7:40000".parse().unwrap()));
    let mut out = Vec::new();
    plain.emit(&mut out);
    assert_eq!(hex::encode(out), "0204cb0071079c40");
}

fn blocks(pairs: &[(u32, u32)]) -> Vec<SackBlock> {
    pairs.iter().map(|&(left, right)| SackBlock { left: Seq(left), right: Seq(right) }).collect()
}

fn assert_frame_survives(vector: &Named) -> Frame<'_> {
    let frame = Frame::parse(&vector.wire).unwrap_or_else(|error| panic!("{}: {error}", vector.name));
    let mut out = Vec::new();
    frame.emit(&mut out);
    assert_eq!(hex::encode(out), hex::encode(&vector.wire), "{}", vector.name);
    frame
}

fn assert_message_survives<'a>(wire: &'a [u8], name: &str) -> Message<'a> {
    let message = Message::parse(wire).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut out = Vec::new();
    message.emit(&mut out);
    assert_eq!(hex::encode(out), hex::encode(wire), "{name}");
    message
}
