//! Who is there: members beat in a shared state, and see of each other who has stopped.
//!
//! There is no clock in it. Time is the number of beats of all members: when all of `n` members beat equally often, each is never
//! more than about `n` beats behind. So
//! * a member that is more than 5 × `n` beats behind is not healthy
//! * one that is more than 10 × `n` behind is removed by whoever beats next, and comes back by beating itself
//! * one that finds itself more than 3 × `n` behind, or removed, beats only on the state that it has seen; otherwise a beat
//!   depends on nothing
//!
//! Source: the heart-beat example of Pravega's Java client has these three limits; its bytes are those of Java's own
//! serialization and not these.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use headwater_types::ScopedStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::state::{SharedState, StateSynchronizer};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a member's name.
const NAME_BYTES_MAX: usize = 1024;
/// A member looks so often whether the stream has grown.
const BEATS_PER_LOOK: u64 = 64;
/// And writes the whole state anew if it has grown by so much.
const GROWTH_BYTES_MAX: u64 = 64 << 10;

/// A member as the others see it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// It has beaten lately.
    pub is_healthy: bool,
}

/// The members of something and when each has beaten last.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Members {
    /// Beats of all members.
    time: u64,
    /// Time of each one's last beat.
    last: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Change {
    Beat(String),
    Remove(String),
}

/// What a member does when it is its turn to beat.
#[derive(Debug, Eq, PartialEq)]
enum Turn {
    /// Beats, whatever the others do meanwhile.
    Anyway,
    /// These, if the state is still this one.
    If(Vec<Change>),
}

impl Members {
    /// So many times as many beats as there are members.
    fn is_behind(&self, last: u64, rounds: u64) -> bool {
        self.time.saturating_sub(last) > rounds.saturating_mul(self.last.len() as u64)
    }

    fn view(&self) -> Vec<Member> {
        let member =
            |(name, last): (&String, &u64)| Member { name: name.clone(), is_healthy: !self.is_behind(*last, 5) };
        self.last.iter().map(member).collect()
    }

    fn turn(&self, me: &str) -> Turn {
        let dead = self.last.iter().filter(|(name, last)| *name != me && self.is_behind(**last, 10));
        let mut changes: Vec<_> = dead.map(|(name, _)| Change::Remove(name.clone())).collect();
        let is_steady = self.last.get(me).is_some_and(|last| !self.is_behind(*last, 3));
        if is_steady && changes.is_empty() {
            return Turn::Anyway;
        }
        changes.push(Change::Beat(me.to_owned()));
        Turn::If(changes)
    }
}

fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_u16(u16::try_from(text.len()).expect("the length of a name was checked"));
    bytes.extend_from_slice(text.as_bytes());
}

fn odd() -> Error {
    Error::new(ErrorKind::Protocol, "these are no members")
}

fn take_text(bytes: &mut Bytes) -> Result<String> {
    let length = usize::from(bytes.try_get_u16().map_err(|_| odd())?);
    if length > bytes.len() {
        return Err(odd());
    }
    String::from_utf8(bytes.split_to(length).into()).map_err(|_| odd())
}

impl SharedState for Members {
    type Update = Change;

    fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u64(self.time);
        for (name, last) in &self.last {
            put_text(&mut bytes, name);
            bytes.put_u64(*last);
        }
        bytes.freeze()
    }

    fn decode(bytes: &Bytes) -> Result<Self> {
        let mut bytes = bytes.clone();
        let time = bytes.try_get_u64().map_err(|_| odd())?;
        let mut last = BTreeMap::new();
        while !bytes.is_empty() {
            last.insert(take_text(&mut bytes)?, bytes.try_get_u64().map_err(|_| odd())?);
        }
        Ok(Self { time, last })
    }

    fn encode_update(update: &Change) -> Bytes {
        let mut bytes = BytesMut::new();
        let (kind, name) = match update {
            Change::Beat(name) => (1, name),
            Change::Remove(name) => (2, name),
        };
        bytes.put_u8(kind);
        put_text(&mut bytes, name);
        bytes.freeze()
    }

    fn decode_update(bytes: &Bytes) -> Result<Change> {
        let mut bytes = bytes.clone();
        let kind = bytes.try_get_u8().map_err(|_| odd())?;
        let name = take_text(&mut bytes)?;
        match kind {
            1 => Ok(Change::Beat(name)),
            2 => Ok(Change::Remove(name)),
            _ => Err(odd()),
        }
    }

    fn apply(&mut self, update: Change) {
        match update {
            Change::Beat(name) => {
                self.time = self.time.saturating_add(1);
                self.last.insert(name, self.time);
            }
            Change::Remove(name) => drop(self.last.remove(&name)),
        }
    }
}

/// Membership of one process in something. While it lives, it beats; when it is dropped, the others find out by themselves.
#[derive(Debug)]
pub struct Membership {
    client: Client,
    stream: ScopedStream,
    name: String,
    news: watch::Receiver<Result<Vec<Member>>>,
    task: JoinHandle<()>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Becomes a member and beats from now on, as often as `every`; all members have to beat equally often. 1 s is usual.
    ///
    /// * `stream`: one segment, made for this and nothing else;
    /// * `name`: 1 to 1024 bytes, and nobody else's.
    ///
    /// # Errors
    /// `Invalid`: this is no name, the interval is zero, or the stream has several segments. `NotFound`, `Sealed`; `Protocol`: the
    /// stream holds something else. `Denied`; `Unavailable`.
    ///
    /// # Cancel safety
    /// It may have become a member, until it is seen to have stopped.
    pub async fn join(&self, stream: &ScopedStream, name: &str, every: Duration) -> Result<Membership> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            let what = format!("a member's name has 1 to {NAME_BYTES_MAX} bytes and not {}", name.len());
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if every.is_zero() {
            return Err(Error::new(ErrorKind::Invalid, "a member beats at intervals longer than none"));
        }
        let mut members: StateSynchronizer<Members> = self.state_synchronizer(stream).await?;
        members.initialize(Members::default()).await?;
        let first = beat(&mut members, name).await?;
        let (tell, news) = watch::channel(Ok(first));
        let task = tokio::spawn(run(members, name.to_owned(), every, tell));
        Ok(Membership { client: self.clone(), stream: stream.clone(), name: name.to_owned(), news, task })
    }
}

impl Membership {
    /// Its own name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All members by name, as of the last beat.
    ///
    /// # Errors
    /// Why the last beat failed; the next is tried all the same, unless the stream was deleted (`NotFound`) or holds something
    /// else (`Protocol`).
    pub fn members(&self) -> Result<Vec<Member>> {
        self.news.borrow().clone()
    }

    /// Waits until [`members`](Self::members) are others, or healthy in another way, than when this was called last.
    ///
    /// # Errors
    /// As `members`.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn changed(&mut self) -> Result<Vec<Member>> {
        // The other end is dropped when beating has no sense any more; the reason is the last news.
        let _ = self.news.changed().await;
        self.news.borrow_and_update().clone()
    }

    /// Stops beating and tells the others.
    ///
    /// # Errors
    /// `Unavailable` and others: the others may find out only by themselves.
    ///
    /// # Cancel safety
    /// The others find out by themselves.
    pub async fn leave(mut self) -> Result<()> {
        self.task.abort();
        // A beat that is under way would bring it back.
        let _ = (&mut self.task).await;
        let mut members: StateSynchronizer<Members> = self.client.state_synchronizer(&self.stream).await?;
        let me = &self.name;
        members
            .update(|members| members.last.contains_key(me).then(|| Change::Remove(me.clone())).into_iter().collect())
            .await?;
        Ok(())
    }
}

/// One beat, and what is seen after it.
async fn beat(members: &mut StateSynchronizer<Members>, me: &str) -> Result<Vec<Member>> {
    members.fetch().await?;
    let is_steady = members.state().is_some_and(|members| members.turn(me) == Turn::Anyway);
    if is_steady {
        members.update_anyway(&[Change::Beat(me.to_owned())]).await?;
        members.fetch().await?;
    } else {
        members
            .update(|members| match members.turn(me) {
                Turn::Anyway => vec![Change::Beat(me.to_owned())],
                Turn::If(changes) => changes,
            })
            .await?;
    }
    Ok(members.state().map(Members::view).unwrap_or_default())
}

async fn run(
    mut members: StateSynchronizer<Members>,
    me: String,
    every: Duration,
    tell: watch::Sender<Result<Vec<Member>>>,
) {
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turns.tick().await;
    for number in 1u64.. {
        turns.tick().await;
        let mut outcome = beat(&mut members, &me).await;
        if outcome.is_ok() && number.is_multiple_of(BEATS_PER_LOOK) {
            outcome = tidy(&mut members).await.and(outcome);
        }
        let is_over = outcome
            .as_ref()
            .is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Protocol | ErrorKind::Sealed));
        if let Err(error) = &outcome {
            tracing::debug!(target: crate::told::RETRY, member = me, %error, "beat failed");
        }
        tell.send_if_modified(|news| {
            let is_news = match (&*news, &outcome) {
                (Ok(before), Ok(now)) => before != now,
                (Err(before), Err(now)) => before.kind() != now.kind(),
                _ => true,
            };
            *news = outcome;
            is_news
        });
        if is_over {
            return;
        }
    }
}

/// Keeps the stream short.
async fn tidy(members: &mut StateSynchronizer<Members>) -> Result<()> {
    let begin = members.stream().mark().await?.unwrap_or(crate::Revision::ZERO);
    let end = members.revision().unwrap_or(begin);
    if end.offset().saturating_sub(begin.offset()) > GROWTH_BYTES_MAX {
        members.compact().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beaten(beats: &[&str]) -> Members {
        let mut members = Members::default();
        for name in beats {
            members.apply(Change::Beat((*name).to_owned()));
        }
        members
    }

    fn healthy(members: &Members) -> Vec<bool> {
        members.view().into_iter().map(|member| member.is_healthy).collect()
    }

    #[test]
    fn a_member_that_stops_is_unhealthy_after_five_rounds_and_removed_after_ten() {
        let mut members = beaten(&["a", "b"]);
        let rounds = |members: &mut Members, count| (0..count).for_each(|_| members.apply(Change::Beat("a".into())));
        rounds(&mut members, 10);
        assert_eq!((healthy(&members), members.turn("a")), (vec![true, true], Turn::Anyway));
        rounds(&mut members, 1);
        assert_eq!((healthy(&members), members.turn("a")), (vec![true, false], Turn::Anyway));
        rounds(&mut members, 9);
        assert_eq!(members.turn("a"), Turn::Anyway);
        rounds(&mut members, 1);
        let changes = vec![Change::Remove("b".into()), Change::Beat("a".into())];
        assert_eq!(members.turn("a"), Turn::If(changes.clone()));
        changes.into_iter().for_each(|change| members.apply(change));
        assert_eq!(healthy(&members), [true]);
        assert_eq!(members.turn("b"), Turn::If(vec![Change::Beat("b".into())]));
    }

    #[test]
    fn a_member_that_is_late_beats_on_what_it_has_seen() {
        let mut members = beaten(&["b", "a", "a", "a", "a", "a", "a"]);
        assert_eq!(members.turn("b"), Turn::Anyway);
        members.apply(Change::Beat("a".into()));
        assert_eq!(members.turn("b"), Turn::If(vec![Change::Beat("b".into())]));
    }

    #[test]
    fn members_and_changes_come_back_and_other_bytes_are_refused() {
        for members in [Members::default(), beaten(&["a", "longer", "a"])] {
            assert_eq!(Members::decode(&members.encode()).unwrap(), members);
        }
        for change in [Change::Beat("a".into()), Change::Remove("b".into())] {
            assert_eq!(Members::decode_update(&Members::encode_update(&change)).unwrap(), change);
        }
        for bad in [&b""[..], b"\x01", b"\x03\0\x01a", b"\x01\0\x05a", b"\x01\0\x01\xff"] {
            assert!(Members::decode_update(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
        for bad in [&b""[..], b"1234567", b"12345678\0\x01a", b"12345678\xff\xff"] {
            assert!(Members::decode(&Bytes::from_static(bad)).is_err(), "{bad:?}");
        }
    }
}
