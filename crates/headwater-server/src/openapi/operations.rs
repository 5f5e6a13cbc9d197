//! What each route takes and answers, in words and by the names of [`schemas`](super::schemas).

use headwater_auth::HttpRoute;
use serde_json::{Value, json};

use crate::rest::lists::LIMIT_MAX;

/// What is said about a route beside its method, path and permission.
pub(super) struct Operation {
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// Schema of the body.
    pub(super) body: Option<&'static str>,
    /// Answers that are no problems.
    pub(super) answers: Vec<(u16, &'static str, Answer)>,
    /// Problems of this route, beside those that all of its kind have.
    pub(super) problems: Vec<(u16, &'static str)>,
}

/// Something behind the `?`.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) schema: Value,
    pub(super) about: &'static str,
}

/// What an answer carries.
pub(super) enum Answer {
    Nothing,
    /// Of this schema.
    Json(&'static str),
    /// Text or bytes of this type.
    Other(&'static str),
}

impl Operation {
    fn new(tag: &'static str, summary: &'static str) -> Self {
        let (parameters, headers, answers, problems) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { tag, summary, parameters, headers, body: None, answers, problems }
    }

    fn answers(mut self, status: u16, about: &'static str, answer: Answer) -> Self {
        self.answers.push((status, about, answer));
        self
    }

    fn json(self, schema: &'static str) -> Self {
        self.answers(200, "As asked for.", Answer::Json(schema))
    }

    fn body(mut self, schema: &'static str) -> Self {
        self.body = Some(schema);
        self.problem(400, "The body is not as it should be.")
    }

    fn problem(mut self, status: u16, about: &'static str) -> Self {
        self.problems.push((status, about));
        self
    }

    fn asks(mut self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self.parameters.push(Parameter { name, required: false, schema, about });
        if self.problems.iter().all(|(status, _)| *status != 400) {
            return self.problem(400, "Something behind the ? is not as it should be.");
        }
        self
    }

    fn needs(mut self, name: &'static str, schema: Value, about: &'static str) -> Self {
        self = self.asks(name, schema, about);
        let last = self.parameters.last_mut().expect("it was pushed above");
        last.required = true;
        self
    }

    /// Of something in the path that must exist.
    fn exists(self) -> Self {
        self.problem(400, "A name in the path is not UTF-8.")
            .problem(404, "It does not exist.")
            .problem(500, "Its records are damaged; the server's log says more.")
    }

    /// Of something that takes room on the disk or in memory.
    fn takes_room(self) -> Self {
        self.problem(507, "Disk, memory or a limit is used up; come back later.")
    }

    /// Of what the readers of a group write down for each other.
    fn told_by_readers(self) -> Self {
        self.problem(409, "What its readers wrote down, or somebody else in their place, is no state of a group.")
    }

    fn part(self) -> Self {
        self.asks("after", json!({"type": "string"}), "Name behind which the list begins.").limit()
    }

    fn limit(self) -> Self {
        let schema = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX});
        self.asks("limit", schema, "Most entries; without it the list is whole.")
    }
}

/// A route that is not here does not compile.
pub(super) fn described(route: HttpRoute) -> Operation {
    const SERVER: &str = "server";
    const HEALTH: &str = "health";
    const SCOPES: &str = "scopes";
    const STREAMS: &str = "streams";
    const GROUPS: &str = "reader groups";
    const VIEWS: &str = "views for operators";
    const BACKUPS: &str = "backups";
    let time = || json!({"type": "integer", "format": "int64", "minimum": 0});
    let health = |summary, schema| Operation::new(HEALTH, summary).json(schema);
    let health_of = |summary, schema| {
        health(summary, schema).problem(400, "The name is not UTF-8.").problem(404, "There is no such component.")
    };
    match route {
        HttpRoute::About => Operation::new(SERVER, "Name and version").json("About"),
        HttpRoute::OpenApi => Operation::new(SERVER, "This document").json("Document"),
        HttpRoute::Ping => Operation::new(SERVER, "Says that it is there").answers(200, "It is.", Answer::Nothing),
        HttpRoute::Healthz => Operation::new(SERVER, "Whether the process is worth keeping")
            .answers(
                200,
                "`ok`; `doubtful` if stored bytes have rotted; `full` if writes wait for room on the disk.",
                Answer::Other("text/plain"),
            )
            .answers(503, "The store cannot go on.", Answer::Other("text/plain")),
        HttpRoute::Readyz => Operation::new(SERVER, "Whether clients are served")
            .answers(200, "They are.", Answer::Other("text/plain"))
            .answers(503, "Not yet, or not any more.", Answer::Other("text/plain")),
        HttpRoute::Metrics => Operation::new(SERVER, "Figures, for Prometheus")
            .answers(200, "OpenMetrics text.", Answer::Other("application/openmetrics-text")),
        HttpRoute::Health => health("How the server is, with its components", "HealthResult"),
        HttpRoute::HealthOf => health_of("How a component is: headwater, store or controller", "HealthResult"),
        HttpRoute::Readiness => health("Whether clients are served", "HealthBoolean"),
        HttpRoute::ReadinessOf => health_of("Whether a component serves", "HealthBoolean"),
        HttpRoute::Liveness => health("Whether the process is worth keeping", "HealthBoolean"),
        HttpRoute::LivenessOf => health_of("Whether a component can go on", "HealthBoolean"),
        HttpRoute::HealthDetails => health("What there is to say about the server", "HealthDetails"),
        HttpRoute::HealthDetailsOf => health_of("What there is to say about a component", "HealthDetails"),
        HttpRoute::HealthStatus => health("One word about the server", "HealthStatus"),
        HttpRoute::HealthStatusOf => health_of("One word about a component", "HealthStatus"),
        HttpRoute::ListScopes => {
            Operation::new(SCOPES, "Scopes that the caller may read").part().json("ScopesList")
        }
        HttpRoute::CreateScope => Operation::new(SCOPES, "Create a scope")
            .body("CreateScopeRequest")
            .answers(201, "It is new.", Answer::Json("ScopeProperty"))
            .problem(409, "There is one of that name.")
            .takes_room(),
        HttpRoute::GetScope => Operation::new(SCOPES, "A scope").exists().json("ScopeProperty"),
        HttpRoute::DeleteScope => Operation::new(SCOPES, "Delete a scope that is empty")
            .exists()
            .answers(204, "It is gone.", Answer::Nothing)
            .problem(412, "There is something in it.")
            .takes_room(),
        HttpRoute::ListStreams => Operation::new(STREAMS, "Streams of a scope that the caller may read")
            .exists()
            .asks(
                "filter_type",
                json!({"enum": ["showInternalStreams", "tag"]}),
                "showInternalStreams: those that clients and the server keep things in, instead of those of users. \
                 tag: those that carry the tag filter_value.",
            )
            .asks("filter_value", json!({"type": "string"}), "The tag.")
            .part()
            .json("StreamsList")
            .takes_room(),
        HttpRoute::CreateStream => Operation::new(STREAMS, "Create a stream")
            .body("CreateStreamRequest")
            .answers(201, "It can be written to.", Answer::Json("StreamProperty"))
            .problem(404, "There is no such scope.")
            .problem(409, "There is a stream of that name.")
            .takes_room(),
        HttpRoute::GetStream => Operation::new(STREAMS, "Configuration of a stream").exists().json("StreamProperty"),
        HttpRoute::UpdateStream => Operation::new(
            STREAMS,
            "Replace the configuration of a stream; what is left out gets its default, and the most that is kept, as in \
             Pravega, is not looked at",
        )
        .exists()
        .body("UpdateStreamRequest")
        .json("StreamProperty")
        .problem(409, "Somebody else is changing it.")
        .problem(412, "It is sealed.")
        .takes_room(),
        HttpRoute::DeleteStream => Operation::new(STREAMS, "Delete a sealed stream")
            .exists()
            .answers(204, "It is gone.", Answer::Nothing)
            .problem(412, "It is not sealed.")
            .takes_room(),
        HttpRoute::SealStream => Operation::new(STREAMS, "Seal a stream; nothing happens to a sealed one")
            .exists()
            .body("StreamState")
            .json("StreamState")
            .problem(409, "Somebody else is changing it.")
            .problem(412, "It cannot be sealed.")
            .takes_room(),
        HttpRoute::ScalingEvents => Operation::new(
            STREAMS,
            "Epochs of a stream that began between two times, behind the last one before them",
        )
        .exists()
        .needs("from", time(), "Milliseconds since 1970.")
        .needs("to", time(), "Milliseconds since 1970, not before `from`.")
        .json("ScalingEvents"),
        HttpRoute::RetentionPlan => Operation::new(VIEWS, "What the next retention run would do about a stream")
            .exists()
            .json("RetentionPlan")
            .answers(204, "The stream has no retention policy.", Answer::Nothing),
        HttpRoute::SegmentHeat => {
            Operation::new(VIEWS, "Rates of a stream's open segments, by ascending key").exists().json("StreamHeat")
        }
        HttpRoute::Epochs => Operation::new(VIEWS, "Epochs of a stream over time, oldest first")
            .exists()
            .asks("first", json!({"type": "integer", "minimum": 0, "maximum": i32::MAX}), "Number of the first one.")
            .limit()
            .json("EpochsList"),
        HttpRoute::Transactions => Operation::new(VIEWS, "Transactions of a stream that are not over")
            .exists()
            .asks("limit", json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}), "Most of them.")
            .asks("next", json!({"type": "string"}), "Where to go on: `next` of the answer before.")
            .json("TransactionsList"),
        HttpRoute::OpenTransactions => {
            Operation::new(VIEWS, "Open transactions of all streams that the caller may read, in the order of the streams")
                .asks(
                    "limit",
                    json!({"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}),
                    "Most of them. A page may have fewer and not be the last.",
                )
                .asks(
                    "next",
                    json!({"type": "string"}),
                    "Where to go on: `next` of the answer before, as it is. It may stand for something that the caller may \
                     not read, and is sealed where callers have to prove who they are.",
                )
                .problem(500, "Records are damaged; the server's log says more.")
                .json("OpenTransactionsList")
        }
        HttpRoute::ListGroups => Operation::new(GROUPS, "Reader groups of Java clients that the caller may read")
            .exists()
            .part()
            .json("ReaderGroupsList"),
        HttpRoute::GetGroup => {
            Operation::new(GROUPS, "Streams and online readers of a group")
                .exists()
                .json("ReaderGroupProperty")
                .told_by_readers()
                .takes_room()
        }
        HttpRoute::DeleteGroup => Operation::new(GROUPS, "Delete a group")
            .exists()
            .answers(204, "It is gone.", Answer::Nothing)
            .takes_room(),
        HttpRoute::GroupLag => Operation::new(
            VIEWS,
            "How far a group is behind by what its readers last wrote down, in the streams that the caller may read",
        )
        .exists()
        .json("ReaderGroupLag")
        .told_by_readers()
        .takes_room(),
        HttpRoute::BeginBackup => Operation::new(BACKUPS, "Begin an online backup")
            .answers(201, "It holds for a minute after each request.", Answer::Json("Backup"))
            .problem(409, "Another one is under way.")
            .problem(500, "The store could not be read."),
        HttpRoute::EndBackup => Operation::new(BACKUPS, "End a backup")
            .answers(204, "What it held is free.", Answer::Nothing)
            .problem(400, "The id is not UTF-8.")
            .problem(404, "There is none of that id."),
        HttpRoute::ListBackup => Operation::new(BACKUPS, "Files of a backup, at most 1000")
            .problem(400, "The id is not UTF-8.")
            .problem(404, "There is none of that id.")
            .asks("after", json!({"type": "string"}), "Name behind which the list begins.")
            .json("BackupFiles"),
        HttpRoute::ReadBackup => {
            let mut operation = Operation::new(BACKUPS, "Bytes of a file of a backup, at most 4 MiB")
                .answers(200, "The whole file.", Answer::Other("application/octet-stream"))
                .answers(206, "The range that was asked for.", Answer::Other("application/octet-stream"))
                .problem(400, "The name is not UTF-8.")
                .problem(404, "There is none of that id, or no such file.")
                .problem(416, "The file is too long for one piece, or ends before the range.")
                .problem(500, "The file could not be read.");
            operation.headers.push(("Range", "`bytes=A-B`"));
            operation
        }
    }
}
