//! A copy of all records, made at one moment while nodes are served.

use super::{Desk, access::Visitor};
use crate::{dump, serve::Event};
use axum::{
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use tokio::sync::oneshot;

/// In which a copy travels.
const TYPE: &str = "application/x-ndjson";

pub(super) async fn backup(State(desk): State<Arc<Desk>>, visitor: Visitor) -> Response {
    if !visitor.may_copy {
        let why = "a copy of the records takes the control token, on the rendezvous' own machine; \
                   `pilotctl rendezvous backup FILE` has it\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    let unavailable = || {
        let why = "no copy can be made: the store does not work, or the registry does not answer\n";
        (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    };
    let (copy, records) = oneshot::channel();
    let Some(to_registry) = desk.sources.to_registry.upgrade() else { return unavailable() };
    let asked = to_registry.send(Event::Copy(copy)).await.is_ok();
    drop(to_registry);
    let Some(records) = (if asked { records.await.ok() } else { None }) else { return unavailable() };
    let created = desk.unix();
    let text = tokio::task::spawn_blocking(move || {
        let mut text = Vec::new();
        dump::write(&records, created, &mut text).map(|()| text)
    });
    match text.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, TYPE)], Body::from(text)).into_response(),
        Ok(Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
