//! Reading back what a run wrote: all of it, checked event by event.

use std::sync::Mutex;
use std::thread;

use headwater_wire::{Reply, Request, Text, Token};

use crate::check::{Checker, Violation};
use crate::connection::{Connection, refused};
use crate::error::BenchError;

/// What one segment must hold.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) segment: Text,
    /// Writers and how many events each wrote.
    pub(crate) writers: Vec<(u64, u64)>,
}

impl Written {
    pub(crate) fn events(&self) -> u64 {
        self.writers.iter().map(|(_, events)| events).sum()
    }
}

/// Reads every segment from its beginning to its end, by so many readers at a time.
///
/// # Errors
/// [`BenchError::Integrity`] with the first violation of a segment.
pub(crate) fn read_back(
    server: &str,
    readers: usize,
    event_bytes: usize,
    written: Vec<Written>,
) -> Result<(), BenchError> {
    let left = Mutex::new(written.into_iter());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..readers)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(server)?;
                    loop {
                        let next = left.lock().expect("no reader panics while it takes a segment").next();
                        let Some(written) = next else { return Ok(()) };
                        one_segment(&mut connection, event_bytes, written)?;
                    }
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("no reader panics"))
    })
}

fn one_segment(connection: &mut Connection, event_bytes: usize, written: Written) -> Result<(), BenchError> {
    let segment = written.segment;
    let violated = |source: Violation| BenchError::Integrity { segment: segment.to_string(), source };
    let mut checker = Checker::new(event_bytes, written.writers);
    let expected = checker.expected_bytes();
    let mut offset = 0;
    while offset < expected {
        let data = connection.read_segment(&segment, offset)?;
        if data.is_empty() {
            break;
        }
        checker.feed(&data, |_| {}).map_err(violated)?;
        offset += data.len() as u64;
    }
    checker.finish().map_err(violated)?;
    // Nothing may stand behind the last event either.
    let reply = connection.ask(|request_id| Request::GetStreamSegmentInfo {
        request_id,
        segment: segment.clone(),
        token: Token::default(),
    })?;
    match reply {
        Reply::StreamSegmentInfo { write_offset, .. } if write_offset.cast_unsigned() == expected => Ok(()),
        Reply::StreamSegmentInfo { write_offset, .. } => {
            Err(violated(Violation::Length { expected, found: write_offset }))
        }
        reply => Err(refused("GetStreamSegmentInfo", &reply)),
    }
}
