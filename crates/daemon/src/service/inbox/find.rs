//! Which messages are meant: filters, lists, and what a waiting program gets.

use std::fs;
use std::io;
use std::ops::Bound;

use pilot_wire::dataexchange::MessageId;
use pilot_wire::mailbox::{Entry, Filter, List, Reply, StoredMessage};

use super::{Inbox, Kept};

/// Entries in one list. An entry takes up to 1.5 kB (a preview of control characters is written in escapes), and
/// the reply must stay below the local socket's frame limit of 1 MiB.
pub(super) const LIST_MAX: usize = 500;

/// Messages looked at in one scan, so that nobody else waits long for the disk.
const SCAN_MAX: usize = 256;

/// What a waiting application is looking for.
#[derive(Debug, Clone, Default)]
pub(in crate::service) struct Wanted {
    pub(in crate::service) filter: Filter,
    pub(in crate::service) reply_to: Option<MessageId>,
    /// Only a message that names `reply_to`.
    pub(in crate::service) exact_only: bool,
}

/// A message that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::service) struct Found {
    pub(in crate::service) id: String,
    /// It may yet be followed by one that fits better: it answers no id, though its sender usually names one.
    pub(in crate::service) doubtful: bool,
}

/// A piece of the messages in the order of arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::service) struct Scan {
    /// Those that fit.
    pub(in crate::service) entries: Vec<Entry>,
    /// Everything up to here was looked at.
    pub(in crate::service) until_ns: u64,
    /// There is more behind it.
    pub(in crate::service) more: bool,
}

impl Inbox {
    /// The newest messages, oldest of them first.
    pub(in crate::service) fn list(&mut self, list: &List) -> io::Result<Reply> {
        self.refresh()?;
        let limit = list.limit.map_or(LIST_MAX, |limit| usize::try_from(limit).unwrap_or(LIST_MAX));
        let upper = list.before_ns.map_or(Bound::Unbounded, Bound::Excluded);
        let mut fitting = self
            .kept
            .range((Bound::Unbounded, upper))
            .rev()
            .filter(|(_, kept)| self.fits(kept, &list.filter));
        let mut messages: Vec<Entry> =
            fitting.by_ref().take(limit.min(LIST_MAX)).map(|(_, kept)| kept.entry.clone()).collect();
        let more = fitting.count() as u64;
        messages.reverse();
        Ok(Reply::Messages {
            messages,
            total: self.kept.len() as u64,
            unread: self.kept.values().filter(|kept| kept.mark.read_ns.is_none()).count() as u64,
            more,
            dir: self.directory.to_string_lossy().into_owned(),
        })
    }

    /// What arrived after `filter.since_ns`, piece by piece.
    pub(in crate::service) fn scan(&self, filter: &Filter) -> Scan {
        let since = filter.since_ns.unwrap_or(0);
        let mut scan = Scan { until_ns: since, ..Scan::default() };
        let mut later = self.kept.range((Bound::Excluded(since), Bound::Unbounded));
        for (at, kept) in later.by_ref().take(SCAN_MAX) {
            if self.fits(kept, filter) {
                scan.entries.push(kept.entry.clone());
            }
            scan.until_ns = *at;
        }
        scan.more = later.next().is_some();
        scan
    }

    /// The message that was waited for, if it is already here.
    pub(in crate::service) fn find(&self, wanted: &Wanted) -> Option<Found> {
        match &wanted.reply_to {
            // An answer that names the question counts whenever it came; only failing that a later one that names
            // none.
            Some(_) => {
                let exact = Wanted { exact_only: true, ..wanted.clone() };
                let in_order = || self.kept.values();
                in_order()
                    .find_map(|kept| self.look(kept, &exact))
                    .or_else(|| in_order().find_map(|kept| self.look(kept, wanted)))
            }
            None => {
                let since = wanted.filter.since_ns.map_or(Bound::Unbounded, Bound::Excluded);
                self.kept.range((since, Bound::Unbounded)).find_map(|(_, kept)| self.look(kept, wanted))
            }
        }
    }

    /// Whether the message at this place is the one that was waited for.
    pub(in crate::service) fn find_at(&self, place: u64, wanted: &Wanted) -> Option<Found> {
        self.kept.get(&place).and_then(|kept| self.look(kept, wanted))
    }

    fn look(&self, kept: &Kept, wanted: &Wanted) -> Option<Found> {
        let found = |doubtful| Some(Found { id: kept.entry.id.clone(), doubtful });
        let Some(reply_to) = &wanted.reply_to else {
            return self.fits(kept, &wanted.filter).then(|| found(false)).flatten();
        };
        let from = wanted.filter.from;
        if from.is_some_and(|node| node != kept.entry.from.node) {
            return None;
        }
        match &kept.entry.reply_to {
            Some(answered) if answered == reply_to => found(false),
            // Whoever asks back has not answered.
            None if kept.is_request() => None,
            None if !wanted.exact_only && from.is_some() && self.fits(kept, &wanted.filter) => {
                found(self.correlating.contains(&kept.entry.from.node))
            }
            Some(_) | None => None,
        }
    }

    fn fits(&self, kept: &Kept, filter: &Filter) -> bool {
        filter.from.is_none_or(|node| node == kept.entry.from.node)
            && !(filter.unread && kept.mark.read_ns.is_some())
            && filter.since_ns.is_none_or(|since| kept.entry.arrived_ns > since)
            && filter.kind.as_ref().is_none_or(|kind| kind.eq_ignore_ascii_case(&kept.entry.kind))
            && filter.text.as_ref().is_none_or(|text| self.contains(kept, text))
    }

    fn contains(&self, kept: &Kept, text: &str) -> bool {
        if kept.entry.preview.as_ref().is_some_and(|preview| preview.contains(text)) {
            return true;
        }
        if kept.is_short {
            return false;
        }
        let Ok(content) = fs::read(self.path(&kept.entry.id)) else { return false };
        let Ok(message) = serde_json::from_slice::<StoredMessage>(&content) else { return false };
        message.body().is_ok_and(|body| contains_bytes(&body, text.as_bytes()))
    }
}

fn contains_bytes(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}
