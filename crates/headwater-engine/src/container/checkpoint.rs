//! Moving what the journal holds to where it will stay, so that the journal can be given up.
//!
//! A freeze fixes one operation number: the catalogue's hot map and the bytes that no chunk has, both as of that
//! operation. They are written away from the container ([`CheckpointJob::run`]) while it goes on. When that is durable,
//! the container learns where the bytes are. Segments may have been merged, truncated or deleted meanwhile; replaying
//! those operations after a crash changes the checkpoint's entries in the same way.

use std::collections::BTreeMap;

use crate::canary;
use crate::catalogue::{Checkpoint, Entries, Installed, Manifest, Position};
use crate::chunks::{Chunks, Piece, Place, StoredPiece, Written};
use crate::error::StoreError;
use crate::io::Disk;

use super::compact::{self, Compaction};
use super::keys::{self, StoredRun};
use super::{Container, Effects, Token};

/// A checkpoint that is being written.
pub(super) struct Running {
    /// Segments merged since the freeze: where their bytes are now.
    pub(super) moved: BTreeMap<u64, (u64, u64)>,
}

impl Running {
    /// Where the bytes at a segment's offset are now.
    pub(super) fn position_of(&self, mut segment: u64, mut start: u64) -> (u64, u64) {
        while let Some((target, offset)) = self.moved.get(&segment) {
            (segment, start) = (*target, start + offset);
        }
        (segment, start)
    }
}

/// What is to be written.
pub(crate) struct CheckpointJob {
    pub(crate) container: u32,
    pub(crate) position: Position,
    catalogue: Checkpoint,
    pieces: Vec<Piece>,
    /// Chunks that this checkpoint no longer names.
    dead_chunks: Vec<u64>,
    bounds: compact::Bounds,
}

/// What was written and is durable.
pub(crate) struct CheckpointDone {
    pub(crate) position: Position,
    installed: Installed,
    stored: Vec<StoredPiece>,
    /// Pieces that left mostly dead chunks, and where they were.
    moved: Vec<(StoredPiece, Place)>,
    /// The chunks they left.
    compacted: Vec<u64>,
}

impl CheckpointJob {
    /// Writes everything and makes it durable. Every operation it includes must be durable in the journal.
    ///
    /// # Errors
    /// A full disk among others: nothing is lost then, the journal still has everything.
    pub(crate) fn run(
        &mut self,
        disk: &dyn Disk,
        manifest: &mut Manifest,
        store: &Chunks,
        pause: &mut dyn FnMut(),
    ) -> Result<CheckpointDone, StoreError> {
        if canary::is(34) {
            store.give_up(self.dead_chunks.iter().copied());
            while store.reap(&mut || ()) {}
        }
        let first = self.position.next_chunk;
        let written = self.write(disk, manifest, store, pause);
        match &written {
            // Another attempt takes new numbers; the room of this one may be what it lacks.
            Err(error) if error.is_passing() => {
                store.give_up(first..self.position.next_chunk);
                // Nor does it move what it need not.
                self.bounds.moved_bytes_max = 0;
            }
            Ok(_) | Err(_) => {}
        }
        written
    }

    /// Chunks that the checkpoint, once it is durable, does not name any more.
    pub(crate) fn take_dead_chunks(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.dead_chunks)
    }

    fn write(
        &mut self,
        disk: &dyn Disk,
        manifest: &mut Manifest,
        store: &Chunks,
        pause: &mut dyn FnMut(),
    ) -> Result<CheckpointDone, StoreError> {
        let written = store.write(&mut self.position.next_chunk, &self.pieces, pause)?;
        let compaction = compact::choose(&self.catalogue, store, self.bounds)?;
        let (compaction, moved) = self.write_moved(compaction, store, pause)?;
        let mut additions = Entries::new();
        for piece in written.pieces.iter().chain(&moved.pieces) {
            let run = StoredRun { start: piece.start, end: piece.start + piece.length, place: piece.place };
            additions.insert(keys::piece(piece.segment, run.end), Some(run.encode()));
        }
        for (chunk, bytes) in written.sizes.into_iter().chain(moved.sizes) {
            additions.insert(keys::chunk(chunk), Some(keys::number(bytes)));
        }
        for chunk in &compaction.chunks {
            additions.insert(keys::chunk(*chunk), None);
        }
        let installed = self.catalogue.write(disk, manifest, self.position, &additions)?;
        let moved = moved.pieces.into_iter().zip(compaction.places).collect();
        let (stored, compacted) = (written.pieces, compaction.chunks);
        Ok(CheckpointDone { position: self.position, installed, stored, moved, compacted })
    }

    /// Writes what leaves mostly dead chunks. A disk that has no room for it keeps them as they are: the checkpoint is
    /// what frees the journal.
    fn write_moved(
        &mut self,
        compaction: Compaction,
        store: &Chunks,
        pause: &mut dyn FnMut(),
    ) -> Result<(Compaction, Written), StoreError> {
        let first = self.position.next_chunk;
        match store.write(&mut self.position.next_chunk, &compaction.pieces, pause) {
            Ok(moved) => {
                assert_eq!(moved.pieces.len(), compaction.places.len(), "pieces of less than a chunk are not cut");
                Ok((compaction, moved))
            }
            Err(error) if error.is_passing() => {
                store.give_up(first..self.position.next_chunk);
                Ok((Compaction::default(), Written::default()))
            }
            Err(error) => Err(error),
        }
    }
}

impl<T: Token> Container<T> {
    /// Sets aside what the next checkpoint will hold.
    pub(super) fn freeze(&mut self, effects: &mut Effects<T>) -> Result<(), StoreError> {
        assert!(self.running.is_none() && self.frozen_job.is_none(), "one checkpoint at a time");
        let mut pieces: Vec<Piece> = Vec::new();
        self.frees_room = false;
        self.dirty = 0;
        for (id, segment) in &mut self.segments {
            if segment.dirty {
                self.catalogue.put(keys::segment(*id), segment.encode());
                segment.dirty = false;
            }
            for (attribute, value) in std::mem::take(&mut segment.attributes) {
                let key = keys::attribute(*id, attribute);
                if value == headwater_types::attribute::NULL || canary::is(10) {
                    self.catalogue.remove(key);
                } else {
                    self.catalogue.put(key, value.to_be_bytes().to_vec());
                }
            }
            for (start, extent) in segment.extents.iter().filter(|(_, extent)| !extent.stored) {
                let length = extent.bytes.len() as u64;
                match pieces.last_mut() {
                    Some(piece) if piece.segment == *id && piece.start + piece.length == *start => {
                        piece.length += length;
                        piece.parts.push(extent.bytes.clone());
                    }
                    _ => pieces.push(Piece { segment: *id, start: *start, length, parts: vec![extent.bytes.clone()] }),
                }
            }
        }
        let job = CheckpointJob {
            container: self.id,
            position: Position {
                sequence: self.sequence,
                next_segment: self.next_segment,
                next_chunk: self.next_chunk,
            },
            catalogue: Checkpoint { runs: self.catalogue.snapshot(), frozen: self.catalogue.freeze() },
            pieces,
            dead_chunks: std::mem::take(&mut self.dead_chunks),
            bounds: compact::Bounds {
                moved_bytes_max: self.limits.compacted_bytes_max,
                freed_bytes_min: self.limits.compaction_frees_min,
            },
        };
        self.running = Some(Running { moved: BTreeMap::new() });
        if job.position.sequence <= self.durable {
            effects.checkpoint = Some(job);
        } else {
            self.frozen_job = Some(job);
        }
        Ok(())
    }

    /// A checkpoint is durable.
    pub(crate) fn checkpoint_done(&mut self, done: CheckpointDone, effects: &mut Effects<T>) -> Result<(), StoreError> {
        let running = self.running.take().expect("a checkpoint ends that was begun");
        let needed = self.needed_of(&done.compacted)?;
        self.catalogue.install(done.installed);
        self.checkpointed = done.position.sequence;
        self.next_chunk = done.position.next_chunk;
        for piece in done.stored {
            self.piece_stored(&running, &piece)?;
        }
        self.pieces_moved(&running, &done.moved, needed)?;
        self.answer_flushes(effects)?;
        self.evict();
        Ok(())
    }

    /// Brings a stored piece to where its segment's bytes have gone since the freeze.
    fn piece_stored(&mut self, running: &Running, piece: &StoredPiece) -> Result<(), StoreError> {
        let (id, start) = running.position_of(piece.segment, piece.start);
        let end = start + piece.length;
        let is_moved = id != piece.segment;
        let is_needed = self.load(id)? && self.segment(id).start < end;
        if is_moved || !is_needed {
            self.catalogue.remove(keys::piece(piece.segment, piece.start + piece.length));
        }
        if !is_needed {
            return self.release_chunk(piece.place.chunk, piece.length);
        }
        if is_moved {
            let run = StoredRun { start, end, place: piece.place };
            self.catalogue.put(keys::piece(id, end), run.encode());
        }
        let segment = self.segments.get_mut(&id).expect("it was just loaded");
        for (at, extent) in segment.extents.range_mut(start..end) {
            assert!(!extent.stored, "bytes are stored once");
            extent.stored = true;
            self.unstored_bytes -= extent.cost();
            self.cached_bytes += extent.cost();
            self.cached.push_back((id, *at));
        }
        Ok(())
    }
}
