//! A certificate for development: an authority of our own that signs one certificate, both kept in a directory.
//!
//! ```text
//!   ca.pem     hand this to clients; the same for as long as the directory lives
//!   ca.key     0600
//!   cert.pem   signed by the authority, for the names of this server
//!   key.pem    0600
//! ```
//!
//! Guarantee: what clients trust stays the same over restarts, also when the server gets another name.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use super::files::PairError;
use crate::secrets::{FileError, put};

/// What clients trust.
pub(super) const AUTHORITY: &str = "ca.pem";

/// Certificate and key for `names`, which are host names and addresses; made if the directory has none for them.
#[allow(clippy::disallowed_methods, reason = "beside the store, not in it")]
pub(super) fn prepare(directory: &Path, names: &[String]) -> Result<(PathBuf, PathBuf), PairError> {
    let unwritable = |source| FileError::Unwritable { path: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(unwritable)?;
    let file = |name: &str| directory.join(name);
    let (certificate, key) = (file("cert.pem"), file("key.pem"));
    let wanted = names.join("\n");
    // Written last: as long as it says something else, the certificate is made again.
    let made_for = file("names");
    let is_made = |path: &Path| path.is_file();
    if is_made(&certificate) && is_made(&key) && std::fs::read_to_string(&made_for).is_ok_and(|made| made == wanted) {
        return Ok((certificate, key));
    }
    let not_made = |source| PairError::NotMade { names: names.join(", "), source };
    let (ca, ca_key) = (file(AUTHORITY), file("ca.key"));
    if !(is_made(&ca) && is_made(&ca_key)) {
        let secret = KeyPair::generate().map_err(not_made)?;
        let authority = authority().self_signed(&secret).map_err(not_made)?;
        put(&ca_key, &secret.serialize_pem(), 0o600)?;
        put(&ca, &authority.pem(), 0o644)?;
    }
    let secret = KeyPair::from_pem(&crate::secrets::read_text(&ca_key, true)?).map_err(not_made)?;
    let issuer = Issuer::new(authority(), secret);
    let mut params = CertificateParams::new(names.to_vec()).map_err(not_made)?;
    params.distinguished_name.push(DnType::CommonName, "Headwater for development");
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2125, 1, 1);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let own = KeyPair::generate().map_err(not_made)?;
    let signed = params.signed_by(&own, &issuer).map_err(not_made)?;
    let _ = std::fs::remove_file(&made_for);
    put(&key, &own.serialize_pem(), 0o600)?;
    put(&certificate, &signed.pem(), 0o644)?;
    put(&made_for, &wanted, 0o644)?;
    Ok((certificate, key))
}

/// The same each time, but for its key.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Headwater development authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // Fixed, so that whoever trusts it needs no clock of ours.
    params.not_before = rcgen::date_time_ymd(2025, 1, 1);
    params.not_after = rcgen::date_time_ymd(2125, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test looks at what was written")]
    fn what_clients_trust_stays_when_the_names_change() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
        prepare(directory.path(), &["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let (ca, first) = (read("ca.pem"), read("cert.pem"));
        prepare(directory.path(), &["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        assert_eq!((read("ca.pem"), read("cert.pem")), (ca.clone(), first.clone()), "a restart changes nothing");
        prepare(directory.path(), &["node-1.example".to_owned()]).unwrap();
        assert_eq!(read("ca.pem"), ca);
        assert_ne!(read("cert.pem"), first);
        for secret in ["ca.key", "key.pem"] {
            let mode = std::fs::metadata(directory.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
    }
}
