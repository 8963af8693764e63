//! Where tasks and their results lie: `~/.pilot/tasks`.
//!
//! | folder | what |
//! |---|---|
//! | `submitted`, `received` | one file per task |
//! | `results` | of our tasks: `<task>_result.txt`, `<task>_<file>` |
//! | `results/.partial` | files of results that are arriving |
//! | `outgoing` | of others' tasks, until they are delivered |

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use pilot_crypto::Sha256;
use pilot_wire::NodeId;
use pilot_wire::tasks::frame::{Digest, FILES_MAX, FileNote, FileStart};
use pilot_wire::tasks::{Category, TaskId};

use super::super::disk;
use super::super::received::SafeName;
use super::record::{Kept, Key, Outcome, Record};
use crate::files;

/// Longest file of a result in bytes.
pub(super) const FILE_MAX: u64 = 1 << 30;

/// Bytes of all results of our tasks, arriving or here. Beyond, files are refused until some are removed.
const RESULTS_MAX: u64 = 4 << 30;

/// How long a file that stopped arriving waits for its worker.
const PARTIAL_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Bytes read from a file at a time.
const READ_LEN: usize = 256 << 10;

/// File names are cut to this many bytes behind the name of the task.
const NAME_MAX: usize = 160;

/// Types of files that a result may be without being asked for twice: documents, models, data, pictures. No programs.
const TYPES: &[&str] = &[
    "md",
    "txt",
    "rtf",
    "docx",
    "pdf",
    "pptx",
    "pth",
    "pt",
    "onnx",
    "h5",
    "pb",
    "ckpt",
    "safetensors",
    "bin",
    "csv",
    "parquet",
    "xlsx",
    "xls",
    "jpg",
    "jpeg",
    "png",
    "svg",
    "gif",
    "webp",
];

/// Why a file is not taken. The text goes to the peer or the application, and names no path here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("file {0} of a result: the name leads elsewhere or is none")]
    Name(String),
    #[error("a file of a result has {FILE_MAX} bytes at most")]
    TooLarge,
    #[error("a result has {FILES_MAX} files at most")]
    TooMany,
    #[error("no room for more results")]
    Full,
    #[error("the bytes are not those that were announced")]
    Mismatch,
    #[error("file type {0:?} not allowed for results")]
    Type(String),
    #[error("{0} is no file")]
    NoFile(String),
    #[error("{0} cannot be read: {1}")]
    Unreadable(String, io::Error),
    #[error("the disk refuses")]
    Disk(#[from] io::Error),
}

/// The folders; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Folders {
    base: PathBuf,
    /// Bytes that files which are arriving may still take.
    reserved: Arc<Mutex<u64>>,
}

impl Folders {
    /// Makes what is missing and removes what was left half written.
    pub(super) fn open(home: &Path, now: SystemTime) -> io::Result<Self> {
        let folders = Self { base: home.join("tasks"), reserved: Arc::default() };
        for folder in ["submitted", "received", "results", "results/.partial", "outgoing"] {
            let folder = folders.base.join(folder);
            files::create_private_dir(&folder)?;
            disk::remove_temporaries(&folder);
        }
        for file in fs::read_dir(folders.partial())?.flatten() {
            let modified = file.metadata().and_then(|metadata| metadata.modified());
            if modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > PARTIAL_LIFE)) {
                // It takes space until then, nothing else.
                let _ = fs::remove_file(file.path());
            }
        }
        Ok(folders)
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.base.join("settings.json")
    }

    /// Where the results of our tasks are.
    pub(super) fn results(&self) -> PathBuf {
        self.base.join("results")
    }

    fn partial(&self) -> PathBuf {
        self.base.join("results/.partial")
    }

    fn outgoing(&self) -> PathBuf {
        self.base.join("outgoing")
    }

    /// Where the files of a task's result are.
    pub(super) fn results_of(&self, category: Category) -> PathBuf {
        match category {
            Category::Submitted => self.results(),
            Category::Received => self.outgoing(),
        }
    }

    fn task(&self, key: &Key) -> PathBuf {
        let folder = match key.category {
            Category::Submitted => "submitted",
            Category::Received => "received",
        };
        self.base.join(folder).join(format!("{}.json", key.id))
    }

    /// All tasks. A file that cannot be read is left alone and reported in the log.
    pub(super) fn load(&self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for (folder, category) in [("submitted", Category::Submitted), ("received", Category::Received)] {
            for file in fs::read_dir(self.base.join(folder))? {
                let path = file?.path();
                if path.extension().is_none_or(|extension| extension != "json") {
                    continue;
                }
                match Record::from_json(category, &fs::read(&path)?) {
                    Ok(record) if self.task(&record.key) == path => records.push(record),
                    Ok(_) => {
                        tracing::warn!(path = %path.display(), "the name of a task's file is not the task's")
                    }
                    Err(error) => tracing::warn!(path = %path.display(), %error, "a task cannot be read"),
                }
            }
        }
        self.sweep_outgoing(&records)?;
        Ok(records)
    }

    /// Removes copies for results that were never handed in.
    fn sweep_outgoing(&self, records: &[Record]) -> io::Result<()> {
        let used: BTreeSet<&str> = records
            .iter()
            .filter(|record| record.key.category == Category::Received)
            .flat_map(|record| record.outcome.iter().flat_map(names))
            .filter_map(|name| name.split('/').next())
            .collect();
        for folder in fs::read_dir(self.outgoing())? {
            let folder = folder?;
            if !used.contains(folder.file_name().to_string_lossy().as_ref()) {
                fs::remove_dir_all(folder.path())?;
            }
        }
        Ok(())
    }

    /// Writes a task; when it returns, it is on disk.
    pub(super) fn write(&self, record: &Record) -> io::Result<()> {
        files::replace(&self.task(&record.key), &record.to_json()?)
    }

    /// Removes a task that is over. What cannot be removed takes space, nothing else.
    pub(super) fn remove(&self, record: &Record) {
        let _ = fs::remove_file(self.task(&record.key));
        self.remove_results(record);
    }

    /// Removes the files of a task's result.
    pub(super) fn remove_results(&self, record: &Record) {
        let folder = self.results_of(record.key.category);
        for name in record.outcome.iter().flat_map(names) {
            let _ = fs::remove_file(folder.join(name));
            if let Some((own, _)) = name.split_once('/') {
                let _ = fs::remove_dir(folder.join(own));
            }
        }
    }

    /// The text of a result, if there is one.
    pub(super) fn text_of(&self, record: &Record) -> Option<String> {
        let name = record.outcome.as_ref()?.text.as_ref()?;
        let bytes = fs::read(self.results_of(record.key.category).join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

fn names(outcome: &Outcome) -> impl Iterator<Item = &str> {
    outcome.text.iter().map(String::as_str).chain(outcome.files.iter().map(|kept| kept.file.as_str()))
}

/// Results that arrive.
impl Folders {
    /// Keeps a text.
    pub(super) fn keep_text(&self, id: &TaskId, text: &str) -> io::Result<String> {
        let name = format!("{id}_result.txt");
        files::replace(&self.results().join(&name), text.as_bytes())?;
        Ok(name)
    }

    /// Keeps a small file that came in one piece.
    pub(super) fn keep_file(&self, id: &TaskId, name: &str, data: &[u8]) -> Result<Kept, Refused> {
        let name = safe(name)?;
        let reservation = self.reserve(data.len() as u64)?;
        let file = format!("{id}_{name}");
        files::replace(&self.results().join(&file), data)?;
        drop(reservation);
        Ok(Kept { name, file, size: data.len() as u64, sha256: Digest(Sha256::digest(data)) })
    }

    /// Begins or resumes a file. `id` must be a task whose results `from` may hand in.
    pub(super) fn begin(&self, from: NodeId, start: &FileStart) -> Result<Arriving, Refused> {
        safe(&start.file.name)?;
        if start.file.size > FILE_MAX {
            return Err(Refused::TooLarge);
        }
        if usize::from(start.index) >= FILES_MAX {
            return Err(Refused::TooMany);
        }
        let place = self.place(from, &start.task_id, start.index);
        let wanted = format!("{place}.{}", &start.file.sha256.to_string()[..32]);
        // Another file in this place is one that was replaced.
        for file in fs::read_dir(self.partial())?.flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.strip_prefix(&place).is_some_and(|rest| rest.starts_with('.'))
                && !name.starts_with(&wanted)
            {
                fs::remove_file(file.path())?;
            }
        }
        let path = self.partial().join(wanted);
        let whole = whole(&path);
        let size = start.file.size;
        if whole.metadata().is_ok_and(|metadata| metadata.len() == size) {
            return Ok(Arriving::Here);
        }
        let held = path.metadata().map_or(0, |metadata| metadata.len()).min(size);
        let reservation = self.reserve(size - held)?;
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        file.set_len(held)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ_LEN];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        Ok(Arriving::Begun(Box::new(Incoming {
            file,
            path,
            written: held,
            size,
            sha256: start.file.sha256,
            hasher,
            _reservation: reservation,
        })))
    }

    fn place(&self, from: NodeId, id: &TaskId, index: u8) -> String {
        format!("{from}-{id}-{index}")
    }

    /// Puts the files that have arrived where the results are. `None` if one is missing.
    pub(super) fn adopt(
        &self,
        from: NodeId,
        id: &TaskId,
        notes: &[FileNote],
        text: Option<&String>,
    ) -> Result<Option<Vec<Kept>>, Refused> {
        if notes.len() > FILES_MAX {
            return Err(Refused::TooMany);
        }
        let mut taken: BTreeSet<String> = text.cloned().into_iter().collect();
        let mut moves = Vec::new();
        for (index, note) in notes.iter().enumerate() {
            let index = u8::try_from(index).unwrap_or(u8::MAX);
            let place = self.place(from, id, index);
            let path = self.partial().join(format!("{place}.{}", &note.sha256.to_string()[..32]));
            let name = safe(&note.name)?;
            let mut file = format!("{id}_{name}");
            if taken.contains(&file) {
                file = format!("{id}_{index}_{name}");
            }
            taken.insert(file.clone());
            let target = self.results().join(&file);
            let arrived = whole(&path);
            // It is there already if the answer to these very results was lost.
            if !arrived.exists() && !target.exists() {
                return Ok(None);
            }
            moves.push((arrived, target));
        }
        let mut kept = Vec::new();
        for ((arrived, target), note) in moves.into_iter().zip(notes) {
            if arrived.exists() {
                fs::rename(&arrived, &target)?;
            }
            let file = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            kept.push(Kept { name: safe(&note.name)?, file, size: note.size, sha256: note.sha256 });
        }
        File::open(self.results())?.sync_all()?;
        Ok(Some(kept))
    }

    fn reserve(&self, length: u64) -> Result<Reservation, Refused> {
        let mut used = 0u64;
        for folder in [self.results(), self.partial()] {
            for file in fs::read_dir(folder)? {
                let metadata = file?.metadata()?;
                used = used.saturating_add(if metadata.is_file() { metadata.len() } else { 0 });
            }
        }
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if used.saturating_add(*reserved).saturating_add(length) > RESULTS_MAX {
            return Err(Refused::Full);
        }
        *reserved += length;
        Ok(Reservation { reserved: Arc::clone(&self.reserved), length })
    }
}

/// Room for a file that is arriving.
#[derive(Debug)]
struct Reservation {
    reserved: Arc<Mutex<u64>>,
    length: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        *reserved = reserved.saturating_sub(self.length);
    }
}

/// What there is of a file.
pub(super) enum Arriving {
    /// All of it.
    Here,
    /// The beginning, or nothing.
    Begun(Box<Incoming>),
}

/// A file that is arriving.
pub(super) struct Incoming {
    file: File,
    path: PathBuf,
    written: u64,
    size: u64,
    sha256: Digest,
    hasher: Sha256,
    _reservation: Reservation,
}

impl Incoming {
    /// Bytes that are here.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Takes a piece; true once all is here, checked and on disk. Blocks on the disk.
    pub(super) fn write(&mut self, data: &[u8]) -> Result<bool, Refused> {
        let end = self.written + data.len() as u64;
        if end > self.size {
            return Err(Refused::Mismatch);
        }
        self.file.write_all(data)?;
        self.hasher.update(data);
        self.written = end;
        self.is_whole()
    }

    /// Whether nothing is missing; such a file is checked and put aside. Blocks on the disk.
    pub(super) fn is_whole(&mut self) -> Result<bool, Refused> {
        if self.written < self.size {
            return Ok(false);
        }
        if self.hasher.clone().finish() != self.sha256.0 {
            fs::remove_file(&self.path)?;
            return Err(Refused::Mismatch);
        }
        self.file.sync_all()?;
        fs::rename(&self.path, whole(&self.path))?;
        Ok(true)
    }
}

fn whole(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".whole");
    name.into()
}

/// Results that leave.
impl Folders {
    /// Copies what a worker hands in, so that it may change or remove its files. `number` names the copies.
    pub(super) fn copy_out(
        &self,
        id: &TaskId,
        number: u64,
        text: Option<&str>,
        paths: &[String],
        any_type: bool,
    ) -> Result<Outcome, Refused> {
        if paths.len() > FILES_MAX {
            return Err(Refused::TooMany);
        }
        for path in paths {
            let (_, extension) = named(path)?;
            if !any_type && !TYPES.contains(&extension.as_str()) {
                return Err(Refused::Type(format!(".{extension}")));
            }
        }
        let own = format!("{id}-{number:016x}");
        let folder = self.outgoing().join(&own);
        files::create_private_dir(&folder)?;
        let copied = self.copy_into(&folder, &own, text, paths);
        if copied.is_err() {
            // What is left is removed at the next start.
            let _ = fs::remove_dir_all(&folder);
        }
        copied
    }

    fn copy_into(
        &self,
        folder: &Path,
        own: &str,
        text: Option<&str>,
        paths: &[String],
    ) -> Result<Outcome, Refused> {
        let mut outcome = Outcome::default();
        if let Some(text) = text {
            files::replace(&folder.join("text"), text.as_bytes())?;
            outcome.text = Some(format!("{own}/text"));
        }
        for (index, path) in paths.iter().enumerate() {
            let (name, _) = named(path)?;
            let unreadable = |error| Refused::Unreadable(path.clone(), error);
            let mut source = File::open(path).map_err(unreadable)?;
            let metadata = source.metadata().map_err(unreadable)?;
            if !metadata.is_file() {
                return Err(Refused::NoFile(path.clone()));
            }
            if metadata.len() > FILE_MAX {
                return Err(Refused::TooLarge);
            }
            let mut target = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(folder.join(index.to_string()))?;
            let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0u64, vec![0; READ_LEN]);
            loop {
                let read = source.read(&mut buffer).map_err(unreadable)?;
                if read == 0 {
                    break;
                }
                size += read as u64;
                if size > FILE_MAX {
                    return Err(Refused::TooLarge);
                }
                hasher.update(&buffer[..read]);
                target.write_all(&buffer[..read])?;
            }
            target.sync_all()?;
            let sha256 = Digest(hasher.finish());
            outcome.files.push(Kept { name, file: format!("{own}/{index}"), size, sha256 });
        }
        File::open(folder)?.sync_all()?;
        File::open(self.outgoing())?.sync_all()?;
        Ok(outcome)
    }

    /// A file of a result that leaves.
    pub(super) fn outgoing_file(&self, kept: &Kept) -> PathBuf {
        self.outgoing().join(&kept.file)
    }
}

/// The name a path ends in, made safe, and its extension in lower case.
fn named(path: &str) -> Result<(String, String), Refused> {
    let bad = || Refused::Name(path.to_owned());
    let name = Path::new(path).file_name().and_then(|name| name.to_str()).ok_or_else(bad)?;
    let safe = SafeName::parse(name.as_bytes()).map_err(|_| bad())?;
    let (name, extension) = safe.parts();
    let extension = extension.to_ascii_lowercase();
    Ok((name, extension))
}

/// A name from a peer that is one component and does nothing in a terminal; its end is kept when it is cut.
fn safe(name: &str) -> Result<String, Refused> {
    let bad = || Refused::Name(name.chars().filter(|c| !c.is_control()).take(64).collect());
    let (name, _) = SafeName::parse(name.as_bytes()).map_err(|_| bad())?.parts();
    let from = name.len().saturating_sub(NAME_MAX);
    let from = (from..=name.len()).find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    Ok(name[from..].to_owned())
}
