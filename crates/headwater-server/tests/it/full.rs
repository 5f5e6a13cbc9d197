//! A disk without room: what waits, what goes on, and how it ends.

use std::io::{ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_engine::io::{Disk, File, RealDisk};
use headwater_wire::Reply;
use tokio::io::AsyncReadExt;

use crate::client::{SEGMENT, Store, read};

/// A real disk that has no room while it is told so.
struct Quota {
    disk: RealDisk,
    is_full: Arc<AtomicBool>,
}

struct QuotaFile {
    file: Arc<dyn File>,
    is_full: Arc<AtomicBool>,
}

impl QuotaFile {
    /// What is allocated already takes no more room.
    fn check(&self, end: u64) -> Result<()> {
        let grows = end > self.file.length()?;
        if grows && self.is_full.load(Ordering::SeqCst) { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Quota {
    fn wrap(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(QuotaFile { file, is_full: self.is_full.clone() })
    }
}

impl Disk for Quota {
    fn create(&self, path: &str) -> Result<Arc<dyn File>> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(self.wrap(self.disk.create(path)?))
    }

    fn open(&self, path: &str) -> Result<Arc<dyn File>> {
        Ok(self.wrap(self.disk.open(path)?))
    }

    fn open_direct(&self, path: &str) -> Result<Arc<dyn File>> {
        Ok(self.wrap(self.disk.open_direct(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.disk.remove(path)
    }

    fn list(&self, directory: &str) -> Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create_directory(&self, directory: &str) -> Result<()> {
        self.disk.create_directory(directory)
    }

    fn sync_directory(&self, directory: &str) -> Result<()> {
        self.disk.sync_directory(directory)
    }
}

impl File for QuotaFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check(offset + data.len() as u64)?;
        self.file.write_at(offset, data)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    fn write_durable(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.check(offset + data.len() as u64)?;
        self.file.write_durable(offset, data)
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.check(length)?;
        self.file.set_length(length)
    }

    fn allocate(&self, length: u64) -> Result<()> {
        self.check(length)?;
        self.file.allocate(length)
    }

    fn length(&self) -> Result<u64> {
        self.file.length()
    }
}

#[tokio::test]
async fn an_append_that_waits_a_minute_for_room_on_the_disk_ends_its_connection_and_is_not_lost() {
    let is_full = Arc::new(AtomicBool::new(false));
    let full = is_full.clone();
    let store = Store::open_on(move |root| Arc::new(Quota { disk: RealDisk::new(root), is_full: full })).await;
    let (mut client, mut reader) = (store.client().await, store.client().await);
    client.create(SEGMENT).await;
    client.set_up(1, SEGMENT).await;
    let data = vec![7; 1 << 20];
    assert!(matches!(client.append(1, 1, &data).await, Reply::DataAppended { .. }));
    is_full.store(true, Ordering::SeqCst);
    // Memory and what is left of the journal take some more: nothing, if the journal's reserve was not whole yet.
    let mut acknowledged = 1;
    // Slow is not full: only what the engine says it holds back will never be acknowledged.
    let is_held = || {
        let metrics = store.engine.metrics().values;
        store.engine.is_full() && metrics.iter().any(|(name, value)| *name == "requests_held" && *value > 0)
    };
    loop {
        client.put_append(1, acknowledged + 1, &data);
        client.send().await;
        let mut looks = 0;
        let answer = loop {
            match tokio::time::timeout(Duration::from_millis(100), client.next()).await {
                Ok(answer) => break Some(answer),
                Err(_) if is_held() => break None,
                Err(_) => looks += 1,
            }
            assert!(looks < 600, "an append is neither acknowledged nor held back");
        };
        match answer {
            Some(Some(Reply::DataAppended { event_number, .. })) => acknowledged = event_number,
            Some(other) => panic!("{other:?}"),
            None => break,
        }
        assert!(acknowledged < 1_000, "the disk does not fill up");
    }
    for part in [0, acknowledged - 1] {
        match reader.ask(read(SEGMENT, part << 20, 1 << 20, 5)).await {
            Reply::SegmentRead { data: found, .. } => assert!(found == data, "what is acknowledged can be read"),
            other => panic!("{other:?}"),
        }
    }

    tokio::time::pause();
    let begun = tokio::time::Instant::now();
    assert_eq!(client.socket.read_to_end(&mut Vec::new()).await.unwrap(), 0, "nothing more is acknowledged");
    let waited = begun.elapsed();
    assert!((50..100).contains(&waited.as_secs()), "{waited:?}");
    tokio::time::resume();

    is_full.store(false, Ordering::SeqCst);
    let mut client = store.client().await;
    assert_eq!(client.set_up(1, SEGMENT).await, acknowledged + 1, "the stored number tells that it happened");
    assert!(matches!(client.append(1, acknowledged + 2, b"after").await, Reply::DataAppended { .. }));
}
