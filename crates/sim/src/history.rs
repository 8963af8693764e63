//! Everything that happened in a world, as lines of text or as a digest of them.

use std::{
    collections::hash_map::DefaultHasher,
    fmt::{self, Write as _},
    hash::Hasher as _,
    time::Duration,
};

/// How much of the history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Nothing, and nonces are not watched either: for measurements.
    Nothing,
    /// A digest, equal exactly if two histories are.
    Digest,
    /// Nothing, but everything is watched as in all others.
    Watched,
    /// The digest and every line.
    Lines,
}

/// What happened, in order.
#[derive(Debug)]
pub struct History {
    detail: Detail,
    digest: DefaultHasher,
    line: String,
    lines: Vec<String>,
    events: u64,
}

impl History {
    /// An empty history.
    pub fn new(detail: Detail) -> Self {
        Self { detail, digest: DefaultHasher::new(), line: String::new(), lines: Vec::new(), events: 0 }
    }

    /// Adds an event at a time since the world began.
    pub fn record(&mut self, at: Duration, event: fmt::Arguments<'_>) {
        if matches!(self.detail, Detail::Nothing | Detail::Watched) {
            return;
        }
        self.events += 1;
        self.line.clear();
        // Writing to a `String` cannot fail.
        let _ = write!(self.line, "{:>12.6}  {event}", at.as_secs_f64());
        self.digest.write(self.line.as_bytes());
        self.digest.write_u8(b'\n');
        if self.detail == Detail::Lines {
            self.lines.push(self.line.clone());
        }
    }

    /// A number that tells two histories apart.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The lines, if they were kept.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }
}
