//! Numbers for Prometheus, in the text format of OpenMetrics: what the daemon and the rendezvous have in common.
//!
//! Both collect their numbers when they are asked, write them with an [`Out`], and add what the process takes of the
//! machine ([`Process`]).

mod out;
mod process;

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

pub use out::{Gauge, Histogram, Out};
pub use process::Process;
pub use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::DescriptorEncoder;

/// The `Content-Type` of [`text`], as Prometheus asks for it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is collected, as text.
///
/// # Errors
/// If the collector fails to write a number.
pub fn text(collector: impl Collector + 'static) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
