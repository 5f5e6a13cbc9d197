//! Object storage as the command line names it. Endpoint, region and credentials come from the variables that S3 tools use.

use std::sync::Arc;

use headwater_server::{BucketOptions, S3Location, S3Objects};

/// Start of the variables that S3 tools use.
const PREFIX: &str = "AWS_";

/// These variables of this process.
pub(crate) fn settings() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

/// Objects at a place; nothing is asked yet.
///
/// # Errors
/// What is wrong with the variables, for a person.
pub(crate) fn open(location: &S3Location) -> Result<Arc<S3Objects>, String> {
    let opened = S3Objects::open(location.clone(), &settings());
    opened.map(Arc::new).map_err(|reason| format!("{location} cannot be used: {reason}"))
}

/// A store's chunks at a place.
///
/// # Errors
/// As [`open`].
pub(crate) fn chunks(location: &S3Location) -> Result<BucketOptions, String> {
    Ok(BucketOptions { objects: open(location)?, shown: location.to_string(), recover: false })
}
