//! Counting what the suites say, and the table and the line at the end.

use std::ops::AddAssign;
use std::time::Duration;

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Counts {
    /// Adds what a line of output says: the summary of the Rust test harness, or `N passed, N failed`.
    pub(crate) fn read(&mut self, line: &str) {
        if let Some((passed, failed)) = summary(line) {
            *self += Self { passed, failed };
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.passed += more.passed;
        self.failed += more.failed;
    }
}

fn summary(line: &str) -> Option<(usize, usize)> {
    let line = line.trim();
    let words: Vec<&str> = line.strip_prefix("test result: ").unwrap_or(line).split([' ', ';', ',', '.']).collect();
    let number_before = |word: &str| {
        let at = words.iter().position(|candidate| *candidate == word)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    let is_summary = line.starts_with("test result: ") || words.first().is_some_and(|w| w.parse::<usize>().is_ok());
    if !is_summary {
        return None;
    }
    Some((number_before("passed")?, number_before("failed")?))
}

/// How a suite ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// Why.
    Failed(String),
    /// Why.
    Skipped(String),
}

/// One line of the table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) suite: String,
    pub(crate) verdict: Verdict,
    pub(crate) counts: Counts,
    pub(crate) took: Duration,
    /// What of its output is shown once more if it failed.
    pub(crate) recap: Vec<String>,
}

/// Everything that ran.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Line>);

impl Report {
    pub(crate) fn add(&mut self, line: Line) {
        self.0.push(line);
    }

    /// (passed, failed, skipped). A suite that says no numbers counts as one test; one that fails has one at least.
    pub(crate) fn totals(&self) -> (usize, usize, usize) {
        self.0.iter().fold((0, 0, 0), |(passed, failed, skipped), line| {
            let Counts { passed: p, failed: f } = line.counts;
            match line.verdict {
                Verdict::Passed => (passed + p.max(usize::from(f == 0)), failed + f, skipped),
                Verdict::Failed(_) => (passed + p, failed + f.max(1), skipped),
                Verdict::Skipped(_) => (passed, failed, skipped + 1),
            }
        })
    }

    /// Did everything hold? Under `strict` nothing may have been skipped.
    pub(crate) fn good(&self, strict: bool) -> bool {
        let (passed, failed, skipped) = self.totals();
        passed > 0 && failed == 0 && !(strict && skipped > 0)
    }

    /// What failed once more, since it may stand thousands of lines above; the table, what was skipped, and the closing line.
    pub(crate) fn print(&self, total: Duration) {
        for line in self.0.iter().filter(|line| matches!(line.verdict, Verdict::Failed(_)) && !line.recap.is_empty()) {
            println!("\n=== the end of {}, which failed ===\n{}", line.suite, line.recap.join("\n"));
        }
        println!("\n{:<24} {:>8}  {:>9}  {:>9}", "suite", "seconds", "passed", "failed");
        for line in &self.0 {
            let Counts { passed, failed } = line.counts;
            let remark = match &line.verdict {
                Verdict::Passed => String::new(),
                Verdict::Failed(why) => format!("  FAILED: {}", why.lines().next().unwrap_or_default()),
                Verdict::Skipped(_) => "  SKIPPED".to_owned(),
            };
            let seconds = line.took.as_secs_f64();
            println!("{:<24} {seconds:>8.1}  {passed:>9}  {failed:>9}{remark}", line.suite);
        }
        println!("{:<24} {:>8.1}", "all", total.as_secs_f64());
        let skipped: Vec<_> = self.0.iter().filter(|line| matches!(line.verdict, Verdict::Skipped(_))).collect();
        if !skipped.is_empty() {
            println!("\n!!! NOT EVERYTHING WAS TESTED !!!");
            for line in skipped {
                if let Verdict::Skipped(why) = &line.verdict {
                    println!("!!! skipped {}: {why}", line.suite);
                }
            }
        }
        let (passed, failed, skipped) = self.totals();
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
        println!("\n{passed} passed, {failed} failed{skipped}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_kinds_are_read_and_nothing_else() {
        let rust = "test result: FAILED. 41 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(summary(rust), Some((41, 2)));
        assert_eq!(summary("7 passed, 0 failed"), Some((7, 0)));
        assert_eq!(summary("7 passed, 1 failed, 2 skipped"), Some((7, 1)));
        assert_eq!(summary("ok  3.2 s  the second of 4 passed, none failed"), None);
        assert_eq!(summary("test that_5_passed ... ok"), None);
        assert_eq!(summary("12 events, none lost"), None);
    }

    fn line(verdict: Verdict, passed: usize, failed: usize) -> Line {
        Line {
            suite: "suite".to_owned(),
            verdict,
            counts: Counts { passed, failed },
            took: Duration::ZERO,
            recap: Vec::new(),
        }
    }

    #[test]
    fn a_suite_without_numbers_counts_as_one_and_a_failed_one_has_a_failure() {
        let mut report = Report::default();
        report.add(line(Verdict::Passed, 0, 0));
        report.add(line(Verdict::Passed, 5, 0));
        assert!(report.good(true));
        report.add(line(Verdict::Skipped("no java".to_owned()), 0, 0));
        assert!(report.good(false) && !report.good(true));
        report.add(line(Verdict::Failed("killed".to_owned()), 3, 0));
        assert_eq!(report.totals(), (9, 1, 1));
        assert!(!report.good(false));
    }

    #[test]
    fn a_run_in_which_nothing_ran_is_not_good() {
        assert!(!Report::default().good(false));
    }
}
