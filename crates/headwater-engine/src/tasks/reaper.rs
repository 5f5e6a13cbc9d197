//! The thread that deletes chunks, slowly: freeing much of a file system at once delays every commit on it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::OnFatal;
use crate::chunks::Chunks;
use crate::error::StoreError;

use super::start;

/// Between two steps of a deletion, each of which frees a few mebibytes.
const PAUSE: Duration = Duration::from_millis(6);
/// Between two looks for something to delete.
const TURN: Duration = Duration::from_millis(200);

/// Starts the reaper; it ends when the other end of `closing` is dropped. What it has not deleted then is deleted after
/// the next start.
pub(crate) fn start_reaper(chunks: Vec<Arc<Chunks>>, closing: Receiver<()>, fatal: OnFatal) -> JoinHandle<()> {
    start("reaper".into(), fatal, move || {
        let is_open = |pause| closing.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
        while is_open(TURN) {
            let mut pause = || {
                let _ = is_open(PAUSE);
            };
            for container in &chunks {
                while is_open(Duration::ZERO) && container.reap(&mut pause) {}
            }
        }
        Ok::<(), StoreError>(())
    })
}
