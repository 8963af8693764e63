//! The inbox: one JSON file per message under `~/.pilot/inbox`, in the form tools of release 1.18.0 read.
//!
//! A message counts as stored when its file is complete, synced, and named in a synced directory, and its id is in the
//! table beside it; only then may it be acknowledged. The files come first: after a crash between the two, the ids of
//! the files that are there are put into the table, so that a message which its sender repeats is neither lost nor
//! stored twice. Files may be removed behind our back (that is how those tools clear the inbox), so the index is
//! compared with the directory whenever it matters.

mod find;
mod ring;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use pilot_wire::dataexchange::{Extension, MessageId};
use pilot_wire::mailbox::{Entry, Provenance, Reply, StoredMessage};
use pilot_wire::{Addr, NodeId};

pub(super) use self::find::{Found, Scan, Wanted};
use self::ring::{ALL_MAX, OF_SENDER_MAX, Print, Ring};
use self::table::{Changes, Mark, Table};
use super::disk::{self, Refusal, SequenceNames, unix_ns};
use super::serving::Arrival;
use crate::{datetime, files};

/// Messages kept at most, as release 1.18.0 keeps.
pub(super) const MAX_MESSAGES: usize = 10_000;

/// Bytes of message files kept at most, as release 1.18.0 keeps.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// Characters of a text message shown in a list.
const PREVIEW_CHARS: usize = 120;

/// A message file up to this size is returned inside the reply; a longer one is left to be read by path.
const INLINE_MAX: u64 = 256 << 10;

/// A file that claims to have arrived later than this from now does not move the clock of the messages to come.
const AHEAD_MAX: Duration = Duration::from_secs(3600);

/// A message on its way into the inbox.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// `TEXT`, `JSON` or `BINARY`.
    pub(super) kind: String,
    /// Whether the body is to be kept as bytes even if it happens to be text.
    pub(super) binary: bool,
    /// The body.
    pub(super) body: bytes::Bytes,
    /// Who sent it.
    pub(super) from: Addr,
    /// The sender's name, when known.
    pub(super) from_hostname: Option<String>,
    /// The sender's key fingerprint, when known.
    pub(super) from_key: Option<String>,
    /// Its id.
    pub(super) message_id: Option<MessageId>,
    /// What it answers.
    pub(super) reply_to: Option<MessageId>,
    /// What else its sender says.
    pub(super) extension: Extension,
    /// How it came.
    pub(super) provenance: Option<Provenance>,
    /// What it must not pass.
    pub(super) row: Option<Row>,
}

/// Messages whose order is kept: once one of them was refused for now, so are all behind it, until their sender begins
/// anew on another connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Row(Arc<OnceLock<String>>);

impl Row {
    /// Why one of them was refused.
    pub(super) fn refused(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// One of them is refused for now.
    pub(super) fn refuse(&self, reason: &str) {
        // The first reason stands.
        let _ = self.0.set(reason.to_owned());
    }
}

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    /// It is stored.
    Stored,
    /// It was stored before, under the same id.
    Duplicate,
}

/// A sender that wants to know that its message was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReadNotice {
    pub(super) to: NodeId,
    pub(super) id: MessageId,
}

struct Kept {
    entry: Entry,
    file_len: u64,
    /// The preview is the whole message.
    is_short: bool,
    mark: Mark,
    wants_receipt: bool,
    /// What only our nodes say.
    pilot: Option<Box<Extension>>,
}

/// A file that is written but not safe yet.
struct Fresh {
    id: String,
    arrived_ns: u64,
    message: StoredMessage,
    file_len: u64,
}

/// Letters that are made safe together.
#[derive(Default)]
struct Batch {
    fresh: Vec<Fresh>,
    prints: HashSet<Print>,
    bytes: u64,
}

/// How a letter of a batch stands before the batch is safe.
enum Standing {
    /// It was stored before the batch.
    Known,
    /// It is stored if the batch is.
    WithBatch(Put),
}

/// The index of the directory, and what is remembered about messages that have left it.
pub(super) struct Inbox {
    directory: PathBuf,
    /// None after a failed write: then everything is read from disk again.
    table: Option<Table>,
    /// By [`Entry::arrived_ns`].
    kept: BTreeMap<u64, Kept>,
    by_id: HashMap<String, u64>,
    bytes: u64,
    names: SequenceNames,
    ring: Ring,
    /// The latest time of arrival.
    last_ns: u64,
    /// Senders whose answers name what they answer.
    correlating: BTreeSet<NodeId>,
    notices: Vec<ReadNotice>,
    new: Vec<u64>,
}

impl Inbox {
    /// Reads what is there.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        files::create_private_dir(&directory)?;
        disk::remove_temporaries(&directory);
        let (table, written) = Table::open(&directory.with_extension("redb"))?;
        let mut ring = Ring::new(OF_SENDER_MAX, ALL_MAX);
        written.seen.into_iter().for_each(|seen| ring.restore(seen));
        let mut inbox = Self {
            directory,
            table: Some(table),
            kept: BTreeMap::new(),
            by_id: HashMap::new(),
            bytes: 0,
            names: SequenceNames::default(),
            ring,
            last_ns: written.last_ns,
            correlating: BTreeSet::new(),
            notices: Vec::new(),
            new: Vec::new(),
        };
        inbox.refresh()?;
        inbox.new.clear();
        let mut gone = Changes::default();
        for (id, mark) in written.marks {
            match inbox.by_id.get(&id).and_then(|at| inbox.kept.get_mut(at)) {
                Some(kept) => kept.set(mark),
                None => gone.marks.push((id, None)),
            }
        }
        inbox.commit(&gone)?;
        Ok(inbox)
    }

    /// The latest time of arrival: what arrives from now on has a later one.
    pub(super) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// What arrived after this time, as programs that answer see it; also the latest time of arrival.
    pub(super) fn inquiries(&self, since_ns: u64, requests_only: bool) -> (Vec<Arrival>, u64) {
        let later = self.kept.range((Bound::Excluded(since_ns), Bound::Unbounded)).map(|(_, kept)| kept);
        let fitting = later.filter(|kept| !requests_only || kept.is_request());
        let arrivals = fitting.map(|kept| Arrival::of(&kept.entry, kept.pilot.as_deref()));
        (arrivals.collect(), self.kept.last_key_value().map_or(since_ns, |(place, _)| *place))
    }

    /// Senders to be told that messages of theirs were read; each once.
    pub(super) fn take_notices(&mut self) -> Vec<ReadNotice> {
        std::mem::take(&mut self.notices)
    }

    /// The places of messages that came into the index since this was asked last.
    pub(super) fn take_new(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.new)
    }

    /// Stores messages durably, in their order. What is `Stored` survives a crash.
    pub(super) fn put_all(&mut self, letters: Vec<Letter>, now: SystemTime) -> Vec<Result<Put, Refusal>> {
        let rows: Vec<Option<Row>> = letters.iter().map(|letter| letter.row.clone()).collect();
        let refuse = |row: &Option<Row>, refusal: Refusal| {
            if let Some(row) = row {
                row.refuse(&refusal.to_string());
            }
            Err(refusal)
        };
        if let Err(error) = self.recover() {
            let refusal = Refusal::storage(&error);
            return rows.iter().map(|row| refuse(row, refusal.clone())).collect();
        }
        let mut batch = Batch::default();
        let mut standings = Vec::new();
        for (letter, row) in letters.into_iter().zip(&rows) {
            standings.push(match row.as_ref().and_then(Row::refused) {
                Some(reason) => Err(Refusal::Behind(reason.to_owned())),
                None => self
                    .write(letter, now, &mut batch)
                    .or_else(|refusal| refuse(row, refusal).map(Standing::WithBatch)),
            });
        }
        let settled = self.settle(batch).map_err(|error| Refusal::storage(&error));
        let verdict = |(standing, row): (_, &Option<Row>)| match (standing, &settled) {
            (Ok(Standing::Known), _) => Ok(Put::Duplicate),
            (Ok(Standing::WithBatch(put)), Ok(())) => Ok(put),
            (Ok(Standing::WithBatch(_)), Err(refusal)) => refuse(row, refusal.clone()),
            (Err(refusal), _) => Err(refusal),
        };
        standings.into_iter().zip(&rows).map(verdict).collect()
    }

    /// Writes a letter's file.
    fn write(&mut self, letter: Letter, now: SystemTime, batch: &mut Batch) -> Result<Standing, Refusal> {
        let print = letter.message_id.as_ref().map(|id| Print::of(letter.from.node, id));
        if let Some(print) = print {
            if self.ring.contains(print) {
                return Ok(Standing::Known);
            }
            if batch.prints.contains(&print) {
                return Ok(Standing::WithBatch(Put::Duplicate));
            }
        }
        // Strictly later than all before, whatever the clock does: the order of arrival is the order of the list.
        let latest = batch.fresh.last().map_or(self.last_ns, |fresh| fresh.arrived_ns);
        let arrived_ns = unix_ns(now).max(latest + 1);
        let arrived = SystemTime::UNIX_EPOCH + Duration::from_nanos(arrived_ns);
        let mut message = StoredMessage {
            bytes: 0,
            data: None,
            data_b64: None,
            data_encoding: None,
            from: letter.from,
            from_hostname: letter.from_hostname,
            from_key: letter.from_key,
            message_id: letter.message_id,
            received_at: datetime::rfc3339(arrived),
            reply_to: letter.reply_to,
            pilot: (letter.extension != Extension::default()).then(|| Box::new(letter.extension)),
            provenance: letter.provenance.map(Box::new),
            kind: letter.kind,
        };
        message.set_body(&letter.body, letter.binary);
        drop(letter.body);
        let content = serde_json::to_vec(&message).map_err(|error| Refusal::storage(&error.into()))?;
        let file_len = content.len() as u64;
        self.make_room_for(file_len, batch)?;
        let mut id = self.names.next(&message.kind, arrived, "");
        // Numbers begin anew with each process, and a clock may have been set back.
        while self.path(&id).exists() {
            id = self.names.next(&message.kind, arrived, "");
        }
        files::place(&self.path(&id), &content).map_err(|error| Refusal::storage(&error))?;
        batch.prints.extend(print);
        batch.bytes += file_len;
        batch.fresh.push(Fresh { id, arrived_ns, message, file_len });
        Ok(Standing::WithBatch(Put::Stored))
    }

    fn make_room_for(&mut self, length: u64, batch: &Batch) -> Result<(), Refusal> {
        let fits = |inbox: &Self| {
            inbox.kept.len() + batch.fresh.len() < MAX_MESSAGES
                && inbox.bytes + batch.bytes + length <= MAX_BYTES
        };
        if fits(self) {
            return Ok(());
        }
        self.forget_removed().map_err(|error| Refusal::storage(&error))?;
        if fits(self) { Ok(()) } else { Err(Refusal::InboxFull) }
    }

    /// Makes the files of a batch safe, and remembers their ids. If it fails, none of them is there.
    fn settle(&mut self, batch: Batch) -> io::Result<()> {
        let Some(last) = batch.fresh.last() else { return Ok(()) };
        let mut changes = Changes { last_ns: Some(last.arrived_ns), ..Changes::default() };
        let synced = files::sync_directory(&self.directory);
        for fresh in &batch.fresh {
            if let Some(id) = &fresh.message.message_id {
                let from = fresh.message.from.node;
                if let Some((seen, forgotten)) = self.ring.insert(from, Print::of(from, id)) {
                    changes.seen.push(seen);
                    changes.forgotten.extend(forgotten);
                }
            }
        }
        if let Err(error) = synced.and_then(|()| self.commit(&changes)) {
            self.table = None;
            for fresh in &batch.fresh {
                // One that stays is found when the directory is read again; then it counts as stored, and the
                // sender's next try is a repetition.
                let _ = fs::remove_file(self.path(&fresh.id));
            }
            return Err(error);
        }
        for Fresh { id, arrived_ns, message, file_len } in batch.fresh {
            self.add(id, &message, file_len, arrived_ns);
        }
        Ok(())
    }

    /// Puts a message into the index.
    fn add(&mut self, id: String, message: &StoredMessage, file_len: u64, arrived_ns: u64) {
        let mut place = arrived_ns;
        // Files of other programs may have times in common.
        while self.kept.contains_key(&place) {
            place += 1;
        }
        if message.reply_to.is_some() {
            self.correlating.insert(message.from.node);
        }
        let preview: Option<String> =
            message.data.as_deref().map(|text| text.chars().take(PREVIEW_CHARS).collect());
        let is_short = preview
            .as_ref()
            .is_some_and(|preview| Some(preview.len()) == message.data.as_ref().map(String::len));
        let entry = Entry {
            id: id.clone(),
            bytes: message.bytes,
            from: message.from,
            from_hostname: message.from_hostname.clone(),
            message_id: message.message_id.clone(),
            preview,
            read_at: None,
            received_at: message.received_at.clone(),
            arrived_ns: place,
            reply_to: message.reply_to.clone(),
            kind: message.kind.clone(),
        };
        let wants_receipt = message.pilot.as_ref().is_some_and(|pilot| pilot.receipts);
        self.bytes += file_len;
        self.by_id.insert(id, place);
        self.kept.insert(
            place,
            Kept {
                entry,
                file_len,
                is_short,
                mark: Mark::default(),
                wants_receipt,
                pilot: message.pilot.clone(),
            },
        );
        self.last_ns = self.last_ns.max(arrived_ns);
        self.new.push(place);
    }

    /// Makes the index agree with the directory.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        self.recover()?;
        let unknown = self.forget_removed()?;
        let mut found = Vec::new();
        for id in unknown {
            // A file that is no message (or vanished meanwhile) is not ours to judge; it is left alone.
            let Ok(content) = fs::read(self.path(&id)) else { continue };
            let Ok(message) = serde_json::from_slice::<StoredMessage>(&content) else { continue };
            let received = datetime::parse_rfc3339(&message.received_at).unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((unix_ns(received), id, message, content.len() as u64));
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        let ahead = unix_ns(SystemTime::now() + AHEAD_MAX).max(self.last_ns);
        let mut changes = Changes::default();
        for (received_ns, id, message, file_len) in found {
            if let Some(message_id) = &message.message_id {
                let from = message.from.node;
                if let Some((seen, forgotten)) = self.ring.insert(from, Print::of(from, message_id)) {
                    changes.seen.push(seen);
                    changes.forgotten.extend(forgotten);
                }
            }
            let last_ns = self.last_ns;
            self.add(id, &message, file_len, received_ns);
            if received_ns > ahead {
                self.last_ns = last_ns;
            } else if received_ns > last_ns {
                changes.last_ns = Some(received_ns);
            }
        }
        self.commit(&changes)
    }

    /// Takes messages out of the index whose files are gone; returns the names of files that are not in it.
    fn forget_removed(&mut self) -> io::Result<Vec<String>> {
        let mut present = HashSet::new();
        for file in fs::read_dir(&self.directory)? {
            let name = file?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) {
                present.insert(id.to_owned());
            }
        }
        let gone: Vec<u64> =
            self.kept.iter().filter(|(_, kept)| !present.remove(&kept.entry.id)).map(|(at, _)| *at).collect();
        let mut changes = Changes::default();
        for at in gone {
            let Some(kept) = self.kept.remove(&at) else { continue };
            self.by_id.remove(&kept.entry.id);
            self.bytes -= kept.file_len;
            if kept.mark != Mark::default() {
                changes.marks.push((kept.entry.id, None));
            }
        }
        self.commit(&changes)?;
        Ok(present.into_iter().collect())
    }

    /// Marks messages as read or unread; returns how many were not so before.
    pub(super) fn mark(&mut self, ids: &[String], read: bool, now: SystemTime) -> io::Result<u64> {
        self.recover()?;
        let mut changes = Changes::default();
        for id in ids {
            let Some(kept) = self.by_id.get(id).and_then(|at| self.kept.get_mut(at)) else { continue };
            if kept.mark.read_ns.is_some() == read {
                continue;
            }
            let mut mark = Mark { read_ns: read.then(|| unix_ns(now)), ..kept.mark };
            if let (true, false, true, Some(message_id)) =
                (read, mark.told, kept.wants_receipt, &kept.entry.message_id)
            {
                mark.told = true;
                self.notices.push(ReadNotice { to: kept.entry.from.node, id: message_id.clone() });
            }
            kept.set(mark);
            changes.marks.push((id.clone(), Some(mark)));
        }
        self.commit(&changes)?;
        Ok(changes.marks.len() as u64)
    }

    /// One message by its id here or its sender's id, or the newest.
    pub(super) fn read(&mut self, id: Option<&str>) -> io::Result<Option<Reply>> {
        let known = |inbox: &Self| match id {
            Some(id) => inbox.named(id),
            None => inbox.kept.last_key_value().map(|(_, kept)| kept.entry.id.clone()),
        };
        if let Some(id) = known(self)
            && let Some(reply) = self.open_message(&id)?
        {
            return Ok(Some(reply));
        }
        self.refresh()?;
        known(self).map_or(Ok(None), |id| self.open_message(&id))
    }

    fn named(&self, id: &str) -> Option<String> {
        if self.by_id.contains_key(id) {
            return Some(id.to_owned());
        }
        let of_sender = |kept: &&Kept| kept.entry.message_id.as_ref().is_some_and(|own| own.as_str() == id);
        self.kept.values().rev().find(of_sender).map(|kept| kept.entry.id.clone())
    }

    /// The reply that hands out a message of the index; `None` if it is gone.
    pub(super) fn open_message(&self, id: &str) -> io::Result<Option<Reply>> {
        let path = self.path(id);
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let message = match length {
            0..=INLINE_MAX => Some(Box::new(serde_json::from_slice(&fs::read(&path)?)?)),
            _ => None,
        };
        let arrived_ns = self.by_id.get(id).copied().unwrap_or_default();
        let path = path.to_string_lossy().into_owned();
        Ok(Some(Reply::Message { id: id.to_owned(), path, arrived_ns, message }))
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// Removes these messages.
    pub(super) fn remove(&mut self, ids: &[String]) -> io::Result<u64> {
        let mut removed = 0;
        // Only names of the index: a name cannot lead elsewhere.
        for id in ids.iter().filter(|id| self.by_id.contains_key(*id)) {
            match fs::remove_file(self.path(id)) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.refresh()?;
        Ok(removed)
    }

    /// Removes all messages, or those that arrived before a time, or those that were read.
    pub(super) fn clear(&mut self, before_ns: Option<u64>, read: bool) -> io::Result<u64> {
        self.refresh()?;
        let wanted = self.kept.iter().filter(|(at, kept)| {
            before_ns.is_none_or(|before| **at < before) && (!read || kept.mark.read_ns.is_some())
        });
        let ids: Vec<String> = wanted.map(|(_, kept)| kept.entry.id.clone()).collect();
        self.remove(&ids)
    }

    /// Reads everything again after a failed write.
    fn recover(&mut self) -> io::Result<()> {
        if self.table.is_none() {
            let notices = self.take_notices();
            *self = Self { notices, ..Self::open(self.directory.clone())? };
        }
        Ok(())
    }

    fn commit(&mut self, changes: &Changes) -> io::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let Some(table) = &self.table else {
            return Err(io::Error::other("the table of the inbox is closed"));
        };
        let committed = table.commit(changes);
        if committed.is_err() {
            self.table = None;
        }
        committed
    }
}

impl Kept {
    fn is_request(&self) -> bool {
        self.pilot.as_ref().is_some_and(|pilot| pilot.request.is_some())
    }

    fn set(&mut self, mark: Mark) {
        self.mark = mark;
        self.entry.read_at =
            mark.read_ns.map(|ns| datetime::rfc3339(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)));
    }
}
