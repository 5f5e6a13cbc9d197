//! A certificate and its key as PEM files.

use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::secrets::{self, FileError};

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// A file is of no use.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what it should be.
    #[error("{} has no {wanted} in PEM form, or only a part of one", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
    },
    /// The two do not belong together, or are of a kind that TLS cannot use.
    #[error("certificate {} and key {} cannot be used together: {reason}", certificate.display(), key.display())]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// One for development cannot be made.
    #[error("no certificate can be made for {names}")]
    NotMade {
        /// The names it would have.
        names: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// What two files had at one moment.
#[derive(Eq, PartialEq)]
pub(crate) struct Pair {
    certificate: (PathBuf, Vec<u8>),
    key: (PathBuf, Vec<u8>),
}

impl Pair {
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, PairError> {
        Ok(Self {
            certificate: (certificate.to_owned(), secrets::read(certificate, false)?),
            key: (key.to_owned(), secrets::read(key, true)?),
        })
    }

    /// What TLS makes of it.
    ///
    /// # Errors
    /// A part is missing or malformed, or the two do not belong together.
    pub(crate) fn certified(&self, provider: &CryptoProvider) -> Result<CertifiedKey, PairError> {
        let malformed = |path: &Path, wanted| PairError::Malformed { path: path.to_owned(), wanted };
        let (certificate, key) = (&self.certificate, &self.key);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate.1).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or_else(|| malformed(&certificate.0, "certificate"))?;
        let secret = PrivateKeyDer::from_pem_slice(&key.1).map_err(|_| malformed(&key.0, "private key"))?;
        CertifiedKey::from_der(chain, secret, provider).map_err(|error| PairError::Mismatch {
            certificate: certificate.0.clone(),
            key: key.0.clone(),
            reason: error.to_string(),
        })
    }
}
