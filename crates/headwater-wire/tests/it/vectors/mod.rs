//! Frames computed from the published layouts, independently of this crate: each decodes to what it says, encodes back
//! byte for byte, and comes out of the machines the same however it is cut.

use expect_test::Expect;
use headwater_wire::Reply;

use crate::support::{Command, encode_reply, receive_cut_everywhere, serve_cut_everywhere, split_frames, unhex};

mod appends;
mod failures;
mod segments;
mod tables;

/// Frames of a client: checks each by itself, and what a server makes of all of them together.
#[track_caller]
fn check_client(hex: &str, expect: Expect) {
    let bytes = unhex(hex);
    for frame in split_frames(bytes.clone()) {
        let command = Command::from_frame(&frame).expect("well-formed");
        assert_eq!(command.encode().expect("within limits"), frame, "{command:?} encodes back");
    }
    let (events, end) = serve_cut_everywhere(&bytes);
    assert_eq!(end, Ok(8), "nothing is left but the wish for a header");
    expect.assert_eq(&events.iter().map(|event| format!("{event:#?}\n")).collect::<String>());
}

/// The frame of an older client: means the same as `newest`, which is how it encodes back.
#[track_caller]
fn check_short_form(hex: &str, newest: &str) {
    let (bytes, newest) = (unhex(hex), unhex(newest));
    let command = Command::from_frame(&bytes).expect("well-formed");
    assert_eq!(command, Command::from_frame(&newest).expect("well-formed"));
    assert_eq!(command.encode().expect("within limits"), newest);
    assert_eq!(serve_cut_everywhere(&bytes), serve_cut_everywhere(&newest));
}

/// Frames of a server.
#[track_caller]
fn check_server(hex: &str, expect: Expect) {
    let bytes = unhex(hex);
    let reply = Reply::from_frame(&bytes).expect("well-formed");
    assert_eq!(encode_reply(&reply), bytes, "{reply:?} encodes back");
    let (replies, end) = receive_cut_everywhere(&bytes);
    assert_eq!((replies, end), (vec![reply.clone()], Ok(8)));
    expect.assert_eq(&format!("{reply:#?}\n"));
}
