//! What several ways need: a client that keeps its HTTP connection, and a pause before the next try.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;

use super::Error;

/// Pause before a connection is tried again: short, so that what is measured is the way and not the patience of its
/// client.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// How often a connection that is quiet shows that it lives. Routers forget a quiet TCP connection after minutes at the
/// earliest, so this is on the safe side.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// The largest body that is read.
const BODY_MAX: usize = 1 << 20;

/// An HTTP/1.1 client whose connections stay open.
#[derive(Clone, Debug)]
pub(crate) struct Http(Client<HttpConnector, Full<Bytes>>);

impl Http {
    /// A client with no connection yet.
    pub(crate) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Posts as JSON. The answer is not looked at beyond its status.
    pub(crate) async fn post(&self, url: &str, body: &impl Serialize) -> Result<(), Error> {
        self.post_bytes(url, serde_json::to_vec(body)?.into()).await
    }

    /// Posts JSON that is written already.
    pub(crate) async fn post_bytes(&self, url: &str, body: Bytes) -> Result<(), Error> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.call(request).await.map(drop)
    }

    /// Gets a body; none when there is no content.
    pub(crate) async fn get(&self, url: &str) -> Result<Option<Bytes>, Error> {
        let (status, body) = self.call(Request::builder().uri(url).body(Full::default())?).await?;
        Ok((status != StatusCode::NO_CONTENT).then_some(body))
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), Error> {
        let response = self.0.request(request).await.map_err(Error::lost)?;
        let status = response.status();
        let body = http_body_util::Limited::new(response.into_body(), BODY_MAX).collect().await;
        let body = body.map_err(|error| Error::Lost(error.to_string()))?.to_bytes();
        if status.is_success() {
            Ok((status, body))
        } else {
            Err(Error::Lost(format!("HTTP status {status}")))
        }
    }
}

/// Posts until it is taken.
pub(crate) async fn deliver(http: &Http, url: &str, body: &impl Serialize) {
    while http.post(url, body).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves HTTP, each connection without delay for small answers.
pub(crate) async fn serve(listen: std::net::SocketAddr, routes: axum::Router) -> Result<(), Error> {
    use axum::serve::ListenerExt as _;
    let listener = tokio::net::TcpListener::bind(listen).await?.tap_io(|stream| {
        // One that cannot be set is slower, and that is all.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, routes).await?)
}
