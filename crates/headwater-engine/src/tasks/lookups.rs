//! Threads that look things up for containers, so that none of these waits for the disk.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::OnFatal;
use crate::chunks::Chunks;
use crate::container::{Found, Lookup};
use crate::error::StoreError;

use super::{Answer, ContainerInput, Figures, SharedContainer, start};

/// Look-ups of each kind under way at a time. They are short, and apart from the readers so that nobody who catches up is
/// before them.
const THREADS: usize = 4;

/// Something to be looked up and the container it belongs to.
type Input = (u32, Lookup<Answer>);

/// Where containers send what is to be looked up. What may need bytes of chunks has threads of its own: if these are in
/// storage that does not answer, nobody waits who only wants to know what the catalogue says.
#[derive(Clone)]
pub(crate) struct Lookups {
    catalogue: Sender<Input>,
    chunks: Sender<Input>,
}

/// What [`start_lookups`] takes it from.
pub(crate) struct LookupInboxes {
    catalogue: Receiver<Input>,
    chunks: Receiver<Input>,
}

impl Lookups {
    pub(crate) fn channel() -> (Self, LookupInboxes) {
        let ((catalogue, catalogue_inbox), (chunks, chunks_inbox)) = (channel(), channel());
        (Self { catalogue, chunks }, LookupInboxes { catalogue: catalogue_inbox, chunks: chunks_inbox })
    }

    pub(super) fn send(&self, container: u32, lookup: Lookup<Answer>) {
        let queue = if lookup.reads_chunks() { &self.chunks } else { &self.catalogue };
        // Threads that are gone met a fault and have told.
        let _ = queue.send((container, lookup));
    }
}

/// Starts the threads; they end when the last container has ended.
pub(crate) fn start_lookups(
    inboxes: LookupInboxes,
    containers: &[Arc<SharedContainer>],
    chunks: &[Arc<Chunks>],
    figures: &Arc<Figures>,
    fatal: &OnFatal,
) -> Vec<JoinHandle<()>> {
    let mut threads = Vec::new();
    for (name, inbox) in [("lookup", inboxes.catalogue), ("values", inboxes.chunks)] {
        let inbox = Arc::new(Mutex::new(inbox));
        threads.extend((0..THREADS).map(|number| {
            let (inbox, containers, chunks) = (inbox.clone(), containers.to_vec(), chunks.to_vec());
            let figures = figures.clone();
            let run = move || look_up_all(&inbox, &containers, &chunks, &figures);
            start(format!("{name}-{number}"), fatal.clone(), run)
        }));
    }
    threads
}

fn look_up_all(
    inbox: &Mutex<Receiver<Input>>,
    containers: &[Arc<SharedContainer>],
    chunks: &[Arc<Chunks>],
    figures: &Figures,
) -> Result<(), StoreError> {
    loop {
        let received = inbox.lock().expect("nobody panics while it waits").recv();
        let Ok((container, lookup)) = received else { return Ok(()) };
        match lookup.run(&chunks[container as usize])? {
            Found::Answer(answer, outcome) => answer.send(outcome),
            Found::Back(back) => containers[container as usize].send(ContainerInput::LookedUp(back)),
            Found::Failed(answer, error) => {
                figures.note_failed_read(&error);
                answer.send(Err(error.refusal()));
            }
            Found::Abandoned(error) => figures.note_failed_read(&error),
        }
    }
}
