//! Failures.

use expect_test::expect;

use super::check_server;

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
