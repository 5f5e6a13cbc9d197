//! Handshake and append path.

use expect_test::expect;

use super::{check_client, check_server};

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
