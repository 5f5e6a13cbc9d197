//! Journal files that are ready to be used, and with them the room that a full disk must leave the store.
//!
//! A full disk stops what grows. It must not stop what makes it smaller: truncations and deletions are records, and what
//! they give up goes only after a checkpoint, which writes. So room for both is taken while there is some, in the shape
//! of journal files that nobody has used yet:
//!
//! * [`FOR_RECORDS`] files for what is under way when the disk turns out to be full, and for the records that free room
//! * [`FOR_START`] for the next start
//! * as many again as are in use: a checkpoint writes nothing that no file in use has, but for a little bookkeeping
//!
//! Invariants:
//! * while room is not low ([`Reserve::is_low`]) the files the reserve wants are there, allocated, under names that the
//!   next start keeps
//! * once room is low, it stays so until all of them are there again: the reserve is filled before anything grows
//! * checkpoints are given one file more than are in use, whose content fits into as many (the other is for what they
//!   merge), and no more until one succeeds: if these are no help, their room went elsewhere (to a neighbour, to a quota
//!   that is exceeded), and the rest is for records
//! * the last file is given to nobody: the next start may need one

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::canary;
use crate::error::{IoContext, StoreError};
use crate::io::Disk;

use super::DIRECTORY;

/// Files for records, whatever is in use.
const FOR_RECORDS: usize = 2;
/// Files left to the next start, which may have to write the newest frames again before it opens.
const FOR_START: usize = 1;
/// Files beyond the reserve that are made ready and filled with zeros: the file system has nothing to do when they are
/// written to.
const FILLED: usize = 1;
/// Turns of [`Reserve::turn`] after which the most files in use before are forgotten; at most twice as many pass. Until
/// then enough files are kept for the same again: making and removing one delays every commit beside it.
const REMEMBERED_TURNS: u32 = 60;

/// See the [module](self). Shared by the journal, which empties it, and those who fill it.
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    file_bytes: u64,
    state: Mutex<State>,
}

struct State {
    /// Names of files that are ready.
    ready: VecDeque<String>,
    /// Files of the journal in use.
    in_use: usize,
    /// Most of them since the window began, and in the window before.
    peaks: [usize; 2],
    /// Turns since the window began.
    turns: u32,
    is_low: bool,
    /// Files given to checkpoints since one succeeded, but for those that were made again.
    lent: usize,
    /// For the name of the next file.
    next: u64,
}

impl State {
    fn wanted(&self) -> usize {
        self.wanted_beside(self.in_use)
    }

    fn wanted_beside(&self, in_use: usize) -> usize {
        if canary::is(46) { 0 } else { FOR_RECORDS + FOR_START + in_use }
    }

    /// Files in use and ready together that are kept.
    fn kept(&self) -> usize {
        let most = self.peaks[0].max(self.peaks[1]);
        most + self.wanted_beside(most) + FILLED
    }
}

impl Reserve {
    /// With the files that were found ready.
    pub(super) fn new(disk: Arc<dyn Disk>, file_bytes: u64, ready: VecDeque<String>, in_use: usize) -> Arc<Self> {
        let number = |name: &String| name.rsplit('-').next().and_then(|digits| digits.parse::<u64>().ok());
        let next = ready.iter().filter_map(number).max().map_or(1, |newest| newest + 1);
        let state = State { ready, in_use, peaks: [in_use; 2], turns: 0, is_low: false, lent: 0, next };
        Arc::new(Self { disk, file_bytes, state: Mutex::new(state) })
    }

    /// The disk was found full, and not all of the reserve is there.
    pub(crate) fn is_low(&self) -> bool {
        self.state().is_low
    }

    /// Bytes that are ready, and bytes that should be.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let state = self.state();
        (state.ready.len() as u64 * self.file_bytes, state.wanted() as u64 * self.file_bytes)
    }

    /// Makes what is missing, and knows afterwards whether room is low. Returns whether it is not.
    ///
    /// # Errors
    /// The disk's, but for a full disk.
    pub(crate) fn fill(&self) -> Result<bool, StoreError> {
        loop {
            let number = {
                let mut state = self.state();
                if state.ready.len() >= state.wanted() {
                    (state.is_low, state.lent) = (false, 0);
                    return Ok(true);
                }
                state.take_number()
            };
            match self.make(number, false) {
                Ok(path) => {
                    let mut state = self.state();
                    state.ready.push_back(path);
                    state.lent = state.lent.saturating_sub(1);
                }
                Err(error) if error.is_full() => {
                    self.state().is_low = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes one more file and fills it with zeros, if there are too few. Takes long; runs beside commits.
    ///
    /// # Errors
    /// The disk's, but for a full disk: the journal does without.
    pub(crate) fn prepare(&self) -> Result<(), StoreError> {
        let number = {
            let mut state = self.state();
            if state.is_low || state.ready.len() >= state.wanted() + FILLED {
                return Ok(());
            }
            state.take_number()
        };
        match self.make(number, true) {
            // In front: the journal takes from there.
            Ok(path) => self.state().ready.push_front(path),
            Err(error) if error.is_full() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives room to a checkpoint that found none: removes one file, if that leaves enough and may help. From now on
    /// room is low. [`helped`](Self::helped) follows when a checkpoint succeeds.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn lend(&self) -> Result<bool, StoreError> {
        let path = {
            let mut state = self.state();
            state.is_low = true;
            if state.ready.len() <= FOR_START || state.lent > state.in_use {
                return Ok(false);
            }
            state.lent += 1;
            state.ready.pop_back().expect("there are some")
        };
        self.disk.remove(&path).on(&path, "remove")?;
        Ok(true)
    }

    /// A checkpoint succeeded: the room it was given was no one else's, and the next may need as much.
    pub(crate) fn helped(&self) {
        self.state().lent = 0;
    }

    /// A file for the journal, beyond what the reserve wants once it is in use.
    pub(super) fn take_spare(&self) -> Option<String> {
        let mut state = self.state();
        if state.ready.len() > state.wanted() + 1 { state.ready.pop_front() } else { None }
    }

    /// A file for a start, whatever is wanted.
    pub(super) fn take_at_start(&self) -> Option<String> {
        self.state().ready.pop_front()
    }

    /// A file for the journal, of the reserve: there is no other room. From now on room is low.
    pub(super) fn take_reserved(&self) -> Option<String> {
        let mut state = self.state();
        state.is_low = true;
        if state.ready.len() > FOR_START { state.ready.pop_front() } else { None }
    }

    /// The journal uses so many files.
    pub(super) fn uses(&self, files: usize) {
        let mut state = self.state();
        state.in_use = files;
        state.peaks[0] = state.peaks[0].max(files);
    }

    /// To be called regularly: removes one file at a time that a busier hour has left.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn turn(&self) -> Result<(), StoreError> {
        let path = {
            let mut state = self.state();
            state.turns += 1;
            if state.turns == REMEMBERED_TURNS {
                (state.turns, state.peaks) = (0, [state.in_use, state.peaks[0]]);
            }
            let is_spare = !state.is_low && state.in_use + state.ready.len() > state.kept();
            is_spare.then(|| state.ready.pop_back().expect("more are kept than are in use"))
        };
        match path {
            Some(path) => self.disk.remove(&path).on(&path, "remove"),
            None => Ok(()),
        }
    }

    /// A file that has been used is ready. It is the next: writing to one for the first time costs the file system more.
    pub(super) fn put_back(&self, path: String) {
        self.state().ready.push_front(path);
    }

    fn make(&self, number: u64, is_filled: bool) -> Result<String, StoreError> {
        // The name says whether the file is whole: the next start keeps it then.
        let (path, kind) = if is_filled { ("zero", "zero") } else { ("fresh-kept", "kept") };
        let path = format!("{DIRECTORY}/{path}-{number:016}");
        let ready = format!("{DIRECTORY}/spare-{kind}-{number:016}");
        let made = self.write(&path, is_filled).and_then(|()| self.disk.rename(&path, &ready).on(&path, "rename"));
        if let Err(error) = made {
            // Part of it may have been allocated, and others may need that room to free some.
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(ready)
    }

    fn write(&self, path: &str, is_filled: bool) -> Result<(), StoreError> {
        let file = self.disk.create(path).on(path, "create")?;
        file.allocate(self.file_bytes).on(path, "allocate")?;
        if !is_filled {
            return file.sync().on(path, "sync");
        }
        let zeros = vec![0; 256 << 10];
        let mut position = 0;
        while position < self.file_bytes {
            let part = zeros.len().min((self.file_bytes - position) as usize);
            file.write_at(position, &zeros[..part]).on(path, "fill")?;
            // Small bursts: one large flush would delay the commits beside it.
            file.sync().on(path, "sync")?;
            position += part as u64;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn ready(&self) -> usize {
        self.state().ready.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the reserve panics")
    }
}

impl State {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}
