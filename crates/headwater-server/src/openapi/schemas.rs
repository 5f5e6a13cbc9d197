//! The schemas: everything that is sent or answered as JSON.
//!
//! Answers have exactly the fields that are here, and those that are required in every case. Of a request, other fields
//! are passed over.

use serde_json::{Map, Value, json};

use super::named;

/// All schemas, by name.
pub(super) fn all() -> Map<String, Value> {
    let mut schemas = Map::new();
    for (name, schema) in admin().into_iter().chain(views()).chain(health()).chain(others()) {
        schemas.insert(name.to_owned(), schema);
    }
    schemas
}

type Schemas = Vec<(&'static str, Value)>;

/// Of an answer: these fields and no others. A `?` behind a name says that the field may be left out.
fn object(fields: &[(&str, Value)]) -> Value {
    let mut schema = request(fields);
    schema["additionalProperties"] = json!(false);
    schema
}

/// Of a request.
fn request(fields: &[(&str, Value)]) -> Value {
    let properties: Map<_, _> =
        fields.iter().map(|(name, schema)| (name.trim_end_matches('?').to_owned(), schema.clone())).collect();
    let required: Vec<_> = fields.iter().map(|(name, _)| name).filter(|name| !name.ends_with('?')).collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn int32() -> Value {
    json!({"type": "integer", "format": "int32"})
}

fn int64() -> Value {
    json!({"type": "integer", "format": "int64"})
}

fn count() -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0})
}

fn key() -> Value {
    json!({"type": "number", "minimum": 0, "maximum": 1})
}

/// A count that cannot be said in every case.
fn known_count() -> Value {
    json!({"type": ["integer", "null"], "format": "int64", "minimum": 0})
}

fn admin() -> Schemas {
    let time = request(&[("days?", count()), ("hours?", count()), ("minutes?", count())]);
    let policies = [("scalingPolicy", named("ScalingConfig")), ("retentionPolicy?", named("RetentionConfig"))];
    let numbers = [("timestampAggregationTimeout?", count()), ("rolloverSizeBytes?", count())];
    let shown_tags = json!({"type": "array", "items": text(),
        "description": "The same as streamTags, which goes before it: what was shown can be sent back."});
    let tags = [("streamTags?", list(text())), ("tags?", shown_tags)];
    let asked: Vec<_> = policies.iter().chain(&tags).chain(&numbers).cloned().collect();
    let created: Vec<_> = [("streamName", text())].into_iter().chain(asked.clone()).collect();
    let shown: Vec<_> = [("scopeName", text()), ("streamName", text())]
        .into_iter()
        .chain(policies)
        .chain([("tags", list(text())), ("timestampAggregationTimeout", int64()), ("rolloverSizeBytes", int64())])
        .collect();
    vec![
        ("ScopeProperty", object(&[("scopeName", text())])),
        ("CreateScopeRequest", request(&[("scopeName", text())])),
        ("ScopesList", object(&[("scopes", list(named("ScopeProperty")))])),
        (
            "ScalingConfig",
            request(&[
                (
                    "type",
                    json!({"enum": ["FIXED_NUM_SEGMENTS", "BY_RATE_IN_KBYTES_PER_SEC", "BY_RATE_IN_EVENTS_PER_SEC"]}),
                ),
                ("targetRate?", int32()),
                ("scaleFactor?", int32()),
                ("minSegments", int32()),
            ]),
        ),
        ("TimeBasedRetention", time),
        (
            "RetentionConfig",
            request(&[
                ("type", json!({"enum": ["LIMITED_DAYS", "LIMITED_SIZE_MB"]})),
                (
                    "value?",
                    json!({"type": ["integer", "null"], "format": "int64", "minimum": 0,
                    "description": "Days or megabytes of 1024 × 1024 bytes; 0 beside a timeBasedRetention. Megabytes and minutes \
                     are shown rounded up, so that what was shown and is sent back keeps no less."}),
                ),
                ("timeBasedRetention?", named("TimeBasedRetention")),
                ("maxValue?", count()),
                ("maxTimeBasedRetention?", named("TimeBasedRetention")),
            ]),
        ),
        ("CreateStreamRequest", request(&created)),
        ("UpdateStreamRequest", request(&asked)),
        ("StreamProperty", object(&shown)),
        ("StreamsList", object(&[("streams", list(named("StreamProperty")))])),
        ("StreamState", request(&[("streamState", json!({"enum": ["SEALED"]}))])),
        ("ScalingEvents", list(named("ScaleMetadata"))),
        (
            "ScaleMetadata",
            object(&[
                ("timestamp", int64()),
                ("segmentList", list(named("ScaleSegment"))),
                ("splits", count()),
                ("merges", count()),
            ]),
        ),
        (
            "ScaleSegment",
            object(&[("number", int32()), ("startTime", int64()), ("keyStart", key()), ("keyEnd", key())]),
        ),
        ("ReaderGroupsList", object(&[("readerGroups", list(named("ReaderGroupsListEntry")))])),
        ("ReaderGroupsListEntry", object(&[("readerGroupName", text())])),
        (
            "ReaderGroupProperty",
            object(&[
                ("scopeName", text()),
                ("readerGroupName", text()),
                ("streamList", list(text())),
                ("onlineReaderIds", list(text())),
            ]),
        ),
    ]
}

fn views() -> Schemas {
    let id = json!({"type": "string", "pattern": "^[0-9]+$",
        "description": "As in stream cuts: epoch of its creation times 2^32, plus its number."});
    let segment = [("segmentId", id), ("number", int32()), ("epoch", int32()), ("keyStart", key()), ("keyEnd", key())];
    let heat: Vec<_> = segment
        .iter()
        .cloned()
        .chain([("eventsPerSecond", named("Rates")), ("kilobytesPerSecond", named("Rates"))])
        .collect();
    let rate = || json!({"type": "number", "minimum": 0});
    let reading: Vec<_> = segment[..3]
        .iter()
        .cloned()
        .chain([("readerId", json!({"type": ["string", "null"]})), ("offset", int64()), ("unreadBytes", known_count())])
        .collect();
    vec![
        (
            "StreamHeat",
            object(&[
                ("scalesBy", json!({"enum": ["nothing", "events", "kilobytes"]})),
                ("targetRate", json!({"type": ["integer", "null"], "format": "int32"})),
                ("segments", list(named("SegmentHeat"))),
            ]),
        ),
        ("SegmentHeat", object(&heat)),
        ("Rates", object(&[("2m", rate()), ("5m", rate()), ("10m", rate()), ("20m", rate())])),
        ("EpochsList", object(&[("epochs", list(named("Epoch")))])),
        (
            "Epoch",
            object(&[
                ("epoch", int32()),
                ("referenceEpoch", int32()),
                ("beganAt", int64()),
                ("segments", list(named("Segment"))),
            ]),
        ),
        ("Segment", object(&segment)),
        (
            "TransactionsList",
            object(&[("transactions", list(named("Transaction"))), ("next", json!({"type": ["string", "null"]}))]),
        ),
        (
            "OpenTransactionsList",
            object(&[("transactions", list(named("OpenTransaction"))), ("next", json!({"type": ["string", "null"]}))]),
        ),
        (
            "OpenTransaction",
            object(&[
                ("scopeName", text()),
                ("streamName", text()),
                ("id", json!({"type": "string", "format": "uuid"})),
                ("state", json!({"enum": ["OPEN", "COMMITTING", "ABORTING"]})),
                ("openedAt", int64()),
                ("leaseMillis", int64()),
                ("abortedAt", json!({"type": ["integer", "null"], "format": "int64"})),
            ]),
        ),
        (
            "Transaction",
            object(&[
                ("id", json!({"type": "string", "format": "uuid"})),
                ("state", json!({"enum": ["OPEN", "COMMITTING", "ABORTING"]})),
                ("openedAt", int64()),
                ("leaseMillis", int64()),
                ("abortedAt", json!({"type": ["integer", "null"], "format": "int64"})),
            ]),
        ),
        (
            "ReaderGroupLag",
            object(&[
                ("scopeName", text()),
                ("readerGroupName", text()),
                ("onlineReaderIds", list(text())),
                ("unreadBytes", known_count()),
                ("streams", list(named("StreamLag"))),
            ]),
        ),
        (
            "StreamLag",
            object(&[
                ("scopeName", text()),
                ("streamName", text()),
                ("unreadBytes", known_count()),
                ("segments", list(named("SegmentLag"))),
            ]),
        ),
        ("SegmentLag", object(&reading)),
        (
            "RetentionPlan",
            object(&[
                ("policy", json!({"enum": ["time", "size"]})),
                ("keep", int64()),
                ("keepMax", json!({"type": ["integer", "null"], "format": "int64"})),
                ("clockJumped", json!({"type": "boolean"})),
                ("storedBytes", int64()),
                ("heldBytes", json!({"type": ["integer", "null"], "format": "int64"})),
                ("truncatedBytes", int64()),
                ("truncatedAt", json!({"type": ["object", "null"], "additionalProperties": int64()})),
                ("truncatedSegments", list(named("TruncatedSegment"))),
                ("moreSegments", count()),
            ]),
        ),
        (
            "TruncatedSegment",
            object(&[
                ("segmentId", text()),
                ("from", int64()),
                ("to", int64()),
                ("deleted", json!({"type": "boolean"})),
            ]),
        ),
    ]
}

fn health() -> Schemas {
    let boolean = || json!({"type": "boolean"});
    vec![
        (
            "HealthResult",
            object(&[
                ("name", text()),
                ("status", named("HealthStatus")),
                ("readiness", boolean()),
                ("liveness", boolean()),
                ("details", named("HealthDetails")),
                ("children", json!({"type": "object", "additionalProperties": named("HealthResult")})),
            ]),
        ),
        ("HealthStatus", json!({"enum": ["UP", "STARTING", "NEW", "UNKNOWN", "FAILED", "DOWN"]})),
        ("HealthDetails", json!({"type": "object", "additionalProperties": true})),
        ("HealthBoolean", boolean()),
    ]
}

fn others() -> Schemas {
    vec![
        ("About", object(&[("name", text()), ("version", text())])),
        ("Document", json!({"type": "object", "description": "An OpenAPI document."})),
        ("Problem", object(&[("status", json!({"type": "integer"})), ("title", text()), ("detail", text())])),
        (
            "Backup",
            object(&[
                ("id", text()),
                ("store", text()),
                ("frame", count()),
                ("files", count()),
                ("bytes", count()),
                ("lease_seconds", count()),
            ]),
        ),
        ("BackupFiles", object(&[("files", list(named("BackupFile")))])),
        ("BackupFile", object(&[("name", text()), ("length", count())])),
    ]
}
