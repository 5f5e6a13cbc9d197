//! Transactions: ids, leases and states.
//!
//! ```text
//!   OPEN ──commit──► COMMITTING ──merged everywhere──► COMMITTED ──24 h──► forgotten
//!     └───abort, lease over, stream sealed──► ABORTING ──segments gone──► ABORTED ──24 h──► forgotten
//! ```
//!
//! The record in the table decides: each change of state expects the version it was decided on, so of a ping, a
//! commit, an abort and an expiry that race exactly one wins.
//!
//! Of the times in it only the creation is by the wall clock, and nothing is decided by that. The others count how long
//! the store has been open (`clock`). When a lease is over is not in it at all: that is a matter of timers, which a
//! start sets anew, up to the end that pings can bring about at most.

use std::time::Duration;

use bytes::Bytes;
use headwater_types::TransactionId;

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::model::{ControllerError, EndTransaction, LEASE_MS_MAX, Ping, TransactionState};
use crate::state::clock::Moment;

/// How long a completed transaction is remembered, in milliseconds in which the store is open. Source: Pravega
/// `transaction.ttl.hours`.
pub(crate) const REMEMBERED_MS: i64 = 24 * 60 * 60 * 1000;
/// Longest life of an open transaction, in milliseconds in which the store is open, however often it is pinged.
const EXECUTION_MS_MAX: i64 = 24 * 60 * 60 * 1000;
/// "No time" in a commit. Source: Java's and the Python wheel's commit without a timestamp.
pub(crate) const NO_TIME: i64 = i64::MIN;

/// A new id. The top half carries the epoch, the low half a counter that never reaches its sign bit: the Rust client
/// extends the sign into the upper half otherwise.
pub(crate) fn transaction_id(epoch: i32, counter: i64) -> TransactionId {
    assert!(epoch >= 0 && counter >= 0, "epoch and counter of a transaction are never negative");
    TransactionId::from_halves((epoch as i64) << 32, counter)
}

/// What is known of a transaction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Transaction {
    pub(crate) phase: Phase,
    /// By the wall clock.
    pub(crate) created_ms: i64,
    /// Lease last asked for.
    pub(crate) lease_ms: i64,
    /// Open time of the store up to which pings may extend the lease.
    pub(crate) expires_ms_max: i64,
}

/// State, with what belongs to it. `at_ms` is an open time of the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    Open,
    Committing { position: i64, writer: String, time_ms: Option<i64> },
    Aborting,
    Committed { at_ms: i64 },
    Aborted { at_ms: i64 },
}

/// Version 1 had all its times by the wall clock.
const VERSION: u8 = 2;

impl Transaction {
    /// An open one. The lease has been checked.
    pub(crate) fn open(lease_ms: i64, now: Moment) -> Self {
        let execution_ms = lease_ms.saturating_mul(1000).min(EXECUTION_MS_MAX);
        let expires_ms_max = now.open_ms.saturating_add(execution_ms);
        Self { phase: Phase::Open, created_ms: now.wall_ms, lease_ms, expires_ms_max }
    }

    /// Extends the lease, or says why not. `shutting_down`: the stream is being sealed.
    ///
    /// # Errors
    /// [`ControllerError::Invalid`] if an open one would get no lease at all. Pravega takes that, which ends the
    /// transaction at once: whoever leaves the field out loses it.
    pub(crate) fn ping(&mut self, lease_ms: i64, shutting_down: bool, open_ms: i64) -> Result<Ping, ControllerError> {
        Ok(match self.phase {
            Phase::Committing { .. } | Phase::Committed { .. } => Ping::Committed,
            Phase::Aborting | Phase::Aborted { .. } => Ping::Aborted,
            Phase::Open if shutting_down => Ping::Disconnected,
            Phase::Open if lease_ms < 1 => {
                return Err(ControllerError::Invalid(format!("a ping for a lease of {lease_ms} ms")));
            }
            Phase::Open if lease_ms > LEASE_MS_MAX => Ping::LeaseTooLarge,
            Phase::Open if open_ms.saturating_add(lease_ms) > self.expires_ms_max => Ping::MaxExecutionTimeExceeded,
            Phase::Open => {
                self.lease_ms = lease_ms;
                Ping::Ok
            }
        })
    }

    /// How long an open one lives without a ping: lease and half of it again, since the Rust client sends its first
    /// ping when the lease is about over.
    pub(crate) fn patience(&self) -> Duration {
        let lease_ms = self.lease_ms.clamp(0, LEASE_MS_MAX) as u64;
        Duration::from_millis(lease_ms + lease_ms / 2)
    }

    /// How long one that an earlier run left open lives without a ping: as long as any, since nobody could ping while the
    /// server was away, but not beyond where the last ping that it is granted would have brought it. So a client that
    /// pings loses nothing by a start, and one that is gone has an end, however often there is a start.
    pub(crate) fn patience_after_start(&self, open_ms: i64) -> Duration {
        let grace_ms = self.lease_ms.clamp(0, LEASE_MS_MAX) / 2;
        let left_ms = self.expires_ms_max.saturating_add(grace_ms).saturating_sub(open_ms);
        self.patience().min(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)))
    }

    /// `None`: it becomes COMMITTING. Otherwise the answer.
    pub(crate) fn commit(&mut self, position: i64, writer: String, time_ms: i64) -> Option<EndTransaction> {
        match self.phase {
            Phase::Open => {
                let time_ms = (time_ms != NO_TIME).then_some(time_ms);
                self.phase = Phase::Committing { position, writer, time_ms };
                None
            }
            Phase::Committing { .. } | Phase::Committed { .. } => Some(EndTransaction::Success),
            Phase::Aborting | Phase::Aborted { .. } => Some(EndTransaction::Failure),
        }
    }

    /// `None`: it becomes ABORTING. Otherwise the answer.
    pub(crate) fn abort(&mut self) -> Option<EndTransaction> {
        match self.phase {
            Phase::Open => {
                self.phase = Phase::Aborting;
                None
            }
            Phase::Aborting | Phase::Aborted { .. } => Some(EndTransaction::Success),
            Phase::Committing { .. } | Phase::Committed { .. } => Some(EndTransaction::Failure),
        }
    }

    /// What a client is told. A completed one is forgotten after its time, whether or not it was removed yet.
    pub(crate) fn state(&self, open_ms: i64) -> TransactionState {
        let forgotten = |at_ms: i64| open_ms.saturating_sub(at_ms) > REMEMBERED_MS;
        match self.phase {
            Phase::Open => TransactionState::Open,
            Phase::Committing { .. } => TransactionState::Committing,
            Phase::Aborting => TransactionState::Aborting,
            Phase::Committed { at_ms } | Phase::Aborted { at_ms } if forgotten(at_ms) => TransactionState::Unknown,
            Phase::Committed { .. } => TransactionState::Committed,
            Phase::Aborted { .. } => TransactionState::Aborted,
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut encoder = Encoder::new(VERSION);
        encoder.i64(self.created_ms).i64(self.lease_ms).i64(self.expires_ms_max);
        match &self.phase {
            Phase::Open => encoder.u8(1),
            Phase::Committing { position, writer, time_ms } => {
                encoder.u8(2).i64(*position).text(writer).option(*time_ms, |encoder, time| {
                    encoder.i64(time);
                })
            }
            Phase::Committed { at_ms } => encoder.u8(3).i64(*at_ms),
            Phase::Aborting => encoder.u8(4),
            Phase::Aborted { at_ms } => encoder.u8(5).i64(*at_ms),
        };
        encoder.finish()
    }

    /// A record of version 1 tells of the time before the store counted how long it is open, which began at 0. What
    /// the wall clock did meanwhile nobody knows: an open transaction gets its longest time, and a completed one is
    /// remembered, as if it had come to that state at 0.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new("transaction", VERSION, bytes)?;
        let by_wall = decoder.version() == 1;
        let (created_ms, lease_ms) = (decoder.i64()?, decoder.i64()?);
        let expires_ms_max = if by_wall {
            let _expires_ms = decoder.i64()?;
            decoder.i64()?.saturating_sub(created_ms).clamp(0, EXECUTION_MS_MAX)
        } else {
            decoder.i64()?
        };
        let at_ms = |decoder: &mut Decoder<'_>| decoder.i64().map(|at_ms| if by_wall { 0 } else { at_ms });
        let phase = match decoder.u8()? {
            1 => Phase::Open,
            2 => Phase::Committing {
                position: decoder.i64()?,
                writer: decoder.text()?,
                time_ms: decoder.option(Decoder::i64)?,
            },
            3 => Phase::Committed { at_ms: at_ms(&mut decoder)? },
            4 => Phase::Aborting,
            5 => Phase::Aborted { at_ms: at_ms(&mut decoder)? },
            _ => return Err(decoder.malformed()),
        };
        decoder.finish()?;
        Ok(Self { phase, created_ms, lease_ms, expires_ms_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(lease_ms: i64, open_ms: i64) -> Transaction {
        Transaction::open(lease_ms, Moment { wall_ms: 77, age_ms: 0, open_ms })
    }

    #[test]
    fn the_low_half_of_an_id_is_never_negative_and_the_top_carries_the_epoch() {
        for counter in [0, 1, i64::MAX] {
            let id = transaction_id(3, counter);
            assert_eq!(id.epoch(), 3);
            assert_eq!(id.halves(), (3 << 32, counter));
        }
    }

    #[test]
    fn a_ping_checks_in_the_order_clients_expect() {
        let open = open(10_000, 1_000);
        assert_eq!(open.clone().ping(LEASE_MS_MAX + 1, true, 0), Ok(Ping::Disconnected));
        assert_eq!(open.clone().ping(0, true, 0), Ok(Ping::Disconnected));
        let mut asked = open.clone();
        for none in [0, -1, i64::MIN] {
            assert!(matches!(asked.ping(none, false, 0), Err(ControllerError::Invalid(_))), "{none}");
            assert_eq!(asked, open, "it keeps the lease that it has");
        }
        assert_eq!(open.clone().ping(LEASE_MS_MAX + 1, false, 0), Ok(Ping::LeaseTooLarge));
        let late = open.expires_ms_max - 5_000;
        assert_eq!(open.clone().ping(10_000, false, late), Ok(Ping::MaxExecutionTimeExceeded));
        let mut pinged = open.clone();
        assert_eq!(pinged.ping(20_000, false, 6_000), Ok(Ping::Ok));
        assert_eq!(pinged, Transaction { lease_ms: 20_000, ..open.clone() });
        let mut aborted = open;
        assert_eq!(aborted.abort(), None);
        assert_eq!(aborted.ping(LEASE_MS_MAX + 1, true, 0), Ok(Ping::Aborted));
    }

    #[test]
    fn a_lease_has_half_of_itself_as_grace() {
        assert_eq!(open(10_000, 1_000).patience(), Duration::from_secs(15));
        let strange = [i64::MIN, -1, i64::MAX].map(|lease_ms| Transaction { lease_ms, ..open(10_000, 0) }.patience());
        assert_eq!(strange, [0, 0, 900].map(Duration::from_secs));
    }

    #[test]
    fn a_start_gives_a_whole_lease_but_no_more_than_the_last_ping_would_have() {
        let mut open = open(10_000, 1_000);
        let last_ms = open.expires_ms_max - 10_000;
        assert_eq!(open.ping(10_000, false, last_ms).unwrap(), Ping::Ok);
        assert_ne!(open.ping(10_000, false, last_ms + 1).unwrap(), Ping::Ok);
        for (passed_ms, left_ms) in
            [(-5_000, 15_000), (0, 15_000), (1, 14_999), (14_999, 1), (15_000, 0), (i64::MAX, 0)]
        {
            let left = open.patience_after_start(last_ms.saturating_add(passed_ms));
            assert_eq!(left, Duration::from_millis(left_ms), "{passed_ms} ms behind the last ping");
        }
        let strange = [(i64::MIN, i64::MIN), (i64::MAX, i64::MAX), (i64::MAX, i64::MIN)]
            .map(|(lease_ms, expires_ms_max)| Transaction { lease_ms, expires_ms_max, ..open.clone() });
        assert_eq!(
            strange.map(|transaction| transaction.patience_after_start(5)),
            [0, 900, 0].map(Duration::from_secs)
        );
    }

    #[test]
    fn commit_and_abort_are_idempotent_and_exclude_each_other() {
        let mut committed = open(10_000, 0);
        assert_eq!(committed.commit(1, "w".into(), NO_TIME), None);
        assert_eq!(committed.phase, Phase::Committing { position: 1, writer: "w".into(), time_ms: None });
        assert_eq!(committed.commit(2, "w".into(), 5), Some(EndTransaction::Success));
        assert_eq!(committed.abort(), Some(EndTransaction::Failure));
        let mut aborted = open(10_000, 0);
        assert_eq!(aborted.abort(), None);
        assert_eq!(aborted.abort(), Some(EndTransaction::Success));
        assert_eq!(aborted.commit(2, "w".into(), 5), Some(EndTransaction::Failure));
    }

    #[test]
    fn a_completed_transaction_is_known_for_a_day() {
        let mut transaction = open(10_000, 0);
        transaction.phase = Phase::Committed { at_ms: 1_000 };
        assert_eq!(transaction.state(1_000 + REMEMBERED_MS), TransactionState::Committed);
        assert_eq!(transaction.state(1_001 + REMEMBERED_MS), TransactionState::Unknown);
    }

    #[test]
    fn records_come_back_as_they_were() {
        let phases = [
            Phase::Open,
            Phase::Committing { position: 9, writer: "340282366920938463463374607431768211455".into(), time_ms: None },
            Phase::Committing { position: 9, writer: String::new(), time_ms: Some(-5) },
            Phase::Aborting,
            Phase::Committed { at_ms: 3 },
            Phase::Aborted { at_ms: 4 },
        ];
        for phase in phases {
            let transaction = Transaction { phase, ..open(10_000, 5) };
            let bytes = transaction.encode();
            assert_eq!(Transaction::decode(&bytes).unwrap(), transaction);
            for cut in 0..bytes.len() {
                assert!(Transaction::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn what_a_record_of_version_1_says_by_the_wall_clock_counts_from_the_first_run_that_counts() {
        let old = |phase: &[u8], times: [i64; 4]| {
            let mut encoder = Encoder::new(1);
            times.into_iter().for_each(|time| {
                encoder.i64(time);
            });
            Transaction::decode(&[&encoder.finish()[..], phase].concat()).unwrap()
        };
        let ended = |kind: u8, at_ms: i64| [&[kind][..], &at_ms.to_be_bytes()].concat();
        // Created at 1000 with a lease of 20 s, which gives it 1000 times that.
        let times = [1_000, 20_000, 21_000, 20_001_000];
        let open = Transaction { phase: Phase::Open, created_ms: 1_000, lease_ms: 20_000, expires_ms_max: 20_000_000 };
        assert_eq!(old(&[1], times), open);
        for at_ms in [0, 5_000, i64::MAX, i64::MIN] {
            assert_eq!(old(&ended(3, at_ms), times).phase, Phase::Committed { at_ms: 0 });
            assert_eq!(old(&ended(5, at_ms), times).phase, Phase::Aborted { at_ms: 0 });
        }
        let longest = [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN)].map(|(created_ms, until_ms)| {
            let strange = old(&[1], [created_ms, 20_000, 0, until_ms]);
            strange.expires_ms_max
        });
        assert_eq!(longest, [EXECUTION_MS_MAX, 0]);
    }
}
