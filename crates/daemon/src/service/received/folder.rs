//! A folder that is being received: its contents are gathered one by one, and the folder is built of them when all are
//! there.
//!
//! ```text
//! .partial/dir-<node>-<id>/
//!     contents/<sha256>         complete, checked and synced
//!     contents/<sha256>.part    being received
//!     tree/                     the folder as it will be, built at the end; then renamed into its place
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pilot_wire::dataexchange::{ContentHash, FolderFile, Held, Init, Manifest, TransferId};
use tokio::sync::watch;

use super::super::disk::Refusal;
use super::partial::{Partial, TransferError};
use super::records::Origin;
use super::space::Space;
use super::{Complete, SafeName, TransferKey};

/// A folder under way: held by the connection that receives it.
pub(in crate::service) struct Folder {
    pub(super) key: TransferKey,
    pub(super) origin: Origin,
    pub(super) name: SafeName,
    pub(super) announced: String,
    pub(super) sha256: ContentHash,
    manifest: Manifest,
    contents: BTreeMap<TransferId, (ContentHash, u64)>,
    directory: PathBuf,
    space: Space,
    alive: watch::Sender<()>,
}

/// What one content of a folder is received into.
pub(in crate::service) enum Content {
    /// Go on from what it has.
    Missing(Box<Partial>),
    /// It is complete.
    Held,
}

impl std::fmt::Debug for Folder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Folder").field("key", &self.key).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is told of a folder before its files.
pub(in crate::service) struct Announced {
    /// The name its sender gave it.
    pub(in crate::service) name: SafeName,
    /// The same, as it was said.
    pub(in crate::service) said: String,
    /// The files.
    pub(in crate::service) manifest: Manifest,
    /// Hash of the manifest as it came.
    pub(in crate::service) sha256: ContentHash,
}

impl Folder {
    /// Opens what an earlier connection left in `directory`, or begins.
    pub(super) fn open(
        key: TransferKey,
        origin: Origin,
        announced: Announced,
        directory: PathBuf,
        space: Space,
        alive: watch::Sender<()>,
    ) -> io::Result<Self> {
        crate::files::create_private_dir(&directory.join("contents"))?;
        let Announced { name, said, manifest, sha256 } = announced;
        let contents = manifest
            .contents()
            .into_iter()
            .map(|(hash, size)| (TransferId::of(&hash.0), (hash, size)))
            .collect();
        Ok(Self { key, origin, name, announced: said, sha256, manifest, contents, directory, space, alive })
    }

    fn content(&self, hash: ContentHash) -> PathBuf {
        self.directory.join("contents").join(hash.to_string())
    }

    fn has(&self, hash: ContentHash, size: u64) -> bool {
        fs::symlink_metadata(self.content(hash)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Which contents are complete. Blocks on the disk.
    pub(in crate::service) fn held(&self) -> Held {
        let mut held = Held::default();
        for (index, (hash, size)) in self.manifest.contents().into_iter().enumerate() {
            if size == 0 || self.has(hash, size) {
                held.insert(index);
            }
        }
        held
    }

    /// Begins or resumes one content. Blocks on the disk.
    pub(in crate::service) fn begin(&self, init: &Init) -> Result<Content, TransferError> {
        let announced = self.contents.get(&init.id);
        let Some((hash, size)) = announced.filter(|(hash, size)| hash.0 == init.sha256 && *size == init.size)
        else {
            return Err(TransferError::Foreign);
        };
        if self.has(*hash, *size) {
            return Ok(Content::Held);
        }
        let path = self.content(*hash).with_extension("part");
        let opened = Partial::open(path, *size, hash.0, self.space.clone());
        let mut partial = opened.map_err(|error| Refusal::storage(&error))?;
        partial.prepare()?;
        Ok(Content::Missing(Box::new(partial)))
    }

    /// Checks a content and keeps it. Blocks on the disk.
    pub(in crate::service) fn keep(partial: Partial) -> Result<(), TransferError> {
        let path = partial.complete()?;
        fs::rename(&path, path.with_extension("")).map_err(|error| Refusal::storage(&error).into())
    }

    /// Builds the folder of its contents, durably, beside its place. Blocks on the disk.
    pub(in crate::service) fn build(self) -> Result<Complete, TransferError> {
        let missing: u64 = self
            .contents
            .values()
            .filter(|(hash, size)| *size > 0 && !self.has(*hash, *size))
            .map(|(_, size)| size)
            .sum();
        let size = self.manifest.bytes();
        if missing > 0 {
            return Err(TransferError::Incomplete { written: size.saturating_sub(missing), size });
        }
        let tree = self.directory.join("tree");
        self.build_in(&tree).map_err(|error| Refusal::storage(&error))?;
        Ok(Complete {
            key: self.key,
            origin: self.origin,
            name: self.name,
            announced: self.announced,
            sha256: self.sha256,
            path: tree,
            bytes: size,
            files: Some(self.manifest.files().len() as u64),
            message_id: None,
            remains: Some(self.directory),
            alive: self.alive,
        })
    }

    fn build_in(&self, tree: &Path) -> io::Result<()> {
        match fs::remove_dir_all(tree) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        crate::files::create_private_dir(tree)?;
        let mut folders = BTreeSet::from([tree.to_owned()]);
        let mut used = BTreeSet::new();
        for folder in self.manifest.folders() {
            make_folders(tree, folder.parts(), &mut folders)?;
        }
        for file in self.manifest.files() {
            let depth = file.path.parts().count() - 1;
            let folder = make_folders(tree, file.path.parts().take(depth), &mut folders)?;
            let path = folder.join(file.path.parts().last().unwrap_or_default());
            self.place(file, &path, used.insert(file.sha256))?;
        }
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
    }

    /// Puts one file into the tree. The first use of a content is the content itself; it stays where it was, too, in case this
    /// process ends before the folder is in its place.
    fn place(&self, file: &FolderFile, path: &Path, is_first: bool) -> io::Result<()> {
        if file.size == 0 {
            File::create_new(path)?;
        } else if !is_first || fs::hard_link(self.content(file.sha256), path).is_err() {
            let mut copy = File::create_new(path)?;
            self.space.check(&copy, file.size).map_err(|_| io::Error::from(io::ErrorKind::StorageFull))?;
            io::copy(&mut File::open(self.content(file.sha256))?, &mut copy)?;
        }
        fs::set_permissions(path, Permissions::from_mode(if file.executable { 0o700 } else { 0o600 }))?;
        File::open(path)?.sync_all()
    }
}

/// Makes folders inside each other, each private and none through a link: the tree is new and nobody else's.
fn make_folders<'a>(
    tree: &Path,
    parts: impl Iterator<Item = &'a str>,
    made: &mut BTreeSet<PathBuf>,
) -> io::Result<PathBuf> {
    let mut folder = tree.to_owned();
    for part in parts {
        folder.push(part);
        if made.insert(folder.clone()) {
            DirBuilder::new().mode(0o700).create(&folder)?;
        }
    }
    Ok(folder)
}
