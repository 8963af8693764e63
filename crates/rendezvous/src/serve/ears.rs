//! The sockets of the beacon beside its main one, with which nodes find out what box they are behind.

use crate::beacon::{Ear, Ears};
use std::{
    io,
    net::{IpAddr, SocketAddr},
};
use tokio::net::UdpSocket;

/// A socket that answers surveys, and one at the same address to which nobody sends.
#[derive(Debug)]
struct Pair {
    open: UdpSocket,
    quiet: UdpSocket,
}

/// All of them. A beacon that gets none still does everything else.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    port: Option<Pair>,
    address: Option<Pair>,
}

impl Sockets {
    /// Binds them beside a beacon at `main`: the next port if it is free, and `second`, if given, with the port of the
    /// beacon.
    pub(super) async fn bind(main: SocketAddr, second: Option<IpAddr>) -> Self {
        let mut sockets = Self::default();
        match Pair::bind(SocketAddr::new(main.ip(), main.port().wrapping_add(1)), true).await {
            Ok(pair) => sockets.port = Some(pair),
            Err(error) => {
                tracing::warn!(%error, "no second port; nodes cannot tell what NAT they are behind")
            }
        }
        if let Some(ip) = second {
            match Pair::bind(SocketAddr::new(ip, main.port()), false).await {
                Ok(pair) => sockets.address = Some(pair),
                Err(error) => tracing::warn!(%ip, %error, "the second address of the beacon cannot be used"),
            }
        }
        sockets
    }

    /// Where nodes find them.
    pub(super) fn ears(&self) -> Ears {
        let local = |pair: &Pair| pair.open.local_addr().ok();
        Ears {
            second_port: self.port.as_ref().and_then(local).map(|addr| addr.port()),
            second_addr: self.address.as_ref().and_then(local),
        }
    }

    /// Takes one datagram into `buffer`, when there is one: at which socket, how long, from whom.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> (Ear, usize, SocketAddr) {
        loop {
            let ear = tokio::select! {
                () = readable(self.port.as_ref()) => Ear::SecondPort,
                () = readable(self.address.as_ref()) => Ear::SecondAddress,
            };
            let pair = if ear == Ear::SecondPort { &self.port } else { &self.address };
            if let Some(Ok((length, from))) = pair.as_ref().map(|pair| pair.open.try_recv_from(buffer)) {
                return (ear, length, from);
            }
        }
    }

    /// Sends from one of them.
    pub(super) fn send(&self, ear: Ear, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let pair = match ear {
            Ear::Main => None,
            Ear::SecondPort | Ear::QuietPort => self.port.as_ref(),
            Ear::SecondAddress | Ear::QuietAddress => self.address.as_ref(),
        };
        let pair = pair.ok_or(io::ErrorKind::NotConnected)?;
        let socket = match ear {
            Ear::QuietPort | Ear::QuietAddress => &pair.quiet,
            Ear::Main | Ear::SecondPort | Ear::SecondAddress => &pair.open,
        };
        socket.try_send_to(datagram, to).map(drop)
    }
}

impl Pair {
    /// `elsewhere`: another port will do if this one is taken.
    async fn bind(at: SocketAddr, elsewhere: bool) -> io::Result<Self> {
        let any = SocketAddr::new(at.ip(), 0);
        let open = match UdpSocket::bind(at).await {
            Ok(socket) => socket,
            Err(_) if elsewhere => UdpSocket::bind(any).await?,
            Err(error) => return Err(error),
        };
        Ok(Self { open, quiet: UdpSocket::bind(any).await? })
    }
}

async fn readable(pair: Option<&Pair>) {
    match pair {
        // An error shows up when the datagram is taken, and is about a peer.
        Some(pair) => drop(pair.open.readable().await),
        None => std::future::pending().await,
    }
}
