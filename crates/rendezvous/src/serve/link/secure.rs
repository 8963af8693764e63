//! A connection to a registry over TLS: the token that passes on it, and the secret of the mesh that comes back, are for
//! nobody else.

use crate::config::RegistryTrust;
use pilot_crypto::Sha256;
use std::{io, net::IpAddr, sync::Arc};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
        client::{
            WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

/// Why a registry is not believed to be the right one.
#[derive(Debug, thiserror::Error)]
enum Untrusted {
    #[error(
        "it shows the certificate {shown}, not the one that is set; `pilotctl rendezvous status` on its machine shows the \
         right one"
    )]
    Other { shown: String },
    #[error(
        "no known authority vouches for its certificate {shown}; if that is what `pilotctl rendezvous status` shows on its \
         machine, give it with --registry-fingerprint"
    )]
    Unknown { shown: String },
}

/// Connects to `host:port`. A registry on this machine needs no certificate that anybody knows.
pub(super) async fn connect(registry: &str, trust: &RegistryTrust) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(registry).await?;
    stream.set_nodelay(true)?;
    let is_here = stream.peer_addr()?.ip().to_canonical().is_loopback();
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::from(ip),
        Err(_) => ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
    };
    connector(trust, is_here).map_err(io::Error::other)?.connect(name, stream).await
}

fn connector(trust: &RegistryTrust, is_here: bool) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let believed = match trust {
        RegistryTrust::Fingerprints(fingerprints) => Believed::Given(fingerprints.clone()),
        RegistryTrust::Authorities if is_here => Believed::Anyone,
        RegistryTrust::Authorities => Believed::Authorities(authorities(&provider)),
    };
    let verifier = Verifier { believed, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Those that this system knows; none on a system without any.
fn authorities(provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    built.inspect_err(|error| tracing::debug!(%error, "this system knows no authorities")).ok()
}

#[derive(Debug)]
enum Believed {
    Anyone,
    Given(Vec<[u8; 32]>),
    Authorities(Option<Arc<WebPkiServerVerifier>>),
}

#[derive(Debug)]
struct Verifier {
    believed: Believed,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown = Sha256::digest(end_entity);
        let refusal = match &self.believed {
            Believed::Anyone => return Ok(ServerCertVerified::assertion()),
            Believed::Given(given) if given.contains(&shown) => return Ok(ServerCertVerified::assertion()),
            Believed::Given(_) => Untrusted::Other { shown: hex::encode(shown) },
            Believed::Authorities(authorities) => {
                let verified = authorities.as_ref().and_then(|known| {
                    known
                        .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                        .inspect_err(|error| tracing::debug!(%error, "no authority vouches for the registry"))
                        .ok()
                });
                match verified {
                    Some(verified) => return Ok(verified),
                    None => Untrusted::Unknown { shown: hex::encode(shown) },
                }
            }
        };
        Err(Error::Other(OtherError(Arc::new(refusal))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
