//! A store on a directory of its own, reached over loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_client::{Client, ClientOptions, ScopedStream, StreamConfig};
use headwater_server::{Config, Server};

/// A running store. Dropping it leaves it to the runtime's end.
pub struct Store {
    server: Option<Server>,
    directory: tempfile::TempDir,
    pub client: Client,
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn start(directory: &Path, [controller, segment_store]: [SocketAddr; 2]) -> Server {
    Server::start(Config {
        data_dir: directory.to_owned(),
        controller,
        segment_store,
        http: any(),
        http_hosts: Vec::new(),
        advertise: None,
        memory_bytes: 256 << 20,
        retention_every: Duration::from_secs(60),
        scrub: None,
        insecure: false,
        auth: None,
        tls: None,
        chunks: None,
        on_fatal: Arc::new(|error| panic!("store failed: {error}")),
    })
    .await
    .unwrap()
}

impl Store {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = start(directory.path(), [any(); 2]).await;
        let options = ClientOptions::new(&server.controller().to_string()).unwrap();
        let client = options.retry_for(Duration::from_secs(20)).connect().unwrap();
        Self { server: Some(server), directory, client }
    }

    /// Stops and starts at the same addresses.
    pub async fn restart(&mut self) {
        let server = self.server.take().unwrap();
        let addresses = [server.controller(), server.segment_store()];
        server.stop().await;
        self.server = Some(start(self.directory.path(), addresses).await);
    }

    /// A new stream with so many segments.
    pub async fn stream(&self, name: &str, segments: u32) -> ScopedStream {
        let stream = ScopedStream::parse(name).unwrap();
        self.client.create_scope(&stream.scope).await.unwrap();
        assert!(self.client.create_stream(&stream, &StreamConfig::fixed(segments)).await.unwrap());
        stream
    }

    /// Everything in a stream, segment by segment.
    pub async fn read_all(&self, stream: &ScopedStream) -> Vec<Bytes> {
        let mut found = Vec::new();
        for slice in self.client.slices(stream).await.unwrap() {
            let mut reader = self.client.read_slice(&slice);
            while let Some((_, event)) = reader.next().await.unwrap() {
                found.push(event);
            }
        }
        found
    }
}
