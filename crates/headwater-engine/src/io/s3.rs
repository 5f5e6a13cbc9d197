//! Object storage that speaks S3.
//!
//! Guarantees:
//! * every call ends: each attempt has a time limit, and there are at most [`ATTEMPTS`] of them with growing pauses between
//! * an object is put under the condition that there is none of its name. Whether a put whose reply was lost had happened
//!   is found out by reading back what stands there, never assumed
//! * a body that ends early is not an answer
#![allow(clippy::disallowed_methods, reason = "this is object storage's real implementation")]

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use tokio::runtime::Runtime;

use super::{Content, Objects, RemoteUsage};
use crate::error::{IoContext, StoreError};

/// Times a call is tried.
const ATTEMPTS: u32 = 6;
/// Pause before the second attempt; each following pause is twice as long. All of them together take about six seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest one attempt may take, plus what its bytes take at the slowest rate that is still worth waiting for.
const PATIENCE: Duration = Duration::from_secs(10);
/// See [`PATIENCE`].
const SLOWEST_BYTES_PER_SECOND: u64 = 1 << 20;
/// How long connecting may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// What a reader is given ahead: some 50 ms of a fast network.
const AHEAD_BYTES: u64 = 16 << 20;
/// Reads that pay off at a time: each waits for the network most of its time.
const PARALLEL: usize = 8;
/// Of an object found under a name that was to be put, so many bytes of its beginning and of its end are compared. Every
/// object of ours ends with a checksum over the rest.
const COMPARED_BYTES: usize = 64 << 10;

/// A bucket, and the part of its names that is ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct S3Location {
    bucket: String,
    prefix: String,
}

impl S3Location {
    /// Reads `s3://bucket` or `s3://bucket/prefix`.
    ///
    /// # Errors
    /// What is wrong, for a person.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("s3://").ok_or("is no address such as s3://bucket/prefix")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(letters) {
            return Err("names no bucket: a bucket has lower case letters, digits, dots and dashes".into());
        }
        let prefix = prefix.trim_end_matches('/');
        Path::parse(prefix).map_err(|error| format!("has a prefix that is none: {error}"))?;
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for S3Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)
    }
}

/// Objects in a bucket.
pub struct S3Objects {
    /// Taken when dropped: ending a runtime must not block.
    runtime: Option<Runtime>,
    store: Arc<dyn ObjectStore>,
    location: S3Location,
    requests: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
}

impl fmt::Debug for S3Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("S3Objects").field(&self.location).finish()
    }
}

impl Drop for S3Objects {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl S3Objects {
    /// Makes a client; nothing is asked yet. `settings` are those that S3 tools read from the environment, by their names
    /// there, such as `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`; others are ignored.
    ///
    /// # Errors
    /// What is wrong with the settings, for a person.
    pub fn open(location: S3Location, settings: &[(String, String)]) -> Result<Self, String> {
        // One provider of cryptography in the process; whoever was first has chosen the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::new().with_bucket_name(&location.bucket).with_disable_bulk_delete(true);
        let mut is_plain = false;
        for (name, value) in settings {
            let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() else { continue };
            if matches!(key, AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint) {
                is_plain |= value.starts_with("http://");
            }
            builder = builder.with_config(key, value);
        }
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT_PATIENCE)
            // Attempts are limited here, by their size.
            .with_timeout_disabled()
            .with_allow_http(is_plain);
        let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let store = builder.with_client_options(options).with_retry(retry).build().map_err(|error| chain(&error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("objects")
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self {
            runtime: Some(runtime),
            store: Arc::new(store),
            location,
            requests: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    fn path(&self, name: &str) -> Path {
        let prefix = &self.location.prefix;
        if prefix.is_empty() { Path::from(name) } else { Path::from(format!("{prefix}/{name}")) }
    }

    /// Tries until it is done, cannot be done, or was tried often enough.
    fn attempt<T: Send>(
        &self,
        name: &str,
        action: &'static str,
        bytes: usize,
        call: impl AsyncFn() -> Result<T, Error> + Send,
    ) -> Result<T, StoreError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return self.attempt_here(name, action, bytes, call);
        }
        // A thread of another runtime must not drive this one.
        std::thread::scope(|scope| {
            let attempted = scope.spawn(|| self.attempt_here(name, action, bytes, call)).join();
            attempted.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// In a thread that belongs to no runtime.
    fn attempt_here<T>(
        &self,
        name: &str,
        action: &'static str,
        bytes: usize,
        call: impl AsyncFn() -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        let runtime = self.runtime.as_ref().expect("it is there until the drop");
        let patience = PATIENCE + Duration::from_secs(bytes as u64 / SLOWEST_BYTES_PER_SECOND);
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            self.requests.fetch_add(1, Relaxed);
            let outcome = runtime.block_on(async { tokio::time::timeout(patience, call()).await });
            let source: Box<dyn std::error::Error + Send + Sync> = match outcome {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error @ Error::NotFound { .. })) => {
                    return Err(std::io::Error::new(ErrorKind::NotFound, error)).on(name, action);
                }
                Ok(Err(error @ (Error::AlreadyExists { .. } | Error::Precondition { .. }))) => {
                    return Err(std::io::Error::new(ErrorKind::AlreadyExists, error)).on(name, action);
                }
                Ok(Err(error)) => Box::new(error),
                Err(elapsed) => Box::new(elapsed),
            };
            if attempts == ATTEMPTS {
                self.failures.fetch_add(1, Relaxed);
                return Err(StoreError::Unreachable { object: name.to_owned(), action, attempts, source });
            }
            self.retries.fetch_add(1, Relaxed);
            tracing::debug!(name, action, attempts, error = %chain(&*source), "object storage is asked again");
            runtime.block_on(async { tokio::time::sleep(pause).await });
            pause *= 2;
        }
    }

    /// Whether what stands under a name is what was to be put there.
    fn is_ours(&self, name: &str, parts: &[Bytes], length: usize) -> Result<bool, StoreError> {
        if self.length(name)? != length as u64 {
            return Ok(false);
        }
        let compared = COMPARED_BYTES.min(length);
        let equals = |from: usize| -> Result<bool, StoreError> {
            let mut stored = self.get(name, from as u64, compared)?;
            let mut position = 0;
            for part in parts {
                let begin = from.max(position).min(position + part.len());
                let end = (from + compared).max(position).min(position + part.len());
                if stored.split_to(end - begin) != part[begin - position..end - position] {
                    return Ok(false);
                }
                position += part.len();
            }
            Ok(true)
        };
        Ok(equals(0)? && equals(length - compared)?)
    }
}

impl Objects for S3Objects {
    fn put(&self, name: &str, content: Content<'_>, _pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        let path = self.path(name);
        let expected = content.length();
        let payload: PutPayload = content.collect();
        let length = payload.content_length();
        assert_eq!(length as u64, expected, "content is as long as was said");
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.attempt(name, "put", length, async || {
            self.store.put_opts(&path, payload.clone(), options.clone()).await.map(drop)
        });
        match put {
            Err(StoreError::Io { action, source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                if self.is_ours(name, payload.as_ref(), length)? {
                    return Ok(());
                }
                Err(source).on(name, action)
            }
            put => put,
        }
    }

    fn get(&self, name: &str, offset: u64, length: usize) -> Result<Bytes, StoreError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let path = self.path(name);
        let range = offset..offset + length as u64;
        let (bytes, size) = self.attempt(name, "get", length, async || {
            let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
            let result = self.store.get_opts(&path, options).await?;
            let (size, announced) = (result.meta.size, result.range.clone());
            let bytes = result.bytes().await?;
            if bytes.len() as u64 != announced.end - announced.start || announced.start != range.start {
                let source = format!("{} bytes came where {announced:?} were announced", bytes.len()).into();
                return Err(Error::Generic { store: "S3", source });
            }
            Ok((bytes, size))
        })?;
        if bytes.len() != length {
            let what = format!("object has {size} bytes, those from {offset} to {} are wanted", range.end);
            return Err(std::io::Error::new(ErrorKind::UnexpectedEof, what)).on(name, "get");
        }
        Ok(bytes)
    }

    fn length(&self, name: &str) -> Result<u64, StoreError> {
        let path = self.path(name);
        self.attempt(name, "measure", 0, async || self.store.head(&path).await.map(|meta| meta.size))
    }

    fn give_up(&self, _name: &str) {}

    fn delete(&self, name: &str, _pause: &mut dyn FnMut()) -> Result<(), StoreError> {
        let path = self.path(name);
        match self.attempt(name, "delete", 0, async || self.store.delete(&path).await) {
            Err(error) if error.is_not_found() => Ok(()),
            deleted => deleted,
        }
    }

    fn list(&self, directory: &str) -> Result<Vec<String>, StoreError> {
        Ok(self.lengths(directory)?.into_iter().map(|(name, _)| name).collect())
    }

    fn lengths(&self, directory: &str) -> Result<Vec<(String, u64)>, StoreError> {
        let path = self.path(directory);
        let found: Vec<_> =
            self.attempt(directory, "list", 0, async || self.store.list(Some(&path)).try_collect().await)?;
        let named = |meta: &ObjectMeta| Some((meta.location.filename()?.to_owned(), meta.size));
        let mut lengths: Vec<_> = found.iter().filter_map(named).collect();
        lengths.sort();
        Ok(lengths)
    }

    fn is_empty(&self) -> Result<bool, StoreError> {
        let path = self.path("");
        // The first page is enough, however many there are.
        let first = self.attempt("", "list", 0, async || self.store.list(Some(&path)).try_next().await)?;
        Ok(first.is_none())
    }

    fn ahead_bytes(&self) -> u64 {
        AHEAD_BYTES
    }

    fn parallel(&self) -> usize {
        PARALLEL
    }

    fn remote_usage(&self) -> Option<RemoteUsage> {
        Some(RemoteUsage {
            requests: self.requests.load(Relaxed),
            retries: self.retries.load(Relaxed),
            failures: self.failures.load(Relaxed),
        })
    }
}

/// An error and its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_bucket_and_perhaps_a_prefix() {
        let location = |bucket: &str, prefix: &str| S3Location { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(S3Location::parse("s3://b"), Ok(location("b", "")));
        assert_eq!(S3Location::parse("s3://my-bucket.x/"), Ok(location("my-bucket.x", "")));
        assert_eq!(S3Location::parse("s3://b/some/place/"), Ok(location("b", "some/place")));
        for bad in ["", "b", "s3://", "s3:///x", "http://b/x", "s3://B/x", "s3://b/a//b", "s3://b/../x", "s3://b c/x"] {
            assert!(S3Location::parse(bad).is_err(), "{bad}");
        }
    }
}
