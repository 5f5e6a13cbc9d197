//! Records of a reader group and of its hold on a stream's retention.

use bytes::Bytes;
use headwater_types::{Name, ScopedStream};

use super::head::{decode_cut, encode_cut};
use super::tables::Life;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::{Group, GroupConfig, GroupCut, GroupRetention, StreamCut};

/// A reader group, and what is being done to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GroupRecord {
    pub(crate) life: Life,
    pub(crate) group: Group,
    /// The configuration that is being put in force.
    pub(crate) update: Option<GroupConfig>,
}

const VERSION: u8 = 1;

impl GroupRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        self.life.encode(&mut encoder);
        encoder.u128(self.group.id).i64(self.group.generation);
        encode_config(&mut encoder, &self.group.config);
        encoder.option(self.update.as_ref(), encode_config);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("reader group", VERSION, bytes)?;
        let record = Self {
            life: Life::decode(&mut decoder)?,
            group: Group { id: decoder.u128()?, generation: decoder.i64()?, config: decode_config(&mut decoder)? },
            update: decoder.option(decode_config)?,
        };
        decoder.finish()?;
        Ok(record)
    }
}

/// Bytes that a configuration takes in a record.
pub(crate) fn config_bytes(config: &GroupConfig) -> usize {
    let mut encoder = Encoder::new(VERSION);
    encode_config(&mut encoder, config);
    encoder.finish().len()
}

fn encode_config(encoder: &mut Encoder, config: &GroupConfig) {
    encoder.i64(config.refresh_ms).i64(config.checkpoint_every_ms).i32(config.checkpoints_max);
    encoder.u8(match config.retention {
        GroupRetention::None => 0,
        GroupRetention::Manual => 1,
        GroupRetention::Automatic => 2,
    });
    for cuts in [&config.starting, &config.ending] {
        encoder.list(cuts, |encoder, cut| {
            encoder.text(cut.stream.scope.as_str()).text(cut.stream.stream.as_str());
            encode_cut(encoder, &cut.cut);
        });
    }
}

fn decode_config(decoder: &mut Decoder<'_>) -> Result<GroupConfig, DecodeError> {
    Ok(GroupConfig {
        refresh_ms: decoder.i64()?,
        checkpoint_every_ms: decoder.i64()?,
        checkpoints_max: decoder.i32()?,
        retention: match decoder.u8()? {
            0 => GroupRetention::None,
            1 => GroupRetention::Manual,
            2 => GroupRetention::Automatic,
            _ => return Err(decoder.malformed()),
        },
        starting: decoder.list(12, decode_group_cut)?,
        ending: decoder.list(12, decode_group_cut)?,
    })
}

fn decode_group_cut(decoder: &mut Decoder<'_>) -> Result<GroupCut, DecodeError> {
    let mut name = || Name::parse(&decoder.text()?).map_err(|_| decoder.malformed());
    let stream = ScopedStream { scope: name()?, stream: name()? };
    Ok(GroupCut { stream, cut: decode_cut(decoder)? })
}

/// A reader group's hold on a stream: what lies before `cut` may go.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Subscriber {
    pub(crate) id: u128,
    pub(crate) generation: i64,
    /// Empty until the group has named one: it may need everything.
    pub(crate) cut: StreamCut,
}

impl Subscriber {
    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.u128(self.id).i64(self.generation);
        encode_cut(&mut encoder, &self.cut);
        encoder.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("subscriber", VERSION, bytes)?;
        let record = Self { id: decoder.u128()?, generation: decoder.i64()?, cut: decode_cut(&mut decoder)? };
        decoder.finish()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use headwater_types::SegmentId;

    use super::*;

    fn record() -> GroupRecord {
        let cut = |stream: &str, entries: &[(SegmentId, i64)]| GroupCut {
            stream: ScopedStream { scope: Name::parse("s").unwrap(), stream: Name::parse(stream).unwrap() },
            cut: entries.iter().copied().collect(),
        };
        let config = GroupConfig {
            refresh_ms: 3000,
            checkpoint_every_ms: -1,
            checkpoints_max: 3,
            retention: GroupRetention::Automatic,
            starting: vec![cut("b", &[]), cut("a", &[(SegmentId::new(0, 0), 7), (SegmentId::new(3, 1), -1)])],
            ending: vec![],
        };
        let update = GroupConfig { ending: config.starting.clone(), ..config.clone() };
        let group = Group { id: u128::MAX - 5, generation: 4, config };
        GroupRecord { life: Life::Active, group, update: Some(update) }
    }

    #[test]
    fn a_group_comes_back_as_it_was() {
        assert_eq!(GroupRecord::decode(&record().encode()).unwrap(), record());
        let subscriber = Subscriber { id: 5, generation: 1, cut: record().group.config.starting[1].cut.clone() };
        assert_eq!(Subscriber::decode(&subscriber.encode()).unwrap(), subscriber);
    }

    #[test]
    fn no_bytes_make_decoding_panic() {
        let good = record().encode();
        for cut in 0..good.len() {
            assert!(GroupRecord::decode(&good[..cut]).is_err());
        }
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 0xff;
            let _ = GroupRecord::decode(&bad);
            let _ = Subscriber::decode(&bad);
        }
    }
}
