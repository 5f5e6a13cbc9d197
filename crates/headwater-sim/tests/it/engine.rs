//! The engine under crashes. `HEADWATER_SIM_SEED=N` adds a seed to the fixed ones; a failure prints its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_sim::{AfterFailedSync, EngineLaunch, Failure, FaultOutcome, Faults, Plan, Report, crash_run, fault_run};

/// Crash points of one test run; the first figure of the ladder.
const POINTS: u64 = 10_000;
const POINTS_PER_SEED: u64 = 250;

/// Seeds that found something once: a store created under a name that was not durable (16, 20026), a file used under a
/// new name before that was durable (1149), frames longer than a small journal file (27).
const FOUND: [u64; 4] = [16, 27, 1149, 20026];

fn seeds() -> Vec<u64> {
    let extra = std::env::var("HEADWATER_SIM_SEED").ok();
    let extra = extra.map(|seed| seed.parse().expect("HEADWATER_SIM_SEED is a number"));
    (0..POINTS / POINTS_PER_SEED).chain(FOUND).chain(extra).collect()
}

/// Runs all seeds on two cores; one run is one thread.
fn in_parallel<T: Send>(seeds: &[u64], run: impl Fn(u64) -> Result<T, Box<Failure>> + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let result = run(*seed);
                    let failed = result.is_err();
                    results.lock().expect("no run panics").push(result);
                    if failed {
                        next.store(u64::MAX >> 1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    results
        .into_inner()
        .expect("no run panics")
        .into_iter()
        .map(|result| result.unwrap_or_else(|failure| panic!("{failure}")))
        .collect()
}

#[test]
fn nothing_acknowledged_is_lost_at_any_crash_point() {
    let seeds = seeds();
    println!("seeds {seeds:?}, {POINTS_PER_SEED} crash points each");
    let plan = |seed| Plan { seed, points: POINTS_PER_SEED };
    let reports = in_parallel(&seeds, |seed| crash_run(&EngineLaunch::default(), plan(seed)));
    let sum = |figure: fn(&Report) -> u64| reports.iter().map(figure).sum::<u64>();
    println!(
        "{} crash points ({} with a second crash in recovery, {} after a killed process), {} crashes lived through, \
         {} requests, {} answers, {} calls of the disk",
        sum(|report| report.points),
        sum(|report| report.points_in_recovery),
        sum(|report| report.points_after_kill),
        sum(|report| report.crashes),
        sum(|report| report.requests),
        sum(|report| report.answers),
        sum(|report| report.calls),
    );
    assert!(sum(|report| report.points) >= POINTS);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    in_parallel(&[1, 2, 3, 4, 5], |seed| {
        let plan = Plan { seed, points: 40 };
        let (one, other) = (crash_run(&EngineLaunch::default(), plan)?, crash_run(&EngineLaunch::default(), plan)?);
        assert_eq!(one, other, "seed {seed}");
        Ok(())
    });
}

#[test]
fn a_failed_sync_stops_the_store_and_nothing_it_answered_is_lost() {
    let cases: Vec<u64> = (0..200).collect();
    let outcomes = in_parallel(&cases, |case| {
        let faults = Faults { fail_syncs: [case / 4 + 20].into(), ..Faults::default() };
        fault_run(&EngineLaunch::default(), case % 4, 60, faults)
    });
    let stopped = outcomes.iter().filter(|outcome| matches!(outcome, (FaultOutcome::Stopped(_), _))).count();
    assert!(stopped > 50, "{stopped} of {} runs met their failing sync", outcomes.len());
}

/// One run of a fixed workload per faulty call or capacity; each must end in right answers or a stop, and in a restart
/// that finds everything that was answered.
fn sweep(seed: u64, faults: impl Fn(u64) -> Faults + Sync, cases: u64) -> usize {
    let cases: Vec<u64> = (0..cases).collect();
    let outcomes = in_parallel(&cases, |case| fault_run(&EngineLaunch::default(), seed, 40, faults(case)));
    outcomes.iter().filter(|outcome| matches!(outcome, (FaultOutcome::Stopped(_), _))).count()
}

#[test]
fn every_call_of_the_disk_may_fail() {
    let stopped = sweep(1, |call| Faults { error_at_calls: [call].into(), ..Faults::default() }, 300);
    assert!(stopped > 50, "{stopped} runs met their failing call");
}

#[test]
fn the_disk_may_be_full_at_any_size() {
    let stopped = sweep(2, |step| Faults { capacity: Some(step * (16 << 10)), ..Faults::default() }, 150);
    assert!(stopped > 20, "{stopped} runs met the full disk");
}

#[test]
fn a_failed_sync_may_show_the_old_bytes_at_once() {
    let after_failed_sync = AfterFailedSync::OldAtOnce;
    let faults = |sync| Faults { fail_syncs: [sync].into(), after_failed_sync, ..Faults::default() };
    let stopped = sweep(3, faults, 60);
    assert!(stopped > 20, "{stopped} runs met their failing sync");
}
