//! What waits for the writing half of a connection.
//!
//! Guarantees:
//! * what was delivered is taken in that order, many at a time
//! * while nothing waits, it takes no memory: most connections are idle most of the time
//! * after the end everything that waits is dropped, and so is what comes later
//!
//! Not bounded by itself: everything in it holds a charge of the reading half.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;

/// A queue with one reader.
#[derive(Debug)]
pub(crate) struct Deliveries<T> {
    queue: Mutex<Queue<T>>,
    /// The queue is not empty any more.
    arrived: Notify,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<T>,
    has_ended: bool,
}

impl<T> Default for Deliveries<T> {
    fn default() -> Self {
        let queue = Queue { waiting: VecDeque::new(), has_ended: false };
        Self { queue: Mutex::new(queue), arrived: Notify::new() }
    }
}

impl<T> Deliveries<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().expect("a panic ends the process")
    }

    /// Adds something; after the end it is dropped.
    pub(crate) fn deliver(&self, one: T) {
        let mut queue = self.queue();
        if queue.has_ended {
            drop(queue);
            drop(one);
            return;
        }
        queue.waiting.push_back(one);
        if queue.waiting.len() == 1 {
            drop(queue);
            self.arrived.notify_one();
        }
    }

    /// Takes everything that waits; nothing if nothing does.
    pub(crate) fn take(&self) -> VecDeque<T> {
        std::mem::take(&mut self.queue().waiting)
    }

    /// Waits until there is something to [`take`](Self::take), for the one reader there is.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn arrived(&self) {
        while self.queue().waiting.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Nobody reads any more.
    pub(crate) fn end(&self) {
        let waiting = {
            let mut queue = self.queue();
            queue.has_ended = true;
            std::mem::take(&mut queue.waiting)
        };
        // Outside the lock: what is dropped may do anything.
        drop(waiting);
    }

    /// Nobody reads any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.queue().has_ended
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_is_delivered_is_taken_in_order_and_wakes_the_reader() {
        let deliveries = Arc::new(Deliveries::default());
        let reader = tokio::spawn({
            let deliveries = deliveries.clone();
            async move {
                let mut seen = Vec::new();
                while seen.len() < 1_000 {
                    deliveries.arrived().await;
                    seen.extend(deliveries.take());
                }
                seen
            }
        });
        for number in 0..1_000 {
            deliveries.deliver(number);
            if number % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(reader.await.unwrap(), (0..1_000).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reader_that_gave_up_waiting_finds_what_came_meanwhile() {
        let deliveries = Deliveries::default();
        let waited = tokio::time::timeout(Duration::from_millis(1), deliveries.arrived()).await;
        assert!(waited.is_err());
        deliveries.deliver(1);
        deliveries.arrived().await;
        assert_eq!(deliveries.take(), [1]);
    }

    #[test]
    fn after_the_end_everything_is_dropped() {
        let (deliveries, held) = (Deliveries::default(), Arc::new(()));
        deliveries.deliver(held.clone());
        deliveries.end();
        deliveries.deliver(held.clone());
        assert!(deliveries.has_ended() && deliveries.take().is_empty());
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
