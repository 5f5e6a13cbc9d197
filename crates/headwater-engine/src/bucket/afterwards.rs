//! What follows a checkpoint that is durable: its copy in the bucket, and then the end of the chunks it gave up.

use std::sync::Arc;

use crate::catalogue::Manifest;
use crate::chunks::Chunks;
use crate::error::StoreError;
use crate::io::Disk;

use super::Bucket;

/// Chunks that no checkpoint names, by container, and the bucket if there is one. Without a bucket they go at once.
pub(crate) struct Afterwards {
    bucket: Option<Bucket>,
    /// By container: `Some` if a copy is due, with the chunks that go after it.
    due: Vec<Option<Vec<u64>>>,
}

impl Afterwards {
    /// A checkpoint that the process before this one did not copy is due.
    pub(crate) fn new(bucket: Option<Bucket>, manifests: &[Manifest]) -> Self {
        let is_due = |container: u32, manifest: &Manifest| {
            bucket.as_ref().is_some_and(|bucket| !bucket.has(container, manifest.position.sequence))
        };
        let due = (0..).zip(manifests).map(|(id, manifest)| is_due(id, manifest).then(Vec::new)).collect();
        Self { bucket, due }
    }

    /// A checkpoint is durable, and names these chunks no more.
    pub(crate) fn checkpointed(&mut self, container: u32, dead: Vec<u64>, chunks: &Chunks) {
        match &self.bucket {
            None => chunks.give_up(dead),
            Some(_) => self.due[container as usize].get_or_insert_default().extend(dead),
        }
    }

    /// Makes the copies that are due.
    ///
    /// # Errors
    /// Those of [`Bucket::copy`]; what is still due stays so.
    pub(crate) fn settle(&mut self, disk: &dyn Disk, now: i64, chunks: &[Arc<Chunks>]) -> Result<(), StoreError> {
        let Some(bucket) = &mut self.bucket else { return Ok(()) };
        for (container, due) in (0..).zip(&mut self.due) {
            if due.is_some() {
                bucket.copy(disk, container, now)?;
                chunks[container as usize].give_up(due.take().unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Copies that are due.
    pub(crate) fn due(&self) -> u64 {
        self.due.iter().flatten().count() as u64
    }
}
