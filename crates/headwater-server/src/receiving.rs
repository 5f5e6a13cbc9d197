//! Room for large frames that are being received, shared by all connections.
//!
//! A frame is announced with 8 bytes and may have 16 MiB, so room is taken as its bytes arrive, in steps: who announces and
//! does not send takes nothing. Frames that each hold a part and wait for the rest would wait for one another; so beside
//! the common room there is one place for a whole frame, and who finds no common room waits for that, too:
//!
//! ```text
//!   next step ──► common room, or ──► the one place: the rest of the frame is granted
//! ```
//!
//! Guarantees:
//! * all frames together hold at most the common room, one largest frame, and [`FREE_BYTES`] each
//! * peers that have not shown who they are have a small room of their own: they take nothing from those who have
//! * the frame that has the place needs nothing else to complete, and whoever waits is served in turn
//! * while somebody waits, who holds room has to send ([`Share::is_hogged`])

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headwater_types::limits::SERVER_FRAME_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// The first bytes of a frame are received without room.
pub(crate) const FREE_BYTES: usize = 64 << 10;
/// Taken at a time.
const STEP_BYTES: usize = 256 << 10;
/// How often it is looked whether a frame that holds room goes on.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// Between two looks a frame has to bring so much while others wait for room.
const PROGRESS_BYTES: usize = 128 << 10;
/// And so much if it has the one place.
const PROGRESS_IN_PLACE_BYTES: usize = 1 << 20;

/// Common room of the frames of strangers.
const STRANGERS_BYTES: usize = 4 * STEP_BYTES;

/// Room for large frames. Clones share it.
#[derive(Clone, Debug)]
pub struct ReceivingRoom {
    known: Pool,
    /// `None` if nobody has to show anything.
    strangers: Option<Pool>,
}

impl ReceivingRoom {
    /// Of about so many bytes, but at least of one largest frame and a half. `has_strangers`: there are peers of whom one
    /// does not know yet who they are. What they may take comes on top.
    pub fn new(bytes: u64, has_strangers: bool) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let common = bytes.saturating_sub(SERVER_FRAME_BYTES_MAX).max(SERVER_FRAME_BYTES_MAX / 2);
        Self { known: Pool::new(common), strangers: has_strangers.then(|| Pool::new(STRANGERS_BYTES)) }
    }

    /// Begins a frame of which `received` bytes are there.
    pub(crate) fn begin(&self, frame_bytes: usize, received: usize, is_known: bool) -> Share {
        let pool = if is_known { &self.known } else { self.strangers.as_ref().unwrap_or(&self.known) };
        Share {
            room: pool.clone(),
            frame_bytes,
            allowed: FREE_BYTES.max(received).min(frame_bytes),
            common: None,
            place: None,
            looked: (Instant::now(), received),
        }
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
struct Pool {
    common: Arc<Semaphore>,
    place: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Pool {
    fn new(common: usize) -> Self {
        Self { common: Arc::new(Semaphore::new(common)), place: Arc::new(Semaphore::new(1)), waiting: Arc::default() }
    }
}

/// What one frame holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: Pool,
    frame_bytes: usize,
    allowed: usize,
    common: Option<OwnedSemaphorePermit>,
    place: Option<OwnedSemaphorePermit>,
    /// When it was looked last, and what had been received by then.
    looked: (Instant, usize),
}

/// There was no room in time.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct NoRoom;

impl Share {
    /// Bytes of the whole frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Bytes of the frame that may be received for now.
    pub(crate) fn allowed(&self) -> usize {
        self.allowed
    }

    /// Takes the next step, waiting at most so long. Returns how long it waited.
    ///
    /// # Cancel safety
    /// Nothing is taken if the future is dropped.
    pub(crate) async fn grow(&mut self, patience: Duration) -> Result<Duration, NoRoom> {
        let step = STEP_BYTES.min(self.frame_bytes - self.allowed);
        let permits = u32::try_from(step).expect("a step is small");
        let mut waited = Duration::ZERO;
        if let Ok(more) = self.room.common.clone().try_acquire_many_owned(permits) {
            self.hold(more, step);
        } else {
            let begun = Instant::now();
            let _waits = Waits::new(self.room.waiting.clone());
            let (common, place) = (self.room.common.clone(), self.room.place.clone());
            let either = async {
                tokio::select! {
                    biased;
                    more = common.acquire_many_owned(permits) => (more.ok(), None),
                    place = place.acquire_owned() => (None, place.ok()),
                }
            };
            match timeout(patience, either).await.map_err(|_| NoRoom)? {
                (Some(more), _) => self.hold(more, step),
                (None, place) => {
                    self.place = Some(place.expect("the room is never closed"));
                    self.allowed = self.frame_bytes;
                }
            }
            waited = begun.elapsed();
            self.looked.0 = Instant::now();
        }
        Ok(waited)
    }

    fn hold(&mut self, more: OwnedSemaphorePermit, step: usize) {
        match &mut self.common {
            Some(common) => common.merge(more),
            None => self.common = Some(more),
        }
        self.allowed += step;
    }

    /// Looks, at most every [`LOOK`], whether it holds what others wait for and has not brought enough since the last look.
    pub(crate) fn is_hogged(&mut self, received: usize) -> bool {
        let (at, had) = self.looked;
        if at.elapsed() < LOOK {
            return false;
        }
        self.looked = (Instant::now(), received);
        let enough = match (&self.place, &self.common) {
            (Some(_), _) => PROGRESS_IN_PLACE_BYTES,
            (None, Some(_)) => PROGRESS_BYTES,
            (None, None) => 0,
        };
        self.room.waiting.load(Ordering::Relaxed) > 0 && received - had < enough
    }
}

/// Counts somebody who waits, as long as that lasts.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn new(waiting: Arc<AtomicUsize>) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = SERVER_FRAME_BYTES_MAX;
    /// In the common room of the least room there is.
    const STEPS: usize = FRAME / 2 / STEP_BYTES;
    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn frames_that_hold_a_part_each_all_complete_in_turn() {
        let room = ReceivingRoom::new(0, true);
        let mut frames: Vec<_> = (0..100).map(|_| room.begin(FRAME, 0, true)).collect();
        let mut begun = 0;
        while frames[begun].grow(Duration::ZERO).await.is_ok() && frames[begun].place.is_none() {
            begun += 1;
        }
        assert_eq!(begun, STEPS, "each took a step, and then there was only the place");
        for mut frame in frames.drain(..).skip(begun) {
            while frame.allowed() < FRAME {
                frame.grow(PATIENCE).await.unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_what_others_want_has_to_go_on() {
        let room = ReceivingRoom::new(0, true);
        let mut hogs: Vec<_> = (0..STEPS).map(|_| room.begin(FRAME, 0, true)).collect();
        for hog in &mut hogs {
            hog.grow(PATIENCE).await.unwrap();
        }
        let mut placed = room.begin(FRAME, 0, true);
        placed.grow(PATIENCE).await.unwrap();
        tokio::time::advance(LOOK).await;
        assert!(!hogs[0].is_hogged(0), "nobody waits");
        let mut honest = room.begin(FRAME, 0, true);
        let waits = tokio::spawn(async move { honest.grow(PATIENCE).await.map(|_| honest) });
        tokio::time::sleep(LOOK).await;
        assert!(hogs[0].is_hogged(FREE_BYTES) && placed.is_hogged(2 * PROGRESS_BYTES));
        assert!(!hogs[1].is_hogged(2 * PROGRESS_BYTES), "it goes on");
        assert!(!room.begin(FRAME, 0, true).is_hogged(0), "it was only begun");
        drop(hogs);
        assert_eq!(waits.await.unwrap().unwrap().allowed(), FREE_BYTES + STEP_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told() {
        let room = ReceivingRoom::new(0, true);
        let mut hogs: Vec<_> = (0..=STEPS).map(|_| room.begin(FRAME, 0, true)).collect();
        for hog in &mut hogs {
            hog.grow(PATIENCE).await.unwrap();
        }
        assert_eq!(room.begin(FRAME, 0, true).grow(PATIENCE).await, Err(NoRoom));
        assert_eq!(room.known.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_take_nothing_from_those_who_are_known() {
        let room = ReceivingRoom::new(0, true);
        let mut strangers: Vec<_> = (0..=STRANGERS_BYTES / STEP_BYTES).map(|_| room.begin(FRAME, 0, false)).collect();
        for stranger in &mut strangers {
            stranger.grow(PATIENCE).await.unwrap();
        }
        assert_eq!(room.begin(FRAME, 0, false).grow(PATIENCE).await, Err(NoRoom), "they wait for one another");
        let mut user = room.begin(FRAME, 0, true);
        while user.allowed() < FRAME {
            assert_eq!(user.grow(PATIENCE).await, Ok(Duration::ZERO));
        }
    }
}
