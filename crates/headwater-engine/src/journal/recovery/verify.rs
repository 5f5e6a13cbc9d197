//! Judging a journal without changing it: the same reading as at a start, without the writing that follows it.

use std::ops::Range;

use crate::error::{IoContext, StoreError};
use crate::io::Disk;

use super::super::format::MARKS_AT;
use super::super::{Witness, path_of};
use super::{
    BLOCK_BYTES, Chain, DIRECTORY, FileHeader, FrameKind, HEAD_BYTES, Replayed, Window, each_record, list, open_file,
};

/// Bytes of a header block that say something; zeros follow.
const HEADER_USED_BYTES: usize = 8 + 4 + 16 + 8 + 8 + 4;
/// The same of a frame's head.
const HEAD_USED_BYTES: usize = 4 + 1 + 8 + 16 + 8 + 8 + 4 + 4 + 4 + 4;

/// What a sound journal holds.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct JournalState {
    /// Files in use.
    pub(crate) files: u64,
    /// Number of the newest file.
    pub(crate) newest_file: u64,
    /// Newest frame of the unbroken chain.
    pub(crate) frame: u64,
    /// Newest frame that something testifies to.
    pub(crate) known: u64,
    /// The store was closed in good order.
    pub(crate) is_closed: bool,
    /// Bytes behind the chain that were never acknowledged.
    pub(crate) torn_bytes: u64,
    /// Where they are: file and bytes.
    pub(crate) torn: Vec<(String, Range<u64>)>,
    /// Bytes that are not zero where only zeros are ever written.
    pub(crate) rubbish: Vec<(String, Range<u64>)>,
    /// The chain could be followed to its end.
    pub(crate) is_sound: bool,
}

/// Reads the whole journal, one file at a time, and hands the records of the unbroken chain to `replay`. `go_on` is told
/// how many bytes were read and may end the reading; `bad` is told of everything that is not as it should be, but for
/// [`JournalState::rubbish`]. After the first break `replay` is given nothing more.
///
/// # Errors
/// [`StoreError::Newer`], and when the directory cannot be listed.
pub(crate) fn verify(
    disk: &dyn Disk,
    store: u128,
    file_bytes: u64,
    witness: &Witness,
    replay: &mut dyn FnMut(Replayed<'_>) -> Result<(), StoreError>,
    go_on: &mut dyn FnMut(u64) -> bool,
    bad: &mut dyn FnMut(StoreError),
) -> Result<JournalState, StoreError> {
    let mut state = JournalState { known: witness.frame, is_sound: true, ..JournalState::default() };
    let numbers = match list(disk) {
        Ok((numbers, _)) => numbers,
        Err(error @ StoreError::Damaged { .. }) => {
            bad(error);
            state.is_sound = false;
            present(disk)?
        }
        Err(error) => return Err(error),
    };
    let mut chain: Option<Chain> = None;
    let mut window = Window::default();
    for number in numbers {
        (state.files, state.newest_file) = (state.files + 1, number);
        let read = open_file(disk, store, number, file_bytes).and_then(|found| {
            state.known = state.known.max(found.header.first_frame - 1);
            let mut rubbish = |from: u64, bytes: &[u8]| state.rubbish.extend(rubbish(&found.path, from, bytes));
            rubbish(HEADER_USED_BYTES as u64, &found.block[HEADER_USED_BYTES..MARKS_AT]);
            rubbish(found.marks_end as u64, &found.block[found.marks_end..]);
            if state.is_sound {
                let chain = chain.get_or_insert_with(|| Chain::starting_at(&found.header));
                if let Err(error) = chain.go_on_in(&found) {
                    bad(error);
                    state.is_sound = false;
                }
            }
            found.scan(&mut window, BLOCK_BYTES, &mut |seen| {
                state.known = state.known.max(seen.head.synced);
                if let Some(bytes) = seen.bytes {
                    rubbish(seen.at + HEAD_USED_BYTES as u64, &bytes[HEAD_USED_BYTES..HEAD_BYTES]);
                    let end = HEAD_BYTES + seen.head.body_length as usize;
                    rubbish(seen.at + end as u64, &bytes[end..]);
                }
                let Some(chain) = chain.as_mut().filter(|_| state.is_sound) else { return Ok(()) };
                let seen = chain.see(disk, &seen, |head, body, is_repeat| {
                    if is_repeat {
                        return Ok(());
                    }
                    state.is_closed = head.kind == FrameKind::Close;
                    if head.kind == FrameKind::Records { each_record(&found.path, body, &mut *replay) } else { Ok(()) }
                });
                if let Err(error) = seen {
                    bad(error);
                    state.is_sound = false;
                }
                Ok(())
            })?;
            Ok(found.length)
        });
        match read {
            Ok(length) if !go_on(length) => return Ok(state),
            Ok(_) => {}
            Err(error @ StoreError::Newer { .. }) => return Err(error),
            Err(error) => {
                bad(error);
                state.is_sound = false;
            }
        }
    }
    let chain = chain.unwrap_or_else(Chain::empty);
    (state.frame, state.torn_bytes) = (chain.next_frame - 1, chain.discarded);
    state.torn.clone_from(&chain.dropped);
    if state.is_sound && state.frame < state.known {
        let what = format!("journal ends with frame {}, but frame {} was durable", state.frame, state.known);
        bad(StoreError::damaged(&chain.path, chain.position, what));
        state.is_sound = false;
    }
    Ok(state)
}

/// Where a journal that is being written to ends, as far as it can be read.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Newest frame of the unbroken chain.
    pub(crate) frame: u64,
    /// Path of each file that has a part of the chain, and where that part ends in it.
    pub(crate) files: Vec<(String, u64)>,
}

/// Follows the chain while the journal is in use. What is durable when this is called is in it; of what is written
/// meanwhile, some may be.
///
/// # Errors
/// Damage before that, and the disk's errors.
pub(crate) fn ends(disk: &dyn Disk, store: u128, file_bytes: u64) -> Result<Ends, StoreError> {
    let mut chain: Option<Chain> = None;
    let mut ends = Ends::default();
    let mut window = Window::default();
    for number in list(disk)?.0 {
        let found = open_file(disk, store, number, file_bytes)?;
        let chain = chain.get_or_insert_with(|| Chain::starting_at(&found.header));
        // A file that is listed has its name since everything before it is durable: a gap is damage.
        chain.go_on_in(&found)?;
        found.scan(&mut window, BLOCK_BYTES, &mut |seen| chain.see(disk, &seen, |_, _, _| Ok(())))?;
        ends.files.push((chain.path.clone(), chain.position));
    }
    ends.frame = chain.map_or(0, |chain| chain.next_frame - 1);
    Ok(ends)
}

/// Reads a file that is no longer written to, because `next` is: its frames must reach to those of the next.
///
/// # Errors
/// Damage, and the disk's errors; also `NotFound` if either file was given up meanwhile.
pub(crate) fn verify_idle(
    disk: &dyn Disk,
    store: u128,
    file_bytes: u64,
    number: u64,
    next: u64,
) -> Result<(), StoreError> {
    let mut block = vec![0; BLOCK_BYTES as usize];
    let next = path_of(next);
    disk.open(&next).and_then(|file| file.read_at(0, &mut block)).on(&next, "read")?;
    let found = open_file(disk, store, number, file_bytes)?;
    let mut chain = Chain::starting_at(&found.header);
    chain.go_on_in(&found)?;
    found.scan(&mut Window::default(), BLOCK_BYTES, &mut |seen| chain.see(disk, &seen, |_, _, _| Ok(())))?;
    match FileHeader::decode(&block) {
        Ok(header) if chain.next_frame < header.first_frame => {
            let what = format!("frames end with {}, {next} begins with {}", chain.next_frame - 1, header.first_frame);
            Err(StoreError::damaged(&found.path, chain.position, what))
        }
        Ok(_) => Ok(()),
        // Judged when it is the one that is read; the newest is judged at every start.
        Err(_) => Ok(()),
    }
}

/// Numbers of the files in use, gaps or not.
fn present(disk: &dyn Disk) -> Result<Vec<u64>, StoreError> {
    let names = disk.list(DIRECTORY).on(DIRECTORY, "list")?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect())
}

/// The part of these bytes of a file, where only zeros are ever written, that has something else.
fn rubbish(path: &str, from: u64, bytes: &[u8]) -> Option<(String, Range<u64>)> {
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let last = bytes.iter().rposition(|byte| *byte != 0)?;
    Some((path.to_owned(), from + first as u64..from + last as u64 + 1))
}

/// Files of the journal's directory that the next start removes: half-made ones.
///
/// # Errors
/// The disk's.
pub(crate) fn leftovers(disk: &dyn Disk, file_bytes: u64) -> Result<Vec<String>, StoreError> {
    let mut left = Vec::new();
    for name in disk.list(DIRECTORY).on(DIRECTORY, "list")? {
        let path = format!("{DIRECTORY}/{name}");
        let is_half_made = name.starts_with("fresh-") || name.starts_with("zero-");
        if is_half_made
            || name.starts_with("spare-")
                && disk.open(&path).on(&path, "open")?.length().on(&path, "measure")? != file_bytes
        {
            left.push(path);
        }
    }
    Ok(left)
}
