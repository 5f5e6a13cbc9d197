//! Limits that the published clients rely on. Source of each: Pravega wire version 17 unless said otherwise.

/// Largest payload a frame header may announce, in bytes, without the 8 header bytes.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 0x00FF_FFFF;
/// Largest whole frame the server accepts, header included.
pub const SERVER_FRAME_BYTES_MAX: usize = 0x00FF_FFFF;
/// Largest payload of one ordinary event; larger ones travel as transient segments.
pub const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most data one read reply carries.
pub const READ_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Longest key of a hash table, in bytes.
pub const TABLE_KEY_BYTES_MAX: usize = 8192;
/// Longest value of a table entry, in bytes.
pub const TABLE_VALUE_BYTES_MAX: usize = 1024 * 1024 - TABLE_KEY_BYTES_MAX;
/// Longest entry of a table as it stands in the log: 17 bytes, key and value.
pub const TABLE_ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// Soft limit of an iterator or delta page, in bytes.
pub const TABLE_PAGE_BYTES: usize = 2 * 1024 * 1024;
/// Largest serialized batch of table entries, in bytes.
pub const TABLE_BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest scope, stream or table name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest segment name, in bytes: two names, a number and an epoch, one suffix, with room to spare.
pub const SEGMENT_NAME_BYTES_MAX: usize = 1024;
