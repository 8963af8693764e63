//! Addresses that nobody asked for: beside another one, if they are free.

use crate::config::{HttpListen, Web, WebListen};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};
use tokio::net::TcpListener;

use super::RunError;

/// An address that was only guessed and cannot be had, for example because another program has it. The rendezvous does
/// without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The address. Its port is 0 if there is none so many above the other.
    pub addr: SocketAddr,
    /// Why.
    pub why: io::ErrorKind,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.addr, self.why)
    }
}

/// What listens, or why nothing does. Neither: nothing was to.
#[derive(Default)]
pub(super) struct Place {
    pub(super) listener: Option<TcpListener>,
    pub(super) missing: Option<Missing>,
}

impl Place {
    /// For the pages, three ports above the registry; any, if it was to have any.
    pub(super) async fn of_pages(
        listen: HttpListen,
        wanted: SocketAddr,
        registry: SocketAddr,
    ) -> Result<Self, RunError> {
        let place = match listen {
            HttpListen::At(addr) => return Self::at("http", addr).await,
            HttpListen::Beside if wanted.port() == 0 => {
                Self::guessed(Ipv4Addr::LOCALHOST.into(), Some(0)).await
            }
            HttpListen::Beside => {
                Self::guessed(Ipv4Addr::LOCALHOST.into(), registry.port().checked_add(3)).await
            }
        };
        if let Some(missing) = place.missing {
            tracing::warn!(%missing, "no dashboard and no metrics; `--http-listen` sets where");
        }
        Ok(place)
    }

    /// For the web, one port above the beacon.
    pub(super) async fn of_web(web: &Web, beacon: SocketAddr) -> Result<Self, RunError> {
        let place = match web.listen {
            WebListen::At(addr) => return Self::at("web", addr).await,
            WebListen::Beside => Self::guessed(beacon.ip(), beacon.port().checked_add(1)).await,
        };
        if let Some(missing) = place.missing {
            tracing::warn!(%missing, "the beacon is not reached over the web; `--web-listen` sets where");
        }
        Ok(place)
    }

    async fn at(what: &'static str, addr: SocketAddr) -> Result<Self, RunError> {
        let listener = TcpListener::bind(addr).await;
        let listener = listener.map_err(|source| RunError::Bind { what, addr, source })?;
        Ok(Self { listener: Some(listener), missing: None })
    }

    async fn guessed(ip: IpAddr, port: Option<u16>) -> Self {
        let addr = SocketAddr::new(ip, port.unwrap_or_default());
        let bound = match port {
            Some(_) => TcpListener::bind(addr).await,
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        match bound {
            Ok(listener) => Self { listener: Some(listener), missing: None },
            Err(error) => Self { listener: None, missing: Some(Missing { addr, why: error.kind() }) },
        }
    }
}
