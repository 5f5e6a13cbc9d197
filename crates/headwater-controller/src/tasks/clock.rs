//! The store's clock: going on after a start with what the last run counted, and writing down how far it has come.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use super::slots::locked;
use super::{Inner, Result, put};
use crate::state::clock::{Moment, has_jumped};
use crate::state::keys;

/// How often it is written down while somebody records open times or transactions are open: after a hard stop what was
/// recorded is no further ahead than this. Retention has it written down with every run besides.
const EVERY: Duration = Duration::from_secs(60);
/// In a run that is shorter it is written down as often as the run doubles, from this on: so half of each run counts, and
/// a server that is killed again and again still comes to the end of its transactions.
const EVERY_MIN: Duration = Duration::from_secs(1);

pub(super) struct Clock {
    run: Mutex<Run>,
    /// An open time was recorded.
    recorded: Notify,
}

/// Time in this run.
struct Run {
    began: Moment,
    since: Instant,
    /// The wall clock was not believed when the store was opened.
    began_with_jump: bool,
}

impl Clock {
    /// Of a store that has counted nothing yet.
    pub(super) fn new(wall_ms: i64) -> Self {
        let run = Run { began: Moment::first(wall_ms), since: Instant::now(), began_with_jump: false };
        Self { run: Mutex::new(run), recorded: Notify::new() }
    }
}

impl Run {
    fn passed_ms(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

impl Inner {
    /// Goes on with what the last run counted. Before anything else that counts, since the open time of a store that
    /// has not been asked is 0.
    pub(super) async fn recover_clock(&self) -> Result<()> {
        let key = Bytes::from_static(keys::CLOCK);
        let found = self.ports.tables.read(keys::COUNTERS, std::slice::from_ref(&key)).await?.pop().flatten();
        let wall_ms = self.wall_ms();
        let (began, is_believed) = match found {
            None => (Moment::first(wall_ms), true),
            Some(entry) => {
                let last = Moment::decode(&entry.value)?;
                let (began, is_believed) = last.reopened(wall_ms);
                if !is_believed {
                    let before_ms = last.wall_ms;
                    warn!(before_ms, now_ms = wall_ms, "the wall clock has jumped; the time away is not counted");
                }
                (began, is_believed)
            }
        };
        *locked(&self.clock.run) = Run { began, since: Instant::now(), began_with_jump: !is_believed };
        self.keep_clock().await
    }

    pub(super) async fn run_clock(self: Arc<Self>) {
        let mut stopped = self.stopped.subscribe();
        loop {
            tokio::select! {
                () = self.clock.recorded.notified() => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            if let Err(error) = self.keep_clock().await {
                warn!(%error, "how far the store's clock has come is written down the next time");
                self.clock.recorded.notify_one();
            }
            let run = locked(&self.clock.run).since.elapsed();
            tokio::select! {
                () = tokio::time::sleep(run.clamp(EVERY_MIN, EVERY)) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
            if !self.leases.is_empty() {
                self.clock.recorded.notify_one();
            }
        }
    }

    /// Writes the clock down for the next start.
    pub(super) async fn keep_clock(&self) -> Result<()> {
        let record = self.moment().encode();
        self.ports.tables.commit(keys::COUNTERS, vec![put(Bytes::from_static(keys::CLOCK), record)]).await?;
        Ok(())
    }

    /// Now, by all counts.
    pub(super) fn moment(&self) -> Moment {
        let wall_ms = self.wall_ms();
        let run = locked(&self.clock.run);
        run.began.later(run.passed_ms(), wall_ms)
    }

    /// Now, to be recorded or counted on: the clock itself is written down soon.
    pub(super) fn recorded_moment(&self) -> Moment {
        self.clock.recorded.notify_one();
        self.moment()
    }

    /// How long the store has been open.
    pub(super) fn open_ms(&self) -> i64 {
        self.moment().open_ms
    }

    /// Whether the wall clock is more than a day away from where it should be.
    pub(super) fn clock_jumped(&self) -> bool {
        let wall_ms = self.wall_ms();
        let run = locked(&self.clock.run);
        run.began_with_jump || has_jumped(wall_ms.saturating_sub(run.began.wall_ms), run.passed_ms())
    }
}
