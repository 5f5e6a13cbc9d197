//! Room for large frames that are being received, shared by all connections.
//!
//! A frame is announced with 8 bytes and may have 16 MiB, so room is taken as its bytes arrive, in steps: who announces
//! and does not send takes nothing. Frames that each hold a part and wait for the rest would wait for one another; so
//! beside the common room there is one place for a whole frame:
//!
//! ```text
//!   first step ──► in turn ──────────────► half of the common room
//!   the next   ──► who holds most first ──► the other half, or
//!                                           the one place: the rest of the frame is granted
//! ```
//!
//! Guarantees:
//! * all frames together hold at most the common room, one largest frame, and [`FREE_BYTES`] each
//! * peers that have not shown who they are have a small room of their own: they take nothing from those who have
//! * the frame that has the place needs nothing else to complete
//! * whoever joins waits for those before it once, and not again at each step
//! * while somebody waits, who holds room has to send ([`Share::is_hogged`]), and the faster the longer that one has
//!   waited: a turn of a peer that stops sending lasts half a second, and an eighth in the end
//!
//! Start reading at [`Places`], which decides; [`Share::grow`] waits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use headwater_types::limits::SERVER_FRAME_BYTES_MAX;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout};

/// The first bytes of a frame are received without room.
pub(crate) const FREE_BYTES: usize = 16 << 10;
/// Taken at a time.
const STEP_BYTES: usize = 256 << 10;
/// How often it is looked whether a frame that holds room goes on.
pub(crate) const LOOK: Duration = Duration::from_millis(60);
/// For so long a frame that holds room may bring less than it has to while others wait: longer than a round trip to
/// anywhere.
const PAUSE: Duration = Duration::from_millis(500);
/// In this time it has to bring so much at least.
const PROGRESS_BYTES: usize = 64 << 10;
/// If it has the one place.
const PROGRESS_IN_PLACE_BYTES: usize = 512 << 10;
/// Each time that somebody has waited so long again, the pause is half as long.
const URGENT_AFTER: Duration = Duration::from_secs(4);
/// But so often only.
const URGENCY_MAX: u32 = 2;

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
    /// Of about so many bytes, but at least of one largest frame and a half. `has_strangers`: there are peers of whom
    /// one does not know yet who they are. What they may take comes on top.
    pub fn new(bytes: u64, has_strangers: bool) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let common = bytes.saturating_sub(SERVER_FRAME_BYTES_MAX).max(SERVER_FRAME_BYTES_MAX / 2);
        Self { known: Pool::new(common), strangers: has_strangers.then(|| Pool::new(STRANGERS_BYTES)) }
    }

    /// Begins a frame of which `received` bytes are there.
    pub(crate) fn begin(&self, frame_bytes: usize, received: usize, is_known: bool) -> Share {
        let pool = if is_known { &self.known } else { self.strangers.as_ref().unwrap_or(&self.known) };
        Share {
            pool: pool.clone(),
            frame_bytes,
            allowed: FREE_BYTES.max(received).min(frame_bytes),
            held: Vec::new(),
            held_bytes: 0,
            has_place: false,
            went_on: (Instant::now(), received),
        }
    }
}

/// What may be held, and who waits for it. Decides; waits for nobody.
#[derive(Debug)]
struct Places {
    /// First steps that are free.
    first: usize,
    /// Bytes of the common room that are free for steps after the first.
    more: usize,
    is_place_free: bool,
    numbers: u64,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Waiting>,
    /// Of those the ones that wait for a first step.
    joining: BTreeSet<u64>,
    /// And the others: who holds most comes first.
    holding: BTreeSet<(Reverse<usize>, u64)>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    held_bytes: usize,
    step: usize,
    granted: oneshot::Sender<Held>,
}

/// What is granted at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Grant {
    /// The first step of a frame.
    First,
    /// So many bytes more.
    More(usize),
    /// The one place.
    Place,
}

impl Places {
    /// Lets somebody wait, under a number of its own.
    fn wait(&mut self, waiting: Waiting) -> u64 {
        self.numbers += 1;
        if waiting.held_bytes == 0 {
            self.joining.insert(self.numbers);
        } else {
            self.holding.insert((Reverse(waiting.held_bytes), self.numbers));
        }
        self.waiting.insert(self.numbers, waiting);
        self.numbers
    }

    /// Forgets somebody who waits, if it still does.
    fn leave(&mut self, number: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&number)?;
        let had_turn = match waiting.held_bytes {
            0 => self.joining.remove(&number),
            bytes => self.holding.remove(&(Reverse(bytes), number)),
        };
        assert!(had_turn, "whoever waits has a turn");
        Some(waiting)
    }

    /// Grants something to somebody whose turn it is, if there is something.
    fn next(&mut self) -> Option<(oneshot::Sender<Held>, Grant)> {
        if let Some(&(_, number)) = self.holding.first() {
            let step = self.waiting[&number].step;
            if self.more >= step || self.is_place_free {
                let waiting = self.leave(number)?;
                if self.more >= step {
                    self.more -= step;
                    return Some((waiting.granted, Grant::More(step)));
                }
                self.is_place_free = false;
                return Some((waiting.granted, Grant::Place));
            }
        }
        let number = *self.joining.first().filter(|_| self.first > 0)?;
        self.first -= 1;
        Some((self.leave(number)?.granted, Grant::First))
    }

    fn give_back(&mut self, grant: Grant) {
        match grant {
            Grant::First => self.first += 1,
            Grant::More(bytes) => self.more += bytes,
            Grant::Place => {
                assert!(!self.is_place_free, "one frame has the place");
                self.is_place_free = true;
            }
        }
    }

    /// Since when the first of those waits who wait.
    fn first_waits_since(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting.since)
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
struct Pool(Arc<Mutex<Places>>);

impl Pool {
    fn new(common: usize) -> Self {
        let first = common / 2 / STEP_BYTES;
        Self(Arc::new(Mutex::new(Places {
            first,
            more: common - first * STEP_BYTES,
            is_place_free: true,
            numbers: 0,
            waiting: BTreeMap::new(),
            joining: BTreeSet::new(),
            holding: BTreeSet::new(),
        })))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().expect("a panic ends the process")
    }

    /// Serves whoever can be served.
    fn serve(&self) {
        loop {
            let Some((granted, grant)) = self.places().next() else { return };
            // Who has just gone away drops it, and that serves the next.
            let _ = granted.send(Held { pool: self.clone(), grant });
        }
    }
}

/// Something granted; given back when dropped.
#[derive(Debug)]
struct Held {
    pool: Pool,
    grant: Grant,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pool.places().give_back(self.grant);
        self.pool.serve();
    }
}

/// Somebody who waits, as long as that lasts.
struct Turn {
    pool: Pool,
    number: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        // Who leaves may have stood before somebody for whom there is something.
        if self.pool.places().leave(self.number).is_some() {
            self.pool.serve();
        }
    }
}

/// What one frame holds; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    pool: Pool,
    frame_bytes: usize,
    allowed: usize,
    held: Vec<Held>,
    /// In steps.
    held_bytes: usize,
    has_place: bool,
    /// When it had last brought what it has to, and what had been received by then.
    went_on: (Instant, usize),
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

    /// It holds what others may want.
    pub(crate) fn holds_room(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes the next step, waiting at most so long. Returns how long it waited.
    ///
    /// # Cancel safety
    /// Nothing is taken if the future is dropped.
    pub(crate) async fn grow(&mut self, patience: Duration) -> Result<Duration, NoRoom> {
        let begun = Instant::now();
        let step = STEP_BYTES.min(self.frame_bytes - self.allowed);
        let (granted, mut receiver) = oneshot::channel();
        let waiting = Waiting { since: begun, held_bytes: self.held_bytes, step, granted };
        let number = self.pool.places().wait(waiting);
        let _turn = Turn { pool: self.pool.clone(), number };
        self.pool.serve();
        let held = match receiver.try_recv() {
            Ok(held) => held,
            Err(_) => {
                let granted = timeout(patience, receiver).await.map_err(|_| NoRoom)?;
                self.went_on.0 = Instant::now();
                granted.expect("who waits is served or leaves by itself")
            }
        };
        match held.grant {
            Grant::First | Grant::More(_) => {
                self.allowed += step;
                self.held_bytes += step;
            }
            Grant::Place => {
                self.has_place = true;
                self.allowed = self.frame_bytes;
            }
        }
        self.held.push(held);
        Ok(begun.elapsed())
    }

    /// Whether it holds what others wait for and has not brought enough of late. To be asked when everything that has
    /// arrived was received: then it is not we who are slow.
    pub(crate) fn is_hogged(&mut self, received: usize) -> bool {
        let now = Instant::now();
        let waits_since = if self.holds_room() { self.pool.places().first_waits_since() } else { None };
        let Some(since) = waits_since else {
            self.went_on = (now, received);
            return false;
        };
        let enough = if self.has_place { PROGRESS_IN_PLACE_BYTES } else { PROGRESS_BYTES };
        if received - self.went_on.1 >= enough {
            self.went_on = (now, received);
        }
        let urgency = (now - since).as_millis() / URGENT_AFTER.as_millis();
        let pause = PAUSE / 2_u32.pow(u32::try_from(urgency).unwrap_or(u32::MAX).min(URGENCY_MAX));
        now - self.went_on.0 >= pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = SERVER_FRAME_BYTES_MAX;
    /// First steps in the least room there is.
    const FIRST: usize = FRAME / 2 / 2 / STEP_BYTES;
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Frames that each hold a first step.
    async fn hogs(room: &ReceivingRoom, count: usize) -> Vec<Share> {
        let mut hogs: Vec<_> = (0..count).map(|_| room.begin(FRAME, 0, true)).collect();
        for hog in &mut hogs {
            hog.grow(Duration::ZERO).await.unwrap();
        }
        hogs
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_hold_a_part_each_all_complete_in_turn() {
        let room = ReceivingRoom::new(0, true);
        let mut frames = hogs(&room, FIRST).await;
        assert_eq!(
            room.begin(FRAME, 0, true).grow(Duration::ZERO).await,
            Err(NoRoom),
            "only those that were begun go on"
        );
        frames.extend((0..100).map(|_| room.begin(FRAME, 0, true)));
        for mut frame in frames.drain(..) {
            while frame.allowed() < FRAME {
                frame.grow(Duration::ZERO).await.unwrap();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_what_others_want_has_to_go_on() {
        let room = ReceivingRoom::new(0, true);
        let mut hogs = hogs(&room, FIRST).await;
        let mut placed = hogs.pop().unwrap();
        while !placed.has_place {
            placed.grow(PATIENCE).await.unwrap();
        }
        tokio::time::advance(PAUSE).await;
        assert!(!hogs[0].is_hogged(0) && !hogs[1].is_hogged(0) && !placed.is_hogged(0), "nobody waits");
        let mut honest = room.begin(FRAME, 0, true);
        let waits = tokio::spawn(async move { honest.grow(PATIENCE).await.map(|_| honest) });
        tokio::time::sleep(PAUSE).await;
        assert!(hogs[0].is_hogged(PROGRESS_BYTES - 1) && placed.is_hogged(2 * PROGRESS_BYTES));
        assert!(!hogs[1].is_hogged(PROGRESS_BYTES), "it goes on");
        assert!(!room.begin(FRAME, 0, true).is_hogged(0), "it was only begun");
        drop(hogs);
        assert_eq!(waits.await.unwrap().unwrap().allowed(), FREE_BYTES + STEP_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_most_is_served_first() {
        let room = ReceivingRoom::new(0, true);
        let mut hogs = hogs(&room, FIRST).await;
        let mut placed = hogs.pop().unwrap();
        while !placed.has_place {
            placed.grow(PATIENCE).await.unwrap();
        }
        let (mut little, mut much) = (hogs.pop().unwrap(), hogs.pop().unwrap());
        much.held_bytes += 1;
        let little = tokio::spawn(async move { little.grow(PATIENCE).await.map(|_| little) });
        tokio::task::yield_now().await;
        let much = tokio::spawn(async move { much.grow(PATIENCE).await.map(|_| much) });
        tokio::task::yield_now().await;
        placed.held.retain(|held| held.grant != Grant::Place);
        assert!(much.await.unwrap().unwrap().has_place);
        assert!(little.await.unwrap().unwrap().has_place, "and then the other");
    }

    /// Sends so much at once, and then at a rate, in bytes per second. Returns when it was closed, or complete.
    async fn send(room: &ReceivingRoom, at_once: usize, rate: usize) -> Result<Share, NoRoom> {
        let begun = Instant::now();
        let mut frame = room.begin(FRAME, 0, true);
        let mut received = 0;
        // What waits for room is in the socket meanwhile.
        loop {
            let sent = at_once.saturating_add(begun.elapsed().as_millis() as usize * rate / 1000).min(FRAME);
            received = sent.min(frame.allowed()).max(received);
            if received == FRAME {
                return Ok(frame);
            }
            if received == frame.allowed() {
                frame.grow(Duration::from_secs(60)).await?;
            } else if frame.is_hogged(received) {
                return Err(NoRoom);
            } else {
                tokio::time::sleep(LOOK).await;
            }
        }
    }

    /// Beside so many peers that send so and come back when they were closed, a frame that is there at once completes.
    async fn check_beside(crowd: usize, at_once: usize, rate: usize, within: Duration) {
        let room = ReceivingRoom::new(0, false);
        for _ in 0..crowd {
            let room = room.clone();
            tokio::spawn(async move {
                loop {
                    let _ = send(&room, at_once, rate).await;
                }
            });
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        for _ in 0..3 {
            let begun = Instant::now();
            let stored = send(&room, FRAME, 0).await;
            assert!(stored.is_ok() && begun.elapsed() <= within, "{at_once} at once, {rate}: {:?}", begun.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_is_sent_steadily_completes_beside_a_crowd_that_trickles_and_comes_back() {
        check_beside(1_000, 300_000, 4_000, Duration::from_secs(20)).await;
        check_beside(1_000, 2 * STEP_BYTES, 0, Duration::from_secs(30)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_completes_beside_a_crowd_that_sends_just_enough() {
        check_beside(200, 0, 2 * PROGRESS_BYTES, Duration::from_secs(45)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told() {
        let room = ReceivingRoom::new(0, true);
        let hogs = hogs(&room, FIRST).await;
        assert_eq!(room.begin(FRAME, 0, true).grow(PATIENCE).await, Err(NoRoom));
        assert!(room.known.places().waiting.is_empty());
        drop(hogs);
        let places = room.known.places();
        assert_eq!((places.first, places.is_place_free), (FIRST, true));
        assert_eq!(places.first * STEP_BYTES + places.more, FRAME / 2, "everything was given back");
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_take_nothing_from_those_who_are_known() {
        let room = ReceivingRoom::new(0, true);
        let mut strangers: Vec<_> =
            (0..STRANGERS_BYTES / 2 / STEP_BYTES).map(|_| room.begin(FRAME, 0, false)).collect();
        for stranger in &mut strangers {
            stranger.grow(PATIENCE).await.unwrap();
        }
        assert_eq!(room.begin(FRAME, 0, false).grow(PATIENCE).await, Err(NoRoom), "they wait for one another");
        let mut user = room.begin(FRAME, 0, true);
        while user.allowed() < FRAME {
            user.grow(Duration::ZERO).await.unwrap();
        }
    }
}
