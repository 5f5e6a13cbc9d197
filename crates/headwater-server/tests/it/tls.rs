//! TLS on all three listeners: versions, names, bad peers, and certificates that change while clients work.

use std::sync::atomic::Ordering;
use std::time::Duration;

use headwater_proto::controller as proto;
use headwater_proto::controller::controller_service_client::ControllerServiceClient;
use headwater_server::TlsConfig;
use headwater_wire::{Reply, Request, Token};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{PATIENCE, SEGMENT, acknowledged, read};
use crate::server::{Running, channel, connect};

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_whole_under_both_versions() {
    let running = Running::start(|_| {}).await;
    for (writer, version) in [(1, &rustls::version::TLS12), (2, &rustls::version::TLS13)] {
        let address = running.server.segment_store();
        let socket = connect(&running.authority(), address, "localhost", &[], &[version]).await.unwrap();
        let mut client = crate::client::Client::greet(socket).await;
        let segment = format!("scope/stream/{writer}.#epoch.0");
        client.create(&segment).await;
        assert_eq!(client.set_up(writer, &segment).await, i64::MIN);
        let event: Vec<u8> = (0..3 << 20).map(|i| (i * 31 % 251) as u8).collect();
        let length = event.len() as i64;
        assert_eq!(client.append(writer, 1, &event).await, acknowledged(writer, 1, i64::MIN, length));
        let mut found = Vec::new();
        while found.len() < event.len() {
            match client.ask(read(&segment, found.len() as i64, 1 << 20, 9)).await {
                Reply::SegmentRead { data, .. } => found.extend_from_slice(&data),
                other => panic!("{other:?}"),
            }
        }
        assert!(found == event, "what was read is not what was written");
    }
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_listener_has_tls_and_the_address_that_clients_are_told() {
    let running = Running::start(|_| {}).await;
    for name in ["localhost", "127.0.0.1"] {
        for address in [running.server.segment_store(), running.server.controller(), running.server.http()] {
            connect(&running.authority(), address, name, &[], &[&rustls::version::TLS13]).await.unwrap();
        }
    }
    let socket = running.connect(running.server.controller(), &["h2"]).await.unwrap();
    assert_eq!(socket.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut controller = running.controller().await;
    let created = controller.create_scope(proto::ScopeInfo { scope: "s".into() }).await.unwrap().into_inner();
    assert_eq!(created.status(), proto::create_scope_status::Status::Success);
    let stream_info = Some(proto::StreamInfo { scope: "s".into(), stream: "t".into(), access_operation: 0 });
    let told = controller.get_uri(proto::SegmentId { stream_info, segment_id: 0 }).await.unwrap().into_inner();
    assert_eq!((told.endpoint.as_str(), told.port), ("localhost", i32::from(running.server.segment_store().port())));
    assert!(running.http("GET", "/readyz", "").await.starts_with("HTTP/1.1 200"));
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_peers_and_other_names_get_nothing() {
    let running = Running::start(|_| {}).await;
    for address in [running.server.segment_store(), running.server.controller(), running.server.http()] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut said = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, plain.read_to_end(&mut said)).await.expect("the server closes");
        // At most the alert of TLS itself: its record type, nothing of ours.
        assert!(said.is_empty() || said[0] == 21, "{said:?}");
        let other = connect(&running.authority(), address, "elsewhere.example", &[], &[&rustls::version::TLS13]).await;
        assert!(other.is_err(), "the certificate has no such name");
    }
    let page = running.http("GET", "/metrics", "").await;
    assert!(page.contains("tls_handshakes_failed_total"), "{page}");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_never_finish_their_handshake_hold_up_nobody() {
    let running = Running::start(|_| {}).await;
    let mut silent = Vec::new();
    for address in [running.server.segment_store(), running.server.controller()] {
        for _ in 0..30 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            // The beginning of a handshake record.
            socket.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
            silent.push(socket);
        }
    }
    tokio::time::timeout(Duration::from_secs(5), async {
        running.store().await;
        running.controller().await.list_scopes(proto::ScopesRequest::default()).await.unwrap();
    })
    .await
    .expect("others are served meanwhile");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::disallowed_methods, reason = "the operator's files, not the store's")]
async fn certificates_change_under_load_and_no_connection_notices() {
    // Two certificates of one authority, as an operator has them before and after a renewal.
    let made = tempfile::tempdir().unwrap();
    let mut pairs = Vec::new();
    for name in ["first", "second"] {
        let running = Running::start(|config| {
            config.data_dir = made.path().join("data");
            config.advertise = Some(name.to_owned());
        })
        .await;
        running.server.stop().await;
        let file = |name: &str| std::fs::read(made.path().join("data/tls").join(name)).unwrap();
        // Each with its authority behind it, as chains are.
        pairs.push(([file("cert.pem"), file("ca.pem")].concat(), file("key.pem")));
    }
    assert_ne!(pairs[0], pairs[1]);
    let chains: Vec<Vec<_>> =
        pairs.iter().map(|(chain, _)| CertificateDer::pem_slice_iter(chain).map(Result::unwrap).collect()).collect();
    let authority = made.path().join("data/tls/ca.pem");
    let (certificate, key) = (made.path().join("cert.pem"), made.path().join("key.pem"));
    let put = |path: &std::path::Path, bytes: &[u8]| {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let new = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
        new.unwrap().write_all(bytes).unwrap();
    };
    put(&certificate, &pairs[0].0);
    put(&key, &pairs[0].1);
    let files = TlsConfig::Files { certificate: certificate.clone(), key: key.clone() };
    let running = Running::start(|config| config.tls = Some(files)).await;
    let (address, versions) = (running.server.segment_store(), [&rustls::version::TLS13]);

    let socket = connect(&authority, address, "localhost", &[], &versions).await.unwrap();
    let mut long = crate::client::Client::greet(socket).await;
    long.create(SEGMENT).await;
    long.set_up(1, SEGMENT).await;
    let listeners = [address, running.server.controller(), running.server.http()];
    // Every listener shows this chain to whoever comes now.
    let served = async |expected: &[CertificateDer<'_>], when: &str| {
        for address in listeners {
            let socket = connect(&authority, address, "localhost", &[], &versions).await.unwrap();
            assert_eq!(socket.get_ref().1.peer_certificates().unwrap(), expected, "{address} {when}");
        }
    };
    // Asks for the files to be looked at until a figure says that it was done so often.
    let counted = async |figure: &str, times: usize| {
        let asking = async {
            loop {
                running.server.reload();
                let address = running.server.http();
                let mut socket = connect(&authority, address, "localhost", &["http/1.1"], &versions).await.unwrap();
                socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
                let mut page = String::new();
                socket.read_to_string(&mut page).await.unwrap();
                let line = page.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(' '));
                if line.unwrap().parse::<usize>().unwrap() >= times {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{figure} becomes {times}"));
    };
    let (channel, channels) = channel(authority.clone(), running.server.controller()).await;
    let stopping = tokio_util::sync::CancellationToken::new();
    let calling = tokio::spawn({
        let (stopping, mut controller) = (stopping.clone(), ControllerServiceClient::new(channel));
        async move {
            let mut calls = 0;
            while !stopping.is_cancelled() {
                controller.list_scopes(proto::ScopesRequest::default()).await.unwrap();
                calls += 1;
            }
            calls
        }
    });
    let load = tokio::spawn({
        let (stopping, authority) = (stopping.clone(), authority.clone());
        async move {
            let mut connections = 0;
            while !stopping.is_cancelled() {
                let socket = connect(&authority, address, "localhost", &[], &[&rustls::version::TLS13]).await.unwrap();
                let mut client = crate::client::Client::greet(socket).await;
                let segment = SEGMENT.into();
                let info =
                    client.ask(Request::GetStreamSegmentInfo { request_id: 1, segment, token: Token::default() });
                assert!(matches!(info.await, Reply::StreamSegmentInfo { .. }));
                connections += 1;
            }
            connections
        }
    });
    for round in 0..20_usize {
        let (new_certificate, new_key) = &pairs[(round + 1) % 2];
        // Cut within its first block, then the whole of it while the key is still the old one. The first time it stays
        // so until that was found to be no good.
        put(&certificate, &new_certificate[..new_certificate.len() / 4]);
        running.server.reload();
        match round {
            0 => counted("tls_reloads_failed_total", 1).await,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        served(&chains[round % 2], "while half of a file is there").await;
        put(&certificate, new_certificate);
        running.server.reload();
        match round {
            0 => counted("tls_reloads_failed_total", 2).await,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        served(&chains[round % 2], "while the key is that of another").await;
        put(&key, new_key);
        counted("tls_reloads_total", round + 1).await;
        served(&chains[(round + 1) % 2], "once the new pair is in use").await;
        let number = round as i64 + 1;
        let previous = if number == 1 { i64::MIN } else { number - 1 };
        assert_eq!(long.append(1, number, b"x").await, acknowledged(1, number, previous, number));
    }
    stopping.cancel();
    assert!(load.await.unwrap() > 20, "connections were made all the time");
    assert!(calling.await.unwrap() > 20, "calls were made all the time");
    assert_eq!(channels.load(Ordering::Relaxed), 1, "over one connection");
    running.server.stop().await;
}
