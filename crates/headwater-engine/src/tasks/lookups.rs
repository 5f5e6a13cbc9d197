//! Threads that look things up for containers, so that none of these waits for the disk.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::OnFatal;
use crate::chunks::Chunks;
use crate::container::Found;
use crate::error::StoreError;

use super::{ContainerInput, Figures, LookupInput, SharedContainer, start};

/// Look-ups under way at a time. They are short, and apart from the readers so that nobody who catches up is before them.
const THREADS: usize = 4;

/// Starts the threads; they end when the last container has ended.
pub(crate) fn start_lookups(
    inbox: Receiver<LookupInput>,
    containers: &[Arc<SharedContainer>],
    chunks: &[Arc<Chunks>],
    figures: &Arc<Figures>,
    fatal: &OnFatal,
) -> Vec<JoinHandle<()>> {
    let inbox = Arc::new(Mutex::new(inbox));
    let one = |number| {
        let (inbox, containers, chunks) = (inbox.clone(), containers.to_vec(), chunks.to_vec());
        let figures = figures.clone();
        start(format!("lookup-{number}"), fatal.clone(), move || look_up_all(&inbox, &containers, &chunks, &figures))
    };
    (0..THREADS).map(one).collect()
}

fn look_up_all(
    inbox: &Mutex<Receiver<LookupInput>>,
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
