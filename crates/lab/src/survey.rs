//! What a NAT does, measured with plain datagrams as RFC 5780 does: nothing of ours is involved.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use pilot_wire::path::{Behaviour, Nat};

use crate::host::Host;
use crate::lab::{Lab, RENDEZVOUS};

/// How long a datagram that is not expected gets, after one that was sent later has arrived.
const GRACE: Duration = Duration::from_millis(50);

/// Three places to look from: an address, another port of it, another address.
#[derive(Debug)]
pub struct Observers {
    here: UdpSocket,
    other_port: UdpSocket,
    other_address: UdpSocket,
}

impl Observers {
    /// Opens them on the machine of the rendezvous, which must have nothing on these ports.
    pub fn open(lab: &Lab) -> Self {
        let open = |ip: Ipv4Addr, port| lab.rendezvous().namespace().udp(ip, port);
        let [first, second] = RENDEZVOUS;
        Self { here: open(first, 3478), other_port: open(first, 3479), other_address: open(second, 3478) }
    }

    /// Where the first observer sees a socket of a host. `None` if nothing gets through.
    pub fn outside(&self, socket: &UdpSocket) -> Option<SocketAddr> {
        seen_by(&self.here, socket)
    }

    /// Sends from the first observer.
    pub fn send(&self, text: &[u8], to: SocketAddr) {
        self.here.send_to(text, to).expect("the internet takes datagrams");
    }

    /// What stands between a host and the observers. `None` if no UDP gets through.
    pub fn look_at(&self, host: &Host, port: u16) -> Option<Nat> {
        let mapping = self.mapping(host, port)?;
        let filtering = self.filtering(host, port + 1)?;
        Some(Nat { mapping, filtering })
    }

    fn mapping(&self, host: &Host, port: u16) -> Option<Behaviour> {
        let socket = host.namespace().udp(host.address(), port);
        let here = self.outside(&socket)?;
        if here == SocketAddr::from((host.address(), port)) {
            return Some(Behaviour::None);
        }
        let other_port = seen_by(&self.other_port, &socket)?;
        let other_address = seen_by(&self.other_address, &socket)?;
        Some(if here == other_port && here == other_address {
            Behaviour::EndpointIndependent
        } else if here == other_port {
            Behaviour::AddressDependent
        } else {
            Behaviour::AddressAndPortDependent
        })
    }

    /// The two that the host has not sent to knock first: what has not come when the answer has did not get in.
    fn filtering(&self, host: &Host, port: u16) -> Option<Behaviour> {
        let socket = host.namespace().udp(host.address(), port);
        let outside = self.outside(&socket)?;
        for (from, text) in
            [(&self.other_address, b"address"), (&self.other_port, b"theport"), (&self.here, b"answers")]
        {
            from.send_to(text, outside).expect("the internet takes datagrams");
        }
        let mut got = Vec::new();
        let mut buffer = [0; 16];
        while let Ok((len, _)) = socket.recv_from(&mut buffer) {
            got.push(buffer[..len].to_vec());
            if got.last().is_some_and(|text| text == b"answers") {
                socket.set_read_timeout(Some(GRACE)).expect("a socket takes a time-out");
            }
        }
        assert!(got.iter().any(|text| text == b"answers"), "the answer does not get in");
        Some(if got.iter().any(|text| text == b"address") {
            Behaviour::EndpointIndependent
        } else if got.iter().any(|text| text == b"theport") {
            Behaviour::AddressDependent
        } else {
            Behaviour::AddressAndPortDependent
        })
    }
}

/// Sends from a socket to an observer, and returns where it saw it.
fn seen_by(observer: &UdpSocket, socket: &UdpSocket) -> Option<SocketAddr> {
    let to = observer.local_addr().expect("it is bound");
    socket.send_to(b"hello", to).expect("a host takes datagrams");
    observer.recv_from(&mut [0; 16]).ok().map(|(_, from)| from)
}
