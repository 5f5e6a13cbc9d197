//! Tables.

use expect_test::expect;

use super::{check_client, check_server, check_short_form};

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
