//! How the process ends, for supervisors. Source of the numbers: BSD's `sysexits.h`.

use headwater_bench::BenchError;
use headwater_client::ErrorKind;
use headwater_server::{StartError, StoreError};

/// What was looked at is not as it should be: `check` and `doctor` say what. Also a `bench` without figures: the run was
/// invalid, or what was read back was not what was written.
pub(crate) const DOUBT: i32 = 1;
/// A command was called in a way that it cannot be.
pub(crate) const USAGE: i32 = 64;
/// What was given or stored is in another state than the command needs.
pub(crate) const DATA: i32 = 65;
/// A file, or something on a store, is not there.
pub(crate) const NO_INPUT: i32 = 66;
/// A store does not answer.
pub(crate) const UNAVAILABLE: i32 = 69;
/// The store has no room; later may be better.
pub(crate) const NOT_NOW: i32 = 75;
/// What answered is not what was expected.
pub(crate) const PROTOCOL: i32 = 76;
/// The store does not know who calls, or says no.
pub(crate) const NO_PERMISSION: i32 = 77;
/// Somebody pressed Ctrl-C: 128 and the signal's number, as shells have it.
pub(crate) const INTERRUPTED: i32 = 130;

/// The code for a measurement without figures.
pub(crate) fn of_bench(error: &BenchError) -> i32 {
    match error {
        BenchError::Setting { .. } => USAGE,
        BenchError::Io { action: "connect to", .. } => UNAVAILABLE,
        _ => DOUBT,
    }
}

/// The code for a command on a store that did not do what it was asked.
pub(crate) fn of_client(kind: ErrorKind) -> i32 {
    match kind {
        ErrorKind::Invalid => USAGE,
        ErrorKind::NotFound => NO_INPUT,
        ErrorKind::AlreadyExists | ErrorKind::Conflict | ErrorKind::Sealed | ErrorKind::Truncated => DATA,
        ErrorKind::Unauthenticated | ErrorKind::Denied => NO_PERMISSION,
        ErrorKind::Unavailable => UNAVAILABLE,
        ErrorKind::Exhausted => NOT_NOW,
        ErrorKind::Unsupported | ErrorKind::Protocol => PROTOCOL,
        ErrorKind::Closed => BUG,
        // A kind that this release does not know yet cannot come from its own client.
        _ => BUG,
    }
}

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
