//! What a folder consists of: told before its files, each of which then comes as a file transfer of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Files in one folder, and folders in it, each.
pub const FOLDER_ENTRIES_MAX: usize = 10_000;

/// Longest manifest in bytes.
pub const MANIFEST_MAX: usize = 16 << 20;

/// Longest path in bytes.
const PATH_MAX: usize = 1024;

/// Longest part of a path in bytes: what common file systems take.
const PART_MAX: usize = 255;

/// Folders around a file.
const DEPTH_MAX: usize = 32;

/// The SHA-256 of a file's content; 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 32]);

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

impl FromStr for ContentHash {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 32];
        let pairs = text.as_bytes().chunks_exact(2);
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ManifestError::Hash);
        }
        for (byte, pair) in hash.iter_mut().zip(pairs) {
            let digits = std::str::from_utf8(pair).map_err(|_| ManifestError::Hash)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| ManifestError::Hash)?;
        }
        Ok(Self(hash))
    }
}

impl Serialize for ContentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A path inside a folder that leads nowhere else: parts joined by `/`, none of them empty, `.` or `..`, without
/// control characters and backslashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct RelativePath(String);

impl RelativePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its parts, from the outside in; at least one.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The paths of the folders around it, from the outside in.
    fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RelativePath {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unsafe_part = |part: &str| {
            part.is_empty()
                || part == "."
                || part == ".."
                || part.len() > PART_MAX
                || part.chars().any(|c| c.is_control() || c == '\\')
        };
        let is_bad =
            text.len() > PATH_MAX || text.split('/').count() > DEPTH_MAX || text.split('/').any(unsafe_part);
        if is_bad { Err(ManifestError::Path(shown(text))) } else { Ok(Self(text.to_owned())) }
    }
}

impl<'de> Deserialize<'de> for RelativePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The beginning of a path from a stranger, fit to be shown.
fn shown(path: &str) -> String {
    path.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// One file of a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderFile {
    /// Where it is.
    pub path: RelativePath,
    /// Its length in bytes.
    pub size: u64,
    /// Its content. Files with the same content are sent once.
    pub sha256: ContentHash,
    /// Whether its owner may run it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// All files of a folder, and the folders that are empty. No two paths are the same for a file system that does not tell
/// upper from lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Manifest {
    files: Vec<FolderFile>,
    folders: Vec<RelativePath>,
}

/// As it arrives: anything may be wrong with it.
#[derive(Deserialize)]
struct Unchecked {
    files: Vec<FolderFile>,
    #[serde(default)]
    folders: Vec<RelativePath>,
}

impl Manifest {
    /// A manifest of these files and empty folders, in order of their paths: the same folder has the same manifest.
    ///
    /// # Errors
    /// [`ManifestError`] when there are too many, or two that exclude each other.
    pub fn new(mut files: Vec<FolderFile>, mut folders: Vec<RelativePath>) -> Result<Self, ManifestError> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        folders.sort();
        Self::check(files, folders)
    }

    /// Reads the manifest that a peer sent.
    ///
    /// # Errors
    /// [`ManifestError`]; its text is fit for the peer and the log.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MANIFEST_MAX {
            return Err(ManifestError::TooMany);
        }
        let unchecked: Unchecked =
            serde_json::from_slice(bytes).map_err(|error| ManifestError::Json(shown(&error.to_string())))?;
        Self::check(unchecked.files, unchecked.folders)
    }

    fn check(files: Vec<FolderFile>, folders: Vec<RelativePath>) -> Result<Self, ManifestError> {
        if files.len() > FOLDER_ENTRIES_MAX || folders.len() > FOLDER_ENTRIES_MAX {
            return Err(ManifestError::TooMany);
        }
        let manifest = Self { files, folders };
        let sizes = manifest.files.iter().try_fold(0u64, |sum, file| sum.checked_add(file.size));
        sizes.ok_or(ManifestError::TooLarge)?;
        manifest.check_paths()?;
        let mut sizes = BTreeMap::new();
        for file in &manifest.files {
            if *sizes.entry(file.sha256).or_insert(file.size) != file.size {
                return Err(ManifestError::Hash);
            }
        }
        Ok(manifest)
    }

    fn check_paths(&self) -> Result<(), ManifestError> {
        let mut seen = Spellings::default();
        for file in &self.files {
            file.path.folders().try_for_each(|folder| seen.add(folder, false))?;
            seen.add(&file.path.0, true)?;
        }
        for path in &self.folders {
            path.folders().chain([path.as_str()]).try_for_each(|folder| seen.add(folder, false))?;
        }
        Ok(())
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[FolderFile] {
        &self.files
    }

    /// The folders without files.
    #[must_use]
    pub fn folders(&self) -> &[RelativePath] {
        &self.folders
    }

    /// The different contents with their lengths, in the order in which the files first name them.
    #[must_use]
    pub fn contents(&self) -> Vec<(ContentHash, u64)> {
        let mut seen = std::collections::BTreeSet::new();
        let new = self.files.iter().filter(|file| seen.insert(file.sha256));
        new.map(|file| (file.sha256, file.size)).collect()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// The manifest as it is sent.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Paths by their spelling in lower case: how each was spelled first, and whether it is a file.
#[derive(Default)]
struct Spellings<'a>(BTreeMap<String, (&'a str, bool)>);

impl<'a> Spellings<'a> {
    fn add(&mut self, path: &'a str, is_file: bool) -> Result<(), ManifestError> {
        match self.0.insert(path.to_lowercase(), (path, is_file)) {
            None => Ok(()),
            // A folder may be named by everything in it, in one spelling.
            Some(earlier) if !is_file && earlier == (path, false) => Ok(()),
            Some(_) => Err(ManifestError::Twice(shown(path))),
        }
    }
}

/// Which contents of a manifest a receiver holds already, in the order of [`Manifest::contents`]: one bit for each, the
/// first one in the lowest bit of the first byte. What is missing at the end is not held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held(Vec<u8>);

impl Held {
    /// Reads what came with [`TransferWord::Held`](super::TransferWord::Held).
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The same as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether content number `index` is held.
    #[must_use]
    pub fn has(&self, index: usize) -> bool {
        self.0.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// Notes that content number `index` is held.
    pub fn insert(&mut self, index: usize) {
        if self.0.len() <= index / 8 {
            self.0.resize(index / 8 + 1, 0);
        }
        if let Some(byte) = self.0.get_mut(index / 8) {
            *byte |= 1 << (index % 8);
        }
    }
}

/// A folder that cannot be sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON of a manifest.
    #[error("no manifest of a folder: {0}")]
    Json(String),
    /// A path that leads elsewhere or is too long or deep.
    #[error("unsafe path in the folder: `{0}`")]
    Path(String),
    /// A path that another one excludes.
    #[error("the folder has `{0}` twice, or in upper and lower case, or as file and folder")]
    Twice(String),
    /// A hash that is none, or is given for two lengths.
    #[error("a hash in the manifest cannot be right")]
    Hash,
    /// Over [`FOLDER_ENTRIES_MAX`] or [`MANIFEST_MAX`].
    #[error("the folder has more than {max} files", max = FOLDER_ENTRIES_MAX)]
    TooMany,
    /// More bytes than a number can hold.
    #[error("the sizes in the manifest cannot be right")]
    TooLarge,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> FolderFile {
        FolderFile {
            path: path.parse().unwrap(),
            size: 3,
            sha256: ContentHash([7; 32]),
            executable: path.ends_with(".sh"),
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_order_of_the_files_does_not_matter() {
        let folders = vec!["empty/inner".parse().unwrap()];
        let manifest = Manifest::new(vec![file("b.sh"), file("a/ö.txt")], folders.clone()).unwrap();
        assert_eq!(Manifest::parse(&manifest.to_json()), Ok(manifest.clone()));
        assert_eq!(Manifest::new(vec![file("a/ö.txt"), file("b.sh")], folders).unwrap(), manifest);
        assert_eq!((manifest.bytes(), manifest.contents().len()), (6, 1));
        assert!(manifest.files()[1].executable);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        let deep = ["d"; 33].join("/");
        let long = "n".repeat(256);
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../../x",
            "a//b",
            "a/",
            "./a",
            "a\\b",
            "a\0b",
            "a\x1b[2J",
            &deep,
            &long,
        ] {
            assert!(bad.parse::<RelativePath>().is_err(), "{bad:?}");
            let json = serde_json::json!({"files": [{"path": bad, "size": 1, "sha256": "0".repeat(64)}]});
            assert!(Manifest::parse(json.to_string().as_bytes()).is_err(), "{bad:?}");
        }
        for good in ["a", ".git/config", "-x", "a b/ö..txt", "..."] {
            assert!(good.parse::<RelativePath>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn paths_that_exclude_each_other_are_refused() {
        for pair in [["a", "a"], ["A", "a"], ["a", "a/b"], ["a/b", "a"], ["A/x", "a/y"], ["Ä", "ä"]] {
            let files = pair.map(file).to_vec();
            assert!(matches!(Manifest::new(files, Vec::new()), Err(ManifestError::Twice(_))), "{pair:?}");
        }
        let folder = |path: &str| vec![path.parse().unwrap()];
        assert!(Manifest::new(vec![file("a")], folder("a/b")).is_err());
        assert!(Manifest::new(vec![file("a")], folder("A")).is_err());
        assert!(Manifest::new(vec![file("a/b")], folder("a")).is_ok());
        assert!(Manifest::new(vec![file("a/b"), file("a/c")], folder("a/d")).is_ok());
    }

    #[test]
    fn a_manifest_that_cannot_be_right_is_refused() {
        let entry = |size: u64, hash: &str| serde_json::json!({"path": hash, "size": size, "sha256": hash});
        let hash = "a".repeat(64);
        let other = "b".repeat(64);
        let parse = |files: Vec<serde_json::Value>| {
            Manifest::parse(serde_json::json!({ "files": files }).to_string().as_bytes())
        };
        assert_eq!(parse(vec![entry(u64::MAX, &hash), entry(1, &other)]), Err(ManifestError::TooLarge));
        assert!(parse(vec![entry(1, "abc")]).is_err());
        let twice = serde_json::json!({"path": "x", "size": 2, "sha256": hash});
        assert_eq!(parse(vec![entry(1, &hash), twice]), Err(ManifestError::Hash));
        let many = (0..=FOLDER_ENTRIES_MAX).map(|number| file(&number.to_string())).collect();
        assert_eq!(Manifest::new(many, Vec::new()), Err(ManifestError::TooMany));
        for bad in [&b""[..], b"[]", b"{}", b"{\"files\":7}"] {
            assert!(matches!(Manifest::parse(bad), Err(ManifestError::Json(_))));
        }
    }

    #[test]
    fn what_is_held_is_one_bit_each() {
        let mut held = Held::default();
        for index in [0, 9, 17] {
            held.insert(index);
        }
        let read = Held::parse(held.as_bytes());
        let found: Vec<usize> = (0..40).filter(|index| read.has(*index)).collect();
        assert_eq!(found, [0, 9, 17]);
    }
}
