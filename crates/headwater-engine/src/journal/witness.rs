//! A second witness of what was durable: the journal alone cannot tell that its own end was cut off.
//!
//! Two slots are written in turn, off the path of acknowledgements, at least every second and at every change of file.
//! A journal that ends below the newest intact slot has lost acknowledged records.

use std::sync::Arc;

use crate::codec::{Decoder, Encoder, Malformed};
use crate::error::{IoContext, StoreError};
use crate::io::{Disk, File};

use super::DIRECTORY;

/// The witness file.
pub(crate) const PATH: &str = "journal/witness";
const MAGIC: &[u8; 8] = b"HWWITNS\x01";
/// Distance of the slots: no single torn sector or block reaches both.
const SLOT_BYTES: u64 = 4096;
const SLOT_USED_BYTES: usize = 8 + 16 + 8 + 8 + 4;

/// What the witness file holds, for whoever judges a store.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Slots {
    /// There is a file.
    pub(crate) is_there: bool,
    /// Slots that testify.
    pub(crate) intact: u32,
    /// Slots that hold something else than zeros and do not testify.
    pub(crate) damaged: u32,
}

impl Slots {
    /// Looks at the slots.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn read(disk: &dyn Disk, store: u128) -> Result<Self, StoreError> {
        let mut slots = Self::default();
        if !disk.list(DIRECTORY).on(DIRECTORY, "list")?.iter().any(|name| name == "witness") {
            return Ok(slots);
        }
        slots.is_there = true;
        let file = disk.open(PATH).on(PATH, "open")?;
        let length = file.length().on(PATH, "measure")?;
        for slot in 0..2 {
            let mut bytes = [0; SLOT_USED_BYTES];
            // A file that was never long enough for the second slot has none.
            let there = length.saturating_sub(slot * SLOT_BYTES).min(SLOT_USED_BYTES as u64) as usize;
            file.read_at(slot * SLOT_BYTES, &mut bytes[..there]).on(PATH, "read")?;
            match decode(&bytes, store) {
                Ok(_) => slots.intact += 1,
                Err(_) if bytes.iter().all(|byte| *byte == 0) => {}
                Err(_) => slots.damaged += 1,
            }
        }
        Ok(slots)
    }
}

/// Bytes of a witness file that testifies to one frame.
pub(crate) fn testimony(store: u128, frame: u64) -> Vec<u8> {
    let mut file = vec![0; SLOT_BYTES as usize];
    file.extend(slot(store, 1, frame));
    file
}

fn slot(store: u128, turn: u64, frame: u64) -> Vec<u8> {
    let mut slot = Encoder::default();
    slot.0.extend_from_slice(MAGIC);
    slot.u128(store).u64(turn).u64(frame);
    let sum = crc32c::crc32c(&slot.0);
    slot.u32(sum);
    slot.0
}

/// The open witness file.
pub(crate) struct Witness {
    /// `None` until there is something to testify: a store that is only looked at is not changed.
    file: Option<Arc<dyn File>>,
    store: u128,
    turn: u64,
    /// Newest frame it testifies to.
    pub(crate) frame: u64,
}

impl Witness {
    /// Opens it; a store that never testified has none.
    ///
    /// # Errors
    /// The disk's. Damaged slots testify to nothing and are no error: the other slot is at most one turn older.
    pub(crate) fn open(disk: &dyn Disk, store: u128) -> Result<Self, StoreError> {
        let there = disk.list(DIRECTORY).on(DIRECTORY, "list")?.iter().any(|name| name == "witness");
        let file = if there { Some(disk.open(PATH).on(PATH, "open")?) } else { None };
        let mut newest = (0, 0);
        let mut witness = Self { file, store, turn: 0, frame: 0 };
        if let Some(file) = &witness.file {
            for slot in 0..2 {
                let mut bytes = [0; SLOT_USED_BYTES];
                if file.read_at(slot * SLOT_BYTES, &mut bytes).is_ok()
                    && let Ok((turn, frame)) = decode(&bytes, store)
                    && turn > newest.0
                {
                    newest = (turn, frame);
                }
            }
        }
        (witness.turn, witness.frame) = newest;
        Ok(witness)
    }

    /// There is a file.
    pub(crate) fn is_there(&self) -> bool {
        self.file.is_some()
    }

    /// Testifies that `frame` is durable.
    pub(crate) fn testify(&mut self, disk: &dyn Disk, frame: u64) -> Result<(), StoreError> {
        if frame <= self.frame {
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => file.clone(),
            None => {
                let file = disk.create(PATH).on(PATH, "create")?;
                disk.sync_directory(DIRECTORY).on(DIRECTORY, "sync")?;
                self.file.insert(file).clone()
            }
        };
        let turn = self.turn + 1;
        file.write_at(turn % 2 * SLOT_BYTES, &slot(self.store, turn, frame)).on(PATH, "write")?;
        file.sync().on(PATH, "sync")?;
        (self.turn, self.frame) = (turn, frame);
        Ok(())
    }

    /// Writes the slot that does not hold the newest testimony, with that testimony: damage in it is gone then.
    ///
    /// # Errors
    /// The disk's; the newest testimony is as before.
    pub(crate) fn repeat(&mut self) -> Result<(), StoreError> {
        let Some(file) = &self.file else { return Ok(()) };
        let turn = self.turn + 1;
        file.write_at(turn % 2 * SLOT_BYTES, &slot(self.store, turn, self.frame)).on(PATH, "write")?;
        file.sync().on(PATH, "sync")?;
        self.turn = turn;
        Ok(())
    }
}

fn decode(bytes: &[u8], store: u128) -> Result<(u64, u64), Malformed> {
    let mut input = Decoder::new(bytes);
    if input.take(8)? != MAGIC || input.u128()? != store {
        return Err(Malformed("not this store's witness"));
    }
    let (turn, frame) = (input.u64()?, input.u64()?);
    let covered = bytes.len() - input.remaining();
    if crc32c::crc32c(&bytes[..covered]) == input.u32()? { Ok((turn, frame)) } else { Err(Malformed("slot is torn")) }
}
