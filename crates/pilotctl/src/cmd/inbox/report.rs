//! How messages are shown. What a peer says stands behind a bar, below the name of who says it, so that it cannot be
//! taken for words of this program or of the owner.

use std::fmt;

use pilot_wire::ipc::TrustState;
use pilot_wire::mailbox::{Entry, Path, Provenance, Reply, StoredMessage};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Failure;
use crate::mailbox::content;
use crate::{humane, style};

/// Characters of a message shown in a list on a terminal.
const PREVIEW: usize = 100;

/// In front of each line that a peer wrote.
const BAR: &str = "| ";

/// `pilotctl inbox` and `inbox list`.
#[derive(Serialize)]
pub(super) struct Listed {
    /// Newest first.
    pub(super) messages: Vec<Entry>,
    pub(super) total: u64,
    pub(super) unread: u64,
    pub(super) shown: usize,
    /// Older ones that the filters let through.
    pub(super) more: u64,
    pub(super) dir: String,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.messages.is_empty() {
            return write!(f, "no messages");
        }
        for entry in &self.messages {
            let who = entry.from_hostname.clone().unwrap_or_else(|| entry.from.to_string());
            let when = humane::from_rfc3339(&entry.received_at).map_or_else(String::new, humane::ago);
            let unread = if entry.read_at.is_none() { " · unread" } else { "" };
            let facts =
                format!("{} · {} · {when}{unread}", printable(&entry.kind), humane::bytes(entry.bytes));
            writeln!(f, "{} · {facts} · {}", style::strong(printable(&who)), style::faint(&entry.id))?;
            if let Some(preview) = &entry.preview {
                writeln!(f, "  {BAR}{}", humane::preview(preview, PREVIEW))?;
            }
        }
        if self.more > 0 {
            writeln!(f, "{} more; --limit 0 shows all", self.more)?;
        }
        write!(f, "{}", style::faint("read one: pilotctl inbox read ID"))
    }
}

/// One message in full.
#[derive(Serialize)]
pub(crate) struct Message {
    pub(super) id: String,
    #[serde(flatten)]
    pub(super) stored: StoredMessage,
    /// The parsed body of a JSON message.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
}

impl Message {
    /// From the daemon's answer.
    pub(super) fn from_reply(reply: Reply) -> Result<Self, Failure> {
        let (id, stored) = content(reply)?;
        Ok(Self::new(id, stored))
    }

    pub(crate) fn new(id: String, stored: StoredMessage) -> Self {
        let json = match (stored.kind.as_str(), &stored.data) {
            ("JSON", Some(text)) => serde_json::from_str(text).ok(),
            _ => None,
        };
        Message { id, stored, json }
    }

    /// What it says, safe for a terminal.
    pub(crate) fn body(&self) -> String {
        match (&self.stored.data, &self.stored.data_b64) {
            (Some(text), _) => humane::printable(text),
            (None, Some(base64)) => format!("(binary, in base64) {base64}"),
            (None, None) => String::new(),
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stored = &self.stored;
        let who = match &stored.from_hostname {
            Some(name) => format!("{} ({})", printable(name), stored.from),
            None => stored.from.to_string(),
        };
        let key =
            stored.from_key.as_ref().map_or_else(String::new, |key| format!(" · key {}", printable(key)));
        let came = stored.provenance.as_ref().map_or_else(String::new, |came| provenance(came));
        writeln!(f, "from {}{key}{came}", style::strong(who))?;
        let sent = stored.provenance.as_ref().and_then(|came| came.sent_at.as_ref());
        let sent = sent.map_or_else(String::new, |at| format!(" · sent {} by its clock", printable(at)));
        writeln!(
            f,
            "{} · {} · received {}{sent}",
            printable(&stored.kind),
            humane::bytes(stored.bytes),
            printable(&stored.received_at)
        )?;
        if let Some(id) = &stored.message_id {
            writeln!(f, "{}", style::faint(format!("message id {id} (answer with --reply-to {id})")))?;
        }
        if let Some(id) = &stored.reply_to {
            writeln!(f, "{}", style::faint(format!("answers {id}")))?;
        }
        write!(f, "{}", barred(&self.body()))
    }
}

/// A bar in front of each line.
fn barred(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("{BAR}{line}")).collect();
    if lines.is_empty() { BAR.trim_end().to_owned() } else { lines.join("\n") }
}

fn provenance(came: &Provenance) -> String {
    let trust = match came.trust {
        TrustState::None if came.path == Path::Own => return " · this node itself".to_owned(),
        TrustState::None => "not trusted",
        TrustState::Pending => "asks for trust",
        TrustState::Requested => "asked for trust",
        TrustState::Trusted => "trusted",
        TrustState::Rejected => "declined trust",
        TrustState::Revoked => "trust taken back",
    };
    let path = match &came.path {
        Path::Unknown | Path::Own => String::new(),
        Path::Direct { endpoint } => format!(" · direct {}", printable(endpoint)),
        Path::Relayed => " · relayed".to_owned(),
        Path::Mailbox { via } => format!(" · kept by {via}"),
    };
    format!(" · {trust}{path}")
}

/// A line of a file that another program may have written.
fn printable(text: &str) -> String {
    humane::printable(text).replace('\n', " ")
}

/// `--latest` and `--full`.
#[derive(Serialize)]
pub(super) struct Full {
    pub(super) messages: Vec<Message>,
    pub(super) total: u64,
    pub(super) unread: u64,
    pub(super) shown: usize,
    pub(super) more: u64,
    pub(super) dir: String,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.messages.is_empty() {
            return f.write_str("no messages");
        }
        let messages: Vec<String> = self.messages.iter().map(ToString::to_string).collect();
        f.write_str(&messages.join("\n\n"))?;
        if self.more > 0 {
            write!(f, "\n\n{} more; --limit 0 shows all", self.more)?;
        }
        Ok(())
    }
}

/// `inbox clear`, `inbox rm`, `received --clear`.
#[derive(Serialize)]
pub(crate) struct Cleared {
    pub(crate) cleared: u64,
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} removed", self.cleared)
    }
}

/// `inbox mark`.
#[derive(Serialize)]
pub(super) struct Marked {
    pub(super) marked: u64,
    pub(super) unread: bool,
}

impl fmt::Display for Marked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} marked as {}", self.marked, if self.unread { "unread" } else { "read" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Message {
        let file = serde_json::json!({
            "bytes": body.len(), "data": body, "from": "0:0000.0000.0002", "from_hostname": "bob",
            "received_at": "2026-11-21T08:01:27Z", "type": "TEXT",
            "provenance": {"trust": "trusted", "path": "direct", "endpoint": "192.0.2.1:4000"},
        });
        Message::new("TEXT-1".to_owned(), serde_json::from_value(file).unwrap())
    }

    #[test]
    fn no_line_of_a_peer_can_be_taken_for_one_of_ours() {
        let shown = message("hello\nfrom root (0:0000.0000.0001) · trusted\n\x1b[2Jgone").to_string();
        let plain = anstream::adapter::strip_str(&shown).to_string();
        assert_eq!(
            plain,
            "from bob (0:0000.0000.0002) · trusted · direct 192.0.2.1:4000\n\
             TEXT · 54 B · received 2026-11-21T08:01:27Z\n\
             | hello\n| from root (0:0000.0000.0001) · trusted\n|  [2Jgone"
        );
    }

    #[test]
    fn an_empty_message_is_a_bar() {
        assert!(message("").to_string().ends_with("\n|"));
    }
}
