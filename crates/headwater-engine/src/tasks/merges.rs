//! Merges of catalogues, a slice at a time between the keeper's other work.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::catalogue::{Manifest, Merge};
use crate::error::StoreError;
use crate::io::Disk;

use super::{ContainerInput, Figures, SharedContainer};

/// The merges under way, at most one per container.
pub(crate) struct Merges {
    running: Vec<Option<Merge>>,
    /// Whether a catalogue may need one: it has changed since it was last looked at.
    asked: Vec<bool>,
    next: usize,
}

impl Merges {
    /// For so many containers.
    pub(crate) fn new(containers: usize) -> Self {
        Self { running: (0..containers).map(|_| None).collect(), asked: vec![true; containers], next: 0 }
    }

    /// A container's catalogue has another run.
    pub(crate) fn ask(&mut self, container: usize) {
        self.asked[container] = true;
    }

    /// Does one slice of one merge. False: there is nothing to merge.
    pub(crate) fn slice(
        &mut self,
        disk: &dyn Disk,
        manifests: &mut [Manifest],
        containers: &[Arc<SharedContainer>],
        figures: &Figures,
    ) -> Result<bool, StoreError> {
        let count = self.running.len();
        for turn in 0..count {
            let container = (self.next + turn) % count;
            let manifest = &mut manifests[container];
            if self.running[container].is_none() && std::mem::take(&mut self.asked[container]) {
                self.running[container] = match Merge::begin(disk, manifest) {
                    Err(error) if error.is_full() => None,
                    begun => begun?,
                };
            }
            let Some(mut merge) = self.running[container].take() else { continue };
            self.next = container + 1;
            let number = merge.number();
            let finished = match merge.step() {
                Ok(false) => {
                    self.running[container] = Some(merge);
                    return Ok(true);
                }
                Ok(true) => merge.finish(disk, manifest),
                Err(error) => Err(error),
            };
            match finished {
                Ok(installed) => {
                    figures.merges.fetch_add(1, Relaxed);
                    self.asked[container] = true;
                    containers[container].send(ContainerInput::Merged(installed));
                }
                // The next checkpoint asks again.
                Err(error) if error.is_full() => Merge::abandon(disk, manifest, number),
                Err(error) => return Err(error),
            }
            return Ok(true);
        }
        Ok(false)
    }
}
