//! One reader of a group: what it has, what it does next, and what it writes.
//!
//! ```text
//!                     ┌── a checkpoint is due ──► Stopped ── reported ──► HandingOver ──┐
//!   Reading ──────────┘                                                                 │
//!      ▲                      what is read to its end is completed, what is too much given back
//!      └────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Between two checkpoints a reader gives nothing away: what it has delivered and the application has not kept yet would
//! be lost with the reader. So whoever has no checkpoints never goes on from a segment to its successors, unless it says
//! that all that was delivered is handled ([`Handover::AtOnce`]).
//!
//! The machine decides and does nothing else. Its caller asks for the [next step](Member::next), does it, and says so:
//! ```text
//!   next ─► Append(intent) ─► updates(intent, state) ─► append if nothing came since ─► apply ─► settled
//!                                       ▲                              │ something did
//!                                       └──────── apply what came ◄────┘
//! ```
//!
//! Invariants:
//! * what it reads is assigned to it in the state as it knows it (`refreshed`, `settled`), or it stops with [`Offline`]
//! * no segment is both open and ended
//! * while a checkpoint waits for it, it neither takes nor gives

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_types::{KeyRange, SegmentId, StreamSegment};

use super::decide::{self, UNIT};
use super::{Placed, Places, Retention, State, Update, is_silent};
use crate::{Offsets, Position, READ, Ranges};

/// Longest time that something under way keeps a reader from the next. Source: Java's `UPDATE_WINDOW`.
const UNDER_WAY: Duration = Duration::from_secs(30);
/// How often a reader looks whether the configuration is being replaced. Source: Java's `UPDATE_CONFIG_WINDOW`.
const CONFIGURATION_EVERY: Duration = Duration::from_secs(10);

/// When a reader may give away what it has read.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Handover {
    /// After a checkpoint, as Java's readers.
    #[default]
    AtCheckpoint,
    /// At once: what the machine is told to be read is handled.
    AtOnce,
}

/// One reader of a group.
#[derive(Clone, Debug)]
pub struct Member {
    id: String,
    handover: Handover,
    open: BTreeMap<StreamSegment, Open>,
    /// Read to their ends, with the offset that is reported: [`READ`], or where the group ends.
    ended: Offsets,
    stage: Stage,
    timers: Timers,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Open {
    offset: i64,
    end: Option<i64>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Stage {
    Reading,
    /// The application was told of this checkpoint. When it asks for more it has kept what came before.
    Stopped(String),
    HandingOver,
}

/// When something may be done next.
#[derive(Clone, Copy, Debug)]
struct Timers {
    refresh: Duration,
    acquire: Duration,
    release: Duration,
    checkpoint: Duration,
    report: Duration,
    configuration: Duration,
}

/// The group takes the reader for gone, or never knew it. What it has belongs to others.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("reader {reader} is not in the group")]
pub struct Offline {
    /// Its id.
    pub reader: String,
}

/// What to do next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Apply what others have appended, then say [`refreshed`](Member::refreshed).
    Refresh,
    /// Append what [`updates`](Member::updates) gives for this, then say [`settled`](Member::settled).
    Append(Intent),
    /// Ask the controller what follows this segment, and which keys those have that [`decide::unplaced`] then names; append
    /// [`Intent::Complete`] with the answers.
    Successors(StreamSegment),
    /// Append [`Intent::CreateCheckpoint`] with a name that nobody else draws.
    CreateCheckpoint,
    /// Tell the application. When it asks for more, it has kept all that came before.
    Checkpoint(String),
    /// Tell the controller of the last checkpoint, and append [`Update::Published`] without condition.
    Publish,
    /// The configuration is being replaced: if the controller has a newer one, append a fresh state with it.
    Reconfigure,
    /// Read events; ask again after some.
    Read,
    /// There is nothing to read in the group and nothing will come.
    End,
}

/// Something to append.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Intent {
    /// Take segments.
    Acquire,
    /// Say how far the reader is. The only one that needs no condition.
    Report,
    /// Report to a checkpoint.
    ReportCheckpoint(String),
    /// Begin a checkpoint of that name, if none is under way.
    CreateCheckpoint(String),
    /// A segment is read to its end.
    Complete {
        /// The segment.
        segment: StreamSegment,
        /// What follows it.
        successors: Vec<Successor>,
        /// Keys of the segments that [`decide::unplaced`] names.
        ranges: BTreeMap<SegmentId, KeyRange>,
    },
    /// Give a segment back.
    Release(StreamSegment),
}

/// A segment that follows another.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Successor {
    /// The segment.
    pub segment: StreamSegment,
    /// Its keys.
    pub range: KeyRange,
    /// Ids of all segments that it follows.
    pub predecessors: Vec<i64>,
}

/// What has to be done after something was appended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Read this segment.
    Open {
        /// The segment.
        segment: StreamSegment,
        /// From here.
        offset: i64,
        /// To here, if not to its end.
        end: Option<i64>,
    },
    /// Do not read it any more.
    Close(StreamSegment),
}

impl Member {
    /// A reader that waits for `delay`, and by chance (from 0 to 1) up to as long again, before it takes anything: others
    /// that start at the same time get their part. [`join`](Self::join) has to be appended first.
    pub fn new(id: impl Into<String>, handover: Handover, now: Duration, delay: Duration, chance: f64) -> Self {
        let soon = now + UNIT;
        let acquire = now + delay + delay.mul_f64(chance.clamp(0.0, 1.0));
        Self {
            id: id.into(),
            handover,
            open: BTreeMap::new(),
            ended: Offsets::new(),
            stage: Stage::Reading,
            timers: Timers {
                refresh: now,
                acquire,
                release: soon,
                checkpoint: soon,
                report: soon,
                configuration: soon,
            },
        }
    }

    /// What adds the reader to the group.
    ///
    /// # Errors
    /// One of its id is there.
    pub fn join(&self, state: &State) -> Result<Update, super::Contradiction> {
        if state.is_online(&self.id) {
            return Err(super::Contradiction::Online { reader: self.id.clone() });
        }
        Ok(Update::AddReader { reader: self.id.clone() })
    }

    /// What takes it out, with where it is; nothing if it is not in the group.
    pub fn leave(&self, state: &State) -> Option<Update> {
        decide::offline(state, &self.id, &self.offsets())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is in each segment that it has.
    pub fn offsets(&self) -> Offsets {
        let open = self.open.iter().map(|(segment, open)| (segment.clone(), open.offset));
        open.chain(self.ended.iter().map(|(segment, offset)| (segment.clone(), *offset))).collect()
    }

    /// The same with keys, for the application to keep.
    pub fn position(&self, state: &State) -> Position {
        let offsets = self.offsets();
        let ranges: Ranges = offsets.keys().map(|segment| (segment.clone(), state.range(segment))).collect();
        Position { offsets, ranges }
    }

    /// It has segments to read.
    pub fn is_reading(&self) -> bool {
        !self.open.is_empty()
    }

    /// Everything before `offset` was read in a segment. True if that is where the group ends: nothing more is to be read in it.
    pub fn read_to(&mut self, segment: &StreamSegment, offset: i64) -> bool {
        let Some(open) = self.open.get_mut(segment) else { return true };
        open.offset = offset;
        let ends = open.end.is_some_and(|end| offset >= end);
        if ends {
            self.open.remove(segment);
            self.ended.insert(segment.clone(), offset);
        }
        ends
    }

    /// Whether an offset of a segment is where the group ends, or behind.
    pub fn ends_at(&self, segment: &StreamSegment, offset: i64) -> bool {
        self.open.get(segment).is_some_and(|open| open.end.is_some_and(|end| offset >= end))
    }

    /// A segment was read to its own end.
    pub fn read_to_end(&mut self, segment: &StreamSegment) {
        if self.open.remove(segment).is_some() {
            self.ended.insert(segment.clone(), READ);
        }
    }

    /// What to do next. Whatever it says, the caller does before it asks again.
    ///
    /// # Errors
    /// The group takes the reader for gone.
    pub fn next(&mut self, state: &State, now: Duration) -> Result<Step, Offline> {
        if !state.is_online(&self.id) {
            return Err(self.offline());
        }
        if now >= self.timers.refresh {
            return Ok(Step::Refresh);
        }
        if now >= self.timers.configuration {
            self.timers.configuration = now + CONFIGURATION_EVERY;
            if state.is_reconfiguring() {
                return Ok(Step::Reconfigure);
            }
        }
        if let Stage::Stopped(name) = &self.stage {
            return Ok(Step::Append(Intent::ReportCheckpoint(name.clone())));
        }
        if let Some(due) = state.checkpoint_due(&self.id).map(str::to_owned) {
            self.timers.checkpoint = now + automatic(state).unwrap_or_default();
            if is_silent(&due) {
                return Ok(Step::Append(Intent::ReportCheckpoint(due)));
            }
            self.stage = Stage::Stopped(due.clone());
            return Ok(Step::Checkpoint(due));
        }
        let checkpointed = self.stage == Stage::HandingOver;
        if checkpointed || self.handover == Handover::AtOnce {
            if let Some(step) = self.hand_over(state, now, checkpointed) {
                return Ok(step);
            }
            self.stage = Stage::Reading;
        }
        Ok(self.go_on(state, now))
    }

    fn offline(&self) -> Offline {
        Offline { reader: self.id.clone() }
    }

    fn hand_over(&mut self, state: &State, now: Duration, checkpointed: bool) -> Option<Step> {
        if let Some(segment) = self.ended.keys().next().cloned() {
            // Nothing follows where the group ends.
            if state.end(&segment).is_none() {
                return Some(Step::Successors(segment));
            }
            let (successors, ranges) = (Vec::new(), BTreeMap::new());
            return Some(Step::Append(Intent::Complete { segment, successors, ranges }));
        }
        if now >= self.timers.release
            && let Some(segment) = decide::to_release(state, &self.id)
        {
            self.timers.release = now + UNDER_WAY;
            self.timers.acquire = now + UNDER_WAY;
            return Some(Step::Append(Intent::Release(segment.clone())));
        }
        let retains = state.configuration().retention == Retention::AtCheckpoint;
        if checkpointed && retains && !state.is_last_checkpoint_published() && state.last_checkpoint().is_some() {
            self.stage = Stage::Reading;
            return Some(Step::Publish);
        }
        None
    }

    fn go_on(&mut self, state: &State, now: Duration) -> Step {
        if let Some(every) = automatic(state)
            && now >= self.timers.checkpoint
            && !state.is_any_checkpoint_under_way()
        {
            self.timers.checkpoint = now + every;
            return Step::CreateCheckpoint;
        }
        if now >= self.timers.acquire {
            if !state.unassigned().is_empty() {
                self.timers.acquire = now + UNDER_WAY;
                self.timers.release = now + UNDER_WAY;
                return Step::Append(Intent::Acquire);
            }
            self.timers.acquire = now + decide::acquire_pause(state, &self.id);
        }
        if now >= self.timers.report {
            return Step::Append(Intent::Report);
        }
        if self.open.is_empty() && state.is_at_end() { Step::End } else { Step::Read }
    }

    /// What was appended by others is applied to `state`.
    ///
    /// # Errors
    /// The reader is not in the group any more, or has not what it reads: another one of its id is. One that has taken all of
    /// it is not seen from the state; only who follows the changes finds it.
    pub fn refreshed(&mut self, state: &State, now: Duration) -> Result<(), Offline> {
        let every = Duration::from_millis(u64::try_from(state.configuration().refresh_ms).unwrap_or(0));
        // Even without a pause readers read in between.
        self.timers.refresh = now + every.max(Duration::from_millis(1));
        self.check_held(state)
    }

    fn check_held(&self, state: &State) -> Result<(), Offline> {
        let held = state.assigned().get(&self.id).ok_or_else(|| self.offline())?;
        let ours = self.open.keys().chain(self.ended.keys());
        if ours.clone().all(|segment| held.contains_key(segment)) { Ok(()) } else { Err(self.offline()) }
    }

    /// What to append for an intent in this state; none if there is nothing to be done any more. `distance_ms` is how far the
    /// reader is behind the end of what it reads.
    ///
    /// # Errors
    /// The reader is not in the group any more.
    pub fn updates(&self, intent: &Intent, state: &State, distance_ms: i64) -> Result<Vec<Update>, Offline> {
        self.check_held(state)?;
        let (due, reader) = (state.checkpoint_due(&self.id), || self.id.clone());
        let report =
            |offsets| Update::Report { reader: reader(), distance_ms, last_read: Some(places(offsets, state)) };
        Ok(match intent {
            Intent::Report => vec![report(self.offsets())],
            Intent::ReportCheckpoint(checkpoint) => {
                let ours = Update::ReportCheckpoint {
                    checkpoint: checkpoint.clone(),
                    reader: reader(),
                    offsets: self.offsets(),
                };
                // It may have been given up, or another be the next.
                if due == Some(checkpoint) { vec![ours] } else { Vec::new() }
            }
            Intent::CreateCheckpoint(_) if state.is_any_checkpoint_under_way() => Vec::new(),
            Intent::CreateCheckpoint(name) => {
                let (checkpoint, before) = (name.clone(), name.clone());
                vec![Update::CreateCheckpoint { checkpoint }, Update::ClearCheckpoints { before }]
            }
            // It is not to move while a checkpoint waits for it.
            _ if due.is_some() => Vec::new(),
            Intent::Acquire => {
                let taken = || state.unassigned().iter().take(decide::share(state, &self.id));
                let acquire = |(segment, _): (&StreamSegment, &i64)| Update::Acquire {
                    reader: reader(),
                    segment: segment.clone(),
                };
                let mut updates: Vec<_> = taken().map(acquire).collect();
                if !updates.is_empty() {
                    // Also of what is taken: whoever had it before may have said that it was further, and kept nothing of that.
                    let mut offsets = self.offsets();
                    offsets.extend(taken().map(|(segment, offset)| (segment.clone(), *offset)));
                    updates.push(report(offsets));
                }
                updates
            }
            Intent::Complete { segment, .. } if !self.ended.contains_key(segment) => Vec::new(),
            Intent::Complete { segment, successors, ranges: known } => {
                let mut ranges: Ranges = successors.iter().map(|one| (one.segment.clone(), Some(one.range))).collect();
                ranges.insert(segment.clone(), state.range(segment));
                let awaited = |one: &Successor| decide::awaited(state, segment, one, known);
                let successors = successors.iter().map(|one| (one.segment.clone(), awaited(one))).collect();
                vec![Update::Complete { reader: reader(), segment: segment.clone(), successors, ranges }]
            }
            Intent::Release(segment) => match self.open.get(segment) {
                Some(open) if decide::to_release(state, &self.id).is_some() => {
                    let release = Update::Release { reader: reader(), segment: segment.clone(), offset: open.offset };
                    vec![release, report(self.offsets())]
                }
                _ => Vec::new(),
            },
        })
    }

    /// `updates` were appended for an intent and applied to `state`; none if there was nothing to be done.
    ///
    /// # Errors
    /// The reader is not in the group any more, or has not what it reads: another one of its id is. One that has taken all of
    /// it is not seen from the state; only who follows the changes finds it.
    pub fn settled(
        &mut self,
        intent: &Intent,
        updates: &[Update],
        state: &State,
        now: Duration,
    ) -> Result<Vec<Effect>, Offline> {
        let mut effects = Vec::new();
        match intent {
            Intent::Acquire => {
                for update in updates {
                    if let Update::Acquire { segment, .. } = update {
                        effects.extend(self.take(segment, state));
                    }
                }
                self.pause(state, now);
            }
            Intent::Report => {
                self.timers.report = now + decide::report_pause(state);
                // It was appended behind what is known.
                self.timers.refresh = now;
            }
            Intent::ReportCheckpoint(name) => {
                if self.stage == Stage::Stopped(name.clone()) {
                    self.stage = Stage::HandingOver;
                }
            }
            Intent::CreateCheckpoint(_) => {}
            Intent::Complete { segment, .. } => {
                if !updates.is_empty() {
                    self.ended.remove(segment);
                }
                self.timers.acquire = now;
            }
            Intent::Release(segment) => {
                if !updates.is_empty() {
                    self.open.remove(segment);
                    effects.push(Effect::Close(segment.clone()));
                }
                self.pause(state, now);
            }
        }
        self.check_held(state)?;
        Ok(effects)
    }

    fn take(&mut self, segment: &StreamSegment, state: &State) -> Option<Effect> {
        let offset = state.assigned().get(&self.id).and_then(|held| held.get(segment)).copied()?;
        let end = state.end(segment).filter(|end| *end < i64::MAX);
        if offset < 0 || end.is_some_and(|end| offset >= end) {
            self.ended.insert(segment.clone(), offset);
            return None;
        }
        self.open.insert(segment.clone(), Open { offset, end });
        Some(Effect::Open { segment: segment.clone(), offset, end })
    }

    fn pause(&mut self, state: &State, now: Duration) {
        self.timers.release = now + decide::release_pause(state, &self.id);
        self.timers.acquire = now + decide::acquire_pause(state, &self.id);
        self.timers.report = now + decide::report_pause(state);
    }
}

fn places(offsets: Offsets, state: &State) -> Places {
    let place = |(segment, offset)| {
        let range = state.range(&segment);
        (segment, Placed { offset, range })
    };
    offsets.into_iter().map(place).collect()
}

/// Time between two checkpoints that readers make by themselves, if they do.
fn automatic(state: &State) -> Option<Duration> {
    let every = u64::try_from(state.configuration().automatic_checkpoint_ms).ok()?;
    (every > 0).then(|| Duration::from_millis(every))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::{Fresh, GroupConfiguration, Initial};
    use crate::testing::segment;

    /// A group that everybody sees at once, and what its readers were told.
    struct Group {
        state: State,
        now: Duration,
        /// Checkpoints that each step told the application of.
        told: Vec<String>,
        names: u32,
    }

    impl Group {
        fn new(segments: i32, automatic_checkpoint_ms: i64) -> Self {
            let placed = Placed { offset: 0, range: None };
            let names = (0..segments).map(|number| segment(&format!("s/t/{number}.#epoch.0")));
            let configuration = GroupConfiguration { automatic_checkpoint_ms, ..GroupConfiguration::default() };
            let starting = names.map(|name| (name, placed)).collect();
            let fresh = Fresh { configuration, starting, ..Fresh::default() };
            Self { state: Initial::Fresh(fresh).into(), now: Duration::ZERO, told: Vec::new(), names: 0 }
        }

        fn join(&mut self, id: &str, handover: Handover) -> Member {
            let member = Member::new(id, handover, self.now, Duration::ZERO, 0.0);
            let join = member.join(&self.state).unwrap();
            self.state.apply(&join).unwrap();
            member
        }

        /// Lets a reader do what it wants to, until it wants to read. The successor of every segment is segment 9.
        fn turn(&mut self, member: &mut Member) -> Result<Step, Offline> {
            loop {
                let intent = match member.next(&self.state, self.now)? {
                    Step::Refresh => {
                        member.refreshed(&self.state, self.now)?;
                        continue;
                    }
                    Step::Append(intent) => intent,
                    Step::Successors(ended) => {
                        let next = segment("s/t/9.#epoch.1");
                        let predecessors = vec![0, 1];
                        let successors = vec![Successor { segment: next, range: KeyRange::FULL, predecessors }];
                        assert!(decide::unplaced(&self.state, &ended, &successors).is_empty());
                        Intent::Complete { segment: ended, successors, ranges: BTreeMap::new() }
                    }
                    Step::CreateCheckpoint => {
                        self.names += 1;
                        Intent::CreateCheckpoint(self.names.to_string())
                    }
                    Step::Checkpoint(name) => {
                        self.told.push(format!("{} {name}", member.id()));
                        return Ok(Step::Checkpoint(name));
                    }
                    other => return Ok(other),
                };
                let updates = member.updates(&intent, &self.state, 0)?;
                for update in &updates {
                    self.state.apply(update).unwrap();
                }
                member.settled(&intent, &updates, &self.state, self.now)?;
            }
        }

        fn turns(&mut self, members: &mut [&mut Member], seconds: u64) {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                for member in members.iter_mut() {
                    self.turn(member).unwrap();
                }
            }
        }
    }

    #[test]
    fn two_readers_share_and_a_third_gets_its_part_at_checkpoints() {
        let mut group = Group::new(6, 0);
        let (mut a, mut b) = (group.join("a", Handover::AtCheckpoint), group.join("b", Handover::AtCheckpoint));
        group.turns(&mut [&mut a, &mut b], 4);
        assert_eq!((a.open.len(), b.open.len()), (3, 3));
        let mut c = group.join("c", Handover::AtCheckpoint);
        group.turns(&mut [&mut a, &mut b, &mut c], 60);
        assert!(c.open.is_empty(), "nobody gives between checkpoints");
        for name in ["1", "2", "3"] {
            let checkpoint = decide::checkpoint(&group.state, name).unwrap();
            group.state.apply(&checkpoint).unwrap();
            group.turns(&mut [&mut a, &mut b, &mut c], 20);
        }
        assert_eq!((a.open.len(), b.open.len(), c.open.len()), (2, 2, 2));
    }

    #[test]
    fn readers_make_checkpoints_by_themselves_one_at_a_time() {
        let mut group = Group::new(2, 5_000);
        let (mut a, mut b) = (group.join("a", Handover::AtCheckpoint), group.join("b", Handover::AtCheckpoint));
        group.turns(&mut [&mut a, &mut b], 60);
        assert!((10..=14).contains(&group.names), "{} in a minute", group.names);
        assert_eq!(group.told.len() as u32, 2 * group.names, "both stopped at each");
    }

    #[test]
    fn a_reader_goes_on_to_successors_after_a_checkpoint_only() {
        let mut group = Group::new(2, 0);
        let mut a = group.join("a", Handover::AtCheckpoint);
        group.turns(&mut [&mut a], 3);
        a.read_to_end(&segment("s/t/0.#epoch.0"));
        a.read_to_end(&segment("s/t/1.#epoch.0"));
        group.turns(&mut [&mut a], 60);
        assert_eq!((a.ended.len(), a.open.len(), group.told.len()), (2, 0, 0));
        let checkpoint = decide::checkpoint(&group.state, "c").unwrap();
        group.state.apply(&checkpoint).unwrap();
        group.turns(&mut [&mut a], 3);
        assert_eq!(group.told, ["a c"]);
        assert_eq!(group.state.checkpoint("c").unwrap().values().collect::<Vec<_>>(), [&READ, &READ]);
        assert_eq!(a.open.keys().map(ToString::to_string).collect::<Vec<_>>(), ["s/t/9.#epoch.1"]);
    }

    #[test]
    fn what_was_read_before_the_group_began_is_not_waited_for() {
        let mut group = Group::new(1, 0);
        let (only, next) = (segment("s/t/0.#epoch.0"), segment("s/t/9.#epoch.1"));
        let successors =
            vec![Successor { segment: next.clone(), range: KeyRange::FULL, predecessors: vec![0, 1, (1 << 32) | 2] }];
        let mut a = group.join("a", Handover::AtOnce);
        group.turns(&mut [&mut a], 3);
        a.read_to_end(&only);
        let later = SegmentId::new(2, 1);
        let asked = [only.id, SegmentId::new(1, 0), later];
        assert_eq!(decide::unplaced(&group.state, &only, &successors), asked.into());
        let half = |at: f64| KeyRange::new(at, at + 0.5).unwrap();
        let ranges = [(only.id, half(0.0)), (asked[1], half(0.5)), (later, half(0.5))].into();
        let intent = Intent::Complete { segment: only, successors, ranges };
        let updates = a.updates(&intent, &group.state, 0).unwrap();
        let [Update::Complete { successors, .. }] = updates.as_slice() else { panic!("{updates:?}") };
        assert_eq!(successors[&next], [0]);
    }

    #[test]
    fn a_reader_that_handles_at_once_goes_on_at_once() {
        let mut group = Group::new(2, 0);
        let mut a = group.join("a", Handover::AtOnce);
        group.turns(&mut [&mut a], 3);
        a.read_to_end(&segment("s/t/0.#epoch.0"));
        a.read_to_end(&segment("s/t/1.#epoch.0"));
        group.turns(&mut [&mut a], 2);
        assert_eq!(a.open.len(), 1);
    }

    #[test]
    fn silent_checkpoints_are_reported_to_without_a_word() {
        let mut group = Group::new(1, 0);
        let mut a = group.join("a", Handover::AtCheckpoint);
        group.turns(&mut [&mut a], 3);
        assert!(!a.read_to(&segment("s/t/0.#epoch.0"), 70));
        let name = crate::group::silent_checkpoint("x");
        group.state.apply(&Update::CreateCheckpoint { checkpoint: name.clone() }).unwrap();
        assert_eq!(group.turn(&mut a), Ok(Step::Read));
        assert_eq!(group.state.checkpoint(&name), Some(&[(segment("s/t/0.#epoch.0"), 70)].into()));
    }

    #[test]
    fn a_reader_that_was_taken_for_dead_stops_even_if_another_has_its_name() {
        let mut group = Group::new(1, 0);
        let mut a = group.join("a", Handover::AtCheckpoint);
        group.turns(&mut [&mut a], 3);
        let gone = decide::offline(&group.state, "a", &Offsets::new()).unwrap();
        group.state.apply(&gone).unwrap();
        assert_eq!(a.next(&group.state, group.now), Err(Offline { reader: "a".to_owned() }));
        group.join("a", Handover::AtCheckpoint);
        assert!(a.updates(&Intent::Report, &group.state, 0).is_err());
        group.now += Duration::from_secs(10);
        assert!(group.turn(&mut a).is_err());
    }

    #[test]
    fn who_takes_a_segment_says_where_it_begins_whatever_others_said_before() {
        let mut group = Group::new(1, 0);
        let only = segment("s/t/0.#epoch.0");
        let mut a = group.join("a", Handover::AtCheckpoint);
        group.turns(&mut [&mut a], 3);
        a.read_to(&only, 1000);
        group.turns(&mut [&mut a], 5);
        assert_eq!(group.state.last_read()[&only], 1000);
        let gone = decide::offline(&group.state, "a", &Offsets::new()).unwrap();
        group.state.apply(&gone).unwrap();
        let mut b = group.join("b", Handover::AtOnce);
        group.turn(&mut b).unwrap();
        assert_eq!((b.offsets(), group.state.last_read()), ([(only.clone(), 0)].into(), &[(only, 0)].into()));
    }

    #[test]
    fn a_group_that_has_an_end_comes_to_it() {
        let mut group = Group::new(1, 0);
        let only = segment("s/t/0.#epoch.0");
        let mut compacted = group.state.compacted();
        compacted.ends = [(only.clone(), 100)].into();
        group.state = Initial::Compacted(Box::new(compacted)).into();
        let mut a = group.join("a", Handover::AtOnce);
        group.turns(&mut [&mut a], 3);
        assert!(!a.read_to(&only, 60) && a.read_to(&only, 100));
        assert_eq!(group.turn(&mut a), Ok(Step::End));
        assert!(a.leave(&group.state).is_some());
    }
}
