//! How a group reads, in our words, in those of its records and in those of the controller.

use std::collections::BTreeMap;
use std::time::Duration;

use headwater_proto::controller as proto;
use headwater_records::group::{GroupConfiguration, Retention};
use headwater_records::{Cut, StreamCut};
use headwater_types::{Name, ScopedStream, SegmentId};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{cut_to_proto, stream_info};

/// How a group reads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReaderGroupConfig {
    /// Streams that are read, each from where.
    pub streams: BTreeMap<ScopedStream, Cut>,
    /// Where reading ends, for those streams where it does.
    pub ends: BTreeMap<ScopedStream, Cut>,
    /// Time between two checkpoints that readers make by themselves; `None`: they make none. Readers that hand over at
    /// checkpoints need some to share anew, and to go on from a segment to its successors. At least 1 ms.
    pub automatic_checkpoint: Option<Duration>,
    /// How often a reader looks what the others did. At least 1 ms.
    pub refresh: Duration,
    /// Most checkpoints that applications may have under way at once.
    pub checkpoints_max: u32,
    /// Whether the group keeps what it has not read from being truncated.
    pub retention: Retention,
}

impl Default for ReaderGroupConfig {
    /// No streams yet; otherwise the defaults of Java's client: a checkpoint every 30 s, a look every 3 s.
    fn default() -> Self {
        let defaults = GroupConfiguration::default();
        Self {
            streams: BTreeMap::new(),
            ends: BTreeMap::new(),
            automatic_checkpoint: Some(duration(defaults.automatic_checkpoint_ms)),
            refresh: duration(defaults.refresh_ms),
            checkpoints_max: 3,
            retention: defaults.retention,
        }
    }
}

impl ReaderGroupConfig {
    /// The defaults, for one stream from its begin.
    pub fn of(stream: &ScopedStream) -> Self {
        Self::default().stream(stream)
    }

    /// Reads this stream as well, from its begin.
    #[must_use]
    pub fn stream(self, stream: &ScopedStream) -> Self {
        self.stream_from(stream, Cut::Unbounded)
    }

    /// Reads this stream as well, from a cut.
    #[must_use]
    pub fn stream_from(mut self, stream: &ScopedStream, from: Cut) -> Self {
        self.streams.insert(stream.clone(), from);
        self
    }

    /// Ends reading at a cut. A segment without an offset in it has nothing before it if it follows on others of the cut, and is read to
    /// its end otherwise. In keys that the cut leaves out, the group ends in front of what follows on its segments, and nowhere if
    /// nothing does; to find that takes READ_UPDATE on the stream where servers check rights, which other cuts do not.
    #[must_use]
    pub fn until(mut self, end: StreamCut) -> Self {
        self.ends.insert(end.stream.clone(), Cut::At(end));
        self
    }

    /// Sets how often readers look at the group and make checkpoints.
    #[must_use]
    pub fn every(mut self, refresh: Duration, automatic_checkpoint: Option<Duration>) -> Self {
        (self.refresh, self.automatic_checkpoint) = (refresh, automatic_checkpoint);
        self
    }

    /// Sets whether the group keeps what it has not read from being truncated.
    #[must_use]
    pub fn retaining(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// As the records have it. Every stream has an end there, as with Java: both clients make the same of the same words.
    ///
    /// # Errors
    /// `Invalid`: no streams, an end of a stream that is not read, a cut of another stream, or numbers that do not fit.
    pub(super) fn to_records(&self, generation: i64, id: u128) -> Result<GroupConfiguration> {
        let invalid = |what: String| Error::new(ErrorKind::Invalid, what);
        if self.streams.is_empty() {
            return Err(invalid("a reader group reads at least one stream".to_owned()));
        }
        if let Some(stream) = self.ends.keys().find(|stream| !self.streams.contains_key(*stream)) {
            return Err(invalid(format!("stream {stream} has an end and is not read")));
        }
        for (stream, cut) in self.streams.iter().chain(&self.ends) {
            if let Cut::At(cut) = cut {
                if cut.stream != *stream {
                    return Err(invalid(format!("cut of stream {} is no position in {stream}", cut.stream)));
                }
                if cut.offsets.is_empty() {
                    return Err(invalid(format!("cut of stream {stream} has no segments")));
                }
            }
        }
        let millis = |what: &str, duration: Duration| {
            let millis = i64::try_from(duration.as_millis()).ok().filter(|millis| *millis > 0);
            millis.ok_or_else(|| invalid(format!("{what} of {duration:?} is not between 1 ms and 2^63 ms")))
        };
        let end = |stream: &ScopedStream| self.ends.get(stream).cloned().unwrap_or_default();
        Ok(GroupConfiguration {
            automatic_checkpoint_ms: match self.automatic_checkpoint {
                Some(every) => millis("time between checkpoints", every)?,
                None => -1,
            },
            refresh_ms: millis("refresh", self.refresh)?,
            starting: self.streams.clone(),
            ending: self.streams.keys().map(|stream| (stream.clone(), end(stream))).collect(),
            outstanding_checkpoints_max: i32::try_from(self.checkpoints_max)
                .map_err(|_| invalid(format!("{} checkpoints under way are too many", self.checkpoints_max)))?,
            retention: self.retention,
            generation,
            id,
        })
    }

    pub(super) fn of_records(records: &GroupConfiguration) -> Self {
        let automatic = records.automatic_checkpoint_ms;
        let bounded = records.ending.iter().filter(|(_, cut)| **cut != Cut::Unbounded);
        Self {
            streams: records.starting.clone(),
            ends: bounded.map(|(stream, cut)| (stream.clone(), cut.clone())).collect(),
            automatic_checkpoint: (automatic > 0).then(|| duration(automatic)),
            refresh: duration(records.refresh_ms),
            checkpoints_max: u32::try_from(records.outstanding_checkpoints_max).unwrap_or(0),
            retention: records.retention,
        }
    }
}

fn duration(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

pub(super) fn to_proto(scope: &Name, name: &Name, records: &GroupConfiguration) -> proto::ReaderGroupConfiguration {
    let cuts = |cuts: &BTreeMap<ScopedStream, Cut>| {
        let cut = |(stream, cut): (&ScopedStream, &Cut)| match cut {
            Cut::Unbounded => proto::StreamCut { stream_info: Some(stream_info(stream)), cut: [].into() },
            Cut::At(cut) => cut_to_proto(cut),
        };
        cuts.iter().map(cut).collect()
    };
    proto::ReaderGroupConfiguration {
        scope: scope.to_string(),
        reader_group_name: name.to_string(),
        group_refresh_time_millis: records.refresh_ms,
        automatic_checkpoint_interval_millis: records.automatic_checkpoint_ms,
        max_outstanding_checkpoint_request: records.outstanding_checkpoints_max,
        retention_type: records.retention.as_i32(),
        generation: records.generation,
        reader_group_id: uuid_text(records.id),
        starting_stream_cuts: cuts(&records.starting),
        ending_stream_cuts: cuts(&records.ending),
        ..Default::default()
    }
}

pub(super) fn uuid_text(id: u128) -> String {
    Uuid::from_u128(id).to_string()
}

pub(super) fn of_proto(sent: proto::ReaderGroupConfiguration) -> Result<GroupConfiguration> {
    let odd = |what: &str| Error::new(ErrorKind::Protocol, format!("controller sent a reader group with {what}"));
    let cuts = |sent: Vec<proto::StreamCut>| -> Result<BTreeMap<ScopedStream, Cut>> {
        let mut cuts = BTreeMap::new();
        for cut in sent {
            let info = cut.stream_info.ok_or_else(|| odd("a cut of no stream"))?;
            let name = |text: &str| Name::parse(text).map_err(|_| odd("a cut of a stream that cannot be"));
            let stream = ScopedStream { scope: name(&info.scope)?, stream: name(&info.stream)? };
            let mut offsets = BTreeMap::new();
            for (id, offset) in cut.cut {
                offsets.insert(SegmentId::from_i64(id).ok_or_else(|| odd("a segment that cannot be"))?, offset);
            }
            let place = if offsets.is_empty() {
                Cut::Unbounded
            } else {
                Cut::At(StreamCut { stream: stream.clone(), offsets })
            };
            cuts.insert(stream, place);
        }
        Ok(cuts)
    };
    Ok(GroupConfiguration {
        automatic_checkpoint_ms: sent.automatic_checkpoint_interval_millis,
        refresh_ms: sent.group_refresh_time_millis,
        starting: cuts(sent.starting_stream_cuts)?,
        ending: cuts(sent.ending_stream_cuts)?,
        outstanding_checkpoints_max: sent.max_outstanding_checkpoint_request,
        retention: Retention::from_i32(sent.retention_type).ok_or_else(|| odd("an unknown retention"))?,
        generation: sent.generation,
        id: Uuid::parse_str(&sent.reader_group_id).map_err(|_| odd("an id that is no uuid"))?.as_u128(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> ScopedStream {
        ScopedStream::parse(text).unwrap()
    }

    fn cut(name: &str, offset: i64) -> StreamCut {
        StreamCut { stream: stream(name), offsets: [(SegmentId::from_i64(1).unwrap(), offset)].into() }
    }

    #[test]
    fn a_configuration_comes_back_from_the_controller_and_from_the_records() {
        let config = ReaderGroupConfig::of(&stream("s/a"))
            .stream_from(&stream("s/b"), Cut::At(cut("s/b", 7)))
            .until(cut("s/a", -1))
            .every(Duration::from_millis(5), None)
            .retaining(Retention::AtCheckpoint);
        let records = config.to_records(3, 9).unwrap();
        assert_eq!(records.ending.len(), 2, "also of streams that do not end");
        let name = Name::parse("g").unwrap();
        assert_eq!(of_proto(to_proto(&name, &name, &records)).unwrap(), records);
        assert_eq!(ReaderGroupConfig::of_records(&records), config);
    }

    #[test]
    fn what_no_group_can_do_is_refused() {
        let a = || ReaderGroupConfig::of(&stream("s/a"));
        for bad in [
            ReaderGroupConfig::default(),
            a().until(cut("s/b", 1)),
            a().stream_from(&stream("s/b"), Cut::At(cut("s/a", 1))),
            a().every(Duration::ZERO, None),
            a().every(Duration::from_secs(1), Some(Duration::from_nanos(1))),
            ReaderGroupConfig { checkpoints_max: u32::MAX, ..a() },
        ] {
            assert_eq!(bad.to_records(0, 1).unwrap_err().kind(), ErrorKind::Invalid, "{bad:?}");
        }
    }
}
