//! Why a store cannot be opened, or had to stop.

use crate::api::Refusal;
use crate::codec::Malformed;

/// An integrity or disk fault. There is no third kind: refusals are answers ([`Refusal`](crate::api::Refusal)).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused.
    #[error("{path}: could not {action}")]
    Io {
        /// File or directory, relative to the data directory.
        path: String,
        /// What was attempted.
        action: &'static str,
        /// The disk's word.
        source: std::io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("{path} at byte {offset}: {what}")]
    Damaged {
        /// File, relative to the data directory.
        path: String,
        /// Where.
        offset: u64,
        /// What was expected and found.
        what: String,
    },
    /// Written by a newer release; nothing was touched.
    #[error("{path} has format {found}, this release reads up to {known}")]
    Newer {
        /// File, relative to the data directory.
        path: String,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Object storage did not do what was asked, often enough. It may be there again later; nothing is lost.
    #[error("object storage: could not {action} {object}, tried {attempts} times")]
    Unreachable {
        /// Object or directory, without the prefix.
        object: String,
        /// What was attempted.
        action: &'static str,
        /// How often.
        attempts: u32,
        /// The storage's word, or the network's.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The data directory and the place of its chunks do not belong together. Nothing was touched.
    #[error("{0}")]
    Mismatched(String),
    /// Another process has this store's chunks now. Nothing may be written there any more.
    #[error("{0}")]
    Fenced(String),
}

impl StoreError {
    /// The disk has no room. Nothing is wrong with what is there. A sync that says so may have lost what was written
    /// before, and a rename or removal that says so may have happened: those are faults like any other.
    pub(crate) fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match self {
            Self::Io { action, source, .. } => {
                matches!(source.kind(), StorageFull | QuotaExceeded)
                    && matches!(*action, "create" | "allocate" | "write" | "fill" | "cut")
            }
            Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Unreachable { .. }
            | Self::Mismatched(_)
            | Self::Fenced(_) => false,
        }
    }

    /// Waiting and trying again may help, and nothing is wrong with what is there.
    pub(crate) fn is_passing(&self) -> bool {
        self.is_full() || matches!(self, Self::Unreachable { .. })
    }

    /// What somebody hears whose bytes cannot be had because of this.
    pub(crate) fn refusal(&self) -> Refusal {
        if matches!(self, Self::Unreachable { .. }) { Refusal::Unavailable } else { Refusal::Damaged }
    }

    /// About one chunk, not about the store.
    pub(crate) fn is_in_chunk(&self) -> bool {
        match self {
            Self::Io { path, .. } | Self::Damaged { path, .. } | Self::Newer { path, .. } => {
                path.starts_with("chunks-")
            }
            Self::Unreachable { .. } => true,
            Self::Mismatched(_) | Self::Fenced(_) => false,
        }
    }

    /// The file is gone.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }

    pub(crate) fn damaged(path: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), offset, what: what.into() }
    }

    pub(crate) fn malformed(path: &str, offset: u64) -> impl Fn(Malformed) -> Self {
        move |Malformed(what)| Self::damaged(path, offset, what)
    }
}

/// That stored bytes have the checksum that was stored with them.
///
/// # Errors
/// [`StoreError::Damaged`] with both sums; `what` the bytes are is said in one word or two.
pub(crate) fn verify_sum(path: &str, offset: u64, what: &str, expected: u32, bytes: &[u8]) -> Result<(), StoreError> {
    let found = crc32c::crc32c(bytes);
    if found == expected {
        return Ok(());
    }
    Err(StoreError::damaged(path, offset, format!("{what} has checksum {found:08x}, expected {expected:08x}")))
}

/// Names the file and the deed when the disk refuses.
pub(crate) trait IoContext<T> {
    fn on(self, path: &str, action: &'static str) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for std::io::Result<T> {
    fn on(self, path: &str, action: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { path: path.into(), action, source })
    }
}

#[test]
fn a_wrong_checksum_is_told_with_the_right_one() {
    let verified = |expected| verify_sum("chunks-0000/7.chunk", 64, "block", expected, b"123456789");
    assert!(verified(0xe306_9283).is_ok());
    let told = verified(0xdead_beef).unwrap_err().to_string();
    assert_eq!(told, "chunks-0000/7.chunk at byte 64: block has checksum e3069283, expected deadbeef");
}
