//! Which hooks there are: `hooks.json` in the home folder, mode 0600 because keys are in it.

use std::io;
use std::path::{Path, PathBuf};

use pilot_wire::hooks::{Action, Matching};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::webhook::{Target, TargetError};

/// Hooks at the same time.
const HOOKS_MAX: usize = 64;

/// Longest command line, URL, text or key of a hook, in bytes.
const TEXT_MAX: usize = 16 << 10;

/// One hook, as it is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Definition {
    pub(super) id: u64,
    #[serde(flatten)]
    pub(super) action: Action,
    #[serde(flatten)]
    pub(super) matching: Matching,
    pub(super) created_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Content {
    /// The number of the next hook.
    next: u64,
    hooks: Vec<Definition>,
}

/// Why a hook is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    #[error("there is nothing to run")]
    NoCommand,
    #[error(transparent)]
    Url(#[from] TargetError),
    #[error("there are {HOOKS_MAX} hooks already")]
    TooMany,
    #[error("a part of it is longer than {TEXT_MAX} bytes")]
    TooLong,
    #[error("a command has no use for a key")]
    KeyWithoutUrl,
    #[error("it cannot be written down: {0}")]
    Disk(#[from] io::Error),
}

/// All hooks.
pub(super) struct Book {
    path: PathBuf,
    content: Content,
}

impl Book {
    pub(super) fn open(home: &Path) -> io::Result<Self> {
        let path = home.join("hooks.json");
        let content = files::read_json(&path)?.unwrap_or_default();
        Ok(Self { path, content })
    }

    pub(super) fn all(&self) -> &[Definition] {
        &self.content.hooks
    }

    pub(super) fn get(&self, id: u64) -> Option<&Definition> {
        self.content.hooks.iter().find(|hook| hook.id == id)
    }

    /// A hook that may be added, with its number. Only [`add`](Self::add) adds it.
    pub(super) fn draft(
        &self,
        action: Action,
        matching: Matching,
        secret: Option<String>,
        created_at: String,
    ) -> Result<Definition, Unfit> {
        let texts: Vec<&String> = match &action {
            Action::Exec { command, .. } if command.trim().is_empty() => return Err(Unfit::NoCommand),
            Action::Exec { .. } if secret.is_some() => return Err(Unfit::KeyWithoutUrl),
            Action::Exec { command, .. } => vec![command],
            Action::Post { url, .. } => {
                Target::parse(url)?;
                vec![url]
            }
        };
        let texts = texts.into_iter().chain(&matching.text).chain(&matching.kind).chain(&secret);
        if texts.into_iter().any(|text| text.len() > TEXT_MAX) {
            return Err(Unfit::TooLong);
        }
        if self.content.hooks.len() >= HOOKS_MAX {
            return Err(Unfit::TooMany);
        }
        let action = match action {
            Action::Post { url, .. } => Action::Post { url, signed: secret.is_some() },
            exec @ Action::Exec { .. } => exec,
        };
        Ok(Definition { id: self.content.next.max(1), action, matching, created_at, secret })
    }

    pub(super) fn add(&mut self, hook: Definition) -> io::Result<()> {
        let mut content = self.content.clone();
        content.next = hook.id + 1;
        content.hooks.push(hook);
        self.keep(content)
    }

    pub(super) fn remove(&mut self, id: u64) -> io::Result<()> {
        let mut content = self.content.clone();
        content.hooks.retain(|hook| hook.id != id);
        self.keep(content)
    }

    fn keep(&mut self, content: Content) -> io::Result<()> {
        files::replace_json(&self.path, &content)?;
        self.content = content;
        Ok(())
    }
}

#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(json: &[u8]) {
    crate::service::fuzzing::reads_back::<Content>(json);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn post(url: &str) -> Action {
        Action::Post { url: url.to_owned(), signed: false }
    }

    #[test]
    fn hooks_are_kept_private_and_numbers_are_not_used_twice() {
        let home = tempfile::tempdir().unwrap();
        let mut book = Book::open(home.path()).unwrap();
        for _ in 0..2 {
            let hook = book
                .draft(post("http://127.0.0.1/"), Matching::default(), Some("key".into()), String::new())
                .unwrap();
            assert_eq!(hook.action, Action::Post { url: "http://127.0.0.1/".into(), signed: true });
            book.add(hook).unwrap();
        }
        book.remove(2).unwrap();
        let book = Book::open(home.path()).unwrap();
        assert_eq!(book.all().iter().map(|hook| hook.id).collect::<Vec<_>>(), [1]);
        let next = book.draft(post("http://127.0.0.1/"), Matching::default(), None, String::new()).unwrap();
        assert_eq!(next.id, 3);
        let mode = std::fs::metadata(home.path().join("hooks.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_done_is_refused_at_once() {
        let home = tempfile::tempdir().unwrap();
        let book = Book::open(home.path()).unwrap();
        let exec = |command: &str| Action::Exec { command: command.to_owned(), timeout_ms: None };
        for (action, secret) in [
            (post("http://169.254.169.254/latest/meta-data"), None),
            (post("https://[fe80::1]/"), None),
            (post("ftp://example.org"), None),
            (exec("  "), None),
            (exec(&"x".repeat(TEXT_MAX + 1)), None),
            (exec("true"), Some("key".to_owned())),
        ] {
            assert!(book.draft(action, Matching::default(), secret, String::new()).is_err());
        }
    }
}
