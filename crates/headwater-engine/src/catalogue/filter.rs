//! Filters: about ten bits for each key of a stretch of a run, which say "not here" without the stretch being read.
//!
//! Guarantees: a key that was put in is always found ([`Filter::may_hold`]); another one is found about once in a hundred
//! times. The bits are part of the run's format, and so is the hash.

/// Keys after which a filter is closed: it then takes about as much as a block.
pub(super) const KEYS_MAX: usize = 3_200;
const BITS_PER_KEY: usize = 10;
/// Bits set for each key: the best number for ten bits per key.
const PROBES: u32 = 7;

/// A key's hash. Not for secrets: a client that picks its keys to collide makes its own look-ups slower, no more.
pub(super) fn hash(key: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = (key.len() as u64).wrapping_mul(FACTOR);
    for part in key.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        state = (state.rotate_left(23) ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
        state ^= state >> 29;
    }
    // The last word has to reach every bit.
    state = (state ^ (state >> 32)).wrapping_mul(FACTOR);
    state ^ (state >> 29)
}

/// Positions of a key's bits in a filter of `bits`.
fn positions(hash: u64, bits: usize) -> impl Iterator<Item = usize> {
    let (first, step) = (hash as u32, (hash >> 32) as u32 | 1);
    // A multiplication brings 32 bits into range without a division.
    (0..PROBES).map(move |probe| {
        let position = first.wrapping_add(step.wrapping_mul(probe));
        ((u64::from(position) * bits as u64) >> 32) as usize
    })
}

/// The filter of these keys, given by their hashes.
pub(super) fn build(hashes: &[u64]) -> Vec<u8> {
    let mut bytes = vec![0; (hashes.len() * BITS_PER_KEY).div_ceil(8).max(8)];
    let bits = bytes.len() * 8;
    for hash in hashes {
        for position in positions(*hash, bits) {
            bytes[position / 8] |= 1 << (position % 8);
        }
    }
    bytes
}

/// Whether a key may be among those the filter was built of.
pub(super) fn may_hold(filter: &[u8], hash: u64) -> bool {
    positions(hash, filter.len() * 8).all(|position| filter[position / 8] & (1 << (position % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_and_other_keys_rarely_are() {
        let key = |number: u64| [b"T".as_slice(), &7_u64.to_be_bytes(), &number.to_be_bytes()].concat();
        let hashes: Vec<_> = (0..KEYS_MAX as u64).map(|number| hash(&key(number))).collect();
        let filter = build(&hashes);
        assert!(filter.len() <= 4 << 10);
        assert!(hashes.iter().all(|hash| may_hold(&filter, *hash)));
        let wrong = (10_000..110_000).filter(|number| may_hold(&filter, hash(&key(*number)))).count();
        assert!(wrong < 2_000, "{wrong} of 100,000 keys are taken for others");
        assert!(!may_hold(&build(&[]), hash(b"key")), "nothing is in a filter of nothing");
    }

    #[test]
    fn the_hash_is_part_of_the_format() {
        // Computed by another program, from what is said above.
        for (key, expected) in [
            ("", 0),
            ("a", 0x489b_fa35_776d_cddb),
            ("key", 0x085d_7da7_8e4f_0bc8),
            ("segment/", 0x2d7b_dc17_d94b_01ac),
            ("scope/stream/0.#epoch.0", 0x1055_98bc_e68d_c993),
        ] {
            assert_eq!(hash(key.as_bytes()), expected, "{key:?}");
        }
        assert_ne!(hash(b"a"), hash(b"a\0"), "a key's length counts");
        // So are the bits that it sets.
        assert_eq!(build(&[hash(b"a"), hash(b"key")]), [0x04, 0x04, 0x10, 0x20, 0xe8, 0x4a, 0x01, 0x01]);
    }
}
