#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
mod common;
#[test]
fn the_rules_print_what_the_document_shows() {
    common::tour::check("docs/messaging/gplay.md", &["alice", "bob"], 16);
}
