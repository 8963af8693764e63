//! The state machines of a Pilot node.
//!
//! A [`Node`] is everything one agent's end of the network knows and decides: the keys and addresses of its
//! peers ([tunnels and paths](crate#layers)), its streams, whom it trusts, and what it still wants to know from
//! the registry. It does no input or output. Whoever drives it tells it what happened and when, and asks what to
//! do:
//!
//! ```text
//!   datagrams, timers, answers, commands  ──▶  Node  ──▶  datagrams, deadline, queries, events
//! ```
//!
//! `pilot-daemon` drives one node with a UDP socket, `pilot-sim` many with none. Both see the same behaviour,
//! because the only clock is the `now` of each call and the only randomness comes from [`Config::seed`].
//!
//! # Layers
//!
//! | module | keeps |
//! |---|---|
//! | [`node`] | the tables, and what belongs to several of the others |
//! | `tunnel` | the keys shared with one peer |
//! | `path` | where one peer is reached |
//! | [`stream`] | one connection |
//! | [`trust`] | who may talk to us |
//! | [`tap`] | copies of packets for whoever watches |
//! | `query` | what the registry is asked |

mod config;
mod error;
mod event;
pub mod node;
mod path;
mod query;
mod rate;
pub mod stream;
pub mod tap;
#[cfg(test)]
mod testing;
mod timer;
pub mod trust;
mod tunnel;

pub use config::{Config, Encryption, KeyAgreement, TunnelConfig, Visibility};
pub use error::{DatagramError, DialError, PortInUse};
pub use event::{Agreement, BeaconEvent, Closed, Event, PeerEvent, PingId, Side, StreamEvent, TrustEvent};
pub use node::{Node, RelayState, Silence, Survey, Transmit};
pub use path::candidate::CandidateSource;
pub use query::{Answer, Location, Query, QueryError, QueryId};
pub use stream::{Read, StreamError};
