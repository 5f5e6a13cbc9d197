//! Transactions: events that become readable together, or never.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use headwater_proto::controller as proto;
use headwater_types::{ScopedStream, TransactionId, hash};

use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SegmentRange, stream_info};
use crate::streams::call;
use crate::writer::{Ack, EventWriterOptions, Shared as Writing};

/// How transactions are written.
#[derive(Clone, Debug)]
pub struct TransactionOptions {
    lease: Duration,
    writing: EventWriterOptions,
    writer: Option<String>,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self { lease: Duration::from_secs(90), writing: EventWriterOptions::default(), writer: None }
    }
}

impl TransactionOptions {
    /// How long a transaction stays open without a sign of life of its writer. Servers take 10 s to 10 min; default 90 s. An
    /// open transaction gives signs of life by itself.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Batches, window and linger of each transaction.
    #[must_use]
    pub fn writing(mut self, options: EventWriterOptions) -> Self {
        self.writing = options;
        self
    }

    /// Name under which times are noted when transactions are committed with one. A random one unless given.
    #[must_use]
    pub fn writer(mut self, name: impl Into<String>) -> Self {
        self.writer = Some(name.into());
        self
    }
}

/// What has become of a transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransactionState {
    /// Takes events.
    Open,
    /// Will be committed, whatever happens.
    Committing,
    /// Its events can be read.
    Committed,
    /// Will be aborted, whatever happens.
    Aborting,
    /// Its events are gone.
    Aborted,
    /// It never was, or is forgotten: servers remember those that are over for a day or two.
    Unknown,
}

impl fmt::Display for TransactionState {
    /// One word in small letters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::Aborting => "aborting",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
        })
    }
}

/// Begins transactions on a stream. Cheap to clone.
#[doc = crate::example!("examples/transactions.rs")]
#[derive(Clone, Debug)]
pub struct TransactionWriter {
    client: Client,
    stream: ScopedStream,
    options: Arc<TransactionOptions>,
    writer: Arc<str>,
}

/// An open transaction. It stays open while this lives; afterwards until its lease is over, unless somebody
/// [resumes](TransactionWriter::resume) it.
pub struct Transaction {
    client: Client,
    stream: ScopedStream,
    id: TransactionId,
    writer: Arc<str>,
    writing: Arc<Writing>,
    pinging: tokio::task::JoinHandle<()>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("stream", &self.stream).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.pinging.abort();
    }
}

fn id_to_proto(id: TransactionId) -> proto::TxnId {
    let (high_bits, low_bits) = id.halves();
    proto::TxnId { high_bits, low_bits }
}

/// "No time" in a commit.
const NO_TIME: i64 = i64::MIN;
/// Between two looks at a transaction that is being committed.
const LOOK_EVERY: Duration = Duration::from_millis(5);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(500);

impl Client {
    /// A writer of transactions to a stream.
    pub fn transaction_writer(&self, stream: &ScopedStream, options: TransactionOptions) -> TransactionWriter {
        let writer = options.writer.clone().unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        let (client, stream) = (self.clone(), stream.clone());
        TransactionWriter { client, stream, options: Arc::new(options), writer: writer.into() }
    }

    /// What has become of a transaction.
    ///
    /// # Errors
    /// `NotFound`: no such stream.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn transaction_state(&self, stream: &ScopedStream, id: TransactionId) -> Result<TransactionState> {
        use proto::txn_state::State;
        let asked = proto::TxnRequest {
            stream_info: Some(stream_info(stream)),
            txn_id: Some(id_to_proto(id)),
            ..Default::default()
        };
        Ok(match call!(self, "checkTransactionState", check_transaction_state, asked)?.state() {
            State::Unknown => TransactionState::Unknown,
            State::Open => TransactionState::Open,
            State::Committing => TransactionState::Committing,
            State::Committed => TransactionState::Committed,
            State::Aborting => TransactionState::Aborting,
            State::Aborted => TransactionState::Aborted,
        })
    }

    /// The transactions of a stream that were completed last, newest first, and whether each was committed. Servers tell of
    /// the last 500.
    ///
    /// # Errors
    /// `NotFound`: no such stream.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn completed_transactions(&self, stream: &ScopedStream) -> Result<Vec<(TransactionId, bool)>> {
        let asked = proto::ListCompletedTxnRequest { stream_info: Some(stream_info(stream)) };
        let answer = call!(self, "listCompletedTransactions", list_completed_transactions, asked)?;
        let one = |it: proto::TxnResponse| {
            let committed = it.status() == proto::txn_response::Status::Committed;
            let id = it.txn_id.ok_or_else(|| Error::new(ErrorKind::Protocol, "controller sent no transaction's id"))?;
            Ok((TransactionId::from_halves(id.high_bits, id.low_bits), committed))
        };
        answer.response.into_iter().map(one).collect()
    }
}

impl TransactionWriter {
    /// The stream.
    pub fn stream(&self) -> &ScopedStream {
        &self.stream
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// `NotFound`; `Sealed`; `Invalid`: the server does not take a lease that short or long.
    ///
    /// # Cancel safety
    /// A transaction that nobody knows of may be left; its lease ends it.
    pub async fn begin(&self) -> Result<Transaction> {
        let asked = proto::CreateTxnRequest {
            stream_info: Some(stream_info(&self.stream)),
            lease: self.lease_millis()?,
            scale_grace_period: 0,
        };
        let answer = call!(self.client, "createTransaction", create_transaction, asked)?;
        let id = answer.txn_id.ok_or_else(|| Error::new(ErrorKind::Protocol, "controller sent no transaction's id"))?;
        let id = TransactionId::from_halves(id.high_bits, id.low_bits);
        self.open(id, &SegmentRange::all_of_proto(&answer.active_segments)?)
    }

    /// Takes up an open transaction that this or another process began, in order to write more, commit or abort it.
    /// Events of the one who began it that were not acknowledged may or may not be in it.
    ///
    /// # Errors
    /// `Conflict`: it is not open.
    ///
    /// # Cancel safety
    /// It only asks.
    pub async fn resume(&self, id: TransactionId) -> Result<Transaction> {
        match self.client.transaction_state(&self.stream, id).await? {
            TransactionState::Open => {}
            state => return Err(over(&self.stream, id, state)),
        }
        let segments = self.client.epoch_segments(&self.stream, id.epoch()).await?;
        self.open(id, &segments)
    }

    /// As [`EventWriter::note_end`](crate::EventWriter::note_end), for the times of commits.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn note_end(&self) -> Result<bool> {
        self.client.remove_writer(&self.stream, &self.writer).await
    }

    fn lease_millis(&self) -> Result<i64> {
        i64::try_from(self.options.lease.as_millis())
            .map_err(|_| Error::new(ErrorKind::Invalid, format!("lease of {:?} is too long", self.options.lease)))
    }

    fn open(&self, id: TransactionId, segments: &[SegmentRange]) -> Result<Transaction> {
        if segments.is_empty() {
            return Err(Error::new(ErrorKind::Protocol, "controller sent a transaction without segments"));
        }
        let writing = Writing::open(&self.client, &self.stream, Some(id), segments, &self.options.writing);
        let asked = proto::PingTxnRequest {
            stream_info: Some(stream_info(&self.stream)),
            txn_id: Some(id_to_proto(id)),
            lease: self.lease_millis()?,
        };
        let pinging = ping(self.client.clone(), asked, self.options.lease, id, Arc::downgrade(&writing));
        Ok(Transaction {
            client: self.client.clone(),
            stream: self.stream.clone(),
            id,
            writer: self.writer.clone(),
            writing,
            pinging: tokio::spawn(pinging),
        })
    }
}

/// Keeps a transaction open until it is over.
async fn ping(
    client: Client,
    asked: proto::PingTxnRequest,
    lease: Duration,
    id: TransactionId,
    writing: Weak<Writing>,
) {
    use proto::ping_txn_status::Status;
    loop {
        // Two may get lost.
        tokio::time::sleep(lease / 3).await;
        let answer = call!(client, "pingTransaction", ping_transaction, asked.clone());
        let why = match answer.map(|answer| answer.status()) {
            Ok(Status::Ok | Status::Disconnected) => continue,
            Err(error) if error.kind() == ErrorKind::Unavailable => continue,
            Ok(Status::Committed) => return,
            Ok(Status::Aborted | Status::Unknown) => format!("transaction {id} was aborted"),
            Ok(status) => format!("transaction {id} cannot be kept open: {}", status.as_str_name()),
            Err(error) => format!("transaction {id} cannot be kept open: {error}"),
        };
        if let Some(writing) = writing.upgrade() {
            writing.end(&Error::new(ErrorKind::Conflict, why));
        }
        return;
    }
}

fn over(stream: &ScopedStream, id: TransactionId, state: TransactionState) -> Error {
    let kind = if state == TransactionState::Unknown { ErrorKind::NotFound } else { ErrorKind::Conflict };
    let state = match state {
        TransactionState::Open => "open",
        TransactionState::Committing => "being committed",
        TransactionState::Committed => "committed",
        TransactionState::Aborting => "being aborted",
        TransactionState::Aborted => "aborted",
        TransactionState::Unknown => "not known",
    };
    Error::new(kind, format!("transaction {id} of stream {stream} is {state}"))
}

impl Transaction {
    /// Its identity, by which any process can [resume](TransactionWriter::resume) it.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Hands over an event, which becomes readable with all others of the transaction. As
    /// [`EventWriter::write`](crate::EventWriter::write) otherwise.
    ///
    /// # Errors
    /// As there; `Conflict`: the transaction is not open any more.
    ///
    /// # Cancel safety
    /// As there.
    pub async fn write(&self, routing_key: &str, event: impl Into<Bytes>) -> Result<Ack> {
        self.writing.push(hash::routing_key(routing_key), None, &[event.into()]).await
    }

    /// Waits until everything that was handed over before is stored.
    ///
    /// # Errors
    /// The first failure of any event.
    ///
    /// # Cancel safety
    /// Gives up waiting.
    pub async fn flush(&self) -> Result<()> {
        // Told again and again: a transaction that misses an event must not be committed.
        self.writing.flush(&AtomicU64::new(0)).await
    }

    /// Waits until all events are stored and decides that they become readable. When it returns, they will, whatever
    /// happens; when they are, [`committed`](Committing::committed) tells.
    ///
    /// * `time`: notes, as [`note_time`](crate::EventWriter::note_time) does, that its events are not younger.
    ///
    /// # Errors
    /// * the first failure of any event: the transaction is as before, open, and can be aborted or is by its lease;
    /// * `Conflict`: it is not open any more;
    /// * `Unavailable`: it **may be committed**; ask [`Client::transaction_state`].
    ///
    /// # Cancel safety
    /// It may be committed or not.
    pub async fn commit(self, time: Option<i64>) -> Result<Committing> {
        use proto::txn_status::Status;
        self.flush().await?;
        let asked = proto::TxnRequest {
            stream_info: Some(stream_info(&self.stream)),
            txn_id: Some(id_to_proto(self.id)),
            writer_id: self.writer.to_string(),
            timestamp: time.unwrap_or(NO_TIME),
        };
        let answer = call!(self.client, "commitTransaction", commit_transaction, asked)?;
        let committing = Committing { client: self.client.clone(), stream: self.stream.clone(), id: self.id };
        match answer.status() {
            Status::Success => Ok(committing),
            Status::StreamNotFound | Status::TransactionNotFound => {
                Err(over(&self.stream, self.id, TransactionState::Unknown))
            }
            // A repeated call that was answered before, or a decision of somebody else.
            Status::Failure => match self.client.transaction_state(&self.stream, self.id).await? {
                TransactionState::Committing | TransactionState::Committed => Ok(committing),
                TransactionState::Open => Err(crate::streams::failed("commit a transaction of", &self.stream)),
                state => Err(over(&self.stream, self.id, state)),
            },
        }
    }

    /// Drops all its events.
    ///
    /// # Errors
    /// `Conflict`: it is committed. `Unavailable`: its lease will abort it.
    ///
    /// # Cancel safety
    /// It may be aborted or not.
    pub async fn abort(self) -> Result<()> {
        use proto::txn_status::Status;
        self.writing.end(&Error::new(ErrorKind::Closed, format!("transaction {} is aborted", self.id)));
        let asked = proto::TxnRequest {
            stream_info: Some(stream_info(&self.stream)),
            txn_id: Some(id_to_proto(self.id)),
            writer_id: String::new(),
            timestamp: NO_TIME,
        };
        match call!(self.client, "abortTransaction", abort_transaction, asked)?.status() {
            Status::Success => Ok(()),
            Status::StreamNotFound | Status::TransactionNotFound => {
                Err(over(&self.stream, self.id, TransactionState::Unknown))
            }
            Status::Failure => match self.client.transaction_state(&self.stream, self.id).await? {
                TransactionState::Aborting | TransactionState::Aborted => Ok(()),
                state => Err(over(&self.stream, self.id, state)),
            },
        }
    }
}

/// A transaction that will be committed.
#[derive(Clone, Debug)]
pub struct Committing {
    client: Client,
    stream: ScopedStream,
    id: TransactionId,
}

impl Committing {
    /// Its identity.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// Waits until its events can be read.
    ///
    /// # Errors
    /// `Unavailable`: nobody could be asked; it will be committed all the same.
    ///
    /// # Cancel safety
    /// Gives up waiting.
    pub async fn committed(&self) -> Result<()> {
        let mut pause = LOOK_EVERY;
        loop {
            match self.client.transaction_state(&self.stream, self.id).await? {
                // One that is forgotten has been committed long ago.
                TransactionState::Committed | TransactionState::Unknown => return Ok(()),
                TransactionState::Committing | TransactionState::Open => {}
                state @ (TransactionState::Aborting | TransactionState::Aborted) => {
                    return Err(over(&self.stream, self.id, state));
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_EVERY_MAX);
        }
    }
}
