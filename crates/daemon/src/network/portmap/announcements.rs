//! Gateways say to everybody around when they have forgotten their mappings, or got another address (RFC 6886 3.2.1, RFC
//! 6887 14.1).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// All hosts of a network.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// The ear, if it is open.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    socket: Option<(Ipv4Addr, UdpSocket)>,
}

impl Announcements {
    /// Listens at this address of ours from now on. Where that is not possible, renewals have to do.
    pub(super) fn listen(&mut self, port: u16, client: Ipv4Addr) {
        if self.socket.as_ref().is_some_and(|(at, _)| *at == client) {
            return;
        }
        match open(port, client) {
            Ok(socket) => self.socket = Some((client, socket)),
            Err(error) => tracing::debug!(%error, port, "announcements of the gateway are not heard"),
        }
    }

    pub(super) fn stop(&mut self) {
        self.socket = None;
    }

    /// Resolves when the gateway said something. What it says is asked of it again: anybody can write its address on a
    /// datagram.
    pub(super) async fn heard(&self, gateway: Option<Ipv4Addr>) {
        let (Some((_, socket)), Some(gateway)) = (&self.socket, gateway) else {
            return std::future::pending().await;
        };
        loop {
            match socket.recv_from(&mut [0; 64]).await {
                Ok((_, from)) if from.ip() == IpAddr::V4(gateway) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "announcements of the gateway are not heard any more");
                    return std::future::pending().await;
                }
            }
        }
    }
}

fn open(port: u16, client: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Others on this host listen there, too.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port).into())?;
    socket.join_multicast_v4(&GROUP, &client)?;
    UdpSocket::from_std(socket.into())
}
