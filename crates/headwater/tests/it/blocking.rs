//! The client for programs without asynchronous code.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use headwater_client::blocking::{Client, Waited};
use headwater_client::{
    ClientOptions, Delivery, Duplex, Endpoint, ErrorKind, EventWriterOptions, Name, Put, ReadFrom, ReaderGroupConfig,
    ReaderOptions, ScopedStream, ScopedTable, Service, StreamConfig, TransactionOptions, TransactionState, Transport,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::Store;

/// A store on threads of its own, and a client of it on this one.
struct Served {
    client: Client,
    store: Store,
    // Last, so that the store lives until then.
    runtime: Runtime,
}

impl Served {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(Store::start());
        let options = ClientOptions::new(&store.address()).unwrap().retry_for(Duration::from_secs(20));
        Self { client: Client::with(options).unwrap(), store, runtime }
    }

    fn stream(&self, segments: u32) -> ScopedStream {
        self.runtime.block_on(self.store.stream("s/t", segments))
    }
}

#[test]
fn events_are_written_and_read_by_a_plain_thread() {
    let served = Served::start();
    let (client, stream) = (&served.client, served.stream(2));
    let mut writer = client.event_writer(&stream, EventWriterOptions::default()).unwrap();
    let mut first = writer.write("a", "0").unwrap();
    let written = first.wait_within(Duration::from_secs(20)).unwrap().expect("the store is idle");
    assert_eq!((written.offset, first.wait().unwrap()), (Some(0), written));
    for number in 1..100 {
        drop(writer.write("a", number.to_string()).unwrap());
    }
    writer.write_all("a", &[Bytes::from("100"), Bytes::from("101")]).unwrap().wait().unwrap();
    writer.flush().unwrap();

    let mut reader = client.stream_reader(&stream, ReadFrom::Head).unwrap();
    for number in 0..=101 {
        assert_eq!(reader.next().unwrap().unwrap().event, number.to_string());
    }
    let begun = Instant::now();
    assert_eq!(reader.next_within(Duration::from_millis(100)).unwrap(), Waited::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let tail = client.run(client.asynchronous().tail_cut(&stream)).unwrap();
    assert_eq!(reader.next_before(&tail).unwrap(), None);
    assert_eq!(reader.cut().unwrap(), tail);
    // What came late is not lost to a wait that was given up.
    writer.write("a", "late").unwrap().wait().unwrap();
    match reader.next_within(Duration::from_secs(20)).unwrap() {
        Waited::Ready(event) => assert_eq!(event.event, "late"),
        other => panic!("{other:?}"),
    }
    client.run(client.asynchronous().seal_stream(&stream)).unwrap();
    assert_eq!(reader.next().unwrap(), None);
    assert_eq!(reader.next_within(Duration::from_secs(20)).unwrap(), Waited::End);
    let sealed = client.event_writer(&stream, EventWriterOptions::default()).unwrap_err();
    assert_eq!(sealed.kind(), ErrorKind::Sealed);
}

#[test]
fn readers_of_a_group_share_on_plain_threads_and_leave_in_order() {
    let served = Served::start();
    let (client, stream) = (&served.client, served.stream(2));
    let mut writer = client.event_writer(&stream, EventWriterOptions::default()).unwrap();
    for number in 0..50 {
        drop(writer.write(&number.to_string(), number.to_string()).unwrap());
    }
    writer.flush().unwrap();
    let (scope, group) = (stream.scope.clone(), Name::parse("group").unwrap());
    let config = ReaderGroupConfig::of(&stream);
    assert!(client.run(client.asynchronous().create_reader_group(&scope, &group, &config)).unwrap());
    let missing = client.group_reader(&scope, &Name::parse("missing").unwrap(), "r", ReaderOptions::at_once());
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NotFound);

    let mut found = Vec::new();
    let mut take = |id: &str, count: usize| {
        let mut reader = client.group_reader(&scope, &group, id, ReaderOptions::at_once()).unwrap();
        while found.len() < count {
            match reader.next().unwrap() {
                Some(Delivery::Event(event)) => found.push(event.event),
                other => panic!("{other:?}"),
            }
        }
        assert!(!reader.position().offsets.is_empty());
        reader
    };
    take("first", 20).close().unwrap();
    let mut second = take("second", 50);
    assert_eq!(second.next_within(Duration::from_millis(100)).unwrap(), Waited::TimedOut);
    assert!(matches!(second.next_batch_within(Duration::from_millis(100), 10), Ok(Waited::TimedOut)));
    second.close().unwrap();
    found.sort();
    let mut expected: Vec<_> = (0..50).map(|number: u32| Bytes::from(number.to_string())).collect();
    expected.sort();
    assert_eq!(found, expected, "each event once");
}

#[test]
fn transactions_end_as_they_are_told() {
    let served = Served::start();
    let (client, stream) = (&served.client, served.stream(1));
    let mut committed = client.begin_transaction(&stream, TransactionOptions::default()).unwrap();
    drop(committed.write("a", "one").unwrap());
    let id = committed.id();
    drop(committed);
    let mut committed = client.resume_transaction(&stream, TransactionOptions::default(), id).unwrap();
    committed.write("a", "two").unwrap().wait().unwrap();
    let mut aborted = client.begin_transaction(&stream, TransactionOptions::default()).unwrap();
    aborted.write("a", "never").unwrap().wait().unwrap();
    let gone = aborted.id();
    aborted.abort().unwrap();
    committed.commit(None).unwrap();
    let state = |id| client.run(client.asynchronous().transaction_state(&stream, id)).unwrap();
    assert_eq!(state(id), TransactionState::Committed);
    assert!(matches!(state(gone), TransactionState::Aborting | TransactionState::Aborted));
    let events = served.runtime.block_on(served.store.read_all(&stream));
    // The first one's event was handed over, and its writer was dropped before it was stored, or after.
    assert!(events == ["two"] || events == ["one", "two"], "{events:?}");
}

#[test]
fn tables_hold_what_was_put() {
    let served = Served::start();
    let client = &served.client;
    client.run(client.asynchronous().create_scope(&Name::parse("s").unwrap())).unwrap();
    let table = client.table(&ScopedTable::parse("s/table").unwrap()).unwrap();
    assert_eq!(table.get("a").unwrap(), None);
    let version = table.put("a", "1").unwrap();
    assert_eq!(table.put_if_absent("a", "2").unwrap_err().kind(), ErrorKind::Conflict);
    let next = table.replace("a", "2", version).unwrap();
    assert_eq!(table.replace("a", "3", version).unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(table.get("a").unwrap(), Some((Bytes::from("2"), next)));
    assert_eq!(table.update(Vec::new()).unwrap_err().kind(), ErrorKind::Invalid);
    for from in (0..2500).step_by(250) {
        let puts = (from..from + 250).map(|number| Put::new(format!("k{number}"), number.to_string()));
        assert_eq!(table.update(puts.collect()).unwrap().len(), 250);
    }
    table.remove("a").unwrap();
    let mut keys: Vec<_> = table.entries().map(|entry| entry.unwrap().key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2500, "over several pages");
}

#[test]
fn bytes_are_a_file_of_the_standard_library() {
    let served = Served::start();
    let (client, stream) = (&served.client, served.stream(1));
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let mut writer = client.byte_writer(&stream, Default::default()).unwrap();
    writer.write_all(&data).unwrap();
    writer.flush().unwrap();
    assert_eq!(writer.tail().unwrap(), 3_000_000);
    let mut reader = client.byte_reader(&stream, 0).unwrap();
    let mut found = vec![0; 1_500_000];
    reader.read_exact(&mut found).unwrap();
    assert_eq!(reader.offset(), 1_500_000);
    writer.seal().unwrap();
    reader.read_to_end(&mut found).unwrap();
    assert!(found == data);
    assert_eq!(reader.next_within(Duration::from_secs(20)).unwrap(), Waited::End);
    assert!(writer.write(b"more").and_then(|_| writer.flush()).is_err());
    writer.truncate(1000).unwrap();
    reader.seek_to(0);
    let gone = reader.read(&mut [0; 10]).unwrap_err();
    assert!(gone.to_string().contains("begins at 1000"), "{gone}");
    reader.seek_to(2_999_999);
    assert_eq!((reader.read(&mut [0; 10]).unwrap(), reader.tail().unwrap()), (1, 3_000_000));
}

#[test]
fn inside_a_runtime_every_call_is_refused_and_nothing_panics() {
    let served = Served::start();
    let (client, stream) = (&served.client, served.stream(1));
    let mut writer = client.event_writer(&stream, EventWriterOptions::default()).unwrap();
    let mut reader = client.stream_reader(&stream, ReadFrom::Head).unwrap();
    let mut bytes = client.byte_reader(&stream, 0).unwrap();
    let ack = writer.write("a", "one").unwrap();
    let address = served.store.address();
    let asked = stream.clone();
    served.runtime.block_on(async move {
        let refused = |error: headwater_client::Error| {
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
            assert!(error.to_string().contains("Tokio runtime"), "{error}");
        };
        refused(Client::connect(&address).unwrap_err());
        refused(Client::over(client.asynchronous().clone()).unwrap_err());
        refused(client.run(client.asynchronous().scopes()).unwrap_err());
        refused(client.event_writer(&asked, EventWriterOptions::default()).unwrap_err());
        refused(writer.write("a", "two").unwrap_err());
        refused(writer.flush().unwrap_err());
        refused(ack.wait().unwrap_err());
        refused(reader.next().unwrap_err());
        refused(reader.next_within(Duration::ZERO).unwrap_err());
        let error = bytes.read(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
        let client = client.clone();
        let elsewhere = tokio::task::spawn_blocking(move || client.run(client.asynchronous().scopes()));
        refused(elsewhere.await.unwrap().unwrap_err());
        // Dropped here, with all they have.
        drop((writer, reader, bytes));
    });
    assert!(client.run(client.asynchronous().scopes()).unwrap().contains(&stream.scope), "outside all is as before");
}

/// Sockets, and something that is gone when the client is.
#[derive(Debug)]
struct Held(#[allow(dead_code, reason = "held, not used")] Arc<()>);

impl Transport for Held {
    fn connect(&self, _: Service, endpoint: &Endpoint) -> BoxFuture<'static, std::io::Result<Box<dyn Duplex>>> {
        let endpoint = endpoint.clone();
        Box::pin(async move {
            let socket = tokio::net::TcpStream::connect((endpoint.host(), endpoint.port())).await?;
            Ok(Box::new(socket) as Box<dyn Duplex>)
        })
    }
}

/// Sockets that take nothing from the client while the gate is shut.
#[derive(Debug)]
struct Gated(watch::Receiver<bool>);

impl Transport for Gated {
    fn connect(&self, _: Service, endpoint: &Endpoint) -> BoxFuture<'static, std::io::Result<Box<dyn Duplex>>> {
        let (endpoint, mut gate) = (endpoint.clone(), self.0.clone());
        Box::pin(async move {
            let socket = tokio::net::TcpStream::connect((endpoint.host(), endpoint.port())).await?;
            let (client, here) = tokio::io::duplex(4096);
            let (mut answers, mut requests) = socket.into_split();
            let (mut from_client, mut to_client) = tokio::io::split(here);
            tokio::spawn(async move { tokio::io::copy(&mut answers, &mut to_client).await });
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                loop {
                    let length = from_client.read(&mut piece).await?;
                    if length == 0 || gate.wait_for(|is_open| *is_open).await.is_err() {
                        return Ok::<(), std::io::Error>(());
                    }
                    requests.write_all(&piece[..length]).await?;
                }
            });
            Ok(Box::new(client) as Box<dyn Duplex>)
        })
    }
}

#[test]
fn who_does_not_want_to_wait_for_room_hands_over_nothing() {
    let served = Served::start();
    let stream = served.stream(1);
    let (gate, is_open) = watch::channel(true);
    let options = ClientOptions::new(&served.store.address()).unwrap().transport(Arc::new(Gated(is_open)));
    let client = Client::with(options).unwrap();
    let options = EventWriterOptions::default().window_bytes(64 << 10);
    let mut writer = client.event_writer(&stream, options).unwrap();
    writer.write("a", "first").unwrap().wait().unwrap();
    gate.send_replace(false);
    let fills = "x".repeat(100_000);
    let long = Duration::from_secs(20);
    let mut ack = writer.write_within(long, "a", fills.clone()).unwrap().expect("there is room for it");
    let short = Duration::from_millis(100);
    assert!(writer.write_within(short, "a", "never").unwrap().is_none());
    assert!(!writer.flush_within(short).unwrap());
    assert_eq!(ack.wait_within(short).unwrap(), None);
    gate.send_replace(true);
    drop(writer.write_within(long, "a", "last").unwrap().expect("there is room again"));
    assert!(writer.flush_within(long).unwrap());
    ack.wait().unwrap();
    assert_eq!(served.runtime.block_on(served.store.read_all(&stream)), ["first", &*fills, "last"]);
}

#[test]
fn the_last_handle_ends_everything_wherever_it_is_dropped() {
    let served = Served::start();
    let stream = served.stream(1);
    for is_inside in [false, true] {
        let held = Arc::new(());
        let transport = Arc::new(Held(held.clone()));
        let options = ClientOptions::new(&served.store.address()).unwrap().transport(transport);
        let client = Client::with(options).unwrap();
        let mut writer = client.event_writer(&stream, EventWriterOptions::default()).unwrap();
        drop(client);
        writer.write("a", "the writer has what it needs").unwrap().wait().unwrap();
        if is_inside {
            served.runtime.block_on(async move { drop(writer) });
        } else {
            drop(writer);
        }
        let begun = Instant::now();
        while Arc::strong_count(&held) > 1 {
            assert!(begun.elapsed() < Duration::from_secs(20), "its tasks go on, inside: {is_inside}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A listener that takes connections and never says a word, such as a server that was stopped with SIGSTOP.
fn silent() -> (std::net::TcpListener, String) {
    // The system takes connections for it.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    (listener, address)
}

#[test]
fn calls_end_in_time_when_a_server_is_silent() {
    let (_listener, address) = silent();
    // What is left for the last attempt, not the usual 30 s.
    let options = ClientOptions::new(&address).unwrap().retry_for(Duration::from_secs(2));
    let client = Client::with(options).unwrap();
    let begun = Instant::now();
    let error = client.run(client.asynchronous().scopes()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() >= Duration::from_secs(2), "it gave up after {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
}

#[test]
fn calls_end_in_time_when_nobody_answers() {
    let options = ClientOptions::new("tcp://127.0.0.1:1").unwrap().retry_for(Duration::from_millis(300));
    let client = Client::with(options).unwrap();
    let begun = Instant::now();
    let stream = ScopedStream::parse("s/t").unwrap();
    let error = client.event_writer(&stream, EventWriterOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let patient = Client::connect("tcp://127.0.0.1:1").unwrap();
    let begun = Instant::now();
    let config = StreamConfig::fixed(1);
    let made = patient.run_within(Duration::from_millis(200), patient.asynchronous().create_stream(&stream, &config));
    assert_eq!(made.unwrap(), None);
    assert!(begun.elapsed() < Duration::from_secs(20));
}
