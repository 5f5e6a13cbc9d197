//! Where a server listens.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// Port of a controller that an address does not name.
const CONTROLLER_PORT: u16 = 9090;

/// Host and port of a server. A host is a name or an address; of a name with several addresses the first that answers is
/// taken.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Endpoint {
    host: Arc<str>,
    port: u16,
}

impl Endpoint {
    /// IPv6 addresses stand without brackets here.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self { host: host.into(), port }
    }

    /// Name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Addresses of controllers, as a person writes them: `tcp://host:9090`, `tls://host`, or `host:9090,host2:9090`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    pub(crate) controllers: Vec<Endpoint>,
    pub(crate) tls: bool,
}

impl FromStr for Address {
    type Err = Error;

    /// Schemes are those of Pravega's clients: `tcp` and `pravega` are plain, `tls`, `ssl` and `pravegas` encrypted.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let tls = match scheme {
            "tcp" | "pravega" => false,
            "tls" | "ssl" | "pravegas" => true,
            _ => {
                let what = format!("address {text:?} has scheme {scheme:?}; say tcp:// or tls://");
                return Err(Error::new(ErrorKind::Invalid, what));
            }
        };
        let controllers = rest.trim_end_matches('/').split(',').map(|part| {
            controller(part).ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("address {text:?} is not tcp://HOST[:PORT] or tls://HOST[:PORT]"),
                )
            })
        });
        Ok(Self { controllers: controllers.collect::<Result<_, _>>()?, tls })
    }
}

fn controller(text: &str) -> Option<Endpoint> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']')?;
            let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(CONTROLLER_PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:_".contains(&byte);
    (!host.is_empty() && host.bytes().all(plain)).then(|| Endpoint::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&[&str], bool)>) {
        let found = text.parse::<Address>().ok();
        let found = found.map(|it| (it.controllers.iter().map(Endpoint::to_string).collect::<Vec<_>>(), it.tls));
        let expected = expected.map(|(all, tls)| (all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), tls));
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses_are_what_clients_of_pravega_write() {
        check("tcp://127.0.0.1:9090", Some((&["127.0.0.1:9090"], false)));
        check("tls://store.example", Some((&["store.example:9090"], true)));
        check("pravega://a:1,b:2", Some((&["a:1", "b:2"], false)));
        check("localhost:9090", Some((&["localhost:9090"], false)));
        check("tcp://[::1]:9090/", Some((&["[::1]:9090"], false)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "tcp://", "http://a:1", "tcp://a:0", "tcp://a:70000", "tcp://[::1", "tcp://a b:1", "a:1,,b:2"]
        {
            check(text, None);
        }
    }
}
