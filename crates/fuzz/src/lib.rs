//! What is fuzzed: each [`Target`] takes any bytes and panics if something is not as it must be.
//!
//! Three run them: libFuzzer (`fuzz/`, `cargo xtask fuzz`), `fuzz/nightly` for ten minutes each, and the tests of this crate,
//! which feed them every input that was ever found and the same changed ones each time, so that no change gets by.

mod daemon;
mod files;
mod formats;
mod local;
mod mcp;
pub mod mutate;
mod node;
mod registry;
mod script;
mod seals;
mod servers;
mod streams;
mod text;

pub use daemon::{gateway, lan, received_text, state_files};
pub use files::{backup, editor, identity, import};
pub use formats::{beacon, packet, path, record, sack, tunnel};
pub use local::{calls, capture, ipc_client_frame, ipc_daemon_frame};
pub use mcp::mcp;
pub use node::node;
pub use registry::{card, registry_request, registry_response};
pub use seals::{letter, noise};
pub use servers::{beacon_state, registry_state};
pub use streams::{dataexchange, events, folder, handshake, tasks, web};
pub use text::text;

/// Something that takes bytes from others.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// As the folder of its inputs is called.
    pub name: &'static str,
    /// Takes one input.
    pub run: fn(&[u8]),
}

/// All of them, in the order of their names.
pub const TARGETS: &[Target] = &[
    Target { name: "backup", run: backup },
    Target { name: "beacon", run: beacon },
    Target { name: "beacon_state", run: beacon_state },
    Target { name: "calls", run: calls },
    Target { name: "capture", run: capture },
    Target { name: "card", run: card },
    Target { name: "dataexchange", run: dataexchange },
    Target { name: "editor", run: editor },
    Target { name: "events", run: events },
    Target { name: "folder", run: folder },
    Target { name: "gateway", run: gateway },
    Target { name: "handshake", run: handshake },
    Target { name: "identity", run: identity },
    Target { name: "import", run: import },
    Target { name: "ipc_client_frame", run: ipc_client_frame },
    Target { name: "ipc_daemon_frame", run: ipc_daemon_frame },
    Target { name: "lan", run: lan },
    Target { name: "letter", run: letter },
    Target { name: "mcp", run: mcp },
    Target { name: "node", run: node },
    Target { name: "noise", run: noise },
    Target { name: "packet", run: packet },
    Target { name: "path", run: path },
    Target { name: "received_text", run: received_text },
    Target { name: "record", run: record },
    Target { name: "registry_request", run: registry_request },
    Target { name: "registry_response", run: registry_response },
    Target { name: "registry_state", run: registry_state },
    Target { name: "sack", run: sack },
    Target { name: "state_files", run: state_files },
    Target { name: "tasks", run: tasks },
    Target { name: "text", run: text },
    Target { name: "tunnel", run: tunnel },
    Target { name: "web", run: web },
];
