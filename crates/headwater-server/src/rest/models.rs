//! The objects of the interface, with Pravega's names and words, and how they follow from the controller's values.
//!
//! Fields that say nothing are left out and not `null`, as in Pravega's answers.

use headwater_controller::model::{
    EpochRecord, RetentionKind, RetentionPolicy, ScalingKind, ScalingPolicy, SegmentRange, StreamConfig,
};
use headwater_types::ScopedStream;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;

const MEGABYTE: i64 = 1 << 20;
const MINUTE_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A scope, and what creates one.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scope {
    pub(crate) scope_name: String,
}

/// When a stream scales.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Scaling {
    #[serde(rename = "type")]
    kind: ScalingType,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_rate: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scale_factor: Option<i32>,
    min_segments: i32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum ScalingType {
    FixedNumSegments,
    ByRateInKbytesPerSec,
    ByRateInEventsPerSec,
}

/// How much of a stream is kept.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Retention {
    #[serde(rename = "type")]
    kind: RetentionType,
    /// Days or megabytes.
    #[serde(default)]
    value: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_based_retention: Option<TimeBased>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_value: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_time_based_retention: Option<TimeBased>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum RetentionType {
    LimitedDays,
    #[serde(rename = "LIMITED_SIZE_MB")]
    LimitedSizeMb,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
struct TimeBased {
    days: i64,
    hours: i64,
    minutes: i64,
}

/// What creates a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CreateStream {
    pub(crate) stream_name: String,
    #[serde(flatten)]
    pub(crate) config: UpdateStream,
}

/// What changes a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpdateStream {
    scaling_policy: Scaling,
    retention_policy: Option<Retention>,
    stream_tags: Option<Vec<String>>,
    /// Where a stream shows them: what was shown can be sent back.
    tags: Option<Vec<String>>,
    timestamp_aggregation_timeout: Option<i64>,
    rollover_size_bytes: Option<i64>,
}

/// A stream.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stream {
    scope_name: String,
    stream_name: String,
    scaling_policy: Scaling,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_policy: Option<Retention>,
    tags: Vec<String>,
    timestamp_aggregation_timeout: i64,
    rollover_size_bytes: i64,
}

/// What seals a stream.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamState {
    pub(crate) stream_state: State,
}

/// The one state that can be asked for.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum State {
    Sealed,
}

/// An epoch, as Pravega shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScaleMetadata {
    timestamp: i64,
    segment_list: Vec<ScaleSegment>,
    splits: usize,
    merges: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScaleSegment {
    number: i32,
    start_time: i64,
    key_start: f64,
    key_end: f64,
}

impl UpdateStream {
    /// What a creation asks for.
    pub(crate) fn created(self) -> Result<StreamConfig, Problem> {
        self.config(true)
    }

    /// What an update asks for. Pravega does not look at the most that is kept, so it goes.
    pub(crate) fn updated(self) -> Result<StreamConfig, Problem> {
        self.config(false)
    }

    fn config(self, with_most: bool) -> Result<StreamConfig, Problem> {
        let timeout = self.timestamp_aggregation_timeout.unwrap_or(0);
        if timeout < 0 {
            return Err(Problem::bad("timestampAggregationTimeout is negative"));
        }
        Ok(StreamConfig {
            scaling: self.scaling_policy.policy()?,
            retention: self.retention_policy.map(|retention| retention.policy(with_most)).transpose()?,
            tags: self.stream_tags.or(self.tags).unwrap_or_default(),
            timestamp_aggregation_timeout_ms: timeout,
            rollover_bytes: self.rollover_size_bytes.unwrap_or(0),
        })
    }
}

impl Scaling {
    fn policy(self) -> Result<ScalingPolicy, Problem> {
        let kind = match self.kind {
            ScalingType::FixedNumSegments => return Ok(ScalingPolicy::fixed(self.min_segments)),
            ScalingType::ByRateInKbytesPerSec => ScalingKind::Kilobytes,
            ScalingType::ByRateInEventsPerSec => ScalingKind::Events,
        };
        let positive = |field: &str, value: Option<i32>| match value {
            Some(value) if value > 0 => Ok(value),
            _ => Err(Problem::bad(format!("{field} is needed, and has to be above 0, for a stream that scales"))),
        };
        Ok(ScalingPolicy {
            kind,
            target_rate: positive("targetRate", self.target_rate)?,
            scale_factor: positive("scaleFactor", self.scale_factor)?,
            min_segments: self.min_segments,
        })
    }

    fn of(policy: ScalingPolicy) -> Self {
        let is_fixed = policy.kind == ScalingKind::Fixed;
        Self {
            kind: match policy.kind {
                ScalingKind::Fixed => ScalingType::FixedNumSegments,
                ScalingKind::Kilobytes => ScalingType::ByRateInKbytesPerSec,
                ScalingKind::Events => ScalingType::ByRateInEventsPerSec,
            },
            target_rate: (!is_fixed).then_some(policy.target_rate),
            scale_factor: (!is_fixed).then_some(policy.scale_factor),
            min_segments: policy.min_segments,
        }
    }
}

impl Retention {
    fn policy(self, with_most: bool) -> Result<RetentionPolicy, Problem> {
        let most = with_most.then_some((self.max_value, self.max_time_based_retention));
        let (max_value, max_time) = most.unwrap_or_default();
        let (kind, keep, keep_max) = match self.kind {
            RetentionType::LimitedSizeMb => {
                if self.time_based_retention.or(max_time).is_some() {
                    return Err(Problem::bad("a retention by size has no times"));
                }
                (RetentionKind::Size, bytes("value", self.value)?, bytes("maxValue", max_value)?)
            }
            RetentionType::LimitedDays => {
                let keep = millis("value", self.value, self.time_based_retention)?;
                (RetentionKind::Time, keep, millis("maxValue", max_value, max_time)?)
            }
        };
        let keep = keep.ok_or_else(|| Problem::bad("the retention policy does not say how much is kept"))?;
        Ok(RetentionPolicy { kind, keep, keep_max: keep_max.unwrap_or(i64::MAX) })
    }

    /// In whole megabytes and minutes, which are all that Pravega's interface can say. Upwards: what is shown may be sent
    /// back, and is not to take away what was kept.
    fn of(policy: RetentionPolicy) -> Self {
        let most = Some(policy.keep_max).filter(|most| *most > 0 && *most < i64::MAX);
        match policy.kind {
            RetentionKind::Size => Self {
                kind: RetentionType::LimitedSizeMb,
                value: Some(up(policy.keep, MEGABYTE)),
                time_based_retention: None,
                max_value: most.map(|most| up(most, MEGABYTE)),
                max_time_based_retention: None,
            },
            RetentionKind::Time => {
                let minutes = |millis| up(millis, MINUTE_MS) * MINUTE_MS;
                let (keep, most) = (minutes(policy.keep), most.map(minutes));
                Self {
                    kind: RetentionType::LimitedDays,
                    value: Some(whole_days(keep)),
                    time_based_retention: Some(TimeBased::of(keep)),
                    max_value: most.map(whole_days),
                    max_time_based_retention: most.map(TimeBased::of),
                }
            }
        }
    }
}

/// How many units an amount takes; the last one of the largest amounts, which no number of bytes or milliseconds has, not
/// counted.
fn up(amount: i64, unit: i64) -> i64 {
    amount.checked_add(unit - 1).unwrap_or(amount) / unit
}

/// Days if there is nothing beside them; times that are no such number are said by hours and minutes only.
fn whole_days(millis: i64) -> i64 {
    if millis % DAY_MS == 0 { millis / DAY_MS } else { 0 }
}

impl TimeBased {
    /// Of whole minutes.
    fn of(millis: i64) -> Self {
        Self { days: millis / DAY_MS, hours: millis % DAY_MS / HOUR_MS, minutes: millis % HOUR_MS / MINUTE_MS }
    }

    fn millis(self) -> Option<i64> {
        let part = |count: i64, unit: i64| Some(count).filter(|count| *count >= 0)?.checked_mul(unit);
        let (days, hours) = (part(self.days, DAY_MS)?, part(self.hours, HOUR_MS)?);
        days.checked_add(hours)?.checked_add(part(self.minutes, MINUTE_MS)?)
    }
}

fn bytes(field: &str, value: Option<i64>) -> Result<Option<i64>, Problem> {
    let Some(value) = value else { return Ok(None) };
    let bytes = Some(value).filter(|value| *value >= 0).and_then(|value| value.checked_mul(MEGABYTE));
    bytes.map(Some).ok_or_else(|| Problem::bad(format!("{field} is negative or too large")))
}

/// Days, or a time in parts. Both may be given if one of them is zero or they are the same.
fn millis(field: &str, days: Option<i64>, parts: Option<TimeBased>) -> Result<Option<i64>, Problem> {
    let wrong = || Problem::bad(format!("{field} or the time beside it is negative or too large"));
    let days = days.map(|days| TimeBased { days, ..TimeBased::default() }.millis().ok_or_else(wrong)).transpose()?;
    let parts = parts.map(|parts| parts.millis().ok_or_else(wrong)).transpose()?;
    match (days, parts) {
        (Some(days), Some(parts)) if days != parts && days != 0 && parts != 0 => {
            Err(Problem::bad(format!("{field} and the time beside it say different things")))
        }
        (days, parts) => Ok(days.max(parts)),
    }
}

impl Stream {
    pub(crate) fn of(stream: &ScopedStream, config: StreamConfig) -> Self {
        Self {
            scope_name: stream.scope.to_string(),
            stream_name: stream.stream.to_string(),
            scaling_policy: Scaling::of(config.scaling),
            retention_policy: config.retention.map(Retention::of),
            tags: config.tags,
            timestamp_aggregation_timeout: config.timestamp_aggregation_timeout_ms,
            rollover_size_bytes: config.rollover_bytes,
        }
    }

    /// What it takes as a value, or as text if every character of its tags has to be escaped, whichever is more.
    pub(crate) fn bytes_max(&self) -> usize {
        const BESIDES: usize = 1536;
        BESIDES + self.tags.iter().map(|tag| 48 + 6 * tag.len()).sum::<usize>()
    }
}

impl ScaleMetadata {
    /// `before` are the segments of the epoch before, if there was one.
    pub(crate) fn of(epoch: &EpochRecord, before: &[(SegmentRange, i64)]) -> Self {
        let segments: Vec<_> = epoch
            .segments
            .iter()
            .map(|(segment, created_ms)| ScaleSegment {
                number: segment.id.number,
                start_time: *created_ms,
                key_start: segment.range.low(),
                key_end: segment.range.high(),
            })
            .collect();
        Self {
            timestamp: epoch.created_ms,
            segment_list: segments,
            splits: with_several(before, &epoch.segments),
            merges: with_several(&epoch.segments, before),
        }
    }
}

/// How many of `ours` share keys with more than one of `others`. Both tile the key space by ascending key.
fn with_several(ours: &[(SegmentRange, i64)], others: &[(SegmentRange, i64)]) -> usize {
    let several = |(segment, _): &&(SegmentRange, i64)| {
        let first = others.partition_point(|(other, _)| other.range.high() <= segment.range.low());
        others.get(first + 1).is_some_and(|(other, _)| other.range.low() < segment.range.high())
    };
    ours.iter().filter(several).count()
}

#[cfg(test)]
mod tests {
    use headwater_types::{KeyRange, SegmentId};
    use serde_json::json;

    use super::*;

    fn policy(retention: serde_json::Value) -> Result<RetentionPolicy, String> {
        let retention: Retention = serde_json::from_value(retention).map_err(|error| error.to_string())?;
        retention.policy(true).map_err(|problem| format!("{problem:?}"))
    }

    #[test]
    fn times_are_days_or_parts_and_sizes_are_megabytes() {
        let unbounded = i64::MAX;
        for (retention, keep, keep_max) in [
            (json!({"type": "LIMITED_DAYS", "value": 2}), 2 * DAY_MS, unbounded),
            (
                json!({"type": "LIMITED_DAYS", "value": 0, "timeBasedRetention": {"hours": 3, "minutes": 1}}),
                3 * HOUR_MS + MINUTE_MS,
                unbounded,
            ),
            (
                json!({"type": "LIMITED_DAYS", "value": 1, "timeBasedRetention": {"days": 1}, "maxValue": 9}),
                DAY_MS,
                9 * DAY_MS,
            ),
            (
                json!({"type": "LIMITED_DAYS", "value": 1, "maxTimeBasedRetention": {"days": 1, "hours": 1}}),
                DAY_MS,
                25 * HOUR_MS,
            ),
            (json!({"type": "LIMITED_SIZE_MB", "value": 5, "maxValue": 6}), 5 << 20, 6 << 20),
        ] {
            let found = policy(retention.clone()).unwrap();
            assert_eq!((found.keep, found.keep_max), (keep, keep_max), "{retention}");
            // What is shown and sent back is the same policy.
            let shown = serde_json::to_value(Retention::of(found)).unwrap();
            assert_eq!(policy(shown).unwrap(), found, "{retention}");
        }
    }

    #[test]
    fn what_is_shown_and_sent_back_never_keeps_less() {
        for amount in [0, 1, 45_000, 500_000, DAY_MS - 1, DAY_MS, MEGABYTE, MEGABYTE + 1, 93_780_000, i64::MAX / 2] {
            for (kind, unit) in [(RetentionKind::Size, MEGABYTE), (RetentionKind::Time, MINUTE_MS)] {
                let asked = RetentionPolicy { kind, keep: amount, keep_max: amount + 1 };
                let shown = serde_json::to_value(Retention::of(asked)).unwrap();
                let again = policy(shown.clone()).unwrap();
                assert!((amount..amount + unit).contains(&again.keep), "{amount}: {shown}");
                assert!((amount + 1..amount + 1 + unit).contains(&again.keep_max), "{amount}: {shown}");
                // The second time it is the same.
                assert_eq!(serde_json::to_value(Retention::of(again)).unwrap(), shown);
            }
        }
        for kind in [RetentionKind::Size, RetentionKind::Time] {
            let endless = RetentionPolicy { kind, keep: i64::MAX, keep_max: i64::MAX };
            let again = policy(serde_json::to_value(Retention::of(endless)).unwrap()).unwrap();
            assert!(i64::MAX - again.keep < MEGABYTE, "{again:?}");
        }
    }

    #[test]
    fn the_text_of_a_stream_is_no_longer_than_is_counted_for_it() {
        let name = |text: String| headwater_types::Name::parse(&text).unwrap();
        let stream = ScopedStream { scope: name("s".repeat(255)), stream: name("t".repeat(250)) };
        for tag in ["\u{1}".repeat(128), "\"".repeat(128), "x".to_owned(), String::new()] {
            let mut config = StreamConfig::new(ScalingPolicy {
                kind: ScalingKind::Kilobytes,
                target_rate: i32::MAX,
                scale_factor: i32::MAX,
                min_segments: i32::MAX,
            });
            config.retention =
                Some(RetentionPolicy { kind: RetentionKind::Time, keep: i64::MAX - 1, keep_max: i64::MAX - 1 });
            config.tags = vec![tag; 1024];
            (config.timestamp_aggregation_timeout_ms, config.rollover_bytes) = (i64::MAX, i64::MAX);
            let shown = Stream::of(&stream, config);
            assert!(serde_json::to_vec(&shown).unwrap().len() <= shown.bytes_max());
        }
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        for retention in [
            json!({"type": "LIMITED_DAYS"}),
            json!({"type": "LIMITED_DAYS", "value": -1}),
            json!({"type": "LIMITED_DAYS", "value": i64::MAX}),
            json!({"type": "LIMITED_DAYS", "value": 1, "timeBasedRetention": {"days": 2}}),
            json!({"type": "LIMITED_DAYS", "timeBasedRetention": {"days": 1, "hours": -24}}),
            json!({"type": "LIMITED_DAYS", "timeBasedRetention": {"days": i64::MAX, "hours": i64::MAX}}),
            json!({"type": "LIMITED_SIZE_MB"}),
            json!({"type": "LIMITED_SIZE_MB", "value": i64::MAX}),
            json!({"type": "LIMITED_SIZE_MB", "value": 1, "timeBasedRetention": {"days": 1}}),
            json!({"type": "LIMITED_SIZE_MB", "value": 1.5}),
            json!({"type": "limited_days", "value": 1}),
        ] {
            assert!(policy(retention.clone()).is_err(), "{retention}");
        }
    }

    #[test]
    fn splits_and_merges_are_counted_from_one_epoch_to_the_next() {
        let epoch = |bounds: &[f64]| -> Vec<(SegmentRange, i64)> {
            let range = |pair: &[f64]| KeyRange::new(pair[0], pair[1]).unwrap();
            let segment = |pair: &[f64]| (SegmentRange { id: SegmentId::new(0, 0), range: range(pair) }, 0);
            bounds.windows(2).map(segment).collect()
        };
        let (before, after) = (epoch(&[0.0, 0.5, 0.75, 1.0]), epoch(&[0.0, 0.25, 0.5, 1.0]));
        assert_eq!((with_several(&before, &after), with_several(&after, &before)), (1, 1));
        assert_eq!((with_several(&[], &after), with_several(&after, &[])), (0, 0));
        assert_eq!((with_several(&after, &after), with_several(&after, &after)), (0, 0));
    }
}
