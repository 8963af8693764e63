//! Messages between our node and the reference's, in both directions and of every type.

use pilot_interop::{Node, Pair, until};
use serde_json::Value;

/// The message whose id was given by the sender, as it lies in the receiver's inbox.
fn stored(receiver: &Node, sent: &Value) -> Value {
    let id = sent["message_id"].as_str().unwrap_or_else(|| panic!("no id in {sent}"));
    let inbox = receiver.inbox();
    let found = inbox.iter().find(|message| message["message_id"] == id);
    found.unwrap_or_else(|| panic!("{id} is not in {inbox:?}")).clone()
}

#[test]
fn text_and_json_arrive_as_they_were_sent() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        for (kind, data) in
            [("text", "process this: äöü ✓"), ("json", r#"{"status":"complete","n":[1,2,3]}"#)]
        {
            let sent = from.ctl(&["send-message", &to.address(), "--data", data, "--type", kind]);
            // The acknowledgement comes after the message was stored, so there is nothing to wait for.
            let message = stored(to, &sent);
            assert_eq!(message["data"], data, "{message}");
            assert_eq!(message["from"].as_str(), Some(from.address().as_str()), "{message}");
            assert_eq!(message["type"].as_str().map(str::to_lowercase).as_deref(), Some(kind), "{message}");
        }
    }
    pair.assert_sealed();
}

#[test]
fn binary_arrives_byte_for_byte() {
    let pair = Pair::trusting();
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let file = pair.stage.folder().join("bytes.bin");
    std::fs::write(&file, &bytes).expect("a file can be written");
    for (from, to) in pair.directions() {
        let path = file.to_string_lossy();
        let sent = from.ctl(&["send-message", &to.address(), "--type", "binary", "--data-file", &path]);
        let message = stored(to, &sent);
        assert_eq!(message["data_encoding"], "base64", "{message}");
        assert_eq!(message["bytes"], 5000);
        let text = message["data_b64"].as_str().expect("base64 text");
        assert_eq!(decode_base64(text), bytes);
    }
}

#[test]
fn a_large_message_and_an_empty_looking_one_arrive() {
    let pair = Pair::trusting();
    let large = "0123456789abcdef".repeat(20_000);
    for (from, to) in pair.directions() {
        for data in [large.as_str(), " "] {
            let sent = from
                .start_ctl_with_input(&["send-message", &to.address(), "--data", "-"], data.as_bytes())
                .data();
            assert_eq!(stored(to, &sent)["data"], data);
        }
    }
}

#[test]
fn a_message_that_looks_like_a_sack_list_arrives() {
    // Between two reference nodes it does not: one sends the lookalike, the other swallows it.
    let pair = Pair::trusting();
    let data = "SACK\u{1}abcdefgh".repeat(300);
    for (from, to) in pair.directions() {
        let words = ["send-message", &to.address(), "--data", "-"];
        let sent = from.start_ctl_with_input(&words, data.as_bytes()).data();
        assert_eq!(stored(to, &sent)["data"], data);
    }
}

#[test]
fn a_reply_finds_the_one_who_waits_for_it() {
    let pair = Pair::trusting();
    for (from, to) in pair.directions() {
        let known = to.inbox().len();
        let asking = from.start_ctl(&["send-message", &to.address(), "--data", "how many?", "--wait", "30s"]);
        let question = until("the question arrives", || {
            let inbox = to.inbox();
            (inbox.len() > known).then(|| inbox.into_iter().find(|message| message["data"] == "how many?"))?
        });
        let id = question["message_id"].as_str().expect("the question has an id");
        to.ctl(&["send-message", &from.address(), "--data", "seven", "--reply-to", id]);
        asking.data();
        let answers = from.inbox();
        assert!(
            answers.iter().any(|answer| answer["data"] == "seven" && answer["reply_to"] == id),
            "{answers:?}"
        );
    }
}

/// Standard base64 with padding.
fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |letter: u8| match letter {
        b'A'..=b'Z' => u32::from(letter - b'A'),
        b'a'..=b'z' => u32::from(letter - b'a') + 26,
        b'0'..=b'9' => u32::from(letter - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let letters: Vec<u8> = text.bytes().filter(|letter| *letter != b'=').collect();
    let mut bytes = Vec::new();
    for group in letters.chunks(4) {
        let bits = group.iter().fold(0, |bits, letter| bits << 6 | digit(*letter)) << (6 * (4 - group.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..group.len()]);
    }
    bytes
}
