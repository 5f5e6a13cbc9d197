//! Who the client says it is.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;

use crate::error::{Error, ErrorKind, Result};

/// Makes the `authorization` header of calls to the controller. Segment stores get tokens that the controller makes.
pub trait Credentials: Send + Sync + 'static {
    /// The header's value, a scheme and what belongs to it. Asked for at every call: keep what is still good.
    ///
    /// # Errors
    /// `Unavailable`: asked again until the time for retries is over. With any other the call that needed it fails.
    fn authorization(&self) -> BoxFuture<'_, Result<String>>;

    /// The server has refused what [`authorization`](Self::authorization) returned. `true`: the next one may be better,
    /// and the call is tried once more.
    fn refused(&self) -> bool {
        false
    }
}

impl<T: Credentials + ?Sized> Credentials for Arc<T> {
    fn authorization(&self) -> BoxFuture<'_, Result<String>> {
        (**self).authorization()
    }

    fn refused(&self) -> bool {
        (**self).refused()
    }
}

/// Hides what is inside from debug output.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) Arc<dyn Credentials>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

struct Fixed(String);

impl Credentials for Fixed {
    fn authorization(&self) -> BoxFuture<'_, Result<String>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// A user and a password of the server's password file.
///
/// # Errors
/// `Invalid`: a colon or a control character in the user's name.
pub fn basic(user: &str, password: &str) -> Result<impl Credentials> {
    if user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()) {
        return Err(Error::new(ErrorKind::Invalid, "user name is empty or has a colon or control character in it"));
    }
    Ok(Fixed(format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))))
}

/// A token that somebody else made, sent as it is until the end.
///
/// # Errors
/// `Invalid`: something in it cannot stand in a header.
pub fn bearer(token: &str) -> Result<impl Credentials> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::new(ErrorKind::Invalid, "token is empty or has characters that no token has"));
    }
    Ok(Fixed(format!("Bearer {token}")))
}
