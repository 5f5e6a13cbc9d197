//! The segment store's side of the null server: one thread per connection, an acknowledgement for each append.

use std::collections::BTreeMap;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bytes::{Buf, BytesMut};
use headwater_wire::{FrameQueue, Reply, Request, ServerEnd, ServerEvent, Text};

const RECEIVE_BYTES: usize = 256 << 10;

/// Lengths of the segments that were written to; nothing else is remembered.
type Lengths = Arc<Mutex<BTreeMap<Text, i64>>>;

/// Accepts connections for as long as the process lives.
pub(crate) fn serve(listener: &TcpListener) {
    let lengths = Lengths::default();
    for socket in listener.incoming().flatten() {
        let lengths = lengths.clone();
        std::thread::spawn(move || {
            // A client that breaks off or the protocol is told nothing, as by any server.
            let _ = connection(socket, &lengths);
        });
    }
}

/// Of one writer on one connection.
struct Writer {
    segment: Text,
    last: i64,
}

fn connection(mut socket: TcpStream, lengths: &Lengths) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (mut end, mut input, mut out) = (ServerEnd::new(), BytesMut::new(), FrameQueue::new());
    let mut writers: Vec<Writer> = Vec::new();
    loop {
        let before = input.len();
        input.resize(before + RECEIVE_BYTES, 0);
        let count = socket.read(&mut input[before..]);
        input.truncate(before + *count.as_ref().unwrap_or(&0));
        if count? == 0 {
            return Ok(());
        }
        while let Some(event) =
            end.next_event(&mut input).map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?
        {
            let reply = answer(event, &mut writers, lengths);
            reply.encode(&mut out).map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?;
        }
        while out.has_remaining() {
            let mut pieces = [IoSlice::new(&[]); 16];
            let count = out.chunks_vectored(&mut pieces);
            let written = socket.write_vectored(&pieces[..count])?;
            out.advance(written);
        }
    }
}

fn answer(event: ServerEvent, writers: &mut Vec<Writer>, lengths: &Lengths) -> Reply {
    match event {
        ServerEvent::Hello { .. } | ServerEvent::Incompatible { .. } => Reply::hello(),
        ServerEvent::KeepAlive => Reply::KeepAlive,
        ServerEvent::SetupAppend(setup) => {
            let writer = Writer { segment: setup.segment.clone(), last: i64::MIN };
            match writers.get_mut(setup.slot) {
                Some(known) => *known = writer,
                None => writers.push(writer),
            }
            Reply::AppendSetup {
                request_id: setup.request_id,
                segment: setup.segment,
                writer: setup.writer,
                last_event_number: i64::MIN,
            }
        }
        ServerEvent::Append(append) => {
            let writer = &mut writers[append.slot];
            let mut lengths = lengths.lock().expect("no connection panics while it counts");
            let length = lengths.entry(writer.segment.clone()).or_default();
            *length += append.data.len() as i64;
            Reply::DataAppended {
                writer: append.writer,
                event_number: append.last_event_number,
                previous_event_number: std::mem::replace(&mut writer.last, append.last_event_number),
                request_id: append.request_id,
                segment_length: *length,
            }
        }
        ServerEvent::Request(request) => request_answer(request, lengths),
    }
}

fn request_answer(request: Request, lengths: &Lengths) -> Reply {
    match request {
        Request::CreateSegment { request_id, segment, .. } => Reply::SegmentCreated { request_id, segment },
        Request::SealSegment { request_id, segment, .. } => Reply::SegmentSealed { request_id, segment },
        Request::DeleteSegment { request_id, segment, .. } => Reply::SegmentDeleted { request_id, segment },
        Request::TruncateSegment { request_id, segment, .. } => Reply::SegmentTruncated { request_id, segment },
        Request::GetSegmentAttribute { request_id, .. } => Reply::SegmentAttribute { request_id, value: i64::MIN },
        Request::GetStreamSegmentInfo { request_id, segment, .. } => {
            let lengths = lengths.lock().expect("no connection panics while it counts");
            let write_offset = lengths.get(&segment).copied().unwrap_or_default();
            Reply::StreamSegmentInfo {
                request_id,
                segment,
                exists: true,
                sealed: false,
                deleted: false,
                last_modified: 0,
                write_offset,
                // Nothing can be read: all of it is gone.
                start_offset: write_offset,
            }
        }
        other => Reply::OperationUnsupported {
            request_id: other.request_id(),
            operation: other.name().into(),
            trace: Text::default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Violation;
    use crate::connection::{Connection, Framing};
    use crate::error::BenchError;
    use crate::verify::length_of_stream;
    use bytes::Bytes;
    use headwater_types::WriterId;

    /// Where a server of these segments listens.
    fn served() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || serve(&listener));
        address
    }

    #[test]
    fn a_stream_that_is_not_as_long_as_its_events_violates_integrity() {
        let address = served();
        let mut client = Connection::open(&address).unwrap();
        client.set_up(WriterId(5), &"bench/stream/0.#epoch.0".into()).unwrap();
        client.append(Framing::End, WriterId(5), Bytes::from_static(&[0; 216]), 2, 2).unwrap();
        // Each of 100 bytes behind a header of 8.
        length_of_stream(&address, "stream", 100, 2).unwrap();
        for (events, expected) in [(1, 108), (3, 324)] {
            match length_of_stream(&address, "stream", 100, events) {
                Err(BenchError::Integrity { source, .. }) => {
                    assert_eq!(source, Violation::Length { expected, found: 216 });
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn appends_are_acknowledged_and_reads_are_refused() {
        let address = served();
        let mut client = Connection::open(&address).unwrap();
        let segment: Text = "scope/stream/0.#epoch.0".into();
        client.create(std::slice::from_ref(&segment)).unwrap();
        client.put_setup(WriterId(5), &segment).unwrap();
        client.put_append(Framing::Block, WriterId(5), Bytes::from_static(b"twelve bytes"), 2, 2).unwrap();
        client.put_append(Framing::End, WriterId(5), Bytes::from_static(b"more"), 1, 3).unwrap();
        client.flush().unwrap();
        assert!(matches!(client.reply("").unwrap(), Reply::AppendSetup { last_event_number: i64::MIN, .. }));
        for (number, previous, length) in [(2, i64::MIN, 12), (3, 2, 16)] {
            match client.reply("").unwrap() {
                Reply::DataAppended { event_number, previous_event_number, segment_length, .. } => {
                    assert_eq!((event_number, previous_event_number, segment_length), (number, previous, length));
                }
                other => panic!("{other:?}"),
            }
        }
        let read = client.ask(|request_id| Request::ReadSegment {
            segment,
            offset: 0,
            suggested_length: 10,
            token: Default::default(),
            request_id,
        });
        assert!(matches!(read.unwrap(), Reply::OperationUnsupported { .. }));
    }
}
