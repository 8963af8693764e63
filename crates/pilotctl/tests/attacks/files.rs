//! Names that lead elsewhere, addresses that are not for the outside.

use std::path::{Path, PathBuf};

use pilot_wire::dataexchange::{
    Content, Control, Delivery, FileStream, Frame, FrameType, Init, NamedFile, RawFrame, TransferId,
    TransferWord,
};

use crate::common::World;
use crate::target::{Target, befriend, beside};

/// Names of files that a peer should not have.
const NAMES: [&str; 9] = [
    "../evil",
    "../../evil",
    "/tmp/evil-of-the-attack-suite",
    "..",
    "a/../../evil",
    "..\\evil",
    "evil\0.txt",
    "",
    "identity.json/../../identity.json",
];

fn emitted(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.emit(&mut bytes);
    bytes
}

/// Every file below, with its length.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(files(&entry.path()));
        } else {
            all.push(entry.path());
        }
    }
    all
}

#[test]
fn no_name_that_a_peer_gives_leads_out_of_the_folder_for_received_files() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    let b = Target::start(&world, "agent-b", &[]);
    befriend(&a, &b);
    b.agent.ok(&["enable-tasks"]);
    let identity = std::fs::read(b.agent.home.join("identity.json")).unwrap();
    beside(&a.agent, "agent-b", || {
        let (body, hash) = (b"evil words", [0xAB; 32]);
        for name in NAMES {
            let file = NamedFile { name: name.as_bytes().to_vec().into(), data: body.to_vec().into() };
            let delivery = Delivery { tag: None, sent_at_ns: None, content: Content::File(file) };
            let id = TransferId::of(&hash);
            let (size, name_bytes) = (body.len() as u64, name.as_bytes().to_vec().into());
            let init = Init { id, size, sha256: hash, chunk: 48 << 10, name: name_bytes };
            let chunk = FileStream::Chunk { id, offset: 0, data: body.to_vec().into() };
            let manifest =
                serde_json::json!({"files": [{"path": name, "size": 10, "sha256": "ab".repeat(32)}]});
            let folder = Control::Transfer { word: TransferWord::Folder { name: name.to_owned() } };
            let streams = [
                emitted(&Frame::Delivery(delivery)),
                [emitted(&Frame::FileStream(FileStream::Init(init))), emitted(&Frame::FileStream(chunk))]
                    .concat(),
                emitted(&Frame::Control(folder, manifest.to_string().into_bytes().into())),
            ];
            for bytes in streams {
                a.agent.pipe(&["connect", "agent-b", "1001"], &bytes);
            }
            let result = serde_json::json!({
                "task_id": name, "result_type": "file", "filename": name, "file_data": "ZXZpbA==",
            });
            let mut bytes = Vec::new();
            RawFrame { kind: FrameType(4), payload: result.to_string().into_bytes().into() }.emit(&mut bytes);
            a.agent.pipe(&["connect", "agent-b", "1003"], &bytes);
        }
    });
    let home = &b.agent.home;
    let evil: Vec<PathBuf> = files(world.directory.path())
        .into_iter()
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes == b"evil words"))
        .collect();
    for path in &evil {
        assert!(path.starts_with(home.join("received")), "{}", path.display());
        let inside = path.strip_prefix(home.join("received")).unwrap();
        assert_eq!(inside.components().count(), 1, "{}", path.display());
    }
    assert!(!Path::new("/tmp/evil-of-the-attack-suite").exists());
    assert!(std::fs::read(home.join("identity.json")).unwrap() == identity, "the key was written over");
    // A harmless name still works.
    let sent = a.agent.home.join("harmless.txt");
    std::fs::write(&sent, b"harmless").unwrap();
    a.agent.ok(&["send-file", "agent-b", sent.to_str().unwrap()]);
    assert!(files(&home.join("received")).iter().any(|path| std::fs::read(path).unwrap() == b"harmless"));
}

#[test]
fn events_and_messages_are_posted_to_no_metadata_service() {
    let world = World::new();
    let a = Target::start(&world, "agent-a", &[]);
    for url in [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "file:///etc/passwd",
        "gopher://169.254.169.254/",
    ] {
        for words in [&["set-webhook", url][..], &["hook", "add", "--url", url]] {
            let refused = a.agent.run(&[words, &["--json"]].concat());
            assert_eq!(refused.status, 2, "{words:?}: {refused:?}");
        }
    }
    // On this machine it is the owner's own business.
    a.agent.ok(&["set-webhook", "http://127.0.0.1:9/events"]);
}
