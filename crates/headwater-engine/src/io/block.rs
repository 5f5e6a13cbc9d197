//! Memory that direct writes accept.

/// Direct writes demand that position, length and memory are multiples of this, in bytes. Larger than what any common
/// disk asks for.
pub const BLOCK_BYTES: usize = 4096;

/// A growing buffer whose first byte lies on a block boundary of memory. What it holds need not fill whole blocks until
/// it is written.
#[derive(Debug, Default)]
pub struct BlockBuffer {
    /// The first `start` bytes only push the rest to the boundary.
    bytes: Vec<u8>,
    start: usize,
}

impl BlockBuffer {
    /// What it holds.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The same, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Empties it and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Cuts it to `length` or fills it up with zeros.
    pub fn resize(&mut self, length: usize) {
        self.reserve(length.saturating_sub(self.len()));
        self.bytes.resize(self.start + length, 0);
    }

    /// Makes room for `more` bytes, so that adding them moves nothing.
    pub fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() >= more && self.start < self.bytes.capacity() {
            return;
        }
        let wanted = (self.len() + more).next_power_of_two().max(BLOCK_BYTES);
        let mut grown: Vec<u8> = Vec::with_capacity(wanted + BLOCK_BYTES);
        let start = grown.as_ptr().align_offset(BLOCK_BYTES);
        assert!(start < BLOCK_BYTES, "bytes can be aligned by skipping less than a block");
        grown.resize(start, 0);
        grown.extend_from_slice(self.as_slice());
        (self.bytes, self.start) = (grown, start);
    }
}

#[test]
fn a_block_buffer_stays_on_its_boundary_while_it_grows() {
    let mut buffer = BlockBuffer::default();
    let mut expected = Vec::new();
    for round in 0..200_u8 {
        buffer.extend_from_slice(&vec![round; 97 * usize::from(round)]);
        expected.extend_from_slice(&vec![round; 97 * usize::from(round)]);
        if !buffer.is_empty() {
            assert_eq!(buffer.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0, "round {round}");
        }
    }
    assert_eq!(buffer.as_slice(), expected);
    buffer.resize(expected.len().next_multiple_of(BLOCK_BYTES));
    assert!(buffer.as_slice()[expected.len()..].iter().all(|byte| *byte == 0));
    buffer.clear();
    assert!(buffer.is_empty());
    buffer.extend_from_slice(b"again");
    assert_eq!(buffer.as_slice(), b"again");
    assert_eq!(buffer.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0);
}
