//! Webhooks: each agent has an HTTP server of its own, and is called at it.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use tokio::sync::mpsc;

use crate::six_ways::Error;
use crate::six_ways::job::{Link, Message};
use crate::six_ways::wire::{Http, deliver, serve};

/// An agent that listens here, and whose peer is called there.
pub(crate) fn link(listen: SocketAddr, peer: SocketAddr) -> (Link, impl Future<Output = Result<(), Error>>) {
    let (link, mut ends) = Link::new();
    let hook = format!("http://{peer}/hook");
    tokio::spawn(async move {
        let http = Http::new();
        while let Some(message) = ends.said.recv().await {
            deliver(&http, &hook, &message).await;
        }
    });
    let routes = Router::new().route("/hook", post(called)).with_state(ends.told);
    (link, serve(listen, routes))
}

async fn called(State(told): State<mpsc::Sender<Message>>, Json(message): Json<Message>) -> StatusCode {
    match told.send(message).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::GONE,
    }
}
