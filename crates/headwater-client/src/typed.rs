//! Events as values: what becomes of a value when it is written, and what is made of an event that was read.
//!
//! Reading is in two steps. A reader hands out an event, and with that its position has passed it; then
//! [`decode`](GroupEvent::decode) makes a value of it or fails, and whoever reads decides what to do with one that is none: go on
//! behind it, put it aside, or stop.

use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use headwater_types::{ScopedStream, StreamSegment};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::follow::ReadEvent;
use crate::groups::GroupEvent;
use crate::writer::{Ack, EventWriter};

/// How values become events, and events values. `deserialize` makes of what `serialize` made a value like the one it was.
pub trait Serializer<T> {
    /// Why something is none.
    type Error: Into<Box<dyn StdError + Send + Sync>>;

    /// The bytes of an event: at least one.
    ///
    /// # Errors
    /// There are no bytes for this value.
    fn serialize(&self, value: &T) -> Result<Bytes, Self::Error>;

    /// The value of an event.
    ///
    /// # Errors
    /// These bytes are of no value. They may be anybody's: this does not panic, whatever they are.
    fn deserialize(&self, event: Bytes) -> Result<T, Self::Error>;
}

/// Texts in UTF-8, as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Serializer<String> for Utf8 {
    type Error = std::string::FromUtf8Error;

    fn serialize(&self, value: &String) -> Result<Bytes, Self::Error> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn deserialize(&self, event: Bytes) -> Result<String, Self::Error> {
        String::from_utf8(event.into())
    }
}

/// Whatever serde knows, as JSON.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Serializer<T> for Json {
    type Error = serde_json::Error;

    fn serialize(&self, value: &T) -> Result<Bytes, Self::Error> {
        serde_json::to_vec(value).map(Bytes::from)
    }

    fn deserialize(&self, event: Bytes) -> Result<T, Self::Error> {
        serde_json::from_slice(&event)
    }
}

/// An event that is no value of the wanted type.
#[derive(Debug, thiserror::Error)]
#[error("event of {} bytes at {offset} of segment {segment} is no value of its type", event.len())]
pub struct BadEvent {
    /// Where it is.
    pub segment: StreamSegment,
    /// Offset of its header there, in bytes.
    pub offset: u64,
    /// What was written.
    pub event: Bytes,
    /// What the serializer says.
    pub source: Box<dyn StdError + Send + Sync>,
}

fn decode<T, S: Serializer<T>>(
    serializer: &S,
    event: &Bytes,
    segment: impl FnOnce() -> StreamSegment,
    offset: u64,
) -> Result<T, BadEvent> {
    serializer.deserialize(event.clone()).map_err(|error| BadEvent {
        segment: segment(),
        offset,
        event: event.clone(),
        source: error.into(),
    })
}

impl ReadEvent {
    /// The value that it is; `stream` is the one it was read from.
    ///
    /// # Errors
    /// It is none. The reader has passed it all the same: the next call of it goes on behind.
    pub fn decode<T, S: Serializer<T>>(&self, stream: &ScopedStream, serializer: &S) -> Result<T, BadEvent> {
        let segment = || StreamSegment { stream: stream.clone(), id: self.segment };
        decode(serializer, &self.event, segment, self.offset)
    }
}

impl GroupEvent {
    /// The value that it is.
    ///
    /// # Errors
    /// It is none. The reader has passed it all the same: the next call of it goes on behind.
    pub fn decode<T, S: Serializer<T>>(&self, serializer: &S) -> Result<T, BadEvent> {
        decode(serializer, &self.event, || (*self.segment).clone(), self.offset)
    }
}

/// Writes values of one type, as an [`EventWriter`] writes events.
pub struct TypedWriter<T, S> {
    writer: EventWriter,
    serializer: S,
    of: PhantomData<fn(&T)>,
}

impl<T, S> fmt::Debug for TypedWriter<T, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedWriter").field(&self.writer).finish()
    }
}

impl EventWriter {
    /// Writes values of one type instead of bytes.
    pub fn typed<T, S: Serializer<T>>(self, serializer: S) -> TypedWriter<T, S> {
        TypedWriter { writer: self, serializer, of: PhantomData }
    }
}

impl<T, S: Serializer<T>> TypedWriter<T, S> {
    /// Hands over a value, as [`EventWriter::write`] does an event.
    ///
    /// # Errors
    /// As there; `Invalid` also if there are no bytes for it. It counts as not handed over.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn write(&self, routing_key: &str, value: &T) -> Result<Ack> {
        let event = self.serializer.serialize(value);
        let event = event.map_err(|error| Error::caused(ErrorKind::Invalid, "value has no form as an event", error))?;
        self.writer.write(routing_key, event).await
    }

    /// What writes the events: to flush, to note times.
    pub fn writer(&self) -> &EventWriter {
        &self.writer
    }
}
