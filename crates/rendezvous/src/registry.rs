//! The registry as a state machine: who the nodes are, who trusts whom, what waits for whom (spec/registry.md).

mod beacons;
mod delivery;
mod handshakes;
mod names;
mod network_requests;
mod networks;
mod nodes;
pub mod record;
mod refusal;
mod scores;
mod session;
mod state;
mod trust;
mod verified;

pub use crate::rate::Rate;
pub use record::{Key, Record};
pub use refusal::{HostnameFault, Refusal};
pub use session::ConnId;
pub use state::{Change, Config, RestoreError, State};
