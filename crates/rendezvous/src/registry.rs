//! The registry as a state machine: who the nodes are, who trusts whom, what waits for whom (spec/registry.md).

mod audit;
mod beacons;
mod cards;
mod delivery;
mod elsewhere;
mod handshakes;
mod key_life;
mod keys;
mod membership;
mod names;
mod network_requests;
mod networks;
mod nodes;
mod notices;
mod provisioning;
mod published;
pub mod record;
mod refusal;
mod scores;
mod seals;
mod session;
mod state;
mod trust;
mod verified;

pub use crate::rate::Rate;
pub use record::{Key, Record};
pub use refusal::{HostnameFault, Refusal};
pub use session::ConnId;
pub use state::{Change, Config, RestoreError, State};
