//! One container: its manifest, its runs, what they say, its chunks.

use std::collections::BTreeSet;

use crate::bucket::BucketCheck;
use crate::catalogue::{self, Catalogue, RunCache, StoredManifest};
use crate::chunks;
use crate::container::{self, Contents};
use crate::error::{IoContext, StoreError};
use crate::io::Objects;

use super::{Check, Finding, RUN_CACHE_BYTES};

/// Stretches of chunks whose owners are looked up; a disk that lost more has lost its store.
const STRETCHES_MAX: usize = 10_000;

impl Check<'_> {
    /// True if the container is sound as far as its checkpoint goes.
    pub(super) fn container(&mut self, id: u32) -> Result<bool, StoreError> {
        let before = self.summary.doubts;
        let manifest = match StoredManifest::read(&*self.disk, id) {
            Ok(manifest) => manifest,
            Err(error @ StoreError::Newer { .. }) => return Err(error),
            Err(error) => {
                self.say(Finding::of_error(&error).of_container(id));
                self.chunks_of_nobody(id)?;
                return Ok(false);
            }
        };
        self.runs(id, &manifest)?;
        if self.summary.doubts > before || self.is_ended {
            self.chunks_of_nobody(id)?;
            return Ok(false);
        }
        let (catalogue, _) = catalogue::open(&*self.disk, id, &RunCache::new(RUN_CACHE_BYTES))?;
        let mut misfits = Vec::new();
        let contents = container::verify(&catalogue, &mut |misfit| misfits.push(misfit))?;
        for misfit in misfits {
            let mut finding = Finding::doubt("misfit", catalogue::manifest_path(id), misfit.what).of_container(id);
            finding.segment = misfit.segment;
            self.say(finding);
        }
        self.summary.segments += contents.segments;
        self.chunks(id, &catalogue, &contents)?;
        Ok(self.summary.doubts == before)
    }

    fn runs(&mut self, id: u32, manifest: &StoredManifest) -> Result<(), StoreError> {
        let disk = self.disk.clone();
        let place = catalogue::directory(id);
        let mut unnamed: BTreeSet<String> = disk.list(&place).on(&place, "list")?.into_iter().collect();
        unnamed.remove("manifest");
        for &number in &manifest.runs {
            let path = catalogue::run_path(id, number);
            unnamed.remove(path.rsplit('/').next().unwrap_or(&path));
            let run = match catalogue::open_run(&*disk, id, number, &RunCache::new(0)) {
                Ok(run) => run,
                Err(error @ StoreError::Newer { .. }) => return Err(error),
                Err(error) => {
                    self.say(Finding::of_error(&error).of_container(id));
                    continue;
                }
            };
            let mut bad = Vec::new();
            run.verify(&mut |bytes| self.has_read(bytes, &path), &mut |error| bad.push(error));
            for error in bad {
                self.say(Finding::of_error(&error).of_container(id));
            }
            if self.is_ended {
                return Ok(());
            }
        }
        for name in unnamed {
            let what = "no manifest names it: left by a process that was killed; the next start removes it";
            if name.ends_with(".run") || name == "manifest.next" {
                self.left_over(Finding::note("unreferenced", format!("{place}/{name}"), what).of_container(id));
            }
        }
        Ok(())
    }

    fn chunks(&mut self, id: u32, catalogue: &Catalogue, contents: &Contents) -> Result<(), StoreError> {
        let Some(objects) = self.objects.clone() else { return Ok(()) };
        let place = chunks::directory(id);
        let mut stretches = Vec::new();
        let mut errors = Vec::new();
        let found = self.chunks_there(&*objects, id)?;
        if self.bucket.is_some() {
            self.bytes_total += contents.chunks.values().map(|used| used.end).sum::<u64>();
        }
        for (&chunk, used) in &contents.chunks {
            let path = chunks::path_of(id, chunk);
            if !found.contains(&chunk) {
                stretches.push((chunk, 0..u64::MAX));
                errors.push(Finding::doubt(
                    "missing",
                    &path,
                    format!("chunk is missing, {} bytes of it are needed", used.pieces_bytes),
                ));
                continue;
            }
            self.summary.chunks += 1;
            let mut bad = Vec::new();
            let verified =
                chunks::verify(&*objects, id, chunk, &mut |bytes| self.has_read(bytes, &path), &mut |block| {
                    bad.push(block)
                });
            for block in bad {
                stretches.push((chunk, block.position..block.position + block.length));
                errors.push(Finding::of_error(&block.error));
            }
            match verified {
                Ok(length) if length < used.end => {
                    stretches.push((chunk, length..u64::MAX));
                    let what = format!("chunk has {length} bytes, pieces in it end at {}", used.end);
                    errors.push(Finding::doubt("misfit", &path, what));
                }
                Ok(_) => {}
                Err(error @ (StoreError::Newer { .. } | StoreError::Unreachable { .. })) => return Err(error),
                Err(error) => {
                    stretches.push((chunk, 0..u64::MAX));
                    errors.push(Finding::of_error(&error));
                }
            }
            if self.is_ended {
                break;
            }
        }
        self.blame(id, catalogue, &stretches, errors)?;
        for chunk in found.iter().filter(|chunk| !contents.chunks.contains_key(chunk)) {
            let what = "no manifest names it: left by a process that was killed; the next start removes it";
            let file = format!("{place}/{chunk:016}.chunk");
            let finding = Finding::note("unreferenced", file, what).of_container(id);
            match self.bucket {
                // No file that could be set aside.
                Some(_) => self.say(finding),
                None => self.left_over(finding),
            }
        }
        Ok(())
    }

    /// Says whose bytes are affected: one finding for each segment.
    fn blame(
        &mut self,
        id: u32,
        catalogue: &Catalogue,
        stretches: &[(u64, std::ops::Range<u64>)],
        errors: Vec<Finding>,
    ) -> Result<(), StoreError> {
        if errors.is_empty() {
            return Ok(());
        }
        let mut owned: Vec<Vec<(String, std::ops::Range<u64>)>> = vec![Vec::new(); stretches.len()];
        let looked_up = &stretches[..stretches.len().min(STRETCHES_MAX)];
        container::owners(catalogue, looked_up, &mut |at, segment, bytes| {
            // A whole packed chunk may belong to a hundred thousand segments.
            if owned[at].len() < STRETCHES_MAX {
                owned[at].push((segment, bytes));
            }
        })?;
        for (finding, owners) in errors.into_iter().zip(owned) {
            let finding = finding.of_container(id);
            if owners.is_empty() {
                let what = format!("{}; no segment needs these bytes", finding.what);
                self.say(Finding { what, ..finding });
                continue;
            }
            for (segment, bytes) in owners {
                let what = format!("{}; bytes {} to {} of the segment", finding.what, bytes.start, bytes.end);
                self.say(Finding { segment: Some(segment), what, ..finding.clone() });
            }
        }
        Ok(())
    }

    fn chunks_there(&mut self, objects: &dyn Objects, id: u32) -> Result<BTreeSet<u64>, StoreError> {
        let place = chunks::directory(id);
        let mut found = BTreeSet::new();
        for name in objects.list(&place)? {
            match chunks::number_of(&name) {
                Some(number) => _ = found.insert(number),
                // In a directory the inventory has said so.
                None if self.bucket.is_some() => self.foreign(id, format!("{place}/{name}")),
                None => {}
            }
        }
        Ok(found)
    }

    fn foreign(&mut self, id: u32, object: String) {
        let what = "no store makes an object of this name; move it away";
        self.say(Finding::doubt("foreign", object, what).of_container(id));
    }

    /// The copy of a container's catalogue in the bucket, from which an emptied directory begins.
    pub(super) fn copy(&mut self, store: u128, id: u32) -> Result<(), StoreError> {
        let Some(bucket) = self.bucket.clone() else { return Ok(()) };
        let check = BucketCheck::read(&bucket, store, id, &mut |bytes, place| self.has_read(bytes, place))?;
        for error in &check.bad {
            self.say(Finding::of_error(error).of_container(id));
        }
        for object in check.foreign {
            self.foreign(id, object);
        }
        for object in check.unneeded {
            let what = "the newest copy does not need it: left by a process that was killed; a later start removes it";
            self.say(Finding::note("unreferenced", object, what).of_container(id));
        }
        if !check.is_copied {
            let what = "has no copy in the bucket yet: an emptied directory would get nothing back of it";
            self.say(Finding::note("no-copy", catalogue::directory(id), what).of_container(id));
        }
        Ok(())
    }

    /// Chunks of a container whose catalogue cannot be believed: they are verified, whoever they belong to.
    fn chunks_of_nobody(&mut self, id: u32) -> Result<(), StoreError> {
        let Some(objects) = self.objects.clone() else { return Ok(()) };
        for chunk in self.chunks_there(&*objects, id)? {
            let path = chunks::path_of(id, chunk);
            self.summary.chunks += 1;
            let mut bad = Vec::new();
            let verified =
                chunks::verify(&*objects, id, chunk, &mut |bytes| self.has_read(bytes, &path), &mut |block| {
                    bad.push(block.error)
                });
            if let Err(error @ StoreError::Unreachable { .. }) = verified {
                return Err(error);
            }
            bad.extend(verified.err());
            for error in bad {
                self.say(Finding::of_error(&error).of_container(id));
            }
            if self.is_ended {
                break;
            }
        }
        Ok(())
    }
}
