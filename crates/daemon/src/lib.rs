//! The Pilot daemon: one loop around one node, the local programs it serves, the registry it is known at.
//!
//! [`run`] is a whole daemon. Inside, `driver` owns everything that is protocol state and runs the only loop; `ipc` talks
//! to local programs, `registry` to the registry, `udp` is the tunnel socket, `web` the way to the beacon where UDP does not pass, `service` the built-in applications,
//! which use the same [client](pilot_client) as everybody else, without a socket in between. [`run_behind`] is a daemon inside a
//! program, which is such a client too. `files` and `state` keep what must survive.

mod belief;
mod config;
mod datetime;
mod driver;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod handle;
mod ipc;
mod memberships;
mod metrics;
mod network;
mod recovery;
mod registry;
mod run;
mod service;
mod state;
mod tls;
mod trace;
mod udp;
mod web;
mod webhook;

pub use config::{
    Config, IDLE_TIMEOUT, KEEPALIVE, ProxySetting, ReceivedLimits, RegistryTls, Services, TlsMode, Transport,
    Web, Webhook,
};
pub use ipc::SocketError;
pub use pilot_proto::stream::Congestion;
pub use recovery::{RecoverError, Recovered, make_recovery_key, recover};
pub use run::{RunError, Running, is_in_use, run, run_behind};
pub use state::StateError;
pub use tls::{Fingerprint, FingerprintError};
pub use web::{ProxyError, TargetError as BeaconWebError, derived as beacon_urls};
pub use webhook::TargetError;
