//! What the message files cannot hold, on disk: which ids were stored, and which messages were read.
//!
//! The file can be done without: the messages themselves are files of their own. So one that is damaged is put aside
//! with a word in the log, and what it held is forgotten.

use std::io;
use std::panic;
use std::path::{Path, PathBuf};

use pilot_wire::NodeId;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::ring::{Print, Seen};

/// Sender and fingerprint of each id, by number.
const SEEN: TableDefinition<'_, u64, (u32, u128)> = TableDefinition::new("seen");
/// When a message was read (nanoseconds since 1970; 0: it is unread again), and whether its sender was told. By its
/// name in the inbox.
const MARKS: TableDefinition<'_, &str, (u64, bool)> = TableDefinition::new("marks");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;
/// The latest time of arrival, nanoseconds since 1970.
const LAST_NS: &str = "last_ns";
/// Memory for pages, in bytes.
const CACHE: usize = 2 << 20;

/// Whether a message was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Mark {
    /// Nanoseconds since 1970.
    pub(super) read_ns: Option<u64>,
    /// Its sender knows.
    pub(super) told: bool,
}

/// What is written at once.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) seen: Vec<Seen>,
    /// Numbers.
    pub(super) forgotten: Vec<u64>,
    /// `None`: the message is gone.
    pub(super) marks: Vec<(String, Option<Mark>)>,
    pub(super) last_ns: Option<u64>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.seen.is_empty() && self.forgotten.is_empty() && self.marks.is_empty() && self.last_ns.is_none()
    }
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// In the order of numbers.
    pub(super) seen: Vec<Seen>,
    pub(super) marks: Vec<(String, Mark)>,
    pub(super) last_ns: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Table {
    database: Database,
}

impl Table {
    /// Opens or makes the file, and reads it. Waits for another owner in this process to let go of it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Written)> {
        match Self::open_sound(path) {
            Err(Problem::Io(error)) => Err(error),
            Ok(opened) => Ok(opened),
            Err(Problem::Damaged(reason)) => {
                let aside = aside(path);
                tracing::error!(
                    file = %path.display(), aside = %aside.display(), reason,
                    "what was remembered of messages is damaged; a repeated message may be stored twice"
                );
                std::fs::rename(path, aside)?;
                Self::open_sound(path).map_err(|problem| match problem {
                    Problem::Io(error) => error,
                    Problem::Damaged(reason) => io::Error::new(io::ErrorKind::InvalidData, reason),
                })
            }
        }
    }

    fn open_sound(path: &Path) -> Result<(Self, Written), Problem> {
        let file = crate::files::open_private(path)?;
        // A daemon that was just killed in this process may still finish a write.
        file.lock()?;
        // The database takes some damage for its own mistake and panics; here it is the file's.
        panic::catch_unwind(|| {
            let database = Builder::new().set_cache_size(CACHE).create_file(file).map_err(damaged)?;
            begin(&database).map_err(damaged)?;
            let written = read(&database).map_err(damaged)??;
            Ok((Self { database }, written))
        })
        .unwrap_or_else(|_| Err(Problem::Damaged("its pages contradict each other".to_owned())))
    }

    /// Writes all or nothing; on disk when it returns.
    pub(super) fn commit(&self, changes: &Changes) -> io::Result<()> {
        write(&self.database, changes).map_err(io::Error::other)
    }
}

enum Problem {
    Io(io::Error),
    Damaged(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn damaged(error: impl std::fmt::Display) -> Problem {
    Problem::Damaged(error.to_string())
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    name.into()
}

fn begin(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let is_new = {
        let mut meta = transaction.open_table(META)?;
        let is_new = meta.get(FORMAT)?.is_none();
        if is_new {
            meta.insert(FORMAT, FORMAT_VERSION)?;
            transaction.open_table(SEEN)?;
            transaction.open_table(MARKS)?;
        }
        is_new
    };
    if is_new {
        transaction.commit()?
    } else {
        transaction.abort()?
    }
    Ok(())
}

fn read(database: &Database) -> Result<Result<Written, Problem>, redb::Error> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let format = meta.get(FORMAT)?.map(|value| value.value());
    if format != Some(FORMAT_VERSION) {
        return Ok(Err(Problem::Damaged(format!("it has format {format:?}, not {FORMAT_VERSION}"))));
    }
    let mut written =
        Written { last_ns: meta.get(LAST_NS)?.map_or(0, |value| value.value()), ..Written::default() };
    for row in transaction.open_table(SEEN)?.iter()? {
        let (number, value) = row?;
        let (from, print) = value.value();
        written.seen.push(Seen { number: number.value(), from: NodeId(from), print: Print(print) });
    }
    for row in transaction.open_table(MARKS)?.iter()? {
        let (id, value) = row?;
        let (read_ns, told) = value.value();
        let mark = Mark { read_ns: Some(read_ns).filter(|ns| *ns > 0), told };
        written.marks.push((id.value().to_owned(), mark));
    }
    Ok(Ok(written))
}

fn write(database: &Database, changes: &Changes) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut seen = transaction.open_table(SEEN)?;
        for new in &changes.seen {
            seen.insert(new.number, (new.from.0, new.print.0))?;
        }
        for number in &changes.forgotten {
            seen.remove(number)?;
        }
        let mut marks = transaction.open_table(MARKS)?;
        for (id, mark) in &changes.marks {
            match mark {
                Some(mark) => drop(marks.insert(id.as_str(), (mark.read_ns.unwrap_or(0), mark.told))?),
                None => drop(marks.remove(id.as_str())?),
            }
        }
        if let Some(last_ns) = changes.last_ns {
            transaction.open_table(META)?.insert(LAST_NS, last_ns)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn seen(number: u64) -> Seen {
        Seen { number, from: NodeId(7), print: Print(u128::from(number) << 90) }
    }

    #[test]
    fn what_is_written_is_there_after_a_restart_and_private() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("inbox.redb");
        let (table, written) = Table::open(&path).unwrap();
        assert!(written.seen.is_empty() && written.marks.is_empty());
        let read = Mark { read_ns: Some(5), told: true };
        let changes = Changes {
            seen: vec![seen(0), seen(1), seen(2)],
            marks: vec![("a".into(), Some(read)), ("b".into(), Some(read))],
            last_ns: Some(9),
            ..Changes::default()
        };
        table.commit(&changes).unwrap();
        let unread = Mark { read_ns: None, told: true };
        let marks = vec![("a".into(), None), ("b".into(), Some(unread))];
        table.commit(&Changes { forgotten: vec![1], marks, ..Changes::default() }).unwrap();
        drop(table);
        let (_, written) = Table::open(&path).unwrap();
        assert_eq!(written.seen, [seen(0), seen(2)]);
        assert_eq!((written.marks, written.last_ns), (vec![("b".into(), unread)], 9));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_put_aside() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("inbox.redb");
        std::fs::write(&path, b"this is no database at all").unwrap();
        let (table, written) = Table::open(&path).unwrap();
        assert!(written.seen.is_empty());
        table.commit(&Changes { seen: vec![seen(3)], ..Changes::default() }).unwrap();
        assert_eq!(
            std::fs::read(home.path().join("inbox.redb.damaged")).unwrap(),
            b"this is no database at all"
        );
    }
}
