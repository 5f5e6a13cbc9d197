//! T11: readers of one group join, leave, sleep and die, while checkpoints are made, the stream is scaled, the server killed
//! and the group reset to a checkpoint.

use super::register::{Gone, Register};
use super::{GROUP, PATIENCE, Stage, client, parsed};
use crate::chance::Chance;
use anyhow::{Context, Result, bail, ensure};
use headwater_client::{
    Checkpoint, Cut, Delivery, ErrorKind, EventReader, Name, ReadFrom, ReaderGroup, ReaderOptions, StreamSegment,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Readers at a time, beside the one that sleeps.
const SLOTS: u64 = 3;
const KEYS: usize = 8;
/// Readers that are silent for so long are taken for dead.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// A reader looks at the clock at least once in so many events, and then at the group.
const EVENTS_UNTOLD_MAX: usize = 16;

/// An event that was handed out.
pub(super) struct Handed {
    reader: String,
    key: String,
    number: u64,
    pub(super) segment: Arc<StreamSegment>,
    pub(super) offset: u64,
}

type AllHanded = Arc<Mutex<Vec<Handed>>>;

pub(super) async fn run(stage: Stage) -> Result<String> {
    let group = stage.group().await?;
    let mut register = Register::open(&stage).await?;
    let gone = register.gone();
    let handed = AllHanded::default();
    let writing = tokio::spawn(stage.clone().write(0, KEYS, Duration::from_millis(8)));
    let scaling = tokio::spawn(stage.clone().scale(Duration::from_secs(1)));
    let checkpointing = tokio::spawn(checkpoint(stage.clone(), group.clone()));
    // Most readers live too short to see that another is dead.
    let watching = group.watch(DEAD_AFTER);
    let (asleep, all_handed) = (stage.clone(), handed.clone());
    let sleeping = tokio::task::spawn_blocking(move || sleep_again_and_again(&asleep, &all_handed, &gone));
    let living =
        (0..SLOTS).map(|slot| tokio::spawn(live(group.clone(), slot, stage.chance(200 + slot), handed.clone())));
    let living: Vec<_> = living.collect();
    let following = async {
        while !sleeping.is_finished() {
            register.catch_up().await?;
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    following.await?;
    let (naps, slept) = sleeping.await??;
    let counts = writing.await??;
    let expected: BTreeMap<String, u64> = (0..).zip(counts).map(|(key, count)| (format!("0-{key}"), count)).collect();
    let (scales, (checkpoints, reset)) = (scaling.await??, checkpointing.await??);
    stage.seal().await?;
    let (mut lives, mut dead, mut doubtful) = (slept.len() as u64, slept, Vec::new());
    for living in living {
        let (count, died, perhaps) =
            timeout(PATIENCE, living).await.context("the readers do not come to the end of the stream")???;
        lives += count;
        dead.extend(died);
        doubtful.extend(perhaps);
    }
    drop(watching);
    register.catch_up().await?;
    let deaths = dead.len();
    dead.extend(doubtful);

    let from = begins_behind(&expected, &read_behind(&stage, &reset).await?)?;
    let handed = std::mem::take(&mut *handed.lock().expect("nobody panics with it"));
    let again = in_moderation(&handed, &dead, &register)?;
    let anew = no_gap(&handed, &register, &expected, &from)?;

    // What the group hands out from a checkpoint on is what stands in the stream behind its cut.
    let last = checkpoints.last().context("no checkpoint was made")?;
    let (from_there, behind) = (read_from(&group, last).await?, read_behind(&stage, last).await?);
    ensure!(from_there == behind, "from the checkpoint on come {from_there:?}, behind it are {behind:?}");
    begins_behind(&expected, &behind)?;
    Ok(format!(
        "{} events, no gap, {again} handed out again after {deaths} deaths in {lives} lives, {naps} readers told that they had \
         slept too long; {anew} again after a reset; {} checkpoints, {} events read from the last one; {scales} scales",
        expected.values().sum::<u64>(),
        checkpoints.len(),
        from_there.values().map(Vec::len).sum::<usize>(),
    ))
}

/// Between two resets an event comes once; again only if its reader died, and was behind what that had said last. Of those in
/// `dead` that did not die, the last that they said is where they left. Returns how many came again.
fn in_moderation(handed: &[Handed], dead: &BTreeSet<String>, register: &Register) -> Result<usize> {
    let mut times: BTreeMap<(usize, &str, u64), Vec<&Handed>> = BTreeMap::new();
    for event in handed {
        times.entry((register.joined(&event.reader)?, event.key.as_str(), event.number)).or_default().push(event);
    }
    let mut again = 0;
    for ((_, key, number), times) in times {
        let is_unsaid = |event: &&&Handed| dead.contains(&event.reader) && register.is_unsaid(&event.reader, event);
        let unsaid = times.iter().filter(is_unsaid).count();
        let readers: Vec<&str> = times.iter().map(|event| event.reader.as_str()).collect();
        ensure!(
            times.len() <= unsaid + 1,
            "{key} {number} was handed out to {readers:?}: {unsaid} of them died before they said that they had it"
        );
        again += times.len() - 1;
    }
    Ok(again)
}

/// Of every key the events come from where the group begins, without a gap: at first up to where it was reset to, or further,
/// and after the last reset up to the end. Returns how many came before a reset and after it.
fn no_gap(
    handed: &[Handed],
    register: &Register,
    expected: &BTreeMap<String, u64>,
    from: &BTreeMap<String, u64>,
) -> Result<usize> {
    let last = register.generation();
    ensure!(last > 0, "the group was never reset");
    let mut found: BTreeMap<(usize, &str), BTreeSet<u64>> = BTreeMap::new();
    for event in handed {
        found.entry((register.joined(&event.reader)?, event.key.as_str())).or_default().insert(event.number);
    }
    let mut anew = 0;
    for generation in 0..=last {
        for (key, count) in expected {
            let begin = if generation == 0 { 0 } else { from[key] };
            let end = match generation {
                0 => from[key],
                _ if generation == last => *count,
                // Reset once more before anything had to be read.
                _ => begin,
            };
            let numbers = found.remove(&(generation, key.as_str())).unwrap_or_default();
            let reached = numbers.last().map_or(begin, |last| last + 1);
            ensure!(
                numbers.iter().copied().eq(begin..reached) && reached >= end,
                "after {generation} resets, of key {key} from {begin} to {end} at least: {numbers:?}"
            );
            if generation == 0 {
                anew += reached.saturating_sub(from[key]) as usize;
            }
        }
    }
    ensure!(found.is_empty(), "events of keys that nobody wrote: {:?}", found.keys());
    Ok(anew)
}

/// The first number of each key behind a cut, of those that stand there: whatever is behind it goes on to the end.
fn begins_behind(
    expected: &BTreeMap<String, u64>,
    behind: &BTreeMap<String, Vec<u64>>,
) -> Result<BTreeMap<String, u64>> {
    let begin = |(key, count): (&String, &u64)| {
        let numbers = behind.get(key).map_or(&[][..], Vec::as_slice);
        let begin = count.saturating_sub(numbers.len() as u64);
        ensure!(numbers.iter().copied().eq(begin..*count), "the checkpoint cuts key {key} into pieces: {numbers:?}");
        Ok((key.clone(), begin))
    };
    expected.iter().map(begin).collect()
}

fn options() -> ReaderOptions {
    ReaderOptions { dead_after: Some(DEAD_AFTER), ..ReaderOptions::at_once() }
}

/// A reader after the other that stands still with all that belongs to it, as a process that is stopped, until it is taken for
/// dead, and then goes on. Returns how many there were, and who they were.
fn sleep_again_and_again(stage: &Stage, handed: &AllHanded, gone: &Gone) -> Result<(u64, BTreeSet<String>)> {
    let mut chance = stage.chance(250);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let group = client(&stage.controller)?.reader_group(&stage.stream.scope, &Name::parse(GROUP)?).await?;
        let (mut naps, mut slept) = (0, BTreeSet::new());
        while !stage.is_over() {
            let id = format!("sleeper-{}", slept.len());
            let mut reader = group.reader_with(&id, options()).await?;
            slept.insert(id.clone());
            let end = Instant::now() + Duration::from_millis(400 + chance.below(600));
            match read_until(&mut reader, end, handed).await? {
                Ended::Life => {}
                // The group was reset.
                Ended::DeclaredDead => continue,
                Ended::Stream => bail!("{id} finds an end of a stream that has none"),
            }
            let begun = Instant::now();
            while !gone.lock().expect("nobody panics with it").contains(&id) {
                ensure!(begun.elapsed() < PATIENCE, "{id} sleeps, and nobody takes it for dead");
                // Not the runtime's: nothing is to be done meanwhile, beating least of all.
                std::thread::sleep(Duration::from_millis(50));
            }
            let count = || {
                let handed = handed.lock().expect("nobody panics with it");
                handed.iter().filter(|event| event.reader == id).count()
            };
            let before = count();
            let ended = read_until(&mut reader, Instant::now() + PATIENCE, handed).await?;
            ensure!(matches!(ended, Ended::DeclaredDead), "{id} was taken for dead, and is not told");
            let untold = count() - before;
            ensure!(untold <= EVENTS_UNTOLD_MAX, "{id} was taken for dead, and handed out {untold} events after that");
            naps += 1;
        }
        ensure!(naps > 0, "nobody slept: that was no storm");
        anyhow::Ok((naps, slept))
    })
}

/// A reader after the other, until one finds the end of the stream. Returns how many there were, who died, and who left but
/// may have been taken for dead before it had left: it is told that it is out, and not why.
async fn live(
    group: ReaderGroup,
    slot: u64,
    mut chance: Chance,
    handed: AllHanded,
) -> Result<(u64, Vec<String>, Vec<String>)> {
    let (mut died, mut doubtful) = (Vec::new(), Vec::new());
    for life in 1.. {
        let id = format!("{slot}-{life}");
        let begun = Instant::now();
        let mut reader = group.reader_with(&id, options()).await?;
        let end = Instant::now() + Duration::from_millis(200 + chance.below(2500));
        match read_until(&mut reader, end, &handed).await? {
            Ended::Stream => {
                reader.close().await?;
                return Ok((life, died, doubtful));
            }
            Ended::Life if chance.below(3) > 0 => {
                reader.close().await?;
                // It beat when it came, and is not taken for dead any sooner.
                if begun.elapsed() >= DEAD_AFTER {
                    doubtful.push(id);
                }
            }
            // It goes without a word.
            Ended::Life | Ended::DeclaredDead => died.push(id),
        }
    }
    unreachable!("lives are not counted so far")
}

enum Ended {
    Stream,
    Life,
    /// Others took it for dead: it slept, or the server was away, or the machine busy, for longer than it may be silent. Or
    /// the group was reset.
    DeclaredDead,
}

async fn read_until(reader: &mut EventReader, end: Instant, handed: &AllHanded) -> Result<Ended> {
    let id = reader.id().to_owned();
    loop {
        match timeout_at(end, reader.next()).await {
            Err(_) => return Ok(Ended::Life),
            Ok(Ok(None)) => return Ok(Ended::Stream),
            Ok(Ok(Some(Delivery::Checkpoint(_)))) => {}
            Ok(Ok(Some(Delivery::Event(event)))) => {
                let (key, number) = parsed(&event.event)?;
                let (reader, segment, offset) = (id.clone(), event.segment, event.offset);
                let event = Handed { reader, key, number, segment, offset };
                handed.lock().expect("nobody panics with it").push(event);
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Closed => return Ok(Ended::DeclaredDead),
            Ok(Err(error)) => return Err(error).with_context(|| format!("reader {id}")),
        }
    }
}

/// A checkpoint after the other; those that do not come about in time are given up. In the midst of it, the group is reset to
/// the last of them. Returns all, and that one.
async fn checkpoint(stage: Stage, group: ReaderGroup) -> Result<(Vec<Checkpoint>, Checkpoint)> {
    let midst = Instant::now() + stage.until.saturating_duration_since(Instant::now()) / 2;
    let (mut made, mut reset) = (Vec::<Checkpoint>::new(), None);
    for number in 0.. {
        if stage.is_over() && reset.is_some() {
            break;
        }
        ensure!(stage.until.elapsed() < PATIENCE, "no checkpoint was made");
        sleep(Duration::from_millis(700)).await;
        if let Some(last) = made.last()
            && Instant::now() >= midst
            && reset.is_none()
        {
            reset_to(&stage, &group, last).await?;
            reset = Some(last.clone());
        }
        let under_way = group.initiate_checkpoint(&format!("checkpoint {number}")).await?;
        match timeout(Duration::from_secs(8), under_way.wait()).await {
            Ok(checkpoint) => made.push(checkpoint?),
            Err(_) => group.cancel_checkpoints().await?,
        }
    }
    Ok((made, reset.context("the group was not reset")?))
}

/// Over whatever happens to the server meanwhile.
async fn reset_to(stage: &Stage, group: &ReaderGroup, checkpoint: &Checkpoint) -> Result<()> {
    let cut = checkpoint.cuts.get(&stage.stream).cloned().context("a checkpoint without its stream")?;
    match group.reset_to(checkpoint).await {
        // A call that was repeated after its answer was lost finds that somebody has done it.
        Err(error) if error.kind() == ErrorKind::Conflict => {
            let from = group.config().await?.streams.remove(&stage.stream);
            ensure!(from == Some(Cut::At(cut)), "the group was reset to {from:?}: {error}");
            Ok(())
        }
        done => done.context("reset the group"),
    }
}

/// What is in the stream of each key from a checkpoint to the end.
async fn read_behind(stage: &Stage, checkpoint: &Checkpoint) -> Result<BTreeMap<String, Vec<u64>>> {
    let cut = checkpoint.cuts.get(&stage.stream).cloned().context("a checkpoint without its stream")?;
    let mut reader = stage.client.stream_reader(&stage.stream, ReadFrom::Cut(cut)).await?;
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while let Some(event) = reader.next().await? {
        let (key, number) = parsed(&event.event)?;
        numbers.entry(key).or_default().push(number);
    }
    Ok(numbers)
}

/// What one reader gets of each key from a checkpoint to the end.
async fn read_from(group: &ReaderGroup, checkpoint: &Checkpoint) -> Result<BTreeMap<String, Vec<u64>>> {
    group.reset_to(checkpoint).await?;
    let mut reader = group.reader_with("last", ReaderOptions::at_once()).await?;
    let handed = AllHanded::default();
    let ended = read_until(&mut reader, Instant::now() + PATIENCE, &handed).await?;
    let at = reader.position().offsets;
    ensure!(matches!(ended, Ended::Stream), "from checkpoint {checkpoint:?} the reader comes to {at:?} and no end");
    reader.close().await?;
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for Handed { key, number, .. } in std::mem::take(&mut *handed.lock().expect("nobody panics with it")) {
        numbers.entry(key).or_default().push(number);
    }
    Ok(numbers)
}
