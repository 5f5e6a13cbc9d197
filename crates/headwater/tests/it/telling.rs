//! What the client tells by way of `tracing`, and what it does not.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use headwater_client::{
    ClientOptions, Delivery, EventWriterOptions, KeyRange, Name, ReadFrom, ReaderGroupConfig, ReaderOptions, basic,
};
use tokio::runtime::{Builder, Runtime};

use super::Store;

/// Lines of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    #[track_caller]
    fn has(&self, target: &str, level: &str, words: &str) {
        let text = self.text();
        let found = text.lines().any(|line| {
            line.contains(&format!("headwater_client::{target}:")) && line.contains(level) && line.contains(words)
        });
        assert!(found, "no {level} of {target} with {words:?} in\n{text}");
    }
}

/// The store has threads of its own, and the client this one: what is told here is the client's alone.
#[test]
fn an_operator_is_told_what_happens_and_nothing_that_is_secret() {
    let serving = Runtime::new().unwrap();
    let mut store = serving.block_on(Store::start());
    let stream = serving.block_on(store.stream("s/t", 1));
    let log = Log::default();
    let writing = {
        let log = log.clone();
        move || log.clone()
    };
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let told = tracing::subscriber::set_default(subscriber.with_writer(writing).finish());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let address = store.address();
    // Both end outside of this one.
    let _served = runtime.block_on(async {
        // A store without authentication does not look at it.
        let options = ClientOptions::new(&address).unwrap().credentials(basic("user", "planted-password").unwrap());
        let client = options.retry_for(Duration::from_secs(20)).connect().unwrap();
        let writer = client.event_writer(&stream, EventWriterOptions::default()).await.unwrap();
        writer.write("planted-key", "planted-event").await.unwrap().await.unwrap();
        log.has("connection", "DEBUG", "connection opened");

        // Events are on their way at every moment of a restart.
        let restarting = std::thread::spawn(move || {
            serving.block_on(store.restart());
            (serving, store)
        });
        let mut written = 1;
        while !restarting.is_finished() {
            let _ = writer.write("planted-key", "planted-event").await.unwrap();
            written += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        writer.flush().await.unwrap();
        let served = restarting.join().unwrap();
        log.has("connection", "DEBUG", "connection ended");
        log.has("retry", "DEBUG", "");

        let before = client.current_segments(&stream).await.unwrap();
        let sealed: Vec<_> = before.iter().map(|segment| segment.id).collect();
        client.scale_stream(&stream, &sealed, &KeyRange::split(2)).await.unwrap();
        writer.write("planted-key", "planted-event").await.unwrap().await.unwrap();
        written += 1;
        log.has("scale", "INFO", "writer goes on in other segments");
        let mut alone = client.stream_reader(&stream, ReadFrom::Head).await.unwrap();
        for _ in 0..written {
            alone.next().await.unwrap().unwrap();
        }
        log.has("scale", "INFO", "reader has read a segment to its end");

        let group = Name::parse("group").unwrap();
        let config = ReaderGroupConfig::of(&stream);
        client.create_reader_group(&stream.scope, &group, &config).await.unwrap();
        let group = client.reader_group(&stream.scope, &group).await.unwrap();
        let mut reader = group.reader_with("alice", ReaderOptions::at_once()).await.unwrap();
        for _ in 0..written {
            assert!(matches!(reader.next().await.unwrap(), Some(Delivery::Event(_))));
        }
        reader.close().await.unwrap();
        for words in ["joined its group", "takes a segment", "passes a segment on", "left its group"] {
            log.has("group", "INFO", words);
        }
        served
    });
    drop(told);
    let text = log.text();
    for planted in ["planted", "dXNlcjpwbGFudGVk"] {
        let line = text.lines().find(|line| line.contains("headwater_client") && line.contains(planted));
        assert_eq!(line, None);
    }
}
