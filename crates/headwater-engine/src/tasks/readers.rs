//! Threads that read chunks for clients that are catching up, so that no container waits for the disk on their behalf.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::OnFatal;
use crate::api::Refusal;
use crate::chunks::Chunks;
use crate::container::ColdOutcome;
use crate::error::StoreError;

use super::{ContainerInput, Figures, ReadInput, start};

/// Reads under way at a time. The disk serves more in parallel, the two cores of a small machine do not.
const READERS: usize = 2;

/// Starts the readers; they end when the last container has ended.
pub(crate) fn start_readers(
    inbox: Receiver<ReadInput>,
    containers: &[Sender<ContainerInput>],
    chunks: &[Arc<Chunks>],
    figures: &Arc<Figures>,
    fatal: &OnFatal,
) -> Vec<JoinHandle<()>> {
    let inbox = Arc::new(Mutex::new(inbox));
    (0..READERS)
        .map(|number| {
            let (inbox, containers, chunks) = (inbox.clone(), containers.to_vec(), chunks.to_vec());
            let figures = figures.clone();
            start(format!("reader-{number}"), fatal.clone(), move || {
                read_all(&inbox, &containers, &chunks, &figures);
                Ok::<(), StoreError>(())
            })
        })
        .collect()
}

fn read_all(
    inbox: &Mutex<Receiver<ReadInput>>,
    containers: &[Sender<ContainerInput>],
    chunks: &[Arc<Chunks>],
    figures: &Figures,
) {
    loop {
        let received = inbox.lock().expect("no reader panics while it waits").recv();
        let Ok((container, read)) = received else { return };
        match read.run(&chunks[container as usize]) {
            ColdOutcome::Answer(answer, outcome) => answer.send(outcome),
            ColdOutcome::Again(again) => {
                let _ = containers[container as usize].send(ContainerInput::ReadAgain(again));
            }
            ColdOutcome::Damaged(answer, error) => {
                figures.damaged_reads.fetch_add(1, Relaxed);
                tracing::error!(%error, "stored bytes cannot be served");
                answer.send(Err(Refusal::Damaged));
            }
        }
    }
}
