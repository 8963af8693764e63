//! The document about MCP is played line by line, and prints what it says.
//!
//! `UPDATE_DOCS=1 cargo test -p pilotctl --test mcp_page` writes what was printed into it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

#[test]
fn the_commands_do_what_their_document_shows() {
    common::tour::check_among_friends("docs/mcp.md", &["alice", "bob"], 6);
}
