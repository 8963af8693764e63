//! Whom to believe to be the registry or the beacon, over TLS.
//!
//! A certificate that an authority known to this system vouches for is right. One without is not turned away, or nobody
//! could run a rendezvous without an authority: the first that is seen at an address is remembered, and another one is
//! refused until its owner says so.
//!
//! Nothing that is said over the beacon depends on it: frames are sealed from node to node, and what proves us to it is a
//! signature over its challenge of this moment. Whoever stands in between can drop, delay and count what passes, as on
//! any path that datagrams take.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use pilot_crypto::Sha256;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
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

/// What is known of the certificate at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) enum Known {
    /// This one was the first that was seen.
    First(Fingerprint),
    /// An authority vouched for it. Not the certificate is remembered, which changes every few weeks, but that.
    Vouched,
}

const VOUCHED: &str = "authority";

impl From<Known> for String {
    fn from(known: Known) -> Self {
        match known {
            Known::First(fingerprint) => fingerprint.to_string(),
            Known::Vouched => VOUCHED.to_owned(),
        }
    }
}

impl TryFrom<String> for Known {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        if text == VOUCHED { Ok(Self::Vouched) } else { Ok(Self::First(text.parse()?)) }
    }
}

/// The certificates that are known by `host:port`, as the state file keeps them.
pub(crate) type KnownCertificates = BTreeMap<String, Known>;

/// Whose certificate it is, for the words of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Registry,
    Beacon,
}

impl Whose {
    fn setting(self) -> &'static str {
        match self {
            Self::Registry => "registry_fingerprint",
            Self::Beacon => "beacon_web_fingerprint",
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Registry => "registry",
            Self::Beacon => "beacon",
        })
    }
}

/// What the certificate at one address has to be.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    pub(crate) whose: Whose,
    /// The only ones that are right, if the owner said so.
    pub(crate) given: Vec<Fingerprint>,
    /// What is known from before.
    pub(crate) before: Option<Known>,
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Untrusted {
    #[error("the {whose} shows the certificate {shown}, which is not the one that is set ({})", list(given))]
    NotTheGiven { whose: Whose, given: Vec<Fingerprint>, shown: Fingerprint },
    #[error(
        "the {whose} shows another certificate ({shown}) than before ({before}); if that is right, set {} to the new \
         one (`pilotctl rendezvous status` on its machine shows it)", whose.setting()
    )]
    Changed { whose: Whose, before: Fingerprint, shown: Fingerprint },
    #[error(
        "no authority vouches for the certificate of the {whose} ({shown}), as one did before; if that is right, set \
         {} to it (`pilotctl rendezvous status` on its machine shows it)", whose.setting()
    )]
    NoLongerVouched { whose: Whose, shown: Fingerprint },
}

fn list(fingerprints: &[Fingerprint]) -> String {
    fingerprints.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What came out of looking at a certificate that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The certificate.
    pub(crate) fingerprint: Fingerprint,
    /// What is to be remembered, if that is new.
    pub(crate) news: Option<Known>,
}

/// What came out, once something did.
pub(crate) type Outcome = Arc<OnceLock<Seen>>;

/// A connector for one connection. Takes a moment unless the certificate is known: those of the authorities are read
/// from many files.
pub(crate) fn connector(expectation: Expectation, outcome: Outcome) -> Result<TlsConnector, Error> {
    let provider = Arc::new(ring::default_provider());
    let is_known = !expectation.given.is_empty() || matches!(expectation.before, Some(Known::First(_)));
    let verifier =
        Verifier { authorities: OnceLock::new(), expectation, outcome, provider: Arc::clone(&provider) };
    if !is_known {
        let _ = verifier.authorities();
    }
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Makes the connection a protected one.
///
/// # Errors
/// [`Insecure`].
pub(crate) async fn secure(
    stream: TcpStream,
    host: &str,
    expectation: Expectation,
) -> Result<(TlsStream<TcpStream>, Seen), Insecure> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Insecure::Name(host.to_owned()))?;
    let outcome = Outcome::default();
    let connector = tokio::task::spawn_blocking({
        let outcome = Arc::clone(&outcome);
        move || connector(expectation, outcome)
    });
    let connector = connector
        .await
        .map_err(|error| Insecure::Tls(io::Error::other(error)))?
        .map_err(|error| Insecure::Tls(io::Error::other(error)))?;
    match connector.connect(name, stream).await {
        Ok(stream) => match outcome.get() {
            Some(seen) => Ok((stream, *seen)),
            // A session that was resumed would show no certificate; none is resumed.
            None => Err(Insecure::Tls(io::Error::other("no certificate was shown"))),
        },
        Err(error) => Err(match reason(&error) {
            Some(reason) => Insecure::Untrusted(reason),
            None if speaks_no_tls(&error) => Insecure::NoTls(error),
            None => Insecure::Tls(error),
        }),
    }
}

/// Why a connection is not protected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Insecure {
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// As far as can be seen, the other side does not know what TLS is.
    #[error("no TLS there: {0}")]
    NoTls(io::Error),
    #[error("no TLS: {0}")]
    Tls(io::Error),
    #[error("`{0}` is no name that a certificate could have")]
    Name(String),
}

/// Whether a server that knows no TLS ends like this: it takes the greeting for nonsense, and closes or says something
/// of its own.
fn speaks_no_tls(error: &io::Error) -> bool {
    let hung_up = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    hung_up.contains(&error.kind()) || matches!(cause, Some(Error::InvalidMessage(_)))
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

/// None on a system without any, where only fingerprints count.
fn authorities(provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    let roots = Arc::new(authorities_of_system());
    let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build();
    built.inspect_err(|error| tracing::debug!(%error, "this system knows no authorities")).ok()
}

#[derive(Debug)]
struct Verifier {
    authorities: OnceLock<Option<Arc<WebPkiServerVerifier>>>,
    expectation: Expectation,
    outcome: Outcome,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn authorities(&self) -> Option<&WebPkiServerVerifier> {
        self.authorities.get_or_init(|| authorities(&self.provider)).as_deref()
    }

    fn accept(&self, fingerprint: Fingerprint, news: Option<Known>) -> Result<ServerCertVerified, Error> {
        // One connector is used for one connection, so there is nothing in it yet.
        let _ = self.outcome.set(Seen { fingerprint, news });
        Ok(ServerCertVerified::assertion())
    }
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
        let Expectation { whose, given, before } = &self.expectation;
        let whose = *whose;
        if !given.is_empty() {
            return match given.contains(&shown) {
                true => self.accept(shown, None),
                false => Err(untrusted(Untrusted::NotTheGiven { whose, given: given.clone(), shown })),
            };
        }
        if *before == Some(Known::First(shown)) {
            return self.accept(shown, None);
        }
        let vouched = self.authorities().map(|authorities| {
            authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        });
        if matches!(vouched, Some(Ok(_))) {
            let is_news = *before != Some(Known::Vouched);
            return self.accept(shown, is_news.then_some(Known::Vouched));
        }
        match *before {
            Some(Known::First(before)) => Err(untrusted(Untrusted::Changed { whose, before, shown })),
            Some(Known::Vouched) => Err(untrusted(Untrusted::NoLongerVouched { whose, shown })),
            None => self.accept(shown, Some(Known::First(shown))),
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
fn reason(error: &io::Error) -> Option<Untrusted> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else { return None };
    inner.downcast_ref::<Untrusted>().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a certificate of our own making.
    fn verdict(certificate: &[u8], given: &[Fingerprint], before: Option<Known>) -> Result<Seen, String> {
        let outcome = Outcome::default();
        let provider = Arc::new(ring::default_provider());
        let expectation = Expectation { whose: Whose::Registry, given: given.to_vec(), before };
        let authorities = OnceLock::new();
        let verifier = Verifier { authorities, expectation, outcome: Arc::clone(&outcome), provider };
        let name = ServerName::try_from("localhost").unwrap();
        let certificate = CertificateDer::from(certificate);
        match verifier.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()) {
            Ok(_) => Ok(*outcome.get().unwrap()),
            Err(Error::InvalidCertificate(CertificateError::Other(reason))) => Err(reason.0.to_string()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_first_certificate_is_remembered_and_another_is_refused_with_what_to_do() {
        let [ours, other] = [["a"], ["b"]].map(|names| {
            let made = rcgen::generate_simple_self_signed(names.map(str::to_owned)).unwrap();
            let der = made.cert.der().to_vec();
            (Fingerprint(Sha256::digest(&der)), der)
        });
        let first = verdict(&ours.1, &[], None).unwrap();
        assert_eq!(first, Seen { fingerprint: ours.0, news: Some(Known::First(ours.0)) });
        assert_eq!(verdict(&ours.1, &[], first.news).unwrap().news, None);
        let refused = verdict(&other.1, &[], first.news).unwrap_err();
        assert!(
            refused.contains("registry_fingerprint") && refused.contains(&ours.0.to_string()),
            "{refused}"
        );
        let refused = verdict(&other.1, &[], Some(Known::Vouched)).unwrap_err();
        assert!(refused.contains("no authority"), "{refused}");
        assert_eq!(verdict(&other.1, &[ours.0, other.0], first.news).unwrap().news, None, "given");
        assert!(verdict(&other.1, &[ours.0], None).unwrap_err().contains("not the one that is set"));
    }

    #[test]
    fn what_is_known_is_kept_as_text() {
        for known in [Known::Vouched, Known::First(Fingerprint([7; 32]))] {
            let text = serde_json::to_string(&known).unwrap();
            assert_eq!(serde_json::from_str::<Known>(&text).unwrap(), known);
        }
    }

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
