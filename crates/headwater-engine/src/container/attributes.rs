//! Attributes of a segment: 64-bit values under 128-bit ids.

use std::collections::BTreeMap;
use std::ops::Bound;

use headwater_types::{AttributeId, attribute};

use crate::api::{ATTRIBUTE_UPDATES_MAX, AttributeUpdate, Refusal, SegmentKind, TRANSIENT_ATTRIBUTES_MAX, UpdateKind};
use crate::codec::Malformed;
use crate::error::StoreError;

use super::{Container, Token, keys};

/// High half of the ids that are fields of the segment itself.
const CORE_HIGH: u128 = 0x8000_0000_0000_0000;

/// What the segment holds, as bits. Source of these: Pravega's core attributes.
const SEGMENT_TYPE: AttributeId = AttributeId(CORE_HIGH << 64 | 9);
const TYPE_TABLE: i64 = 1;
const TYPE_FIXED_KEYS: i64 = 4;
const TYPE_TRANSIENT: i64 = 128;
/// Length of the keys of a table of fixed key length.
const KEY_LENGTH: AttributeId = AttributeId(CORE_HIGH << 64 | 12);
/// Live keys of a table.
const TABLE_ENTRIES: AttributeId = AttributeId(CORE_HIGH << 64 | 0x10_0001);

/// What one attribute more in a transient segment is answered.
pub(super) const TOO_MANY_ATTRIBUTES: Refusal = Refusal::Invalid("a transient segment has no more than 16 attributes");

/// The id of a field of the segment itself, or reserved for one.
pub(super) fn is_core(id: AttributeId) -> bool {
    id.0 >> 64 == CORE_HIGH
}

impl<T: Token> Container<T> {
    /// Value of an attribute of a segment in memory; [`attribute::NULL`] if unset.
    pub(super) fn attribute(&self, id: u64, attribute: AttributeId) -> Result<i64, StoreError> {
        let segment = self.segment(id);
        let core = match attribute {
            attribute::CREATION_TIME => Some(segment.created),
            attribute::EVENT_COUNT => Some(segment.event_count as i64),
            attribute::SCALE_TYPE => Some(i64::from(segment.policy.scale_type)),
            attribute::SCALE_RATE => Some(i64::from(segment.policy.rate)),
            attribute::ROLLOVER_BYTES => Some(segment.policy.rollover_bytes as i64),
            SEGMENT_TYPE => Some(match segment.kind {
                SegmentKind::Stream => 0,
                SegmentKind::Transient => TYPE_TRANSIENT,
                SegmentKind::Table { key_length: 0 } => TYPE_TABLE,
                SegmentKind::Table { .. } => TYPE_TABLE | TYPE_FIXED_KEYS,
            }),
            KEY_LENGTH => match segment.kind {
                SegmentKind::Table { key_length } if key_length > 0 => Some(i64::from(key_length)),
                _ => None,
            },
            TABLE_ENTRIES if segment.is_table() => Some(segment.entries as i64),
            _ => None,
        };
        if let Some(value) = core.or_else(|| segment.attribute_in_memory(attribute)) {
            return Ok(value);
        }
        match self.catalogue.get(&keys::attribute(id, attribute))? {
            None => Ok(attribute::NULL),
            Some(value) => match value.try_into() {
                Ok(bytes) => Ok(i64::from_be_bytes(bytes)),
                Err(_) => Err(StoreError::malformed("catalogue", 0)(Malformed("stored attribute has another length"))),
            },
        }
    }

    /// The final values after all updates, or why none is made.
    pub(super) fn decide_attributes(
        &self,
        id: u64,
        updates: &[AttributeUpdate],
    ) -> Result<Result<Vec<(AttributeId, i64)>, Refusal>, StoreError> {
        if updates.len() > ATTRIBUTE_UPDATES_MAX {
            return Ok(Err(Refusal::Invalid("too many attribute updates")));
        }
        let mut decided: Vec<(AttributeId, i64)> = Vec::with_capacity(updates.len());
        for update in updates {
            if is_core(update.id) {
                return Ok(Err(Refusal::Invalid("core attributes are not set from outside")));
            }
            let current = match decided.iter().rev().find(|(id, _)| *id == update.id) {
                Some((_, value)) => *value,
                None => self.attribute(id, update.id)?,
            };
            let is_set = current != attribute::NULL;
            let value = match update.kind {
                UpdateKind::IfAbsent if is_set => return Ok(Err(Refusal::AttributeMismatch)),
                UpdateKind::IfGreater if is_set && update.value <= current => {
                    return Ok(Err(Refusal::AttributeMismatch));
                }
                UpdateKind::IfEquals(expected) if current != expected => return Ok(Err(Refusal::AttributeMismatch)),
                UpdateKind::Accumulate if is_set => match current.checked_add(update.value) {
                    Some(sum) => sum,
                    None => return Ok(Err(Refusal::Invalid("attribute overflows"))),
                },
                UpdateKind::IfAbsent
                | UpdateKind::Replace
                | UpdateKind::IfGreater
                | UpdateKind::Accumulate
                | UpdateKind::IfEquals(_) => update.value,
            };
            decided.push((update.id, value));
        }
        if self.segment(id).kind == SegmentKind::Transient {
            // Of several updates of one attribute the last counts.
            let last: BTreeMap<AttributeId, i64> = decided.iter().copied().collect();
            let mut set = self.attributes_set(id)?;
            for (attribute, value) in last {
                set += usize::from(value != attribute::NULL);
                set -= usize::from(self.attribute(id, attribute)? != attribute::NULL);
            }
            if set > TRANSIENT_ATTRIBUTES_MAX {
                return Ok(Err(TOO_MANY_ATTRIBUTES));
            }
        }
        Ok(Ok(decided))
    }

    /// How many attributes of a segment in memory are set.
    pub(super) fn attributes_set(&self, id: u64) -> Result<usize, StoreError> {
        let segment = self.segment(id);
        if let Some(count) = segment.attributes_set {
            return Ok(count);
        }
        let mut all = BTreeMap::new();
        let prefix = keys::attributes(id);
        let mut scan = self.catalogue.scan(Bound::Included(&prefix))?;
        while let Some((key, _)) = scan.next()?
            && key.starts_with(&prefix)
        {
            let attribute = keys::attribute_of(&key).map_err(StoreError::malformed("catalogue", 0))?;
            all.insert(attribute, self.attribute(id, attribute)?);
        }
        all.extend(&segment.attributes);
        Ok(all.values().filter(|value| **value != attribute::NULL).count())
    }
}
