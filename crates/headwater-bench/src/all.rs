//! `headwater bench all`: every goal in one run, each as a ratio to the probe of the same round.
//!
//! Every part gets a server of its own on an empty directory, so that none pays for what another left behind. With
//! several rounds everything is repeated in turn and medians count: a machine that others use drifts.

use std::cell::Cell;
use std::path::PathBuf;

use serde::Serialize;

use crate::audit::Durable;
use crate::catchup::{CatchupLoad, measure as catch_up};
use crate::conns::{ConnsLoad, measure as connections};
use crate::error::BenchError;
use crate::genuine::{GenuineLoad, measure as genuine};
use crate::machine::Machine;
use crate::mixed::{MixedLoad, measure_both as mixed};
use crate::probe::Probe;
use crate::recover::{RecoverArgs, run as recover};
use crate::segments::{SegmentsLoad, measure_all as segments};
use crate::tail::measure as tail;
use crate::target::Place;
use crate::write::{LoadArgs, WriteReport, measure as write};

/// `bench all`.
#[derive(Clone, Debug, clap::Args)]
pub struct AllArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// A genuine client's program to run as well; see `bench genuine`
    #[arg(long, value_name = "FILE")]
    pub(crate) client: Option<PathBuf>,
    /// Times that everything is measured; medians count
    #[arg(long, default_value_t = 1)]
    pub(crate) rounds: usize,
    /// Seconds that count, of each load
    #[arg(long, default_value_t = 4.0)]
    pub(crate) seconds: f64,
    /// Mebibytes written for catching up and for recovery
    #[arg(long, default_value_t = 512)]
    pub(crate) mib: u64,
    /// Segments written evenly, and idle connections
    #[arg(long, default_value_t = 10_000)]
    pub(crate) many: usize,
    /// Print one JSON object instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Everything one run found.
#[derive(Clone, Debug, Serialize)]
pub struct AllReport {
    /// Where it ran.
    pub machine: Machine,
    /// How often everything was measured.
    pub rounds: usize,
    /// The goals.
    pub goals: Vec<Goal>,
    /// What the ratios refer to, one for each round.
    pub probes: Vec<Probe>,
}

/// One goal and how far it is reached.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// What was measured.
    pub name: &'static str,
    /// Unit of all figures of this goal.
    pub unit: &'static str,
    /// Median of all rounds.
    pub value: f64,
    /// Least of all rounds.
    pub least: f64,
    /// Greatest of all rounds.
    pub greatest: f64,
    /// Whether more is better.
    pub more_is_better: bool,
    /// What has to be reached.
    pub required: Option<f64>,
    /// What is hoped for.
    pub aim: Option<f64>,
    /// How far the median reaches.
    pub verdict: Verdict,
    /// Whether acknowledged was durable in every round; none if the figure is not of acknowledgements or they were not
    /// watched.
    pub durable: Option<Durable>,
    /// Absolute figures of the last round.
    pub measured: String,
}

/// How far a goal is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Also what is hoped for, or nothing more is asked for.
    Aim,
    /// What is required and no more.
    Required,
    /// Not what is required, or acknowledged was not durable.
    Missed,
    /// Nothing is required and the aim was missed.
    Short,
}

/// One figure of one round.
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) value: f64,
    pub(crate) better: Better,
    pub(crate) required: Option<f64>,
    pub(crate) aim: Option<f64>,
    pub(crate) durable: Option<Durable>,
    pub(crate) measured: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Better {
    More,
    Less,
}
use Better::{Less, More};

pub(crate) fn run(args: &AllArgs) -> Result<AllReport, BenchError> {
    if !(1..=99).contains(&args.rounds) {
        return Err(BenchError::Setting { what: "--rounds is from 1 to 99".to_owned() });
    }
    let machine = Machine::look(&args.place.data_dir);
    let (mut rounds, mut probes) = (Vec::new(), Vec::new());
    for round in 1..=args.rounds {
        let (figures, probe) = one_round(args, &|what| {
            // Minutes pass; a person wants to see that something happens.
            eprintln!("round {round} of {}: {what}", args.rounds);
        })?;
        rounds.push(figures);
        probes.push(probe);
    }
    Ok(AllReport { machine, rounds: args.rounds, goals: goals(rounds), probes })
}

/// The figures of all rounds, put together: each round has the same ones in the same order.
pub(crate) fn goals(rounds: Vec<Vec<Figure>>) -> Vec<Goal> {
    let mut by_goal: Vec<Vec<Figure>> = Vec::new();
    for figures in rounds {
        for (i, figure) in figures.into_iter().enumerate() {
            match by_goal.get_mut(i) {
                Some(of_goal) => of_goal.push(figure),
                None => by_goal.push(vec![figure]),
            }
        }
    }
    let put_together = |mut of_goal: Vec<Figure>| {
        let mut values: Vec<f64> = of_goal.iter().map(|figure| figure.value).collect();
        values.sort_by(f64::total_cmp);
        let durable = of_goal.iter().filter_map(|figure| figure.durable).max();
        let last = of_goal.pop()?;
        let value = values[values.len() / 2];
        Some(Goal {
            name: last.name,
            unit: last.unit,
            value,
            least: values[0],
            greatest: values[values.len() - 1],
            more_is_better: last.better == More,
            required: last.required,
            aim: last.aim,
            verdict: match durable {
                Some(Durable::No) => Verdict::Missed,
                _ => judge(value, last.better, last.required, last.aim),
            },
            durable,
            measured: last.measured,
        })
    };
    by_goal.into_iter().filter_map(put_together).collect()
}

fn judge(value: f64, better: Better, required: Option<f64>, aim: Option<f64>) -> Verdict {
    let reaches = |goal: f64| match better {
        More => value >= goal,
        Less => value <= goal,
    };
    match (required, aim) {
        (Some(required), _) if !reaches(required) => Verdict::Missed,
        (_, None) => Verdict::Aim,
        (_, Some(aim)) if reaches(aim) => Verdict::Aim,
        (Some(_), Some(_)) => Verdict::Required,
        (None, Some(_)) => Verdict::Short,
    }
}

fn one_round(args: &AllArgs, say: &dyn Fn(&str)) -> Result<(Vec<Figure>, Probe), BenchError> {
    let AllArgs { place, seconds, mib, many, .. } = args;
    let (seconds, mib, many) = (*seconds, *mib, *many);
    let mut figures = Vec::new();
    // What the acknowledgements behind the figures that come next were worth.
    let durable = Cell::new(None);
    let mut add = |name, unit, better, value, (required, aim): (Option<f64>, Option<f64>), measured: String| {
        figures.push(Figure { name, unit, value, better, required, aim, durable: durable.get(), measured });
    };
    let both = |required: f64, aim: f64| (Some(required), Some(aim));
    let mega = |rate: f64| rate / 1e6;
    let percent = |part: f64, whole: f64| 100.0 * part / whole;

    say("limits of this machine");
    let probe = Probe::take(&place.data_dir, false)?;
    let floor = &probe.floor;

    let load = LoadArgs { seconds, ..LoadArgs::default() };
    let fresh = |load: LoadArgs| -> Result<WriteReport, BenchError> { Ok(write(&place.attach()?, &load)?.0) };
    say("1 KiB events, one writer and four");
    let one = fresh(load.clone())?;
    durable.set(Some(one.audit.durable));
    let against =
        |report: &WriteReport, floor: f64| format!("{:.0} of {:.0} MB/s", mega(report.bytes_per_second), mega(floor));
    let whole = floor.kib_1_writer.bytes_per_second;
    let value = percent(one.bytes_per_second, whole);
    add("1 KiB, 1 writer, of the floor", "%", More, value, both(25.0, 50.0), against(&one, whole));
    let four = fresh(LoadArgs { writers: 4, ..load.clone() })?;
    durable.set(Some(four.audit.durable));
    let whole = floor.kib_4_writers.bytes_per_second;
    let value = percent(four.bytes_per_second, whole);
    add("1 KiB, 4 writers, of the floor", "%", More, value, both(30.0, 55.0), against(&four, whole));
    say("100 B events");
    let small = fresh(LoadArgs { size: 100, ..load.clone() })?;
    durable.set(Some(small.audit.durable));
    let measured = against(&small, floor.small_1_writer.bytes_per_second);
    add("100 B, 1 writer", "M events/s", More, mega(small.events_per_second), both(1.5, 3.0), measured);
    if let Some(client) = &args.client {
        say("a genuine client");
        durable.set(None);
        let found = genuine(place, &GenuineLoad { client: client.clone(), size: 1024, seconds })?;
        let measured = format!(
            "{:.0} k events/s, alone {:.0} k",
            found.server_events_per_second[0] / 1e3,
            found.null_events_per_second[0] / 1e3
        );
        add("genuine client, of itself alone", "%", More, found.ratio * 100.0, both(70.0, 85.0), measured);
    }

    say("single events, 1,000 a second, and a reader at the tail");
    let paced = LoadArgs { rate: Some(1000.0), ..load.clone() };
    let single = fresh(paced.clone())?;
    durable.set(Some(single.audit.durable));
    let (ack, best) = (single.latency, floor.kib_at_1000);
    let measured = format!("{:.0} of {:.0} µs", ack.p50_us, best.p50_us);
    add("ack p50 at 1,000/s, of the floor", "×", Less, ack.p50_us / best.p50_us, both(2.0, 1.3), measured);
    let measured = format!("{:.0} of {:.0} µs", ack.p99_us, best.p99_us);
    add("ack p99 at 1,000/s, of the floor", "×", Less, ack.p99_us / best.p99_us, both(3.0, 1.5), measured);
    let tailed = tail(&place.attach()?, &paced, 1)?.0;
    durable.set(Some(tailed.durable));
    let measured = format!("{:.0} and {:.0} µs", tailed.read.p50_us, tailed.acknowledged.p50_us);
    add("tail reader p50, behind the ack", "µs", Less, tailed.reader_behind_p50_us, both(100.0, 40.0), measured);

    say("acknowledgements beside bulk writes and deletions");
    let disturbed = mixed(&place.attach()?, &MixedLoad { rate: 1000.0, bulk: 100.0, bulk_mib: 64, seconds })?;
    durable.set(Some(disturbed.durable));
    let checkpoints = disturbed.checkpoints.unwrap_or(0);
    let (ack, quiet) = (disturbed.disturbed.p99_us, disturbed.quiet.p99_us);
    let measured = format!("{ack:.0} of {quiet:.0} µs, {checkpoints} checkpoints");
    // Without any it was not disturbed by what is meant.
    let ratio = if checkpoints == 0 { f64::INFINITY } else { disturbed.p99_ratio };
    add("ack p99 disturbed, of quiet", "×", Less, ratio, both(4.0, 2.0), measured);

    say("catching up");
    durable.set(None);
    let reading = CatchupLoad { size: 1024, mib, readers: 1, read_bytes: 1 << 20, depth: 2 };
    let (caught, _) = catch_up(place.attach()?, &reading, &place.data_dir, false)?;
    let (rate, whole) = (caught.cached_bytes_per_second, probe.loopback_bytes_per_second);
    let measured = format!("{:.0} of {:.0} MB/s", mega(rate), mega(whole));
    add("catch-up cached, of loopback TCP", "%", More, percent(rate, whole), both(30.0, 50.0), measured);
    let (rate, whole) = (caught.cold_bytes_per_second, probe.direct_read_bytes_per_second);
    let measured = format!("{:.0} of {:.0} MB/s", mega(rate), mega(whole));
    add("catch-up cold, of the direct read", "%", More, percent(rate, whole), both(60.0, 85.0), measured);

    say("many segments");
    let spread = segments(&place.attach()?, &SegmentsLoad { count: many, writers: 4, size: 1024, seconds })?.0;
    durable.set(Some(spread.one.audit.durable.max(spread.many.audit.durable)));
    let measured = against(&spread.many, spread.one.bytes_per_second);
    add("many segments, throughput of one", "%", More, spread.throughput_ratio * 100.0, both(60.0, 85.0), measured);
    let measured = format!("{:.0} of {:.0} µs", spread.many.latency.p99_us, spread.one.latency.p99_us);
    add("many segments, p99 of one", "×", Less, spread.p99_ratio, both(3.0, 1.5), measured);
    durable.set(None);
    let created = spread.created_per_second;
    add("segments created", "k/s", More, created / 1e3, (Some(20.0), None), format!("{many} segments"));

    say("starts, idle memory, recovery");
    let kill = RecoverArgs { place: place.clone(), mib, writers: 4, size: 1024, json: false };
    let started = recover(&kill)?;
    let mebibytes = |bytes: u64| bytes as f64 / 1048576.0;
    add("idle memory", "MiB", Less, mebibytes(started.idle_resident_bytes), both(30.0, 15.0), String::new());
    add("start on an empty directory", "ms", Less, started.empty_start_ms, both(100.0, 20.0), String::new());
    let replayed = started.replayed_bytes as f64 / 1e9;
    let measured = format!(
        "{:.0} ms, {:.0} MB in no checkpoint, journal files of {:.0} MB",
        started.recovery_ms,
        replayed * 1e3,
        started.journal_bytes as f64 / 1e6
    );
    // What a start takes anyway does not grow with the journal.
    let each = (started.recovery_ms - started.empty_start_ms) / 1e3 / replayed.max(f64::MIN_POSITIVE);
    add(
        "recovery per GB in no checkpoint, beyond an empty start",
        "s",
        Less,
        each,
        (Some(2.0), None),
        measured.clone(),
    );
    add("recovery", "s", Less, started.recovery_ms / 1e3, (None, Some(0.5)), measured);

    say("idle connections");
    let idle = connections(&place.attach()?, &ConnsLoad { connections: many, rate: 1000.0, seconds })?;
    let kib = idle.resident_bytes_each.unwrap_or(0.0) / 1024.0;
    add("memory of an idle connection", "KiB", Less, kib, both(25.0, 12.0), format!("{many} connections"));
    durable.set(Some(idle.durable));
    let measured = format!("{:.0} of {:.0} µs", idle.beside.p99_us, idle.alone.p99_us);
    add("ack p99 beside them, of alone", "×", Less, idle.p99_ratio, both(2.0, 1.2), measured);

    durable.set(Some(four.audit.durable));
    let amplified = four.audit.write_amplification.unwrap_or(f64::INFINITY);
    add("write amplification, 4 writers", "×", Less, amplified, both(2.5, 2.1), against(&four, whole_of(&probe)));
    let used = four.server_seconds_per_gigabyte.unwrap_or(f64::INFINITY);
    add("processor time per GB, 4 writers", "s", Less, used, (None, Some(1.0)), String::new());
    let resident = mebibytes(four.server_resident_bytes.unwrap_or(0));
    add("memory under load, 4 writers", "MiB", Less, resident, both(256.0, 128.0), String::new());
    Ok((figures, probe))
}

fn whole_of(probe: &Probe) -> f64 {
    probe.floor.kib_4_writers.bytes_per_second
}

impl std::fmt::Display for AllReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(probe) = self.probes.last() {
            writeln!(f, "{probe}\n")?;
        }
        table(f, self.rounds, &self.goals)
    }
}

/// As it stands in documents.
pub(crate) fn table(f: &mut std::fmt::Formatter<'_>, rounds: usize, goals: &[Goal]) -> std::fmt::Result {
    writeln!(f, "| goal (medians of {rounds}) | reached | least–greatest | required | aim | verdict | figures |")?;
    writeln!(f, "|---|---|---|---|---|---|---|")?;
    for goal in goals {
        let Goal { name, unit, value, least, greatest, measured, .. } = goal;
        let bound = |bound: Option<f64>| match bound {
            Some(bound) if goal.more_is_better => format!("≥ {bound} {unit}"),
            Some(bound) => format!("≤ {bound} {unit}"),
            None => "–".to_owned(),
        };
        let verdict = match goal.verdict {
            Verdict::Missed if goal.durable == Some(Durable::No) => "**missed: not durable**",
            Verdict::Aim => "aim reached",
            Verdict::Required => "required reached",
            Verdict::Missed => "**missed**",
            Verdict::Short => "aim missed",
        };
        let doubt = if goal.durable == Some(Durable::Unknown) { ", durable unknown" } else { "" };
        let (required, aim) = (bound(goal.required), bound(goal.aim));
        writeln!(
            f,
            "| {name} | {} {unit} | {}–{} | {required} | {aim} | {verdict}{doubt} | {measured} |",
            short(*value),
            short(*least),
            short(*greatest)
        )?;
    }
    Ok(())
}

/// Three digits are enough.
fn short(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64) -> Figure {
        Figure {
            name: "x",
            unit: "%",
            value,
            better: More,
            required: Some(25.0),
            aim: Some(50.0),
            durable: None,
            measured: String::new(),
        }
    }

    #[test]
    fn the_median_of_the_rounds_is_judged_and_the_spread_is_kept() {
        let found = goals(vec![vec![figure(60.0)], vec![figure(10.0)], vec![figure(30.0)]]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].least, found[0].value, found[0].greatest), (10.0, 30.0, 60.0));
        assert_eq!(found[0].verdict, Verdict::Required);
    }

    #[test]
    fn one_round_that_was_not_durable_misses_the_goal_whatever_it_reached() {
        use Durable::{No, Unknown, Yes};
        let judge = |rounds: [Durable; 3]| {
            let figure = |durable| Figure { durable: Some(durable), ..figure(60.0) };
            let found = goals(rounds.map(|durable| vec![figure(durable)]).into());
            let said = std::fmt::from_fn(|f| table(f, 3, &found)).to_string();
            (found[0].verdict, said.lines().last().unwrap().split(" | ").nth(5).unwrap().to_owned())
        };
        assert_eq!(judge([Yes, Yes, Yes]), (Verdict::Aim, "aim reached".to_owned()));
        assert_eq!(judge([Yes, Unknown, Yes]), (Verdict::Aim, "aim reached, durable unknown".to_owned()));
        assert_eq!(judge([No, Unknown, Yes]), (Verdict::Missed, "**missed: not durable**".to_owned()));
    }

    #[test]
    fn goals_are_judged_in_their_own_direction() {
        let both = (Some(2.0), Some(1.3));
        for (value, verdict) in [(1.3, Verdict::Aim), (1.31, Verdict::Required), (2.01, Verdict::Missed)] {
            assert_eq!(judge(value, Less, both.0, both.1), verdict, "{value}");
        }
        assert_eq!(judge(f64::NAN, Less, both.0, both.1), Verdict::Missed);
        assert_eq!(judge(1.0, More, None, Some(2.0)), Verdict::Short);
        assert_eq!(judge(3.0, More, Some(2.0), None), Verdict::Aim);
    }
}
