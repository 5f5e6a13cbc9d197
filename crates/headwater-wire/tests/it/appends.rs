//! What the server end makes of the append path, and the two ends talking to each other.

use bytes::{Buf, Bytes, BytesMut};
use headwater_types::WriterId;
use headwater_wire::{
    Append, AppendCommand, ClientEnd, FrameQueue, OutgoingAppend, Rest, ServerEnd, ServerEvent, Text, Token,
    WRITERS_MAX, WireError,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{Command, SEG, W, hello, serve, serve_cut_everywhere, set_up, split_frames, unhex};

const OTHER: WriterId = WriterId(7);

fn block(writer: WriterId, data: &[u8]) -> Bytes {
    let data = Rest(Bytes::copy_from_slice(data));
    Command::Append(AppendCommand::AppendBlock { writer, data }).encode().expect("fits")
}

fn end(writer: WriterId, whole_bytes: i32, data: &[u8], event_count: i32, last_event_number: i64) -> Bytes {
    let data = Bytes::copy_from_slice(data);
    let end =
        AppendCommand::AppendBlockEnd { writer, whole_bytes, data, event_count, last_event_number, request_id: 3 };
    Command::Append(end).encode().expect("fits")
}

/// A filler as it stands inside a block.
fn filler(code: i32, payload: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), &(payload.len() as i32).to_be_bytes(), payload].concat()
}

fn appends(events: &[ServerEvent]) -> Vec<&Append> {
    events
        .iter()
        .filter_map(|event| match event {
            ServerEvent::Append(append) => Some(append),
            _ => None,
        })
        .collect()
}

/// Feeds the frames after hello and a setup of [`W`]; gives the data of the appends or the error's text.
#[track_caller]
fn outcome(frames: &[Bytes]) -> Result<Vec<Vec<u8>>, String> {
    let (events, end) = serve_cut_everywhere(&frames.concat());
    match end {
        Ok(_) => Ok(appends(&events).iter().map(|append| append.data.to_vec()).collect()),
        Err(error) => Err(error.to_string()),
    }
}

/// Name, block, bytes of whole events, the end's data, what comes of it.
type BlockCase<'a, T> = (&'a str, Vec<u8>, i32, &'a [u8], T);

#[test]
fn every_block_and_end_that_fit_together_become_one_append() {
    let join = |parts: &[&[u8]]| parts.concat();
    let cases: [BlockCase<'_, &[u8]>; 9] = [
        ("exact", b"abc".to_vec(), 3, b"", b"abc"),
        ("nothing at all", b"".to_vec(), 0, b"", b""),
        ("padding of no bytes", join(&[b"abc", &filler(-1, b"")]), 3, b"", b"abc"),
        ("padding", join(&[b"abc", &filler(-1, b"000")]), 3, b"", b"abc"),
        ("only padding", filler(-1, b"000"), 0, b"", b""),
        ("partial event", join(&[b"abc", &filler(-2, b"de")]), 3, b"fg", b"abcdefg"),
        ("partial event that is whole", join(&[b"abc", &filler(-2, b"de")]), 3, b"", b"abcde"),
        ("partial event that has not begun", join(&[b"abc", &filler(-2, b"")]), 3, b"fg", b"abcfg"),
        ("only a partial event", filler(-2, b"de"), 0, b"fg", b"defg"),
    ];
    for (name, data, whole, rest, expected) in cases {
        let result = outcome(&[block(W, &data), end(W, whole, rest, 1, 1)]);
        assert_eq!(result, Ok(vec![expected.to_vec()]), "{name}");
    }
}

#[test]
fn a_block_and_an_end_that_contradict_each_other_close_the_connection() {
    let join = |parts: &[&[u8]]| parts.concat();
    let not_a_filler = "filler is neither padding nor a partial event of the right length";
    let cases: [BlockCase<'_, &str>; 9] = [
        ("more whole events than block", b"abc".to_vec(), 4, b"", "4 bytes of whole events"),
        ("negative whole events", b"abc".to_vec(), -1, b"", "-1 bytes of whole events"),
        ("data behind a full block", b"abc".to_vec(), 3, b"d", "end carries 1 bytes that continue no partial event"),
        ("data behind padding", filler(-1, b"0"), 0, b"d", "end carries 1 bytes that continue no partial event"),
        ("filler without room for a header", b"abcdefg".to_vec(), 0, b"", not_a_filler),
        ("filler too short", join(&[&filler(-1, b"0"), b"0"]), 0, b"", not_a_filler),
        ("filler too long", filler(-2, b"000")[..10].to_vec(), 0, b"", not_a_filler),
        ("an event as filler", filler(0, b"000"), 0, b"", not_a_filler),
        ("filler of negative length", [0xff; 8].to_vec(), 0, b"", not_a_filler),
    ];
    for (name, data, whole, rest, expected) in cases {
        let result = outcome(&[block(W, &data), end(W, whole, rest, 1, 1)]);
        assert_eq!(result, Err(format!("append block of {} bytes: {expected}", data.len())), "{name}");
    }
}

#[test]
fn only_the_end_of_the_same_writer_may_follow_a_block() {
    let two = [set_up(OTHER, SEG), block(W, b"abc")];
    let followed_by = |frame: Bytes| outcome(&[two[0].clone(), two[1].clone(), frame]).unwrap_err();
    assert_eq!(followed_by(end(OTHER, 3, b"", 1, 1)), "append block of 3 bytes: end names another writer");
    for (code, frame) in [
        (3, block(W, b"abc")),
        (1, set_up(W, SEG)),
        (-1, Bytes::from(filler(-1, b"0"))),
        (-127, hello()),
        (100, unhex("00000064 00000000")),
        (11, unhex("0000000b 00000023 0000000000000005001773636f70652f73747265616d2f302e2365706f63682e300000")),
        (77, unhex("0000004d 00000000")),
    ] {
        assert_eq!(followed_by(frame), format!("command code {code} inside an open append block"));
    }
}

#[test]
fn data_of_a_writer_that_was_not_set_up_closes_the_connection() {
    let (event_number, expected_offset, request_id) = (1, 0, 1);
    let event = headwater_wire::Event::new(b"x").expect("small");
    let conditional =
        AppendCommand::ConditionalAppend { writer: OTHER, event_number, expected_offset, event, request_id };
    let data = Bytes::from_static(b"x");
    let raw = AppendCommand::ConditionalBlockEnd { writer: OTHER, event_number, expected_offset, data, request_id };
    for (command, frame) in [
        ("AppendBlock", block(OTHER, b"x")),
        ("AppendBlockEnd", end(OTHER, 1, b"x", 1, 1)),
        ("ConditionalAppend", Command::Append(conditional).encode().expect("fits")),
        ("ConditionalBlockEnd", Command::Append(raw).encode().expect("fits")),
    ] {
        let error = serve_cut_everywhere(&frame).1;
        assert_eq!(error, Err(WireError::WriterNotSetUp { command, writer: OTHER }));
    }
}

#[test]
fn an_append_counts_at_least_one_event() {
    for count in [0, -1, i32::MIN] {
        assert_eq!(outcome(&[end(W, 1, b"x", count, 1)]), Err(format!("append of {count} events")));
    }
    assert_eq!(outcome(&[end(W, 1, b"x", i32::MAX, 1)]), Ok(vec![b"x".to_vec()]));
}

#[test]
fn event_numbers_of_a_writer_do_not_go_back() {
    let number = |number| end(W, 1, b"x", 1, number);
    assert_eq!(outcome(&[number(5), number(4)]), Err("event number 4 after 5".into()));
    assert_eq!(outcome(&[number(-1)]), Err("event number -1 after 0".into()));
    // Whether an equal number is stale is for the segment to say.
    assert_eq!(outcome(&[number(0), number(0), number(9), number(9)]).map(|data| data.len()), Ok(4));
    // A setup asks the segment again, so numbers start over.
    assert_eq!(outcome(&[number(5), set_up(W, SEG), number(4)]).map(|data| data.len()), Ok(2));
}

#[test]
fn data_follows_the_latest_setup_of_its_writer() {
    let frames = [
        end(W, 1, b"a", 1, 1),
        set_up(OTHER, "other"),
        set_up(W, "second"),
        end(OTHER, 1, b"b", 1, 1),
        end(W, 1, b"c", 1, 1),
    ];
    let (events, _) = serve_cut_everywhere(&frames.concat());
    let seen: Vec<_> = appends(&events).iter().map(|a| (a.slot, a.segment.to_string(), a.data.clone())).collect();
    let expected = [(0, SEG, "a"), (1, "other", "b"), (0, "second", "c")];
    assert_eq!(seen, expected.map(|(slot, segment, data)| (slot, segment.to_string(), Bytes::from(data))));
}

#[test]
fn a_connection_sets_up_a_bounded_number_of_writers() {
    let mut bytes = BytesMut::from(&hello()[..]);
    for writer in 0..WRITERS_MAX {
        bytes.extend_from_slice(&set_up(WriterId(writer as u128), SEG));
    }
    let (events, end) = serve(&[&bytes, &set_up(WriterId(3), "again")]);
    assert_eq!(end, Ok(8));
    let slots: Vec<_> = events
        .iter()
        .filter_map(|event| if let ServerEvent::SetupAppend(setup) = event { Some(setup.slot) } else { None })
        .collect();
    assert_eq!(slots, (0..WRITERS_MAX).chain([3]).collect::<Vec<_>>());
    assert_eq!(serve(&[&bytes, &set_up(OTHER, "again"), &set_up(W, SEG)]).1, Err(WireError::TooManyWriters));
}

#[test]
fn a_segment_name_longer_than_any_is_not_remembered() {
    assert_eq!(outcome(&[set_up(W, &"s".repeat(1024))]), Ok(vec![]));
    assert_eq!(
        serve(&[&hello(), &set_up(W, &"s".repeat(1025))]).1.unwrap_err().to_string(),
        "SetupAppend, field segment: segment name of 1025 bytes, limit 1024"
    );
}

/// Feeds frames as one buffer and gives the append's data together with the address range of that buffer.
fn data_of(frames: &[Bytes]) -> (Bytes, std::ops::Range<*const u8>) {
    let (mut end, mut input) = (ServerEnd::new(), BytesMut::from(&frames.concat()[..]));
    let buffer = input.as_ptr_range();
    while let Some(event) = end.next_event(&mut input).expect("well-formed") {
        if let ServerEvent::Append(append) = event {
            return (append.data, buffer);
        }
    }
    panic!("no append");
}

#[test]
fn a_large_append_is_a_slice_of_what_was_fed_and_a_small_one_is_not() {
    let large = vec![7; 100_000];
    for (data, frames, shared) in [
        (&large[..], vec![end(W, 0, &large, 1, 1)], true),
        (&large[..], vec![block(W, &large), end(W, 100_000, b"", 1, 1)], true),
        (&large[..], vec![block(W, &[&large[..], &filler(-1, b"")].concat()), end(W, 100_000, b"", 1, 1)], true),
        (&large[..], vec![block(W, &filler(-2, &large)), end(W, 0, b"", 1, 1)], true),
        (b"small", vec![end(W, 0, b"small", 1, 1)], false),
        (b"small", vec![block(W, b"small"), end(W, 5, b"", 1, 1)], false),
    ] {
        let (seen, buffer) = data_of(&[vec![hello(), set_up(W, SEG)], frames].concat());
        assert_eq!(seen, data);
        assert_eq!(buffer.contains(&seen.as_ptr()), shared, "{} bytes", data.len());
    }
}

#[test]
fn small_appends_leave_the_read_buffer_to_be_used_again() {
    let (mut server, mut input) = (ServerEnd::new(), BytesMut::with_capacity(64 * 1024));
    input.extend_from_slice(&[hello(), set_up(W, SEG)].concat());
    let allocation = input.as_ptr_range();
    let allocation = allocation.start..allocation.start.wrapping_add(64 * 1024);
    let mut kept = Vec::new();
    for number in 0..100 {
        input.extend_from_slice(&end(W, 0, &[1; 10_000], 1, number));
        while let Some(event) = server.next_event(&mut input).expect("well-formed") {
            kept.push(event);
        }
        input.reserve(server.wanted().max(16_000));
        assert!(allocation.contains(&input.as_ptr()), "no new buffer after append {number}");
    }
    assert_eq!(appends(&kept).len(), 100);
}

#[test]
fn the_largest_event_of_a_client_passes() {
    let event = vec![1; 8_388_616];
    let (mut server, mut input) = (ServerEnd::new(), BytesMut::new());
    input.extend_from_slice(&[hello(), set_up(W, SEG), end(W, 8_388_616, &event, 1, 1)].concat());
    let mut events = Vec::new();
    while let Some(event) = server.next_event(&mut input).expect("well-formed") {
        events.push(event);
    }
    assert_eq!(appends(&events)[0].data, event);
}

/// A client that does as the recorded ones did writes the recorded bytes.
#[test]
fn the_client_end_writes_blocks_as_the_published_clients_do() {
    let outgoing = |data: &'static [u8], event_count, last_event_number, request_id| OutgoingAppend {
        request_id,
        writer: W,
        data: Bytes::from_static(data),
        event_count,
        last_event_number,
    };
    let (hello_event, pravega_event) = (b"\0\0\0\0\0\0\0\x05hello", b"\0\0\0\0\0\0\0\x07pravega");
    let id = 0x0000_0001_0000_0000;
    let written = |write: &dyn Fn(&mut ClientEnd, &mut BytesMut)| {
        let mut out = BytesMut::new();
        let mut client = ClientEnd::connect(&mut out);
        assert_eq!(out.split(), hello());
        write(&mut client, &mut out);
        out.freeze()
    };

    let exact = written(&|client, out| {
        client.append_block(outgoing(hello_event, 1, 1, id), out).expect("fits");
    });
    assert_eq!(
        exact,
        unhex(
            "000000030000001d000102030405060708090a0b0c0d0e0f000000000000000568656c6c6f
             000000040000002c000102030405060708090a0b0c0d0e0f0000000d000000000000000100000000000000010000000100000000"
        )
    );

    let filled = written(&|client, out| {
        client.open_block(outgoing(hello_event, 1, 1, id), 24, out).expect("fits");
        assert_eq!(client.append_to_block(&outgoing(pravega_event, 1, 2, id), out), Ok(true));
        assert_eq!(client.append_to_block(&outgoing(pravega_event, 1, 3, id), out), Ok(false), "it is closed");
    });
    assert_eq!(
        filled,
        unhex(
            "0000000300000030000102030405060708090a0b0c0d0e0f000000000000000568656c6c6f
             fffffffe0000000b000000000000000770726100000004000000300001020304050607
             08090a0b0c0d0e0f0000000d00000004766567610000000200000000000000020000000100000000"
        )
    );

    let broken = written(&|client, out| {
        client.open_block(outgoing(hello_event, 1, 1, id), 24, out).expect("fits");
        client.break_block(out);
        client.break_block(out);
    });
    assert_eq!(
        broken,
        unhex(
            "0000000300000030000102030405060708090a0b0c0d0e0f000000000000000568656c6c6f
             ffffffff0000000b0000000000000000000000
             000000040000002c000102030405060708090a0b0c0d0e0f0000000d000000000000000100000000000000010000000100000000"
        )
    );

    let lone = written(&|client, out| {
        let both = OutgoingAppend { data: [&hello_event[..], pravega_event].concat().into(), ..outgoing(b"", 2, 2, 7) };
        client.append(both, out).expect("fits");
    });
    assert_eq!(
        lone,
        unhex(
            "0000000400000048000102030405060708090a0b0c0d0e0f0000001c0000001c000000000000000568656c6c6f
             0000000000000007707261766567610000000200000000000000020000000000000007"
        )
    );
}

#[test]
fn an_append_that_leaves_no_room_closes_its_block() {
    let outgoing = |data: &'static [u8], last_event_number| OutgoingAppend {
        request_id: 1,
        writer: W,
        data: Bytes::from_static(data),
        event_count: 1,
        last_event_number,
    };
    for (second, closes) in [(&b"de"[..], false), (b"def", true), (b"defg", true)] {
        let mut out = BytesMut::new();
        let mut client = ClientEnd::connect(&mut out);
        client.set_up_append(1, W, SEG.into(), Token::default(), &mut out).expect("fits");
        client.open_block(outgoing(b"abc", 1), 6, &mut out).expect("fits");
        assert_eq!(client.append_to_block(&outgoing(second, 2), &mut out), Ok(true));
        assert_eq!(client.append_to_block(&outgoing(b"", 3), &mut out), Ok(!closes), "{second:?}");
        client.break_block(&mut out);
        let (events, end) = serve(&[&out]);
        assert_eq!(end, Ok(8));
        let data: Vec<_> = appends(&events).iter().map(|append| append.data.to_vec()).collect();
        assert_eq!(data, [[b"abc", second].concat()]);
    }
}

#[test]
fn every_other_command_closes_the_open_block_first() {
    let outgoing = OutgoingAppend {
        request_id: 1,
        writer: W,
        data: Bytes::from_static(b"abc"),
        event_count: 1,
        last_event_number: 1,
    };
    type Send<'a> = &'a dyn Fn(&mut ClientEnd, &mut BytesMut);
    let sends: [Send<'_>; 6] = [
        &|client, out| client.keep_alive(out),
        &|client, out| client.set_up_append(1, OTHER, "s".into(), Token::default(), out).expect("fits"),
        &|client, out| client.append(outgoing.clone(), out).expect("fits"),
        &|client, out| client.append_event_at(outgoing.clone(), 3, out).expect("fits"),
        &|client, out| client.open_block(outgoing.clone(), 100, out).expect("fits"),
        &|client, out| {
            let seal =
                headwater_wire::Request::SealSegment { request_id: 1, segment: "s".into(), token: Token::default() };
            client.request(&seal, out).expect("fits");
        },
    ];
    for send in sends {
        let mut out = BytesMut::new();
        let mut client = ClientEnd::connect(&mut out);
        client.set_up_append(1, W, SEG.into(), Token::default(), &mut out).expect("fits");
        client.open_block(outgoing.clone(), 100, &mut out).expect("fits");
        send(&mut client, &mut out);
        client.break_block(&mut out);
        let (events, end) = serve(&[&out]);
        assert_eq!(end, Ok(8));
        assert!(matches!(&events[2], ServerEvent::Append(append) if append.data == "abc"), "{:?}", events[2]);
        assert_eq!(events.len(), 4, "then the other command");
    }
}

#[test]
fn a_command_that_cannot_be_sent_leaves_no_trace() {
    let mut out = BytesMut::new();
    let mut client = ClientEnd::connect(&mut out);
    let small = OutgoingAppend {
        request_id: 1,
        writer: W,
        data: Bytes::from_static(b"abc"),
        event_count: 1,
        last_event_number: 1,
    };
    let large = OutgoingAppend { data: Bytes::from(vec![0; 16_777_207]), ..small.clone() };
    client.open_block(small.clone(), 100, &mut out).expect("fits");
    let before = out.len();
    assert!(client.append(large.clone(), &mut out).is_err());
    assert!(client.append_block(large.clone(), &mut out).is_err());
    assert!(client.open_block(large.clone(), 16_777_300, &mut out).is_err());
    assert!(client.append_event_at(large.clone(), 0, &mut out).is_err());
    assert!(client.append_at(small.clone(), 0, &mut out).is_err(), "the server has not said its version");
    assert!(client.set_up_append(1, W, "s".repeat(65_536).into(), Token::default(), &mut out).is_err());
    let long = headwater_wire::Request::ReadSegment {
        segment: "s".repeat(65_536).into(),
        offset: 0,
        suggested_length: 1,
        token: Token::default(),
        request_id: 1,
    };
    assert!(client.request(&long, &mut out).is_err());
    assert_eq!(out.len(), before);
    assert_eq!(client.append_to_block(&small, &mut out), Ok(true), "the block is still open");
    // One frame takes the end's data but not much more than the frame limit.
    let too_much = OutgoingAppend { data: Bytes::from(vec![0; 16_777_300]), ..small };
    let before = out.len();
    assert!(client.append_to_block(&too_much, &mut out).is_err());
    assert_eq!(out.len(), before);
}

/// One thing a writer does.
#[derive(Clone, Debug)]
enum Step {
    Lone,
    Block,
    Open { room: usize },
    KeepAlive,
    Conditional { offset: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Lone),
        Just(Step::Block),
        (0_usize..300).prop_map(|room| Step::Open { room }),
        Just(Step::KeepAlive),
        any::<i64>().prop_map(|offset| Step::Conditional { offset }),
    ]
}

proptest! {
    /// However a client packs what its writers write and however the bytes are cut, the server sees for each writer
    /// the same bytes, the same number of events and the same last number.
    #[test]
    fn appends_arrive_as_they_were_written(
        steps in vec((step(), 0_usize..3, vec(any::<u8>(), 0..120)), 1..40),
        pieces in vec(1_usize..200, 1..20),
    ) {
        let mut out = FrameQueue::new();
        let mut client = ClientEnd::connect(&mut out);
        client.next_reply(&mut BytesMut::from(&hello()[..])).expect("hello of the server");
        let segments: Vec<Text> = (0..3).map(|index| format!("segment{index}").into()).collect();
        for (index, segment) in segments.iter().enumerate() {
            client.set_up_append(0, WriterId(index as u128), segment.clone(), Token::default(), &mut out).expect("fits");
        }
        let mut written = vec![(Vec::new(), 0, 0); 3];
        for (number, (step, writer, data)) in steps.into_iter().enumerate() {
            let last_event_number = number as i64 + 1;
            let append = OutgoingAppend {
                request_id: writer as i64,
                writer: WriterId(writer as u128),
                data: data.into(),
                event_count: 1,
                last_event_number,
            };
            let data = append.data.clone();
            match step {
                Step::KeepAlive => {
                    client.keep_alive(&mut out);
                    continue;
                }
                Step::Lone => client.append(append, &mut out).expect("fits"),
                Step::Block => client.append_block(append, &mut out).expect("fits"),
                Step::Conditional { offset } => client.append_at(append, offset, &mut out).expect("fits"),
                Step::Open { room } => {
                    if !client.append_to_block(&append, &mut out).expect("fits") {
                        client.open_block(append, room, &mut out).expect("fits");
                    }
                }
            }
            written[writer].0.extend_from_slice(&data);
            written[writer].1 += 1;
            written[writer].2 = last_event_number;
        }
        client.break_block(&mut out);

        let sent = out.copy_to_bytes(out.remaining());
        prop_assert!(split_frames(sent.clone()).iter().all(|frame| Command::from_frame(frame).is_ok()));
        let mut cuts = pieces.into_iter().cycle();
        let (mut left, mut cut) = (&sent[..], Vec::new());
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(cuts.next().expect("cycles")));
            cut.push(piece);
            left = rest;
        }
        let (events, end) = serve(&cut);
        prop_assert_eq!(end, Ok(8));
        let mut seen = vec![(Vec::new(), 0, 0); 3];
        for append in appends(&events) {
            prop_assert_eq!(&append.segment, &segments[append.slot]);
            prop_assert_eq!(append.request_id, append.slot as i64);
            seen[append.slot].0.extend_from_slice(&append.data);
            seen[append.slot].1 += append.event_count;
            seen[append.slot].2 = append.last_event_number;
        }
        prop_assert_eq!(seen, written);
    }
}
