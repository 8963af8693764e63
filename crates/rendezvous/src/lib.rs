//! Where Pilot nodes find each other: the registry, which numbers them, and the beacon, which tells them where they
//! are and passes frames between those that cannot reach each other.
//!
//! Both are pure state machines: [`registry::State`] and [`beacon::State`] are told what happened and when, and asked
//! what to do; they know no socket, clock or disk. Around them lies a thin shell: [`run`] serves the registry over TCP
//! and the beacon over UDP and the web, and keeps the registry's records in a [`store`], on disk before anything is acknowledged.

pub mod beacon;
mod clock;
mod config;
pub mod dump;
mod http;
pub mod import;
mod meters;
mod rate;
pub mod registry;
mod serve;
pub mod store;
pub mod transfer;

pub use clock::Clock;
pub use config::{
    BeaconConfig, CertificateSource, Config, Http, HttpListen, RegistryTls, RegistryTrust, Web, WebLimits,
    WebListen, WebTls,
};
pub use serve::{Bound, BoundBeacon, BoundWeb, CertificateError, Missing, RunError, run, run_beacon};
