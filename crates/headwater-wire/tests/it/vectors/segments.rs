//! Segments, their attributes and merges.

use expect_test::expect;

use super::{check_client, check_server};

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
