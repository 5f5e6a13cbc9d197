//! Reading a whole run to see whether it is what was written.

use crate::error::StoreError;

use super::{BlockEntries, FOOTER_BYTES, HEADER_BYTES, IndexEntry, Run};

impl Run {
    /// Reads every block: checksums, the order of keys, the index, the number of entries. `go_on` is told how many bytes
    /// were read and may end the reading; `bad` is told of everything that is not as it should be. Blocks are not kept.
    pub(crate) fn verify(&self, go_on: &mut dyn FnMut(u64) -> bool, bad: &mut dyn FnMut(StoreError)) {
        let mut expected_offset = HEADER_BYTES as u64;
        let mut last_key: Option<Vec<u8>> = None;
        let mut entries = 0;
        let mut is_whole = true;
        for (at, IndexEntry { first, offset, length }) in self.index.iter().enumerate() {
            if *offset != expected_offset {
                let what = format!("block {at} begins at {offset}, expected {expected_offset}");
                bad(StoreError::damaged(&self.path, *offset, what));
                is_whole = false;
                break;
            }
            expected_offset += u64::from(*length);
            let block = match self.read_block(at) {
                Ok(block) => block,
                Err(error) => {
                    bad(error);
                    (is_whole, last_key) = (false, None);
                    continue;
                }
            };
            let mut input = BlockEntries::new(&block);
            let mut is_first = true;
            loop {
                let entry = match input.next() {
                    Ok(Some((key, _))) => key,
                    Ok(None) => break,
                    Err(error) => {
                        bad(StoreError::malformed(&self.path, *offset)(error));
                        is_whole = false;
                        break;
                    }
                };
                if is_first && entry != first.as_slice() {
                    bad(StoreError::damaged(&self.path, *offset, "block does not begin with the key the index names"));
                }
                if last_key.as_deref().is_some_and(|last| last >= entry) {
                    bad(StoreError::damaged(&self.path, *offset, "keys are out of order"));
                }
                is_first = false;
                entries += 1;
                last_key = Some(entry.to_vec());
            }
            if is_first {
                bad(StoreError::damaged(&self.path, *offset, "block has no entries"));
            }
            if !go_on(u64::from(*length)) {
                return;
            }
        }
        let index_length: u64 = self.index.iter().map(|entry| 4 + entry.first.len() as u64 + 8 + 4).sum();
        let index_at = self.length.saturating_sub(FOOTER_BYTES as u64 + index_length);
        if is_whole && expected_offset != index_at {
            let what = format!("blocks end at {expected_offset}, the index begins at {index_at}");
            bad(StoreError::damaged(&self.path, expected_offset, what));
        }
        if is_whole && entries != self.entries {
            let what = format!("run has {entries} entries, its footer says {}", self.entries);
            bad(StoreError::damaged(&self.path, self.length - FOOTER_BYTES as u64, what));
        }
    }
}
