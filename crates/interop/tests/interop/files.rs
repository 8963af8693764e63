//! Files between our node and the reference's, in both directions.

use std::fs;
use std::path::{Path, PathBuf};

use pilot_interop::Pair;

/// Bytes that no compression or repetition can hide a mistake in.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries: Vec<_> =
        fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok).collect()).unwrap_or_default();
    entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

fn arrives_both_ways(length: usize) {
    let pair = Pair::trusting();
    let bytes = noise(length);
    let file = pair.stage.folder().join("data set.bin");
    fs::write(&file, &bytes).expect("a file can be written");
    for (from, to) in pair.directions() {
        let sent = from.ctl(&["send-file", &to.address(), &file.to_string_lossy()]);
        assert_eq!(sent["bytes"], length, "{sent}");
        let received = files_in(&to.received());
        assert_eq!(received.len(), 1, "{received:?}");
        assert!(
            fs::read(&received[0]).expect("a received file can be read") == bytes,
            "the file has changed"
        );
    }
    pair.assert_sealed();
}

#[test]
fn ten_megabytes_arrive_intact() {
    arrives_both_ways(10_000_000);
}

#[test]
fn a_file_of_one_byte_arrives() {
    arrives_both_ways(1);
}
