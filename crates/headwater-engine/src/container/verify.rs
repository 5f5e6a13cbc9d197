//! Whether what a container remembers fits together: names and segments, segments and their pieces, pieces and chunks,
//! tables and their keys. Everything here is of one checkpoint; what the journal adds is judged by replaying it.
//!
//! One walk through the catalogue in key order; memory grows with the number of chunks, nothing else.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::catalogue::{Catalogue, Key};
use crate::codec::Malformed;
use crate::error::StoreError;

use super::keys::{self, IndexEntry, StoredRun};
use super::segment::Segment;
use super::tables;

/// Something that does not fit.
#[derive(Debug)]
pub(crate) struct Misfit {
    /// Name of the segment it is about, if there is one.
    pub(crate) segment: Option<String>,
    /// What.
    pub(crate) what: String,
}

/// What the walk saw.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Segments of every kind.
    pub(crate) segments: u64,
    /// Bytes each chunk has to hold for pieces, and how many of them are still needed.
    pub(crate) chunks: BTreeMap<u64, ChunkUse>,
}

/// What is known of a chunk from the catalogue.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChunkUse {
    /// The chunk is counted, with this many bytes needed.
    pub(crate) counted: Option<u64>,
    /// Bytes of all pieces in it.
    pub(crate) pieces_bytes: u64,
    /// Where its last piece ends, in the chunk's bytes.
    pub(crate) end: u64,
}

/// A segment whose entries are being walked through.
struct Walked {
    id: u64,
    segment: Option<Segment<()>>,
    /// Where the pieces seen so far end.
    pieces_end: Option<u64>,
    table_entries: u64,
    table_bytes: u64,
}

/// Walks through everything.
///
/// # Errors
/// When the catalogue cannot be read; it was read before, so the disk is failing.
pub(crate) fn verify(catalogue: &Catalogue, misfit: &mut dyn FnMut(Misfit)) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    let mut names = 0_u64;
    let mut walked: Option<Walked> = None;
    let mut letter = 0;
    let mut scan = catalogue.scan(std::ops::Bound::Unbounded)?;
    loop {
        let entry = scan.next()?;
        let is_owned = |key: &Key| matches!(key.first(), Some(b'A' | b'C' | b'E' | b'T'));
        let owner = entry.as_ref().filter(|(key, _)| is_owned(key)).and_then(|(key, _)| owner_of(key));
        let here = entry.as_ref().and_then(|(key, _)| key.first().copied()).unwrap_or(0);
        if let Some(before) = walked.take_if(|walked| Some(walked.id) != owner || here != letter) {
            ended(&before, letter, misfit);
        }
        letter = here;
        let Some((key, value)) = entry else { break };
        if let Some(id) = owner
            && walked.is_none()
        {
            walked = Some(begun(catalogue, id, letter, misfit)?);
        }
        match judge(catalogue, &key, &value, walked.as_mut(), &mut contents, misfit) {
            Ok(()) => names += u64::from(letter == b'N'),
            Err(Trouble::Malformed(Malformed(what))) => {
                misfit(Misfit { segment: None, what: format!("entry {}: {what}", printable(&key)) });
            }
            Err(Trouble::Store(error)) => return Err(error),
        }
    }
    if names != contents.segments {
        let what = format!("{names} names lead to {} segments", contents.segments);
        misfit(Misfit { segment: None, what });
    }
    for (chunk, used) in &contents.chunks {
        if used.counted != Some(used.pieces_bytes) {
            let counted = used.counted.map_or("not counted".to_owned(), |bytes| format!("counted with {bytes}"));
            let what = format!("chunk {chunk} holds {} bytes of pieces and is {counted}", used.pieces_bytes);
            misfit(Misfit { segment: None, what });
        }
    }
    Ok(contents)
}

/// Segments with bytes in given stretches of chunks: `each` is told the index of the stretch, the segment's name and
/// which of its bytes stand there.
///
/// # Errors
/// As [`verify`].
pub(crate) fn owners(
    catalogue: &Catalogue,
    stretches: &[(u64, Range<u64>)],
    each: &mut dyn FnMut(usize, String, Range<u64>),
) -> Result<(), StoreError> {
    let mut by_chunk: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (at, (chunk, _)) in stretches.iter().enumerate() {
        by_chunk.entry(*chunk).or_default().push(at);
    }
    let mut scan = catalogue.scan(std::ops::Bound::Included(b"C"))?;
    while let Some((key, value)) = scan.next()?
        && key.first() == Some(&b'C')
    {
        let (Ok(run), Some(id)) = (StoredRun::decode(&key, &value), owner_of(&key)) else { continue };
        for &at in by_chunk.get(&run.place.chunk).into_iter().flatten() {
            let (first, last) = (run.place.position, run.place.position + run.length());
            let bad = &stretches[at].1;
            if first < bad.end && bad.start < last {
                let from = run.start + bad.start.saturating_sub(first);
                let to = run.start + bad.end.min(last) - first;
                let name = segment(catalogue, id)?.map_or_else(|| format!("segment {id}"), |segment| segment.key);
                each(at, name, from..to);
            }
        }
    }
    Ok(())
}

/// Numbers of the chunks that are needed.
///
/// # Errors
/// As [`verify`].
pub(crate) fn chunks_of(catalogue: &Catalogue) -> Result<impl Iterator<Item = u64> + use<>, StoreError> {
    let chunks = catalogue.with_prefix(keys::CHUNKS)?;
    let numbers = chunks.iter().map(|(key, _)| keys::last_number(key)).collect::<Result<Vec<_>, _>>();
    Ok(numbers.map_err(StoreError::malformed("catalogue", 0))?.into_iter())
}

fn owner_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..9)?.try_into().expect("eight bytes")))
}

/// Bytes for people: text as it is, everything else as escapes.
fn printable(key: &[u8]) -> String {
    key.iter().take(64).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect()
}

fn segment(catalogue: &Catalogue, id: u64) -> Result<Option<Segment<()>>, StoreError> {
    let Some(record) = catalogue.get(&keys::segment(id))? else { return Ok(None) };
    // What does not decode is reported where the walk meets it.
    Ok(Segment::decode(&record).ok())
}

fn begun(catalogue: &Catalogue, id: u64, letter: u8, misfit: &mut dyn FnMut(Misfit)) -> Result<Walked, StoreError> {
    let segment = segment(catalogue, id)?;
    let is_retired = segment.is_none() && catalogue.get(&retired_key(id))?.is_some();
    if segment.is_none() && !(is_retired && letter != b'C') {
        let what = format!("entries of kind {} belong to segment {id}, which is not there", char::from(letter));
        misfit(Misfit { segment: None, what });
    }
    Ok(Walked { id, segment, pieces_end: None, table_entries: 0, table_bytes: 0 })
}

fn retired_key(id: u64) -> Key {
    [b"D", &id.to_be_bytes()[..]].concat()
}

/// All entries of one kind of one segment were seen.
fn ended(walked: &Walked, letter: u8, misfit: &mut dyn FnMut(Misfit)) {
    let Some(segment) = &walked.segment else { return };
    let mut say = |what: String| misfit(Misfit { segment: Some(segment.key.clone()), what });
    match letter {
        b'C' if walked.pieces_end != Some(segment.length) => {
            let end = walked.pieces_end.unwrap_or(0);
            say(format!("pieces end at {end}, the segment has {} bytes", segment.length));
        }
        b'T' if (walked.table_entries, walked.table_bytes) != (segment.entries, segment.live_bytes) => say(format!(
            "table has {} keys of {} bytes, its segment says {} of {}",
            walked.table_entries, walked.table_bytes, segment.entries, segment.live_bytes
        )),
        _ => {}
    }
}

/// Why an entry cannot be judged.
enum Trouble {
    Malformed(Malformed),
    Store(StoreError),
}

impl From<Malformed> for Trouble {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// One entry.
fn judge(
    catalogue: &Catalogue,
    key: &[u8],
    value: &[u8],
    walked: Option<&mut Walked>,
    contents: &mut Contents,
    misfit: &mut dyn FnMut(Misfit),
) -> Result<(), Trouble> {
    match (key.first(), walked) {
        (Some(b'A'), Some(_)) if key.len() == 25 && value.len() == 8 => {}
        (Some(b'A'), _) => return Err(Malformed("attribute of odd length").into()),
        (Some(b'C'), Some(walked)) => piece(key, value, walked, contents, misfit)?,
        (Some(b'D' | b'X'), _) if key.len() == keys::PREFIX_BYTES => {}
        (Some(b'D' | b'X'), _) => return Err(Malformed("number of odd length").into()),
        (Some(b'E'), Some(walked)) => {
            let offset = keys::last_number(key)?;
            if let Some(segment) = walked.segment.as_ref().filter(|segment| offset > segment.length) {
                let what = format!("an append ended at {offset} of {} bytes", segment.length);
                misfit(Misfit { segment: Some(segment.key.clone()), what });
            }
        }
        (Some(b'F'), _) => {
            let needed = keys::decode_number(value)?;
            contents.chunks.entry(keys::last_number(key)?).or_default().counted = Some(needed);
        }
        (Some(b'N'), _) => {
            let id = keys::decode_number(value)?;
            let found = segment(catalogue, id)?;
            let name = String::from_utf8_lossy(&key[1..]).into_owned();
            if found.as_ref().is_none_or(|segment| segment.key != name) {
                let leads = found.map_or("nothing".to_owned(), |segment| segment.key);
                let what = format!("name leads to number {id}, which is {leads}");
                misfit(Misfit { segment: Some(name), what });
            }
        }
        (Some(b'S'), _) => {
            contents.segments += 1;
            let found: Segment<()> = Segment::decode(value)?;
            one_segment(catalogue, keys::last_number(key)?, &found, misfit)?;
        }
        (Some(b'T'), Some(walked)) => {
            let entry = IndexEntry::decode(value)?;
            table_key(&key[keys::PREFIX_BYTES..], &entry, walked, misfit);
        }
        _ => return Err(Malformed("entry of unknown kind").into()),
    }
    Ok(())
}

fn table_key(key: &[u8], entry: &IndexEntry, walked: &mut Walked, misfit: &mut dyn FnMut(Misfit)) {
    let length = tables::entry_bytes(key, entry.value_length as usize);
    walked.table_entries += 1;
    walked.table_bytes += length;
    let Some(segment) = &walked.segment else { return };
    let end = entry.position.checked_add(length);
    if entry.position < segment.start || end.is_none_or(|end| end > segment.length) {
        let (position, start, end) = (entry.position, segment.start, segment.length);
        let what = format!("key {} is at {position} of bytes {start} to {end}", printable(key));
        misfit(Misfit { segment: Some(segment.key.clone()), what });
    }
}

fn one_segment(
    catalogue: &Catalogue,
    id: u64,
    segment: &Segment<()>,
    misfit: &mut dyn FnMut(Misfit),
) -> Result<(), StoreError> {
    let mut say = |what: String| misfit(Misfit { segment: Some(segment.key.clone()), what });
    let named = catalogue.get(&keys::name(&segment.key))?;
    if named.as_deref().map(keys::decode_number) != Some(Ok(id)) {
        say(format!("segment {id} is not found under its name"));
    }
    // Of a segment that has bytes there must be pieces; where they begin and end is judged when they are met.
    if segment.start < segment.length
        && catalogue.between(&keys::piece(id, segment.length), &keys::piece(id, segment.length))?.is_empty()
    {
        say(format!("no piece ends at {}, where the segment does", segment.length));
    }
    if segment.entries > 0 {
        let prefix = keys::table_key(id, &[]);
        let first = catalogue.scan(std::ops::Bound::Included(&prefix))?.next()?;
        if !segment.is_table() || first.is_none_or(|(key, _)| !key.starts_with(&prefix)) {
            say(format!("says it has {} keys, and has none", segment.entries));
        }
    }
    Ok(())
}

fn piece(
    key: &[u8],
    value: &[u8],
    walked: &mut Walked,
    contents: &mut Contents,
    misfit: &mut dyn FnMut(Misfit),
) -> Result<(), Malformed> {
    let run = StoredRun::decode(key, value)?;
    let length = run.length();
    let end = run.place.position + length;
    let chunk = contents.chunks.entry(run.place.chunk).or_default();
    chunk.pieces_bytes = chunk.pieces_bytes.saturating_add(length);
    chunk.end = chunk.end.max(end);
    let before = walked.pieces_end.replace(run.end);
    let Some(segment) = &walked.segment else { return Ok(()) };
    let is_next = match before {
        Some(before) => run.start == before,
        // The first piece may begin before the segment does: a chunk is never rewritten.
        None => run.start <= segment.start && segment.start < run.end,
    };
    if !is_next {
        let wanted = before.unwrap_or(segment.start);
        let what = format!("piece of bytes {} to {} where one from {wanted} is expected", run.start, run.end);
        misfit(Misfit { segment: Some(segment.key.clone()), what });
    }
    Ok(())
}
