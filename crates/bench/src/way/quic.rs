//! QUIC: quinn as it comes, with a certificate of its own.

use std::{net::SocketAddr, path::Path, sync::Arc};

use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::Failure;

const NAME: &str = "bench";
const CERTIFICATE: &str = "quic.der";

/// Listens, with its certificate in the folder.
pub(super) fn server(folder: &Path) -> Result<Endpoint, Failure> {
    let own = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    std::fs::write(folder.join(CERTIFICATE), own.cert.der())?;
    let config = ServerConfig::with_single_cert(vec![own.cert.der().clone()], key.into())?;
    Ok(Endpoint::server(config, loopback())?)
}

/// Connects to the server that has the certificate in the folder.
pub(super) async fn connect(address: &str, folder: &Path) -> Result<Connection, Failure> {
    Ok(endpoint(folder)?.connect(address.parse()?, NAME)?.await?)
}

/// A client that trusts the certificate in the folder.
fn endpoint(folder: &Path) -> Result<Endpoint, Failure> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(std::fs::read(folder.join(CERTIFICATE))?))?;
    let mut endpoint = Endpoint::client(loopback())?;
    endpoint.set_default_client_config(ClientConfig::with_root_certificates(Arc::new(roots))?);
    Ok(endpoint)
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}
