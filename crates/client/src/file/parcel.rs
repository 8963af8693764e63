//! What is sent: a file, or a folder with all files in it; found, hashed and named before the first byte leaves.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use pilot_crypto::Sha256;
use pilot_wire::dataexchange::{
    CHUNK_LEN, ContentHash, FOLDER_ENTRIES_MAX, FileStream, FolderFile, Init, Manifest, RelativePath,
    TransferId,
};
use pilot_wire::ipc::{Code, Failure};

use super::on_disk;
use crate::Error;

/// Bytes read from disk at a time for a hash.
const READ_LEN: usize = 256 << 10;

/// Something to be sent.
pub(super) struct Parcel {
    /// As the receiver shall see it.
    pub(super) name: String,
    /// Of the file, or of the manifest.
    pub(super) sha256: ContentHash,
    /// What has to be sent: each content once.
    pub(super) sources: Vec<Source>,
    /// What the sources are put together to.
    pub(super) folder: Option<OutgoingFolder>,
}

/// The folder that is sent.
pub(super) struct OutgoingFolder {
    /// Its manifest as JSON.
    pub(super) manifest: Bytes,
    /// Its files.
    pub(super) files: u64,
    /// Bytes of all of them.
    pub(super) bytes: u64,
    /// What is in it and cannot be sent: links, sockets and the like.
    pub(super) skipped: Vec<String>,
}

/// One content on disk.
pub(super) struct Source {
    path: PathBuf,
    /// Kept open for a single file: it may be removed meanwhile.
    file: Option<Arc<File>>,
    pub(super) size: u64,
    pub(super) sha256: ContentHash,
    stamp: Stamp,
}

/// By what one sees that a file was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl Parcel {
    /// Opens a file, or looks through a folder, and computes the hashes.
    pub(super) async fn open(path: &Path, name: &str) -> Result<Self, Error> {
        let (path, name) = (path.to_owned(), name.to_owned());
        let opened = on_disk(move || Ok(open(&path, name))).await;
        opened.map_err(Error::from)?
    }

    /// Bytes of the sources.
    pub(super) fn size(&self) -> u64 {
        self.sources.iter().map(|source| source.size).sum()
    }

    /// Bytes of the file, or of all files in the folder.
    pub(super) fn bytes(&self) -> u64 {
        self.folder.as_ref().map_or_else(|| self.size(), |folder| folder.bytes)
    }
}

fn open(path: &Path, name: String) -> Result<Parcel, Error> {
    let unreadable = |error: &io::Error| unreadable(path, error);
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let metadata = file.metadata().map_err(|error| unreadable(&error))?;
    if metadata.is_dir() {
        return open_folder(path, name);
    }
    if !metadata.is_file() {
        return Err(unreadable(&io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let (size, sha256, stamp) = hash(&file).map_err(|error| unreadable(&error))?;
    let source = Source { path: path.to_owned(), file: Some(Arc::new(file)), size, sha256, stamp };
    Ok(Parcel { name, sha256, sources: vec![source], folder: None })
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::PermissionDenied => Code::PermissionDenied,
        _ => Code::InvalidArgument,
    };
    Failure::new(code, format!("cannot read {}: {error}", path.display())).into()
}

fn open_folder(path: &Path, name: String) -> Result<Parcel, Error> {
    let found = look_through(path)?;
    let mut files = Vec::new();
    let mut sources: Vec<Source> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (relative, path, executable) in found.files {
        let hashed = File::open(&path).and_then(|file| hash(&file));
        let (size, sha256, stamp) = hashed.map_err(|error| unreadable(&path, &error))?;
        files.push((FolderFile { path: relative, size, sha256, executable }, path, stamp));
    }
    // The manifest's order is that of the paths, and contents are counted in it.
    files.sort_by(|a, b| a.0.path.cmp(&b.0.path));
    for (file, path, stamp) in &files {
        if seen.insert(file.sha256) {
            let (path, stamp) = (path.clone(), *stamp);
            sources.push(Source { path, file: None, size: file.size, sha256: file.sha256, stamp });
        }
    }
    let files = files.into_iter().map(|(file, ..)| file).collect();
    let manifest = Manifest::new(files, found.empty)
        .map_err(|error| Failure::new(Code::InvalidArgument, format!("{}: {error}", path.display())))?;
    let json = Bytes::from(manifest.to_json());
    let folder = OutgoingFolder {
        files: manifest.files().len() as u64,
        bytes: manifest.bytes(),
        skipped: found.skipped,
        manifest: json.clone(),
    };
    Ok(Parcel { name, sha256: ContentHash(Sha256::digest(&json)), sources, folder: Some(folder) })
}

/// What is in a folder.
#[derive(Default)]
struct Found {
    files: Vec<(RelativePath, PathBuf, bool)>,
    empty: Vec<RelativePath>,
    skipped: Vec<String>,
}

fn look_through(root: &Path) -> Result<Found, Error> {
    let mut found = Found::default();
    let mut folders: Vec<(Option<RelativePath>, PathBuf)> = vec![(None, root.to_owned())];
    let mut entries = 0;
    while let Some((relative, path)) = folders.pop() {
        let mut is_empty = true;
        for entry in fs::read_dir(&path).map_err(|error| unreadable(&path, &error))? {
            let entry = entry.map_err(|error| unreadable(&path, &error))?;
            is_empty = false;
            entries += 1;
            if entries > 2 * FOLDER_ENTRIES_MAX {
                let failure = Failure::new(
                    Code::InvalidArgument,
                    format!("{} has more than {FOLDER_ENTRIES_MAX} files", root.display()),
                );
                return Err(failure.with_hint("pack it first: tar").into());
            }
            let inside = name_inside(relative.as_ref(), &entry)?;
            let metadata = entry.metadata().map_err(|error| unreadable(&entry.path(), &error))?;
            if metadata.is_dir() {
                folders.push((Some(inside), entry.path()));
            } else if metadata.is_file() {
                found.files.push((inside, entry.path(), metadata.permissions().mode() & 0o100 != 0));
            } else {
                found.skipped.push(inside.to_string());
            }
        }
        if let (true, Some(relative)) = (is_empty, relative) {
            found.empty.push(relative);
        }
    }
    found.skipped.sort();
    Ok(found)
}

fn name_inside(folder: Option<&RelativePath>, entry: &fs::DirEntry) -> Result<RelativePath, Error> {
    let unfit = |why: &str| {
        let failure =
            Failure::new(Code::InvalidArgument, format!("{} cannot be sent: {why}", entry.path().display()));
        Error::from(failure.with_hint("rename it, or pack the folder first: tar"))
    };
    let name = entry.file_name();
    let name = name.to_str().ok_or_else(|| unfit("its name is not UTF-8"))?;
    let path = folder.map_or_else(|| name.to_owned(), |folder| format!("{folder}/{name}"));
    path.parse().map_err(|_| unfit("a name with control characters or `\\`, or too deep or long a path"))
}

/// Length and hash, and by what one sees later whether they are still right.
fn hash(file: &File) -> io::Result<(u64, ContentHash, Stamp)> {
    let stamp = Stamp::of(&file.metadata()?);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_LEN];
    let mut size = 0;
    loop {
        let read = file.read_at(&mut buffer, size)?;
        if read == 0 {
            return Ok((size, ContentHash(hash.finish()), stamp));
        }
        hash.update(&buffer[..read]);
        size += read as u64;
    }
}

impl Source {
    /// Names it in the steps of its transfer.
    pub(super) fn id(&self) -> TransferId {
        TransferId::of(&self.sha256.0)
    }

    /// The announcement.
    pub(super) fn init(&self, name: &str) -> FileStream {
        FileStream::Init(Init {
            id: self.id(),
            size: self.size,
            sha256: self.sha256.0,
            chunk: CHUNK_LEN,
            name: Bytes::from(name.to_owned()),
        })
    }

    /// The file, open.
    pub(super) async fn file(&self) -> Result<Arc<File>, Error> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let path = self.path.clone();
        let opened = on_disk(move || File::open(path)).await;
        opened.map(Arc::new).map_err(|error| unreadable(&self.path, &error))
    }

    /// What is said when the file is not any more what was hashed.
    pub(super) fn changed(&self) -> Error {
        let failure =
            Failure::new(Code::InvalidArgument, format!("{} changed while it was sent", self.path.display()));
        failure.with_hint("send it again when nobody writes to it, or send a copy").into()
    }

    /// Whether the file is still what was hashed, as far as one sees without reading it.
    pub(super) async fn is_unchanged(&self) -> bool {
        let Ok(file) = self.file().await else { return false };
        let metadata = on_disk(move || file.metadata()).await;
        metadata.is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }

    /// The frames of whole chunks from `offset` to `end` (the last of the file may be short), and where the next begins.
    pub(super) async fn chunks(
        &self,
        file: Arc<File>,
        offset: u64,
        end: u64,
    ) -> Result<(Vec<u8>, u64), Error> {
        let (id, size) = (self.id(), self.size);
        let read = on_disk(move || {
            let mut frames = Vec::new();
            let mut at = offset;
            while at < end {
                let length = u64::from(CHUNK_LEN).min(size - at);
                if at + length > end {
                    break;
                }
                let mut data = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
                file.read_exact_at(&mut data, at)?;
                FileStream::Chunk { id, offset: at, data: data.into() }.emit(&mut frames);
                at += length;
            }
            Ok((frames, at))
        });
        read.await.map_err(|_| self.changed())
    }

    /// The whole file, which is known to be small.
    pub(super) async fn whole(&self) -> Result<Bytes, Error> {
        let (file, size) = (self.file().await?, self.size);
        let read = on_disk(move || {
            let mut data = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut data, 0)?;
            Ok(data)
        });
        read.await.map(Bytes::from).map_err(|_| self.changed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_the_same_parcel_each_time_and_each_content_is_in_it_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("project");
        fs::create_dir_all(root.join("deep/empty")).unwrap();
        fs::write(root.join("b.txt"), "same").unwrap();
        fs::write(root.join("deep/a.txt"), "same").unwrap();
        fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        let parcel = Parcel::open(&root, "project").await.unwrap();
        let folder = parcel.folder.as_ref().unwrap();
        let manifest = Manifest::parse(&folder.manifest).unwrap();
        let paths: Vec<_> =
            manifest.files().iter().map(|file| (file.path.as_str(), file.executable)).collect();
        assert_eq!(paths, [("b.txt", false), ("deep/a.txt", false), ("run.sh", true)]);
        assert_eq!(manifest.folders()[0].as_str(), "deep/empty");
        assert_eq!(folder.skipped, ["link"]);
        assert_eq!((folder.files, folder.bytes, parcel.size()), (3, 18, 14));
        let contents: Vec<_> = parcel.sources.iter().map(|source| (source.sha256, source.size)).collect();
        assert_eq!(contents, manifest.contents());
        assert_eq!(Parcel::open(&root, "project").await.unwrap().sha256, parcel.sha256);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_rebuilt_elsewhere_is_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("a\\b"), "").unwrap();
        let error = Parcel::open(directory.path(), "x").await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.to_string().contains("cannot be sent"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_file_and_what_is_not_there_are_told_apart() {
        let nothing = Parcel::open(Path::new("/nonexistent/x"), "x").await.err().unwrap();
        assert_eq!(nothing.code(), Code::NotFound);
        let device = Parcel::open(Path::new("/dev/null"), "x").await.err().unwrap();
        assert_eq!(device.code(), Code::InvalidArgument);
    }

    #[tokio::test]
    async fn a_file_that_was_changed_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        fs::write(&path, "one").unwrap();
        let parcel = Parcel::open(&path, "f").await.unwrap();
        assert!(parcel.sources[0].is_unchanged().await);
        fs::write(&path, "other").unwrap();
        assert!(!parcel.sources[0].is_unchanged().await);
    }
}
