//! The head record of a stream: what it is now, and what is being done to it.
//!
//! One thing at a time is done to a stream, and it is written here before it begins. So whoever reads the record after
//! a crash knows what to finish, and each step may be run again.

use bytes::Bytes;
use headwater_types::TransactionId;

use super::epochs::Segment;
use super::scale::ScalePlan;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::{RetentionKind, RetentionPolicy, ScalingKind, ScalingPolicy, StreamConfig, StreamCut};

/// Head record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Head {
    pub(crate) state: State,
    pub(crate) config: StreamConfig,
    pub(crate) created_ms: i64,
    /// Number of the current epoch.
    pub(crate) epoch: i32,
    /// Where the stream begins; `None` is the start of epoch 0.
    pub(crate) truncation: Option<Truncation>,
    /// The scale under way; also inside an update.
    pub(crate) scale: Option<ScalePlan>,
    /// The rolling commit under way; also while sealing.
    pub(crate) rolling: Option<RollingCommit>,
    /// The configuration that is being put in force.
    pub(crate) update: Option<StreamConfig>,
    /// The cut that is being truncated at.
    pub(crate) truncate: Option<StreamCut>,
}

/// Life of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Creating,
    Active,
    Sealing,
    Sealed,
    Deleting,
}

/// Head of a truncated stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Truncation {
    pub(crate) cut: StreamCut,
    /// Bytes before the cut since the stream was created.
    pub(crate) bytes: i64,
}

/// Transactions of an older layout that are being committed through two epochs of their own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RollingCommit {
    /// Epoch of the transactions.
    pub(crate) epoch: i32,
    /// In the order of commits, with their positions.
    pub(crate) transactions: Vec<(i64, TransactionId)>,
    /// When it began.
    pub(crate) at_ms: i64,
    /// Both epochs are written, and the old segments may be sealed.
    pub(crate) recorded: bool,
}

const VERSION: u8 = 1;

impl Head {
    pub(crate) fn new(config: StreamConfig, now_ms: i64) -> Self {
        Self {
            state: State::Creating,
            config,
            created_ms: now_ms,
            epoch: 0,
            truncation: None,
            scale: None,
            rolling: None,
            update: None,
            truncate: None,
        }
    }

    /// Something has to be finished before anything else is done.
    pub(crate) fn is_unfinished(&self) -> bool {
        let under_way =
            self.scale.is_some() || self.rolling.is_some() || self.update.is_some() || self.truncate.is_some();
        under_way || !matches!(self.state, State::Active | State::Sealed)
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.u8(match self.state {
            State::Creating => 1,
            State::Active => 2,
            State::Sealing => 3,
            State::Sealed => 4,
            State::Deleting => 5,
        });
        encode_config(&mut encoder, &self.config);
        encoder.i64(self.created_ms).i32(self.epoch);
        encoder.option(self.truncation.as_ref(), |encoder, truncation| {
            encode_cut(encoder, &truncation.cut);
            encoder.i64(truncation.bytes);
        });
        encoder.option(self.scale.as_ref(), |encoder, plan| {
            encoder.list(&plan.sealed, |encoder, id| {
                encoder.segment_id(*id);
            });
            encoder.list(&plan.new, |encoder, segment| {
                encoder.segment_id(segment.id).range(segment.range).i64(segment.created_ms);
            });
            encoder.u8(plan.recorded.into());
        });
        encoder.option(self.rolling.as_ref(), |encoder, rolling| {
            encoder.i32(rolling.epoch).i64(rolling.at_ms).u8(rolling.recorded.into());
            encoder.list(&rolling.transactions, |encoder, (position, id)| {
                encoder.i64(*position).transaction(*id);
            });
        });
        encoder.option(self.update.as_ref(), encode_config);
        encoder.option(self.truncate.as_ref(), encode_cut);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("stream", VERSION, bytes)?;
        let state = match decoder.u8()? {
            1 => State::Creating,
            2 => State::Active,
            3 => State::Sealing,
            4 => State::Sealed,
            5 => State::Deleting,
            _ => return Err(decoder.malformed()),
        };
        let head = Self {
            state,
            config: decode_config(&mut decoder)?,
            created_ms: decoder.i64()?,
            epoch: decoder.i32()?,
            truncation: decoder.option(|d| Ok(Truncation { cut: decode_cut(d)?, bytes: d.i64()? }))?,
            scale: decoder.option(|d| {
                Ok(ScalePlan {
                    sealed: d.list(8, Decoder::segment_id)?,
                    new: d
                        .list(32, |d| Ok(Segment { id: d.segment_id()?, range: d.range()?, created_ms: d.i64()? }))?,
                    recorded: d.u8()? != 0,
                })
            })?,
            rolling: decoder.option(|d| {
                Ok(RollingCommit {
                    epoch: d.i32()?,
                    at_ms: d.i64()?,
                    recorded: d.u8()? != 0,
                    transactions: d.list(24, |d| Ok((d.i64()?, d.transaction()?)))?,
                })
            })?,
            update: decoder.option(decode_config)?,
            truncate: decoder.option(decode_cut)?,
        };
        if head.epoch < 0 {
            return Err(decoder.malformed());
        }
        decoder.finish()?;
        Ok(head)
    }
}

fn encode_config(encoder: &mut Encoder, config: &StreamConfig) {
    let kind = match config.scaling.kind {
        ScalingKind::Fixed => 0,
        ScalingKind::Kilobytes => 1,
        ScalingKind::Events => 2,
    };
    encoder.u8(kind).i32(config.scaling.target_rate).i32(config.scaling.scale_factor).i32(config.scaling.min_segments);
    encoder.option(config.retention, |encoder, retention| {
        let kind = match retention.kind {
            RetentionKind::Time => 1,
            RetentionKind::Size => 2,
        };
        encoder.u8(kind).i64(retention.keep).i64(retention.keep_max);
    });
    encoder.list(&config.tags, |encoder, tag| {
        encoder.text(tag);
    });
    encoder.i64(config.timestamp_aggregation_timeout_ms).i64(config.rollover_bytes);
}

fn decode_config(decoder: &mut Decoder<'_>) -> Result<StreamConfig, DecodeError> {
    let kind = match decoder.u8()? {
        0 => ScalingKind::Fixed,
        1 => ScalingKind::Kilobytes,
        2 => ScalingKind::Events,
        _ => return Err(decoder.malformed()),
    };
    let scaling =
        ScalingPolicy { kind, target_rate: decoder.i32()?, scale_factor: decoder.i32()?, min_segments: decoder.i32()? };
    let retention = decoder.option(|d| {
        let kind = match d.u8()? {
            1 => RetentionKind::Time,
            2 => RetentionKind::Size,
            _ => return Err(d.malformed()),
        };
        Ok(RetentionPolicy { kind, keep: d.i64()?, keep_max: d.i64()? })
    })?;
    Ok(StreamConfig {
        scaling,
        retention,
        tags: decoder.list(4, Decoder::text)?,
        timestamp_aggregation_timeout_ms: decoder.i64()?,
        rollover_bytes: decoder.i64()?,
    })
}

pub(crate) fn encode_cut(encoder: &mut Encoder, cut: &StreamCut) {
    let entries: Vec<_> = cut.iter().collect();
    encoder.list(&entries, |encoder, (id, offset)| {
        encoder.segment_id(**id).i64(**offset);
    });
}

pub(crate) fn decode_cut(decoder: &mut Decoder<'_>) -> Result<StreamCut, DecodeError> {
    Ok(decoder.list(16, |d| Ok((d.segment_id()?, d.i64()?)))?.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use headwater_types::SegmentId;

    use super::*;
    use crate::state::epochs::Epoch;
    use crate::state::scale;

    fn full() -> Head {
        let current = Epoch::first(0, 2, 7);
        let plan = scale::plan(&current, &[SegmentId::new(1, 0)], &[(0.5, 0.75), (0.75, 1.0)], 1, 8).unwrap();
        let cut: StreamCut = [(SegmentId::new(0, 0), 5), (SegmentId::new(1, 0), -1)].into();
        let config = StreamConfig {
            scaling: ScalingPolicy { kind: ScalingKind::Events, target_rate: 1, scale_factor: 2, min_segments: 3 },
            retention: Some(RetentionPolicy { kind: RetentionKind::Size, keep: 1, keep_max: i64::MAX }),
            tags: vec!["a".into(), "ü".into()],
            timestamp_aggregation_timeout_ms: 4,
            rollover_bytes: 5,
        };
        Head {
            state: State::Sealing,
            truncation: Some(Truncation { cut: cut.clone(), bytes: 99 }),
            scale: Some(plan),
            rolling: Some(RollingCommit {
                epoch: 0,
                transactions: vec![(1, TransactionId(5)), (2, TransactionId(6))],
                at_ms: 3,
                recorded: true,
            }),
            update: Some(StreamConfig::new(ScalingPolicy::fixed(1))),
            truncate: Some(cut),
            ..Head::new(config, 12)
        }
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        for head in [full(), Head::new(StreamConfig::new(ScalingPolicy::fixed(3)), 1)] {
            assert_eq!(Head::decode(&head.encode()).unwrap(), head);
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic() {
        let good = full().encode();
        for cut in 0..good.len() {
            assert!(Head::decode(&good[..cut]).is_err());
        }
        for at in 0..good.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = good.to_vec();
                bad[at] ^= flip;
                let _ = Head::decode(&bad);
            }
        }
    }
}
