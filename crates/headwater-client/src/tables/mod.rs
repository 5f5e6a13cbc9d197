//! Tables: keys with values and versions, changed one by one or several at once, under conditions or without.
//!
//! ```text
//!   KeyValueTable   partitions, keys of fixed length; the controller knows it; shared with Java clients
//!   Table           one segment, keys of any length, the order of changes; shared with Rust clients
//!   TableSegment    what is asked of one segment, for both
//! ```
//!
//! Guarantees:
//! * changes that are made at once are made all or not at all
//! * a conditional change is sent once: when its answer is lost the caller is told that it may have been made
//! * a change without conditions may be made again after a lost answer, which leaves the same value under a newer version

mod iterate;
mod key_value;
mod manage;
mod model;
mod plain;
mod segment;

pub use iterate::{EntryIterator, KeyIterator, KeyValueRange};
pub use key_value::KeyValueTable;
pub use manage::KeyValueTableConfig;
pub use model::{Condition, Entry, Put, ScopedTable, TableKey, Version};
pub use plain::{Table, TableChanges, TableEntries, TableInfo};
