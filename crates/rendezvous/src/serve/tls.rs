//! The certificates of the registry and of the beacon over the web: given, or of our own making and kept.

use crate::config::CertificateSource;
use pilot_crypto::Sha256;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig, crypto::ring},
};

/// Whose certificate it is. Each has its own: one may be replaced without the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Registry,
    Web,
}

impl Owner {
    /// As errors and settings call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Web => "web",
        }
    }

    /// The certificate of our own making, and its key, in the folder that is given for them.
    fn files(self) -> (&'static str, &'static str) {
        match self {
            Self::Registry => ("registry-cert.der", "registry-key.der"),
            Self::Web => ("web-cert.der", "web-key.der"),
        }
    }
}

/// Names in a certificate of our own making. Nodes know it by its fingerprint, not by its names.
const OWN_NAMES: [&str; 2] = ["localhost", "pilot-rendezvous"];

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// Certificate and key do not belong together, or are not usable.
    #[error("the certificate is not usable: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate with its chain, and its key.
pub(super) struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// The one of `owner` that comes from there.
    pub(super) fn obtain(source: &CertificateSource, owner: Owner) -> Result<Self, CertificateError> {
        match source {
            CertificateSource::Files { certificate, key } => Self::read(certificate, key),
            CertificateSource::Own { folder } => Self::load_or_make(folder, owner),
        }
    }

    /// SHA-256 of the first certificate in its binary form.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.chain.first().map_or(&[], |first| first.as_ref()))
    }

    fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let content = |path: &Path, reason: String| CertificateError::Content { path: path.into(), reason };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&file(certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|error| content(certificate, error.to_string()))?;
        if chain.is_empty() {
            return Err(content(certificate, "no certificate in PEM form in it".to_owned()));
        }
        let key_der =
            PrivateKeyDer::from_pem_slice(&file(key)?).map_err(|error| content(key, error.to_string()))?;
        Ok(Self { chain, key: key_der })
    }

    fn load_or_make(folder: &Path, owner: Owner) -> Result<Self, CertificateError> {
        let (certificate, key) = owner.files();
        let (certificate, key) = (folder.join(certificate), folder.join(key));
        if !certificate.exists() {
            // Of several that start at once one makes it: key and certificate of two would not fit. The system lets go when
            // this returns, or dies.
            let place = folder.join("certificate.lock");
            let failed = |source| CertificateError::File { path: place.clone(), source };
            let lock = fs::File::create(&place).map_err(failed)?;
            lock.lock().map_err(failed)?;
            if !certificate.exists() {
                let made = rcgen::generate_simple_self_signed(OWN_NAMES.map(str::to_owned))?;
                // The key first: a certificate without its key would never be usable.
                write_private(&key, &made.signing_key.serialize_der())?;
                write_private(&certificate, made.cert.der())?;
            }
        }
        let key = PrivatePkcs8KeyDer::from(file(&key)?).into();
        Ok(Self { chain: vec![file(&certificate)?.into()], key })
    }
}

/// Takes connections with the certificate.
pub(super) fn acceptor(certificate: Certificate) -> Result<TlsAcceptor, CertificateError> {
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificate.chain, certificate.key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn file(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::File { path: path.into(), source })
}

/// Writes a file that only its owner can read, by way of a neighbour, so that nobody ever sees half of it.
fn write_private(path: &Path, content: &[u8]) -> Result<(), CertificateError> {
    let neighbour = path.with_extension("tmp");
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&neighbour)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&neighbour, path)
    };
    write().map_err(|source| CertificateError::File { path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn of_several_that_start_at_once_one_makes_the_certificate_and_all_use_it() {
        let folder = tempfile::tempdir().unwrap();
        let source = CertificateSource::Own { folder: folder.path().to_owned() };
        let start = || {
            let certificate = Certificate::obtain(&source, Owner::Registry).unwrap();
            let fingerprint = certificate.fingerprint();
            acceptor(certificate).expect("the key fits");
            fingerprint
        };
        std::thread::scope(|scope| {
            let started: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            let mut shown = started.into_iter().map(|one| one.join().unwrap());
            let first = shown.next().unwrap();
            assert!(shown.all(|other| other == first));
        });
    }

    #[test]
    fn a_certificate_of_its_own_making_is_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let source = CertificateSource::Own { folder: folder.path().to_owned() };
        let first = Certificate::obtain(&source, Owner::Registry).unwrap();
        let again = Certificate::obtain(&source, Owner::Registry).unwrap();
        assert_eq!(first.fingerprint(), again.fingerprint());
        let other = Certificate::obtain(&source, Owner::Web).unwrap();
        assert_ne!(first.fingerprint(), other.fingerprint());
        for name in ["registry-cert.der", "registry-key.der", "web-cert.der", "web-key.der"] {
            let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert!(acceptor(again).is_ok());
    }

    #[test]
    fn given_files_are_used_and_wrong_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let tls = CertificateSource::Files { certificate: certificate.clone(), key: key.clone() };
        let failure = |source: &CertificateSource| {
            Certificate::obtain(source, Owner::Web).map(drop).unwrap_err().to_string()
        };
        assert!(failure(&tls).contains("c.pem"));
        let made = rcgen::generate_simple_self_signed(["beacon.example".to_owned()]).unwrap();
        fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
        fs::write(&key, "not a key").unwrap();
        assert!(failure(&tls).contains("k.pem"));
        fs::write(&key, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
        let read = Certificate::obtain(&tls, Owner::Web).unwrap();
        assert_eq!(read.fingerprint(), Sha256::digest(made.cert.der()));
        assert!(acceptor(read).is_ok());
        fs::write(&certificate, "").unwrap();
        assert!(failure(&tls).contains("no certificate"));
    }

    fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }
}
