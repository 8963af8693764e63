//! The registry as a state machine: who the nodes are, who trusts whom, what waits for whom (spec/registry.md).

mod audit;
mod beacons;
mod cards;
mod census;
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
pub use census::{NetworkSize, Overview, Refused, Round};
pub(crate) use names::{
    check_hostname as checked_hostname, check_network_name as checked_network_name,
    check_tags as checked_tags,
};
pub(crate) use network_requests::digest as token_digest;
pub use record::{Key, Record};
pub use refusal::{HostnameFault, Refusal};
pub use session::ConnId;
pub use state::{Change, Config, RestoreError, State};
