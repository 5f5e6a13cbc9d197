//! The line of strangers: callers who were never known and want their password looked at.
//!
//! Guarantees:
//! * at most as many have their turn at the same time as there are turns, and at most [`LINE_MAX`] wait
//! * whoever comes from a network that had no turn [`LATELY`] goes before all whose network had one, and takes the place of
//!   one of them when the line is full. So crowds at however many networks, up to [`LATELY_MAX`], keep nobody out for longer
//!   than each of them takes to have its first turn; at more networks, that keep coming, they do
//! * of the others turns go in rounds, in each of which an origin has one at most: whoever comes from a place of their own
//!   waits for what is left of this round and for one more turn of each other place, however many a crowd sends from its own.
//!   When the line is full, whoever would be last goes
//! * who has gone away has no turn and no place
//!
//! [`Rounds`] decides, [`Strangers`] holds the turns.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

/// Most strangers that wait. Each is a derivation of some tenths of a second ahead of whoever comes last.
pub(super) const LINE_MAX: usize = 32;
/// How long a network is one that had a turn. Long against what the first turns of a crowd take, since they are new again
/// after it.
const LATELY: Duration = Duration::from_secs(3600);
/// Most networks that are known to have had a turn. Hundreds of kilobytes, and a quarter of an hour of turns.
const LATELY_MAX: usize = 4096;

/// Where callers come from who share what there is: one IPv4 address, or the half of an IPv6 address that a network has
/// for all of its own; all that have no address together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Origin(Option<IpAddr>);

impl Origin {
    /// Of whoever has no address.
    #[cfg(test)]
    pub(super) const UNKNOWN: Self = Self(None);

    /// What one owner has for sure: of IPv6 the 48 bits that a site is given, which are 65,536 origins.
    fn network(self) -> Self {
        Self(self.0.map(|address| match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 80 << 80).into()),
        }))
    }
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(Some(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        }))
    }
}

/// Who waits.
#[derive(Debug)]
struct Rounds<T> {
    /// Those whose networks had no turn lately, one of each, as they came. They go first.
    new: VecDeque<(Origin, T)>,
    /// The others. In each round every origin has one turn at most, and rounds never fall from one to the next.
    waiting: VecDeque<(u64, Origin, T)>,
    /// Of the last turn of one of the others.
    round: u64,
    /// Networks that had a turn, the last one at the end.
    lately: VecDeque<(Instant, Origin)>,
}

impl<T> Rounds<T> {
    fn new() -> Self {
        Self { new: VecDeque::new(), waiting: VecDeque::new(), round: 0, lately: VecDeque::new() }
    }

    /// Takes a place. Returns who is without one then, which may be who came.
    fn join(&mut self, origin: Origin, who: T, now: Instant) -> Option<T> {
        let network = origin.network();
        while self.lately.front().is_some_and(|(when, _)| now.duration_since(*when) > LATELY) {
            self.lately.pop_front();
        }
        let is_new = !self.lately.iter().any(|(_, known)| *known == network)
            && !self.new.iter().any(|(from, _)| from.network() == network);
        if is_new {
            self.new.push_back((origin, who));
        } else {
            let own = self.waiting.iter().rev().find(|(_, from, _)| *from == origin).map(|(round, ..)| *round);
            let round = own.unwrap_or(self.round) + 1;
            let at = self.waiting.partition_point(|(other, ..)| *other <= round);
            self.waiting.insert(at, (round, origin, who));
        }
        let places = self.new.len() + self.waiting.len();
        assert!(places <= LINE_MAX + 1, "the line never grows beyond its places");
        if places <= LINE_MAX {
            return None;
        }
        let last = self.waiting.pop_back().map(|(_, _, last)| last);
        last.or_else(|| self.new.pop_back().map(|(_, last)| last))
    }

    /// Whose turn it is.
    fn next(&mut self, now: Instant) -> Option<T> {
        let (origin, who) = match self.new.pop_front() {
            Some(first) => first,
            None => {
                let (round, origin, who) = self.waiting.pop_front()?;
                assert!(round >= self.round, "rounds follow each other");
                self.round = round;
                (origin, who)
            }
        };
        self.has_turn(origin, now);
        Some(who)
    }

    fn has_turn(&mut self, origin: Origin, now: Instant) {
        let network = origin.network();
        self.lately.retain(|(_, known)| *known != network);
        if self.lately.len() == LATELY_MAX {
            self.lately.pop_front();
        }
        self.lately.push_back((now, network));
    }

    fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.new.retain(|(_, who)| stays(who));
        self.waiting.retain(|(_, _, who)| stays(who));
    }
}

type Waiting = oneshot::Sender<Turn>;

#[derive(Debug)]
struct State {
    /// Turns that nobody has.
    free: usize,
    rounds: Rounds<Waiting>,
}

/// The line and its turns. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Strangers(Arc<Mutex<State>>);

impl Strangers {
    /// With so many turns at the same time, at least one.
    pub(super) fn new(turns: usize) -> Self {
        assert!(turns > 0, "somebody has to have a turn");
        Self(Arc::new(Mutex::new(State { free: turns, rounds: Rounds::new() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a panic ends the process")
    }

    /// Waits for a turn; `None`: the line is too long. Dropping the future leaves the line.
    pub(super) async fn turn(&self, origin: Origin) -> Option<Turn> {
        let (given, turn) = oneshot::channel();
        let last = {
            let (mut state, now) = (self.state(), Instant::now());
            state.rounds.retain(|who| !who.is_closed());
            if state.free > 0 {
                state.free -= 1;
                state.rounds.has_turn(origin, now);
                return Some(Turn(self.clone()));
            }
            state.rounds.join(origin, given, now)
        };
        drop(last);
        turn.await.ok()
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let mut state = self.state();
        state.rounds.retain(|who| !who.is_closed());
        state.rounds.new.len() + state.rounds.waiting.len()
    }
}

/// A turn, which goes to the next in line when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Strangers);

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.state();
            let next = state.rounds.next(Instant::now());
            if next.is_none() {
                state.free += 1;
            }
            next
        };
        if let Some(next) = next {
            // Who has gone away meanwhile drops it, and so passes it on.
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(last: u8) -> Origin {
        IpAddr::from([10, 0, 0, last]).into()
    }

    /// A line, and what happens in it.
    struct Line(Rounds<(u8, usize)>, Instant);

    impl Line {
        fn new() -> Self {
            Self(Rounds::new(), Instant::now())
        }

        fn join(&mut self, from: u8, number: usize) -> Option<(u8, usize)> {
            self.0.join(origin(from), (from, number), self.1)
        }

        fn next(&mut self) -> Option<(u8, usize)> {
            self.0.next(self.1)
        }

        fn drain(mut self) -> Vec<(u8, usize)> {
            std::iter::from_fn(|| self.next()).collect()
        }
    }

    #[test]
    fn every_origin_has_a_turn_before_any_has_another() {
        let mut line = Line::new();
        for number in 0..5 {
            assert_eq!(line.join(1, number), None);
        }
        assert_eq!(line.join(2, 0), None);
        assert_eq!(line.join(2, 1), None);
        assert_eq!(line.join(3, 0), None);
        assert_eq!(line.drain(), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3), (1, 4)]);
    }

    #[test]
    fn who_comes_later_from_elsewhere_is_next_however_long_a_crowd_has_been_waiting() {
        let mut line = Line::new();
        for number in 0..20 {
            line.join(1, number);
        }
        for _ in 0..7 {
            line.next();
        }
        for number in 0..3 {
            line.join(2, number);
        }
        // Once, and from then on in turns with the crowd.
        assert_eq!(line.drain()[..6], [(2, 0), (1, 7), (2, 1), (1, 8), (2, 2), (1, 9)]);
    }

    #[test]
    fn a_full_line_turns_away_the_last_of_the_crowd_and_never_the_first_from_elsewhere() {
        let mut line = Line::new();
        for number in 0..LINE_MAX {
            assert_eq!(line.join(1, number), None);
        }
        assert_eq!(line.join(1, 99), Some((1, 99)), "who came is last");
        assert_eq!(line.join(2, 0), Some((1, LINE_MAX - 1)), "the last of the crowd goes");
        for other in 3..=LINE_MAX as u8 {
            assert_eq!(line.join(other, 0).map(|(from, _)| from), Some(1));
        }
        // Now all places are taken by the first of their networks.
        assert_eq!(line.join(200, 0), Some((200, 0)));
        assert_eq!(line.drain().len(), LINE_MAX);
    }

    /// Each of these keeps the line full, all the time.
    #[test]
    fn crowds_at_many_addresses_keep_a_stranger_out_for_one_turn_of_each_at_most() {
        for crowds in [32_u8, 33, 100, 250] {
            for before in [0, 1, 40, usize::from(crowds), 1000] {
                let mut line = Line::new();
                let come = |line: &mut Line| (1..=crowds).for_each(|crowd| _ = line.join(crowd, 0));
                for _ in 0..before {
                    come(&mut line);
                    line.next();
                }
                let (mut turns, mut waits) = (0, false);
                loop {
                    come(&mut line);
                    // The stranger comes last each time, and again when it was sent away.
                    waits = waits || line.join(255, 0) != Some((255, 0));
                    turns += 1;
                    if line.next().expect("a crowd waits").0 == 255 {
                        break;
                    }
                }
                let left = usize::from(crowds).saturating_sub(before);
                assert!(turns <= left + 1, "{turns} turns with {crowds} crowds, of whose turns {before} had been");
            }
        }
    }

    #[test]
    fn a_network_is_new_again_when_its_turn_was_long_ago_or_many_others_had_theirs() {
        let mut line = Line::new();
        let is_first = |line: &mut Line, from: u8| {
            line.join(1, 1);
            line.join(from, 0);
            let first = line.next();
            while line.next().is_some() {}
            first == Some((from, 0))
        };
        line.join(1, 0);
        line.next();
        assert!(is_first(&mut line, 2));
        assert!(!is_first(&mut line, 2), "it had a turn, and 1 was there before");
        line.1 += LATELY + Duration::from_secs(1);
        line.0.has_turn(origin(1), line.1);
        assert!(is_first(&mut line, 2));
        for other in 0..LATELY_MAX {
            let address = IpAddr::from((0x0b00_0000 + other as u32).to_be_bytes());
            line.0.has_turn(address.into(), line.1);
        }
        line.0.has_turn(origin(1), line.1);
        assert_eq!(line.0.lately.len(), LATELY_MAX);
        assert!(is_first(&mut line, 2));
    }

    #[test]
    fn the_addresses_of_one_network_and_both_ways_to_write_one_are_one_origin() {
        let of = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::7"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("2001:db8:1:2::1").network(), of("2001:db8:1:3::1").network());
        assert_ne!(of("2001:db8:1:2::1").network(), of("2001:db8:2:2::1").network());
        assert_ne!(of("10.0.0.1").network(), of("10.0.0.2").network());
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }

    #[tokio::test]
    async fn turns_go_on_past_those_who_went_away() {
        let strangers = Strangers::new(1);
        let first = strangers.turn(origin(1)).await.unwrap();
        let mut gone = Box::pin(strangers.turn(origin(1)));
        assert!(futures::poll!(&mut gone).is_pending());
        let mut stays = Box::pin(strangers.turn(origin(1)));
        assert!(futures::poll!(&mut stays).is_pending());
        assert_eq!(strangers.waiting(), 2);
        drop(gone);
        drop(first);
        let turn = stays.await.unwrap();
        assert_eq!(strangers.waiting(), 0);
        // One that was given and not fetched goes on, too.
        let mut gone = Box::pin(strangers.turn(origin(2)));
        assert!(futures::poll!(&mut gone).is_pending());
        drop(turn);
        drop(gone);
        assert!(strangers.turn(origin(3)).await.is_some());
    }
}
