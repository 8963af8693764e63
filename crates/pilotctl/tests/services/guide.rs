//! The guide is played line by line.

use axum::Router;
use axum::routing::get;
use pilot_ports::Ports;

use crate::common::tour::check_among_friends_with;
use crate::web::site;

#[test]
fn the_guide_prints_what_it_shows() {
    let hello = site(Router::new().route("/", get(|| async { "hello from a service of bob\n" })));
    let ports = Ports::reserve();
    let [local, socks, http, _] = ports.all().map(|address| address.to_string());
    let here = [
        ("127.0.0.1:8080", hello.to_string()),
        ("127.0.0.1:9090", local),
        ("127.0.0.1:1080", socks),
        ("127.0.0.1:8118", http),
        // Another process may play it at the same time.
        ("127.4.", format!("127.{}.", 100 + std::process::id() % 100)),
    ];
    check_among_friends_with("docs/services.md", &["alice", "bob"], 16, &here);
}
