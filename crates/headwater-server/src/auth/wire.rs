//! The segment store's commands and their tokens.
//!
//! Guarantees:
//! * a command that the protocol has and the table has not does not compile
//! * a token that was good is judged again for every command: its end may have come

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use headwater_auth::WireCommand;
use headwater_auth::delegation::{Claims, TokenError};
use headwater_wire::{Request as Wire, Token, TokenFailure};
use tokio::time::Instant;

use super::Guard;

/// Tokens whose signature a connection remembers. A client has one for each stream it uses.
const KNOWN_MAX: usize = 4;

/// What one connection knows about the tokens it was shown.
#[derive(Debug)]
pub(crate) struct Tokens {
    guard: Guard,
    /// Newest last.
    known: VecDeque<(Token, Arc<Claims>)>,
    /// One of them allowed something.
    has_been_good: bool,
}

impl Tokens {
    pub(crate) fn new(guard: Guard) -> Self {
        Self { guard, known: VecDeque::new(), has_been_good: false }
    }

    /// Whether a token allows a command on all its segments; until when, if there is an end to it.
    pub(crate) fn check(
        &mut self,
        command: WireCommand,
        segments: &[&str],
        token: &Token,
    ) -> Result<Option<Instant>, TokenError> {
        let Some(inner) = &self.guard.0 else { return Ok(None) };
        let known = self.known.iter().find(|(known, _)| known == token).map(|(_, claims)| claims.clone());
        let claims = match known {
            Some(claims) => claims,
            None => {
                let claims = Arc::new(inner.key.verify(token.as_str())?);
                if self.known.len() == KNOWN_MAX {
                    self.known.pop_front();
                }
                self.known.push_back((token.clone(), claims.clone()));
                claims
            }
        };
        let now_millis = (inner.clock)();
        command.check(&claims, segments, now_millis.div_euclid(1000))?;
        self.has_been_good = true;
        let left = claims.until.saturating_mul(1000).saturating_sub(now_millis);
        // A time too far away for the clock is no end.
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        Ok(Instant::now().checked_add(left))
    }

    /// Whether the peer has shown a good token, or need not show any.
    pub(crate) fn is_known(&self) -> bool {
        self.has_been_good || !self.guard.is_on()
    }

    /// The same as [`check`](Self::check) for a request.
    pub(crate) fn check_request(&mut self, request: &Wire) -> Result<(), TokenError> {
        if !self.guard.is_on() {
            return Ok(());
        }
        let (command, segments) = command(request);
        self.check(command, &segments, request.token()).map(|_| ())
    }
}

/// What the client is told.
pub(crate) fn failure(error: TokenError) -> TokenFailure {
    match error {
        TokenError::Refused => TokenFailure::Refused,
        TokenError::Expired => TokenFailure::Expired,
    }
}

/// The row of a request and all segments that it names.
fn command(request: &Wire) -> (WireCommand, Vec<&str>) {
    use WireCommand as Row;
    match request {
        Wire::ListStorageChunks { segment, .. } => (Row::ListStorageChunks, vec![segment]),
        Wire::FlushToStorage { .. } => (Row::FlushToStorage, Vec::new()),
        Wire::ReadSegment { segment, .. } => (Row::ReadSegment, vec![segment]),
        Wire::GetStreamSegmentInfo { segment, .. } => (Row::GetStreamSegmentInfo, vec![segment]),
        Wire::CreateSegment { segment, .. } => (Row::CreateSegment, vec![segment]),
        Wire::SealSegment { segment, .. } => (Row::SealSegment, vec![segment]),
        Wire::DeleteSegment { segment, .. } => (Row::DeleteSegment, vec![segment]),
        Wire::UpdateSegmentPolicy { segment, .. } => (Row::UpdateSegmentPolicy, vec![segment]),
        Wire::GetSegmentAttribute { segment, .. } => (Row::GetSegmentAttribute, vec![segment]),
        Wire::UpdateSegmentAttribute { segment, .. } => (Row::UpdateSegmentAttribute, vec![segment]),
        Wire::TruncateSegment { segment, .. } => (Row::TruncateSegment, vec![segment]),
        Wire::CreateTransientSegment { parent, .. } => (Row::CreateTransientSegment, vec![parent]),
        Wire::LocateOffset { segment, .. } => (Row::LocateOffset, vec![segment]),
        Wire::MergeSegments { target, source, .. } => (Row::MergeSegments, vec![target, source]),
        Wire::GetTableSegmentInfo { segment, .. } => (Row::GetTableSegmentInfo, vec![segment]),
        Wire::CreateTableSegment { segment, .. } => (Row::CreateTableSegment, vec![segment]),
        Wire::DeleteTableSegment { segment, .. } => (Row::DeleteTableSegment, vec![segment]),
        Wire::UpdateTableEntries { segment, .. } => (Row::UpdateTableEntries, vec![segment]),
        Wire::RemoveTableKeys { segment, .. } => (Row::RemoveTableKeys, vec![segment]),
        Wire::ReadTable { segment, .. } => (Row::ReadTable, vec![segment]),
        Wire::ReadTableKeys { segment, .. } => (Row::ReadTableKeys, vec![segment]),
        Wire::ReadTableEntries { segment, .. } => (Row::ReadTableEntries, vec![segment]),
        Wire::ReadTableEntriesDelta { segment, .. } => (Row::ReadTableEntriesDelta, vec![segment]),
        Wire::MergeSegmentsBatch { target, sources, .. } => {
            (Row::MergeSegmentsBatch, std::iter::once(target).chain(sources).map(|text| &**text).collect())
        }
    }
}
