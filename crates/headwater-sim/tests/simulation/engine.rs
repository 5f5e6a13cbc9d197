//! The engine under crashes. `HEADWATER_SIM_SEED=N` adds a seed to the fixed ones; a failure prints its own.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use headwater_sim::{
    ClientsReport, Counts, EngineLaunch, Failure, FaultOutcome, FaultReport, Faults, FileKind, Mode, Plan, Report,
    RotReport, Summary, Verdict, crash_run, fault_run, rot_run, threads_run,
};

/// Crash points of one test run; the first figure of the ladder.
const POINTS: u64 = 10_000;
const POINTS_PER_SEED: u64 = 250;

/// The fixed seeds, and the one of `HEADWATER_SIM_SEED`.
fn seeds(count: u64) -> Vec<u64> {
    let extra = std::env::var("HEADWATER_SIM_SEED").ok();
    let extra = extra.map(|seed| seed.parse().expect("HEADWATER_SIM_SEED is a number"));
    (0..count).chain(extra).collect()
}

/// Runs all cases on two cores; one run is one thread.
fn in_parallel<C: Sync, T: Send>(cases: &[C], run: impl Fn(&C) -> Result<T, Box<Failure>> + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let result = run(case);
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

/// Runs seeds of a mode; a failure says how to see it again. Returns what was counted.
#[track_caller]
fn hold(mode: Mode, count: u64) -> u64 {
    let summaries: Vec<Summary> = in_parallel(&seeds(count), |seed| {
        mode.run(*seed).map_err(|mut failure| {
            failure.what.push_str(&format!("\n{}", mode.command(*seed)));
            failure
        })
    });
    let counted = summaries.iter().map(|summary| summary.count).sum();
    println!("{mode}: {} seeds, counted {counted}", summaries.len());
    counted
}

#[test]
fn nothing_acknowledged_is_lost_at_any_crash_point() {
    let seeds = seeds(POINTS / POINTS_PER_SEED);
    println!("seeds {seeds:?}, {POINTS_PER_SEED} crash points each");
    let plan = |seed| Plan::of(seed, POINTS_PER_SEED);
    let reports = in_parallel(&seeds, |seed| crash_run(&EngineLaunch::default(), plan(*seed)));
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
fn nothing_is_lost_with_almost_no_memory_either() {
    let plan = |seed| Plan::of(seed, POINTS_PER_SEED);
    let reports = in_parallel(&seeds(12), |seed| crash_run(&EngineLaunch::tiny(), plan(*seed)));
    let held: u64 = reports.iter().map(|report| report.held).sum();
    println!("{} crash points, {held} requests held back", reports.iter().map(|report| report.points).sum::<u64>());
    assert!(held > 200, "{held}");
}

#[test]
fn no_promise_depends_on_the_wall_clock() {
    assert!(hold(Mode::CrashClock, 30) >= 30 * POINTS_PER_SEED);
}

#[test]
fn nothing_is_lost_in_a_bucket_that_does_not_always_answer() {
    assert!(hold(Mode::CrashBucket, 16) >= 16 * POINTS_PER_SEED);
}

#[test]
fn a_repair_changes_nothing_that_is_served() {
    let repaired = hold(Mode::Repair, 12);
    assert!(repaired > 80, "{repaired}");
}

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    in_parallel(&Mode::regressions(), |(mode, seed)| mode.run(*seed));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let cases: Vec<(Mode, u64)> = Mode::ALL
        .into_iter()
        .filter(|mode| *mode != Mode::EveryBit)
        .flat_map(|mode| (1..=5).map(move |seed| (mode, seed)))
        .collect();
    in_parallel(&cases, |(mode, seed)| {
        assert_eq!(mode.run(*seed)?, mode.run(*seed)?, "{mode} {seed}");
        Ok(())
    });
}

/// Runs whose fault stopped the store.
fn stopped(reports: &[FaultReport]) -> usize {
    reports.iter().filter(|report| matches!(report.outcome, FaultOutcome::Stopped(_))).count()
}

#[test]
fn a_failed_sync_stops_the_store_and_nothing_it_answered_is_lost() {
    let cases: Vec<u64> = (0..200).collect();
    let reports = in_parallel(&cases, |case| {
        let faults = Faults { fail_syncs: [case / 4 + 20].into(), ..Faults::default() };
        fault_run(&EngineLaunch::default(), case % 4, 60, faults)
    });
    let stopped = stopped(&reports);
    assert!(stopped > 50, "{stopped} of {} runs met their failing sync", reports.len());
}

#[test]
fn nothing_served_after_a_failed_sync_and_a_restart_disappears_with_the_power() {
    let met = hold(Mode::Sync, 300);
    assert!(met > 100, "{met}");
}

/// One workload of 300 requests with such faults.
fn one_workload(faults: Faults) -> Result<FaultReport, Box<Failure>> {
    fault_run(&EngineLaunch::default(), 1, 300, faults)
}

/// What [`one_workload`] asks of a sound disk, and the number of each call.
fn calls_of_one_workload() -> (Counts, Vec<u64>) {
    let counts = one_workload(Faults::default()).unwrap_or_else(|failure| panic!("{failure}")).counts;
    assert!(counts.calls > 500, "{} calls", counts.calls);
    (counts, (0..counts.calls).collect())
}

#[test]
fn every_call_of_the_disk_may_fail() {
    let run = one_workload;
    let (counts, calls) = calls_of_one_workload();
    let reports = in_parallel(&calls, |call| run(Faults { error_at_calls: [*call].into(), ..Faults::default() }));
    let stopped = stopped(&reports);
    assert!(stopped > calls.len() * 9 / 10, "{stopped} of {} calls stop the store when they fail", calls.len());
    let reports = in_parallel(&calls, |call| run(Faults { full_at_calls: [*call].into(), ..Faults::default() }));
    let others = reports.iter().filter(|report| report.counts != counts).count();
    assert!(others > 20, "{others} of {} calls found no room", calls.len());
    let met = hold(Mode::Error, 300);
    assert!(met > 100, "{met}");
}

/// To die after a call is to die before the next one.
#[test]
fn every_call_of_the_disk_may_be_the_last_one_or_half_done() {
    let (_, calls) = calls_of_one_workload();
    let dies_before = |call| Faults { crash_at_call: Some(call), ..Faults::default() };
    let dies_within = |call| Faults { torn_at_call: Some(call), ..Faults::default() };
    for faults_at in [dies_before as fn(u64) -> Faults, dies_within] {
        let reports = in_parallel(&calls, |call| one_workload(faults_at(*call)));
        assert_eq!(stopped(&reports), calls.len(), "calls after which the store goes on without a disk");
    }
}

#[test]
fn a_disk_that_can_only_be_read_stops_the_store_and_loses_nothing() {
    let met = hold(Mode::ReadOnly, 200);
    assert!(met > 50, "{met}");
}

#[test]
fn a_full_disk_makes_writes_wait_and_nothing_else() {
    let met = hold(Mode::Full, 150) + hold(Mode::FullTiny, 150);
    assert!(met > 200, "{met}");
}

#[test]
fn damage_is_detected_before_it_is_served() {
    let reports = in_parallel(&seeds(32), |seed| {
        let launch = match seed % 4 {
            0 | 2 => EngineLaunch::default(),
            1 => EngineLaunch::tiny(),
            _ => EngineLaunch::tiny().in_bucket(),
        };
        rot_run(&launch, *seed, 100)
    });
    let mut total = RotReport::default();
    reports.iter().for_each(|report| total.add(report));
    for ((kind, verdict), count) in &total.tally {
        println!("{count:8} {kind:?} {verdict:?}");
    }
    assert!(total.count() >= 2_000);
    assert!(total.ends(Verdict::RefusedToStart) > 500 && total.ends(Verdict::RefusedToRead) > 200);
    assert!(total.ends(Verdict::Blind) > 0, "the window that is known was looked into");
    let kinds: BTreeSet<_> = total.tally.keys().map(|(kind, _)| *kind).collect();
    for kind in FileKind::STORED {
        assert!(kinds.contains(&kind), "no {kind:?} was damaged");
    }
    for (kind, verdict) in total.tally.keys() {
        let redundant = matches!(kind, FileKind::Spare | FileKind::Witness);
        assert!(!redundant || *verdict == Verdict::Harmless, "{kind:?} {verdict:?}: nobody needs it");
    }
}

#[test]
fn every_bit_of_the_small_files_is_guarded() {
    hold(Mode::EveryBit, 1);
}

#[test]
fn what_clients_hear_is_explained_by_one_order_of_events() {
    assert!(hold(Mode::Histories, 200) >= 200 * 200);
}

#[test]
fn the_same_holds_on_the_engines_own_threads() {
    // Each run has a dozen threads and no order of its own: one after the other, and no seed brings a failure back.
    let mut total = ClientsReport::default();
    for seed in 0..20 {
        let launch = if seed % 2 == 0 { EngineLaunch::default() } else { EngineLaunch::tiny() };
        let report = threads_run(&launch, seed, 400).unwrap_or_else(|failure| panic!("{failure}"));
        total.operations += report.operations;
        total.crashes += report.crashes;
        total.unknown += report.unknown;
    }
    println!("{total:?}");
    assert!(total.operations >= 8_000 && total.crashes > 10 && total.unknown > 50, "{total:?}");
}
