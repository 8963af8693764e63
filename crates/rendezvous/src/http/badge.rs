//! Numbers as small pictures, for a README (spec/registry.md 16).

use super::Desk;
use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;

/// Of a badge without anything to count.
const GREY: &str = "#9f9f9f";

pub(super) async fn badge(State(desk): State<Arc<Desk>>, Path(name): Path<String>) -> Response {
    let overview = desk.sources.registry.borrow().overview.clone();
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let (label, number, colour) = match name.as_str() {
        "nodes" => ("online nodes", count(overview.online), "#4c1"),
        "trust" => ("trust links", overview.trust_links, "#58a6ff"),
        "requests" => ("requests", desk.sources.meters.totals().0, "#a855f7"),
        "tags" => ("tags", count(overview.round.unique_tags), "#f59e0b"),
        "task-executors" => ("task executors", overview.round.task_executors, "#4c1"),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let colour = if number == 0 && name != "requests" { GREY } else { colour };
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, picture(label, &short(number), colour)).into_response()
}

/// 1.2K, 1.2M, 1.2B.
fn short(number: u64) -> String {
    let steps = [(1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")];
    match steps.into_iter().find(|(step, _)| number >= *step) {
        Some((step, letter)) => format!("{}.{}{letter}", number / step, number % step * 10 / step),
        None => number.to_string(),
    }
}

fn picture(label: &str, number: &str, colour: &str) -> String {
    // The usual letters are 6.5 wide.
    let width = |text: &str| text.len() * 13 / 2 + 10;
    let (left, right) = (width(label), width(number));
    let (whole, label_at, number_at) = (left + right, left / 2, left + right / 2);
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="20" role="img" aria-label="{label}: {number}">
<rect width="{whole}" height="20" rx="3" fill="#555"/><rect x="{left}" width="{right}" height="20" rx="3" fill="{colour}"/>
<rect x="{left}" width="4" height="20" fill="{colour}"/>
<g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,sans-serif" font-size="11">
<text x="{label_at}" y="14">{label}</text><text x="{number_at}" y="14">{number}</text></g></svg>
"##
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_short() {
        let numbers = [0, 999, 1_000, 1_250, 999_999, 1_200_000, 7_300_000_000];
        assert_eq!(numbers.map(short), ["0", "999", "1.0K", "1.2K", "999.9K", "1.2M", "7.3B"]);
    }
}
