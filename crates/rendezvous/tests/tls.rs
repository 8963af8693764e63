//! The registry over TLS: one port, two kinds of clients, and what happens to those that stall.

mod common;

use common::{
    ADMIN, about,
    client::{Client, Server, local},
    identity, register,
};
use pilot_crypto::Sha256;
use pilot_rendezvous::{CertificateSource, Config};
use pilot_wire::registry::{CreateNetwork, Decoder, Envelope, Request, Response, frame};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

/// How long an answer may take before the test fails; machines under load are slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// Believes everybody: what is shown is compared by the test.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

struct Secure {
    stream: StreamOwned<ClientConnection, TcpStream>,
    decoder: Decoder,
}

impl Secure {
    fn connect(registry: SocketAddr) -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let session = ClientConnection::new(Arc::new(config), "registry".try_into().unwrap()).unwrap();
        let tcp = TcpStream::connect(registry).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: StreamOwned::new(session, tcp), decoder: Decoder::new() }
    }

    fn ask(&mut self, request: &Envelope) -> Response {
        self.stream.write_all(&frame(&request.to_json()).unwrap()).unwrap();
        self.receive()
    }

    fn receive(&mut self) -> Response {
        loop {
            if let Some(content) = self.decoder.next().unwrap() {
                return Response::parse(&content).unwrap();
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer).unwrap() {
                0 => panic!("closed"),
                length => self.decoder.feed(&buffer[..length]),
            }
        }
    }

    fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.stream.conn.peer_certificates().unwrap()[0])
    }
}

fn config(folder: &TempDir) -> Config {
    local(&folder.path().join("registry.redb"))
}

fn beacons() -> Envelope {
    Request::BeaconList {}.into()
}

#[test]
fn one_port_serves_clients_with_tls_and_without() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(config(&folder));
    let mut secure = Secure::connect(server.bound.registry);
    let registration = register(&identity(1), "127.0.0.1:4000").sign_with(|text| identity(1).sign(text));
    let Response::Register(registered) = secure.ask(&registration.into()) else { panic!() };
    assert_eq!(secure.fingerprint(), server.bound.registry_fingerprint);
    let plain = Client::registered(server.bound.registry, identity(1));
    assert_eq!(plain.id, registered.node_id, "it is one registry");
    let heartbeat = Request::Heartbeat(about(plain.id)).sign_with(|text| identity(1).sign(text));
    assert!(matches!(secure.ask(&heartbeat.into()), Response::Heartbeat { .. }));
}

#[test]
fn a_request_with_an_admin_token_is_served_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(config(&folder));
    let node = Client::registered(server.bound.registry, identity(1));
    let mut secure = Secure::connect(server.bound.registry);
    let request = CreateNetwork { node_id: node.id, name: "team".to_owned(), ..CreateNetwork::default() };
    let request = Request::CreateNetwork(request);
    let created = secure.ask(&Envelope::with_token(request, ADMIN));
    assert!(matches!(created, Response::CreateNetwork { .. }), "{created:?}");
}

#[test]
fn the_certificate_of_our_own_making_is_beside_the_store_and_stays() {
    let folder = tempfile::tempdir().unwrap();
    let first = Server::start(config(&folder)).bound.registry_fingerprint;
    assert!(folder.path().join("registry-cert.der").exists());
    assert_eq!(Server::start(config(&folder)).bound.registry_fingerprint, first);
}

#[test]
fn without_its_certificate_a_registry_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.registry_tls.certificate = CertificateSource::Files {
        certificate: folder.path().join("missing.pem"),
        key: folder.path().join("missing.pem"),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(pilot_rendezvous::run(config, |_| (), async {})).unwrap_err();
    assert_eq!(error.code(), "invalid_argument");
    assert!(error.to_string().contains("missing.pem"), "{error}");
    assert!(error.hint().unwrap().contains("--tls-cert"));
}

#[test]
fn where_plaintext_is_off_plain_clients_are_told_so_and_those_with_tls_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.registry_tls.plaintext = false;
    let server = Server::start(config);
    assert!(!server.bound.plaintext);
    let mut plain = Client::connect(server.bound.registry);
    let Response::Error { error } = plain.ask(Request::BeaconList {}) else { panic!() };
    assert!(error.contains("TLS only"), "{error}");
    assert_eq!(plain.receive(), None, "and that is the end");
    let mut secure = Secure::connect(server.bound.registry);
    assert!(matches!(secure.ask(&beacons()), Response::BeaconList { .. }));
}

/// Half of a ClientHello: the record says that 512 bytes follow.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3];

#[test]
fn fifty_clients_that_stop_in_the_middle_keep_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(config(&folder));
    let mut stuck = Vec::new();
    for number in 0..50 {
        match number % 3 {
            0 => {
                let mut client = Client::connect(server.bound.registry);
                client.send_raw(HALF_A_HELLO);
                stuck.push((Some(client), None));
            }
            1 => {
                let mut client = Client::connect(server.bound.registry);
                client.send_raw(&[0, 0, 1, 0, b'{']);
                stuck.push((Some(client), None));
            }
            _ => {
                let mut client = Secure::connect(server.bound.registry);
                assert!(matches!(client.ask(&beacons()), Response::BeaconList { .. }));
                client.stream.write_all(&[0, 0, 1, 0, b'{']).unwrap();
                stuck.push((None, Some(client)));
            }
        }
    }
    let mut plain = Client::registered(server.bound.registry, identity(1));
    assert!(plain.is_served());
    let mut secure = Secure::connect(server.bound.registry);
    assert!(matches!(secure.ask(&beacons()), Response::BeaconList { .. }));
}

#[test]
fn who_does_not_finish_the_handshake_is_disconnected() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.connections.handshake = Duration::from_millis(50);
    let server = Server::start(config);
    let mut stuck = Client::connect(server.bound.registry);
    stuck.send_raw(HALF_A_HELLO);
    assert_eq!(stuck.receive(), None);
}
