//! Files that people hand over: snapshots and copies for a registry, keys, and the settings of other programs.

use std::io;

use pilot_crypto::{Identity, Sha256};
use pilot_mcp::install::{Client, Entry};
use pilot_rendezvous::{dump, import};

/// A snapshot of a reference registry.
pub fn import(json: &[u8]) {
    for trusting in [false, true] {
        let Ok((records, _)) = import::read(json, 1_800_000_000, trusting) else { return };
        let mut copy = Vec::new();
        dump::write(&records, 1, &mut copy).expect("memory takes everything");
        let again = dump::read(io::Cursor::new(&copy)).expect("what was written can be read");
        assert_eq!(again, records);
    }
}

/// A copy of a registry's records, to which the right checksum is added.
pub fn backup(lines: &[u8]) {
    assert!(dump::read(lines).is_err() || lines.ends_with(b"}\n"), "a copy that was cut short");
    let mut hash = Sha256::new();
    hash.update(lines);
    let sha256 = hash.finish().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let whole = [lines, format!("{{\"sha256\":\"{sha256}\"}}\n").as_bytes()].concat();
    if let Ok(records) = dump::read(io::Cursor::new(&whole)) {
        let mut copy = Vec::new();
        dump::write(&records, 1, &mut copy).expect("memory takes everything");
        assert_eq!(dump::read(io::Cursor::new(&copy)).expect("what was written can be read"), records);
    }
}

/// An identity in a file, restored from anywhere.
pub fn identity(json: &[u8]) {
    // Private to its owner, as it must be.
    let file = tempfile::NamedTempFile::new().expect("there is room for a file");
    std::fs::write(&file, json).expect("there is room for it");
    if let Ok(identity) = Identity::load(file.path()) {
        let public = identity.public();
        identity.store(file.path()).expect("what was read can be written");
        assert_eq!(Identity::load(file.path()).expect("what was written can be read").public(), public);
    }
}

/// Lists of servers in the settings of programs: an entry is put in and taken out, and the rest stays.
pub fn editor(bytes: &[u8]) {
    let Some((&which, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let client = Client::ALL[usize::from(which) % Client::ALL.len()];
    let entry = Entry {
        name: "pilot".to_owned(),
        command: "/usr/bin/pilotctl".to_owned(),
        args: vec!["mcp".to_owned(), "serve \"quoted\"".to_owned()],
    };
    let Ok(with) = client.with_entry(text, &entry) else { return };
    assert_eq!(client.with_entry(&with, &entry).as_ref(), Ok(&with), "the same entry once more");
    let without = client.without_entry(&with, &entry.name);
    let without = without.expect("what was put in can be taken out");
    assert_eq!(client.without_entry(&without, &entry.name).as_ref(), Ok(&without), "it was taken out");
    if client != Client::Codex && !text.trim().is_empty() {
        let (before, after) = (others(text), others(&without));
        assert_eq!(after, before, "something else was changed");
    }
}

/// What a file of JSON says beside the entry, and beside lists that were made for it.
fn others(text: &str) -> Option<serde_json::Value> {
    let mut value: serde_json::Value = serde_json::from_str(text).ok()?;
    let root = value.as_object_mut()?;
    for key in ["mcpServers", "servers"] {
        if let Some(list) = root.get_mut(key).and_then(serde_json::Value::as_object_mut) {
            list.remove("pilot");
            if list.is_empty() {
                root.remove(key);
            }
        }
    }
    Some(value)
}
