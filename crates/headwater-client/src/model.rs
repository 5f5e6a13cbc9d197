//! What streams are and how they are configured.

use std::time::Duration;

use headwater_proto::controller as proto;
use headwater_records::StreamCut;
use headwater_types::{KeyRange, ScopedStream, SegmentId};

use crate::error::{Error, ErrorKind, Result};

/// When a stream splits and merges its segments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scaling {
    /// Never by itself: so many segments.
    Fixed {
        /// At least 1.
        segments: u32,
    },
    /// A segment that takes more than `target` KB/s is split; those that take much less are merged.
    ByThroughput {
        /// KB/s per segment; at least 1.
        target: u32,
        /// Into how many a segment is split; at least 2.
        factor: u32,
        /// Never fewer segments.
        segments_min: u32,
    },
    /// A segment that takes more than `target` events/s is split; those that take much less are merged.
    ByEventRate {
        /// Events/s per segment; at least 1.
        target: u32,
        /// Into how many a segment is split; at least 2.
        factor: u32,
        /// Never fewer segments.
        segments_min: u32,
    },
}

/// How much of a stream is kept; the server truncates the rest from time to time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Retention {
    /// By age.
    Time {
        /// What is younger is kept.
        min: Duration,
        /// With readers that hold it back: what is older goes all the same. `None`: readers may hold it for ever.
        max: Option<Duration>,
    },
    /// By size.
    Size {
        /// So many bytes are kept.
        min_bytes: u64,
        /// With readers that hold it back: never more than this. `None`: readers may hold it for ever.
        max_bytes: Option<u64>,
    },
}

/// What a stream is configured to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StreamConfig {
    /// When segments split and merge.
    pub scaling: Scaling,
    /// What is kept; `None`: everything.
    pub retention: Option<Retention>,
    /// Words that streams can be found by.
    pub tags: Vec<String>,
    /// A writer that notes no time for so long does not hold up the stream's watermarks any more. Zero leaves it to the server.
    pub timestamp_aggregation_timeout: Duration,
    /// Size at which the store begins a new object for a segment's bytes, in bytes. 0 leaves it to the server.
    pub rollover_bytes: u64,
}

impl StreamConfig {
    /// So many segments, everything is kept.
    pub fn fixed(segments: u32) -> Self {
        Self {
            scaling: Scaling::Fixed { segments },
            retention: None,
            tags: Vec::new(),
            timestamp_aggregation_timeout: Duration::ZERO,
            rollover_bytes: 0,
        }
    }

    pub(crate) fn to_proto(&self, stream: &ScopedStream) -> Result<proto::StreamConfig> {
        use proto::scaling_policy::ScalingPolicyType as Type;
        let number = |what: &str, value: u32| {
            i32::try_from(value).map_err(|_| Error::new(ErrorKind::Invalid, format!("{what} of {value} is too large")))
        };
        let (scale_type, target, factor, segments) = match self.scaling {
            Scaling::Fixed { segments } => (Type::FixedNumSegments, 0, 0, segments),
            Scaling::ByThroughput { target, factor, segments_min } => {
                (Type::ByRateInKbytesPerSec, target, factor, segments_min)
            }
            Scaling::ByEventRate { target, factor, segments_min } => {
                (Type::ByRateInEventsPerSec, target, factor, segments_min)
            }
        };
        Ok(proto::StreamConfig {
            stream_info: Some(stream_info(stream)),
            scaling_policy: Some(proto::ScalingPolicy {
                scale_type: scale_type.into(),
                target_rate: number("target rate", target)?,
                scale_factor: number("scale factor", factor)?,
                min_num_segments: number("number of segments", segments)?,
            }),
            retention_policy: self.retention.map(Retention::to_proto).transpose()?,
            tags: (!self.tags.is_empty()).then(|| proto::Tags { tag: self.tags.clone() }),
            timestamp_aggregation_timeout: millis(self.timestamp_aggregation_timeout)?,
            rollover_size_bytes: count("rollover size", self.rollover_bytes)?,
        })
    }

    pub(crate) fn of_proto(config: &proto::StreamConfig) -> Result<Self> {
        use proto::scaling_policy::ScalingPolicyType as Type;
        let odd =
            |what: &str| Error::new(ErrorKind::Protocol, format!("server sent a stream's configuration with {what}"));
        let positive = |value: i32| u32::try_from(value).map_err(|_| odd("a negative number"));
        let policy = config.scaling_policy.as_ref().ok_or_else(|| odd("no scaling policy"))?;
        let (target, factor) = (positive(policy.target_rate)?, positive(policy.scale_factor)?);
        let segments = positive(policy.min_num_segments)?;
        let scaling = match Type::try_from(policy.scale_type).map_err(|_| odd("an unknown scaling policy"))? {
            Type::FixedNumSegments => Scaling::Fixed { segments },
            Type::ByRateInKbytesPerSec => Scaling::ByThroughput { target, factor, segments_min: segments },
            Type::ByRateInEventsPerSec => Scaling::ByEventRate { target, factor, segments_min: segments },
        };
        let retention = config.retention_policy.as_ref().map(Retention::of_proto).transpose()?.flatten();
        Ok(Self {
            scaling,
            retention,
            tags: config.tags.as_ref().map(|tags| tags.tag.clone()).unwrap_or_default(),
            timestamp_aggregation_timeout: Duration::from_millis(unsigned(config.timestamp_aggregation_timeout)),
            rollover_bytes: unsigned(config.rollover_size_bytes),
        })
    }
}

impl Retention {
    fn to_proto(self) -> Result<proto::RetentionPolicy> {
        use proto::retention_policy::RetentionPolicyType as Type;
        let (kind, param, max) = match self {
            Self::Time { min, max } => (Type::Time, millis(min)?, max.map(millis).transpose()?),
            Self::Size { min_bytes, max_bytes } => {
                let max = max_bytes.map(|max| count("retention", max)).transpose()?;
                (Type::Size, count("retention", min_bytes)?, max)
            }
        };
        // The largest number is what the Java client sends for "no maximum".
        Ok(proto::RetentionPolicy {
            retention_type: kind.into(),
            retention_param: param,
            retention_max: max.unwrap_or(i64::MAX),
        })
    }

    fn of_proto(policy: &proto::RetentionPolicy) -> Result<Option<Self>> {
        use proto::retention_policy::RetentionPolicyType as Type;
        let min = unsigned(policy.retention_param);
        let max = u64::try_from(policy.retention_max).ok().filter(|max| *max > 0 && *max < i64::MAX.unsigned_abs());
        Ok(match Type::try_from(policy.retention_type) {
            Ok(Type::Unknown) => None,
            Ok(Type::Time) => Some(Self::Time { min: Duration::from_millis(min), max: max.map(Duration::from_millis) }),
            Ok(Type::Size) => Some(Self::Size { min_bytes: min, max_bytes: max }),
            Err(_) => return Err(Error::new(ErrorKind::Protocol, "server sent an unknown retention policy")),
        })
    }
}

fn millis(duration: Duration) -> Result<i64> {
    i64::try_from(duration.as_millis())
        .map_err(|_| Error::new(ErrorKind::Invalid, format!("{duration:?} is longer than any stream lasts")))
}

fn count(what: &str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::new(ErrorKind::Invalid, format!("{what} of {value} is too large")))
}

/// Servers send no negative numbers here; what they mean by one is nothing.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(crate) fn stream_info(stream: &ScopedStream) -> proto::StreamInfo {
    proto::StreamInfo {
        scope: stream.scope.to_string(),
        stream: stream.stream.to_string(),
        access_operation: proto::stream_info::AccessOperation::Unspecified.into(),
    }
}

pub(crate) fn cut_to_proto(cut: &StreamCut) -> proto::StreamCut {
    proto::StreamCut {
        stream_info: Some(stream_info(&cut.stream)),
        cut: cut.offsets.iter().map(|(id, offset)| (id.as_i64(), *offset)).collect(),
    }
}

pub(crate) fn segment_id(stream: &ScopedStream, id: SegmentId) -> proto::SegmentId {
    proto::SegmentId { stream_info: Some(stream_info(stream)), segment_id: id.as_i64() }
}

/// A segment and the keys it owns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SegmentRange {
    /// Which.
    pub id: SegmentId,
    /// Part of the key space [0, 1).
    pub range: KeyRange,
}

impl SegmentRange {
    pub(crate) fn of_proto(range: &proto::SegmentRange) -> Result<Self> {
        let odd = || Error::new(ErrorKind::Protocol, "server sent a segment without an id or with keys beyond 0 and 1");
        let id = range.segment_id.as_ref().and_then(|id| SegmentId::from_i64(id.segment_id)).ok_or_else(odd)?;
        Ok(Self { id, range: KeyRange::new(range.min_key, range.max_key).map_err(|_| odd())? })
    }

    pub(crate) fn all_of_proto(ranges: &[proto::SegmentRange]) -> Result<Vec<Self>> {
        ranges.iter().map(Self::of_proto).collect()
    }
}

/// What follows on a segment that was sealed.
#[derive(Clone, Debug, PartialEq)]
pub struct Successor {
    /// The segment that follows.
    pub segment: SegmentRange,
    /// All segments that it follows on; it holds nothing that is older than what they hold.
    pub predecessors: Vec<SegmentId>,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SegmentInfo {
    /// Offset of the first byte that can be read.
    pub start: u64,
    /// Offset behind the last byte.
    pub end: u64,
    /// Takes no more.
    pub sealed: bool,
    /// When it was changed last, in milliseconds since 1970.
    pub last_modified: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(config: StreamConfig) {
        let stream = ScopedStream::parse("s/t").unwrap();
        assert_eq!(StreamConfig::of_proto(&config.to_proto(&stream).unwrap()).unwrap(), config);
    }

    #[test]
    fn a_configuration_comes_back_as_it_was_sent() {
        check(StreamConfig::fixed(3));
        let retention = Some(Retention::Time { min: Duration::from_secs(60), max: None });
        let scaling = Scaling::ByEventRate { target: 100, factor: 2, segments_min: 1 };
        check(StreamConfig { scaling, retention, tags: vec!["a".into(), "b".into()], ..StreamConfig::fixed(1) });
        let retention = Some(Retention::Size { min_bytes: 1 << 20, max_bytes: Some(1 << 30) });
        let scaling = Scaling::ByThroughput { target: 1000, factor: 4, segments_min: 2 };
        check(StreamConfig { scaling, retention, rollover_bytes: 1 << 24, ..StreamConfig::fixed(1) });
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_before_they_are_sent() {
        let stream = ScopedStream::parse("s/t").unwrap();
        let config = StreamConfig { rollover_bytes: u64::MAX, ..StreamConfig::fixed(1) };
        assert_eq!(config.to_proto(&stream).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(StreamConfig::fixed(u32::MAX).to_proto(&stream).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
