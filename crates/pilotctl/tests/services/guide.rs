//! The guide is played line by line.

use axum::Router;
use axum::routing::get;

use crate::common::tour::check_among_friends_with;
use crate::web::site;

/// An address that nobody listens on.
fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn the_guide_prints_what_it_shows() {
    let hello = site(Router::new().route("/", get(|| async { "hello from a service of bob\n" })));
    let here = [
        ("127.0.0.1:8080", hello.to_string()),
        ("127.0.0.1:9090", free()),
        ("127.0.0.1:1080", free()),
        ("127.0.0.1:8118", free()),
        // Another process may play it at the same time.
        ("127.4.", format!("127.{}.", 100 + std::process::id() % 100)),
    ];
    check_among_friends_with("docs/services.md", &["alice", "bob"], 16, &here);
}
