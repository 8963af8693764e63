//! The conversation between the daemon and its local clients: length-prefixed frames over a Unix socket.
//!
//! A frame is `u32 length | u8 command | payload`, the length counting command and payload, all numbers
//! big-endian. A client says [`ClientFrame`]s, most of which hold a [`Request`]; the daemon says
//! [`DaemonFrame`]s, most of which hold a [`Reply`].
//!
//! Two dialects share the socket:
//!
//! * The **reference dialect** (commands below 0x80) is what released 1.18 drivers speak. It has no request
//!   numbers: replies are told apart by their command and their order, and nothing limits what the daemon
//!   pushes.
//! * The **extended dialect** starts with [`ClientFrame::Hello`]. Requests are [`ClientFrame::Tagged`], so replies may
//!   overtake each other; failures carry a machine-readable [`Failure`]; each direction of each stream sends
//!   no more than the other side granted ([`INITIAL_CREDIT`], then `Credit` frames), so a stream nobody
//!   reads holds up nothing else; and a stream can end in one direction before the other.
//!
//! Parsing of requests yields, for malformed ones, the very texts of 1.18 ([`RequestError`]).

mod call;
mod command;
mod events;
mod failure;
mod frame;
mod json;
mod network;
pub mod paths;
mod reply;
mod request;
mod subcommand;

pub use call::{
    Alarm, AutoApprove, Call, Done, Pong, Recovery, RecoveryChange, RegistryStatus, RegistryTls,
    ServiceStatus, Status, TrustEntry, TrustList, TrustState, TrustWait, WebLink,
};
pub use command::Command;
pub use events::{EventCounters, EventsStatus, HistoryStatus, LinkState, LinkStatus, SubscriptionStatus};
pub use failure::{Code, Failure};
pub use frame::{Decoder, FrameTooLong, MAX_DATA, MAX_FRAME, data_header};
pub use json::{
    Badge, Broadcasted, ConnInfo, Deregistered, Enrollment, EnvelopeCheck, Features, Health, HostnameSet,
    Info, KeyChanged, KeyChangedBy, NetworkAddress, NodeStatus, PeerInfo, Pending, PendingList, Preferred,
    Resolved, SignEnvelope, SignedEnvelope, TagsSet, Trusted, TrustedList, VerifyEnvelope, VisibilitySet,
    Waited, WebhookSet,
};
pub use network::{LanStatus, MappingProtocol, MappingState, NetworkStatus, PortMappingStatus};
pub use reply::{DaemonFrame, Reply, ReplyError};
pub use request::{ClientFrame, MAX_TAGS, Request, RequestError};
pub use subcommand::{Handshake, Managed, Network};

/// Version of the extended dialect that [`ClientFrame::Hello`] asks for.
pub const DIALECT: u8 = 1;

/// The name under which `Info` lists the extended dialect in its `features`.
pub const DIALECT_FEATURE: &str = "pilot.hello";

/// Bytes that a dial may bring along ([`Request::DialWith`]). No stream's buffer is smaller.
pub const FIRST_BYTES: usize = 16 << 10;

/// Bytes each side may send on a new stream of the extended dialect before the other grants more. One
/// frame of the largest size fits, and a reader that keeps up sees no pause on loopback.
pub const INITIAL_CREDIT: u32 = 1 << 20;
