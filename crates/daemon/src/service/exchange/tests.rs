//! The service against captures of 1.18.0, and against peers that behave badly.

use super::*;
use pilot_crypto::Sha256;
use pilot_wire::NodeId;
use pilot_wire::dataexchange::{CHUNK_LEN, DEFAULT_MAX_FRAME, FileStream, Init, TransferId};
use pilot_wire::mailbox::{Reply, Request};
use serde_json::Value;
use std::path::Path;
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

struct Receiver {
    home: tempfile::TempDir,
    exchange: Exchange,
}

impl Receiver {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let exchange = exchange_over(home.path());
        Self { home, exchange }
    }

    fn connect(&self) -> (DuplexStream, JoinHandle<Result<(), Closed>>) {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let exchange = self.exchange.clone();
        let serving = tokio::spawn(async move {
            let large = Semaphore::new(1);
            exchange.serve(theirs, &Remote::of(NodeId(1)), &large).await
        });
        (ours, serving)
    }

    fn files(&self, directory: &str) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for file in std::fs::read_dir(self.home.path().join(directory)).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.is_file() {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
        found.sort();
        found
    }
}

fn exchange_over(home: &Path) -> Exchange {
    Exchange {
        store: Store::start(home).unwrap(),
        files: Files::start(home, crate::config::ReceivedLimits::default()).unwrap(),
        handle: None,
        notices: Notices::new().0,
        controls: Controls {
            outbox: crate::service::outbox::Outbox::nowhere(),
            serving: crate::service::serving::Serving::default(),
            mailboxes: crate::service::mailboxes::Mailboxes::default(),
        },
        policy: Policy::default(),
        max_frame: DEFAULT_MAX_FRAME,
        large_frames: Arc::new(Semaphore::new(LARGE_FRAMES)),
    }
}

fn frame(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.emit(&mut bytes);
    bytes
}

fn file_step(step: FileStream) -> Vec<u8> {
    frame(&Frame::FileStream(step))
}

/// What the service sends until it closes or says `length` bytes.
async fn read(stream: &mut DuplexStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut have = 0;
    while have < length {
        match stream.read(&mut bytes[have..]).await.unwrap() {
            0 => break,
            more => have += more,
        }
    }
    bytes.truncate(have);
    bytes
}

fn init(data: &[u8], name: &'static [u8]) -> Init {
    let sha256 = Sha256::digest(data);
    let name = bytes::Bytes::from_static(name);
    Init { id: TransferId::of(&sha256), size: data.len() as u64, sha256, chunk: CHUNK_LEN, name }
}

/// The frames of a captured case; long ones are abbreviated in the file and are made again here.
fn sent(case: &Value) -> Vec<u8> {
    let counting: Vec<u8> = (0..76_800u32).map(|number| (number % 256) as u8).collect();
    let id = TransferId::of(&Sha256::digest(&counting));
    let mut bytes = Vec::new();
    for text in case["sent_hex"].as_array().unwrap() {
        let text = text.as_str().unwrap();
        if let Some((_, end)) = text.split_once("...(") {
            let offset = if end.starts_with("49185") { 0 } else { 49_152 };
            let until = (offset + 49_152).min(counting.len());
            let data = bytes::Bytes::copy_from_slice(&counting[offset..until]);
            let chunk = file_step(FileStream::Chunk { id, offset: offset as u64, data });
            assert_eq!(format!("{} bytes)", chunk.len()), end);
            bytes.extend(chunk);
        } else {
            bytes.extend(hex(text));
        }
    }
    bytes
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[tokio::test]
async fn every_captured_exchange_is_answered_as_1_18_answers() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../wire/tests/vectors/services.json")).unwrap();
    let battery = vectors["echo_1001_1002_1003_batteries"]["v1.18.0"].as_array().unwrap();
    let receiver = Receiver::start();
    let mut checked = 0;
    for case in battery.iter().filter(|case| case["service"] == "dataexchange/1001") {
        let name = case["case"].as_str().unwrap();
        let mut expected = Vec::new();
        let mut is_closed = false;
        for reply in case["reply"].as_array().unwrap() {
            expected.extend(hex(reply["hex"].as_str().unwrap()));
            is_closed |= reply["peer_closed"] == true;
        }
        let (mut stream, serving) = receiver.connect();
        stream.write_all(&sent(case)).await.unwrap();
        match name {
            // 1.18.0 acknowledges these and stores nothing.
            "file no name" | "file short payload" | "file name length beyond payload" => {
                let answer = read(&mut stream, 24).await;
                assert_eq!(&answer[8..24], b"ERR FILE save fa", "{name}");
            }
            // The times differ; the rest is in `the_times_of_a_traced_message_are_returned`.
            "trace of text" => {
                let answer = read(&mut stream, 8).await;
                assert_eq!(answer[..4], expected[..4], "{name}");
            }
            _ if is_closed => {
                assert!(read(&mut stream, 1).await.is_empty(), "{name}");
                assert!(serving.await.unwrap().is_err(), "{name}");
            }
            _ => assert_eq!(read(&mut stream, expected.len()).await, expected, "{name}"),
        }
        checked += 1;
    }
    assert_eq!(checked, 35);
    let inbox = receiver.files("inbox");
    let received = receiver.files("received");
    assert_eq!(inbox.len(), 13);
    assert_eq!(received.len(), 3, "{received:?}");
    for case in battery.iter().filter(|case| case["service"] == "dataexchange/1001") {
        for (name, content) in case["files_created"].as_object().unwrap() {
            if name.starts_with(".pilot/inbox") {
                let theirs: Value = serde_json::from_str(content.as_str().unwrap()).unwrap();
                let is_same = |(_, ours): &&(String, Vec<u8>)| {
                    let mut ours: Value = serde_json::from_slice(ours).unwrap();
                    ours["received_at"] = theirs["received_at"].clone();
                    ours == theirs
                };
                assert!(inbox.iter().find(is_same).is_some(), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn the_times_of_a_traced_message_are_returned() {
    let receiver = Receiver::start();
    let (mut stream, serving) = receiver.connect();
    let delivery = Delivery {
        tag: None,
        sent_at_ns: Some(1_234_567_890),
        content: Content::Text(bytes::Bytes::from_static(b"traced")),
    };
    stream.write_all(&frame(&Frame::Delivery(delivery))).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut decoder = Decoder::new(1024);
    decoder.feed(&read(&mut stream, 1024).await);
    let answer = Answer::parse(&decoder.next_frame().unwrap().unwrap()).unwrap();
    let Answer::Timed(timing) = answer else { panic!("{answer:?}") };
    assert_eq!(timing.sent_at_ns, 1_234_567_890);
    assert_eq!(timing.inner_ack, "ACK TEXT 6 bytes");
    assert!(timing.received_at_ns <= timing.inbox_written_at_ns);
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_file_goes_on_on_a_new_connection_while_the_old_one_still_hangs() {
    let receiver = Receiver::start();
    let data: Vec<u8> = (0..200_000u32).map(|number| (number % 251) as u8).collect();
    let init = init(&data, b"big.bin");
    let id = init.id;
    let (mut hanging, old) = receiver.connect();
    hanging.write_all(&file_step(FileStream::Init(init.clone()))).await.unwrap();
    let first = bytes::Bytes::copy_from_slice(&data[..100_000]);
    hanging.write_all(&file_step(FileStream::Chunk { id, offset: 0, data: first })).await.unwrap();
    let acknowledged = read(&mut hanging, 2 * 33).await;
    assert_eq!(acknowledged[33..], file_step(FileStream::Ack { id, offset: 100_000 }));

    let (mut stream, serving) = receiver.connect();
    stream.write_all(&file_step(FileStream::Init(init))).await.unwrap();
    assert_eq!(read(&mut stream, 33).await, file_step(FileStream::InitAck { id, offset: 100_000 }));
    assert!(matches!(old.await.unwrap(), Err(Closed::TakenOver)));
    let rest = bytes::Bytes::copy_from_slice(&data[100_000..]);
    stream.write_all(&file_step(FileStream::Chunk { id, offset: 100_000, data: rest })).await.unwrap();
    stream.write_all(&file_step(FileStream::Done(id))).await.unwrap();
    stream.shutdown().await.unwrap();
    let answers = read(&mut stream, 1024).await;
    assert_eq!(answers[33..], file_step(FileStream::Complete { id, outcome: Ok(()) }));
    serving.await.unwrap().unwrap();
    let stored = receiver.files("received");
    assert_eq!(stored.len(), 1);
    assert!(stored[0].0.starts_with("big-") && stored[0].0.ends_with(".bin"));
    assert_eq!(stored[0].1, data);
}

#[tokio::test]
async fn an_interrupted_file_goes_on_after_a_restart_of_the_receiver() {
    let mut receiver = Receiver::start();
    let data = vec![9; 100_000];
    let init = init(&data, b"f");
    let id = init.id;
    let (mut stream, serving) = receiver.connect();
    stream.write_all(&file_step(FileStream::Init(init.clone()))).await.unwrap();
    let first = bytes::Bytes::copy_from_slice(&data[..49_152]);
    stream.write_all(&file_step(FileStream::Chunk { id, offset: 0, data: first })).await.unwrap();
    read(&mut stream, 2 * 33).await;
    drop(stream);
    serving.await.unwrap().unwrap();
    receiver.exchange = exchange_over(receiver.home.path());
    let (mut stream, _serving) = receiver.connect();
    stream.write_all(&file_step(FileStream::Init(init))).await.unwrap();
    assert_eq!(read(&mut stream, 33).await, file_step(FileStream::InitAck { id, offset: 49_152 }));
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_stores_nothing_anywhere() {
    let receiver = Receiver::start();
    for name in [&b"../x"[..], b"/etc/x", b"a/../../x", b"..\\x"] {
        let (mut stream, _serving) = receiver.connect();
        let mut init = init(b"DATA", b"");
        init.name = bytes::Bytes::copy_from_slice(name);
        let id = init.id;
        stream.write_all(&file_step(FileStream::Init(init))).await.unwrap();
        let refusal = file_step(FileStream::Abort { id, message: "unsafe file name".into() });
        assert_eq!(read(&mut stream, refusal.len()).await, refusal);
    }
    assert!(receiver.files("received").is_empty());
    assert!(receiver.files("received/.partial").is_empty());
}

#[tokio::test]
async fn a_storage_error_tells_the_peer_no_path() {
    let receiver = Receiver::start();
    let list = Request::List(pilot_wire::mailbox::List::default());
    assert!(matches!(receiver.exchange.store.mailbox(list).await, Reply::Messages { .. }));
    std::fs::remove_dir(receiver.home.path().join("inbox")).unwrap();
    let (mut stream, _serving) = receiver.connect();
    stream.write_all(b"\0\0\0\x01\0\0\0\x02hi").await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = String::from_utf8(read(&mut stream, 1024).await).unwrap();
    assert!(answer.ends_with("ERR TEXT save failed: the receiver cannot write to its disk"), "{answer:?}");
}

#[tokio::test]
async fn many_messages_on_one_connection_are_each_answered_in_order() {
    let receiver = Receiver::start();
    let (mut stream, _serving) = receiver.connect();
    let mut sent = Vec::new();
    let mut expected = Vec::new();
    for number in 0..50u64 {
        let body = bytes::Bytes::from(vec![b'x'; usize::try_from(number).unwrap()]);
        let content = Content::Text(body);
        sent.extend(frame(&Frame::Delivery(Delivery { tag: None, sent_at_ns: None, content })));
        Answer::Stored { kind: FrameType::TEXT, bytes: number, duplicate: false }.emit(&mut expected);
    }
    stream.write_all(&sent).await.unwrap();
    assert_eq!(read(&mut stream, expected.len()).await, expected);
    assert_eq!(receiver.files("inbox").len(), 50);
}

#[tokio::test]
async fn damaged_frames_of_any_kind_never_stop_the_service() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../../../wire/tests/vectors/services.json")).unwrap();
    let battery = vectors["echo_1001_1002_1003_batteries"]["v1.18.0"].as_array().unwrap();
    let receiver = Receiver::start();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % limit as u64).unwrap()
    };
    for case in battery.iter().filter(|case| case["service"] == "dataexchange/1001") {
        for _ in 0..8 {
            let mut bytes = sent(case);
            for _ in 0..=below(3) {
                let at = below(bytes.len());
                bytes[at] = u8::try_from(below(256)).unwrap();
            }
            bytes.truncate(1 + below(bytes.len()));
            let (mut stream, serving) = receiver.connect();
            // The service may hang up before it has all of it.
            let _ = stream.write_all(&bytes).await;
            drop(stream);
            let _ = serving.await.expect("the service does not panic");
        }
    }
    let (mut stream, _serving) = receiver.connect();
    stream.write_all(b"\0\0\0\x01\0\0\0\x02ok").await.unwrap();
    assert_eq!(read(&mut stream, 24).await[8..], *b"ACK TEXT 2 bytes");
}

fn folder_of(files: &[(&str, &[u8])]) -> pilot_wire::dataexchange::Manifest {
    let files = files.iter().map(|(path, data)| pilot_wire::dataexchange::FolderFile {
        path: path.parse().unwrap(),
        size: data.len() as u64,
        sha256: pilot_wire::dataexchange::ContentHash(Sha256::digest(data)),
        executable: false,
    });
    pilot_wire::dataexchange::Manifest::new(files.collect(), Vec::new()).unwrap()
}

fn announce(name: &str, manifest: &[u8]) -> Vec<u8> {
    frame(&Frame::Control(
        Control::Transfer { word: TransferWord::Folder { name: name.into() } },
        bytes::Bytes::copy_from_slice(manifest),
    ))
}

fn whole(data: &'static [u8]) -> Vec<u8> {
    let init = init(data, b"");
    let id = init.id;
    let chunk = FileStream::Chunk { id, offset: 0, data: bytes::Bytes::from_static(data) };
    [FileStream::Init(init), chunk, FileStream::Done(id)].into_iter().flat_map(file_step).collect()
}

/// Everything that is answered to these bytes.
async fn answers(receiver: &Receiver, sent: &[u8]) -> Vec<RawFrame> {
    let (mut stream, serving) = receiver.connect();
    stream.write_all(sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut decoder = Decoder::new(DEFAULT_MAX_FRAME);
    decoder.feed(&read(&mut stream, 1 << 20).await);
    serving.await.unwrap().unwrap();
    std::iter::from_fn(|| decoder.next_frame().unwrap()).collect()
}

#[tokio::test]
async fn a_folder_comes_in_one_breath_and_its_files_of_the_same_content_once() {
    let receiver = Receiver::start();
    let manifest = folder_of(&[("a/one", b"1"), ("a/uno", b"1"), ("two", b"22")]);
    let done = frame(&Frame::Control(Control::Transfer { word: TransferWord::Done }, bytes::Bytes::new()));
    let first = [announce("things", &manifest.to_json()), whole(b"1")].concat();
    let answered = answers(&receiver, &first).await;
    assert_eq!(answered.len(), 4);
    let held = Frame::parse(answered[0].clone()).unwrap();
    assert_eq!(held, Frame::Control(Control::Transfer { word: TransferWord::Held }, bytes::Bytes::new()));
    assert!(receiver.files("received").is_empty());
    let second = [announce("things", &manifest.to_json()), whole(b"22"), done.clone()].concat();
    let answered = answers(&receiver, &second).await;
    let held = Frame::parse(answered[0].clone()).unwrap();
    assert_eq!(
        held,
        Frame::Control(Control::Transfer { word: TransferWord::Held }, bytes::Bytes::from_static(&[1]))
    );
    assert_eq!(answered.last().map(|frame| &frame.payload[..]), Some(&b"ACK TEXT 0 bytes"[..]));
    let folders: Vec<_> = std::fs::read_dir(receiver.home.path().join("received"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("things-"))
        .collect();
    assert_eq!(folders.len(), 1);
    assert_eq!(std::fs::read(folders[0].join("a/uno")).unwrap(), b"1");
    // The answer was lost: it is all here, and nothing is sent or stored again.
    let again = [announce("things", &manifest.to_json()), done].concat();
    let answered = answers(&receiver, &again).await;
    assert_eq!(
        Frame::parse(answered[0].clone()).unwrap(),
        Frame::Control(Control::Transfer { word: TransferWord::Held }, vec![255].into())
    );
    assert_eq!(answered.last().map(|frame| &frame.payload[..]), Some(&b"ACK TEXT 0 bytes"[..]));
    assert_eq!(std::fs::read_dir(receiver.home.path().join("received")).unwrap().count(), 3);
}

#[tokio::test]
async fn hostile_folders_store_nothing_anywhere() {
    let receiver = Receiver::start();
    let file = |path: &str| {
        let hash = "ab".repeat(32);
        format!(r#"{{"files":[{{"path":{path:?},"size":1,"sha256":"{hash}"}}]}}"#)
    };
    let traversals = ["../x", "/etc/x", "a/../../x", "a\\b", "a//b", "a/./b", ""];
    let manifests = traversals.iter().map(|path| file(path)).chain([
        "{}".to_owned(),
        "[".repeat(100_000),
        format!(r#"{{"files":[],"folders":["{}"]}}"#, ["d"; 40].join("/")),
        format!(r#"{{"files":[{{"path":"x","size":{},"sha256":"{}"}}]}}"#, u64::MAX, "ab".repeat(32)),
    ]);
    for manifest in manifests {
        let answered = answers(&receiver, &announce("f", manifest.as_bytes())).await;
        let answer = Answer::parse(&answered[0]).unwrap();
        assert!(matches!(answer, Answer::Failed { .. }), "{manifest:.80}: {answer:?}");
    }
    let good = folder_of(&[("x", b"1")]).to_json();
    for name in ["../f", "", "..", "a/b", "a\0b"] {
        let answered = answers(&receiver, &announce(name, &good)).await;
        assert!(matches!(Answer::parse(&answered[0]).unwrap(), Answer::Failed { .. }), "{name:?}");
    }
    let done = frame(&Frame::Control(Control::Transfer { word: TransferWord::Done }, bytes::Bytes::new()));
    let out_of_place = [
        done.clone(),
        [announce("f", &good), done].concat(),
        frame(&Frame::Control(Control::Transfer { word: TransferWord::Held }, bytes::Bytes::new())),
    ];
    for sent in out_of_place {
        let answered = answers(&receiver, &sent).await;
        let last = Answer::parse(answered.last().unwrap()).unwrap();
        assert!(matches!(last, Answer::Failed { .. }), "{last:?}");
    }
    let foreign = [announce("f", &good), whole(b"something else")].concat();
    let answered = answers(&receiver, &foreign).await;
    assert!(matches!(
        Frame::parse(answered[1].clone()),
        Ok(Frame::FileStream(FileStream::Abort { message, .. })) if message == "the folder has no such file"
    ));
    let names: Vec<_> = std::fs::read_dir(receiver.home.path().join("received"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?}");
    assert!(!receiver.home.path().join("x").exists() && !receiver.home.path().join("received/x").exists());
}
