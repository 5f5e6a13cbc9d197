//! What operators want to know of a stream and Pravega's interface does not tell: how busy its segments are, its epochs
//! over time, its transactions under way. And which transactions are open on the whole server.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use headwater_auth::{HttpRoute, Resource};
use headwater_controller::Controller;
use headwater_controller::model::{
    EpochRecord, LiveTransaction, ScalingKind, SegmentHeat, SegmentRange, TransactionState,
};
use headwater_types::ScopedStream;
use serde::Serialize;

use super::{Asked, lists};
use crate::auth::{Caller, Guard};
use crate::http::Pages;
use crate::problem::Problem;

/// Epochs read at a time; one has up to 10,000 segments.
const EPOCHS_PAGE: usize = 16;
/// Most transactions of one answer.
const TRANSACTIONS_MAX: i64 = 1000;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Segment {
    /// As in stream cuts: epoch of creation times 2^32, plus number.
    segment_id: String,
    number: i32,
    /// Epoch of its creation.
    epoch: i32,
    key_start: f64,
    key_end: f64,
}

impl From<SegmentRange> for Segment {
    fn from(segment: SegmentRange) -> Self {
        Self {
            segment_id: segment.id.as_i64().to_string(),
            number: segment.id.number,
            epoch: segment.id.epoch,
            key_start: segment.range.low(),
            key_end: segment.range.high(),
        }
    }
}

/// Averages over the last minutes.
#[derive(Debug, Serialize)]
struct Rates {
    #[serde(rename = "2m")]
    two: f64,
    #[serde(rename = "5m")]
    five: f64,
    #[serde(rename = "10m")]
    ten: f64,
    #[serde(rename = "20m")]
    twenty: f64,
}

impl From<[f64; 4]> for Rates {
    fn from([two, five, ten, twenty]: [f64; 4]) -> Self {
        Self { two, five, ten, twenty }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Heat {
    #[serde(flatten)]
    segment: Segment,
    events_per_second: Rates,
    kilobytes_per_second: Rates,
}

impl From<SegmentHeat> for Heat {
    fn from(heat: SegmentHeat) -> Self {
        Self {
            segment: heat.segment.into(),
            events_per_second: heat.events_per_second.into(),
            kilobytes_per_second: heat.kilobytes_per_second.into(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StreamHeat {
    /// What the stream scales by: `events`, `kilobytes`, or `nothing`.
    scales_by: &'static str,
    /// Rate of one segment that it aims at, in that unit per second.
    target_rate: Option<i32>,
    segments: Vec<Heat>,
}

/// `GET /v1/scopes/{scope}/streams/{stream}/heat`: rates of the open segments, by ascending key; none of a sealed
/// stream.
pub(crate) async fn heat(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let stream = super::stream(&scope, &stream)?;
    let scaling = controller.stream_configuration(&stream).await?.scaling;
    let (scales_by, target_rate) = match scaling.kind {
        ScalingKind::Fixed => ("nothing", None),
        ScalingKind::Events => ("events", Some(scaling.target_rate)),
        ScalingKind::Kilobytes => ("kilobytes", Some(scaling.target_rate)),
    };
    let segments = controller.segment_heat(&stream).await?.into_iter().map(Heat::from).collect();
    Ok(Json(StreamHeat { scales_by, target_rate, segments }).into_response())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Epoch {
    epoch: i32,
    /// The epoch whose layout it repeats: another one after a commit over a scale.
    reference_epoch: i32,
    /// In milliseconds since 1970.
    began_at: i64,
    segments: Vec<Segment>,
}

impl From<EpochRecord> for Epoch {
    fn from(record: EpochRecord) -> Self {
        Self {
            epoch: record.epoch,
            reference_epoch: record.reference,
            began_at: record.created_ms,
            segments: record.segments.into_iter().map(|(segment, _)| segment.into()).collect(),
        }
    }
}

/// `GET /v1/scopes/{scope}/streams/{stream}/epochs`: all of them, oldest first, or `limit` of them from number `first`
/// on.
pub(crate) async fn epochs(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
    asked: Asked,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let stream = super::stream(&scope, &stream)?;
    let first = asked.number("first", 0..=i32::MAX.into())?.unwrap_or(0);
    let limit = asked.number("limit", 1..=lists::LIMIT_MAX)?.map_or(usize::MAX, |limit| limit as usize);
    let first = i32::try_from(first).expect("it is in the range of epochs");
    let epochs = epochs_from(controller.clone(), stream, first);
    let epochs = epochs.map_ok(|page| page.into_iter().map(Epoch::from).collect::<Vec<_>>());
    lists::document("{\"epochs\":[", "]}", limit, epochs.boxed()).await
}

/// Epochs of a stream, page by page.
pub(super) fn epochs_from(
    controller: Controller,
    stream: ScopedStream,
    first: i32,
) -> BoxStream<'static, Result<Vec<EpochRecord>, Problem>> {
    stream::try_unfold((controller, stream, first), async |(controller, stream, first)| {
        let page = controller.epochs(&stream, first, EPOCHS_PAGE).await?;
        let Some(last) = page.last() else { return Ok(None) };
        let next = last.epoch + 1;
        Ok(Some((page, (controller, stream, next))))
    })
    .boxed()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    /// As Java clients write it.
    id: String,
    state: &'static str,
    /// In milliseconds since 1970.
    opened_at: i64,
    lease_millis: i64,
    /// When it is aborted unless its writer is heard of before; of an open one only.
    aborted_at: Option<i64>,
}

impl From<LiveTransaction> for Transaction {
    fn from(transaction: LiveTransaction) -> Self {
        let is_open = transaction.state == TransactionState::Open;
        Self {
            id: uuid::Uuid::from_u128(transaction.id.0).to_string(),
            state: match transaction.state {
                TransactionState::Open => "OPEN",
                TransactionState::Committing => "COMMITTING",
                TransactionState::Aborting => "ABORTING",
                TransactionState::Unknown | TransactionState::Committed | TransactionState::Aborted => {
                    unreachable!("a transaction that is over is not alive")
                }
            },
            opened_at: transaction.created_ms,
            lease_millis: transaction.lease_ms,
            aborted_at: is_open.then_some(transaction.expires_ms),
        }
    }
}

#[derive(Debug, Serialize)]
struct Transactions {
    transactions: Vec<Transaction>,
    /// Where the next page begins; `null` at the end.
    next: Option<String>,
}

/// `GET /v1/scopes/{scope}/streams/{stream}/transactions`: those that are not over; `limit` of them (100), going on at
/// the place `next` of the answer before.
pub(crate) async fn transactions(
    State(pages): State<Pages>,
    Path((scope, stream)): Path<(String, String)>,
    asked: Asked,
) -> Result<Response, Problem> {
    let controller = pages.controller()?;
    let stream = super::stream(&scope, &stream)?;
    let limit = asked.number("limit", 1..=TRANSACTIONS_MAX)?.unwrap_or(100);
    let token = asked.text("next")?.unwrap_or_default();
    let page = controller.live_transactions(&stream, token, limit as usize).await?;
    let transactions = page.transactions.into_iter().map(Transaction::from).collect();
    Ok(Json(Transactions { transactions, next: page.token }).into_response())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenTransaction {
    scope_name: String,
    stream_name: String,
    #[serde(flatten)]
    transaction: Transaction,
}

#[derive(Debug, Serialize)]
struct OpenTransactions {
    transactions: Vec<OpenTransaction>,
    /// Where the next page begins; `null` at the end.
    next: Option<String>,
}

/// `GET /v1/transactions`: open ones of all streams that the caller may read; `limit` of them (100) at most, going on
/// at the place `next` of the answer before. The place may be of a stream that they may not read, so it is sealed.
pub(crate) async fn open_transactions(
    State(pages): State<Pages>,
    Extension(caller): Extension<Caller>,
    Extension(guard): Extension<Guard>,
    asked: Asked,
) -> Result<Response, Problem> {
    let (controller, list) = (pages.controller()?, HttpRoute::OpenTransactions.path());
    let limit = asked.number("limit", 1..=TRANSACTIONS_MAX)?.unwrap_or(100);
    let place = guard.unseal(list, asked.text("next")?.unwrap_or_default().to_owned());
    let place = place.ok_or_else(|| Problem::bad("next is none of ours"))?;
    let page = controller.open_transactions(&place, limit as usize).await?;
    let sees = |stream: &ScopedStream| caller.sees(Resource::Stream(stream.scope.as_str(), stream.stream.as_str()));
    let seen = page.transactions.into_iter().filter(|(stream, _)| sees(stream));
    let transactions = seen.map(|(stream, transaction)| OpenTransaction {
        scope_name: stream.scope.to_string(),
        stream_name: stream.stream.to_string(),
        transaction: transaction.into(),
    });
    let next = page.token.map(|place| guard.seal(list, place));
    Ok(Json(OpenTransactions { transactions: transactions.collect(), next }).into_response())
}
