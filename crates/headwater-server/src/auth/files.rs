//! Files that are read again when they change, and the key that signs.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use headwater_auth::delegation::Key;
use headwater_auth::keys::KeySet;
use headwater_auth::passwords::PasswordFile;
use headwater_engine::check::TOKEN_KEY;
use tokio::time::Instant;

use super::{AuthError, Shared};
use crate::secrets;
use crate::settling::{Look, Settling};

/// How a file's text becomes a value.
pub(super) type Parse<T> = fn(&Path, &str) -> Result<T, AuthError>;

/// A file and what it said last that made sense.
pub(super) struct Watched<T> {
    path: PathBuf,
    parse: Parse<T>,
    value: Shared<T>,
    seen: Mutex<Settling<Vec<u8>>>,
}

impl<T> Watched<T> {
    pub(super) fn open(path: PathBuf, parse: Parse<T>) -> Result<Self, AuthError> {
        let bytes = secrets::read(&path, true)?;
        let value = Shared::new(Arc::new(read(&path, &bytes, parse)?));
        Ok(Self { path, parse, value, seen: Mutex::new(Settling::new(bytes)) })
    }

    pub(super) fn current(&self) -> Arc<T> {
        self.value.read().expect("a panic ends the process").clone()
    }

    /// Takes the file if it changed since it was last taken and has stayed as it is for `settling`.
    pub(super) fn look(&self, settling: Duration) -> Look<AuthError> {
        let mut seen = self.seen.lock().expect("a panic ends the process");
        let take = |bytes: &Vec<u8>| -> Result<(), AuthError> {
            let value = read(&self.path, bytes, self.parse)?;
            *self.value.write().expect("a panic ends the process") = Arc::new(value);
            Ok(())
        };
        seen.look(Instant::now(), settling, &[&self.path], || Ok(secrets::read(&self.path, true)?), take)
    }
}

fn read<T>(path: &Path, bytes: &[u8], parse: Parse<T>) -> Result<T, AuthError> {
    let text = std::str::from_utf8(bytes).map_err(|_| secrets::FileError::NotText { path: path.to_owned() })?;
    parse(path, text)
}

pub(super) fn passwords(path: &Path, text: &str) -> Result<PasswordFile, AuthError> {
    // What a file is in the moment between its being emptied and written.
    if text.trim().is_empty() {
        return Err(AuthError::Empty { path: path.to_owned() });
    }
    PasswordFile::parse(text).map_err(|source| AuthError::Passwords { path: path.to_owned(), source })
}

pub(super) fn keys(path: &Path, text: &str) -> Result<KeySet, AuthError> {
    KeySet::parse(text).map_err(|source| AuthError::Keys { path: path.to_owned(), source })
}

/// The operator's key, or our own, made if there is none yet.
pub(super) fn signing_key(configured: Option<&Path>, data_dir: &Path) -> Result<Key, AuthError> {
    let own = data_dir.join(TOKEN_KEY);
    let path = configured.unwrap_or(&own);
    if configured.is_none() && !own.exists() {
        secrets::put(&own, &URL_SAFE_NO_PAD.encode(chance::<64>()?), 0o600)?;
    }
    let bytes = secrets::read(path, true)?;
    // Editors end a file with a line's end, which nobody means.
    let key = bytes.trim_ascii_end();
    Key::new(key).map_err(|source| AuthError::TokenKey { path: path.to_owned(), source })
}

/// Random bytes of the system.
pub(super) fn chance<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    let provider = rustls::crypto::ring::default_provider();
    provider.secure_random.fill(&mut bytes).map_err(|_| AuthError::NoChance)?;
    Ok(bytes)
}
