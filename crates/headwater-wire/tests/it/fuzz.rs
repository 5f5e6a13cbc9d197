//! The bodies of the fuzz targets. The fuzz package includes this file; here the bodies replay a small corpus and are
//! driven by the property tests.
//!
//! The first byte chooses what comes before the rest: even, nothing; odd, the handshake (and for a server a setup of two
//! writers). The rest is fed whole and again in pieces, and what comes out must be the same and account for every byte.

use bytes::{Buf, Bytes, BytesMut};
use headwater_wire::{
    APPEND_BYTES_MAX, ClientEnd, FRAME_PAYLOAD_BYTES_MAX, FrameQueue, Reply, Request, SERVER_FRAME_BYTES_MAX,
    ServerEnd, ServerEvent, SessionCommand, WireError,
};

/// Pieces in which the second run gets the bytes.
const PIECES: [usize; 5] = [1, 7, 8, 100, 3];

/// Client's hello, then writers 1 and 2 set up for segment `s`.
const SERVER_PRELUDE: &[u8] = b"\xff\xff\xff\x81\0\0\0\x08\0\0\0\x11\0\0\0\x05\
    \0\0\0\x01\0\0\0\x1d\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01s\0\0\
    \0\0\0\x01\0\0\0\x1d\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01s\0\0";

/// Server's hello.
const CLIENT_PRELUDE: &[u8] = b"\xff\xff\xff\x81\0\0\0\x08\0\0\0\x11\0\0\0\x05";

/// Bytes of the input given to a machine.
fn with_prelude(bytes: &[u8], prelude: &[u8]) -> Vec<u8> {
    match bytes.split_first() {
        Some((first, rest)) if first % 2 == 1 => [prelude, rest].concat(),
        Some((_, rest)) => rest.to_vec(),
        None => Vec::new(),
    }
}

/// Runs a machine over the bytes, in pieces of these lengths over and over, until they are used up or it fails.
fn run<T>(
    bytes: &[u8],
    pieces: &[usize],
    mut next: impl FnMut(&mut BytesMut) -> (Result<Option<T>, WireError>, usize),
) -> (Vec<T>, Option<WireError>) {
    let (mut input, mut left, mut out) = (BytesMut::new(), bytes, Vec::new());
    for piece in pieces.iter().cycle() {
        let (now, later) = left.split_at(left.len().min(*piece));
        input.extend_from_slice(now);
        left = later;
        loop {
            match next(&mut input) {
                (Ok(Some(one)), _) => out.push(one),
                (Ok(None), wanted) => {
                    assert!((1..=8 + FRAME_PAYLOAD_BYTES_MAX).contains(&wanted), "{wanted} bytes wanted");
                    break;
                }
                (Err(error), _) => return (out, Some(error)),
            }
        }
        if left.is_empty() {
            return (out, None);
        }
    }
    unreachable!("there are pieces")
}

/// Bytes that a list holds besides what its items point to.
fn list_bytes<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

/// Feeds arbitrary bytes to a server end.
pub(crate) fn fuzz_server(bytes: &[u8]) {
    let bytes = with_prelude(bytes, SERVER_PRELUDE);
    let serve = |pieces: &[usize]| {
        let mut end = ServerEnd::new();
        run(&bytes, pieces, |input| {
            let event = end.next_event(input);
            (event, end.wanted())
        })
    };
    let whole = serve(&[usize::MAX]);
    assert_eq!(whole, serve(&PIECES), "the cuts are seen by nobody");
    let mut given = 0;
    for event in &whole.0 {
        given += match event {
            ServerEvent::Append(append) => {
                assert!(append.event_count > 0 && append.last_event_number >= 0);
                assert!(append.data.len() <= APPEND_BYTES_MAX && append.slot < bytes.len());
                append.data.len()
            }
            ServerEvent::Request(request) => {
                assert!(request_list_bytes(request) <= SERVER_FRAME_BYTES_MAX, "lists stay below the frame limit");
                check_request_encodes_back(request)
            }
            ServerEvent::SetupAppend(setup) => setup.segment.len() + setup.token.as_str().len(),
            ServerEvent::Hello { .. } | ServerEvent::Incompatible { .. } | ServerEvent::KeepAlive => 0,
        };
    }
    // Optional fields that were left out are written, at most 13 bytes of them per frame of at least 16.
    assert!(given <= 2 * bytes.len(), "{given} bytes out of {}", bytes.len());
}

fn request_list_bytes(request: &Request) -> usize {
    match request {
        Request::MergeSegments { attribute_updates, .. } => list_bytes(attribute_updates),
        Request::UpdateTableEntries { entries, .. } => list_bytes(entries),
        Request::RemoveTableKeys { keys, .. } | Request::ReadTable { keys, .. } => list_bytes(keys),
        Request::MergeSegmentsBatch { sources, .. } => list_bytes(sources),
        _ => 0,
    }
}

fn check_request_encodes_back(request: &Request) -> usize {
    let mut frame = BytesMut::new();
    // Only the defaults of a request that filled its frame to the last byte may lift it above the limit.
    let Ok(()) = request.encode(&mut frame) else { return 0 };
    let frame = frame.freeze();
    assert_eq!(Request::from_frame(&frame).as_ref(), Ok(request));
    frame.len()
}

/// Feeds arbitrary bytes to a client end.
pub(crate) fn fuzz_client(bytes: &[u8]) {
    let bytes = with_prelude(bytes, CLIENT_PRELUDE);
    let receive = |pieces: &[usize]| {
        let mut end = ClientEnd::connect(&mut FrameQueue::new());
        run(&bytes, pieces, |input| {
            let reply = end.next_reply(input);
            (reply, end.wanted())
        })
    };
    let whole = receive(&[usize::MAX]);
    assert_eq!(whole, receive(&PIECES), "the cuts are seen by nobody");
    for reply in &whole.0 {
        let held = match reply {
            Reply::StorageChunksListed { chunks, .. } => list_bytes(chunks),
            Reply::TableEntriesUpdated { versions, .. } => list_bytes(versions),
            Reply::TableKeysRead { keys, .. } => list_bytes(keys),
            Reply::TableRead { entries, .. }
            | Reply::TableEntriesRead { entries, .. }
            | Reply::TableEntriesDeltaRead { entries, .. } => list_bytes(entries),
            Reply::SegmentsBatchMerged { merged, .. } => list_bytes(merged),
            _ => 0,
        };
        assert!(held <= FRAME_PAYLOAD_BYTES_MAX, "lists stay below the frame limit");
        let mut queue = FrameQueue::new();
        if reply.encode(&mut queue).is_ok() {
            let frame: Bytes = queue.copy_to_bytes(queue.remaining());
            assert_eq!(Reply::from_frame(&frame).as_ref(), Ok(reply));
        }
    }
    // A hello decodes the same in both directions.
    if let Some(Reply::Hello { high_version, low_version }) = whole.0.first() {
        let hello = SessionCommand::Hello { high_version: *high_version, low_version: *low_version };
        let mut frame = BytesMut::new();
        hello.encode(&mut frame).expect("16 bytes");
        assert_eq!(SessionCommand::from_frame(&frame.freeze()), Ok(hello));
    }
}
