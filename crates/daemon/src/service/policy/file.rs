//! The rules on disk: `policy.json` in the node's home.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use pilot_wire::policy::{BOOK_BYTES_MAX, Book};

/// Reads the rules; no file means no rules.
///
/// # Errors
/// Why the file cannot be used, for the owner.
pub(super) fn load(path: &Path) -> Result<Book, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    let mut text = Vec::new();
    let limit = BOOK_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut text).map_err(|error| format!("it cannot be read: {error}"))?;
    if text.len() > BOOK_BYTES_MAX {
        return Err(too_long());
    }
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// Writes the rules; when it returns, they are on disk.
///
/// # Errors
/// Why they are not, for the owner.
pub(super) fn store(path: &Path, book: &Book) -> Result<(), String> {
    let text = serde_json::to_vec_pretty(book).map_err(|error| error.to_string())?;
    if text.len() > BOOK_BYTES_MAX {
        return Err(too_long());
    }
    // What is written must be what will be read: a rule that gets lost on the way would open what it closed.
    if serde_json::from_slice::<Book>(&text).ok().as_ref() != Some(book) {
        return Err("these rules cannot be written down".to_owned());
    }
    crate::files::replace(path, &text).map_err(|error| format!("it cannot be written: {error}"))
}

/// Keeps a copy of a file that cannot be used, before another takes its place.
///
/// # Errors
/// What the system says.
pub(super) fn keep_broken(path: &Path) -> io::Result<()> {
    std::fs::rename(path, path.with_extension("json.broken"))
}

fn too_long() -> String {
    format!("the rules are longer than {} KB", BOOK_BYTES_MAX >> 10)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_stored_is_loaded_and_for_the_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("policy.json");
        assert_eq!(load(&path), Ok(Book::default()));
        let book: Book = serde_json::from_str(r#"{"version":1,"all":{"max_hops":1}}"#).unwrap();
        store(&path, &book).unwrap();
        assert_eq!(load(&path), Ok(book));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_not_understood_to_the_last_byte_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("policy.json");
        let whole = br#"{"version":1,"all":{"max_hops":1}}"#;
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(load(&path).is_err(), "{length}");
        }
        std::fs::write(&path, [b' '; BOOK_BYTES_MAX + 1]).unwrap();
        assert!(load(&path).unwrap_err().contains("longer than"));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(load(&path).unwrap_err().contains("cannot be read"));
    }
}
