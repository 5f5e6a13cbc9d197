//! What is asked of segment stores: where a segment is, the token it wants, and requests that are repeated.
//!
//! Guarantees:
//! * a request that does no harm twice is repeated after lost connections, moved segments and expired tokens
//! * one that might is sent once: [`ErrorKind::Unavailable`] then says that it may have happened

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use headwater_proto::controller as proto;
use headwater_proto::controller::stream_info::AccessOperation;
use headwater_types::{AttributeId, Name, ScopedStream, SegmentId, SegmentName};
use headwater_wire::{ErrorCode, Reply, Request, Text, Token, TokenFailure};

use crate::connection::Connection;
use crate::controller::Controllers;
use crate::endpoint::Endpoint;
use crate::error::{Error, ErrorKind, Result};
use crate::model::SegmentInfo;
use crate::pool::{Lease, Pool};
use crate::retry::Backoff;

/// Remembered places of segments. Beyond that all are asked for again.
const PLACES_MAX: usize = 10_000;
/// Segments, epochs or attributes that are asked for at a time.
pub(crate) const ASKED_AT_ONCE: usize = 16;
/// A token is not used when it has less than this to live. Source: Pravega's clients refresh 5 s before the end.
const TOKEN_MARGIN: Duration = Duration::from_secs(5);

/// Whether a request does harm when it is done twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repeat {
    Harmless,
    Never,
}

/// A segment, and what the controller has to be asked about it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Target {
    pub(crate) name: SegmentName,
    /// Stream and segment that tell where it is.
    located: (Named, SegmentId),
    /// Stream whose token it wants, and for what.
    token_for: (Named, i32),
}

/// A stream by the names that the controller is told, of which not all are names that a stream can have.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
struct Named {
    scope: Arc<str>,
    stream: Arc<str>,
}

impl Named {
    fn stream(stream: &ScopedStream) -> Self {
        Self { scope: stream.scope.as_str().into(), stream: stream.stream.as_str().into() }
    }

    fn info(&self, access: i32) -> proto::StreamInfo {
        proto::StreamInfo { scope: self.scope.to_string(), stream: self.stream.to_string(), access_operation: access }
    }
}

impl Target {
    pub(crate) fn new(stream: &ScopedStream, id: SegmentId, access: AccessOperation) -> Self {
        let named = Named::stream(stream);
        Self { name: stream.segment(id), located: (named.clone(), id), token_for: (named, access.into()) }
    }

    /// A partition of a table. The controller knows the table by its name, or, if a client has made it by itself, the whole by
    /// the name of its segments.
    pub(crate) fn partition(
        scope: &Name,
        table: &Name,
        id: SegmentId,
        is_known: bool,
    ) -> Result<Self, headwater_types::NameError> {
        let named = |stream: &str| Named { scope: scope.as_str().into(), stream: stream.into() };
        let located = named(&format!("{table}_kvtable"));
        let token_for = if is_known { named(table.as_str()) } else { located.clone() };
        let name = SegmentName::parse(&format!("{scope}/{table}_kvtable/{id}"))?;
        Ok(Self { name, located: (located, id), token_for: (token_for, AccessOperation::ReadWrite.into()) })
    }

    /// The same place and permission under another name: a transaction's or transient segment.
    pub(crate) fn named(&self, name: SegmentName) -> Self {
        Self { name, ..self.clone() }
    }

    pub(crate) fn text(&self) -> Text {
        self.name.as_str().into()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SegmentStores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    controllers: Controllers,
    pool: Pool,
    places: Mutex<BTreeMap<(Named, SegmentId), Endpoint>>,
    tokens: Mutex<BTreeMap<(Named, i32), (Token, SystemTime)>>,
    request_timeout: Duration,
    retry_for: Duration,
}

impl SegmentStores {
    pub(crate) fn new(controllers: Controllers, pool: Pool, request_timeout: Duration, retry_for: Duration) -> Self {
        let (places, tokens) = (Mutex::default(), Mutex::default());
        Self { shared: Arc::new(Shared { controllers, pool, places, tokens, request_timeout, retry_for }) }
    }

    pub(crate) fn retry_for(&self) -> Duration {
        self.shared.retry_for
    }

    /// How long one attempt may take to be answered.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.shared.request_timeout
    }

    /// Where the segment is served.
    pub(crate) async fn place(&self, target: &Target) -> Result<Endpoint> {
        if let Some(endpoint) = self.shared.places.lock().expect(HELD).get(&target.located) {
            return Ok(endpoint.clone());
        }
        let (stream, id) = &target.located;
        let info = stream.info(AccessOperation::Unspecified.into());
        let asked = proto::SegmentId { stream_info: Some(info), segment_id: id.as_i64() };
        let node = self
            .shared
            .controllers
            .call("getURI", asked, |mut stub, request| async move { stub.get_uri(request).await });
        let node = node.await?;
        let port = u16::try_from(node.port).ok().filter(|port| *port > 0 && !node.endpoint.is_empty());
        let port = port.ok_or_else(|| Error::new(ErrorKind::Protocol, "controller names no segment store"))?;
        let endpoint = Endpoint::new(node.endpoint, port);
        let mut places = self.shared.places.lock().expect(HELD);
        if places.len() >= PLACES_MAX {
            places.clear();
        }
        places.insert(target.located.clone(), endpoint.clone());
        Ok(endpoint)
    }

    /// The segment may be elsewhere, or its server gone.
    pub(crate) fn forget_place(&self, target: &Target) {
        self.shared.places.lock().expect(HELD).remove(&target.located);
    }

    /// What the segment store wants to see; empty without authentication.
    pub(crate) async fn token(&self, target: &Target) -> Result<Token> {
        if !self.shared.controllers.has_credentials() {
            return Ok(Token::default());
        }
        if let Some((token, until)) = self.shared.tokens.lock().expect(HELD).get(&target.token_for)
            && now() + TOKEN_MARGIN < *until
        {
            return Ok(token.clone());
        }
        let (stream, access) = &target.token_for;
        let asked = stream.info(*access);
        let call = self.shared.controllers.call("getDelegationToken", asked, |mut stub, request| async move {
            stub.get_delegation_token(request).await
        });
        let text = call.await?.delegation_token;
        let until = expiry(&text);
        let token = Token::new(text);
        let mut tokens = self.shared.tokens.lock().expect(HELD);
        tokens.retain(|_, (_, until)| now() < *until);
        tokens.insert(target.token_for.clone(), (token.clone(), until));
        Ok(token)
    }

    pub(crate) fn forget_token(&self, target: &Target) {
        self.shared.tokens.lock().expect(HELD).remove(&target.token_for);
    }

    /// A connection for one user to where the segment is.
    pub(crate) async fn lease(&self, target: &Target) -> Result<Lease> {
        self.lease_within(target, Duration::MAX).await
    }

    /// As [`lease`](Self::lease); the segment store has so much time to take a connection.
    async fn lease_within(&self, target: &Target, limit: Duration) -> Result<Lease> {
        let endpoint = self.place(target).await?;
        let lease = self.shared.pool.lease(&endpoint, limit).await;
        lease.inspect_err(|_| self.forget_place(target))
    }

    /// A connection that others use, too, to where the segment is.
    pub(crate) async fn share(&self, target: &Target) -> Result<Connection> {
        let endpoint = self.place(target).await?;
        let connection = self.shared.pool.share(&endpoint).await;
        connection.inspect_err(|_| self.forget_place(target))
    }

    /// A connection of one's own to a server.
    pub(crate) async fn open(&self, endpoint: &Endpoint) -> Result<Connection> {
        self.shared.pool.open(endpoint).await
    }

    /// Asks until there is an answer about the segment itself.
    pub(crate) async fn ask(
        &self,
        target: &Target,
        repeat: Repeat,
        make: impl Fn(i64, Text, Token) -> Request,
    ) -> Result<Reply> {
        let mut backoff = Backoff::for_at_most(self.shared.retry_for);
        loop {
            let error = match self.ask_once(target, backoff.attempt(self.shared.request_timeout), &make).await {
                Ok(reply) => match self.judge(target, reply) {
                    Verdict::Answer(reply) => return Ok(reply),
                    Verdict::Refused(error) => return Err(error),
                    // Nothing was done: it can be repeated whatever it is.
                    Verdict::Again(error) => error,
                },
                Err((error, sent)) => {
                    if error.kind() != ErrorKind::Unavailable || (sent && repeat == Repeat::Never) {
                        return Err(error);
                    }
                    self.forget_place(target);
                    error
                }
            };
            tracing::debug!(target: crate::told::RETRY, segment = %target.name, %error, "segment store did not answer");
            if !backoff.pause().await {
                return Err(error);
            }
        }
    }

    /// One attempt, whose parts may take `limit` each; in an error, whether the request may have been sent.
    async fn ask_once(
        &self,
        target: &Target,
        limit: Duration,
        make: impl Fn(i64, Text, Token) -> Request,
    ) -> Result<Reply, (Error, bool)> {
        let not_sent = |error| (error, false);
        let lease = self.lease_within(target, limit).await.map_err(not_sent)?;
        let token = self.token(target).await.map_err(not_sent)?;
        let reply = tokio::time::timeout(limit, lease.call(|id| make(id, target.text(), token))).await;
        reply
            .unwrap_or_else(|_| {
                let what = format!("segment store did not answer about {} within {limit:.1?}", target.name);
                Err(Error::new(ErrorKind::Unavailable, what))
            })
            .map_err(|error| (error, true))
    }

    /// Tells answers from refusals, and from what another attempt may change.
    pub(crate) fn judge(&self, target: &Target, reply: Reply) -> Verdict {
        let refused = |kind, what: String| Verdict::Refused(Error::new(kind, format!("{}: {what}", target.name)));
        match reply {
            Reply::WrongHost { .. } => {
                self.forget_place(target);
                let what = format!("{} is not served where the controller says", target.name);
                Verdict::Again(Error::new(ErrorKind::Unavailable, what))
            }
            Reply::AuthTokenCheckFailed { failure: TokenFailure::Expired, .. } => {
                self.forget_token(target);
                Verdict::Again(Error::new(ErrorKind::Unauthenticated, format!("{}: token has expired", target.name)))
            }
            Reply::AuthTokenCheckFailed { .. } => refused(ErrorKind::Denied, "token was refused".to_owned()),
            Reply::OperationUnsupported { operation, .. } => {
                refused(ErrorKind::Unsupported, format!("segment store does not support {operation}"))
            }
            Reply::ErrorMessage { message, code: ErrorCode::IllegalArgument, .. } => {
                refused(ErrorKind::Invalid, message.to_string())
            }
            Reply::ErrorMessage { message, code: ErrorCode::Unspecified, .. } => {
                refused(ErrorKind::Unavailable, message.to_string())
            }
            reply => Verdict::Answer(reply),
        }
    }

    /// What the segment holds now, everything acknowledged before included.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn info(&self, target: &Target) -> Result<SegmentInfo> {
        let reply = self.ask(target, Repeat::Harmless, |request_id, segment, token| Request::GetStreamSegmentInfo {
            request_id,
            segment,
            token,
        });
        match reply.await? {
            Reply::StreamSegmentInfo { sealed, last_modified, write_offset, start_offset, .. } => {
                Ok(SegmentInfo { start: offset(start_offset)?, end: offset(write_offset)?, sealed, last_modified })
            }
            reply => Err(unexpected(target, "GetStreamSegmentInfo", &reply)),
        }
    }

    /// Where the first event that the server knows of at or behind `target_offset` ends, or the segment does: an offset at
    /// which it can be cut.
    ///
    /// # Errors
    /// `NotFound`, `Truncated`. `Unsupported`: the server speaks a version below 17.
    pub(crate) async fn locate(&self, target: &Target, target_offset: u64) -> Result<u64> {
        // Behind any end is as good as the end.
        let target_offset = signed(target_offset).unwrap_or(i64::MAX);
        let reply = self.ask(target, Repeat::Harmless, |request_id, segment, token| Request::LocateOffset {
            request_id,
            segment,
            target_offset,
            token,
        });
        match reply.await? {
            Reply::OffsetLocated { offset: located, .. } => offset(located),
            // Pravega's store, when what it looked at was truncated meanwhile.
            Reply::SegmentTruncated { .. } => {
                Err(Error::new(ErrorKind::Truncated, format!("segment {} was truncated meanwhile", target.name)))
            }
            reply => Err(unexpected(target, "LocateOffset", &reply)),
        }
    }

    /// Bytes that the segment has, from an offset on: at least one, and not more than so many. Does not wait at the tail.
    ///
    /// # Errors
    /// `NotFound`, `Truncated`. `Protocol`: it has none there.
    pub(crate) async fn read(&self, target: &Target, from: u64, bytes: u64) -> Result<Bytes> {
        let mut backoff = Backoff::for_at_most(self.shared.retry_for);
        let at = signed(from)?;
        // Servers send at least eight bytes if they have them.
        let suggested_length = i32::try_from(bytes).unwrap_or(i32::MAX);
        loop {
            let reply = self.ask(target, Repeat::Harmless, |request_id, segment, token| Request::ReadSegment {
                segment,
                offset: at,
                suggested_length,
                token,
                request_id,
            });
            match reply.await? {
                Reply::SegmentRead { segment, offset: sent, .. } if sent != at || segment != target.text() => {
                    let what = format!(
                        "segment store sent bytes of {segment} at {sent} that were asked of {} at {at}",
                        target.name
                    );
                    return Err(Error::new(ErrorKind::Protocol, what));
                }
                Reply::SegmentRead { mut data, .. } if !data.is_empty() => {
                    data.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
                    return Ok(data);
                }
                // The server has let go of the read without an answer.
                Reply::SegmentRead { end_of_segment: false, .. } => {}
                reply => return Err(unexpected(target, "ReadSegment", &reply)),
            }
            if !backoff.pause().await {
                let what = format!("segment store does not send what {} holds", target.name);
                return Err(Error::new(ErrorKind::Unavailable, what));
            }
        }
    }

    /// Takes no more appends. Whether it did before.
    pub(crate) async fn seal(&self, target: &Target) -> Result<()> {
        let reply = self.ask(target, Repeat::Harmless, |request_id, segment, token| Request::SealSegment {
            request_id,
            segment,
            token,
        });
        match reply.await? {
            Reply::SegmentSealed { .. } | Reply::SegmentIsSealed { .. } => Ok(()),
            reply => Err(unexpected(target, "SealSegment", &reply)),
        }
    }

    /// Drops everything before `to`; nothing if it is gone already.
    pub(crate) async fn truncate(&self, target: &Target, to: u64) -> Result<()> {
        let truncation_offset = signed(to)?;
        let reply = self.ask(target, Repeat::Harmless, |request_id, segment, token| Request::TruncateSegment {
            request_id,
            segment,
            truncation_offset,
            token,
        });
        match reply.await? {
            Reply::SegmentTruncated { .. } => Ok(()),
            // Gone already, or beyond the end.
            Reply::SegmentIsTruncated { start_offset, .. } if offset(start_offset)? >= to => Ok(()),
            Reply::SegmentIsTruncated { .. } => {
                Err(Error::new(ErrorKind::Invalid, format!("{} does not reach to offset {to}", target.name)))
            }
            reply => Err(unexpected(target, "TruncateSegment", &reply)),
        }
    }

    /// An attribute's value; `None` if it is not set.
    pub(crate) async fn attribute(&self, target: &Target, attribute: AttributeId) -> Result<Option<i64>> {
        let reply = self.ask(target, Repeat::Harmless, |request_id, segment, token| Request::GetSegmentAttribute {
            request_id,
            segment,
            attribute,
            token,
        });
        match reply.await? {
            Reply::SegmentAttribute { value, .. } => Ok((value != headwater_types::attribute::NULL).then_some(value)),
            reply => Err(unexpected(target, "GetSegmentAttribute", &reply)),
        }
    }

    /// Sets an attribute if it has the expected value; whether it had.
    pub(crate) async fn replace_attribute(
        &self,
        target: &Target,
        attribute: AttributeId,
        expected: Option<i64>,
        new: i64,
    ) -> Result<bool> {
        let expected_value = expected.unwrap_or(headwater_types::attribute::NULL);
        let reply = self.ask(target, Repeat::Never, |request_id, segment, token| Request::UpdateSegmentAttribute {
            request_id,
            segment,
            attribute,
            new_value: new,
            expected_value,
            token,
        });
        match reply.await? {
            Reply::SegmentAttributeUpdated { success, .. } => Ok(success),
            reply => Err(unexpected(target, "UpdateSegmentAttribute", &reply)),
        }
    }
}

/// What to make of a reply.
#[derive(Debug)]
pub(crate) enum Verdict {
    Answer(Reply),
    Refused(Error),
    Again(Error),
}

const HELD: &str = "nobody panics while it holds this lock";

#[allow(clippy::disallowed_methods, reason = "tokens end by the clock on the wall, and no client is simulated")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// When a token ends. The segment store checks the signature; we only read the time.
fn expiry(token: &str) -> SystemTime {
    let far = now() + Duration::from_secs(365 * 24 * 3600);
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let claims = claims.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let seconds = claims.as_ref().and_then(|claims| claims.get("exp")?.as_u64());
    seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds))).unwrap_or(far)
}

/// An offset as the server sends it.
pub(crate) fn offset(value: i64) -> Result<u64> {
    u64::try_from(value).map_err(|_| Error::new(ErrorKind::Protocol, format!("server sent the offset {value}")))
}

/// An offset as the wire carries it.
pub(crate) fn signed(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::new(ErrorKind::Invalid, format!("offset {value} is beyond any segment")))
}

/// What the usual refusals mean.
pub(crate) fn unexpected(target: &Target, asked: &'static str, reply: &Reply) -> Error {
    let name = &target.name;
    match reply {
        Reply::NoSuchSegment { .. } => Error::new(ErrorKind::NotFound, format!("segment {name} does not exist")),
        Reply::SegmentIsSealed { .. } => Error::new(ErrorKind::Sealed, format!("segment {name} is sealed")),
        Reply::SegmentIsTruncated { start_offset, .. } => {
            Error::new(ErrorKind::Truncated, format!("segment {name} starts at {start_offset} now"))
        }
        Reply::SegmentAlreadyExists { .. } => {
            Error::new(ErrorKind::AlreadyExists, format!("segment {name} exists already"))
        }
        reply => Error::new(
            ErrorKind::Protocol,
            format!("segment store answered {asked} about {name} with {}", reply.name()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_ends_when_it_says() {
        let token = format!("x.{}.y", URL_SAFE_NO_PAD.encode(br#"{"sub":"s","exp":4000000000}"#));
        assert_eq!(expiry(&token), UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        for endless in ["", "a.b.c", "x..y"] {
            assert!(expiry(endless) > now() + Duration::from_secs(1000));
        }
    }
}
