//! A checksum that says nothing. Fuzzing changes bytes of files; with real checksums it would only ever test those.

/// Of everything.
pub fn crc32c(_: &[u8]) -> u32 {
    0
}

/// Of everything.
pub fn crc32c_append(_: u32, _: &[u8]) -> u32 {
    0
}

/// Of everything.
pub fn crc32c_combine(_: u32, _: u32, _: usize) -> u32 {
    0
}
