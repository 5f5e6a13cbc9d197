//! Frames computed from the published layouts, independently of this crate: each decodes to what it says, encodes back
//! byte for byte, and comes out of the machines the same however it is cut.

use expect_test::{Expect, expect};
use headwater_wire::Reply;

use crate::support::{Command, encode_reply, receive_cut_everywhere, serve_cut_everywhere, split_frames, unhex};

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

#[test]
fn hello_of_a_client() {
    check_client(
        "ffffff81 00000008 0000001100000005",
        expect![[r#"
        Hello {
            high_version: 17,
            low_version: 5,
        }
    "#]],
    );
}

#[test]
fn hello_of_a_server() {
    check_server(
        "ffffff81 00000008 0000001100000005",
        expect![[r#"
        Hello {
            high_version: 17,
            low_version: 5,
        }
    "#]],
    );
}

#[test]
fn keep_alive_of_a_client() {
    check_client(
        "00000064 00000000",
        expect![[r#"
        KeepAlive
    "#]],
    );
}

#[test]
fn keep_alive_of_a_server() {
    check_server(
        "00000064 00000000",
        expect![[r#"
        KeepAlive
    "#]],
    );
}

#[test]
fn setup_append() {
    check_client(
        "
         00000001 00000033 00000001000000000001020304050607 08090a0b0c0d0e0f001773636f70652f
         73747265616d2f302e2365706f63682e 300000",
        expect![[r#"
            SetupAppend(
                SetupAppend {
                    request_id: 4294967296,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    token: none,
                },
            )
        "#]],
    );
}

#[test]
fn append_setup() {
    check_server(
        "
         00000002 00000039 0000000100000000001773636f70652f 73747265616d2f302e2365706f63682e
         30000102030405060708090a0b0c0d0e 0f8000000000000000",
        expect![[r#"
            AppendSetup {
                request_id: 4294967296,
                segment: "scope/stream/0.#epoch.0",
                writer: WriterId(
                    5233100606242806050955395731361295,
                ),
                last_event_number: -9223372036854775808,
            }
        "#]],
    );
}

#[test]
fn a_block_of_exactly_one_event() {
    check_client(
        "
         00000003 0000001d 000102030405060708090a0b0c0d0e0f 000000000000000568656c6c6f000000
         040000002c000102030405060708090a 0b0c0d0e0f0000000d00000000000000 01000000000000000100000001000000 00",
        expect![[r#"
            Append(
                Append {
                    request_id: 4294967296,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    data: b"\0\0\0\0\0\0\0\x05hello",
                    event_count: 1,
                    last_event_number: 1,
                    expected_offset: None,
                },
            )
        "#]],
    );
}

#[test]
fn b_block_that_ends_with_a_partial_event() {
    check_client(
        "
         00000003 00000030 000102030405060708090a0b0c0d0e0f 000000000000000568656c6c6fffffff
         fe0000000b0000000000000007707261 00000004000000300001020304050607 08090a0b0c0d0e0f0000000d00000004
         76656761000000020000000000000002 0000000100000000",
        expect![[r#"
            Append(
                Append {
                    request_id: 4294967296,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    data: b"\0\0\0\0\0\0\0\x05hello\0\0\0\0\0\0\0\x07pravega",
                    event_count: 2,
                    last_event_number: 2,
                    expected_offset: None,
                },
            )
        "#]],
    );
}

#[test]
fn c_block_broken_early_with_padding() {
    check_client(
        "
         00000003 00000030 000102030405060708090a0b0c0d0e0f 000000000000000568656c6c6fffffff
         ff0000000b0000000000000000000000 000000040000002c0001020304050607 08090a0b0c0d0e0f0000000d00000000
         00000001000000000000000100000001 00000000",
        expect![[r#"
            Append(
                Append {
                    request_id: 4294967296,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    data: b"\0\0\0\0\0\0\0\x05hello",
                    event_count: 1,
                    last_event_number: 1,
                    expected_offset: None,
                },
            )
        "#]],
    );
}

#[test]
fn d_lone_block_end_as_the_rust_client_sends_it() {
    check_client(
        "
         00000004 00000048 000102030405060708090a0b0c0d0e0f 0000001c0000001c0000000000000005
         68656c6c6f0000000000000007707261 76656761000000020000000000000002 0000000000000007",
        expect![[r#"
            Append(
                Append {
                    request_id: 7,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    data: b"\0\0\0\0\0\0\0\x05hello\0\0\0\0\0\0\0\x07pravega",
                    event_count: 2,
                    last_event_number: 2,
                    expected_offset: None,
                },
            )
        "#]],
    );
}

#[test]
fn e_append_without_a_byte_as_the_java_client_sends_it_after_a_seal() {
    check_client(
        "
         00000003 00000010 000102030405060708090a0b0c0d0e0f 000000040000002c0001020304050607
         08090a0b0c0d0e0f0000000000000000 00000001000000000000000300000001 00000000",
        expect![[r#"
            Append(
                Append {
                    request_id: 4294967296,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    data: b"",
                    event_count: 1,
                    last_event_number: 3,
                    expected_offset: None,
                },
            )
        "#]],
    );
}

#[test]
fn data_appended() {
    check_server(
        "
         00000007 00000030 000102030405060708090a0b0c0d0e0f 00000000000000028000000000000000
         0000000000000007000000000000001c",
        expect![[r#"
            DataAppended {
                writer: WriterId(
                    5233100606242806050955395731361295,
                ),
                event_number: 2,
                previous_event_number: -9223372036854775808,
                request_id: 7,
                segment_length: 28,
            }
        "#]],
    );
}

#[test]
fn conditional_append_keeps_the_event_header() {
    check_client(
        "
         00000005 00000035 000102030405060708090a0b0c0d0e0f 00000000000000010000000000000000
         000000000000000568656c6c6f000000 0000000009",
        expect![[r#"
            Append(
                Append {
                    request_id: 9,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    data: b"\0\0\0\0\0\0\0\x05hello",
                    event_count: 1,
                    last_event_number: 1,
                    expected_offset: Some(
                        0,
                    ),
                },
            )
        "#]],
    );
}

#[test]
fn conditional_block_end() {
    check_client(
        "
         00000059 00000030 000102030405060708090a0b0c0d0e0f 00000000000000000000000000000000
         0000000401020304000000000000000a",
        expect![[r#"
            Append(
                Append {
                    request_id: 10,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    slot: 0,
                    segment: "scope/stream/0.#epoch.0",
                    data: b"\x01\x02\x03\x04",
                    event_count: 1,
                    last_event_number: 0,
                    expected_offset: Some(
                        0,
                    ),
                },
            )
        "#]],
    );
}

#[test]
fn conditional_check_failed() {
    check_server(
        "00000008 00000020 000102030405060708090a0b0c0d0e0f 00000000000000010000000000000009",
        expect![[r#"
        ConditionalCheckFailed {
            writer: WriterId(
                5233100606242806050955395731361295,
            ),
            event_number: 1,
            request_id: 9,
        }
    "#]],
    );
}

#[test]
fn invalid_event_number_in_the_layout_of_version_16() {
    check_server(
        "00000037 00000022 000102030405060708090a0b0c0d0e0f 00000000000000090000000000000000 0005",
        expect![[r#"
            InvalidEventNumber {
                writer: WriterId(
                    5233100606242806050955395731361295,
                ),
                request_id: 9,
                trace: "",
                event_number: 5,
            }
        "#]],
    );
}

#[test]
fn create_segment() {
    check_client(
        "
         00000014 00000030 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         30000000640200000000000000000000",
        expect![[r#"
            Request(
                CreateSegment {
                    request_id: 5,
                    segment: "scope/stream/0.#epoch.0",
                    target_rate: 100,
                    scale_type: 2,
                    token: none,
                    rollover_bytes: 0,
                },
            )
        "#]],
    );
}

#[test]
fn create_transient_segment() {
    check_client(
        "
         00000028 00000033 00000000000000050001020304050607 08090a0b0c0d0e0f001773636f70652f
         73747265616d2f302e2365706f63682e 300000",
        expect![[r#"
            Request(
                CreateTransientSegment {
                    request_id: 5,
                    writer: WriterId(
                        5233100606242806050955395731361295,
                    ),
                    parent: "scope/stream/0.#epoch.0",
                    token: none,
                },
            )
        "#]],
    );
}

#[test]
fn get_stream_segment_info() {
    check_client(
        "0000000b 00000023 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e 300000",
        expect![[r#"
            Request(
                GetStreamSegmentInfo {
                    request_id: 5,
                    segment: "scope/stream/0.#epoch.0",
                    token: none,
                },
            )
        "#]],
    );
}

#[test]
fn stream_segment_info() {
    check_server(
        "
         0000000c 0000003c 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         3001000000000174876e800000000000 0000001c0000000000000000",
        expect![[r#"
            StreamSegmentInfo {
                request_id: 5,
                segment: "scope/stream/0.#epoch.0",
                exists: true,
                sealed: false,
                deleted: false,
                last_modified: 1600000000000,
                write_offset: 28,
                start_offset: 0,
            }
        "#]],
    );
}

#[test]
fn read_segment() {
    check_client(
        "
         00000009 0000002f 001773636f70652f73747265616d2f30 2e2365706f63682e3000000000000000
         1c0004000000000000000200000000",
        expect![[r#"
            Request(
                ReadSegment {
                    segment: "scope/stream/0.#epoch.0",
                    offset: 28,
                    suggested_length: 262144,
                    token: none,
                    request_id: 8589934592,
                },
            )
        "#]],
    );
}

#[test]
fn segment_read() {
    check_server(
        "
         0000000a 0000003c 001773636f70652f73747265616d2f30 2e2365706f63682e3000000000000000
         0000000000000d000000000000000568 656c6c6f0000000200000000",
        expect![[r#"
            SegmentRead {
                segment: "scope/stream/0.#epoch.0",
                offset: 0,
                at_tail: false,
                end_of_segment: false,
                data: b"\0\0\0\0\0\0\0\x05hello",
                request_id: 8589934592,
            }
        "#]],
    );
}

#[test]
fn get_segment_attribute() {
    check_client(
        "
         00000022 00000033 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         307df9a874246cc9d69397cdd19ead68 c50000",
        expect![[r#"
            Request(
                GetSegmentAttribute {
                    request_id: 5,
                    segment: "scope/stream/0.#epoch.0",
                    attribute: AttributeId(
                        167449798037442898823762646453078288581,
                    ),
                    token: none,
                },
            )
        "#]],
    );
}

#[test]
fn segment_attribute_unset() {
    check_server(
        "00000023 00000010 00000000000000058000000000000000",
        expect![[r#"
        SegmentAttribute {
            request_id: 5,
            value: -9223372036854775808,
        }
    "#]],
    );
}

#[test]
fn update_segment_attribute() {
    check_client(
        "
         00000024 00000043 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         307df9a874246cc9d69397cdd19ead68 c5000000000000000d80000000000000 000000",
        expect![[r#"
            Request(
                UpdateSegmentAttribute {
                    request_id: 5,
                    segment: "scope/stream/0.#epoch.0",
                    attribute: AttributeId(
                        167449798037442898823762646453078288581,
                    ),
                    new_value: 13,
                    expected_value: -9223372036854775808,
                    token: none,
                },
            )
        "#]],
    );
}

#[test]
fn segment_attribute_updated() {
    check_server(
        "00000025 00000009 000000000000000501",
        expect![[r#"
        SegmentAttributeUpdated {
            request_id: 5,
            success: true,
        }
    "#]],
    );
}

#[test]
fn locate_offset() {
    check_client(
        "
         00000029 0000002b 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         3000000000000000140000",
        expect![[r#"
            Request(
                LocateOffset {
                    request_id: 5,
                    segment: "scope/stream/0.#epoch.0",
                    target_offset: 20,
                    token: none,
                },
            )
        "#]],
    );
}

#[test]
fn offset_located() {
    check_server(
        "0000002a 00000029 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e 30000000000000001c",
        expect![[r#"
            OffsetLocated {
                request_id: 5,
                segment: "scope/stream/0.#epoch.0",
                offset: 28,
            }
        "#]],
    );
}

#[test]
fn merge_segments_with_a_condition() {
    check_client(
        "
         0000003a 0000008e 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         30004473636f70652f73747265616d2f 302e2365706f63682e30237472616e73 616374696f6e2e303030303030303130
         30303030303032303030303030303330 303030303030340000000000017df9a8 74246cc9d69397cdd19ead68c5040000
         0000000000010000000000000000",
        expect![[r#"
            Request(
                MergeSegments {
                    request_id: 5,
                    target: "scope/stream/0.#epoch.0",
                    source: "scope/stream/0.#epoch.0#transaction.00000001000000020000000300000004",
                    token: none,
                    attribute_updates: [
                        AttributeUpdate {
                            attribute: AttributeId(
                                167449798037442898823762646453078288581,
                            ),
                            update_type: 4,
                            new_value: 1,
                            old_value: 0,
                        },
                    ],
                },
            )
        "#]],
    );
}

#[test]
fn segments_merged() {
    check_server(
        "
         0000003b 0000006f 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         30004473636f70652f73747265616d2f 302e2365706f63682e30237472616e73 616374696f6e2e303030303030303130
         30303030303032303030303030303330 303030303030340000000000000029",
        expect![[r#"
            SegmentsMerged {
                request_id: 5,
                target: "scope/stream/0.#epoch.0",
                source: "scope/stream/0.#epoch.0#transaction.00000001000000020000000300000004",
                target_length: 41,
            }
        "#]],
    );
}

#[test]
fn merge_segments_batch() {
    check_client(
        "
         0000005a 0000006d 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         3000000001004473636f70652f737472 65616d2f302e2365706f63682e302374 72616e73616374696f6e2e3030303030
         30303130303030303030323030303030 30303330303030303030340000",
        expect![[r#"
            Request(
                MergeSegmentsBatch {
                    request_id: 5,
                    target: "scope/stream/0.#epoch.0",
                    sources: [
                        "scope/stream/0.#epoch.0#transaction.00000001000000020000000300000004",
                    ],
                    token: none,
                },
            )
        "#]],
    );
}

#[test]
fn segments_batch_merged() {
    check_server(
        "
         0000005b 00000073 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         3000000001004473636f70652f737472 65616d2f302e2365706f63682e302374 72616e73616374696f6e2e3030303030
         30303130303030303030323030303030 30303330303030303030340000000000 000029",
        expect![[r#"
            SegmentsBatchMerged {
                request_id: 5,
                target: "scope/stream/0.#epoch.0",
                merged: [
                    MergedSource {
                        source: "scope/stream/0.#epoch.0#transaction.00000001000000020000000300000004",
                        target_length: 41,
                    },
                ],
            }
        "#]],
    );
}

#[test]
fn segment_is_sealed() {
    check_server(
        "
         00000033 0000002b 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         300000000000000000001c",
        expect![[r#"
            SegmentIsSealed {
                request_id: 5,
                segment: "scope/stream/0.#epoch.0",
                trace: "",
                offset: 28,
            }
        "#]],
    );
}

#[test]
fn segment_is_truncated() {
    check_server(
        "
         00000038 00000033 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         30000000000000000d00000000000000 000000",
        expect![[r#"
            SegmentIsTruncated {
                request_id: 5,
                segment: "scope/stream/0.#epoch.0",
                start_offset: 13,
                trace: "",
                offset: 0,
            }
        "#]],
    );
}

#[test]
fn no_such_segment() {
    check_server(
        "
         00000035 0000002b 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         300000ffffffffffffffff",
        expect![[r#"
            NoSuchSegment {
                request_id: 5,
                segment: "scope/stream/0.#epoch.0",
                trace: "",
                offset: -1,
            }
        "#]],
    );
}

#[test]
fn wrong_host() {
    check_server(
        "00000032 00000025 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e 3000000000",
        expect![[r#"
            WrongHost {
                request_id: 5,
                segment: "scope/stream/0.#epoch.0",
                correct_host: "",
                trace: "",
            }
        "#]],
    );
}

#[test]
fn auth_token_check_failed() {
    check_server(
        "0000003c 0000000e 0000000000000005000000000001",
        expect![[r#"
        AuthTokenCheckFailed {
            request_id: 5,
            trace: "",
            failure: Expired,
        }
    "#]],
    );
}

#[test]
fn error_message() {
    check_server(
        "
         0000003d 00000031 0000000000000005001773636f70652f 73747265616d2f302e2365706f63682e
         30000a626164206f6666736574000000 00",
        expect![[r#"
            ErrorMessage {
                request_id: 5,
                segment: "scope/stream/0.#epoch.0",
                message: "bad offset",
                code: IllegalArgument,
            }
        "#]],
    );
}

#[test]
fn create_table_segment() {
    check_client(
        "
         00000046 00000035 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e3000000000000004000000 0000000000",
        expect![[r#"
            Request(
                CreateTableSegment {
                    request_id: 5,
                    segment: "scope/kvt_kvtable/0.#epoch.0",
                    token: none,
                    sorted: false,
                    key_length: 4,
                    rollover_bytes: 0,
                },
            )
        "#]],
    );
}

#[test]
fn create_table_segment_as_the_rust_client_sends_it() {
    check_short_form(
        "00000046 00000028 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365 706f63682e300000",
        "
         00000046 00000035 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e3000000000000000000000 0000000000",
    );
}

#[test]
fn update_table_entries() {
    check_client(
        "
         0000004a 00000050 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e300000000000010000000e 000000026b31ffffffffffffffff0000 0006000000027631ffffffffffffffff",
        expect![[r#"
            Request(
                UpdateTableEntries {
                    request_id: 5,
                    segment: "scope/kvt_kvtable/0.#epoch.0",
                    token: none,
                    entries: [
                        TableEntry {
                            key: TableKey {
                                key: b"k1",
                                version: -1,
                            },
                            value: b"v1",
                        },
                    ],
                    table_offset: -1,
                },
            )
        "#]],
    );
}

#[test]
fn table_entries_updated() {
    check_server(
        "0000004b 00000014 00000000000000050000000100000000 00000000",
        expect![[r#"
        TableEntriesUpdated {
            request_id: 5,
            versions: [
                0,
            ],
        }
    "#]],
    );
}

#[test]
fn remove_table_keys() {
    check_client(
        "
         0000004c 00000046 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e300000000000010000000e 000000026b310000000000000000ffff ffffffffffff",
        expect![[r#"
            Request(
                RemoveTableKeys {
                    request_id: 5,
                    segment: "scope/kvt_kvtable/0.#epoch.0",
                    token: none,
                    keys: [
                        TableKey {
                            key: b"k1",
                            version: 0,
                        },
                    ],
                    table_offset: -1,
                },
            )
        "#]],
    );
}

#[test]
fn read_table() {
    check_client(
        "
         0000004e 00000050 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e300000000000020000000e 000000026b3180000000000000000000 000e000000026b328000000000000000",
        expect![[r#"
            Request(
                ReadTable {
                    request_id: 5,
                    segment: "scope/kvt_kvtable/0.#epoch.0",
                    token: none,
                    keys: [
                        TableKey {
                            key: b"k1",
                            version: -9223372036854775808,
                        },
                        TableKey {
                            key: b"k2",
                            version: -9223372036854775808,
                        },
                    ],
                },
            )
        "#]],
    );
}

#[test]
fn table_read_with_a_missing_key() {
    check_server(
        "
         0000004f 00000060 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e30000000020000000e0000 00026b31000000000000000000000006 0000000276310000000e000000026b32
         ffffffffffffffff0000000400000000",
        expect![[r#"
            TableRead {
                request_id: 5,
                segment: "scope/kvt_kvtable/0.#epoch.0",
                entries: [
                    TableEntry {
                        key: TableKey {
                            key: b"k1",
                            version: 0,
                        },
                        value: b"v1",
                    },
                    TableEntry {
                        key: TableKey {
                            key: b"k2",
                            version: -1,
                        },
                        value: b"",
                    },
                ],
            }
        "#]],
    );
}

#[test]
fn read_table_entries_as_the_rust_client_sends_it() {
    check_short_form(
        "
         00000055 00000030 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e3000000000000a00000000",
        "
         00000055 0000003c 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e3000000000000a00000000 000000000000000000000000",
    );
}

#[test]
fn read_table_entries_as_the_java_client_sends_it() {
    check_client(
        "
         00000055 00000044 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e3000000000000a00000000 00000000000000040000000000000004 ffffffff",
        expect![[r#"
            Request(
                ReadTableEntries {
                    request_id: 5,
                    segment: "scope/kvt_kvtable/0.#epoch.0",
                    token: none,
                    suggested_count: 10,
                    continuation: b"",
                    prefix: b"",
                    from_key: b"\0\0\0\0",
                    to_key: b"\xff\xff\xff\xff",
                },
            )
        "#]],
    );
}

#[test]
fn table_entries_read() {
    check_server(
        "
         00000056 0000004c 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e30000000010000000e0000 00026b31000000000000000000000006 00000002763100000002aabb",
        expect![[r#"
            TableEntriesRead {
                request_id: 5,
                segment: "scope/kvt_kvtable/0.#epoch.0",
                entries: [
                    TableEntry {
                        key: TableKey {
                            key: b"k1",
                            version: 0,
                        },
                        value: b"v1",
                    },
                ],
                continuation: b"\xaa\xbb",
            }
        "#]],
    );
}

#[test]
fn read_table_entries_delta() {
    check_client(
        "
         00000058 00000034 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e3000000000000000000000 0000000a",
        expect![[r#"
            Request(
                ReadTableEntriesDelta {
                    request_id: 5,
                    segment: "scope/kvt_kvtable/0.#epoch.0",
                    token: none,
                    from_position: 0,
                    suggested_count: 10,
                },
            )
        "#]],
    );
}

#[test]
fn table_entries_delta_read() {
    check_server(
        "
         00000057 00000050 0000000000000005001c73636f70652f 6b76745f6b767461626c652f302e2365
         706f63682e30000000010000000e0000 00026b31000000000000000000000006 00000002763100010000000000000015",
        expect![[r#"
            TableEntriesDeltaRead {
                request_id: 5,
                segment: "scope/kvt_kvtable/0.#epoch.0",
                entries: [
                    TableEntry {
                        key: TableKey {
                            key: b"k1",
                            version: 0,
                        },
                        value: b"v1",
                    },
                ],
                should_clear: false,
                reached_end: true,
                last_position: 21,
            }
        "#]],
    );
}
