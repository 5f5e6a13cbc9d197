//! Peers of the controller that speak HTTP/2 as no client does: too many calls at a time, and calls that are taken back
//! as soon as they are made. Source of the frames: RFC 9113; of the header block: RFC 7541, without its tables.

use headwater_proto::controller as proto;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::client::PATIENCE;
use crate::server::Running;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// Codes of errors.
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;
/// Of the settings.
const MAX_CONCURRENT_STREAMS: u16 = 3;
/// Calls of one connection that the server carries out at a time.
const CALLS_MAX: u32 = 32;

struct Frame {
    kind: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The number at a place.
    fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A call whose message is still to come.
fn call(stream: u32) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    let path = text("/io.pravega.controller.stream.api.grpc.v1.ControllerService/listScopes");
    let block = [
        // POST and https from the static table; path, authority and type of the content by their names there.
        &[0x83, 0x87, 0x04][..],
        &path,
        &[0x01],
        &text("localhost"),
        &[0x0f, 0x10],
        &text("application/grpc"),
        &[0x00],
        &text("te"),
        &text("trailers"),
    ]
    .concat();
    // The whole of the headers, and not the end of the stream.
    frame(HEADERS, 4, stream, &block)
}

struct Peer(TlsStream<TcpStream>);

impl Peer {
    async fn greet(running: &Running) -> Self {
        let mut socket = running.connect(running.server.controller(), &["h2"]).await.unwrap();
        let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
        socket.write_all(&preface).await.unwrap();
        Self(socket)
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// What the server says next; nothing when it has closed.
    async fn next(&mut self) -> Option<Frame> {
        let reading = async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            Some(Frame { kind: head[3], stream, payload })
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the server says something")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_has_a_bounded_number_of_calls_at_a_time() {
    let running = Running::start(|_| {}).await;
    let mut peer = Peer::greet(&running).await;
    let settings = peer.next().await.unwrap();
    assert_eq!(settings.kind, SETTINGS);
    let mut said = settings.payload.chunks(6).map(|one| (u16::from_be_bytes([one[0], one[1]]), &one[2..]));
    let (_, most) = said.find(|(name, _)| *name == MAX_CONCURRENT_STREAMS).expect("it says how many calls it takes");
    assert_eq!(u32::from_be_bytes(most.try_into().unwrap()), CALLS_MAX);

    // Whoever does not keep to that has the calls beyond refused, and the others go on.
    let streams: Vec<_> = (0..CALLS_MAX + 8).map(|number| 2 * number + 1).collect();
    peer.send(&streams.iter().flat_map(|stream| call(*stream)).collect::<Vec<_>>()).await;
    let mut refused = Vec::new();
    while refused.len() < 8 {
        let frame = peer.next().await.expect("the connection stays");
        match frame.kind {
            RST_STREAM => refused.push((frame.stream, frame.word(0))),
            HEADERS | GOAWAY => panic!("{} about {}", frame.kind, frame.stream),
            _ => {}
        }
    }
    let beyond = streams[CALLS_MAX as usize..].iter().map(|stream| (*stream, REFUSED_STREAM));
    assert_eq!(refused, beyond.collect::<Vec<_>>());
    running.controller().await.list_scopes(proto::ScopesRequest::default()).await.expect("others are served");
    running.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_calls_back_as_soon_as_they_are_made_is_closed() {
    let running = Running::start(|_| {}).await;
    let mut others = running.controller().await;
    let mut peer = Peer::greet(&running).await;
    // In one record of TLS, so that the server finds all of them at once. Never more than one call is open.
    let made_and_taken_back =
        |number: u32| [call(2 * number + 1), frame(RST_STREAM, 0, 2 * number + 1, &CANCEL.to_be_bytes())].concat();
    let flood: Vec<u8> = (0..100).flat_map(made_and_taken_back).collect();
    assert!(flood.len() < 16 << 10);
    peer.send(&flood).await;
    let away = loop {
        let frame = peer.next().await.expect("the server says why it closes");
        if frame.kind == GOAWAY {
            break frame;
        }
    };
    assert_eq!(away.word(4), ENHANCE_YOUR_CALM);
    while peer.next().await.is_some() {}
    others.list_scopes(proto::ScopesRequest::default()).await.expect("others are served");
    running.server.stop().await;
}
