//! Which hosts the HTTP listener answers to, by requests as browsers and probes send them.

use headwater_auth::HttpRoute;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::auth;
use crate::server::Running;

/// Status of a request that is sent as it is.
async fn status(running: &Running, request: &str) -> u16 {
    let mut socket = TcpStream::connect(running.server.http()).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
}

fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")
}

fn path(route: HttpRoute) -> String {
    route.path().replace(['{', '}', '*'], "")
}

const UNKNOWN: u16 = 421;

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_no_route_answers_a_page_whose_name_leads_here() {
    let running = Running::start(|config| {
        config.tls = None;
        config.advertise = Some("store.example".to_owned());
        config.http_hosts = vec!["head_water".to_owned()];
    })
    .await;
    let port = running.server.http().port();
    for route in HttpRoute::ALL {
        for host in [format!("evil.example:{port}"), "evil.example".to_owned()] {
            let asked = request(route.method(), &path(*route), &format!("Host: {host}\r\n"));
            assert_eq!(status(&running, &asked).await, UNKNOWN, "{route} for {host}");
        }
        for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "Store.Example".to_owned()] {
            // Without waiting for what it has asked for.
            if route.method() == "GET" {
                let asked = request("GET", &path(*route), &format!("Host: {host}\r\n"));
                assert_ne!(status(&running, &asked).await, UNKNOWN, "{route} for {host}");
            }
        }
    }
    let scopes = |headers: &str| request("GET", "/v1/scopes", headers);
    for (headers, expected) in [
        ("Host: 10.9.8.7\r\n", 200),
        ("Host: [::1]:9091\r\n", 200),
        ("Host: head_water:9091\r\n", 200),
        ("Host: localhost\r\nHost: evil.example\r\n", UNKNOWN),
        ("Host: evil.example\r\nHost: localhost\r\n", UNKNOWN),
        ("Host: localhost@evil.example\r\n", UNKNOWN),
        ("Host: \r\n", UNKNOWN),
    ] {
        assert_eq!(status(&running, &scopes(headers)).await, expected, "{headers}");
    }
    // The whole address of a request counts as well, and what no path is for is no way to learn of us.
    let whole = request("GET", "http://evil.example/v1/scopes", "Host: localhost\r\n");
    assert_eq!(status(&running, &whole).await, UNKNOWN);
    assert_eq!(status(&running, &request("GET", "/nothing", "Host: evil.example\r\n")).await, UNKNOWN);
    assert_eq!(status(&running, &request("PATCH", "/v1/scopes", "Host: evil.example\r\n")).await, UNKNOWN);
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_that_ask_by_address_or_say_no_host_are_answered() {
    let running = Running::start(|config| config.tls = None).await;
    let address = running.server.http();
    for path in ["/healthz", "/readyz", "/ping", "/metrics", "/v1/health/readiness"] {
        for host in [address.to_string(), address.ip().to_string(), "10.42.0.17:9091".to_owned()] {
            assert_eq!(
                status(&running, &request("GET", path, &format!("Host: {host}\r\n"))).await,
                200,
                "{path} {host}"
            );
        }
        // As probes of version 1.0 do.
        assert_eq!(status(&running, &format!("GET {path} HTTP/1.0\r\n\r\n")).await, 200, "{path}");
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_authentication_every_host_is_answered_and_pages_have_no_credentials() {
    let (running, _files) = auth::start(|_| {}).await;
    let document = crate::documented::Documented::new(&running).await;
    let ask = |headers: &str| {
        let headers = headers.to_owned();
        let document = &document;
        async move { document.send_as("proxy.example", "GET", "/v1/scopes", &headers).await.status }
    };
    assert_eq!(ask("").await, 401);
    assert_eq!(ask(&format!("Authorization: {}\r\n", auth::basic("admin", "a"))).await, 200);
    running.server.stop().await;
}
