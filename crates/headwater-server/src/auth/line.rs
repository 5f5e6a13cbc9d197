//! The line of strangers: callers who were never known and want their password looked at.
//!
//! Guarantees:
//! * at most as many have their turn at the same time as there are turns, and at most [`LINE_MAX`] wait
//! * turns go in rounds, in each of which an origin has one at most: whoever comes from a place of their own waits for what
//!   is left of this round and for one more turn of each other place, however many a crowd sends from its own
//! * when the line is full, whoever would be last goes. So a few crowds keep nobody else out, and one at as many places as the
//!   line has does
//! * who has gone away has no turn and no place
//!
//! [`Rounds`] decides, [`Strangers`] holds the turns.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// Most strangers that wait. Each is a derivation of some tenths of a second ahead of whoever comes last.
pub(super) const LINE_MAX: usize = 32;

/// Where callers come from who share what there is: one IPv4 address, or the half of an IPv6 address that a network has
/// for all of its own; all that have no address together.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Origin(Option<IpAddr>);

impl Origin {
    /// Of whoever has no address.
    #[cfg(test)]
    pub(super) const UNKNOWN: Self = Self(None);
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(Some(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        }))
    }
}

/// Who waits, in the order of their turns. In each round every origin has one turn at most.
#[derive(Debug)]
struct Rounds<T> {
    /// Rounds never fall from one to the next.
    waiting: VecDeque<(u64, Origin, T)>,
    /// Of the last turn.
    round: u64,
}

impl<T> Rounds<T> {
    /// Takes a place behind all of the same round. Returns who is without one then, which may be who came.
    fn join(&mut self, origin: Origin, who: T) -> Option<T> {
        let own = self.waiting.iter().rev().find(|(_, from, _)| *from == origin).map(|(round, ..)| *round);
        let round = own.unwrap_or(self.round) + 1;
        let at = self.waiting.partition_point(|(other, ..)| *other <= round);
        self.waiting.insert(at, (round, origin, who));
        assert!(self.waiting.len() <= LINE_MAX + 1, "the line never grows beyond its places");
        if self.waiting.len() > LINE_MAX { self.waiting.pop_back().map(|(_, _, last)| last) } else { None }
    }

    fn next(&mut self) -> Option<T> {
        let (round, _, who) = self.waiting.pop_front()?;
        assert!(round >= self.round, "rounds follow each other");
        self.round = round;
        Some(who)
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
        let rounds = Rounds { waiting: VecDeque::new(), round: 0 };
        Self(Arc::new(Mutex::new(State { free: turns, rounds })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a panic ends the process")
    }

    /// Waits for a turn; `None`: the line is too long. Dropping the future leaves the line.
    pub(super) async fn turn(&self, origin: Origin) -> Option<Turn> {
        let (given, turn) = oneshot::channel();
        let last = {
            let mut state = self.state();
            state.rounds.waiting.retain(|(_, _, who)| !who.is_closed());
            if state.free > 0 {
                state.free -= 1;
                return Some(Turn(self.clone()));
            }
            state.rounds.join(origin, given)
        };
        drop(last);
        turn.await.ok()
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state().rounds.waiting.iter().filter(|(_, _, who)| !who.is_closed()).count()
    }
}

/// A turn, which goes to the next in line when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Strangers);

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.0.state();
            let next = state.rounds.next();
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

    fn rounds() -> Rounds<(u8, usize)> {
        Rounds { waiting: VecDeque::new(), round: 0 }
    }

    fn drain(mut rounds: Rounds<(u8, usize)>) -> Vec<(u8, usize)> {
        std::iter::from_fn(|| rounds.next()).collect()
    }

    #[test]
    fn every_origin_has_a_turn_before_any_has_another() {
        let mut rounds = rounds();
        for number in 0..5 {
            assert_eq!(rounds.join(origin(1), (1, number)), None);
        }
        assert_eq!(rounds.join(origin(2), (2, 0)), None);
        assert_eq!(rounds.join(origin(2), (2, 1)), None);
        assert_eq!(rounds.join(origin(3), (3, 0)), None);
        assert_eq!(drain(rounds), [(1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2), (1, 3), (1, 4)]);
    }

    #[test]
    fn who_comes_later_from_elsewhere_is_next_but_one_however_long_a_crowd_has_been_waiting() {
        let mut rounds = rounds();
        for number in 0..20 {
            rounds.join(origin(1), (1, number));
        }
        for _ in 0..7 {
            rounds.next();
        }
        rounds.join(origin(2), (2, 0));
        assert_eq!(drain(rounds)[..3], [(1, 7), (2, 0), (1, 8)]);
    }

    #[test]
    fn a_full_line_turns_away_the_last_of_the_crowd_and_never_the_first_from_elsewhere() {
        let mut rounds = rounds();
        for number in 0..LINE_MAX {
            assert_eq!(rounds.join(origin(1), (1, number)), None);
        }
        assert_eq!(rounds.join(origin(1), (1, 99)), Some((1, 99)), "who came is last");
        assert_eq!(rounds.join(origin(2), (2, 0)), Some((1, LINE_MAX - 1)), "the last of the crowd goes");
        assert_eq!(rounds.waiting.len(), LINE_MAX);
        for other in 3..=LINE_MAX as u8 {
            assert_eq!(rounds.join(origin(other), (other, 0)).map(|(from, _)| from), Some(1));
        }
        // Now all places are taken by the first of their origins.
        assert_eq!(rounds.join(origin(200), (200, 0)), Some((200, 0)));
    }

    #[test]
    fn the_addresses_of_one_network_and_both_ways_to_write_one_are_one_origin() {
        let of = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::7"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
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
