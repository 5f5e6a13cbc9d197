//! What one writer has under way with one segment on one connection. No socket, no clock, no task.
//!
//! A client numbers its events; the segment remembers the last number it stored for the writer, in the same record as
//! the bytes. Each append names the number it has to follow, so an append that arrives twice, or over a connection
//! that was given up, is refused by the segment instead of being stored again.
//!
//! ```text
//!   Opening ──stored number known──► Open ──append refused──► Failed (appends are dropped unanswered)
//!      ▲                              │                          │
//!      └────────── setup again ───────┴──────────────────────────┘
//! ```
//!
//! Guarantees:
//! * answers leave in the order the steps arrived, whatever order their results come in ([`Session::release`])
//! * acknowledged numbers only grow, and each acknowledgement names the one before it
//! * every append gets one answer, except after a refusal: then later ones get none until the next setup. Clients
//!   expect that; one of them cannot survive a second refusal for a segment it has already left.
//!
//! The queue is bounded by its connection, which charges every step before it begins and gives the charge back with
//! the answer.

use std::collections::VecDeque;

use headwater_engine::api::Refusal;
use headwater_types::{EventNumber, Offset};

/// Names a step that was begun, until its result is given back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Ticket(u64);

/// What the segment said to an append, as far as a writer's order is concerned.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum AppendResult {
    /// Durable; the segment has `length` bytes now.
    Stored {
        /// Length right after the append.
        length: Offset,
    },
    /// The segment had another length than the append demanded; the writer may go on.
    ConditionFailed,
    /// Another number is stored for the writer: someone else, or an older connection, wrote meanwhile.
    Stale,
    /// Anything else; the writer has to set up again.
    Refused(Refusal),
}

/// What to do with an append that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Begun {
    /// Hand it to the segment, which must have stored `previous` for this writer.
    Send {
        /// Under which its result comes back.
        ticket: Ticket,
        /// Number it has to follow; `None`: nothing stored yet.
        previous: Option<EventNumber>,
    },
    /// Its answer is decided and waits for its turn: [`release`](Session::release).
    Decided,
    /// Drop it unanswered.
    Discard,
}

/// An append came before its setup was answered, or after the setup was refused. The connection has to be closed:
/// nobody knows which number the append would follow.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("append of a writer that is not set up")]
pub(crate) struct NotSetUp;

/// An answer whose turn has come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Answer {
    /// The writer is set up.
    Opened {
        /// Of the setup.
        request: i64,
        /// Last number stored; the client takes it as an acknowledgement of everything up to it.
        last: Option<EventNumber>,
    },
    /// The writer could not be set up.
    NotOpened {
        /// Of the setup.
        request: i64,
        /// Why.
        refusal: Refusal,
    },
    /// An append is durable.
    Stored {
        /// Of the append.
        request: i64,
        /// Its number.
        number: EventNumber,
        /// Number acknowledged before it.
        previous: Option<EventNumber>,
        /// Length of the segment right after it.
        length: Offset,
    },
    /// A conditional append found another length.
    ConditionFailed {
        /// Of the append.
        request: i64,
        /// Its number.
        number: EventNumber,
    },
    /// An append did not follow what is stored. The connection closes after this answer.
    Stale {
        /// Of the append.
        request: i64,
        /// Its number.
        number: EventNumber,
    },
    /// An append was refused.
    Refused {
        /// Of the append.
        request: i64,
        /// Its number.
        number: EventNumber,
        /// Why.
        refusal: Refusal,
    },
}

#[derive(Debug)]
struct Step {
    ticket: Ticket,
    request: i64,
    kind: StepKind,
}

#[derive(Debug)]
enum StepKind {
    Setup { result: Option<Result<Option<EventNumber>, Refusal>> },
    Append { number: EventNumber, result: Option<AppendResult> },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// At least one setup is among the steps.
    Opening,
    /// `begun` is the highest number handed to the segment.
    Open { begun: Option<EventNumber> },
    /// An append was refused.
    Failed,
    /// The last setup was refused.
    Refused,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Session {
    phase: Phase,
    /// Highest number known to be durable.
    acked: Option<EventNumber>,
    /// Begun and not answered, oldest first.
    steps: VecDeque<Step>,
    tickets: u64,
}

impl Default for Session {
    /// Nothing is known until the first [`setup`](Self::setup) is answered.
    fn default() -> Self {
        Self { phase: Phase::Refused, acked: None, steps: VecDeque::new(), tickets: 0 }
    }
}

impl Session {
    /// The client asks which number is stored. Until the answer, appends of this writer are an error.
    pub(crate) fn setup(&mut self, request: i64) -> Ticket {
        self.phase = Phase::Opening;
        self.push(request, StepKind::Setup { result: None })
    }

    /// An append arrived.
    ///
    /// # Errors
    /// [`NotSetUp`]: close the connection.
    pub(crate) fn begin(&mut self, request: i64, number: EventNumber) -> Result<Begun, NotSetUp> {
        match self.phase {
            Phase::Opening | Phase::Refused => Err(NotSetUp),
            Phase::Failed => Ok(Begun::Discard),
            Phase::Open { begun } if Some(number) <= begun => {
                self.push(request, StepKind::Append { number, result: Some(AppendResult::Stale) });
                // The connection closes with this answer; what follows it needs none.
                self.phase = Phase::Failed;
                Ok(Begun::Decided)
            }
            Phase::Open { begun } => {
                let ticket = self.push(request, StepKind::Append { number, result: None });
                self.phase = Phase::Open { begun: Some(number) };
                Ok(Begun::Send { ticket, previous: begun })
            }
        }
    }

    /// The segment answered a setup: the last number it stored, or why it does not say.
    pub(crate) fn opened(&mut self, ticket: Ticket, stored: Result<Option<EventNumber>, Refusal>) {
        let StepKind::Setup { result } = self.step(ticket) else { unreachable!("an append was answered as a setup") };
        assert!(result.replace(stored).is_none(), "a step has one result");
    }

    /// The segment answered an append.
    pub(crate) fn settled(&mut self, ticket: Ticket, said: AppendResult) {
        let StepKind::Append { result, .. } = self.step(ticket) else {
            unreachable!("a setup was answered as an append")
        };
        assert!(result.replace(said).is_none(), "a step has one result");
    }

    /// The next answer, if its turn has come. Call it until it gives `None`.
    pub(crate) fn release(&mut self) -> Option<Answer> {
        let settled = match &self.steps.front()?.kind {
            StepKind::Setup { result } => result.is_some(),
            StepKind::Append { result, .. } => result.is_some(),
        };
        if !settled {
            return None;
        }
        let Step { request, kind, .. } = self.steps.pop_front()?;
        Some(match kind {
            StepKind::Setup { result } => match result? {
                Ok(last) => {
                    self.acked = last;
                    self.leave_opening(Phase::Open { begun: last });
                    Answer::Opened { request, last }
                }
                Err(refusal) => {
                    self.leave_opening(Phase::Refused);
                    Answer::NotOpened { request, refusal }
                }
            },
            StepKind::Append { number, result } => match result? {
                AppendResult::Stored { length } => {
                    assert!(self.acked < Some(number), "acknowledged numbers never go back");
                    let previous = self.acked.replace(number);
                    Answer::Stored { request, number, previous, length }
                }
                AppendResult::ConditionFailed => {
                    // Appends behind it already named this number as the one they follow, and will be refused.
                    if self.steps.is_empty()
                        && let Phase::Open { begun } = &mut self.phase
                    {
                        *begun = self.acked;
                    }
                    Answer::ConditionFailed { request, number }
                }
                AppendResult::Stale => {
                    self.fail();
                    Answer::Stale { request, number }
                }
                AppendResult::Refused(refusal) => {
                    self.fail();
                    Answer::Refused { request, number, refusal }
                }
            },
        })
    }

    fn push(&mut self, request: i64, kind: StepKind) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.steps.push_back(Step { ticket, request, kind });
        ticket
    }

    fn step(&mut self, ticket: Ticket) -> &mut StepKind {
        let first = self.steps.front().map(|first| first.ticket.0);
        let index = first.and_then(|first| usize::try_from(ticket.0.checked_sub(first)?).ok());
        let step = index.and_then(|index| self.steps.get_mut(index));
        let step = step.expect("a ticket stays valid until its step is answered, and tickets are consecutive");
        &mut step.kind
    }

    /// A setup was answered; a later one may still be under way.
    fn leave_opening(&mut self, phase: Phase) {
        assert_eq!(self.phase, Phase::Opening, "a setup under way keeps the session opening");
        if !self.steps.iter().any(|step| matches!(step.kind, StepKind::Setup { .. })) {
            self.phase = phase;
        }
    }

    /// An append was refused. A setup that arrived after it starts afresh.
    fn fail(&mut self) {
        if self.phase != Phase::Opening {
            self.phase = Phase::Failed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(stored: Option<EventNumber>) -> Session {
        let mut session = Session::default();
        let ticket = session.setup(1);
        session.opened(ticket, Ok(stored));
        assert_eq!(session.release(), Some(Answer::Opened { request: 1, last: stored }));
        session
    }

    #[track_caller]
    fn send(session: &mut Session, number: EventNumber) -> (Ticket, Option<EventNumber>) {
        match session.begin(number + 100, number) {
            Ok(Begun::Send { ticket, previous }) => (ticket, previous),
            other => panic!("{number}: {other:?}"),
        }
    }

    fn stored(number: EventNumber, previous: Option<EventNumber>, length: Offset) -> Option<Answer> {
        Some(Answer::Stored { request: number + 100, number, previous, length })
    }

    #[test]
    fn the_first_acknowledgement_names_what_the_setup_reported() {
        for last in [None, Some(41)] {
            let mut session = open(last);
            let (ticket, previous) = send(&mut session, 42);
            assert_eq!(previous, last);
            session.settled(ticket, AppendResult::Stored { length: 7 });
            assert_eq!(session.release(), stored(42, last, 7));
            assert_eq!(session.release(), None);
        }
    }

    #[test]
    fn answers_keep_the_order_of_arrival_whatever_order_results_come_in() {
        let mut session = open(None);
        let (first, _) = send(&mut session, 3);
        let (second, previous) = send(&mut session, 6);
        assert_eq!(previous, Some(3));
        session.settled(second, AppendResult::Stored { length: 20 });
        assert_eq!(session.release(), None, "the first is still under way");
        session.settled(first, AppendResult::Stored { length: 10 });
        assert_eq!(session.release(), stored(3, None, 10));
        assert_eq!(session.release(), stored(6, Some(3), 20));
    }

    #[test]
    fn a_number_that_does_not_grow_is_answered_as_stale_after_earlier_acknowledgements() {
        let mut session = open(Some(5));
        let (ticket, _) = send(&mut session, 6);
        assert_eq!(session.begin(9, 6), Ok(Begun::Decided));
        assert_eq!(session.release(), None);
        session.settled(ticket, AppendResult::Stored { length: 1 });
        assert_eq!(session.release(), stored(6, Some(5), 1));
        assert_eq!(session.release(), Some(Answer::Stale { request: 9, number: 6 }));
    }

    #[test]
    fn after_a_refusal_appends_are_dropped_until_the_next_setup() {
        let mut session = open(None);
        let (first, _) = send(&mut session, 1);
        let (second, _) = send(&mut session, 2);
        for ticket in [first, second] {
            session.settled(ticket, AppendResult::Refused(Refusal::Sealed));
        }
        // Those under way when the segment was sealed get one refusal each.
        for number in [1, 2] {
            let refusal = Refusal::Sealed;
            assert_eq!(session.release(), Some(Answer::Refused { request: number + 100, number, refusal }));
        }
        assert_eq!(session.begin(0, 3), Ok(Begun::Discard));
        assert_eq!(session.release(), None);

        let ticket = session.setup(8);
        session.opened(ticket, Ok(Some(0)));
        assert_eq!(session.release(), Some(Answer::Opened { request: 8, last: Some(0) }));
        assert_eq!(send(&mut session, 1).1, Some(0));
    }

    #[test]
    fn a_failed_condition_leaves_the_writer_where_it_was() {
        let mut session = open(Some(1));
        let (ticket, _) = send(&mut session, 2);
        session.settled(ticket, AppendResult::ConditionFailed);
        assert_eq!(session.release(), Some(Answer::ConditionFailed { request: 102, number: 2 }));
        assert_eq!(send(&mut session, 3).1, Some(1), "the next append follows what is stored");
    }

    #[test]
    fn appends_sent_behind_a_failed_condition_follow_it_and_will_be_refused() {
        let mut session = open(None);
        let (first, _) = send(&mut session, 1);
        let (second, _) = send(&mut session, 2);
        session.settled(first, AppendResult::ConditionFailed);
        assert_eq!(session.release(), Some(Answer::ConditionFailed { request: 101, number: 1 }));
        session.settled(second, AppendResult::Stale);
        assert_eq!(session.release(), Some(Answer::Stale { request: 102, number: 2 }));
    }

    #[test]
    fn an_append_that_does_not_wait_for_its_setup_closes_the_connection() {
        let mut session = Session::default();
        assert_eq!(session.begin(1, 1), Err(NotSetUp));
        let ticket = session.setup(1);
        assert_eq!(session.begin(1, 1), Err(NotSetUp));
        session.opened(ticket, Err(Refusal::NoSuchSegment));
        assert_eq!(session.release(), Some(Answer::NotOpened { request: 1, refusal: Refusal::NoSuchSegment }));
        assert_eq!(session.begin(1, 1), Err(NotSetUp));
    }

    #[test]
    fn a_second_setup_is_answered_after_the_appends_before_it() {
        let mut session = open(None);
        let (append, _) = send(&mut session, 1);
        let again = session.setup(5);
        session.opened(again, Ok(Some(1)));
        assert_eq!(session.release(), None);
        session.settled(append, AppendResult::Stored { length: 4 });
        assert_eq!(session.release(), stored(1, None, 4));
        assert_eq!(session.release(), Some(Answer::Opened { request: 5, last: Some(1) }));
        assert_eq!(send(&mut session, 2).1, Some(1));
    }
}
