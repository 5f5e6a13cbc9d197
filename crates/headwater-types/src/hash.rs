//! Hashes that all clients of a stream must agree on: which segment a routing key goes to, which partition a table's key.
//!
//! All are MurmurHash3 in its 128-bit form for 64-bit machines, each with a seed that Java makes from a word. They are part of
//! the contract between clients for ever: a hash that changed would send later events of a key past earlier ones.
//!
//! Source: `HashHelper` of Pravega's clients; the function itself is Austin Appleby's, in the public domain.

use crate::AttributeId;

const EVENT_ROUTER: u64 = seed("EventRouter");
const TABLE_ROUTER: u64 = seed("KeyValueTableRouter");
const SEGMENT_ATTRIBUTE: u64 = seed("SegmentAttribute");

/// Where an event's routing key lies in the key space, from 0 inclusive to 1 exclusive. The segment of the event is the one
/// with the smallest upper bound that is not below it.
pub fn routing_key(key: &str) -> f64 {
    fraction(EVENT_ROUTER, &utf16(key))
}

/// Where a key of a key-value table lies, from 0 inclusive to 1 exclusive: by its primary part alone, so that entries with one
/// primary key stay together.
pub fn table_key(primary: &[u8]) -> f64 {
    fraction(TABLE_ROUTER, primary)
}

/// A number from 0 inclusive to 1 exclusive that each `seeder` draws differently for the same text. Readers of a group choose
/// with it what they give back, each by its own id.
pub fn seeded(seeder: &str, text: &str) -> f64 {
    fraction(seed(seeder), &utf16(text))
}

impl AttributeId {
    /// The attribute that clients know by a name.
    pub fn named(name: &str) -> Self {
        let (first, second) = murmur3(SEGMENT_ATTRIBUTE, &utf16(name));
        Self((u128::from(first.swap_bytes()) << 64) | u128::from(second.swap_bytes()))
    }
}

/// The hash that Java gives an ASCII text and a Rust one for others as well, widened the way Java widens numbers.
const fn seed(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (mut hash, mut at): (i32, usize) = (0, 0);
    while at < bytes.len() {
        // Characters beyond 16 bits are two units to Java.
        let (code, length) = character(bytes, at);
        if code < 0x1_0000 {
            hash = hash.wrapping_mul(31).wrapping_add(code as i32);
        } else {
            let (high, low) = (0xd800 + ((code - 0x1_0000) >> 10), 0xdc00 + ((code - 0x1_0000) & 0x3ff));
            hash = hash.wrapping_mul(31).wrapping_add(high as i32).wrapping_mul(31).wrapping_add(low as i32);
        }
        at += length;
    }
    hash as i64 as u64
}

/// The character that begins at `at`, and its bytes. The bytes are those of a text, and `at` is where one begins.
const fn character(bytes: &[u8], at: usize) -> (u32, usize) {
    const fn follow(bytes: &[u8], at: usize) -> u32 {
        (bytes[at] & 0x3f) as u32
    }
    let first = bytes[at] as u32;
    match first {
        0..=0x7f => (first, 1),
        0x80..=0xdf => ((first & 0x1f) << 6 | follow(bytes, at + 1), 2),
        0xe0..=0xef => ((first & 0x0f) << 12 | follow(bytes, at + 1) << 6 | follow(bytes, at + 2), 3),
        _ => {
            let upper = (first & 0x07) << 18 | follow(bytes, at + 1) << 12;
            (upper | follow(bytes, at + 2) << 6 | follow(bytes, at + 3), 4)
        }
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The upper 52 bits as the digits of a number in [1, 2), less 1.
fn fraction(seed: u64, bytes: &[u8]) -> f64 {
    let (first, _) = murmur3(seed, bytes);
    f64::from_bits(0x3ff0_0000_0000_0000 | (first >> 12)) - 1.0
}

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// Both halves of the 128 bits; `seed` begins both lanes.
fn murmur3(seed: u64, bytes: &[u8]) -> (u64, u64) {
    let (mut one, mut two) = (seed, seed);
    let mix_one = |word: u64| word.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix_two = |word: u64| word.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (blocks, tail) = bytes.as_chunks::<16>();
    let halves = |block: &[u8; 16]| {
        let whole = u128::from_le_bytes(*block);
        (whole as u64, (whole >> 64) as u64)
    };
    for block in blocks {
        let (low, high) = halves(block);
        one = (one ^ mix_one(low)).rotate_left(27).wrapping_add(two).wrapping_mul(5).wrapping_add(0x52dc_e729);
        two = (two ^ mix_two(high)).rotate_left(31).wrapping_add(one).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    // Words of zeros change nothing, so a short tail and none need no case of their own.
    let (low, high) = halves(&last);
    one ^= mix_one(low) ^ bytes.len() as u64;
    two ^= mix_two(high) ^ bytes.len() as u64;
    one = one.wrapping_add(two);
    two = two.wrapping_add(one);
    one = avalanche(one);
    two = avalanche(two);
    one = one.wrapping_add(two);
    (one, two.wrapping_add(one))
}

fn avalanche(mut word: u64) -> u64 {
    word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute;

    #[test]
    fn seeds_are_the_hashes_that_java_gives_their_words() {
        assert_eq!(EVENT_ROUTER, 1_741_865_571);
        assert_eq!(TABLE_ROUTER as i64, -2_020_233_499);
        assert_eq!(SEGMENT_ATTRIBUTE, 817_748_169);
        for text in ["", "reader-1", "\u{e9}\u{65e5}", "\u{1f600}x"] {
            let expected =
                text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
            assert_eq!(seed(text), i64::from(expected) as u64, "{text}");
        }
    }

    #[test]
    fn routing_keys_lie_where_java_puts_them() {
        for (key, expected) in [
            ("", 0.24117842791623523),
            ("a", 0.9433912753816884),
            ("0", 0.8056356837424186),
            ("1", 0.36758584297933905),
            ("42", 0.6049176089042867),
            ("key", 0.8449093464660018),
            ("hello", 0.658716230571337),
            ("routing-key", 0.7829314629288311),
            ("routingKey", 0.9115813645916913),
            ("hello world", 0.42628017229426707),
            ("user-12345", 0.7783317226522681),
            ("4f3c2b1a-0000-0000-0000-000000000001", 0.9410748821753676),
            ("The quick brown fox jumps over the lazy dog", 0.6925408542916907),
            ("\u{e9}", 0.6688272069632242),
            ("日本語", 0.33619521178203393),
            ("naïve-ключ", 0.3285548605163797),
        ] {
            assert_eq!(routing_key(key), expected, "{key}");
        }
    }

    #[test]
    fn keys_of_tables_lie_where_java_puts_them() {
        for (key, expected) in [
            (&[0, 0, 0, 1][..], 0.7869216576677149),
            (&[0, 0, 0, 2], 0.7719748599616734),
            (&[0, 0, 0, 0, 0, 0, 0, 1], 0.6759683568840031),
            (b"key-0001", 0.6741219186027629),
            (b"0123456789abcdef", 0.3339020757249709),
            (b"0123456789abcdefX", 0.6501087553596316),
        ] {
            assert_eq!(table_key(key), expected, "{key:x?}");
        }
    }

    #[test]
    fn attributes_are_found_by_their_names() {
        assert_eq!(AttributeId::named("RevisionStreamClientMark"), attribute::REVISION_MARK);
    }
}
