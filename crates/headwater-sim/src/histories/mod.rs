//! What several clients asked and heard, and whether any order of events explains it.
//!
//! ```text
//!   clients ─► requests ─► store ─► answers, some lost, some undone by a crash
//!      └────── history: begin, end, result ──────► checkers: appends, versions
//! ```
//!
//! An operation has begun at one moment and ended at a later one; what it did, it did in between. An operation without an
//! answer is *unknown*: it may have happened, may happen later, or never. The checkers need no search: a segment's bytes,
//! and the versions of a key, say themselves in which order things happened, so what is left to check is whether that order
//! agrees with what was heard and with time.

pub mod appends;
pub mod versions;

/// Counts the beginnings and ends of operations: what has the smaller number came first.
pub type Moment = u64;

/// When an operation was under way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// Handed over.
    pub begun: Moment,
    /// Answered; `None`: never, it may still happen.
    pub ended: Option<Moment>,
}

impl Span {
    /// From one moment to another.
    pub fn new(begun: Moment, ended: Moment) -> Self {
        assert!(begun < ended, "an operation ends after it began");
        Self { begun, ended: Some(ended) }
    }

    /// Never answered.
    pub fn open(begun: Moment) -> Self {
        Self { begun, ended: None }
    }

    /// The end, or the end of time.
    pub(crate) fn end(self) -> Moment {
        self.ended.unwrap_or(Moment::MAX)
    }
}

/// The order of events, which is known, against time: nothing may have ended before something began that came earlier in
/// the order. Returns the index of the first that did.
pub(crate) fn against_time(order: impl IntoIterator<Item = Span>) -> Option<usize> {
    let mut latest_begin = 0;
    for (index, span) in order.into_iter().enumerate() {
        if span.end() < latest_begin {
            return Some(index);
        }
        latest_begin = latest_begin.max(span.begun);
    }
    None
}

/// When the state after each of these events may have been seen, the first being the state before all of them: not before
/// all events up to it had begun, not after one behind it had ended.
pub(crate) fn seen_between(order: &[Span]) -> Vec<(Moment, Moment)> {
    let mut windows = vec![(0, Moment::MAX); order.len() + 1];
    for (index, span) in order.iter().enumerate() {
        windows[index + 1].0 = windows[index].0.max(span.begun);
    }
    for (index, span) in order.iter().enumerate().rev() {
        windows[index].1 = windows[index + 1].1.min(span.end());
    }
    windows
}

/// Whether a state with this window may have been seen by an operation.
pub(crate) fn overlaps(window: (Moment, Moment), span: Span) -> bool {
    window.0 < span.end() && span.begun < window.1
}
