//! Reading a whole run to see whether it is what was written.

use crate::error::StoreError;

use super::super::filter;
use super::{BlockEntries, BlockIndex, FOOTER_BYTES, FilterIndex, HEADER_BYTES, Run};

impl Run {
    /// Reads every block and filter: checksums, the order of keys, the filters, the index, the number of entries. `go_on`
    /// is told how many bytes were read and may end the reading; `bad` is told of everything that is not as it should
    /// be. Blocks are not kept.
    pub(crate) fn verify(&self, go_on: &mut dyn FnMut(u64) -> bool, bad: &mut dyn FnMut(StoreError)) {
        let damaged = |offset: u64, what: String| StoreError::damaged(&self.path, offset, what);
        let mut expected_offset = HEADER_BYTES as u64;
        let mut last_key: Option<Vec<u8>> = None;
        let mut entries = 0;
        let mut is_whole = true;
        let mut filters = self.index.filters.iter().peekable();
        // Of the keys since the last filter; `None` if some could not be read.
        let mut hashes = Some(Vec::new());
        for (at, &BlockIndex { offset, length, .. }) in self.index.blocks.iter().enumerate() {
            if offset != expected_offset {
                bad(damaged(offset, format!("block {at} begins at {offset}, expected {expected_offset}")));
                is_whole = false;
                break;
            }
            expected_offset += u64::from(length);
            match self.read_content(offset, length) {
                Ok(block) => {
                    let mut input = BlockEntries::new(&block);
                    let mut is_first = true;
                    loop {
                        let entry = match input.next() {
                            Ok(Some((key, _))) => key,
                            Ok(None) => break,
                            Err(error) => {
                                bad(StoreError::malformed(&self.path, offset)(error));
                                (is_whole, hashes) = (false, None);
                                break;
                            }
                        };
                        let index_key = self.index.key(at);
                        let is_between = entry >= index_key && last_key.as_deref().is_none_or(|last| last < index_key);
                        if is_first && !is_between {
                            bad(damaged(offset, "block does not begin behind the key the index names".into()));
                        }
                        if last_key.as_deref().is_some_and(|last| last >= entry) {
                            bad(damaged(offset, "keys are out of order".into()));
                        }
                        is_first = false;
                        entries += 1;
                        last_key = Some(entry.to_vec());
                        if let Some(hashes) = &mut hashes {
                            hashes.push(filter::hash(entry));
                        }
                    }
                    if is_first {
                        bad(damaged(offset, "block has no entries".into()));
                    }
                }
                Err(error) => {
                    bad(error);
                    (is_whole, last_key, hashes) = (false, None, None);
                }
            }
            if !go_on(u64::from(length)) {
                return;
            }
            while let Some(&FilterIndex { offset, length, .. }) =
                filters.next_if(|filter| filter.end as usize <= at + 1)
            {
                if offset != expected_offset {
                    bad(damaged(offset, format!("filter begins at {offset}, expected {expected_offset}")));
                    is_whole = false;
                    break;
                }
                expected_offset += u64::from(length);
                match self.read_content(offset, length) {
                    Ok(found) if hashes.as_ref().is_some_and(|hashes| found != filter::build(hashes)) => {
                        bad(damaged(offset, "filter is not that of the keys before it".into()));
                    }
                    Ok(_) => {}
                    Err(error) => bad(error),
                }
                hashes = Some(Vec::new());
                if !go_on(u64::from(length)) {
                    return;
                }
            }
        }
        if is_whole && hashes.is_none_or(|hashes| !hashes.is_empty()) {
            bad(damaged(expected_offset, "keys at the end have no filter".into()));
        }
        let index_length = self.index.encode().len();
        let index_at = self.length.saturating_sub((FOOTER_BYTES + index_length) as u64);
        if is_whole && expected_offset != index_at {
            let what = format!("blocks end at {expected_offset}, the index begins at {index_at}");
            bad(damaged(expected_offset, what));
        }
        if is_whole && entries != self.entries {
            let what = format!("run has {entries} entries, its footer says {}", self.entries);
            bad(damaged(self.length - FOOTER_BYTES as u64, what));
        }
    }
}
