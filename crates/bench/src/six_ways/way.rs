//! The ways that are compared, in words.

use std::fmt;
use std::time::Duration;

use pilot_lab::Access;

/// A way for two agents to talk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// HTTP polling, once per so many seconds.
    Polling(u32),
    /// Each calls the other's HTTP server.
    Webhook,
    /// A hub with a WebSocket to each.
    WebSocket,
    /// A broker.
    Mqtt,
    /// A hub with a gRPC stream to each.
    Grpc,
    /// A stream between two daemons, from socket to socket.
    PilotDirect,
    /// A stream between two daemons whose routers let no datagram of the other in.
    PilotRelayed,
}

impl Way {
    /// All, in the order of the tables.
    pub(crate) const ALL: [Self; 8] = [
        Self::Polling(1),
        Self::Polling(2),
        Self::Webhook,
        Self::WebSocket,
        Self::Mqtt,
        Self::Grpc,
        Self::PilotDirect,
        Self::PilotRelayed,
    ];

    /// Once per protocol, for what does not depend on the period or the path.
    pub(crate) const PROTOCOLS: [Self; 6] =
        [Self::Polling(1), Self::Webhook, Self::WebSocket, Self::Mqtt, Self::Grpc, Self::PilotDirect];

    /// The time between two polls, if it polls.
    pub(crate) const fn period(self) -> Option<Duration> {
        match self {
            Self::Polling(seconds) => Some(Duration::from_secs(seconds as u64)),
            Self::Webhook
            | Self::WebSocket
            | Self::Mqtt
            | Self::Grpc
            | Self::PilotDirect
            | Self::PilotRelayed => None,
        }
    }

    /// Whether the agents' machines run a daemon of Pilot each.
    pub(crate) const fn is_pilot(self) -> bool {
        matches!(self, Self::PilotDirect | Self::PilotRelayed)
    }

    /// What the agents are behind when this way is measured.
    pub(crate) const fn access(self) -> Access {
        // Only where datagrams cannot get in does Pilot use its relay.
        if matches!(self, Self::PilotRelayed) { Access::Symmetric } else { Access::PortRestricted }
    }

    /// The protocol alone.
    pub(crate) const fn protocol(self) -> &'static str {
        match self {
            Self::Polling(_) => "HTTP polling",
            Self::Webhook => "webhook",
            Self::WebSocket => "WebSocket",
            Self::Mqtt => "MQTT",
            Self::Grpc => "gRPC",
            Self::PilotDirect | Self::PilotRelayed => "Pilot",
        }
    }

    /// What somebody must run where both agents reach it.
    pub(crate) const fn hosted(self) -> &'static str {
        match self {
            Self::Polling(_) => "a server with mailboxes",
            Self::Webhook => "nothing",
            Self::WebSocket => "a hub that passes messages on",
            Self::Mqtt => "a broker",
            Self::Grpc => "a hub that passes messages on",
            Self::PilotDirect | Self::PilotRelayed => "a rendezvous, and a daemon beside each agent",
        }
    }

    /// What the owners of the routers must do.
    pub(crate) const fn opened(self) -> &'static str {
        match self {
            Self::Webhook => "a port in the router of each agent",
            Self::Polling(_)
            | Self::WebSocket
            | Self::Mqtt
            | Self::Grpc
            | Self::PilotDirect
            | Self::PilotRelayed => "nothing",
        }
    }

    /// Who can read the messages, as they were set up here.
    pub(crate) const fn readers(self) -> &'static str {
        match self {
            Self::Polling(_) | Self::WebSocket | Self::Mqtt | Self::Grpc => {
                "the network (no TLS here) and the server"
            }
            Self::Webhook => "the network (no TLS here)",
            Self::PilotDirect | Self::PilotRelayed => "the two agents' machines",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Polling(seconds) => write!(f, "HTTP polling, {seconds} s"),
            Self::PilotDirect => f.write_str("Pilot, direct"),
            Self::PilotRelayed => f.write_str("Pilot, relayed"),
            Self::Webhook | Self::WebSocket | Self::Mqtt | Self::Grpc => f.write_str(self.protocol()),
        }
    }
}
