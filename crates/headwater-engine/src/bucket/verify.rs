//! Judging a bucket that no server uses, beside its chunks: whose it is, and whether the copies of the catalogues are what
//! was written.

use std::collections::BTreeSet;

use crate::error::StoreError;
use crate::store::Identity;

use super::copy::{newest_copy, path_of, start_of};
use super::local::Local;
use super::start::{check_store, current_start};
use super::{BucketOptions, copy};

/// What there is of one container's catalogue.
#[derive(Debug, Default)]
pub(crate) struct BucketCheck {
    /// There is a copy.
    pub(crate) is_copied: bool,
    /// What is wrong with the newest copy.
    pub(crate) bad: Vec<StoreError>,
    /// Objects that no store makes.
    pub(crate) foreign: Vec<String>,
    /// Objects that the newest copy does not need.
    pub(crate) unneeded: Vec<String>,
}

/// Words for a person if the directory has not seen the newest start of its bucket.
///
/// # Errors
/// [`StoreError::Mismatched`] if it is another store's bucket or nobody's; [`StoreError::Unreachable`].
pub(crate) fn outdated(
    options: &BucketOptions,
    identity: &Identity,
    local: &Local,
) -> Result<Option<String>, StoreError> {
    check_store(options, identity)?;
    Ok(current_start(options, identity, local)?.err())
}

impl BucketCheck {
    /// Reads the newest copy of a container's catalogue. `go_on` is told how many bytes were read from which object and
    /// may end the reading.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`], [`StoreError::Newer`]. Damage is not one.
    pub(crate) fn read(
        options: &BucketOptions,
        store: u128,
        container: u32,
        go_on: &mut dyn FnMut(u64, &str) -> bool,
    ) -> Result<Self, StoreError> {
        let objects = &*options.objects;
        let mut check = Self::default();
        let names = objects.list(&copy::directory(container))?;
        let mut needed = BTreeSet::new();
        match newest_copy(objects, store, container) {
            Ok(None) => {}
            Ok(Some((name, copy))) => {
                check.is_copied = true;
                needed.insert(name);
                for part in copy.parts() {
                    needed.insert(part.name.clone());
                    match part.read(objects, container) {
                        Ok(_) => {}
                        Err(error @ StoreError::Unreachable { .. }) => return Err(error),
                        Err(error) => check.bad.push(error),
                    }
                    if !go_on(part.length, &path_of(container, &part.name)) {
                        return Ok(check);
                    }
                }
            }
            Err(error @ (StoreError::Unreachable { .. } | StoreError::Newer { .. })) => return Err(error),
            Err(error) => {
                // Which of the others it needed is not known.
                check.is_copied = true;
                check.bad.push(error);
                needed.extend(names.iter().filter(|name| start_of(name).is_some()).cloned());
            }
        }
        for name in names {
            let path = path_of(container, &name);
            if start_of(&name).is_none() {
                check.foreign.push(path);
            } else if !needed.contains(&name) {
                check.unneeded.push(path);
            }
        }
        Ok(check)
    }
}
