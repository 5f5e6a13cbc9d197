//! What becomes of events that are under way: one ticket for all that travel together, one handle for each event.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use headwater_types::SegmentId;

use crate::error::{Error, Result};

/// Where an event was stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Written {
    /// Segment that has it.
    pub segment: SegmentId,
    /// Offset of its header in the segment; `None` if the acknowledgement was lost and the event was found stored.
    pub offset: Option<u64>,
    /// Bytes it takes in the segment, with its header of 8 bytes.
    pub length: u64,
}

/// An event on its way: resolves once it is stored. Dropping it changes nothing for the event.
#[derive(Debug)]
#[must_use = "an event is stored when its Ack resolves; call flush if single events do not matter"]
pub struct Ack {
    place: Place,
    length: u64,
}

/// One event among those of a ticket.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) ticket: Arc<Ticket>,
    /// Its number among them.
    pub(crate) index: usize,
    /// Where its header begins among their bytes.
    pub(crate) start: u64,
}

impl Ack {
    pub(crate) fn new(place: Place, length: u64) -> Self {
        Self { place, length }
    }
}

impl Future for Ack {
    type Output = Result<Written>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let moved = match self.place.ticket.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Outcome::Failed(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Outcome::Stored { segment, start }) => {
                    let offset = start.map(|start| start + self.place.start);
                    return Poll::Ready(Ok(Written { segment, offset, length: self.length }));
                }
                Poll::Ready(Outcome::Moved(places)) => places[self.place.index].clone(),
            };
            self.place = moved;
        }
    }
}

/// What became of the events of a ticket.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// All stored, one behind the other.
    Stored {
        segment: SegmentId,
        start: Option<u64>,
    },
    /// Their segment was sealed first: each has another ticket now.
    Moved(Arc<[Place]>),
    Failed(Error),
}

/// Events that travel together.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    waiting: Vec<Waker>,
}

impl Ticket {
    /// Of events whose fate is known.
    pub(crate) fn resolved(outcome: Outcome) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { outcome: Some(outcome), waiting: Vec::new() })))
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while it holds a ticket")
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.locked();
        if let Some(outcome) = &state.outcome {
            return Poll::Ready(outcome.clone());
        }
        // One task that waits for many events of a ticket is told once.
        if !state.waiting.iter().rev().any(|waker| waker.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Tells everybody who waits.
    pub(crate) fn resolve(&self, outcome: Outcome) {
        let mut state = self.locked();
        assert!(state.outcome.is_none(), "what became of events is decided once");
        state.outcome = Some(outcome);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waker in waiting {
            waker.wake();
        }
    }
}

/// Waits until everything of the ticket is decided, through all moves.
pub(crate) async fn settled(ticket: Arc<Ticket>) -> Result<()> {
    let mut tickets = vec![ticket];
    while let Some(ticket) = tickets.pop() {
        match std::future::poll_fn(|cx| ticket.poll(cx)).await {
            Outcome::Stored { .. } => {}
            Outcome::Failed(error) => return Err(error),
            Outcome::Moved(places) => {
                for place in &*places {
                    // Neighbours mostly moved together.
                    if !tickets.last().is_some_and(|last| Arc::ptr_eq(last, &place.ticket)) {
                        tickets.push(place.ticket.clone());
                    }
                }
            }
        }
    }
    Ok(())
}
