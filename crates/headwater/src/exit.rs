//! How the process ends, for supervisors. Source of the numbers: BSD's `sysexits.h`.

use headwater_server::{StartError, StoreError};

/// What was looked at is not as it should be: `check` and `doctor` say what. Also a `bench` without figures: the run was
/// invalid, or what was read back was not what was written.
pub(crate) const DOUBT: i32 = 1;
/// Another process has taken over this store's chunks in object storage. Nothing more may be written here.
pub(crate) const FENCED: i32 = 69;
/// A bug: an assertion failed or something panicked. What was acknowledged is safe.
pub(crate) const BUG: i32 = 70;
/// Something that has to be ours is not: a port is taken, the data directory is in use by another process or cannot be
/// created or written, object storage does not answer. Nothing was touched; trying again later may help.
pub(crate) const CANNOT_CREATE: i32 = 73;
/// The disk failed, or stored bytes are not what was written.
pub(crate) const DISK: i32 = 74;
/// The settings are wrong, or the data was written by a newer release. Trying again does not help.
pub(crate) const SETTINGS: i32 = 78;

/// The code for a server that did not start.
pub(crate) fn of_start(error: &StartError) -> i32 {
    match error {
        StartError::Insecure { .. }
        | StartError::NotAdvertised { .. }
        | StartError::Advertise { .. }
        | StartError::Memory { .. }
        | StartError::Auth(_)
        | StartError::Tls(_)
        | StartError::Chunks { .. }
        | StartError::Foreign { .. }
        | StartError::NewerRecords { .. } => SETTINGS,
        StartError::Listen { .. } | StartError::Locked { .. } | StartError::DataDirectory { .. } => CANNOT_CREATE,
        StartError::Store { source, .. } => of_store(source),
        // The store answered, but not with what the controller wrote.
        StartError::Controller { .. } => DISK,
    }
}

/// The code for a store that cannot be opened or go on.
pub(crate) fn of_store(error: &StoreError) -> i32 {
    match error {
        StoreError::Io { .. } | StoreError::Damaged { .. } => DISK,
        StoreError::Newer { .. } | StoreError::Mismatched(_) => SETTINGS,
        StoreError::Unreachable { .. } => CANNOT_CREATE,
        StoreError::Fenced(_) => FENCED,
    }
}
