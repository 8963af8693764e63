//! Whom to believe to be the beacon, over TLS.
//!
//! Nothing that is said depends on it: frames are sealed from node to node, and what proves us to the beacon is a
//! signature over its challenge of this moment. Whoever stands in between can drop, delay and count what passes, as on
//! any path that datagrams take. So a beacon without a certificate of a known authority is not turned away: the first
//! one that it shows is remembered, and another one is refused until its owner says so.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use pilot_crypto::Sha256;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

/// SHA-256 of a certificate in its binary form; 64 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Fingerprint(pub [u8; 32]);

/// Text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is the SHA-256 of a certificate: 64 hexadecimal digits")]
pub struct FingerprintError;

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Colons between the digits are allowed, as other programs write them.
    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits: String = text.trim().chars().filter(|digit| *digit != ':').collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| FingerprintError)?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Which certificates are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pins {
    /// The only one that is right, if the owner said so.
    pub(crate) given: Option<Fingerprint>,
    /// Those that were seen first, by `host:port`.
    pub(crate) seen: BTreeMap<String, Fingerprint>,
}

impl Pins {
    pub(super) fn remember(&mut self, host: String, fingerprint: Fingerprint) {
        self.seen.insert(host, fingerprint);
    }
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    #[error("the beacon shows the certificate {shown}, not the one that is set ({given})")]
    NotTheGiven { given: Fingerprint, shown: Fingerprint },
    #[error(
        "the beacon shows another certificate ({shown}) than before ({before}); if that is right, set \
         beacon_web_fingerprint to the new one (`pilotctl rendezvous status` on the beacon's machine shows it)"
    )]
    Changed { before: Fingerprint, shown: Fingerprint },
}

/// What came out of looking at a certificate, beside yes or no.
pub(super) type FirstSeen = Arc<OnceLock<Fingerprint>>;

/// A connector for one host. `first_seen` is set when a certificate is accepted because there was none before.
pub(super) fn connector(pins: &Pins, host: &str, first_seen: FirstSeen) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        authorities: authorities(&provider),
        given: pins.given,
        before: pins.seen.get(host).copied(),
        first_seen,
        provider: Arc::clone(&provider),
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connector that believes these authorities and nobody else.
pub(crate) fn believing(roots: RootCertStore) -> Result<TlsConnector, Error> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The authorities that this system knows.
pub(crate) fn authorities_of_system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "an authority's certificate is not usable");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

/// The authorities that this system knows; none on a system without any, where only fingerprints count.
fn authorities(provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    let roots = Arc::new(authorities_of_system());
    let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    built.inspect_err(|error| tracing::debug!(%error, "this system knows no authorities")).ok()
}

#[derive(Debug)]
struct Verifier {
    authorities: Option<Arc<WebPkiServerVerifier>>,
    given: Option<Fingerprint>,
    before: Option<Fingerprint>,
    first_seen: FirstSeen,
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
        let shown = Fingerprint(Sha256::digest(end_entity));
        if let Some(given) = self.given {
            return match given == shown {
                true => Ok(ServerCertVerified::assertion()),
                false => Err(untrusted(Untrusted::NotTheGiven { given, shown })),
            };
        }
        let vouched = self.authorities.as_ref().map(|authorities| {
            authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        });
        if matches!(vouched, Some(Ok(_))) {
            return Ok(ServerCertVerified::assertion());
        }
        match self.before {
            Some(before) if before != shown => Err(untrusted(Untrusted::Changed { before, shown })),
            Some(_) => Ok(ServerCertVerified::assertion()),
            None => {
                // One connector is used for one connection, so there is nothing in it yet.
                let _ = self.first_seen.set(shown);
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn untrusted(reason: Untrusted) -> Error {
    CertificateError::Other(OtherError(Arc::new(reason))).into()
}

/// The reason in our words, if it is one of ours.
pub(super) fn reason(error: &std::io::Error) -> Option<Untrusted> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else { return None };
    inner.downcast_ref::<Untrusted>().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_the_forms_that_programs_write() {
        let plain = "0a".repeat(32);
        let fingerprint: Fingerprint = plain.parse().unwrap();
        assert_eq!(fingerprint, Fingerprint([10; 32]));
        assert_eq!(fingerprint.to_string(), plain);
        assert_eq!(vec!["0A"; 32].join(":").parse(), Ok(fingerprint));
        for wrong in ["", "0a", &"zz".repeat(32), &"0a".repeat(33)] {
            assert_eq!(wrong.parse::<Fingerprint>(), Err(FingerprintError), "{wrong}");
        }
    }
}
