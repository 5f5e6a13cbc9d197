//! What of a suite's output is shown once more at the end, when it failed: it may stand thousands of lines above by then.
//!
//! * of every program of Rust's test harness that failed: what its failed tests printed, around the first panic of each,
//!   and their names
//! * the last lines of whatever came behind these programs, or of all if there were none
//!
//! Both are bounded, whatever a suite prints.

use std::collections::VecDeque;

/// Lines of a failed test before its first panic.
const BEFORE_PANIC: usize = 10;
/// Lines of a failed test from its first panic on: the message, and of a backtrace what is ours.
const FROM_PANIC: usize = 30;
/// Lines of all failed tests together.
const PRINTED: usize = 300;
/// And with their names.
const WITH_NAMES: usize = PRINTED + 100;
/// As many as a failure of a suite that runs no such programs fills.
const LAST: usize = 80;
/// Characters of a line.
const LINE: usize = 1000;

/// Reads the output of a suite line by line.
#[derive(Debug, Default)]
pub(crate) struct Recap {
    place: Place,
    failures: Vec<String>,
    /// Lines that are not in `failures`, although they came behind its last one.
    left_out: usize,
    last: VecDeque<String>,
}

#[derive(Debug, Default)]
enum Place {
    #[default]
    Elsewhere,
    /// In what a failed test printed: the lines before a panic that are not in `failures` yet, and how many behind one are.
    Printed { before: VecDeque<String>, from_panic: usize },
    /// In the list of the failed tests' names.
    Names,
}

impl Recap {
    pub(crate) fn read(&mut self, line: &str) {
        let line: String = line.chars().take(LINE).collect();
        match &mut self.place {
            Place::Elsewhere if line == "failures:" => {
                // What came before are programs that passed, and how this one began.
                self.last.clear();
                self.keep(line, PRINTED);
                self.begin_test();
            }
            Place::Elsewhere => {
                if self.last.len() == LAST {
                    self.last.pop_front();
                }
                self.last.push_back(line);
            }
            Place::Names => {
                let is_over = line.starts_with("test result: ");
                self.keep(line, WITH_NAMES);
                if is_over {
                    self.place = Place::Elsewhere;
                }
            }
            Place::Printed { .. } if line == "failures:" => {
                self.end_test();
                self.keep(line, WITH_NAMES);
                self.place = Place::Names;
            }
            Place::Printed { .. } if line.starts_with("---- ") && line.ends_with(" ----") => {
                self.end_test();
                self.keep(line, PRINTED);
                self.begin_test();
            }
            Place::Printed { from_panic, .. } if *from_panic == FROM_PANIC => self.left_out += 1,
            Place::Printed { from_panic, .. } if *from_panic > 0 => {
                *from_panic += 1;
                self.keep(line, PRINTED);
            }
            Place::Printed { .. } if line.contains(" panicked at ") => {
                self.end_test();
                self.keep(line, PRINTED);
                self.place = Place::Printed { before: VecDeque::new(), from_panic: 1 };
            }
            Place::Printed { before, .. } => {
                if before.len() == BEFORE_PANIC {
                    before.pop_front();
                    self.left_out += 1;
                }
                before.push_back(line);
            }
        }
    }

    /// What is to be shown, at most 500 lines.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.end_test();
        self.say_left_out();
        self.failures.extend(self.last);
        self.failures
    }

    fn begin_test(&mut self) {
        self.place = Place::Printed { before: VecDeque::with_capacity(BEFORE_PANIC), from_panic: 0 };
    }

    fn end_test(&mut self) {
        if let Place::Printed { before, .. } = &mut self.place {
            for line in std::mem::take(before) {
                self.keep(line, PRINTED);
            }
        }
    }

    /// Adds a line, if there are fewer than `most`.
    fn keep(&mut self, line: String, most: usize) {
        if self.failures.len() < most {
            self.say_left_out();
            self.failures.push(line);
        } else {
            self.left_out += 1;
        }
    }

    fn say_left_out(&mut self) {
        if self.left_out > 0 {
            self.failures.push(format!("[{} lines left out]", std::mem::take(&mut self.left_out)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recap<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        let mut recap = Recap::default();
        lines.into_iter().for_each(|line| recap.read(line));
        recap.finish()
    }

    #[test]
    fn every_program_that_failed_is_shown_with_its_panics_and_names_and_none_that_passed() {
        let output = "
running 2 tests
..
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s


running 3 tests
.
tests::a_thing_holds --- FAILED
another --- FAILED

failures:

---- tests::a_thing_holds stdout ----

thread 'tests::a_thing_holds' (7) panicked at src/thing.rs:3:9:
assertion `left == right` failed
  left: 1
 right: 2

---- another stdout ----
Error: Missing


failures:
    another
    tests::a_thing_holds

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s


running 1 test
F
failures:

failures:
    silent

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s


running 1 test
.
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        let shown = "failures:

---- tests::a_thing_holds stdout ----

thread 'tests::a_thing_holds' (7) panicked at src/thing.rs:3:9:
assertion `left == right` failed
  left: 1
 right: 2

---- another stdout ----
Error: Missing


failures:
    another
    tests::a_thing_holds

test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
failures:

failures:
    silent

test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s


running 1 test
.
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(recap(output.lines()).join("\n"), shown);
    }

    #[test]
    fn of_a_test_that_prints_much_the_lines_around_its_first_panic_are_shown() {
        let panic = "thread 'x' (7) panicked at src/x.rs:1:1:";
        let head = ["failures:", "", "---- x stdout ----"];
        let lines = |many: usize| std::iter::repeat_n("many", many);
        let shown = recap(head.into_iter().chain(lines(1000)).chain([panic]).chain(lines(1000)));
        let expected: Vec<&str> = head
            .into_iter()
            .chain(["[990 lines left out]"])
            .chain(lines(BEFORE_PANIC))
            .chain([panic])
            .chain(lines(FROM_PANIC - 1))
            .chain(["[971 lines left out]"])
            .collect();
        assert_eq!(shown, expected);
        let killed = recap(head.into_iter().chain(lines(12)));
        assert_eq!(killed[head.len()..], [&["[2 lines left out]"][..], &["many"; BEFORE_PANIC]].concat());
    }

    #[test]
    fn whatever_comes_it_stays_short_and_names_go_before_what_tests_printed() {
        let long = "ö".repeat(3 * LINE);
        assert_eq!(recap([long.as_str()])[0].chars().count(), LINE);
        assert_eq!(recap(std::iter::repeat_n("line", 1000)).len(), LAST);
        let test = ["---- x stdout ----", "thread 'x' (7) panicked at src/x.rs:1:1:", "reason"];
        let names = ["failures:", "    x", "    y", "test result: FAILED. 0 passed; 1000 failed;"];
        let program = || ["failures:"].into_iter().chain(test.repeat(1000)).chain(names);
        let shown = recap(program());
        assert_eq!(shown[PRINTED], format!("[{} lines left out]", 3001 - PRINTED));
        assert_eq!(shown[PRINTED + 1..], names);
        let endless = recap((0..1000).flat_map(|_| program()).chain(std::iter::repeat_n("behind", 1000)));
        assert!(endless.len() <= 500, "{}", endless.len());
        assert_eq!(endless.last().map(String::as_str), Some("behind"));
    }
}
