//! What a node is told at birth.

use std::net::SocketAddr;
use std::time::Duration;

use pilot_crypto::Identity;

use crate::stream;

/// What a segment of 16 KiB needs: the network of one machine carries it, and few others carry half of that.
const MAX_DATAGRAM: u16 = 16_454;

/// Settings of a [`Node`](crate::Node). All randomness of the node comes from `seed`.
#[derive(Debug)]
pub struct Config {
    /// The key the address is bound to.
    pub identity: Identity,
    /// Where every random number of the node starts. From the operating system in a daemon, from the world's
    /// seed in the simulator. Must not be used twice: tunnel keys come from it.
    pub seed: [u8; 32],
    /// Whether frames are sealed.
    pub encryption: Encryption,
    /// How keys are agreed with nodes of this make.
    pub agreement: KeyAgreement,
    /// Who may reach this node without trust.
    pub visibility: Visibility,
    /// Accept every handshake request without asking a person.
    pub auto_approve: bool,
    /// The beacon that tells us our address, punches and relays.
    pub beacon: Option<SocketAddr>,
    /// Streams.
    pub streams: stream::Config,
    /// Tunnels and paths.
    pub tunnel: TunnelConfig,
}

impl Config {
    /// A private, encrypting node with default limits and no beacon.
    #[must_use]
    pub fn new(identity: Identity, seed: [u8; 32]) -> Self {
        Self {
            identity,
            seed,
            encryption: Encryption::Required,
            agreement: KeyAgreement::OfTheMoment,
            visibility: Visibility::Private,
            auto_approve: false,
            beacon: None,
            streams: stream::Config::default(),
            tunnel: TunnelConfig::default(),
        }
    }
}

/// Whether frames are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// Every frame is sealed; plaintext frames are dropped unread.
    Required,
    /// Nothing is sealed and nobody is authenticated. For debugging on one machine.
    Off,
}

/// How keys are agreed with nodes of this make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAgreement {
    /// Keys of the moment from both sides (docs/handshake.md); with others as release 1.18.0 does.
    OfTheMoment,
    /// As release 1.18.0 does, with everybody. What it is like to talk to that can be tried with it.
    AsShown,
}

/// Who may reach this node without trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Trusted nodes only; for all others the node does not exist.
    Private,
    /// Every registered node.
    Public,
}

/// Times of tunnels and paths.
#[derive(Debug, Clone)]
pub struct TunnelConfig {
    /// A peer with a session is asked for a sign of life after this much silence from us, which also keeps NAT
    /// bindings open (RFC 4787 REQ-5 allows them to close after 2 minutes, and many do after 30 s) and shows
    /// whether the way still works.
    pub keepalive: Duration,
    /// A dial to a peer that gives no sign of life at all fails after this long.
    pub unreachable_after: Duration,
    /// A dial to a peer that lives but does not answer the dial fails after this long.
    pub unanswered_after: Duration,
    /// The largest datagram, in bytes of UDP payload, that paths are searched for (RFC 8899): up to 65,507. Below 1222,
    /// the size that every path starts with, none is searched.
    pub max_datagram: u16,
}

impl Default for TunnelConfig {
    fn default() -> Self {
        Self {
            keepalive: Duration::from_secs(25),
            unreachable_after: Duration::from_secs(2),
            unanswered_after: Duration::from_secs(10),
            max_datagram: MAX_DATAGRAM,
        }
    }
}
