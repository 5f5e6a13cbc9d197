//! The line of strangers: callers who were never known and want their password looked at.
//!
//! Guarantees:
//! * at most as many have their turn at the same time as there are turns, and at most [`LINE_MAX`] wait
//! * the next turn is that of the network whose last one is longest ago; one that had none, as far as is known, goes before
//!   all others. So crowds at however many networks, up to [`REMEMBERED_MAX`], keep nobody out for longer than each of them
//!   takes to have one turn; at more networks, that keep coming, they do
//! * within a network, turns go by origins in the same way, and of one origin in the order they came
//! * when the line is full, whoever has most of the own network before them goes; among several, whose turn would be last
//! * who has gone away has no turn and no place
//!
//! [`Rounds`] decides, [`Strangers`] holds the turns.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// Most strangers that wait. Each is a derivation of some tenths of a second ahead of whoever comes last.
pub(super) const LINE_MAX: usize = 32;
/// Most networks, and most origins, whose last turns are remembered: hundreds of kilobytes, and a quarter of an hour of turns.
const REMEMBERED_MAX: usize = 4096;

/// Where callers come from who share what there is: one IPv4 address, or the half of an IPv6 address that a network has
/// for all of its own; all that have no address together.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Origin(Option<IpAddr>);

impl Origin {
    /// Of whoever has no address.
    #[cfg(test)]
    pub(super) const UNKNOWN: Self = Self(None);

    /// What one owner may have: of IPv6 the 48 bits that a site is often given, which are 65,536 origins. Many owners may
    /// share it, too, who then share its turns.
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

/// Numbers of the last turns, of those who had one most lately.
#[derive(Debug, Default)]
struct Turns {
    last: BTreeMap<Origin, u64>,
    by_number: BTreeMap<u64, Origin>,
}

impl Turns {
    /// 0: none that is known.
    fn last(&self, of: Origin) -> u64 {
        self.last.get(&of).copied().unwrap_or(0)
    }

    fn note(&mut self, of: Origin, number: u64) {
        if let Some(before) = self.last.insert(of, number) {
            self.by_number.remove(&before);
        }
        self.by_number.insert(number, of);
        if self.by_number.len() > REMEMBERED_MAX
            && let Some((_, longest_ago)) = self.by_number.pop_first()
        {
            self.last.remove(&longest_ago);
        }
    }
}

/// Who waits.
#[derive(Debug)]
struct Rounds<T> {
    /// As they came.
    waiting: Vec<(Origin, T)>,
    networks: Turns,
    origins: Turns,
    /// There were so many.
    turns: u64,
}

impl<T> Rounds<T> {
    fn new() -> Self {
        Self { waiting: Vec::new(), networks: Turns::default(), origins: Turns::default(), turns: 0 }
    }

    /// The least is next.
    fn rank(&self, index: usize) -> (u64, u64, usize) {
        let (origin, _) = &self.waiting[index];
        (self.networks.last(origin.network()), self.origins.last(*origin), index)
    }

    /// Takes a place. Returns who is without one then, which may be who came.
    fn join(&mut self, origin: Origin, who: T) -> Option<T> {
        self.waiting.push((origin, who));
        assert!(self.waiting.len() <= LINE_MAX + 1, "the line never grows beyond its places");
        if self.waiting.len() <= LINE_MAX {
            return None;
        }
        let mut order: Vec<_> = (0..self.waiting.len()).map(|index| self.rank(index)).collect();
        order.sort_unstable();
        let mut before: BTreeMap<Origin, usize> = BTreeMap::new();
        let last = order.into_iter().enumerate().max_by_key(|(place, (.., index))| {
            let of_network = before.entry(self.waiting[*index].0.network()).or_default();
            *of_network += 1;
            (*of_network, *place)
        });
        last.map(|(_, (.., index))| self.waiting.remove(index).1)
    }

    /// Whose turn it is.
    fn next(&mut self) -> Option<T> {
        let index = (0..self.waiting.len()).min_by_key(|index| self.rank(*index))?;
        let (origin, who) = self.waiting.remove(index);
        self.has_turn(origin);
        Some(who)
    }

    fn has_turn(&mut self, origin: Origin) {
        self.turns += 1;
        self.networks.note(origin.network(), self.turns);
        self.origins.note(origin, self.turns);
    }

    fn retain(&mut self, stays: impl Fn(&T) -> bool) {
        self.waiting.retain(|(_, who)| stays(who));
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
            let mut state = self.state();
            state.rounds.retain(|who| !who.is_closed());
            if state.free > 0 {
                state.free -= 1;
                state.rounds.has_turn(origin);
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
        let mut state = self.state();
        state.rounds.retain(|who| !who.is_closed());
        state.rounds.waiting.len()
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

    /// A line, and what happens in it.
    struct Line(Rounds<(u8, usize)>);

    impl Line {
        fn new() -> Self {
            Self(Rounds::new())
        }

        fn join(&mut self, from: u8, number: usize) -> Option<(u8, usize)> {
            self.0.join(origin(from), (from, number))
        }

        fn next(&mut self) -> Option<(u8, usize)> {
            self.0.next()
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
                for was_here in [false, true] {
                    let mut line = Line::new();
                    let come = |line: &mut Line| (1..=crowds).for_each(|crowd| _ = line.join(crowd, 0));
                    if was_here {
                        line.0.has_turn(origin(255));
                    }
                    for _ in 0..before {
                        come(&mut line);
                        line.next();
                    }
                    let mut turns = 0;
                    loop {
                        come(&mut line);
                        // The stranger comes last each time, and again when it was sent away.
                        line.join(255, 0);
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
    }

    #[test]
    fn of_one_network_those_go_first_who_had_no_turn() {
        let mut rounds = Rounds::new();
        let of = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        for number in 0..3 {
            rounds.join(of("2001:db8:1:1::1"), (1, number));
        }
        rounds.join(of("2001:db8:1:2::1"), (2, 0));
        let order: Vec<_> = std::iter::from_fn(|| rounds.next()).collect();
        assert_eq!(order, [(1, 0), (2, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn only_the_latest_turns_are_remembered() {
        let mut turns = Turns::default();
        for other in 0..=REMEMBERED_MAX as u32 {
            turns.note(IpAddr::from(other.to_be_bytes()).into(), u64::from(other) + 1);
        }
        assert_eq!((turns.last.len(), turns.by_number.len()), (REMEMBERED_MAX, REMEMBERED_MAX));
        assert_eq!(turns.last(IpAddr::from([0; 4]).into()), 0);
        turns.note(IpAddr::from([0, 0, 0, 1]).into(), 1 << 20);
        turns.note(IpAddr::from([0; 4]).into(), 1 << 21);
        assert_eq!(turns.last(IpAddr::from([0, 0, 0, 1]).into()), 1 << 20, "the other one that is longest ago went");
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
