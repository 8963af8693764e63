//! A website, and curl.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::{get, post};

use crate::door::in_background;

/// How a line of curl ended and what it printed.
#[derive(Debug)]
pub(crate) struct Curled {
    pub(crate) status: i32,
    pub(crate) body: String,
    pub(crate) stderr: String,
}

/// Runs curl, which takes nothing from its surroundings.
pub(crate) fn curl(words: &[&str]) -> Curled {
    let mut command = Command::new("curl");
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
    {
        command.env_remove(name);
    }
    let done =
        command.args(["-q", "-sS", "--max-time", "30"]).args(words).stdin(Stdio::null()).output().unwrap();
    Curled {
        status: done.status.code().unwrap_or(-1),
        body: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// Serves a router.
pub(crate) fn site(router: Router) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    in_background(move || async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        axum::serve(listener, router).await.unwrap();
    });
    address
}

/// Says to whom a request was addressed, and gives bodies back.
pub(crate) fn plain_site() -> SocketAddr {
    let host = |headers: HeaderMap| async move {
        let header =
            |name| headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        format!("host {} connection {}", header("host"), header("connection"))
    };
    site(Router::new().route("/", get(host)).route("/echo", post(|body: String| async { body })))
}
