//! The harness must pass a store that is right and find everything that is wrong with others.

use headwater_sim::{FaultOutcome, Faults, Plan, crash_run, fault_run};

use crate::naive::{Bug, NaiveLaunch};

#[test]
fn a_store_that_is_right_passes() {
    for seed in 0..20 {
        let report = crash_run(&NaiveLaunch::new(Bug::Nothing), Plan::of(seed, 300));
        let report = report.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(report.points >= 300 && report.points_in_recovery > 0 && report.points_after_kill > 0, "{report:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..5 {
        let run = || crash_run(&NaiveLaunch::new(Bug::Nothing), Plan::of(seed, 200)).unwrap();
        assert_eq!(run(), run());
    }
}

/// A planted bug must be found within a few seeds, and named by something `expected`.
#[track_caller]
fn is_found(bug: Bug) {
    let found = (0..20).find_map(|seed| crash_run(&NaiveLaunch::new(bug), Plan::of(seed, 300)).err());
    let failure = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
    println!("{bug:?} found with seed {} after {} points: {}", failure.seed, failure.points, failure.what);
    assert!(!failure.history.is_empty());
}

#[test]
fn a_missing_sync_is_found() {
    is_found(Bug::NoSync);
}

#[test]
fn an_acknowledgement_before_the_sync_is_found() {
    is_found(Bug::AcknowledgesBeforeSync);
}

#[test]
fn a_missing_directory_sync_is_found() {
    is_found(Bug::DirectoryNotSynced);
}

#[test]
fn serving_what_only_the_page_cache_holds_is_found() {
    is_found(Bug::ServesTheCacheAfterAKill);
}

#[test]
fn a_checksum_that_is_not_checked_is_found() {
    is_found(Bug::ChecksumNotChecked);
}

#[test]
fn a_read_before_the_bytes_are_durable_is_found() {
    is_found(Bug::ReadsBeforeDurable);
}

#[test]
fn state_forgotten_by_a_restart_is_found() {
    is_found(Bug::ForgetsSealsAfterRestart);
    is_found(Bug::ForgetsWritersAfterRestart);
    is_found(Bug::ForgetsTruncationsAfterRestart);
}

#[test]
fn a_record_lost_or_replayed_twice_is_found() {
    is_found(Bug::LosesTheLastRecord);
    is_found(Bug::ReplaysTheLastRecordTwice);
}

#[test]
fn a_version_used_twice_is_found() {
    is_found(Bug::ReusesVersions);
}

#[test]
fn a_missing_answer_is_found() {
    is_found(Bug::NeverAnswersDeletes);
}

/// Fails each sync of a run in turn.
fn fail_each_sync(bug: Bug) -> Result<u32, Box<headwater_sim::Failure>> {
    let mut stopped = 0;
    for seed in 0..4 {
        for sync in 0..40 {
            let faults = Faults { fail_syncs: [sync].into(), ..Faults::default() };
            let report = fault_run(&NaiveLaunch::new(bug), seed, 60, faults)?;
            stopped += u32::from(matches!(report.outcome, FaultOutcome::Stopped(_)));
        }
    }
    Ok(stopped)
}

/// Lets a run die before each of its calls, and within each.
fn die_at_each_call(bug: Bug) -> Result<(), Box<headwater_sim::Failure>> {
    for seed in 0..4 {
        for call in 0..60 {
            let run = |faults| fault_run(&NaiveLaunch::new(bug), seed, 60, faults);
            run(Faults { crash_at_call: Some(call), ..Faults::default() })?;
            run(Faults { torn_at_call: Some(call), ..Faults::default() })?;
        }
    }
    Ok(())
}

#[test]
fn what_dying_at_a_call_costs_is_found() {
    die_at_each_call(Bug::Nothing).unwrap_or_else(|failure| panic!("{failure}"));
    for bug in [Bug::NoSync, Bug::AcknowledgesBeforeSync, Bug::ChecksumNotChecked] {
        assert!(die_at_each_call(bug).is_err(), "{bug:?} was not found");
    }
}

#[test]
fn a_sync_error_that_is_ignored_is_found() {
    let stopped = fail_each_sync(Bug::Nothing).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(stopped > 50, "{stopped}");
    assert!(fail_each_sync(Bug::SyncErrorIgnored).is_err());
}
