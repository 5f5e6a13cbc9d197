//! `--credentials FILE`: how commands are let in.
//!
//! The file's first line says how: `USER:PASSWORD`; `Bearer` and a token; or `OIDC ISSUER CLIENT`, with `secret=`, `scope=`,
//! `audience=` and `ca=` behind it. Without `secret=` a person signs in, and the refresh token that comes of it is kept in
//! `FILE.session`, so that the next command asks nobody.

#![allow(clippy::disallowed_methods, reason = "reads and writes a person's files; nothing here runs in the simulator")]

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_client::{Credentials, DeviceSignIn, OidcIssuer, basic, bearer};
use headwater_server::auth::FileError;
use headwater_server::read_secret_text;

use crate::exit;

/// Why a file lets nobody in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialsError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} begins with none of USER:PASSWORD, Bearer TOKEN and OIDC ISSUER CLIENT", path.display())]
    Unknown { path: PathBuf },
    #[error("{}: {word:?} is none of secret=SECRET, scope=SCOPE, audience=AUDIENCE and ca=FILE", path.display())]
    Word { path: PathBuf, word: String },
    #[error("{} cannot be read", path.display())]
    Ca { path: PathBuf, source: std::io::Error },
    #[error("{} is of no use", path.display())]
    Refused { path: PathBuf, source: headwater_client::Error },
}

impl CredentialsError {
    /// The code to end with.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Self::File(FileError::Unreadable { .. }) | Self::Ca { .. } => exit::NO_INPUT,
            Self::File(_) | Self::Unknown { .. } | Self::Word { .. } | Self::Refused { .. } => exit::USAGE,
        }
    }
}

/// Reads a file that is the caller's own. Nobody is asked yet: an issuer is when the first call is made, and then a person is
/// told on standard error where to sign in.
pub(crate) fn read(path: &Path) -> Result<Arc<dyn Credentials>, CredentialsError> {
    let refused = |source| CredentialsError::Refused { path: path.to_owned(), source };
    let text = read_secret_text(path)?;
    let line = text.lines().next().unwrap_or_default();
    if let Some(token) = line.strip_prefix("Bearer ") {
        Ok(Arc::new(bearer(token).map_err(refused)?))
    } else if let Some(line) = line.strip_prefix("OIDC ") {
        issuer(path, line)
    } else if let Some((user, password)) = line.split_once(':') {
        Ok(Arc::new(basic(user, password).map_err(refused)?))
    } else {
        Err(CredentialsError::Unknown { path: path.to_owned() })
    }
}

fn issuer(path: &Path, line: &str) -> Result<Arc<dyn Credentials>, CredentialsError> {
    let refused = |source| CredentialsError::Refused { path: path.to_owned(), source };
    let mut words = line.split_ascii_whitespace();
    let (Some(address), Some(client)) = (words.next(), words.next()) else {
        return Err(CredentialsError::Unknown { path: path.to_owned() });
    };
    let mut issuer = OidcIssuer::new(address, client).map_err(refused)?;
    let mut is_person = true;
    for word in words {
        issuer = match word.split_once('=') {
            Some(("secret", secret)) => {
                is_person = false;
                issuer.secret(secret)
            }
            Some(("scope", scope)) => issuer.scope(scope),
            Some(("audience", audience)) => issuer.audience(audience),
            Some(("ca", ca)) => {
                let ca = PathBuf::from(ca);
                let certificates = std::fs::read(&ca).map_err(|source| CredentialsError::Ca { path: ca, source })?;
                issuer.trusting(&certificates).map_err(refused)?
            }
            // What is behind the first `=` may be a secret in the wrong place.
            _ => {
                let word = word.split_once('=').map_or("…", |(name, _)| name).to_owned();
                return Err(CredentialsError::Word { path: path.to_owned(), word });
            }
        };
    }
    if !is_person {
        return Ok(Arc::new(issuer.client_credentials().map_err(refused)?));
    }
    let session = Session::beside(path, address, client);
    if let Some(token) = session.read()? {
        issuer = issuer.refresh_token(&token);
    }
    let issuer = issuer.on_refresh_token(move |token| session.keep(token));
    Ok(Arc::new(issuer.device(ask).map_err(refused)?))
}

/// Tells a person on standard error what to do.
fn ask(sign_in: &DeviceSignIn) {
    let DeviceSignIn { address, code, address_with_code, time, .. } = sign_in;
    eprintln!("headwater: to sign in, open {address} and enter {code}; the code is good for {} s", time.as_secs());
    if let Some(address) = address_with_code {
        eprintln!("headwater: or open {address}");
    }
}

/// Where a person's refresh token is between two commands: one line, the issuer, the client and the token.
struct Session {
    path: PathBuf,
    /// Whose token it is; one of somebody else is none.
    whose: String,
}

impl Session {
    fn beside(credentials: &Path, issuer: &str, client: &str) -> Self {
        let mut path = credentials.as_os_str().to_owned();
        path.push(".session");
        Self { path: path.into(), whose: format!("{issuer} {client} ") }
    }

    fn read(&self) -> Result<Option<String>, CredentialsError> {
        let text = match read_secret_text(&self.path) {
            Ok(text) => text,
            Err(FileError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let line = text.lines().next().unwrap_or_default();
        Ok(line.strip_prefix(&self.whose).map(str::to_owned))
    }

    /// Whole or not at all. A command does its work also when this fails.
    fn keep(&self, token: &str) {
        let mut new = self.path.as_os_str().to_owned();
        // Commands that end together do not write into each other's file.
        new.push(format!(".{}", std::process::id()));
        let new = PathBuf::from(new);
        let write = || {
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            writeln!(file, "{}{token}", self.whose)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)
        };
        if let Err(error) = write() {
            let _ = std::fs::remove_file(&new);
            eprintln!("headwater: {} cannot be written, the next command will ask again: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn written(line: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        std::fs::write(&path, line).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        (directory, path)
    }

    #[tokio::test]
    async fn passwords_and_tokens_make_headers() {
        for (line, expected) in [
            ("admin:secret\nmore", "Basic YWRtaW46c2VjcmV0"),
            ("OIDC:secret", "Basic T0lEQzpzZWNyZXQ="),
            ("Bearer abc\r\n", "Bearer abc"),
        ] {
            let (_directory, path) = written(line);
            assert_eq!(read(&path).unwrap().authorization().await.unwrap(), expected);
        }
    }

    #[test]
    fn lines_of_issuers_are_understood_or_refused_without_their_secrets() {
        for (line, expected) in [
            ("OIDC http://localhost:1/realms/r cli secret=planted", None),
            ("OIDC http://127.0.0.1:1 cli secret=planted scope=a scope=b audience=c", None),
            ("OIDC http://127.0.0.1:1 cli", None),
            ("OIDC http://id.example cli secret=planted", Some("is of no use")),
            ("OIDC https://id.example", Some("begins with none of")),
            ("OIDC", Some("begins with none of")),
            ("", Some("begins with none of")),
            ("nonsense", Some("begins with none of")),
            ("OIDC http://127.0.0.1:1 cli planted", Some("\"…\" is none of secret=SECRET")),
            ("OIDC http://127.0.0.1:1 cli sekret=planted", Some("\"sekret\" is none of secret=SECRET")),
            ("OIDC http://127.0.0.1:1 cli ca=/does/not/exist", Some("cannot be read")),
        ] {
            let (_directory, path) = written(line);
            let refused = read(&path).err().map(|error| crate::serve::chain(&error));
            match expected {
                None => assert_eq!(refused, None, "{line}"),
                Some(words) => {
                    let refused = refused.unwrap();
                    assert!(refused.contains(words) && !refused.contains("planted"), "{line}: {refused}");
                }
            }
        }
    }

    #[test]
    fn a_session_is_kept_for_its_own_client_and_for_nobody_elses_eyes() {
        let (_directory, path) = written("");
        let session = Session::beside(&path, "https://id.example", "cli");
        assert_eq!(session.read().unwrap(), None);
        session.keep("one");
        session.keep("two");
        assert_eq!(session.read().unwrap().as_deref(), Some("two"));
        assert_eq!(std::fs::metadata(&session.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Session::beside(&path, "https://id.example", "client").read().unwrap(), None);
        assert_eq!(Session::beside(&path, "https://other.example", "cli").read().unwrap(), None);
        std::fs::set_permissions(&session.path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(session.read().is_err());
    }
}
