//! The guides are played line by line, and print what they say.
//!
//! `UPDATE_DOCS=1 cargo test -p pilotctl --test guides` writes what was printed into them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

use common::tour::{check, check_among_friends};

#[test]
fn the_quick_start_leads_from_nothing_to_an_answer() {
    check("docs/quick-start.md", &["alice", "bob"], 12);
}

#[test]
fn streams_and_datagrams_arrive_as_their_document_shows() {
    check_among_friends("docs/connections.md", &["alice", "bob"], 9);
}

#[test]
fn a_rendezvous_of_ones_own_takes_the_commands_its_document_shows() {
    check("docs/self-hosting.md", &["server", "alice", "bob"], 12);
}

#[test]
fn what_goes_wrong_looks_as_the_document_about_it_shows() {
    check_among_friends("docs/troubleshooting.md", &["alice", "bob"], 10);
}
