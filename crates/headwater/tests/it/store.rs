//! A store on a directory of its own, reached over loopback.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_client::{Client, ClientOptions, ScopedStream, StreamConfig};
use headwater_server::{AuthConfig, Config, Server};

/// A running store.
pub(crate) struct Store {
    server: Option<Server>,
    directory: tempfile::TempDir,
    auth: Option<AuthConfig>,
    pub(crate) client: Client,
}

impl Drop for Store {
    /// Nothing is written any more when the directory is removed.
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.close();
        }
    }
}

fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

async fn start(directory: &Path, [controller, segment_store]: [SocketAddr; 2], auth: Option<AuthConfig>) -> Server {
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
        auth,
        tls: None,
        chunks: None,
        on_fatal: Arc::new(|error| panic!("store failed: {error}")),
    })
    .await
    .unwrap()
}

impl Store {
    pub(crate) async fn start() -> Self {
        Self::start_with(None, |options| options).await
    }

    /// With authentication, and a client that proves who it is.
    pub(crate) async fn start_with(
        auth: Option<AuthConfig>,
        prove: impl FnOnce(ClientOptions) -> ClientOptions,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = start(directory.path(), [any(); 2], auth.clone()).await;
        let options = ClientOptions::new(&server.controller().to_string()).unwrap();
        let client = prove(options.retry_for(Duration::from_secs(20))).connect().unwrap();
        Self { server: Some(server), directory, auth, client }
    }

    /// Where commands find it.
    pub(crate) fn address(&self) -> String {
        format!("tcp://{}", self.server.as_ref().unwrap().controller())
    }

    /// Where its interface over HTTP is.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.server.as_ref().unwrap().http())
    }

    /// Stops and starts at the same addresses.
    pub(crate) async fn restart(&mut self) {
        let server = self.server.take().unwrap();
        let addresses = [server.controller(), server.segment_store()];
        server.stop().await;
        self.server = Some(start(self.directory.path(), addresses, self.auth.clone()).await);
    }

    /// Stops, for good.
    pub(crate) async fn stop(mut self) {
        self.server.take().unwrap().stop().await;
    }

    /// A new stream with so many segments.
    pub(crate) async fn stream(&self, name: &str, segments: u32) -> ScopedStream {
        let stream = ScopedStream::parse(name).unwrap();
        self.client.create_scope(&stream.scope).await.unwrap();
        assert!(self.client.create_stream(&stream, &StreamConfig::fixed(segments)).await.unwrap());
        stream
    }

    /// Everything in a stream, segment by segment.
    pub(crate) async fn read_all(&self, stream: &ScopedStream) -> Vec<Bytes> {
        all_of(&self.client, stream).await
    }
}

/// A new stream with so many segments.
pub(crate) async fn stream_of(client: &Client, segments: u32) -> ScopedStream {
    let stream = ScopedStream::parse("s/t").unwrap();
    client.create_scope(&stream.scope).await.unwrap();
    client.create_stream(&stream, &StreamConfig::fixed(segments)).await.unwrap();
    stream
}

/// Everything in a stream, segment by segment.
pub(crate) async fn all_of(client: &Client, stream: &ScopedStream) -> Vec<Bytes> {
    let mut found = Vec::new();
    for slice in client.slices(stream).await.unwrap() {
        let mut reader = client.read_slice(&slice);
        while let Some((_, event)) = reader.next().await.unwrap() {
            found.push(event);
        }
    }
    found
}
