//! The documents about messaging are played line by line, and print what they say.
//!
//! `UPDATE_DOCS=1 cargo test -p pilotctl --test messaging` writes what was printed into them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::tour::check_among_friends;

#[test]
fn the_outbox_does_what_its_document_shows() {
    check_among_friends("docs/messaging/outbox.md", &["alice", "bob"], 9);
}

#[test]
fn the_inbox_does_what_its_document_shows() {
    check_among_friends("docs/messaging/inbox.md", &["alice", "bob"], 18);
}

#[test]
fn requests_are_answered_as_their_document_shows() {
    check_among_friends("docs/messaging/requests.md", &["alice", "bob"], 14);
}

#[test]
fn files_arrive_as_their_document_shows() {
    check_among_friends("docs/messaging/files.md", &["alice", "bob"], 11);
}

#[test]
fn events_are_heard_as_their_document_shows() {
    check_among_friends("docs/messaging/events.md", &["alice", "bob"], 11);
}

#[test]
fn tasks_go_the_ways_their_document_shows() {
    check_among_friends("docs/messaging/tasks.md", &["alice", "bob"], 25);
}

#[test]
fn rules_hold_as_their_document_shows() {
    check_among_friends("docs/messaging/rules.md", &["alice", "bob"], 22);
}

#[test]
fn mailboxes_keep_messages_as_their_document_shows() {
    check_among_friends("docs/messaging/mailboxes.md", &["alice", "bob", "carol"], 15);
}
