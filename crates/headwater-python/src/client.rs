//! Clients and embedded stores: scopes and streams, and everything that begins with one.

use std::path::PathBuf;
use std::sync::Arc;

use headwater::client::{
    Client, ClientOptions, Error, EventWriterOptions, Name, ReadFrom, SegmentSlice, TransactionOptions, basic, bearer,
};
use headwater::{Embedded, EmbeddedOptions};
use pyo3::prelude::*;
use tokio::sync::Mutex;

use crate::errors::{invalid, raise};
use crate::oidc::Issuer;
use crate::pending::Pending;
use crate::reading::{NativeSliceReader, NativeStreamReader};
use crate::runtime::entered;
use crate::transactions::NativeTransactionWriter;
use crate::values::{Config, PyEventPointer, PyStreamCut, duration, name, segment, stream, transaction, unsigned};
use crate::writing::NativeEventWriter;

/// A client of one cluster, or of a store in this process.
#[pyclass(frozen, module = "headwater._native", name = "Client")]
pub(crate) struct NativeClient {
    pub(crate) client: Client,
    /// The store, if it is in this process. It stops when it is told to, or when nobody has it any more.
    store: Arc<Mutex<Option<Embedded>>>,
}

/// How a client is made, on its way from `connect`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    trust: Option<Vec<u8>>,
    basic: Option<(String, String)>,
    bearer: Option<String>,
    oidc: Option<Issuer>,
    connect_timeout: Option<f64>,
    request_timeout: Option<f64>,
    retry_for: Option<f64>,
}

#[pyfunction]
pub(crate) fn _connect(address: &str, options: Options) -> PyResult<NativeClient> {
    // It begins to look after its connections at once.
    let _entered = entered()?;
    let mut made = ClientOptions::new(address).map_err(raise)?;
    if let Some(certificates) = options.trust {
        made = made.trusting(&certificates).map_err(raise)?;
    }
    match (options.basic, options.bearer, options.oidc) {
        (Some((user, password)), None, None) => made = made.credentials(basic(&user, &password).map_err(raise)?),
        (None, Some(token), None) => made = made.credentials(bearer(&token).map_err(raise)?),
        (None, None, Some(issuer)) => made = made.credentials(issuer.tokens()?),
        (None, None, None) => {}
        _ => return Err(invalid("a user with a password, a token, or an issuer of tokens, but one of them only")),
    }
    if let Some(limit) = options.connect_timeout {
        made = made.connect_timeout(duration(limit)?);
    }
    if let Some(limit) = options.request_timeout {
        made = made.request_timeout(duration(limit)?);
    }
    if let Some(limit) = options.retry_for {
        made = made.retry_for(duration(limit)?);
    }
    // Nothing else is refused here.
    let untrusting = |error: Error| raise(Error::new(error.kind(), format!("{error}: give them with trust=")));
    Ok(NativeClient { client: made.connect().map_err(untrusting)?, store: Arc::default() })
}

#[pyfunction]
#[pyo3(signature = (directory, memory_bytes, retention_every))]
pub(crate) fn _open(
    directory: Option<PathBuf>,
    memory_bytes: Option<u64>,
    retention_every: Option<f64>,
) -> PyResult<Pending> {
    let mut options = EmbeddedOptions::default();
    if let Some(bytes) = memory_bytes {
        options = options.memory_bytes(bytes);
    }
    if let Some(period) = retention_every {
        options = options.retention_every(duration(period)?);
    }
    Pending::start(async move {
        let store = match directory {
            Some(directory) => Embedded::open_with(directory, options).await?,
            None => Embedded::memory().await?,
        };
        let client = store.client().clone();
        Ok::<_, headwater::StartError>(NativeClient { client, store: Arc::new(Mutex::new(Some(store))) })
    })
}

fn names(names: Vec<Name>) -> Vec<String> {
    names.iter().map(Name::to_string).collect()
}

/// What every writer of events is made with.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct WriterOptions {
    batch_bytes: Option<usize>,
    window_bytes: Option<usize>,
    linger: Option<f64>,
}

impl WriterOptions {
    pub(crate) fn read(self) -> PyResult<EventWriterOptions> {
        let mut options = EventWriterOptions::default();
        if let Some(bytes) = self.batch_bytes {
            options = options.batch_bytes(bytes);
        }
        if let Some(bytes) = self.window_bytes {
            options = options.window_bytes(bytes);
        }
        if let Some(linger) = self.linger {
            options = options.linger(duration(linger)?);
        }
        Ok(options)
    }
}

#[pymethods]
impl NativeClient {
    /// Stops the store, if it is in this process. Ends at once otherwise.
    fn close(&self) -> PyResult<Pending> {
        let store = self.store.clone();
        Pending::start(async move {
            let store = store.lock().await.take();
            if let Some(store) = store {
                store.stop().await;
            }
            Ok::<_, Error>(())
        })
    }

    fn create_scope(&self, scope: &str) -> PyResult<Pending> {
        let (client, scope) = (self.client.clone(), name(scope)?);
        Pending::start(async move { client.create_scope(&scope).await })
    }

    fn delete_scope(&self, scope: &str, recursive: bool) -> PyResult<Pending> {
        let (client, scope) = (self.client.clone(), name(scope)?);
        Pending::start(async move {
            if recursive { client.delete_scope_recursively(&scope).await } else { client.delete_scope(&scope).await }
        })
    }

    fn scope_exists(&self, scope: &str) -> PyResult<Pending> {
        let (client, scope) = (self.client.clone(), name(scope)?);
        Pending::start(async move { client.scope_exists(&scope).await })
    }

    fn scopes(&self) -> PyResult<Pending> {
        let client = self.client.clone();
        Pending::start(async move { client.scopes().await.map(names) })
    }

    fn create_stream(&self, stream: &str, config: Config) -> PyResult<Pending> {
        let (client, stream, config) = (self.client.clone(), self::stream(stream)?, config.read()?);
        Pending::start(async move { client.create_stream(&stream, &config).await })
    }

    fn update_stream(&self, stream: &str, config: Config) -> PyResult<Pending> {
        let (client, stream, config) = (self.client.clone(), self::stream(stream)?, config.read()?);
        Pending::start(async move { client.update_stream(&stream, &config).await })
    }

    fn stream_config(&self, stream: &str) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move { client.stream_config(&stream).await.map(Config::of) })
    }

    fn stream_exists(&self, stream: &str) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move { client.stream_exists(&stream).await })
    }

    fn streams(&self, scope: &str, tag: Option<String>) -> PyResult<Pending> {
        let (client, scope) = (self.client.clone(), name(scope)?);
        Pending::start(async move {
            match tag {
                Some(tag) => client.streams_with_tag(&scope, &tag).await.map(names),
                None => client.streams(&scope).await.map(names),
            }
        })
    }

    fn seal_stream(&self, stream: &str) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move { client.seal_stream(&stream).await })
    }

    fn delete_stream(&self, stream: &str, seal: bool) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move {
            if seal {
                match client.seal_stream(&stream).await {
                    Err(error) if error.kind() == headwater::client::ErrorKind::NotFound => return Ok(false),
                    other => other?,
                }
            }
            client.delete_stream(&stream).await
        })
    }

    fn truncate_stream(&self, cut: &PyStreamCut) -> PyResult<Pending> {
        let (client, cut) = (self.client.clone(), cut.0.clone());
        Pending::start(async move { client.truncate_stream(&cut).await })
    }

    fn head_cut(&self, stream: &str) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move { client.head_cut(&stream).await.map(PyStreamCut) })
    }

    fn tail_cut(&self, stream: &str) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move { client.tail_cut(&stream).await.map(PyStreamCut) })
    }

    /// Id, lowest and highest key of each segment.
    fn segments(&self, stream: &str, epoch: Option<i32>) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move {
            let segments = match epoch {
                Some(epoch) => client.epoch_segments(&stream, epoch).await?,
                None => client.current_segments(&stream).await?,
            };
            let one = |it: &headwater::client::SegmentRange| (it.id.as_i64(), it.range.low(), it.range.high());
            Ok::<_, Error>(segments.iter().map(one).collect::<Vec<_>>())
        })
    }

    /// Start, end, whether it is sealed, and when it was changed last in seconds since 1970.
    fn segment_info(&self, stream: &str, segment: i64) -> PyResult<Pending> {
        let (client, stream, segment) = (self.client.clone(), self::stream(stream)?, self::segment(segment)?);
        Pending::start(async move {
            let info = client.segment_info(&stream, segment).await?;
            Ok::<_, Error>((info.start, info.end, info.sealed, info.last_modified as f64 / 1000.0))
        })
    }

    /// Id, lowest and highest key of each segment that follows, and what it follows on.
    fn successors(&self, stream: &str, segment: i64) -> PyResult<Pending> {
        let (client, stream, segment) = (self.client.clone(), self::stream(stream)?, self::segment(segment)?);
        Pending::start(async move {
            let successors = client.successors(&stream, segment).await?;
            let one = |it: &headwater::client::Successor| {
                let before: Vec<_> = it.predecessors.iter().map(|id| id.as_i64()).collect();
                (it.segment.id.as_i64(), it.segment.range.low(), it.segment.range.high(), before)
            };
            Ok::<_, Error>(successors.iter().map(one).collect::<Vec<_>>())
        })
    }

    /// As SCOPE/GROUP.
    fn subscribers(&self, stream: &str) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move { client.subscribers(&stream).await })
    }

    fn remove_writer(&self, stream: &str, writer: String) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move { client.remove_writer(&stream, &writer).await })
    }

    fn reader_groups(&self, scope: &str) -> PyResult<Pending> {
        let (client, scope) = (self.client.clone(), name(scope)?);
        Pending::start(async move { client.reader_groups(&scope).await.map(names) })
    }

    fn scale_stream(&self, stream: &str, sealed: Vec<i64>, ranges: Vec<(f64, f64)>) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        let sealed = sealed.into_iter().map(segment).collect::<PyResult<Vec<_>>>()?;
        let range = |(low, high)| headwater::client::KeyRange::new(low, high).map_err(invalid);
        let ranges = ranges.into_iter().map(range).collect::<PyResult<Vec<_>>>()?;
        Pending::start(async move { client.scale_stream(&stream, &sealed, &ranges).await })
    }

    fn event_writer(&self, stream: &str, options: WriterOptions) -> PyResult<Pending> {
        let (client, stream, options) = (self.client.clone(), self::stream(stream)?, options.read()?);
        Pending::start(async move { client.event_writer(&stream, options).await.map(NativeEventWriter::of) })
    }

    fn transaction_writer(
        &self,
        stream: &str,
        options: WriterOptions,
        lease: Option<f64>,
        writer: Option<String>,
    ) -> PyResult<NativeTransactionWriter> {
        let mut made = TransactionOptions::default().writing(options.read()?);
        if let Some(lease) = lease {
            made = made.lease(duration(lease)?);
        }
        if let Some(writer) = writer {
            made = made.writer(writer);
        }
        Ok(NativeTransactionWriter::of(self.client.transaction_writer(&self::stream(stream)?, made)))
    }

    fn transaction_state(&self, stream: &str, id: &str) -> PyResult<Pending> {
        let (client, stream, id) = (self.client.clone(), self::stream(stream)?, transaction(id)?);
        Pending::start(async move { client.transaction_state(&stream, id).await.map(|state| state.to_string()) })
    }

    /// Ids of those completed last, newest first, and whether each was committed.
    fn completed_transactions(&self, stream: &str) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        Pending::start(async move {
            let completed = client.completed_transactions(&stream).await?;
            let completed = completed.into_iter().map(|(id, committed)| (id.to_string(), committed));
            Ok::<_, Error>(completed.collect::<Vec<_>>())
        })
    }

    /// From the head, the tail, or a cut; up to a cut, for ever, or up to what is there now.
    fn stream_reader(
        &self,
        stream: &str,
        from: &Bound<'_, PyAny>,
        until: Option<PyRef<'_, PyStreamCut>>,
        to_tail: bool,
    ) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        let from = match from.cast::<PyStreamCut>() {
            Ok(cut) => ReadFrom::Cut(cut.get().0.clone()),
            Err(_) => match from.extract::<String>()?.as_str() {
                "head" => ReadFrom::Head,
                "tail" => ReadFrom::Tail,
                other => return Err(invalid(format_args!("{other:?} is neither \"head\" nor \"tail\" nor a cut"))),
            },
        };
        let until = until.map(|cut| cut.0.clone());
        Pending::start(async move {
            // A tail that was looked for first may lie before the one where the reader begins.
            let reader = client.stream_reader(&stream, from).await?;
            let until = if to_tail { Some(client.tail_cut(&stream).await?) } else { until };
            Ok::<_, Error>(NativeStreamReader::of(reader, until))
        })
    }

    fn fetch_event(&self, pointer: &PyEventPointer) -> PyResult<Pending> {
        let (client, pointer) = (self.client.clone(), pointer.0.clone());
        Pending::start(async move { client.fetch_event(&pointer).await })
    }

    fn next_cut(&self, cut: &PyStreamCut, bytes: &Bound<'_, PyAny>) -> PyResult<Pending> {
        let (client, cut, bytes) = (self.client.clone(), cut.0.clone(), unsigned(bytes, "number of bytes")?);
        Pending::start(async move { client.next_cut(&cut, bytes).await.map(PyStreamCut) })
    }

    /// Segment, start and end of each slice.
    fn slices(
        &self,
        stream: &str,
        start: Option<PyRef<'_, PyStreamCut>>,
        end: Option<PyRef<'_, PyStreamCut>>,
    ) -> PyResult<Pending> {
        let (client, stream) = (self.client.clone(), self::stream(stream)?);
        let (start, end) = (start.map(|cut| cut.0.clone()), end.map(|cut| cut.0.clone()));
        Pending::start(async move {
            let slices = client.slices_between(&stream, start.as_ref(), end.as_ref()).await?;
            Ok::<_, Error>(slices.iter().map(|it| (it.segment.as_i64(), it.start, it.end)).collect::<Vec<_>>())
        })
    }

    fn read_slice(&self, stream: &str, segment: i64, start: u64, end: u64) -> PyResult<NativeSliceReader> {
        let (stream, segment) = (self::stream(stream)?, self::segment(segment)?);
        let _entered = entered()?;
        let reader = self.client.read_slice(&SegmentSlice { stream: stream.clone(), segment, start, end });
        Ok(NativeSliceReader::of(reader, stream, segment))
    }
}
