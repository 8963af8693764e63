//! Two endpoints of quinn and the links of the simulator between them. Time is what the next datagram or timer says.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use pilot_sim::{Conditions, Link};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig, ReadError,
    ReadableError, ServerConfig, StreamId, Transmit, TransportConfig, WriteError,
    congestion::ControllerFactory,
};
use rand::{SeedableRng, rngs::StdRng};
use rustls::pki_types::PrivatePkcs8KeyDer;

use crate::Failure;

const NAME: &str = "bench";
/// Datagrams of a train.
const TRAIN: usize = 16;
/// Headers of IPv4 and UDP are no part of what the link counts, as for ours.
static PIECE: [u8; 64 * 1024] = [7; 64 * 1024];
/// Nothing takes longer in virtual time.
const LONGEST: Duration = Duration::from_secs(3600);

/// How fast a stream of so many bytes is, from its opening in an established connection until the last byte is read.
pub(super) fn megabytes_per_second(
    control: impl ControllerFactory + Send + Sync + 'static,
    conditions: Conditions,
    bytes: u64,
    seed: u64,
) -> Result<f64, Failure> {
    let mut world = World::new(Arc::new(control), conditions, seed)?;
    let took = world.transfer(bytes)?;
    #[expect(clippy::cast_precision_loss, reason = "measurements are no more exact")]
    Ok(bytes as f64 / took.as_secs_f64() / 1e6)
}

struct End {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    address: SocketAddr,
    link: Link,
}

struct World {
    now: Instant,
    /// Who connects and writes, and who accepts and reads.
    ends: [End; 2],
    chance: StdRng,
    /// Under way: to whom, and what.
    queue: BTreeMap<(Instant, u64), (usize, BytesMut)>,
    count: u64,
}

impl World {
    fn new(
        control: Arc<dyn ControllerFactory + Send + Sync>,
        conditions: Conditions,
        seed: u64,
    ) -> Result<Self, Failure> {
        let own = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
        let mut transport = TransportConfig::default();
        transport.congestion_controller_factory(control);
        let transport = Arc::new(transport);
        let mut server = ServerConfig::with_single_cert(vec![own.cert.der().clone()], key.into())?;
        server.transport_config(Arc::clone(&transport));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone())?;
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots))?;
        client.transport_config(transport);

        let end = |number: u8, server| {
            let mut random = [0; 32];
            random[..8].copy_from_slice(&seed.to_be_bytes());
            random[8] = number;
            End {
                endpoint: Endpoint::new(Arc::new(EndpointConfig::default()), server, true, Some(random)),
                connection: None,
                address: SocketAddr::from(([10, 0, 0, number], 4433)),
                link: Link::new(conditions),
            }
        };
        let mut ends = [end(1, None), end(2, Some(Arc::new(server)))];
        let now = Instant::now();
        let there = ends[1].address;
        ends[0].connection = Some(ends[0].endpoint.connect(now, client, there, NAME)?);
        Ok(Self { now, ends, chance: StdRng::seed_from_u64(seed), queue: BTreeMap::new(), count: 0 })
    }

    fn transfer(&mut self, bytes: u64) -> Result<Duration, Failure> {
        let begin = self.now;
        let mut start = None;
        let (mut written, mut read) = (0, 0);
        let mut stream = None;
        while read < bytes {
            if self.now - begin > LONGEST {
                return Err("quinn does not come to an end".into());
            }
            if let Some((_, connection)) = &mut self.ends[0].connection
                && !connection.is_handshaking()
            {
                start.get_or_insert(self.now);
                if stream.is_none() {
                    stream = connection.streams().open(Dir::Uni);
                }
                if let Some(id) = stream {
                    write(connection, id, bytes, &mut written)?;
                }
            }
            if let Some((_, connection)) = &mut self.ends[1].connection {
                read += read_all(connection)?;
            }
            for end in 0..2 {
                self.flush(end);
            }
            if read < bytes {
                self.step()?;
            }
        }
        Ok(self.now - start.unwrap_or(begin))
    }

    /// Jumps to what happens next.
    fn step(&mut self) -> Result<(), Failure> {
        let timeouts = self.ends.iter_mut().filter_map(|end| end.connection.as_mut()?.1.poll_timeout());
        let timer = timeouts.min();
        let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
        let next = [timer, arrival].into_iter().flatten().min().ok_or("quinn waits for nothing")?;
        self.now = self.now.max(next);
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= self.now
        {
            let (to, datagram) = entry.remove();
            self.arrive(to, datagram)?;
        }
        for end in &mut self.ends {
            if let Some((_, connection)) = &mut end.connection
                && connection.poll_timeout().is_some_and(|at| at <= self.now)
            {
                connection.handle_timeout(self.now);
            }
        }
        Ok(())
    }

    fn arrive(&mut self, to: usize, datagram: BytesMut) -> Result<(), Failure> {
        let from = self.ends[1 - to].address;
        let mut buffer = Vec::new();
        let end = &mut self.ends[to];
        match end.endpoint.handle(self.now, from, None, None, datagram, &mut buffer) {
            Some(DatagramEvent::ConnectionEvent(_, event)) => {
                if let Some((_, connection)) = &mut end.connection {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = end.endpoint.accept(incoming, self.now, &mut buffer, None);
                end.connection = Some(accepted.map_err(|error| error.cause)?);
            }
            Some(DatagramEvent::Response(transmit)) => self.send(to, &transmit, &buffer),
            None => {}
        }
        Ok(())
    }

    /// Lets an end send what it has to send.
    fn flush(&mut self, from: usize) {
        let mut buffer = Vec::new();
        loop {
            let end = &mut self.ends[from];
            let Some((handle, connection)) = &mut end.connection else { return };
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = end.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while connection.poll().is_some() {}
            buffer.clear();
            let Some(transmit) = connection.poll_transmit(self.now, TRAIN, &mut buffer) else { return };
            self.send(from, &transmit, &buffer);
        }
    }

    fn send(&mut self, from: usize, transmit: &Transmit, buffer: &[u8]) {
        let segment = transmit.segment_size.unwrap_or(transmit.size).max(1);
        for datagram in buffer[..transmit.size].chunks(segment) {
            let sent = self.ends[from].link.send(self.now, datagram.len(), &mut self.chance);
            // What is lost is lost.
            let Ok((first, copy)) = sent else { continue };
            for arrival in [Some(first), copy].into_iter().flatten() {
                self.count += 1;
                self.queue.insert((arrival.at, self.count), (1 - from, BytesMut::from(datagram)));
            }
        }
    }
}

fn write(connection: &mut Connection, id: StreamId, bytes: u64, written: &mut u64) -> Result<(), Failure> {
    while *written < bytes {
        let piece = usize::try_from(bytes - *written).unwrap_or(usize::MAX).min(PIECE.len());
        match connection.send_stream(id).write(&PIECE[..piece]) {
            Ok(count) => *written += count as u64,
            Err(WriteError::Blocked) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    // A second time is an error that says nothing new.
    let _ = connection.send_stream(id).finish();
    Ok(())
}

/// Reads what is there of the one stream.
fn read_all(connection: &mut Connection) -> Result<u64, Failure> {
    let accepted = connection.streams().accept(Dir::Uni);
    let Some(id) = accepted.or_else(|| first_stream(connection)) else { return Ok(0) };
    let mut count = 0;
    let mut stream = connection.recv_stream(id);
    let mut chunks = match stream.read(true) {
        Ok(chunks) => chunks,
        Err(ReadableError::ClosedStream) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    loop {
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => count += chunk.bytes.len() as u64,
            Ok(None) | Err(ReadError::Blocked) => break,
            Err(error) => return Err(error.into()),
        }
    }
    // Whether there is something to say is asked for in any case.
    let _ = chunks.finalize();
    Ok(count)
}

/// The stream that was accepted before: the first that the other side opened.
fn first_stream(connection: &Connection) -> Option<StreamId> {
    (!connection.is_handshaking()).then(|| StreamId::new(quinn_proto::Side::Client, Dir::Uni, 0))
}
