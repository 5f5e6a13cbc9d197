//! Which hosts the HTTP listener answers to on a server where nobody has to prove who they are.
//!
//! A browser lets a page read whatever comes from the page's own host, and whoever owns a host's name may let it lead
//! anywhere, also to this listener. The request then says that name as its `Host`, which is how such a page is told
//! from everybody else. Addresses cannot be made to lead elsewhere, so they are all admitted: probes of container
//! platforms ask by them.
//!
//! Guarantee: no handler runs for a request that says a host which is neither an address, nor `localhost`, nor one of
//! the names that the operator gave us. Where callers have to prove who they are, a page of another host cannot, and
//! every host is admitted.
//!
//! Source: RFC 9112, section 3.2, for where a request says its host.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::problem::Problem;

/// Hosts that are answered. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Hosts(Option<Arc<BTreeSet<String>>>);

impl Hosts {
    /// Whoever asks proves who they are.
    pub(crate) fn all() -> Self {
        Self(None)
    }

    /// Addresses, `localhost` and `names`, which know no case.
    pub(crate) fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names.into_iter().map(plain).chain(["localhost".to_owned()]);
        Self(Some(Arc::new(names.collect())))
    }

    /// `host` is as a request has it, with or without a port.
    fn admit(&self, host: &str) -> bool {
        let Some(names) = &self.0 else { return true };
        if let Some(rest) = host.strip_prefix('[') {
            let Some((address, port)) = rest.split_once(']') else { return false };
            return address.parse::<Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        let name = match host.split_once(':') {
            Some((name, port)) if is_port(port) => name,
            Some(_) => return false,
            None => host,
        };
        name.parse::<IpAddr>().is_ok() || names.contains(&plain(name))
    }

    /// Answers a request for another host itself. One that says none is no browser's.
    pub(crate) async fn guard(self, request: Request, next: Next) -> Response {
        let said = request.headers().get_all(header::HOST).iter().map(|host| host.to_str().ok());
        let asked = request.uri().authority().map(|authority| Some(authority.as_str()));
        let is_admitted = said.chain(asked).all(|host| host.is_some_and(|host| self.admit(host)));
        if is_admitted {
            return next.run(request).await;
        }
        let text = "this host is not known here: ask by address or as localhost, or start the server with its name in \
                    --advertise or --http-hosts";
        Problem::new(StatusCode::MISDIRECTED_REQUEST, text).into_response()
    }
}

/// A name as it is compared: names know no case, and a dot at the end changes nothing.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(hosts: &Hosts, admitted: &[&str], refused: &[&str]) {
        for host in admitted {
            assert!(hosts.admit(host), "{host} is refused");
        }
        for host in refused {
            assert!(!hosts.admit(host), "{host} is admitted");
        }
    }

    #[test]
    fn addresses_and_the_names_that_were_given_are_admitted_and_nothing_else() {
        let hosts = Hosts::named(["store.example", "Headwater"]);
        check(
            &hosts,
            &[
                "127.0.0.1",
                "127.0.0.1:9091",
                "10.1.2.3:80",
                "[::1]",
                "[::1]:9091",
                "[fe80::1]:",
                "localhost",
                "LocalHost.:9091",
                "store.example:1",
                "headwater:9091",
            ],
            &[
                "",
                ":9091",
                "evil.example",
                "evil.example:9091",
                "localhost.evil.example",
                "127.0.0.1.evil.example:1",
                "store.example.evil.example",
                "evil.store.example",
                "localhost@evil.example",
                "localhost:9091@evil.example",
                "[::1]evil.example",
                "[::1]:9091.evil.example",
                "[evil.example]",
                "[::1",
                "localhost..",
                "localhost evil.example",
                "2130706433.evil.example",
            ],
        );
        check(&Hosts::all(), &["evil.example", ""], &[]);
    }
}
