//! What only our nodes say to each other does no harm to the reference.

use bytes::Bytes;
use pilot_interop::Pair;
use pilot_wire::dataexchange::{
    Answer, Content, Control, Decoder, Delivery, Extension, Frame, FrameType, RequestTag, Tag,
};

/// Frames written to the data exchange of the reference, and what it answers.
fn answers(pair: &Pair, frames: &[Frame]) -> Vec<Answer> {
    let [(ours, theirs), _] = pair.directions();
    let mut bytes = Vec::new();
    for frame in frames {
        frame.emit(&mut bytes);
    }
    let data = ours.start_ctl_with_input(&["connect", &theirs.address(), "1001"], &bytes).data();
    let response = data["response"].as_str().unwrap_or_else(|| panic!("no text: {data}"));
    let mut decoder = Decoder::new(1 << 20);
    decoder.feed(response.as_bytes());
    let frames = std::iter::from_fn(|| decoder.next_frame().expect("an answer is a frame"));
    frames.map(|frame| Answer::parse(&frame).expect("an answer")).collect()
}

#[test]
fn the_extension_of_a_tag_is_ignored_and_the_message_stored() {
    let pair = Pair::trusting();
    let extension = Extension {
        receipts: true,
        ttl_ms: Some(60_000),
        hops: 2,
        request: Some(RequestTag { deadline_ms: 5000, key: "k-1".parse().ok(), parts: true }),
        ..Extension::default()
    };
    let tag = Tag { message_id: "m-1".parse().ok(), reply_to: None, pilot: Some(Box::new(extension)) };
    let content = Content::Text(Bytes::from_static(b"asked"));
    let frame = Frame::Delivery(Delivery { tag: Some(tag), sent_at_ns: None, content });
    let answered = answers(&pair, &[frame]);
    assert_eq!(answered, [Answer::Stored { kind: FrameType::TEXT, bytes: 5, duplicate: false }]);
    let [_, (theirs, _)] = pair.directions();
    let inbox = theirs.inbox();
    assert_eq!(
        (inbox.len(), &inbox[0]["data"], &inbox[0]["message_id"]),
        (1, &"asked".into(), &"m-1".into())
    );
}

#[test]
fn a_control_frame_is_refused_by_its_number_and_nothing_is_stored() {
    let pair = Pair::trusting();
    let control = Control::Cancel { id: "m-1".parse().expect("an id") };
    let text = Content::Text(Bytes::from_static(b"after it"));
    let message = Frame::Delivery(Delivery { tag: None, sent_at_ns: None, content: text });
    let answered = answers(&pair, &[Frame::Control(control, Bytes::from_static(b"body")), message]);
    let [refused, stored] = &answered[..] else { panic!("{answered:?}") };
    assert!(refused.is_unsupported(FrameType::CONTROL), "{refused:?}");
    assert_eq!(*stored, Answer::Stored { kind: FrameType::TEXT, bytes: 8, duplicate: false });
    let [_, (theirs, _)] = pair.directions();
    assert_eq!(theirs.inbox().len(), 1);
}
