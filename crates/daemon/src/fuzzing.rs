//! The parsers in here that read what others send or wrote, for `pilot-fuzz`. Each function takes any bytes and panics if
//! something is not as it must be.

pub use crate::network::fuzzing::{gateway, lan};
pub use crate::service::fuzzing::{file_name, letter_inside, stored};
pub use crate::state::fuzzing::state_file;

/// A request for metrics.
pub fn metrics_request(head: &[u8]) {
    crate::metrics::fuzzing::request(head);
}

/// URLs and answers of proxies, webhooks and beacons over the web, times, signed envelopes.
pub fn text(text: &str) {
    crate::web::fuzzing::text(text);
    crate::webhook::fuzzing::text(text);
    crate::datetime::fuzzing::text(text);
    crate::driver::fuzzing::envelope(text);
}
