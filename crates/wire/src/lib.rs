//! Every format of the Pilot protocol: bytes to types and back.
//!
//! Two rules hold in each module. *Parsing borrows*: a parsed packet or frame points into the datagram it came from,
//! and a value that exists is valid. *Emitting appends*: bytes go to the end of a caller's buffer, so whoever wraps a
//! format in another one leaves room first and copies nothing twice.
//!
//! There is no state, clock, randomness or cryptography here.

pub mod addr;
pub mod beacon;
pub mod capture;
pub mod dataexchange;
pub mod error;
pub mod events;
pub mod handshake;
pub mod hooks;
pub mod ids;
pub mod ipc;
pub mod keys;
pub mod mailbox;
pub mod mailboxes;
pub mod mesh;
pub mod networks;
pub mod outbox;
pub mod packet;
pub mod path;
pub mod policy;
pub mod reader;
pub mod received;
pub mod record;
pub mod registry;
pub mod sack;
pub mod seq;
pub mod serving;
pub mod tasks;
pub mod tunnel;
pub mod web;

pub use addr::{Addr, Endpoint, ParseAddrError};
pub use error::ParseError;
pub use ids::{NetworkId, NodeId, Port, StreamId};
pub use keys::{AgreementPublic, PublicKey, Signature};
pub use reader::Reader;
pub use seq::Seq;
