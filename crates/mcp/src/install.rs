//! Where programs keep the servers they start, and how an entry is put there and taken out again.
//!
//! Files are changed as text, so that everything else in them stays as it is, byte for byte.

mod diff;
mod json;
mod toml;

use std::path::{Path, PathBuf};

pub use diff::diff;

/// A program that starts servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Claude Desktop.
    ClaudeDesktop,
    /// Claude Code.
    ClaudeCode,
    /// Cursor.
    Cursor,
    /// Visual Studio Code.
    Vscode,
    /// Codex.
    Codex,
    /// Windsurf.
    Windsurf,
    /// Gemini CLI.
    GeminiCli,
}

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name of the server.
    pub name: String,
    /// The program, by its absolute path.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
}

/// The directories that paths begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The user's home.
    pub home: PathBuf,
    /// Where settings are, if it was said (`XDG_CONFIG_HOME`).
    pub config: Option<PathBuf>,
    /// Where Codex keeps its own, if it was said (`CODEX_HOME`).
    pub codex: Option<PathBuf>,
    /// Whether this is macOS.
    pub is_macos: bool,
}

/// A file that cannot be changed safely.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no JSON: broken, or with comments.
    #[error("it is not plain JSON ({0}), and is not touched")]
    NotJson(String),
    /// Something else stands where the entry belongs.
    #[error("`{0}` in it is not an object, and is not touched")]
    NotAnObject(String),
    /// An entry that is written in a way that cannot be changed as text.
    #[error("it has an entry for this already that cannot be changed safely, and is not touched")]
    Unclear,
}

/// How a program writes its list down.
enum Form {
    /// JSON: an object under this key, and whether each entry says its type.
    Json { key: &'static str, typed: bool },
    /// TOML: tables `[mcp_servers.NAME]`.
    Toml,
}

impl Client {
    /// All of them, in alphabetical order.
    pub const ALL: [Self; 7] = [
        Self::ClaudeCode,
        Self::ClaudeDesktop,
        Self::Codex,
        Self::Cursor,
        Self::GeminiCli,
        Self::Vscode,
        Self::Windsurf,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "claude-desktop",
            Self::ClaudeCode => "claude-code",
            Self::Cursor => "cursor",
            Self::Vscode => "vscode",
            Self::Codex => "codex",
            Self::Windsurf => "windsurf",
            Self::GeminiCli => "gemini-cli",
        }
    }

    const fn form(self) -> Form {
        match self {
            Self::ClaudeDesktop | Self::Cursor | Self::Windsurf | Self::GeminiCli => {
                Form::Json { key: "mcpServers", typed: false }
            }
            Self::ClaudeCode => Form::Json { key: "mcpServers", typed: true },
            Self::Vscode => Form::Json { key: "servers", typed: true },
            Self::Codex => Form::Toml,
        }
    }

    /// The file of this user.
    #[must_use]
    pub fn user_file(self, places: &Places) -> PathBuf {
        let home = &places.home;
        let settings = || match (&places.config, places.is_macos) {
            (_, true) => home.join("Library/Application Support"),
            (Some(config), false) => config.clone(),
            (None, false) => home.join(".config"),
        };
        match self {
            Self::ClaudeDesktop => settings().join("Claude/claude_desktop_config.json"),
            Self::ClaudeCode => home.join(".claude.json"),
            Self::Cursor => home.join(".cursor/mcp.json"),
            Self::Vscode => settings().join("Code/User/mcp.json"),
            Self::Codex => places.codex.clone().unwrap_or_else(|| home.join(".codex")).join("config.toml"),
            Self::Windsurf => home.join(".codeium/windsurf/mcp_config.json"),
            Self::GeminiCli => home.join(".gemini/settings.json"),
        }
    }

    /// The file of a project, if the program has such a one.
    #[must_use]
    pub fn project_file(self, project: &Path) -> Option<PathBuf> {
        Some(project.join(match self {
            Self::ClaudeCode => ".mcp.json",
            Self::Cursor => ".cursor/mcp.json",
            Self::Vscode => ".vscode/mcp.json",
            Self::Codex => ".codex/config.toml",
            Self::GeminiCli => ".gemini/settings.json",
            Self::ClaudeDesktop | Self::Windsurf => return None,
        }))
    }

    /// Where it is documented that its list is kept there.
    #[must_use]
    pub const fn source(self) -> &'static str {
        match self {
            Self::ClaudeDesktop => "https://modelcontextprotocol.io/docs/develop/connect-local-servers",
            Self::ClaudeCode => "https://code.claude.com/docs/en/mcp",
            Self::Cursor => "https://cursor.com/docs/mcp",
            Self::Vscode => "https://code.visualstudio.com/docs/agents/reference/mcp-configuration",
            Self::Codex => "https://developers.openai.com/codex/mcp",
            Self::Windsurf => "https://docs.windsurf.com/windsurf/cascade/mcp",
            Self::GeminiCli => "https://geminicli.com/docs/tools/mcp-server/",
        }
    }

    /// What else there is to know.
    #[must_use]
    pub const fn remark(self, places: &Places) -> Option<&'static str> {
        match (self, places.is_macos) {
            (Self::ClaudeDesktop, false) => {
                Some("there is no official build for Linux; this is where those of others look")
            }
            (Self::ClaudeCode, _) => Some(
                "close Claude Code first: it writes this file itself. Or: claude mcp add -s user NAME -- COMMAND",
            ),
            (
                Self::ClaudeDesktop
                | Self::Cursor
                | Self::Vscode
                | Self::Codex
                | Self::Windsurf
                | Self::GeminiCli,
                _,
            ) => None,
        }
    }

    /// The text of its file with the entry in it.
    ///
    /// # Errors
    /// When the file cannot be changed safely.
    pub fn with_entry(self, text: &str, entry: &Entry) -> Result<String, EditError> {
        match self.form() {
            Form::Json { key, typed } => json::put(text, key, &entry.name, &entry.json(typed)),
            Form::Toml => toml::put(text, entry),
        }
    }

    /// The text of its file without the entry.
    ///
    /// # Errors
    /// When the file cannot be changed safely.
    pub fn without_entry(self, text: &str, name: &str) -> Result<String, EditError> {
        match self.form() {
            Form::Json { key, .. } => json::remove(text, key, name),
            Form::Toml => toml::remove(text, name),
        }
    }

    /// What to write by hand where the file cannot be changed safely.
    #[must_use]
    pub fn snippet(self, entry: &Entry) -> String {
        match self.form() {
            Form::Json { .. } => self.with_entry("", entry).unwrap_or_default(),
            Form::Toml => toml::table(entry),
        }
    }
}

impl Entry {
    /// The members of the entry, as JSON texts.
    fn json(&self, typed: bool) -> Vec<(&'static str, String)> {
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let mut members = Vec::new();
        if typed {
            members.push(("type", text("stdio")));
        }
        members.push(("command", text(&self.command)));
        let args: Vec<String> = self.args.iter().map(|arg| text(arg)).collect();
        members.push(("args", format!("[{}]", args.join(", "))));
        members
    }
}
