//! Where a node is: at a UDP address that it claims, and on a connection over the web on which it proved who it is.

use super::ears::Ear;
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Names one connection over the web. The shell gives each a number of its own and never gives one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WebId(pub u64);

/// How a message came, and how one goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// A datagram, from or to this address.
    Udp(SocketAddr),
    /// A message on a connection over the web.
    Web(WebId),
    /// A datagram from another socket of the beacon. Surveys are answered so.
    Elsewhere(Ear, SocketAddr),
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Udp(addr) => addr.fmt(f),
            Self::Web(WebId(number)) => write!(f, "web connection {number}"),
            Self::Elsewhere(_, addr) => addr.fmt(f),
        }
    }
}

/// One place where frames can be delivered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat<T> {
    pub(super) at: T,
    /// Delivers relayed frames with the destination in front.
    pub(super) delivers_to: bool,
}

/// The places of one node; never without any.
///
/// The web comes first: a node is there because datagrams do not reach it, and it has proved who it is. A UDP address
/// that claims the node meanwhile stands by, and is used when the connection has ended. So a node whose datagrams pass
/// again first says so over UDP, then closes the connection, and is never out of reach.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seats {
    pub(super) udp: Option<Seat<SocketAddr>>,
    pub(super) web: Option<Seat<WebId>>,
}

impl Seats {
    /// Where to send, and whether with the destination in front.
    pub(super) fn best(&self) -> Option<(Route, bool)> {
        let web = self.web.map(|seat| (Route::Web(seat.at), seat.delivers_to));
        web.or_else(|| self.udp.map(|seat| (Route::Udp(seat.at), seat.delivers_to)))
    }

    /// The address that datagrams reach it at, unless it is on the web because they do not.
    pub(super) fn punchable(&self) -> Option<SocketAddr> {
        if self.web.is_some() { None } else { self.udp.map(|seat| seat.at) }
    }

    /// The host that claims it over UDP.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.udp.map(|seat| seat.at.ip())
    }

    /// Whether what came this way may speak in its name. Over UDP the port may have changed since the last discover:
    /// NATs rebind.
    pub(super) fn admits(&self, from: Route) -> bool {
        match (from, self.web) {
            (Route::Web(conn), Some(seat)) => seat.at == conn,
            (Route::Web(_), None) | (Route::Udp(_), Some(_)) | (Route::Elsewhere(..), _) => false,
            (Route::Udp(addr), None) => self.ip() == Some(addr.ip()),
        }
    }
}
