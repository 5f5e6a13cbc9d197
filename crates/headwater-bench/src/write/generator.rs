//! One writer: a thread, a connection, and the events it sends, as fast as its window allows or at their times.
//!
//! A *lane* is one writer id on one segment; a generator has one or more lanes and goes round them, so that segments are
//! written evenly. Sequences count per lane from 0; the wire's event numbers count from 1, so the number of the last
//! acknowledged event is also the number of events acknowledged.

use std::collections::VecDeque;
use std::time::Instant;

use headwater_types::WriterId;
use headwater_wire::{Reply, Text};

use crate::connection::{Connection, Framing, refused};
use crate::error::BenchError;
use crate::event::Block;
use crate::latency::Latencies;
use crate::pace::{Schedule, readable, sleep_exactly};

/// Registrations under way at a time.
const SETUPS_AT_ONCE: usize = 64;
/// Upper half of our writer ids on the wire: "bench" in ASCII, so that a log shows whose they are.
const WRITER_PREFIX: u128 = 0x62_656E_6368 << 64;

/// When the run begins and what of it counts. All times are nanoseconds since `origin`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) origin: Instant,
    /// Before it, events are written and not counted.
    pub(crate) counted_from_ns: u64,
    /// After it, nothing is sent; what is under way is still waited for.
    pub(crate) end_ns: u64,
}

impl Times {
    pub(crate) fn now_ns(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    pub(crate) fn counts(&self, ns: u64) -> bool {
        (self.counted_from_ns..self.end_ns).contains(&ns)
    }
}

/// What decides when events are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// Whenever there is room in the window.
    Closed,
    /// When they are due.
    Open(Schedule),
}

/// What a generator writes.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) event_bytes: usize,
    /// Events of one full append.
    pub(crate) block_events: usize,
    /// Bytes of events that may be unacknowledged.
    pub(crate) window_bytes: u64,
    pub(crate) framing: Framing,
    pub(crate) pace: Pace,
    /// A closed loop ends after so many events of this generator.
    pub(crate) events_max: u64,
}

/// What a generator did.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of events acknowledged (closed loop) or due (open loop) while it counted.
    pub(crate) latencies: Latencies,
    /// How long after its time an event was sent; of an open loop.
    pub(crate) lateness: Latencies,
    /// Events acknowledged while it counted.
    pub(crate) counted_events: u64,
    /// Appends acknowledged in all.
    pub(crate) appends: u64,
    /// Writer and number of events of each lane, in the order they were given.
    pub(crate) lanes: Vec<(u64, u64)>,
}

#[derive(Debug)]
struct Lane {
    writer: u64,
    sent: u64,
    acknowledged: u64,
    /// Appends under way, oldest first.
    under_way: VecDeque<Append>,
}

#[derive(Clone, Copy, Debug)]
struct Append {
    /// Events of the lane up to its last.
    end: u64,
    sent_ns: u64,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Generator {
    connection: Connection,
    lanes: Vec<Lane>,
    load: Load,
    block: Block,
    in_flight_bytes: u64,
    latencies: Latencies,
    lateness: Latencies,
    counted_events: u64,
    appends: u64,
}

impl Generator {
    /// Connects and registers a writer for each segment: the first has the id `first_writer`, and so on.
    pub(crate) fn open(server: &str, segments: &[Text], first_writer: u64, load: Load) -> Result<Self, BenchError> {
        let mut connection = Connection::open(server)?;
        let mut lanes = Vec::with_capacity(segments.len());
        for segments in segments.chunks(SETUPS_AT_ONCE) {
            for segment in segments {
                let writer = first_writer + lanes.len() as u64;
                connection.put_setup(wire_id(writer), segment)?;
                lanes.push(Lane { writer, sent: 0, acknowledged: 0, under_way: VecDeque::new() });
            }
            connection.flush()?;
            let mut left = segments.len();
            while left > 0 {
                match connection.reply("writers were registered")? {
                    Reply::AppendSetup { last_event_number: i64::MIN, .. } => left -= 1,
                    Reply::Hello { .. } => {}
                    reply => return Err(refused("SetupAppend", &reply)),
                }
            }
        }
        Ok(Self {
            connection,
            lanes,
            block: Block::new(load.event_bytes, load.block_events),
            load,
            in_flight_bytes: 0,
            latencies: Latencies::new(),
            lateness: Latencies::new(),
            counted_events: 0,
            appends: 0,
        })
    }

    /// Writes until the end, then waits for everything under way.
    ///
    /// # Errors
    /// Also [`BenchError::Behind`], if the generator could not keep to its schedule.
    pub(crate) fn run(mut self, times: Times) -> Result<Outcome, BenchError> {
        sleep_exactly();
        match self.load.pace {
            Pace::Closed => self.closed(&times)?,
            Pace::Open(schedule) => self.open_loop(&times, &schedule)?,
        }
        while self.in_flight_bytes > 0 {
            self.take_replies(&times)?;
        }
        Ok(Outcome {
            latencies: self.latencies,
            lateness: self.lateness,
            counted_events: self.counted_events,
            appends: self.appends,
            lanes: self.lanes.iter().map(|lane| (lane.writer, lane.sent)).collect(),
        })
    }

    fn closed(&mut self, times: &Times) -> Result<(), BenchError> {
        let block_bytes = (self.load.block_events * self.block.stride()) as u64;
        let (mut lane, mut left) = (0, self.load.events_max);
        loop {
            let now = times.now_ns();
            if now >= times.end_ns || left == 0 {
                return Ok(());
            }
            if self.in_flight_bytes > 0 && self.in_flight_bytes + block_bytes > self.load.window_bytes {
                self.take_replies(times)?;
            } else {
                let count = left.min(self.load.block_events as u64);
                self.send(times, lane, count, now)?;
                left -= count;
                lane = (lane + 1) % self.lanes.len();
                // Acknowledgements that are here already are timed now, not when the window is full.
                if readable(self.connection.socket(), 0, 0)? {
                    self.take_replies(times)?;
                }
            }
        }
    }

    fn open_loop(&mut self, times: &Times, schedule: &Schedule) -> Result<(), BenchError> {
        let lanes = self.lanes.len() as u64;
        let event_bytes = self.block.stride() as u64;
        // Events of the schedule that were sent; event n belongs to lane n % lanes.
        let mut sent = 0;
        let total = schedule.total();
        loop {
            let now = times.now_ns();
            if now >= schedule.judged_at() || sent == total {
                return schedule.judge(sent);
            }
            let due = schedule.due_by(now);
            let room = self.load.window_bytes.saturating_sub(self.in_flight_bytes) / event_bytes;
            // With nothing under way one event may always go, however small the window.
            let room = if self.in_flight_bytes == 0 { room.max(1) } else { room };
            let end = due.min(sent + room);
            for step in 0..lanes.min(end - sent) {
                let lane = (sent + step) % lanes;
                // Of the events below `end`, those of this lane: lane, lane + lanes, lane + 2 * lanes, ...
                let lane_end = (end - lane).div_ceil(lanes);
                while self.lanes[lane as usize].sent < lane_end {
                    let missing = lane_end - self.lanes[lane as usize].sent;
                    self.send(times, lane as usize, missing.min(self.load.block_events as u64), now)?;
                }
            }
            sent = end;
            let until = if end < due { schedule.judged_at() } else { schedule.due(sent).min(schedule.judged_at()) };
            if readable(self.connection.socket(), times.now_ns(), until)? {
                self.take_replies(times)?;
            }
        }
    }

    /// Sends the next events of a lane.
    fn send(&mut self, times: &Times, index: usize, count: u64, now_ns: u64) -> Result<(), BenchError> {
        let lanes = self.lanes.len() as u64;
        let lane = &mut self.lanes[index];
        let sequences = lane.sent..lane.sent + count;
        let due = |sequence: u64| match self.load.pace {
            Pace::Closed => now_ns,
            Pace::Open(schedule) => schedule.due(sequence * lanes + index as u64),
        };
        if let Pace::Open(_) = self.load.pace {
            sequences.clone().map(due).filter(|due| times.counts(*due)).for_each(|due| {
                self.lateness.record(now_ns.saturating_sub(due));
            });
        }
        self.block.stamp(lane.writer, sequences.clone(), due);
        let stride = self.block.stride();
        let all = self.block.lend();
        let (framing, writer) = (self.load.framing, wire_id(lane.writer));
        let per_append = if framing == Framing::Event { 1 } else { count as usize };
        for (i, first) in sequences.step_by(per_append).enumerate() {
            let at = i * per_append * stride;
            let data = all.slice(at..at + per_append * stride);
            let end = first + per_append as u64;
            self.connection.put_append(framing, writer, data, per_append, end.cast_signed())?;
            lane.under_way.push_back(Append { end, sent_ns: now_ns });
        }
        lane.sent += count;
        self.in_flight_bytes += count * stride as u64;
        let flushed = self.connection.flush();
        self.block.give_back(all);
        flushed
    }

    /// Waits until something comes and handles all of it.
    fn take_replies(&mut self, times: &Times) -> Result<(), BenchError> {
        self.connection.receive("appends were under way")?;
        let now = times.now_ns();
        while let Some(reply) = self.connection.buffered_reply()? {
            match reply {
                Reply::DataAppended { writer, event_number, .. } => {
                    self.acknowledge(times, writer, event_number, now)?
                }
                Reply::KeepAlive => {}
                reply => return Err(refused("an append", &reply)),
            }
        }
        Ok(())
    }

    fn acknowledge(
        &mut self,
        times: &Times,
        writer: WriterId,
        event_number: i64,
        now_ns: u64,
    ) -> Result<(), BenchError> {
        let first = self.lanes[0].writer;
        let lanes = self.lanes.len() as u64;
        let index = (writer.0.wrapping_sub(wire_id(first).0)).min(u128::from(u64::MAX)) as u64;
        let acknowledged = event_number.cast_unsigned();
        let lane = self.lanes.get_mut(index as usize);
        let lane = lane.filter(|lane| (lane.acknowledged + 1..=lane.sent).contains(&acknowledged));
        let Some(lane) = lane else {
            let reply = format!("an acknowledgement of event {event_number} of writer {writer:?}, not under way");
            return Err(BenchError::Refused { request: "an append", reply });
        };
        let counts = times.counts(now_ns);
        while let Some(append) = lane.under_way.pop_front_if(|append| append.end <= acknowledged) {
            self.appends += 1;
            let events = lane.acknowledged..append.end;
            let count = events.end - events.start;
            lane.acknowledged = append.end;
            self.in_flight_bytes -= count * self.block.stride() as u64;
            if counts {
                self.counted_events += count;
            }
            match self.load.pace {
                Pace::Closed if counts => self.latencies.record_many(now_ns - append.sent_ns, count),
                Pace::Closed => {}
                Pace::Open(schedule) => {
                    let due = events.map(|sequence| schedule.due(sequence * lanes + index));
                    due.filter(|due| times.counts(*due)).for_each(|due| {
                        self.latencies.record(now_ns.saturating_sub(due));
                    });
                }
            }
        }
        Ok(())
    }
}

/// A writer's id on the wire.
pub(crate) fn wire_id(writer: u64) -> WriterId {
    WriterId(WRITER_PREFIX | u128::from(writer))
}
