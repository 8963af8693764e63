//! What peers say over streams, and beacons over the web.

use bytes::Bytes;
use pilot_wire::dataexchange::{
    Answer, Control, Decoder, FileStream, Frame, FrameType, Held, Manifest, RawFrame,
};
use pilot_wire::events::{self, NoteToken, Pattern};
use pilot_wire::handshake::Message;
use pilot_wire::tasks::frame::{Answer as TaskAnswer, Word};
use pilot_wire::web::Greeting;

/// Messages, files and control frames in any segmentation, and answers to them.
pub fn dataexchange(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let mut decoder = Decoder::new(1 << 20);
    for piece in bytes.chunks(usize::from(step).max(1)) {
        decoder.feed(piece);
        loop {
            let raw = match decoder.next_frame() {
                Ok(Some(raw)) => raw,
                Ok(None) => break,
                Err(_) => return,
            };
            if let Ok(answer) = Answer::parse(&raw) {
                let _ = answer.text();
            }
            control(&raw);
            file_stream(&raw);
            if let Ok(frame) = Frame::parse(raw) {
                let mut out = Vec::new();
                frame.emit(&mut out);
                assert_eq!(Frame::parse(only_frame(&out)).as_ref(), Ok(&frame));
            }
        }
    }
}

fn control(raw: &RawFrame) {
    if raw.kind == FrameType::CONTROL
        && let Ok((control, body)) = Control::parse(raw.payload.clone())
    {
        let mut out = Vec::new();
        control.emit(&body, &mut out);
        let again = Control::parse(only_frame(&out).payload);
        assert_eq!(again, Ok((control, body)));
    }
}

fn file_stream(raw: &RawFrame) {
    if raw.kind == FrameType::FILESTREAM
        && let Ok(word) = FileStream::parse(raw.payload.clone())
    {
        let mut out = Vec::new();
        word.emit(&mut out);
        assert_eq!(FileStream::parse(only_frame(&out).payload).as_ref(), Ok(&word));
    }
}

fn only_frame(bytes: &[u8]) -> RawFrame {
    let mut decoder = Decoder::new(usize::MAX);
    decoder.feed(bytes);
    let frame = decoder.next_frame().expect("within the limit").expect("whole");
    assert!(decoder.is_empty(), "one frame became several");
    frame
}

/// The list of a folder that a peer sends: nothing in it leads out of the folder.
pub fn folder(bytes: &[u8]) {
    let Ok(manifest) = Manifest::parse(bytes) else { return };
    for path in manifest.files().iter().map(|file| &file.path).chain(manifest.folders()) {
        for part in path.parts() {
            assert!(!["", ".", ".."].contains(&part), "{path:?}");
            assert!(!part.contains(['/', '\\', '\0']), "{path:?}");
        }
        assert!(!std::path::Path::new(path.as_str()).is_absolute(), "{path:?}");
    }
    let mut held = Held::parse(bytes);
    for (index, (_, size)) in manifest.contents().iter().enumerate() {
        assert!(*size <= manifest.bytes());
        held.insert(index);
        assert!(held.has(index));
    }
    assert_eq!(Manifest::parse(&manifest.to_json()).as_ref(), Ok(&manifest));
}

/// Words about tasks. The first byte is the type of the frame.
pub fn tasks(bytes: &[u8]) {
    let Some((&kind, json)) = bytes.split_first() else { return };
    let raw = RawFrame { kind: FrameType(u32::from(kind)), payload: Bytes::copy_from_slice(json) };
    if let Ok(word) = Word::parse(&raw) {
        let mut out = Vec::new();
        word.emit(&mut out);
        assert_eq!(Word::parse(&only_frame(&out)).expect("what was read can be read again"), word);
    }
    if let Ok(answer) = TaskAnswer::parse(&raw) {
        let mut out = Vec::new();
        answer.emit(raw.kind, &mut out);
        assert_eq!(TaskAnswer::parse(&only_frame(&out)).expect("what was read can be read again"), answer);
    }
}

/// Events in any segmentation, topic patterns, and what brokers and subscribers say beside them.
pub fn events(bytes: &[u8]) {
    let Some((&step, bytes)) = bytes.split_first() else { return };
    let mut decoder = events::Decoder::new();
    let (mut pattern, mut token) = (None, None);
    for piece in bytes.chunks(usize::from(step).max(1)) {
        decoder.feed(piece);
        loop {
            let event = match decoder.next_event() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(_) => return,
            };
            let mut out = Vec::new();
            event.emit(&mut out);
            assert_eq!(out.len(), event.wire_len());
            let mut again = events::Decoder::new();
            again.feed(&out);
            assert_eq!(again.next_event().expect("it was an event").as_ref(), Some(&event));
            let pattern = pattern.get_or_insert_with(|| Pattern::new(event.topic.clone()));
            let _ = pattern.matches(&event.topic);
            beside(&event, &mut token);
        }
    }
}

fn beside(event: &events::Event, token: &mut Option<NoteToken>) {
    if let Some((asked, wishes)) = NoteToken::asked(&event.payload) {
        let subscription = asked.subscription_with(event.topic.clone(), &wishes);
        if let Ok(subscription) = subscription {
            assert_eq!(NoteToken::asked(&subscription.payload), Some((asked.clone(), wishes)));
        }
        *token = Some(asked);
    }
    let Some(token) = token else { return };
    // As if it came under the token that was given.
    let event = events::Event { topic: token.topic(), payload: event.payload.clone() };
    if let Some(note) = token.read(&event) {
        assert_eq!(token.read(&token.note(&note)), Some(note));
    }
    if let Some(ask) = token.read_ask(&event) {
        assert_eq!(token.read_ask(&token.ask(&ask)), Some(ask));
    }
}

/// Trust messages between nodes.
pub fn handshake(bytes: &[u8]) {
    let complete = Message::is_complete(bytes);
    if let Ok(message) = Message::parse(bytes) {
        assert!(complete, "a message that can be read is complete");
        let mut out = Vec::new();
        message.emit(&mut out);
        assert_eq!(Message::parse(&out).as_ref(), Ok(&message));
    }
}

/// What node and beacon say to each other over the web before the frames.
pub fn web(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Ok(greeting) = Greeting::parse(text) {
        assert_eq!(Greeting::parse(&greeting.to_text()).expect("what was read can be read again"), greeting);
    }
}
