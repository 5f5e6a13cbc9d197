//! Planted bugs. A test that has never failed proves nothing: a build with the feature `canary` can plant one of these
//! bugs, and the simulation must catch every one of them.
//!
//! In every other build [`is`] is the constant `false` and nothing of this remains. Of the numbers missing up to 24, 15 to
//! 17, 23 and 24 are of bugs in other crates; 18, a bucket whose owner is not checked, needs two servers at a time, which
//! the simulation does not have.

/// Whether this bug is planted in the thread that asks.
#[cfg(not(feature = "canary"))]
#[inline(always)]
pub(crate) const fn is(_number: u32) -> bool {
    false
}

#[cfg(feature = "canary")]
pub(crate) use planted::is;
#[cfg(feature = "canary")]
pub use planted::{CANARIES, plant};

#[cfg(feature = "canary")]
mod planted {
    use std::cell::Cell;

    /// Number and description of every bug that can be planted.
    pub const CANARIES: &[(u32, &str)] = &[
        (1, "no sync of the journal"),
        (2, "acknowledged before the sync"),
        (3, "directory of a new journal file not synced"),
        (4, "sync error ignored"),
        (5, "failed sync tried again"),
        (6, "tail served from the cache after a failed sync"),
        (7, "checksum of chunk blocks not checked"),
        (8, "checksum of frame heads checked, of bodies not"),
        (9, "damage in the journal taken for its end"),
        (10, "writers' numbers not in the checkpoint"),
        (11, "writers' numbers off by one after a seal"),
        (12, "condition of an append checked on what is durable, not on what is ordered"),
        (13, "table version used again after a removal"),
        (14, "merge moves half of a transaction"),
        (19, "announcement without an answer taken for one that another start has overtaken"),
        (20, "read before durable"),
        (21, "truncation forgotten after a crash"),
        (22, "lengths and numbers in the manifest trusted without checksum"),
        (25, "witness ignored"),
        (26, "run named by the manifest before it is synced"),
        (27, "chunk named by the catalogue before it is synced"),
        (28, "journal released before the manifest's name is durable"),
        (29, "journal file recycled before the checkpoint covers it"),
        (30, "seal forgotten by the checkpoint"),
        (31, "writes that wait for memory decided in the wrong order"),
        (32, "reads at the tail not woken"),
        (34, "chunks removed before the manifest that gave them up is durable"),
        (35, "recycled journal file used before its new name is durable"),
        (36, "uploads survive a restart"),
        (37, "segment dropped from memory with changes"),
        (38, "bytes before the start of a truncated segment served"),
        (42, "update expects a missing key and replaces one"),
        (45, "segment numbers start anew after a restart"),
        (46, "no room on the disk kept for what frees room"),
        (47, "what waited for room on the disk is forgotten"),
        (48, "long entry of a table in memory looked for in chunks"),
        (50, "start begins behind records that no checkpoint has"),
    ];

    thread_local! {
        static PLANTED: Cell<u32> = const { Cell::new(0) };
    }

    /// Plants a bug in everything this thread does from now on; 0 plants none.
    pub fn plant(number: u32) {
        PLANTED.set(number);
    }

    pub(crate) fn is(number: u32) -> bool {
        PLANTED.get() == number
    }
}
