//! The seam to where chunks live: objects that are written once, whole, and never changed.

use std::fmt;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};

use crate::error::StoreError;

/// What a new object is made of: parts in order, whose lengths add up to one that is known before. A part may be made when
/// it is asked for, from those before it: so checksums can be added while the bytes are in the processor's caches anyway.
pub struct Content<'a> {
    length: u64,
    parts: Box<dyn Iterator<Item = Bytes> + 'a>,
}

impl<'a> Content<'a> {
    /// `parts` have `length` bytes together; they are asked for once.
    pub fn new(length: u64, parts: impl Iterator<Item = Bytes> + 'a) -> Self {
        Self { length, parts: Box::new(parts) }
    }

    /// Bytes of all parts together.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// All of it in one piece.
    pub fn concat(self) -> Bytes {
        let length = self.length as usize;
        let mut whole = BytesMut::with_capacity(length);
        self.for_each(|part| whole.extend_from_slice(&part));
        assert_eq!(whole.len(), length, "content is as long as was said");
        whole.freeze()
    }
}

impl Iterator for Content<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.parts.next()
    }
}

impl From<Vec<Bytes>> for Content<'_> {
    fn from(parts: Vec<Bytes>) -> Self {
        Self::new(parts.iter().map(|part| part.len() as u64).sum(), parts.into_iter())
    }
}

impl From<Bytes> for Content<'_> {
    fn from(whole: Bytes) -> Self {
        Self::new(whole.len() as u64, std::iter::once(whole))
    }
}

impl Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("length", &self.length).finish_non_exhaustive()
    }
}

/// A place for objects: a directory ([`Disk`](super::Disk) underneath), or object storage.
///
/// * An object is there whole or not at all, once [`put`](Self::put) returned or the process is gone. Half of one is never
///   found under its name by a later [`get`](Self::get) that returns `Ok`.
/// * What a name held is never replaced; names are not used twice.
/// * Names are `directory/file`, made by the engine from numbers.
///
/// Calls block; they come from threads of the engine that may wait.
pub trait Objects: Debug + Send + Sync + 'static {
    /// Stores a new object, durably, its name included. `pause` is called between writes of about a mebibyte and may take
    /// its time: long bursts of writing delay the journal's commits.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Unreachable`]. The object may be there or not, and the name is used up.
    fn put(&self, name: &str, content: Content<'_>, pause: &mut dyn FnMut()) -> Result<(), StoreError>;

    /// Reads `length` bytes from `offset` on.
    ///
    /// # Errors
    /// [`StoreError::Io`]: `NotFound` if there is no such object or it was given up, `UnexpectedEof` if it ends before.
    /// [`StoreError::Unreachable`].
    fn get(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, StoreError>;

    /// Length of an object in bytes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    fn length(&self, name: &str) -> Result<u64, StoreError>;

    /// Nobody needs the object: from now on it may not be found. [`delete`](Self::delete) follows when there is time.
    fn give_up(&self, name: &str);

    /// Deletes an object; it need not be there. `pause` is called between steps, as for [`put`](Self::put).
    ///
    /// # Errors
    /// [`StoreError::Io`]; the object may be there or not.
    fn delete(&self, name: &str, pause: &mut dyn FnMut()) -> Result<(), StoreError>;

    /// Names of the objects in a directory, without the directory, sorted; empty if there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError>;

    /// Names and lengths of the objects in a directory, as [`list`](Self::list).
    ///
    /// # Errors
    /// Those of [`list`](Self::list) and [`length`](Self::length), except that an object that goes meanwhile is left out.
    fn lengths(&self, directory: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let mut found = Vec::new();
        for name in self.list(directory)? {
            match self.length(&format!("{directory}/{name}")) {
                Err(error) if error.is_not_found() => {}
                length => found.push((name, length?)),
            }
        }
        Ok(found)
    }

    /// Whether there is no object at all.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.list("")?.is_empty())
    }

    /// How far ahead of a sequential reader to fetch, in bytes: about what arrives while one request is under way.
    fn ahead_bytes(&self) -> u64;

    /// Reads under way at a time that pay off.
    fn parallel(&self) -> usize {
        1
    }

    /// Figures, if the objects are somewhere else.
    fn remote_usage(&self) -> Option<RemoteUsage> {
        None
    }
}

/// Figures of object storage.
#[derive(Clone, Copy, Debug, Default)]
pub struct RemoteUsage {
    /// Requests made, repeated ones included.
    pub requests: u64,
    /// Of these, repeated ones.
    pub retries: u64,
    /// Calls given up.
    pub failures: u64,
}
