//! The conversations with a gateway.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Answer, Held, Keeper, LIFETIME, LIFETIME_MAX, Refusal, Target, Way, natpmp, pcp, upnp};

/// Longest datagram that is read.
const DATAGRAM: usize = 2048;

/// Ports tried at a gateway that says they are taken.
const PORTS_MAX: usize = 4;

/// What a gateway mapped, and for how many seconds; `None` without an end.
type Mapped = (SocketAddr, Option<u32>);

/// The same, and how it was asked.
type Granted = (Way, Mapped);

impl Keeper {
    /// Asks in every way there is, that which worked before first.
    pub(super) async fn obtain(&self, target: Target, held: Option<&Held>) -> Result<Held, Refusal> {
        let asked = Instant::now();
        let mut reasons = Vec::new();
        let mut granted = None;
        let wish = held.map(|held| held.external);
        if let Some(held) = held {
            granted = note(&mut reasons, self.ask(target, &held.way, wish).await);
        }
        for way in [Way::Pcp, Way::NatPmp] {
            if granted.is_none() {
                granted = note(&mut reasons, self.ask(target, &way, wish).await);
            }
        }
        if granted.is_none() {
            let outcome = match self.search(target).await {
                Ok(Some(service)) => self.ask(target, &Way::Upnp(service), wish).await,
                Ok(None) => Err(Refusal::Silent),
                Err(failure) => Err(Refusal::Refused(failure.to_string())),
            };
            granted = note(&mut reasons, outcome);
        }
        let Some((way, (external, lifetime))) = granted else {
            // The first one that says something says most: PCP's is the same box's own word.
            return Err(reasons.into_iter().next().map_or(Refusal::Silent, Refusal::Refused));
        };
        let kept = Duration::from_secs(lifetime.unwrap_or(LIFETIME).min(LIFETIME_MAX).into());
        Ok(Held { target, way, external, expires: lifetime.map(|_| asked + kept), renew: asked + kept / 2 })
    }

    async fn ask(&self, target: Target, way: &Way, wish: Option<SocketAddr>) -> Result<Granted, Refusal> {
        let granted = match way {
            Way::Pcp => self.ask_pcp(target, wish, LIFETIME).await,
            Way::NatPmp => self.ask_natpmp(target, wish).await,
            Way::Upnp(service) => self.ask_upnp(target, service, wish).await,
        };
        let mapped @ (external, _) = granted?;
        if external.port() == 0 || external.ip().is_unspecified() {
            return Err(Refusal::Refused(format!(
                "{}: the gateway has no address of its own",
                way.protocol().name()
            )));
        }
        Ok((way.clone(), mapped))
    }

    async fn ask_pcp(
        &self,
        target: Target,
        external: Option<SocketAddr>,
        lifetime: u32,
    ) -> Result<Mapped, Refusal> {
        let request = pcp::Request {
            client: target.client.into(),
            port: self.settings.listen.port(),
            external,
            lifetime,
            nonce: self.nonce,
        };
        match self.exchange(target, &request.emit(), |datagram| request.answer(datagram)).await? {
            Answer::Granted { external, lifetime } => Ok((external, Some(lifetime))),
            Answer::Refused(reason) => Err(Refusal::Refused(reason)),
            Answer::OtherProtocol => Err(Refusal::Silent),
        }
    }

    async fn ask_natpmp(&self, target: Target, wish: Option<SocketAddr>) -> Result<Mapped, Refusal> {
        let address = self.exchange(target, &natpmp::ADDRESS_REQUEST, natpmp::address).await?;
        let ip = match address {
            natpmp::Reply::Ok(ip) => ip,
            natpmp::Reply::Refused(reason) => return Err(Refusal::Refused(reason)),
        };
        let port = self.settings.listen.port();
        let request = natpmp::map_request(port, wish.map_or(port, |wish| wish.port()), LIFETIME);
        match self.exchange(target, &request, |datagram| natpmp::mapped(datagram, port)).await? {
            natpmp::Reply::Ok(mapped) => {
                Ok((SocketAddr::new(ip.into(), mapped.external_port), Some(mapped.lifetime)))
            }
            natpmp::Reply::Refused(reason) => Err(Refusal::Refused(reason)),
        }
    }

    async fn ask_upnp(
        &self,
        target: Target,
        service: &upnp::Service,
        wish: Option<SocketAddr>,
    ) -> Result<Mapped, Refusal> {
        let port = self.settings.listen.port();
        let inside = SocketAddr::new(target.client.into(), port);
        let talk = async {
            let ip = service.external_address().await?;
            let first = wish.map_or(port, |wish| wish.port());
            let mut tried = 0;
            loop {
                let external = if tried == 0 { first } else { any_port(first) };
                tried += 1;
                match service.map(external, inside, LIFETIME).await {
                    Ok(lifetime) => return Ok((SocketAddr::new(ip.into(), external), lifetime)),
                    Err(failure) if failure.is_conflict() && tried < PORTS_MAX => {}
                    Err(failure) => return Err(failure),
                }
            }
        };
        match timeout(self.settings.upnp_wait, talk).await {
            Ok(Ok(granted)) => Ok(granted),
            Ok(Err(upnp::Failure::Io(error))) => {
                tracing::debug!(%error, "UPnP");
                Err(Refusal::Silent)
            }
            Ok(Err(failure)) => Err(Refusal::Refused(failure.to_string())),
            Err(_) => Err(Refusal::Silent),
        }
    }

    /// Asks the gateway to forget the mapping.
    pub(super) async fn give_back(&self, held: &Held) {
        let port = self.settings.listen.port();
        let outcome = match &held.way {
            Way::Pcp => self.ask_pcp(held.target, Some(held.external), 0).await.map(drop),
            Way::NatPmp => {
                // RFC 6886 3.4: a lifetime and an outside port of 0.
                let request = natpmp::map_request(port, 0, 0);
                self.exchange(held.target, &request, |datagram| natpmp::mapped(datagram, port))
                    .await
                    .map(drop)
            }
            Way::Upnp(service) => service
                .unmap(held.external.port())
                .await
                .map_err(|failure| Refusal::Refused(failure.to_string())),
        };
        match outcome {
            Ok(()) => tracing::debug!(external = %held.external, "the mapping is given back"),
            Err(refusal) => {
                tracing::debug!(%refusal, external = %held.external, "the mapping is left to its end")
            }
        }
    }

    /// Sends a question until there is an answer to it.
    async fn exchange<T>(
        &self,
        target: Target,
        request: &[u8],
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Refusal> {
        let gateway = SocketAddr::new(target.gateway.into(), self.settings.control);
        let talk = async {
            let socket = UdpSocket::bind((target.client, 0)).await?;
            // The system passes on what the gateway sends from this port, and tells if nothing listens there.
            socket.connect(gateway).await?;
            for wait in &self.settings.tries {
                socket.send(request).await?;
                let until = Instant::now() + *wait;
                if let Ok(answer) = timeout_at(until, receive(&socket, |from| from == gateway, &read)).await {
                    return answer.map(Some);
                }
            }
            io::Result::Ok(None)
        };
        match talk.await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Refusal::Silent),
            Err(error) => {
                tracing::debug!(%error, %gateway, "no question for a mapping");
                Err(Refusal::Silent)
            }
        }
    }

    /// Looks for the gateway's UPnP service.
    async fn search(&self, target: Target) -> Result<Option<upnp::Service>, upnp::Failure> {
        let location = async {
            let socket = search_socket(target)?;
            let at_gateway = SocketAddr::new(target.gateway.into(), self.settings.search);
            let group = self.settings.search_group.map(SocketAddr::V4);
            let from_gateway = |from: SocketAddr| from.ip() == at_gateway.ip();
            // Datagrams get lost; the second round is the last.
            for _ in 0..2 {
                for to in [Some(at_gateway), group].into_iter().flatten() {
                    for search in upnp::searches(to) {
                        // A gateway that does not listen itself may be in the group.
                        let _ = socket.send_to(search.as_bytes(), to).await;
                    }
                }
                let until = Instant::now() + self.settings.search_wait / 2;
                let read = |datagram: &[u8]| upnp::location(datagram, at_gateway.ip());
                if let Ok(found) = timeout_at(until, receive(&socket, from_gateway, &read)).await {
                    return found.map(Some);
                }
            }
            io::Result::Ok(None)
        };
        let location = match location.await {
            Ok(Some(location)) => location,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::debug!(%error, "no search for a UPnP gateway");
                return Ok(None);
            }
        };
        match timeout(self.settings.upnp_wait, upnp::Service::find(&location)).await {
            Ok(found) => found.map(Some),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }
}

/// Takes a result apart: what was granted, or one more reason.
fn note(reasons: &mut Vec<String>, outcome: Result<Granted, Refusal>) -> Option<Granted> {
    match outcome {
        Ok(granted) => Some(granted),
        Err(Refusal::Silent) => None,
        Err(Refusal::Refused(reason)) => {
            reasons.push(reason);
            None
        }
    }
}

/// Reads datagrams from whom we asked until one is an answer.
async fn receive<T>(
    socket: &UdpSocket,
    asked: impl Fn(SocketAddr) -> bool,
    read: &impl Fn(&[u8]) -> Option<T>,
) -> io::Result<T> {
    let mut datagram = [0; DATAGRAM];
    loop {
        match socket.recv_from(&mut datagram).await {
            Ok((length, from)) if asked(from) => {
                if let Some(answer) = read(&datagram[..length]) {
                    return Ok(answer);
                }
            }
            Ok(_) => {}
            // Nothing listens at one of the addresses of a search; another may.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && socket.peer_addr().is_err() => {
            }
            Err(error) => return Err(error),
        }
    }
}

fn search_socket(target: Target) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_multicast_if_v4(&target.client)?;
    socket.set_multicast_ttl_v4(2)?;
    socket.bind(&SocketAddr::new(target.client.into(), 0).into())?;
    UdpSocket::from_std(socket.into())
}

/// Some port that is not a service's, and not `other`.
fn any_port(other: u16) -> u16 {
    let [high, low] = pilot_crypto::random_bytes().unwrap_or(other.wrapping_add(7).to_be_bytes());
    u16::from_be_bytes([high, low]) | 0x8000
}
