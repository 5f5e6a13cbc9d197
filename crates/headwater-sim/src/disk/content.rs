//! Bytes of a simulated file: sparse, cheap to copy, copied page by page when one of the copies changes.
//!
//! Invariants:
//! * a page that is absent reads as zeros
//! * every byte at or behind `length` is zero in memory, so that growing a file shows zeros (`Content::cut`)

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::chance::Chance;

/// What a disk writes in one piece.
pub(crate) const SECTOR: usize = 512;

const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];

/// Data of one write. Preallocation writes zeros by the megabyte; they are kept as a number.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Zeros(usize),
    Bytes(Arc<[u8]>),
}

impl Data {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        if bytes.chunks(PAGE).all(|chunk| chunk == &ZEROS[..chunk.len()]) {
            Self::Zeros(bytes.len())
        } else {
            Self::Bytes(bytes.into())
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Zeros(length) => *length,
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pages: Arc<BTreeMap<u64, Arc<[u8; PAGE]>>>,
    length: u64,
}

impl Content {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer`; `false` if the file ends before.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> bool {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > self.length) {
            return false;
        }
        for (page, within, range) in pieces(offset, buffer.len()) {
            let count = range.len();
            match self.pages.get(&page) {
                Some(bytes) => buffer[range].copy_from_slice(&bytes[within..within + count]),
                None => buffer[range].fill(0),
            }
        }
        true
    }

    /// Writes and grows as needed.
    pub(crate) fn write(&mut self, offset: u64, data: &Data) {
        self.poke(offset, data);
        self.length = self.length.max(offset + data.len() as u64);
    }

    /// Writes bytes without touching the length; what lands behind it must be removed by [`set_length`](Self::set_length).
    fn poke(&mut self, offset: u64, data: &Data) {
        match data {
            Data::Zeros(length) => {
                for (page, within, range) in pieces(offset, *length) {
                    if range.len() == PAGE {
                        if self.pages.contains_key(&page) {
                            Arc::make_mut(&mut self.pages).remove(&page);
                        }
                    } else if self.pages.contains_key(&page) {
                        self.page(page)[within..within + range.len()].fill(0);
                    }
                }
            }
            Data::Bytes(bytes) => self.poke_bytes(offset, bytes),
        }
    }

    fn poke_bytes(&mut self, offset: u64, bytes: &[u8]) {
        for (page, within, range) in pieces(offset, bytes.len()) {
            let count = range.len();
            if bytes[range.clone()] == ZEROS[..count] && !self.pages.contains_key(&page) {
                continue;
            }
            self.page(page)[within..within + count].copy_from_slice(&bytes[range]);
        }
    }

    fn page(&mut self, page: u64) -> &mut [u8; PAGE] {
        Arc::make_mut(Arc::make_mut(&mut self.pages).entry(page).or_insert_with(|| Arc::new([0; PAGE])))
    }

    /// Cuts, or extends with zeros.
    pub(crate) fn set_length(&mut self, length: u64) {
        self.cut(length);
        self.length = length;
    }

    fn cut(&mut self, length: u64) {
        let (page, within) = (length / PAGE as u64, (length % PAGE as u64) as usize);
        if self.pages.range(page..).next().is_none() {
            return;
        }
        let behind = Arc::make_mut(&mut self.pages).split_off(&page);
        if within > 0
            && let Some(first) = behind.get(&page)
        {
            let mut kept = first.clone();
            Arc::make_mut(&mut kept)[within..].fill(0);
            Arc::make_mut(&mut self.pages).insert(page, kept);
        }
    }

    /// Whether both hold the same bytes.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let page = |content: &Self, number: u64| content.pages.get(&number).cloned();
        let same = |number: &u64| match (page(self, *number), page(other, *number)) {
            (Some(one), Some(other)) => Arc::ptr_eq(&one, &other) || one == other,
            (Some(one), None) | (None, Some(one)) => one[..] == ZEROS,
            (None, None) => true,
        };
        self.length == other.length && self.pages.keys().chain(other.pages.keys()).all(same)
    }

    /// Everything.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.length).expect("simulated files fit into memory")];
        assert!(self.read(0, &mut bytes), "a file is as long as it says");
        bytes
    }
}

/// Page, offset within it, and the range of the caller's bytes that falls into it.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let count = (PAGE - within).min(length - done);
        let range = done..done + count;
        done += count;
        Some((at / PAGE as u64, within, range))
    })
}

/// A change of a file that no sync has confirmed.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Write { offset: u64, data: Data },
    SetLength(u64),
}

/// How kind a power cut is. Drawn once per cut: were each write decided by an even coin, a cut that spares all but one
/// of many writes, or none of them, would hardly ever be tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mood {
    /// Of 100 un-synced changes so many survive whole.
    pub(crate) whole_percent: u64,
    /// Of those that do not, so many of 100 are torn rather than lost.
    pub(crate) torn_percent: u64,
    /// Of 100 torn writes so many hold garbage in some sectors.
    pub(crate) garbage_percent: u64,
}

/// `durable` after a power cut in the middle of `changes`: of each, nothing, all or some sectors arrived. The length
/// of the file is a fact apart from its bytes: either may arrive without the other.
pub(crate) fn survive(durable: &Content, changes: &[Change], mood: Mood, chance: &mut Chance) -> Content {
    let mut content = durable.clone();
    let mut length = durable.length;
    for change in changes {
        match change {
            Change::Write { offset, data } => {
                if chance.percent(mood.whole_percent) {
                    content.poke(*offset, data);
                } else if chance.percent(mood.torn_percent) {
                    tear(&mut content, *offset, data, mood, chance);
                }
                let end = offset + data.len() as u64;
                if end > length && chance.percent(mood.whole_percent.clamp(10, 90)) {
                    length = end;
                }
            }
            Change::SetLength(to) => {
                if chance.percent(mood.whole_percent.clamp(10, 90)) {
                    content.cut(*to);
                    length = *to;
                }
            }
        }
    }
    content.set_length(length);
    content
}

/// Lets an arbitrary subset of a write's sectors arrive. Garbage stays within the bytes the write covers: a sector that
/// was durable keeps the bytes that nobody wrote.
fn tear(content: &mut Content, offset: u64, data: &Data, mood: Mood, chance: &mut Chance) {
    let kept_percent = *chance.pick(&[10, 50, 90]);
    let garbage_percent = if chance.percent(mood.garbage_percent) { 25 } else { 0 };
    let mut done = 0;
    while done < data.len() {
        let at = offset + done as u64;
        let count = (SECTOR - (at % SECTOR as u64) as usize).min(data.len() - done);
        if chance.percent(garbage_percent) {
            let mut garbage = [0; SECTOR];
            chance.fill(&mut garbage[..count]);
            content.poke_bytes(at, &garbage[..count]);
        } else if chance.percent(kept_percent) {
            match data {
                Data::Zeros(_) => content.poke(at, &Data::Zeros(count)),
                Data::Bytes(bytes) => content.poke_bytes(at, &bytes[done..done + count]),
            }
        }
        done += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &[u8]) -> Data {
        Data::of(text)
    }

    #[test]
    fn content_behaves_like_an_array() {
        let mut chance = Chance::new(3);
        for _ in 0..200 {
            let (mut content, mut array) = (Content::default(), Vec::<u8>::new());
            for _ in 0..30 {
                let offset = chance.index(20_000);
                match chance.below(4) {
                    0 => {
                        content.set_length(offset as u64);
                        array.resize(offset, 0);
                    }
                    kind => {
                        let mut data = vec![0; chance.index(9000)];
                        if kind > 1 {
                            chance.fill(&mut data);
                        }
                        content.write(offset as u64, &bytes(&data));
                        array.resize(array.len().max(offset + data.len()), 0);
                        array[offset..offset + data.len()].copy_from_slice(&data);
                    }
                }
                assert_eq!(content.to_vec(), array);
            }
        }
    }

    #[test]
    fn a_copy_does_not_see_later_writes() {
        let mut content = Content::default();
        content.write(0, &bytes(b"before"));
        let copy = content.clone();
        content.write(0, &bytes(b"after"));
        assert_eq!(copy.to_vec(), b"before");
    }

    #[test]
    fn a_read_behind_the_end_is_refused() {
        let mut content = Content::default();
        content.set_length(10);
        assert!(content.read(0, &mut [1; 10]));
        assert!(!content.read(1, &mut [1; 10]));
        assert!(!content.read(u64::MAX, &mut [1; 10]));
    }
}
