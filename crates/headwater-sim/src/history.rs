//! What was asked and answered since the store was opened, and what must therefore be found after a crash.
//!
//! Every container has a list of states, one per step of what it was asked to do; steps become durable in order. An
//! answer is a *claim*: the steps it is based on are durable. After a crash a container must be in the state after some
//! step, not before the last one claimed, and not after the last one asked for.
//!
//! A success that changed something claims its own last step. Anything else claims the earliest state, not older than
//! what was claimed when it was asked, in which the same answer would be right: a weaker answer claims less.

use std::collections::{BTreeMap, VecDeque};

use headwater_engine::api::{Outcome, ReadResult, Refusal, Request, Response};
use headwater_types::{Offset, SegmentName};

use crate::model::{Answer, Ledger, Numbers, Segment, State};

/// A read may return so many bytes even if fewer were asked for. Source: Pravega's segment store.
const READ_BYTES_MIN: usize = 8;

/// Number of a request.
pub type Ticket = u64;

/// One container since the store was opened.
#[derive(Debug)]
struct Container {
    /// State after each step; the first is the one found at the start.
    states: Vec<State>,
    /// Index of the state that answers claim so far.
    claimed: usize,
    /// What answers claimed; calls and states grow.
    claims: Vec<Claim>,
    /// Handed over and not decided: the store waits for memory.
    held: VecDeque<(Ticket, Request)>,
}

/// An answer shows that a state is durable.
#[derive(Clone, Copy, Debug)]
struct Claim {
    /// Of the disk, when the answer was given.
    calls: u64,
    /// Index of the state.
    state: usize,
    /// Request that was answered; `None` for the opening.
    by: Option<Ticket>,
}

#[derive(Debug)]
struct Asked {
    request: Request,
    container: usize,
    /// State it was decided on.
    before: usize,
    /// State after its last step.
    after: usize,
    /// Whether the steps change anything.
    changes: bool,
    /// What was claimed when it was asked.
    claimed: usize,
    answer: Answer,
}

/// See the module.
#[derive(Debug)]
pub struct History {
    containers: Vec<Container>,
    open: BTreeMap<Ticket, Asked>,
    next: Ticket,
    numbers: Numbers,
}

/// Which states a container may be in after a crash.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a> {
    /// From the last one claimed to the last one asked for.
    pub states: &'a [State],
    /// Whose answer claims the first of them; `None`: it was found at the opening.
    pub claimed_by: Option<Ticket>,
}

impl History {
    /// Begins with what may be found at the start: for each container the states it may be in, the newest of which it
    /// is in if the opening completes. Call [`opened`](Self::opened) then.
    pub fn new(found: Vec<Vec<State>>, numbers: Numbers) -> Self {
        let begin = |states: Vec<State>| {
            assert!(!states.is_empty(), "a container is in some state");
            Container { states, claimed: 0, claims: Vec::new(), held: VecDeque::new() }
        };
        Self { containers: found.into_iter().map(begin).collect(), open: BTreeMap::new(), next: 0, numbers }
    }

    /// The store is open: what it found is durable from now on.
    pub fn opened(&mut self, calls: u64) {
        for container in &mut self.containers {
            container.claimed = container.states.len() - 1;
            container.claims.push(Claim { calls, state: container.claimed, by: None });
        }
    }

    /// Gives back the source of numbers, for the history after the crash.
    pub fn into_numbers(self) -> Numbers {
        self.numbers
    }

    /// The source of numbers, as it is now.
    pub fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The container that a segment belongs to.
    pub fn container(&self, name: &SegmentName) -> usize {
        name.container(self.containers.len() as u32) as usize
    }

    /// The state after everything that was asked.
    pub fn newest(&self, name: &SegmentName) -> &State {
        self.containers[self.container(name)].states.last().expect("there is a first state")
    }

    /// Notes a request that is handed over and decided at once.
    pub fn ask(&mut self, request: &Request, ledger: &Ledger) -> Ticket {
        let ticket = self.ticket();
        self.decide(ticket, request, ledger);
        ticket
    }

    /// A number for a request that is about to be handed over. [`decide`](Self::decide) or [`hold`](Self::hold) follows.
    pub fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.next
    }

    /// The store holds a request back. Those of one container are decided in the order they came.
    pub fn hold(&mut self, ticket: Ticket, request: &Request) {
        let container = self.container(request.segment());
        self.containers[container].held.push_back((ticket, request.clone()));
    }

    /// Whether a request about this segment is held back.
    pub fn is_held(&self, name: &SegmentName) -> bool {
        let held = &self.containers[self.container(name)].held;
        held.iter().any(|(_, request)| request.segment().key() == name.key())
    }

    /// Decides what a container does not hold back any more: the oldest of these.
    pub fn settle(&mut self, container: usize, held: usize, of_these: fn(&Request) -> bool, ledger: &Ledger) {
        while self.containers[container].held.len() > held {
            let queue = &mut self.containers[container].held;
            let Some(at) = queue.iter().position(|(_, request)| of_these(request)) else { return };
            let (ticket, request) = queue.remove(at).expect("it was just found");
            self.decide(ticket, &request, ledger);
        }
    }

    /// Number of states of each container so far.
    pub fn steps(&self) -> Vec<usize> {
        self.containers.iter().map(|container| container.states.len()).collect()
    }

    /// States of each container from the given one on; see [`steps`](Self::steps).
    pub fn allowed_from(&self, steps: &[usize]) -> Vec<Allowed<'_>> {
        let from = |states: &[State], steps: usize| steps.saturating_sub(1).min(states.len() - 1);
        let pairs = self.containers.iter().zip(steps);
        pairs
            .map(|(one, steps)| Allowed { states: &one.states[from(&one.states, *steps)..], claimed_by: None })
            .collect()
    }

    /// Decides a request on the newest state.
    pub fn decide(&mut self, ticket: Ticket, request: &Request, ledger: &Ledger) {
        let container = self.container(request.segment());
        let Container { states, claimed, .. } = &mut self.containers[container];
        let before = states.len() - 1;
        let decision = states[before].decide(request, ledger, &mut self.numbers);
        states.extend(decision.steps);
        let after = states.len() - 1;
        let asked = Asked {
            request: request.clone(),
            container,
            before,
            after,
            changes: decision.changes,
            claimed: *claimed,
            answer: decision.answer,
        };
        self.open.insert(ticket, asked);
    }

    /// Requests without an answer.
    pub fn unanswered(&self) -> impl Iterator<Item = (Ticket, &Request)> {
        let held = self.containers.iter().flat_map(|container| &container.held);
        let held = held.map(|(ticket, request)| (*ticket, request));
        self.open.iter().map(|(ticket, asked)| (*ticket, &asked.request)).chain(held)
    }

    /// The state of a segment that the answers so far show to be durable.
    pub fn claimed(&self, name: &SegmentName) -> Option<&Segment> {
        let container = &self.containers[self.container(name)];
        container.states[container.claimed].find(name)
    }

    /// Whether a request has no answer yet.
    pub fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains_key(&ticket)
    }

    /// Whether a request has no answer yet, decided or not.
    pub fn is_waiting(&self, ticket: Ticket) -> bool {
        self.is_open(ticket) || self.containers.iter().any(|one| one.held.iter().any(|(held, _)| *held == ticket))
    }

    /// A read was refused because its bytes cannot be had: that claims nothing.
    ///
    /// # Errors
    /// It was no read.
    pub fn refused(&mut self, ticket: Ticket) -> Result<(), String> {
        match self.open.remove(&ticket) {
            Some(asked) if !asked.changes => Ok(()),
            _ => Err(format!("request {ticket} reads nothing and was refused for damage")),
        }
    }

    /// Checks an answer that was given when the disk had seen `calls` calls.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn answered(
        &mut self,
        ticket: Ticket,
        outcome: &Outcome,
        calls: u64,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        if matches!(outcome, Err(Refusal::Closing)) {
            for container in &mut self.containers {
                container.held.retain(|(held, _)| *held != ticket);
            }
            self.open.remove(&ticket);
            return Ok(());
        }
        let asked = self.open.remove(&ticket);
        let asked = asked.ok_or_else(|| format!("request {ticket} was answered twice or before it was decided"))?;
        let claim = match &asked.request {
            Request::Read { segment, offset, bytes_max } => {
                self.check_read(&asked, segment, *offset, *bytes_max, outcome)?
            }
            _ => {
                for finding in asked.answer.check(outcome, ledger)? {
                    ledger.learn(finding);
                }
                if asked.changes { asked.after } else { self.weakest_claim(&asked, outcome, ledger) }
            }
        };
        let container = &mut self.containers[asked.container];
        if claim > container.claimed {
            container.claimed = claim;
            container.claims.push(Claim { calls, state: claim, by: Some(ticket) });
        }
        Ok(())
    }

    fn weakest_claim(&self, asked: &Asked, outcome: &Outcome, ledger: &Ledger) -> usize {
        let states = &self.containers[asked.container].states;
        let right = |index: &usize| {
            let decision = states[*index].decide(&asked.request, ledger, &mut self.numbers.clone());
            !decision.changes && decision.answer.is_right(outcome, ledger)
        };
        (asked.claimed..asked.before).find(right).unwrap_or(asked.before)
    }

    /// A read may be served at any time between question and answer.
    fn check_read(
        &self,
        asked: &Asked,
        name: &SegmentName,
        offset: Offset,
        bytes_max: usize,
        outcome: &Outcome,
    ) -> Result<usize, String> {
        let states = &self.containers[asked.container].states;
        let right = |index: &usize| read_is_right(states[*index].find(name), offset, bytes_max, outcome);
        (asked.claimed..states.len()).find(right).ok_or_else(|| {
            let newest =
                states[states.len() - 1].find(name).map(|segment| (segment.start, segment.length(), segment.sealed));
            format!("no state since the question explains {outcome:?}; now (start, length, sealed) is {newest:?}")
        })
    }

    /// What may be found after a crash at the moment when the disk had seen `calls` calls.
    pub fn allowed_at(&self, calls: u64) -> Vec<Allowed<'_>> {
        self.containers.iter().map(|container| container.allowed_at(calls)).collect()
    }
}

impl Container {
    fn allowed_at(&self, calls: u64) -> Allowed<'_> {
        let earlier = self.claims.partition_point(|claim| claim.calls <= calls);
        let last = earlier.checked_sub(1).map(|last| self.claims[last]);
        let states = &self.states[last.map_or(0, |claim| claim.state)..];
        Allowed { states, claimed_by: last.and_then(|claim| claim.by) }
    }
}

/// Whether a segment in this state could have been read like that.
fn read_is_right(found: Option<&Segment>, offset: Offset, bytes_max: usize, outcome: &Outcome) -> bool {
    let Some(segment) = found else { return matches!(outcome, Err(Refusal::NoSuchSegment)) };
    match outcome {
        Err(Refusal::Truncated { start }) => *start == segment.start && offset < segment.start,
        Err(Refusal::BehindEnd { length }) => {
            segment.sealed && *length == segment.length() && offset > segment.length()
        }
        // It waited there when the segment was sealed.
        Err(Refusal::Sealed) => segment.sealed && offset > segment.length(),
        Ok(Response::Read(read)) => offset >= segment.start && bytes_are_right(segment, offset, bytes_max, read),
        _ => false,
    }
}

fn bytes_are_right(segment: &Segment, offset: Offset, bytes_max: usize, read: &ReadResult) -> bool {
    let bytes = read.data.concat();
    let end = offset + bytes.len() as u64;
    let finished = segment.sealed && end == segment.length();
    let end_is_right = if read.end_of_segment { finished } else { !bytes.is_empty() };
    bytes.len() <= bytes_max.max(READ_BYTES_MIN)
        && end <= segment.length()
        && segment.bytes(offset, bytes.len()) == bytes
        && end_is_right
        && (!read.at_tail || end == segment.length())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater_engine::api::{Append, SegmentKind, SegmentPolicy};
    use headwater_types::WriterId;

    use super::*;

    fn name() -> SegmentName {
        SegmentName::parse("s/t/0.#epoch.0").unwrap()
    }

    /// A history of one container with a segment and two appends of three bytes, none of them answered.
    fn asked() -> (History, Ledger, [Ticket; 3]) {
        let mut history = History::new(vec![vec![State::default()]], Numbers::default());
        let ledger = Ledger::default();
        let policy = SegmentPolicy::default();
        let create = Request::Create { segment: name(), kind: SegmentKind::Stream, policy, on_reserve: false };
        let append = |previous, number| {
            Request::Append(Append {
                segment: name(),
                writer: WriterId(1),
                data: Bytes::from_static(b"abc"),
                event_count: 1,
                previous,
                number,
                expected_length: None,
            })
        };
        let requests = [create, append(None, 1), append(Some(1), 2)];
        let tickets = requests.map(|request| history.ask(&request, &ledger));
        (history, ledger, tickets)
    }

    fn read(bytes: &'static [u8]) -> Outcome {
        Ok(Response::Read(ReadResult { data: vec![bytes.into()], at_tail: false, end_of_segment: false }))
    }

    #[test]
    fn an_answer_claims_its_step_and_all_before_it_from_its_moment_on() {
        let (mut history, mut ledger, [_, first, _]) = asked();
        history.answered(first, &Ok(Response::Appended { length: 3 }), 10, &mut ledger).unwrap();
        assert_eq!(history.allowed_at(9)[0].states.len(), 4);
        assert_eq!(history.allowed_at(10)[0].states.len(), 2);
        assert_eq!(history.allowed_at(10)[0].claimed_by, Some(first));
    }

    #[test]
    fn a_read_claims_no_more_than_it_shows() {
        let (mut history, mut ledger, _) = asked();
        let ticket = history.ask(&Request::Read { segment: name(), offset: 0, bytes_max: 100 }, &ledger);
        history.answered(ticket, &read(b"ab"), 10, &mut ledger).unwrap();
        assert_eq!(history.allowed_at(10)[0].states.len(), 2, "the first append is shown, the second is not");
    }

    #[test]
    fn answers_that_no_state_explains_are_rejected() {
        for (bytes, why) in [(&b"abx"[..], "other bytes"), (b"abcabcabc", "more than was written"), (b"", "nothing")] {
            let (mut history, mut ledger, _) = asked();
            let ticket = history.ask(&Request::Read { segment: name(), offset: 0, bytes_max: 100 }, &ledger);
            assert!(history.answered(ticket, &read(bytes), 10, &mut ledger).is_err(), "{why}");
        }
        let (mut history, mut ledger, [_, first, second]) = asked();
        assert!(history.answered(first, &Ok(Response::Appended { length: 4 }), 1, &mut ledger).is_err());
        assert!(history.answered(first, &Ok(Response::Appended { length: 3 }), 1, &mut ledger).is_err(), "twice");
        assert!(history.answered(second, &Err(Refusal::Sealed), 1, &mut ledger).is_err());
    }
}
