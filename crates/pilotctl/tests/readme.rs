//! The tour of the README is run line by line, and prints what it says there.
//!
//! `UPDATE_DOCS=1 cargo test -p pilotctl --test readme` writes what was printed into the README.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod common;

#[test]
fn the_tour_prints_what_the_readme_shows() {
    common::tour::check("README.md", &["alice", "bob"], 16);
}
