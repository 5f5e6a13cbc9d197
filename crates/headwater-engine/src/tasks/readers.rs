//! Threads that read chunks for clients that are catching up, so that no container waits for the disk on their behalf.
//!
//! ```text
//!   container ─► reader ─► block cache ─► reply
//!                   │          ▲
//!                   └─► ahead ─┘      a reader that goes on where it stopped finds the next blocks in memory
//! ```

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::OnFatal;
use crate::chunks::{Chunks, Stretch};
use crate::container::ColdOutcome;
use crate::error::StoreError;

use super::{ContainerInput, Figures, ReadInput, SharedContainer, start};

/// Reads under way at a time. The disk serves more in parallel, the two cores of a small machine do not.
const READERS: usize = 2;
/// Stretches that may wait to be fetched ahead; readers beyond wait for their reads themselves.
const AHEAD_QUEUE: usize = 256;
/// Places where readers stopped that are remembered.
const STREAMS_MAX: usize = 1024;

/// What to fetch before it is asked for: container and a stretch of one of its chunks.
type AheadInput = (u32, Stretch);

/// Starts the readers; they end when the last container has ended.
pub(crate) fn start_readers(
    inbox: Receiver<ReadInput>,
    containers: &[Arc<SharedContainer>],
    chunks: &[Arc<Chunks>],
    figures: &Arc<Figures>,
    fatal: &OnFatal,
) -> Vec<JoinHandle<()>> {
    let inbox = Arc::new(Mutex::new(inbox));
    let streams = Arc::new(Mutex::new(Streams::default()));
    let (ahead, ahead_inbox) = sync_channel(AHEAD_QUEUE);
    let ahead_inbox = Arc::new(Mutex::new(ahead_inbox));
    let mut threads = Vec::new();
    let parallel = chunks.iter().map(|chunks| chunks.objects().parallel()).max().unwrap_or(1);
    for number in 0..READERS.max(parallel) {
        let reader = Reader {
            inbox: inbox.clone(),
            containers: containers.to_vec(),
            chunks: chunks.to_vec(),
            streams: streams.clone(),
            ahead: ahead.clone(),
            figures: figures.clone(),
        };
        threads.push(start(format!("reader-{number}"), fatal.clone(), move || {
            reader.run();
            Ok::<(), StoreError>(())
        }));
    }
    for number in 0..parallel {
        let (inbox, chunks) = (ahead_inbox.clone(), chunks.to_vec());
        threads.push(start(format!("ahead-{number}"), fatal.clone(), move || {
            fetch_all(&inbox, &chunks);
            Ok::<(), StoreError>(())
        }));
    }
    threads
}

struct Reader {
    inbox: Arc<Mutex<Receiver<ReadInput>>>,
    containers: Vec<Arc<SharedContainer>>,
    chunks: Vec<Arc<Chunks>>,
    streams: Arc<Mutex<Streams>>,
    ahead: SyncSender<AheadInput>,
    figures: Arc<Figures>,
}

impl Reader {
    fn run(self) {
        loop {
            let received = self.inbox.lock().expect("no reader panics while it waits").recv();
            let Ok((container, mut read)) = received else { return };
            let (segment, from, to) = read.range();
            let goes_on = self.streams.lock().expect("no reader panics here").goes_on((container, segment), from, to);
            let ahead = if goes_on { read.take_ahead() } else { Vec::new() };
            for stretch in ahead.into_iter().flat_map(Stretch::blocks) {
                // Its reader will wait for the disk itself.
                if self.ahead.try_send((container, stretch)).is_err() {
                    break;
                }
            }
            match read.run(&self.chunks[container as usize]) {
                ColdOutcome::Answer(answer, outcome) => answer.send(outcome),
                ColdOutcome::Again(again) => {
                    self.containers[container as usize].send(ContainerInput::ReadAgain(again));
                }
                ColdOutcome::Failed(answer, error) => {
                    self.figures.note_failed_read(&error);
                    answer.send(Err(error.refusal()));
                }
            }
        }
    }
}

fn fetch_all(inbox: &Mutex<Receiver<AheadInput>>, chunks: &[Arc<Chunks>]) {
    loop {
        let received = inbox.lock().expect("no reader panics while it waits").recv();
        let Ok((container, stretch)) = received else { return };
        // Whoever reads it will meet the same error and answer for it.
        let _ = chunks[container as usize].fetch_ahead(stretch);
    }
}

/// Where readers stopped, to know those that go on.
#[derive(Default)]
struct Streams {
    turn: u64,
    /// Container and segment, and the byte behind the last one read; with the time.
    ends: BTreeMap<((u32, u64), u64), u64>,
}

impl Streams {
    /// Notes a read, and tells whether one before it ended where this begins.
    fn goes_on(&mut self, segment: (u32, u64), from: u64, to: u64) -> bool {
        self.turn += 1;
        let goes_on = self.ends.remove(&(segment, from)).is_some();
        self.ends.insert((segment, to), self.turn);
        if self.ends.len() > STREAMS_MAX {
            // Rare, since readers that go on take the place of themselves.
            let middle = self.turn.saturating_sub(STREAMS_MAX as u64 / 2);
            self.ends.retain(|_, turn| *turn > middle);
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_known_by_where_it_stopped() {
        let mut streams = Streams::default();
        assert!(!streams.goes_on((0, 1), 0, 10));
        assert!(!streams.goes_on((0, 1), 50, 60));
        assert!(!streams.goes_on((0, 2), 10, 20));
        assert!(streams.goes_on((0, 1), 10, 20));
        assert!(streams.goes_on((0, 1), 60, 70));
        assert!(!streams.goes_on((0, 1), 10, 20), "it has moved on");
    }

    #[test]
    fn a_million_places_take_no_more_memory_than_a_thousand() {
        let mut streams = Streams::default();
        for offset in 0..10_000 {
            streams.goes_on((0, 1), offset * 10, offset * 10 + 5);
            assert!(streams.ends.len() <= STREAMS_MAX);
        }
        assert!(streams.goes_on((0, 1), 99_995, 100_000));
    }
}
