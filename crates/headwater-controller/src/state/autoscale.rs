//! When a stream splits and merges its segments by itself.
//!
//! Each segment's load is folded every five seconds into averages over 2, 5, 10 and 20 minutes. A segment that is over
//! its target is split: within a minute if it is over it by a fifth all the time, later if by less or with pauses. Two
//! neighbours are merged when both are below half of their targets on the average of twenty minutes and would be below
//! three quarters of it together. So a merged segment has to grow by a third before it is split again, and after any
//! change the segments that it made begin with no history: a split and the merge that takes it back lie at least twenty
//! minutes apart.
//!
//! The windows are those of Pravega's segment store, the thresholds our own: it waits ten minutes before anything.

use headwater_types::{KeyRange, SegmentId};

use crate::model::ScalingPolicy;

/// Seconds between two folds.
pub(crate) const TICK_SECONDS: u64 = 5;
/// Minutes of the averages.
const MINUTES: [f64; 4] = [2.0, 5.0, 10.0, 20.0];
/// Folds in a row that make an overload a lasting one; 40 s.
const STREAK: usize = 8;
/// Folds in twenty minutes.
const COOL: u32 = 240;

/// Load of one segment over time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Folds so far.
    ticks: u32,
    /// Per second, over [`MINUTES`].
    averages: [f64; 4],
    /// Per second, of the last folds.
    recent: [f64; STREAK],
}

impl Rates {
    /// Adds what came in during the last so many seconds; about [`TICK_SECONDS`], more if somebody was held up.
    pub(crate) fn fold(&mut self, amount: f64, seconds: f64) {
        let seconds = seconds.max(0.001);
        let now = amount / seconds;
        for (average, minutes) in self.averages.iter_mut().zip(MINUTES) {
            // A plain mean until there is enough for more, so that the first tick is no more than any other.
            let steady = 1.0 - (-seconds / 60.0 / minutes).exp();
            let weight = steady.max(1.0 / (f64::from(self.ticks) + 1.0));
            *average += weight * (now - *average);
        }
        self.recent[self.ticks as usize % STREAK] = now;
        self.ticks = self.ticks.saturating_add(1);
    }

    /// Per second, over 2, 5, 10 and 20 minutes.
    pub(crate) fn averages(&self) -> [f64; 4] {
        self.averages
    }

    /// The rate by which the segment is too busy, if it is.
    fn overload(&self, target: f64) -> Option<f64> {
        let [two, five, ten, _] = self.averages;
        let steady = self.recent.iter().copied().fold(f64::INFINITY, f64::min);
        let clauses = [
            (steady, self.ticks >= STREAK as u32 && steady > 1.2 * target),
            (two, self.ticks >= 24 && two > 1.5 * target),
            (five, self.ticks >= 60 && five > 1.2 * target),
            (ten, self.ticks >= 120 && ten > target),
        ];
        clauses.into_iter().filter(|(_, holds)| *holds).map(|(rate, _)| rate).reduce(f64::max)
    }

    fn is_cold(&self, target: f64) -> bool {
        let [two, five, ten, twenty] = self.averages;
        self.ticks >= COOL && two < target && five < target && ten < target && twenty < target / 2.0
    }
}

/// An open segment and its load, in the unit of the stream's policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heat {
    pub(crate) id: SegmentId,
    pub(crate) range: KeyRange,
    pub(crate) rates: Rates,
}

/// A scale to ask for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wish {
    pub(crate) seal: Vec<SegmentId>,
    pub(crate) ranges: Vec<(f64, f64)>,
}

/// What a stream by rate should do now. `segments` are its open ones, by ascending key; it may have `segments_max`.
pub(crate) fn wish(policy: ScalingPolicy, segments: &[Heat], segments_max: usize) -> Option<Wish> {
    let target = f64::from(policy.target_rate);
    if policy.target_rate <= 0 {
        return None;
    }
    splits(policy, target, segments, segments_max).or_else(|| merges(policy, target, segments))
}

/// All segments that are too busy at once.
fn splits(policy: ScalingPolicy, target: f64, segments: &[Heat], segments_max: usize) -> Option<Wish> {
    let mut wish = Wish { seal: Vec::new(), ranges: Vec::new() };
    let mut count = segments.len();
    let factor = usize::try_from(policy.scale_factor).unwrap_or(0).max(2);
    for segment in segments {
        let Some(rate) = segment.rates.overload(target) else { continue };
        let most = factor.min((segments_max + 1).saturating_sub(count));
        let ranges = cut(segment.range, ((rate / target) as usize).max(2).min(most));
        if ranges.len() < 2 {
            continue;
        }
        count += ranges.len() - 1;
        wish.seal.push(segment.id);
        wish.ranges.extend(ranges);
    }
    (!wish.seal.is_empty()).then_some(wish)
}

/// Equal pieces with bounds that are the same bits on both sides; fewer if the range is too narrow for so many.
fn cut(range: KeyRange, pieces: usize) -> Vec<(f64, f64)> {
    let (low, high) = (range.low(), range.high());
    let mut bounds: Vec<f64> = (0..pieces).map(|n| low + (high - low) * n as f64 / pieces as f64).collect();
    bounds.push(high);
    bounds.dedup();
    bounds.windows(2).filter(|pair| pair[0] < pair[1]).map(|pair| (pair[0], pair[1])).collect()
}

/// Neighbours that are idle enough, in pairs, as long as the stream has more segments than it must have.
fn merges(policy: ScalingPolicy, target: f64, segments: &[Heat]) -> Option<Wish> {
    let least = usize::try_from(policy.min_segments).unwrap_or(1).max(1);
    let mut wish = Wish { seal: Vec::new(), ranges: Vec::new() };
    let (mut count, mut at) = (segments.len(), 0);
    while at + 1 < segments.len() && count > least {
        let (left, right) = (&segments[at], &segments[at + 1]);
        let together = left.rates.averages[3] + right.rates.averages[3];
        if left.rates.is_cold(target) && right.rates.is_cold(target) && together <= 0.75 * target {
            wish.seal.extend([left.id, right.id]);
            wish.ranges.push((left.range.low(), right.range.high()));
            count -= 1;
            at += 2;
        } else {
            at += 1;
        }
    }
    (!wish.seal.is_empty()).then_some(wish)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{SEGMENTS_MAX, ScalingKind};

    const TICK: f64 = TICK_SECONDS as f64;

    fn policy(target_rate: i32, min_segments: i32) -> ScalingPolicy {
        ScalingPolicy { kind: ScalingKind::Events, target_rate, scale_factor: 4, min_segments }
    }

    /// A stream as the decisions see it, and how often it changed.
    struct World {
        policy: ScalingPolicy,
        segments: Vec<Heat>,
        next: i32,
        splits: usize,
        merges: usize,
        now: usize,
        /// Since when there is each segment, and what came into it since.
        lives: BTreeMap<SegmentId, (usize, f64)>,
        /// What has become of the segments of some keys: when, and whether that was a split.
        fates: Vec<(f64, Vec<(usize, bool)>)>,
    }

    impl World {
        fn new(policy: ScalingPolicy) -> Self {
            let ranges = KeyRange::split(policy.min_segments as usize);
            let segments = ranges.into_iter().zip(0..).map(|(range, number)| Heat {
                id: SegmentId::new(number, 0),
                range,
                rates: Rates::default(),
            });
            let segments: Vec<Heat> = segments.collect();
            let lives = segments.iter().map(|segment| (segment.id, (0, 0.0))).collect();
            let fates = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999].map(|key| (key, Vec::new())).into();
            Self { policy, segments, next: 1000, splits: 0, merges: 0, now: 0, lives, fates }
        }

        /// One tick of a load that is spread over the keys as `density` says.
        fn tick(&mut self, load: f64, density: impl Fn(KeyRange) -> f64) {
            self.now += 1;
            for segment in &mut self.segments {
                let amount = load * density(segment.range) * TICK;
                segment.rates.fold(amount, TICK);
                self.lives.get_mut(&segment.id).unwrap().1 += amount;
            }
            let Some(wish) = wish(self.policy, &self.segments, SEGMENTS_MAX) else { return };
            let is_split = wish.ranges.len() > wish.seal.len();
            for id in &wish.seal {
                let (born, amount) = self.lives.remove(id).unwrap();
                let age = self.now - born;
                if is_split {
                    let target = f64::from(self.policy.target_rate);
                    assert!(age >= STREAK && amount > 40.0 * target, "split after {age} ticks and {amount}");
                } else {
                    assert!(age >= minutes(20), "merged after {age} ticks");
                }
            }
            for (key, fate) in &mut self.fates {
                let sealed = |segment: &&Heat| has(segment.range, *key) && wish.seal.contains(&segment.id);
                if self.segments.iter().any(|segment| sealed(&segment)) {
                    fate.push((self.now, is_split));
                }
            }
            let sealed: f64 = self.segments.iter().filter(|s| wish.seal.contains(&s.id)).map(width).sum();
            let made: f64 = wish.ranges.iter().map(|(low, high)| high - low).sum();
            assert!((sealed - made).abs() < 1e-9, "a scale covers what it seals");
            if is_split {
                self.splits += 1
            } else {
                self.merges += 1
            }
            self.segments.retain(|segment| !wish.seal.contains(&segment.id));
            for (low, high) in wish.ranges {
                self.next += 1;
                let (id, range) = (SegmentId::new(self.next, 0), KeyRange::new(low, high).unwrap());
                self.lives.insert(id, (self.now, 0.0));
                self.segments.push(Heat { id, range, rates: Rates::default() });
            }
            self.segments.sort_by(|a, b| a.range.low().total_cmp(&b.range.low()));
            assert_eq!(self.segments[0].range.low(), 0.0);
            assert_eq!(self.segments.last().unwrap().range.high(), 1.0);
            for pair in self.segments.windows(2) {
                assert_eq!(pair[0].range.high().to_bits(), pair[1].range.low().to_bits());
            }
            assert!(self.segments.len() >= self.policy.min_segments as usize);
        }
    }

    fn width(segment: &Heat) -> f64 {
        segment.range.high() - segment.range.low()
    }

    fn has(range: KeyRange, key: f64) -> bool {
        (range.low()..range.high()).contains(&key)
    }

    fn even(range: KeyRange) -> f64 {
        range.high() - range.low()
    }

    /// Ticks in so many minutes.
    const fn minutes(count: usize) -> usize {
        count * 12
    }

    #[test]
    fn a_lasting_overload_splits_within_a_minute() {
        for load in [130.0, 250.0, 5000.0] {
            let mut world = World::new(policy(100, 1));
            for _ in 0..minutes(1) {
                world.tick(load, even);
            }
            assert!(world.segments.len() > 1, "{load}");
        }
    }

    #[test]
    fn a_tick_that_comes_late_is_no_overload() {
        let mut rates = Rates::default();
        for seconds in [5.0, 5.0, 65.0, 5.0, 10.0, 0.0] {
            rates.fold(80.0 * seconds, seconds);
        }
        assert!(rates.averages().iter().all(|average| (66.0..=80.1).contains(average)), "{rates:?}");
    }

    #[test]
    fn a_burst_or_a_small_overload_is_waited_out() {
        let mut world = World::new(policy(100, 1));
        for tick in 0..minutes(60) {
            world.tick(if tick % 24 < 4 { 400.0 } else { 0.0 }, even);
        }
        assert_eq!(world.splits, 0, "a sixth of the time at four times the target is below it");
        for _ in 0..minutes(9) {
            world.tick(110.0, even);
        }
        assert_eq!(world.splits, 0);
        for _ in 0..minutes(30) {
            world.tick(110.0, even);
        }
        assert_eq!(world.splits, 1);
    }

    #[test]
    fn pieces_follow_the_load_up_to_the_policys_factor() {
        let mut world = World::new(policy(100, 1));
        for _ in 0..STREAK {
            world.tick(330.0, even);
        }
        assert_eq!(world.segments.len(), 3);
        let mut world = World::new(policy(100, 1));
        for _ in 0..STREAK {
            world.tick(3300.0, even);
        }
        assert_eq!(world.segments.len(), 4);
    }

    #[test]
    fn a_quiet_stream_comes_back_to_its_least_once_its_segments_are_twenty_minutes_old() {
        let mut world = World::new(policy(100, 2));
        for _ in 0..minutes(10) {
            world.tick(1000.0, even);
        }
        let busy = world.segments.len();
        assert!(busy >= 8, "{busy}");
        for _ in 0..minutes(9) {
            world.tick(0.0, even);
        }
        assert_eq!((world.segments.len(), world.merges), (busy, 0));
        for _ in 0..minutes(100) {
            world.tick(0.0, even);
        }
        assert_eq!(world.segments.len(), 2);
    }

    #[test]
    fn only_the_hot_part_of_the_keys_is_split() {
        let mut world = World::new(policy(100, 4));
        // All of the load goes to the first quarter.
        let first = |range: KeyRange| (range.high().min(0.25) - range.low()).max(0.0) * 4.0;
        for _ in 0..minutes(15) {
            world.tick(450.0, first);
        }
        assert_eq!(world.segments.iter().filter(|segment| segment.range.low() >= 0.25).count(), 3);
        assert!(world.segments.iter().filter(|segment| segment.range.low() < 0.25).count() >= 4);
    }

    #[test]
    fn a_day_of_load_is_followed_without_flapping() {
        let mut world = World::new(policy(100, 1));
        let (mut chance, mut hot, mut hottest, mut peak) = (7_u64, 0, 0, 0);
        for tick in 0..minutes(24 * 60) {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let noise = 0.8 + 0.4 * (chance >> 40) as f64 / (1 << 24) as f64;
            let hour = tick as f64 / 720.0;
            // Quiet at night, 2,000/s at noon, and a sale of half an hour at 20:00.
            let day = 50.0 + 1950.0 * (std::f64::consts::PI * (hour - 6.0) / 14.0).sin().max(0.0);
            let sale = if (20.0..20.5).contains(&hour) { 3000.0 } else { 0.0 };
            world.tick((day + sale) * noise, even);
            let busiest = world.segments.iter().map(width).fold(0.0, f64::max) * (day + sale);
            hot = if busiest > 140.0 { hot + 1 } else { 0 };
            hottest = hottest.max(hot);
            peak = peak.max(world.segments.len());
        }
        let (splits, merges) = (world.splits, world.merges);
        // A stream that goes from one segment to thirty has to split five times in a row at least.
        assert!(hottest <= minutes(5), "a segment was over its target by 40 % for {hottest} ticks");
        assert!((20..=90).contains(&peak), "{peak} segments at the busiest time");
        assert!(splits + merges <= 60, "{splits} splits and {merges} merges in a day");
        assert!(world.segments.len() <= 8, "{} segments at night", world.segments.len());
    }

    /// A load that comes and goes, in rates of the target.
    #[derive(Clone, Debug)]
    struct Wave {
        period_minutes: usize,
        /// Of 100 ticks of a period so many are high.
        high_percent: usize,
        low: f64,
        high: f64,
        /// By which part it may be more or less, from tick to tick.
        noise: f64,
        seed: u64,
    }

    impl Wave {
        fn at(&self, tick: usize) -> f64 {
            let period = minutes(self.period_minutes);
            let base = if tick % period * 100 < period * self.high_percent { self.high } else { self.low };
            let mixed = (self.seed ^ tick as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            base * (1.0 + self.noise * (2.0 * (mixed >> 40) as f64 / (1 << 24) as f64 - 1.0))
        }

        /// No tick has more.
        fn peak(&self) -> f64 {
            self.high.max(self.low) * (1.0 + self.noise)
        }
    }

    fn any_wave() -> impl Strategy<Value = Wave> {
        let rates = (0.0..20.0_f64, 0.0..20.0_f64, 0.0..0.9_f64);
        (1..=60_usize, 0..=100_usize, rates, any::<u64>()).prop_map(
            |(period_minutes, high_percent, (low, high, noise), seed)| Wave {
                period_minutes,
                high_percent,
                low,
                high,
                noise,
                seed,
            },
        )
    }

    /// Whether no two merges of a key lie within twenty minutes, and no merge within twenty minutes of a split. How many splits
    /// follow on one another is left.
    fn splits_in_a_row(fate: &[(usize, bool)]) -> Result<usize, TestCaseError> {
        let (mut row, mut most) = (0, 0);
        let mut before = 0;
        for (at, is_split) in fate {
            prop_assert!(*is_split || at - before >= minutes(20), "merged {} ticks after a change", at - before);
            row = if *is_split { row + 1 } else { 0 };
            most = most.max(row);
            before = *at;
        }
        Ok(most)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Twenty minutes lie between a change of a key's segment and a merge of it, and no more splits follow on one another
        /// than halve its load until it is the target: in four hours at most 12 merges and 13 rows of splits, whatever the load does.
        #[test]
        fn a_load_that_comes_and_goes_makes_no_segment_flap(wave in any_wave(), least in 1..5_i32) {
            let mut world = World::new(policy(100, least));
            for tick in 0..minutes(240) {
                world.tick(wave.at(tick) * 100.0, even);
            }
            let halvings = wave.peak().max(1.0).log2().ceil() as usize;
            for (key, fate) in &world.fates {
                let row = splits_in_a_row(fate)?;
                prop_assert!(row <= halvings, "{} splits of key {} in a row, {} are enough: {:?}", row, key, halvings, fate);
            }
            // What had more than its target was split, and no finer than half of it.
            prop_assert!(world.segments.len() as f64 <= (2.0 * wave.peak()).ceil().max(f64::from(least)));
        }

        /// The same where much of the load goes to few keys or to one. That one's segment is split until there is nothing left
        /// to split, and that is the end of it.
        #[test]
        fn keys_that_are_hot_make_no_segment_flap(
            wave in any_wave(),
            hot in 1e-6..1.0_f64,
            width in prop_oneof![Just(0.0), 1e-9..1e-3_f64, 0.001..0.5_f64],
            share in 0.0..=1.0_f64,
        ) {
            let (low, high) = (hot, (hot + width).min(1.0));
            let density = |range: KeyRange| {
                let of_hot = if high > low {
                    ((range.high().min(high) - range.low().max(low)) / (high - low)).max(0.0)
                } else {
                    f64::from(u8::from(has(range, hot)))
                };
                share * of_hot + (1.0 - share) * even(range)
            };
            let mut world = World::new(policy(100, 1));
            world.fates.push((hot, Vec::new()));
            for tick in 0..minutes(240) {
                world.tick(wave.at(tick) * 100.0, density);
            }
            for (_, fate) in &world.fates {
                // The bits of a number that is not very near zero.
                prop_assert!(splits_in_a_row(fate)? <= 53 + 20);
            }
        }
    }

    #[test]
    fn nothing_makes_a_decision_panic() {
        let mut wild = Rates::default();
        for amount in [0.0, 1e300, 1e308, f64::MAX, 0.0] {
            wild.fold(amount, TICK);
        }
        let tiny = KeyRange::new(0.5, f64::from_bits(0.5_f64.to_bits() + 1)).unwrap();
        let mut busy = Rates::default();
        for _ in 0..200 {
            busy.fold(1e12, TICK);
        }
        for rates in [wild, busy] {
            for range in [KeyRange::FULL, tiny] {
                for target in [i32::MIN, -1, 0, 1, i32::MAX] {
                    let policy = ScalingPolicy { scale_factor: i32::MAX, ..policy(target, i32::MIN) };
                    let found = wish(policy, &[Heat { id: SegmentId::new(0, 0), range, rates }], SEGMENTS_MAX);
                    assert!(found.is_none_or(|wish| wish.ranges.len() > 1 && wish.ranges.len() <= SEGMENTS_MAX));
                }
            }
        }
    }
}
