//! The inbox: one JSON file per message under `~/.pilot/inbox`, in the form tools of release 1.18.0 read.
//!
//! A message counts as stored when its file is complete, synced, and named in a synced directory; only then may
//! it be acknowledged. Files may be removed behind our back (that is how those tools clear the inbox), so the
//! index is compared with the directory whenever it matters.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use pilot_wire::dataexchange::{Extension, MessageId};
use pilot_wire::mailbox::{Entry, Reply, StoredMessage};
use pilot_wire::{Addr, NodeId};

use super::disk::{self, Refusal, SequenceNames, unix_ns};
use super::serving::Arrival;
use crate::datetime;

/// Messages kept at most, as release 1.18.0 keeps.
pub(super) const MAX_MESSAGES: usize = 10_000;

/// Bytes of message files kept at most, as release 1.18.0 keeps.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// For how long a repeated message of the same sender is recognised.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(600);

/// Ids remembered for [`DUPLICATE_WINDOW`]. A peer that sends more in that time could have an old one stored
/// twice; 20,000 is more than the inbox holds.
const DUPLICATES_MAX: usize = 20_000;

/// Characters of a text message shown in a list.
const PREVIEW_CHARS: usize = 120;

/// Entries in one list. An entry takes up to 1.5 kB (a preview of control characters is written in escapes), and
/// the reply must stay below the local socket's frame limit of 1 MiB.
const LIST_MAX: usize = 500;

/// A message file up to this size is returned inside the reply; a longer one is left to be read by path.
const INLINE_MAX: u64 = 256 << 10;

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
}

struct Kept {
    entry: Entry,
    file_len: u64,
    received_ns: u64,
    /// When it waits for an answer.
    request: Option<Box<Arrival>>,
}

/// What a waiting application is looking for.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) from: Option<NodeId>,
    pub(super) reply_to: Option<MessageId>,
    pub(super) since_ns: Option<u64>,
    pub(super) after: Option<String>,
    /// Only a message that names `reply_to`.
    pub(super) exact_only: bool,
}

/// A message that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: String,
    /// It may yet be followed by one that fits better: it answers no id, though its sender usually names one.
    pub(super) doubtful: bool,
}

/// The index of the directory, and what is remembered about messages that have left it.
pub(super) struct Inbox {
    directory: PathBuf,
    /// In order of arrival.
    kept: Vec<Kept>,
    bytes: u64,
    names: SequenceNames,
    recent: RecentIds,
    /// Senders whose answers name what they answer.
    correlating: BTreeSet<NodeId>,
}

impl Inbox {
    /// Reads what is there.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        crate::files::create_private_dir(&directory)?;
        disk::remove_temporaries(&directory);
        let mut inbox = Self {
            directory,
            kept: Vec::new(),
            bytes: 0,
            names: SequenceNames::default(),
            recent: RecentIds::default(),
            correlating: BTreeSet::new(),
        };
        inbox.refresh()?;
        Ok(inbox)
    }

    /// Whether this id of this sender was stored within [`DUPLICATE_WINDOW`].
    pub(super) fn is_duplicate(&mut self, from: NodeId, id: &MessageId, now: SystemTime) -> bool {
        self.recent.contains(from, id, now)
    }

    /// Remembers an id that was stored elsewhere than here (a tagged file).
    pub(super) fn remember(&mut self, from: NodeId, id: MessageId, now: SystemTime) {
        self.recent.insert(from, id, now);
    }

    /// Stores a message durably and returns its id here.
    pub(super) fn put(&mut self, letter: Letter, now: SystemTime) -> Result<String, Refusal> {
        let mut message = StoredMessage {
            bytes: 0,
            data: None,
            data_b64: None,
            data_encoding: None,
            from: letter.from,
            from_hostname: letter.from_hostname,
            from_key: letter.from_key,
            message_id: letter.message_id,
            received_at: datetime::rfc3339(now),
            reply_to: letter.reply_to,
            pilot: (letter.extension != Extension::default()).then(|| Box::new(letter.extension)),
            kind: letter.kind,
        };
        message.set_body(&letter.body, letter.binary);
        drop(letter.body);
        let content = serde_json::to_vec(&message).map_err(|error| Refusal::storage(&error.into()))?;
        self.make_room_for(content.len() as u64)?;
        let id = self.names.next(&message.kind, now, "");
        let path = self.directory.join(format!("{id}.json"));
        crate::files::replace(&path, &content).map_err(|error| Refusal::storage(&error))?;
        if let Some(message_id) = &message.message_id {
            self.recent.insert(message.from.node, message_id.clone(), now);
        }
        self.add(id.clone(), &message, content.len() as u64, unix_ns(now));
        Ok(id)
    }

    fn make_room_for(&mut self, length: u64) -> Result<(), Refusal> {
        let fits = |inbox: &Self| inbox.kept.len() < MAX_MESSAGES && inbox.bytes + length <= MAX_BYTES;
        if fits(self) {
            return Ok(());
        }
        self.refresh().map_err(|error| Refusal::storage(&error))?;
        if fits(self) { Ok(()) } else { Err(Refusal::InboxFull) }
    }

    fn add(&mut self, id: String, message: &StoredMessage, file_len: u64, received_ns: u64) {
        if message.reply_to.is_some() {
            self.correlating.insert(message.from.node);
        }
        let entry = Entry {
            id,
            bytes: message.bytes,
            from: message.from,
            from_hostname: message.from_hostname.clone(),
            message_id: message.message_id.clone(),
            preview: message.data.as_deref().map(|text| text.chars().take(PREVIEW_CHARS).collect()),
            received_at: message.received_at.clone(),
            reply_to: message.reply_to.clone(),
            kind: message.kind.clone(),
        };
        self.bytes += file_len;
        let is_request = message.pilot.as_ref().is_some_and(|pilot| pilot.request.is_some());
        let request = is_request.then(|| Box::new(Arrival::of(entry.id.clone(), message)));
        self.kept.push(Kept { entry, file_len, received_ns, request });
    }

    /// The messages that wait for an answer, or waited for one.
    pub(super) fn requests(&self) -> Vec<Arrival> {
        self.kept.iter().filter_map(|kept| kept.request.as_deref().cloned()).collect()
    }

    /// Makes the index agree with the directory.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        let mut present = HashSet::new();
        for file in fs::read_dir(&self.directory)? {
            let name = file?.file_name();
            if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".json")) {
                present.insert(id.to_owned());
            }
        }
        self.kept.retain(|kept| present.remove(&kept.entry.id));
        let mut unknown: Vec<String> = present.into_iter().collect();
        unknown.sort();
        let some_are_new = !unknown.is_empty();
        self.bytes = self.kept.iter().map(|kept| kept.file_len).sum();
        for id in unknown {
            // A file that is no message (or vanished meanwhile) is not ours to judge; it is left alone.
            let Ok(content) = fs::read(self.directory.join(format!("{id}.json"))) else { continue };
            let Ok(message) = serde_json::from_slice::<StoredMessage>(&content) else { continue };
            let received = datetime::parse_rfc3339(&message.received_at).unwrap_or(SystemTime::UNIX_EPOCH);
            if let Some(message_id) = &message.message_id {
                self.recent.insert(message.from.node, message_id.clone(), received);
            }
            self.add(id, &message, content.len() as u64, unix_ns(received));
        }
        if some_are_new {
            self.kept.sort_by(|a, b| (a.received_ns, &a.entry.id).cmp(&(b.received_ns, &b.entry.id)));
        }
        Ok(())
    }

    /// The newest messages, oldest of them first.
    pub(super) fn list(
        &mut self,
        from: Option<NodeId>,
        since_ns: Option<u64>,
        limit: Option<u32>,
    ) -> io::Result<Reply> {
        self.refresh()?;
        let limit = limit.map_or(LIST_MAX, |limit| usize::try_from(limit).unwrap_or(LIST_MAX).min(LIST_MAX));
        let fits = |kept: &&Kept| {
            from.is_none_or(|node| kept.entry.from.node == node)
                && since_ns.is_none_or(|since| kept.received_ns > since)
        };
        let mut messages: Vec<Entry> =
            self.kept.iter().rev().filter(fits).take(limit).map(|kept| kept.entry.clone()).collect();
        messages.reverse();
        Ok(Reply::Messages {
            messages,
            total: self.kept.len() as u64,
            dir: self.directory.to_string_lossy().into_owned(),
        })
    }

    /// One message by id, or the newest.
    pub(super) fn read(&mut self, id: Option<&str>) -> io::Result<Option<Reply>> {
        let known = |inbox: &Self| match id {
            Some(id) => {
                inbox.kept.iter().rev().find(|kept| kept.entry.id == id).map(|kept| kept.entry.id.clone())
            }
            None => inbox.kept.last().map(|kept| kept.entry.id.clone()),
        };
        let found = match known(self) {
            Some(id) if self.path(&id).exists() => Some(id),
            Some(_) | None => {
                self.refresh()?;
                known(self)
            }
        };
        found.map(|id| self.open_message(&id)).transpose()
    }

    /// The reply that hands out a message of the index.
    pub(super) fn open_message(&self, id: &str) -> io::Result<Reply> {
        let path = self.path(id);
        let message = if fs::metadata(&path)?.len() <= INLINE_MAX {
            Some(Box::new(serde_json::from_slice(&fs::read(&path)?)?))
        } else {
            None
        };
        Ok(Reply::Message { id: id.to_owned(), path: path.to_string_lossy().into_owned(), message })
    }

    fn path(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.json"))
    }

    /// The message that was waited for, if it is already here.
    pub(super) fn find(&self, wanted: &Wanted) -> Option<Found> {
        let from_wanted = |kept: &&Kept| wanted.from.is_none_or(|node| kept.entry.from.node == node);
        let found = |kept: &Kept, doubtful| Found { id: kept.entry.id.clone(), doubtful };
        if let Some(reply_to) = &wanted.reply_to {
            let answers = |kept: &&Kept| kept.entry.reply_to.as_ref() == Some(reply_to);
            if let Some(exact) = self.kept.iter().filter(from_wanted).find(answers) {
                return Some(found(exact, false));
            }
            if wanted.exact_only || wanted.from.is_none() {
                return None;
            }
            let plain = |kept: &&Kept| kept.entry.reply_to.is_none() && self.is_later(kept, wanted);
            let kept = self.kept.iter().filter(from_wanted).find(plain)?;
            return Some(found(kept, self.correlating.contains(&kept.entry.from.node)));
        }
        let later = |kept: &&Kept| self.is_later(kept, wanted);
        self.kept.iter().filter(from_wanted).find(later).map(|kept| found(kept, false))
    }

    fn is_later(&self, kept: &Kept, wanted: &Wanted) -> bool {
        let after = wanted.after.as_ref().and_then(|id| {
            self.kept.iter().find(|other| other.entry.id == *id).map(|other| (other.received_ns, id.as_str()))
        });
        wanted.since_ns.is_none_or(|since| kept.received_ns > since)
            && after.is_none_or(|after| (kept.received_ns, kept.entry.id.as_str()) > after)
    }

    /// Removes all messages, or those that arrived before a time.
    pub(super) fn clear(&mut self, before_ns: Option<u64>) -> io::Result<u64> {
        self.refresh()?;
        let mut cleared = 0;
        for kept in &self.kept {
            if before_ns.is_none_or(|before| kept.received_ns < before) {
                fs::remove_file(self.path(&kept.entry.id))?;
                cleared += 1;
            }
        }
        self.refresh()?;
        Ok(cleared)
    }
}

/// The ids stored lately, by sender.
#[derive(Default)]
struct RecentIds {
    stored: HashMap<(NodeId, MessageId), SystemTime>,
    order: VecDeque<(NodeId, MessageId)>,
}

impl RecentIds {
    fn contains(&mut self, from: NodeId, id: &MessageId, now: SystemTime) -> bool {
        self.forget_old(now);
        self.stored.contains_key(&(from, id.clone()))
    }

    fn insert(&mut self, from: NodeId, id: MessageId, now: SystemTime) {
        let key = (from, id);
        if self.stored.insert(key.clone(), now).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > DUPLICATES_MAX {
            self.forget_first();
        }
    }

    fn forget_old(&mut self, now: SystemTime) {
        let is_old = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age > DUPLICATE_WINDOW);
        while self.order.front().and_then(|key| self.stored.get(key)).is_some_and(is_old) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(key) = self.order.pop_front() {
            self.stored.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(body: &[u8], id: Option<&str>, reply_to: Option<&str>) -> Letter {
        Letter {
            kind: "TEXT".into(),
            binary: false,
            body: bytes::Bytes::copy_from_slice(body),
            from: Addr::backbone(NodeId(1)),
            from_hostname: None,
            from_key: None,
            message_id: id.map(|id| id.parse().unwrap()),
            reply_to: reply_to.map(|id| id.parse().unwrap()),
            extension: Extension::default(),
        }
    }

    fn at(ms: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_248_169) + Duration::from_millis(ms)
    }

    fn wanted(reply_to: Option<&str>, since: SystemTime) -> Wanted {
        Wanted {
            from: Some(NodeId(1)),
            reply_to: reply_to.map(|id| id.parse().unwrap()),
            since_ns: Some(unix_ns(since)),
            after: None,
            exact_only: false,
        }
    }

    fn total(reply: &Reply) -> u64 {
        let Reply::Messages { total, .. } = reply else { panic!("{reply:?}") };
        *total
    }

    #[test]
    fn a_message_is_a_file_that_release_1_18_reads() {
        let home = tempfile::tempdir().unwrap();
        let mut inbox = Inbox::open(home.path().join("inbox")).unwrap();
        let id = inbox.put(letter(b"hello", None, None), at(11)).unwrap();
        assert_eq!(id, "TEXT-20261121-080249.011-000001");
        let text = fs::read_to_string(home.path().join("inbox").join(format!("{id}.json"))).unwrap();
        assert_eq!(
            text,
            r#"{"bytes":5,"data":"hello","data_encoding":"utf8","from":"0:0000.0000.0001","received_at":"2026-11-21T08:02:49.011Z","type":"TEXT"}"#
        );
    }

    #[test]
    fn a_restarted_inbox_knows_its_messages_and_their_ids() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("inbox");
        let mut inbox = Inbox::open(directory.clone()).unwrap();
        inbox.put(letter(b"one", Some("m-1"), None), at(0)).unwrap();
        inbox.put(letter(b"two", Some("m-2"), None), at(1)).unwrap();
        let mut again = Inbox::open(directory).unwrap();
        assert_eq!(total(&again.list(None, None, None).unwrap()), 2);
        assert!(again.is_duplicate(NodeId(1), &"m-1".parse().unwrap(), at(1000)));
        assert!(!again.is_duplicate(NodeId(2), &"m-1".parse().unwrap(), at(1000)));
        assert!(!again.is_duplicate(NodeId(1), &"m-1".parse().unwrap(), at(600_002)));
    }

    #[test]
    fn files_removed_by_others_leave_the_list() {
        let home = tempfile::tempdir().unwrap();
        let mut inbox = Inbox::open(home.path().join("inbox")).unwrap();
        let id = inbox.put(letter(b"one", None, None), at(0)).unwrap();
        inbox.put(letter(b"two", None, None), at(1)).unwrap();
        fs::remove_file(home.path().join("inbox").join(format!("{id}.json"))).unwrap();
        assert_eq!(total(&inbox.list(None, None, None).unwrap()), 1);
        assert_eq!(inbox.read(Some(&id)).unwrap(), None);
        assert_eq!(inbox.clear(None).unwrap(), 1);
        assert_eq!(fs::read_dir(home.path().join("inbox")).unwrap().count(), 0);
    }

    #[test]
    fn a_full_inbox_refuses_until_somebody_makes_room() {
        let home = tempfile::tempdir().unwrap();
        let mut inbox = Inbox::open(home.path().join("inbox")).unwrap();
        let id = inbox.put(letter(b"one", None, None), at(0)).unwrap();
        inbox.bytes = MAX_BYTES;
        inbox.kept[0].file_len = MAX_BYTES;
        assert!(matches!(inbox.put(letter(b"two", None, None), at(1)), Err(Refusal::InboxFull)));
        fs::remove_file(home.path().join("inbox").join(format!("{id}.json"))).unwrap();
        assert!(inbox.put(letter(b"two", None, None), at(1)).is_ok());
    }

    #[test]
    fn an_answer_that_names_the_question_is_found_whenever_it_came() {
        let home = tempfile::tempdir().unwrap();
        let mut inbox = Inbox::open(home.path().join("inbox")).unwrap();
        inbox.put(letter(b"plain", None, None), at(5)).unwrap();
        let answer = inbox.put(letter(b"answer", None, Some("q-1")), at(0)).unwrap();
        assert_eq!(inbox.find(&wanted(Some("q-1"), at(3))), Some(Found { id: answer, doubtful: false }));
        assert_eq!(inbox.find(&wanted(Some("q-2"), at(5))), None, "an answer to something else is no answer");
    }

    #[test]
    fn a_plain_later_message_is_an_answer_but_a_doubtful_one_from_who_names_questions() {
        let home = tempfile::tempdir().unwrap();
        let mut inbox = Inbox::open(home.path().join("inbox")).unwrap();
        let plain = inbox.put(letter(b"plain", None, None), at(5)).unwrap();
        assert_eq!(inbox.find(&wanted(Some("q-1"), at(5))), None);
        assert_eq!(
            inbox.find(&wanted(Some("q-1"), at(4))),
            Some(Found { id: plain.clone(), doubtful: false })
        );
        inbox.put(letter(b"other", None, Some("q-0")), at(6)).unwrap();
        assert_eq!(inbox.find(&wanted(Some("q-1"), at(4))), Some(Found { id: plain, doubtful: true }));
    }
}
