//! The local socket's frames, against what real drivers and daemons were recorded to say.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use pilot_wire::ipc::{
    ClientFrame, Command, ConnInfo, DaemonFrame, Decoder, EnvelopeCheck, Health, HostnameSet, Info,
    NodeStatus, PendingList, Preferred, Reply, Request, Resolved, SignedEnvelope, TagsSet, TrustedList,
    VisibilitySet,
};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/ipc.json")).unwrap()
}

/// One recorded frame that was kept whole: who said it, and its bytes.
struct Recorded {
    from_client: bool,
    bytes: Vec<u8>,
    json: Option<Value>,
}

fn recorded_by_1_18() -> Vec<Recorded> {
    let sessions = vectors()["sessions"]["v1.18.0"].take();
    let frames =
        sessions.as_array().unwrap().iter().flat_map(|session| session["frames"].as_array().unwrap());
    frames
        .filter_map(|frame| {
            let bytes = hex::decode(frame["frame_hex"].as_str().unwrap()).ok()?;
            let json = frame.get("json").cloned();
            Some(Recorded { from_client: frame["dir"] == "driver->daemon", bytes, json })
        })
        .collect()
}

fn unframe(bytes: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new();
    decoder.space().extend_from_slice(bytes);
    let frame = decoder.next_frame().unwrap().expect("a whole frame");
    assert!(decoder.is_empty());
    frame.to_vec()
}

#[test]
fn every_recorded_request_is_understood_and_said_again_byte_for_byte() {
    let mut seen = std::collections::BTreeSet::new();
    let mut requests: Vec<Vec<u8>> =
        recorded_by_1_18().into_iter().filter(|frame| frame.from_client).map(|frame| frame.bytes).collect();
    for command in vectors()["commands"].as_array().unwrap() {
        for example in command["examples"]["v1.18.0"].as_array().unwrap() {
            requests.extend(example["request_hex"].as_str().and_then(|text| hex::decode(text).ok()));
        }
    }
    for bytes in requests {
        let frame = unframe(&bytes);
        let parsed = ClientFrame::parse(&frame).unwrap();
        let mut again = Vec::new();
        parsed.emit(&mut again);
        assert_eq!(hex::encode(again), hex::encode(&bytes), "{parsed:?}");
        seen.insert(frame[0]);
    }
    assert!(seen.len() >= 20, "only {seen:02X?} were recorded");
}

#[test]
fn every_recorded_reply_and_push_is_understood_and_said_again_byte_for_byte() {
    let mut count = 0;
    for recorded in recorded_by_1_18().into_iter().filter(|frame| !frame.from_client) {
        let frame = unframe(&recorded.bytes);
        let parsed = DaemonFrame::parse(&frame).unwrap();
        let mut again = Vec::new();
        parsed.emit(&mut again);
        assert_eq!(hex::encode(again), hex::encode(&recorded.bytes), "{parsed:?}");
        count += 1;
    }
    assert!(count > 100);
}

/// Reading into the type and writing it again gives the recorded JSON, `null` lists apart.
fn assert_same<T: serde::Serialize + serde::de::DeserializeOwned>(recorded: &Value) {
    let typed: T = serde_json::from_value(recorded.clone()).unwrap();
    let mut recorded = recorded.clone();
    for value in recorded.as_object_mut().unwrap().values_mut().filter(|value| value.is_null()) {
        *value = Value::Array(Vec::new());
    }
    assert_eq!(serde_json::to_value(&typed).unwrap(), recorded);
}

#[test]
#[expect(clippy::wildcard_enum_match_arm, reason = "the other commands carry no JSON of ours")]
fn recorded_json_survives_its_types() {
    let mut seen = std::collections::BTreeSet::new();
    for recorded in recorded_by_1_18() {
        let Some(json) = &recorded.json else { continue };
        match Command::from_byte(recorded.bytes[4]).unwrap() {
            Command::InfoOk => assert_same::<Info>(json),
            Command::HealthOk => assert_same::<Health>(json),
            Command::ResolveHostnameOk => assert_same::<Resolved>(json),
            Command::SetHostnameOk => assert_same::<HostnameSet>(json),
            Command::SetVisibilityOk => assert_same::<VisibilitySet>(json),
            Command::SetTagsOk => assert_same::<TagsSet>(json),
            Command::PreferDirectOk => assert_same::<Preferred>(json),
            Command::SignEnvelopeOk => assert_same::<SignedEnvelope>(json),
            Command::VerifyEnvelopeOk => assert_same::<EnvelopeCheck>(json),
            Command::HandshakeOk if json.get("pending").is_some() => assert_same::<PendingList>(json),
            Command::HandshakeOk if json.get("trusted").is_some_and(Value::is_array) => {
                assert_same::<TrustedList>(json);
            }
            Command::HandshakeOk if json.get("status").is_some() => assert_same::<NodeStatus>(json),
            _ => continue,
        }
        seen.insert(recorded.bytes[4]);
    }
    assert!(seen.len() >= 9, "only {seen:02X?} were recorded");
}

#[test]
fn the_information_of_early_2026_is_read_with_defaults() {
    let sessions = vectors()["sessions"]["feb2026"].take();
    let frames =
        sessions.as_array().unwrap().iter().flat_map(|session| session["frames"].as_array().unwrap());
    let mut rows: Vec<ConnInfo> = Vec::new();
    for frame in frames.filter(|frame| frame["cmd"] == "0x0E" && frame.get("json").is_some()) {
        let info: Info = serde_json::from_value(frame["json"].clone()).unwrap();
        assert_ne!(info.node_id.0, 0);
        assert_eq!(info.features, Vec::<String>::new());
        rows.extend(info.conn_list);
    }
    assert!(rows.iter().any(|row| row.state == "TIME_WAIT"));
}

#[test]
fn malformed_requests_are_answered_in_the_words_of_1_18() {
    let cases = vectors()["edge_cases"]["v1.18.0"].take();
    let mut checked = 0;
    for case in cases.as_array().unwrap() {
        let Some(bytes) = case["request_hex"].as_str().and_then(|text| hex::decode(text).ok()) else {
            continue;
        };
        let reply = case["reply"].as_str().unwrap();
        let Some((_, text)) = reply.split_once("msg=") else { continue };
        let announced = bytes.first_chunk().map_or(0, |prefix| u32::from_be_bytes(*prefix) as usize);
        if bytes.len() != 4 + announced {
            continue; // recorded in part only
        }
        let text = &text[1..text.len() - 1];
        let frame = unframe(&bytes);
        let Err(error) = Request::parse(&frame) else { continue };
        if case["case"] == "SetTags not JSON" {
            assert!(error.to_string().starts_with("set_tags: invalid JSON: "));
        } else {
            assert_eq!(error.to_string(), text, "{case}");
        }
        checked += 1;
    }
    assert!(checked >= 34, "only {checked} malformed requests were recorded");
}

#[test]
fn requests_that_1_18_answers_with_silence_are_marked_so() {
    for frame in [&[0x06][..], &[0x06, 0, 0, 0], &[0x0B], &[0x0B, 0, 0, 0, 0, 0, 99, 0]] {
        let error = Request::parse(frame).unwrap_err();
        assert!(matches!(error, pilot_wire::ipc::RequestError::Unanswered(_)), "{error:?}");
    }
}

#[test]
fn a_reply_that_is_a_request_is_refused() {
    assert!(Reply::parse(&[0x01, 0, 7]).is_err());
    assert!(DaemonFrame::parse(&[0xFF]).is_err());
    assert!(DaemonFrame::parse(&[]).is_err());
}
