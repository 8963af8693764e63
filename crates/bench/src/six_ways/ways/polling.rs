//! HTTP polling: a server keeps a mailbox for each agent, and the agents look into theirs again and again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use tokio::time::{MissedTickBehavior, interval};

use crate::six_ways::Error;
use crate::six_ways::job::{HELD, Link, Message};
use crate::six_ways::role::Name;
use crate::six_ways::wire::{Http, deliver, serve};

/// What the server knows.
#[derive(Debug, Default)]
struct Boxes {
    /// What lies in each agent's mailbox.
    of: HashMap<Name, VecDeque<Message>>,
    /// Polls that brought nothing.
    empty: u64,
}

type Shared = Arc<Mutex<Boxes>>;

/// The server.
pub(crate) async fn serve_boxes(listen: SocketAddr) -> Result<(), Error> {
    let routes = Router::new()
        .route("/box/{name}", get(take).post(put))
        .route("/empty", get(empty))
        .with_state(Shared::default());
    serve(listen, routes).await
}

async fn put(
    State(boxes): State<Shared>,
    Path(name): Path<Name>,
    Json(message): Json<Message>,
) -> StatusCode {
    let mut boxes = boxes.lock().unwrap_or_else(PoisonError::into_inner);
    let mailbox = boxes.of.entry(name).or_default();
    if mailbox.len() == HELD {
        return StatusCode::TOO_MANY_REQUESTS;
    }
    mailbox.push_back(message);
    StatusCode::ACCEPTED
}

async fn take(State(boxes): State<Shared>, Path(name): Path<Name>) -> Result<Json<Vec<Message>>, StatusCode> {
    let mut boxes = boxes.lock().unwrap_or_else(PoisonError::into_inner);
    let messages: Vec<Message> = boxes.of.entry(name).or_default().drain(..).collect();
    if messages.is_empty() {
        boxes.empty += 1;
        return Err(StatusCode::NO_CONTENT);
    }
    Ok(Json(messages))
}

async fn empty(State(boxes): State<Shared>) -> Json<u64> {
    Json(boxes.lock().unwrap_or_else(PoisonError::into_inner).empty)
}

/// An agent that looks into its mailbox once per `period`.
pub(crate) fn link(me: Name, server: SocketAddr, period: Duration) -> Link {
    let (link, mut ends) = Link::new();
    let http = Http::new();
    let (post, mine) = (format!("http://{server}/box/{}", me.other()), format!("http://{server}/box/{me}"));
    let posting = http.clone();
    tokio::spawn(async move {
        while let Some(message) = ends.said.recv().await {
            deliver(&posting, &post, &message).await;
        }
    });
    tokio::spawn(async move {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !ends.told.is_closed() {
            ticks.tick().await;
            // A server that is away is asked again at the next tick.
            let Ok(Some(body)) = http.get(&mine).await else { continue };
            for message in serde_json::from_slice::<Vec<Message>>(&body).unwrap_or_default() {
                if ends.told.send(message).await.is_err() {
                    return;
                }
            }
        }
    });
    link
}
