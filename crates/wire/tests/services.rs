//! Data-exchange, event and handshake formats against captures of running 1.18.0 and February 2026 daemons.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use bytes::Bytes;
use pilot_wire::dataexchange::{
    Answer, Content, DEFAULT_MAX_FRAME, Decoder, Delivery, FileStream, Frame, FrameError, FrameType, Init,
    MessageId, NamedFile, RawFrame, Tag, TransferId,
};
use pilot_wire::{events, handshake};
use proptest::prelude::*;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/services.json")).unwrap()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Every whole byte string in the batteries of one version: what was sent and what came back.
/// (Long ones are abbreviated in the file and are skipped.)
fn captured(service: &str, version: &str) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let vectors = vectors();
    let battery = vectors["echo_1001_1002_1003_batteries"][version].as_array().unwrap();
    let mut found = Vec::new();
    for case in battery.iter().filter(|case| case["service"] == service) {
        let Some(name) = case["case"].as_str() else { continue };
        let mut sent = Vec::new();
        for text in texts(&case["sent_hex"]) {
            let Ok(bytes) = hex::decode(text) else { continue };
            sent.extend(bytes);
        }
        let mut received = Vec::new();
        for reply in case["reply"].as_array().into_iter().flatten() {
            received.extend(hex::decode(reply["hex"].as_str().unwrap_or_default()).unwrap());
        }
        found.push((name.to_owned(), sent, received));
    }
    assert!(!found.is_empty());
    found
}

fn frames(bytes: &[u8]) -> Vec<RawFrame> {
    let mut decoder = Decoder::new(DEFAULT_MAX_FRAME);
    decoder.feed(bytes);
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = decoder.next_frame() {
        frames.push(frame);
    }
    frames
}

fn emitted(frame: &Frame) -> Vec<u8> {
    let mut out = Vec::new();
    frame.emit(&mut out);
    out
}

#[test]
fn captured_frames_survive_parsing_and_emitting() {
    let mut checked = 0;
    for (name, sent, _) in captured("dataexchange/1001", "v1.18.0") {
        for raw in frames(&sent) {
            let mut bytes = Vec::new();
            raw.emit(&mut bytes);
            match Frame::parse(raw) {
                // The tag's unknown keys are dropped on purpose.
                Ok(frame) if name != "tagged unknown header keys" => {
                    assert_eq!(emitted(&frame), bytes, "{name}");
                    checked += 1;
                }
                Ok(_) => {}
                Err(error) => assert!(
                    name.contains("bad id") || name.contains("nested") || name.contains("too short"),
                    "{name}: {error}"
                ),
            }
        }
    }
    assert!(checked > 20, "{checked}");
}

#[test]
fn captured_answers_survive_parsing_and_emitting() {
    let mut checked = 0;
    for (name, _, received) in captured("dataexchange/1001", "v1.18.0") {
        for raw in frames(&received) {
            let mut bytes = Vec::new();
            raw.emit(&mut bytes);
            let mut again = Vec::new();
            if raw.kind == FrameType::FILESTREAM {
                Frame::parse(raw).unwrap().emit(&mut again);
            } else {
                Answer::parse(&raw).unwrap().emit(&mut again);
            }
            assert_eq!(again, bytes, "{name}");
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked}");
}

#[test]
fn answers_of_older_receivers_are_read() {
    for (name, _, received) in captured("dataexchange/1001", "feb2026") {
        for raw in frames(&received) {
            let answer = Answer::parse(&raw).unwrap();
            assert_eq!(answer.is_unsupported(FrameType::TAGGED), name.starts_with("tagged"), "{name}");
        }
    }
}

#[test]
fn frames_mean_what_the_specification_says() {
    let parse = |text: &str| Frame::parse(frames(&hex::decode(text).unwrap()).remove(0));
    let tag = |id: &str| Some(Tag { message_id: Some(id.parse().unwrap()), ..Tag::default() });
    assert_eq!(
        parse("0000000a0000001f00147b226d6573736167655f6964223a226d2d31227d0000000168656c6c6f"),
        Ok(Frame::Delivery(Delivery {
            tag: tag("m-1"),
            sent_at_ns: None,
            content: Content::Text(Bytes::from_static(b"hello"))
        }))
    );
    assert_eq!(
        parse("00000005000000120000000100000000499602d2747261636564"),
        Ok(Frame::Delivery(Delivery {
            tag: None,
            sent_at_ns: Some(1_234_567_890),
            content: Content::Text(Bytes::from_static(b"traced"))
        }))
    );
    assert_eq!(
        parse("0000000a0000002500147b226d6573736167655f6964223a226d2d34227d000000040005622e74787444415441"),
        Ok(Frame::Delivery(Delivery {
            tag: tag("m-4"),
            sent_at_ns: None,
            content: Content::File(NamedFile {
                name: Bytes::from_static(b"b.txt"),
                data: Bytes::from_static(b"DATA")
            })
        }))
    );
    assert_eq!(parse("0000000500000003616263"), Err(FrameError::TraceTooShort(3)));
    assert_eq!(
        parse("0000000a0000001b00147b226d6573736167655f6964223a226d2d33227d0000000a78"),
        Err(FrameError::TaggedNested)
    );
    assert!(matches!(
        parse("0000000a0000001f00187b226d6573736167655f6964223a2262616420696421227d0000000178"),
        Err(FrameError::TagMalformed(_))
    ));
}

#[test]
fn a_truncated_file_transfer_step_is_refused() {
    let steps = [
        FileStream::Init(Init {
            id: TransferId([7; 16]),
            size: 4,
            sha256: [1; 32],
            chunk: 49152,
            name: Bytes::from_static(b"r.bin"),
        }),
        FileStream::Ack { id: TransferId([7; 16]), offset: 2 },
        FileStream::InitAck { id: TransferId([7; 16]), offset: 2 },
        FileStream::Done(TransferId([7; 16])),
    ];
    for step in steps {
        let mut frame = Vec::new();
        step.emit(&mut frame);
        let payload = Bytes::from(frame).slice(8..);
        assert_eq!(FileStream::parse(payload.clone()), Ok(step));
        for cut in 0..payload.len() {
            assert!(FileStream::parse(payload.slice(..cut)).is_err(), "at {cut}");
        }
    }
}

#[test]
fn captured_events_are_read_and_written() {
    let vectors = vectors();
    let mut checked = 0;
    for case in vectors["echo_1001_1002_1003_batteries"]["v1.18.0"].as_array().unwrap() {
        let (Some(topic), Some(text)) = (case["published_topic"].as_str(), case["published_hex"].as_str())
        else {
            continue;
        };
        let wire = hex::decode(text).unwrap();
        let mut decoder = events::Decoder::new();
        decoder.feed(&wire);
        let event = decoder.next_event().unwrap().unwrap();
        assert_eq!(event.topic, topic);
        assert!(decoder.is_empty());
        let mut out = Vec::new();
        event.emit(&mut out);
        assert_eq!(out, wire);
        for cut in 0..wire.len() {
            let mut decoder = events::Decoder::new();
            decoder.feed(&wire[..cut]);
            assert_eq!(decoder.next_event(), Ok(None), "{topic} at {cut}");
        }
        checked += 1;
    }
    assert_eq!(checked, 7);
}

#[test]
fn captured_handshake_messages_are_read_and_written() {
    let vectors = vectors();
    let messages = vectors["handshake_444"]["messages_feb"].as_array().unwrap();
    assert_eq!(messages.len(), 4);
    for captured in messages {
        let wire = captured["stream_bytes_text"].as_str().unwrap();
        let message = handshake::Message::parse(wire.as_bytes()).unwrap();
        let mut out = Vec::new();
        message.emit(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), wire);
        let receiver = if message.node_id.0 == 1 { 2 } else { 1 };
        assert_eq!(
            handshake::signed_text(message.node_id, pilot_wire::NodeId(receiver)),
            captured["signed_string"]
        );
        assert!(handshake::Message::is_complete(wire.as_bytes()));
        for cut in 0..wire.len() {
            assert!(handshake::Message::parse(&wire.as_bytes()[..cut]).is_err(), "at {cut}");
            assert!(!handshake::Message::is_complete(&wire.as_bytes()[..cut]), "at {cut}");
        }
    }
}

#[test]
fn handshake_messages_that_are_none_are_refused() {
    for bad in ["{}", "[]", "null", r#"{"type":"handshake_request","node_id":-1}"#] {
        assert!(handshake::Message::parse(bad.as_bytes()).is_err(), "{bad}");
        assert!(handshake::Message::is_complete(bad.as_bytes()), "{bad}");
    }
    assert!(handshake::Message::is_complete(b"}"));
    assert!(handshake::Message::parse(&vec![b' '; handshake::MAX_LEN + 1]).is_err());
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn message_id() -> impl Strategy<Value = MessageId> {
    "[A-Za-z0-9._:-]{1,128}".prop_map(|text| text.parse().unwrap())
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        bytes().prop_map(Content::Text),
        bytes().prop_map(Content::Binary),
        bytes().prop_map(Content::Json),
        (bytes(), bytes()).prop_map(|(name, data)| Content::File(NamedFile { name, data })),
        (11..u32::MAX, bytes())
            .prop_map(|(kind, payload)| Content::Unsupported { kind: FrameType(kind), payload }),
    ]
}

fn transfer_step() -> impl Strategy<Value = FileStream> {
    let id = any::<[u8; 16]>().prop_map(TransferId);
    let init = (any::<u64>(), any::<[u8; 32]>(), any::<u32>(), bytes());
    (id, any::<u64>(), bytes(), ".{0,40}", init, 0..7u8).prop_map(
        |(id, offset, data, message, (size, sha256, chunk, name), kind)| match kind {
            0 => FileStream::Init(Init { id, size, sha256, chunk, name }),
            1 => FileStream::Chunk { id, offset, data },
            2 => FileStream::Ack { id, offset },
            3 => FileStream::Done(id),
            4 => FileStream::InitAck { id, offset },
            5 => FileStream::Complete { id, outcome: if offset % 2 == 0 { Ok(()) } else { Err(message) } },
            _ => FileStream::Abort { id, message },
        },
    )
}

fn frame() -> impl Strategy<Value = Frame> {
    let tag = (prop::option::of(message_id()), prop::option::of(message_id()))
        .prop_map(|(message_id, reply_to)| Tag { message_id, reply_to, pilot: None });
    let delivery = (prop::option::of(tag), prop::option::of(any::<u64>()), content())
        .prop_map(|(tag, sent_at_ns, content)| Frame::Delivery(Delivery { tag, sent_at_ns, content }));
    prop_oneof![delivery, transfer_step().prop_map(Frame::FileStream)]
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed_back(frame in frame(), split in any::<prop::sample::Index>()) {
        let wire = emitted(&frame);
        let at = split.index(wire.len() + 1);
        let mut decoder = Decoder::new(DEFAULT_MAX_FRAME);
        decoder.feed(&wire[..at]);
        if at < wire.len() {
            prop_assert_eq!(decoder.next_frame(), Ok(None));
            decoder.feed(&wire[at..]);
        }
        let raw = decoder.next_frame().unwrap().unwrap();
        prop_assert!(decoder.is_empty());
        prop_assert_eq!(Frame::parse(raw).unwrap(), frame);
    }

    #[test]
    fn any_bytes_give_frames_that_can_be_emitted(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for mut raw in frames(&bytes) {
            raw.kind = FrameType(raw.kind.0 % 12);
            if let Ok(frame) = Frame::parse(raw) {
                let wire = emitted(&frame);
                let again = frames(&wire);
                prop_assert_eq!(again.len(), 1);
            }
        }
    }

    #[test]
    fn answers_survive(kind in 0..12u32, number in any::<u64>(), duplicate in any::<bool>(), reason in ".{0,80}") {
        for answer in [
            Answer::Stored { kind: FrameType(kind), bytes: number, duplicate },
            Answer::Failed { kind: FrameType(kind), reason },
        ] {
            prop_assert_eq!(Answer::parse(&answer.to_frame()), Ok(answer));
        }
    }

    #[test]
    fn events_survive(topic in "\\PC{0,200}", payload in prop::collection::vec(any::<u8>(), 0..300), step in 1..50usize) {
        let event = events::Event::new(topic, payload).unwrap();
        let mut wire = Vec::new();
        event.emit(&mut wire);
        let mut decoder = events::Decoder::new();
        let mut seen = Vec::new();
        for piece in wire.chunks(step) {
            decoder.feed(piece);
            seen.extend(decoder.next_event().unwrap());
        }
        prop_assert_eq!(seen, vec![event]);
    }

    #[test]
    fn any_bytes_are_an_event_an_error_or_a_beginning(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = events::Decoder::new();
        decoder.feed(&bytes);
        while let Ok(Some(_)) = decoder.next_event() {}
    }

    #[test]
    fn a_literal_pattern_matches_its_topic_only(topic in "[a-z./]{0,12}", other in "[a-z./]{0,12}") {
        let pattern = events::Pattern::new(topic.clone());
        prop_assert!(pattern.matches(&topic));
        prop_assert_eq!(pattern.matches(&other), topic == other);
    }

    #[test]
    fn any_pattern_can_be_asked_about_any_topic(pattern in "[a*./#>é]{0,20}", topic in "[a*./#>é]{0,20}") {
        let _ = events::Pattern::new(pattern).matches(&topic);
    }
}
