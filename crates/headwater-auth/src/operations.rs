//! The table: what each operation of each protocol needs. Every operation has a row, or this crate and the server that
//! carries it out do not compile.
//!
//! Guarantee: [`Rpc::check`], [`HttpRoute::check`] and [`WireCommand::check`] are the only ways to a decision, and each
//! takes its row from here.
//!
//! Source of the rows: Pravega's controller permissions. Where they are stricter than the original, so that whoever may
//! only read cannot change anything: every wire command that changes needs READ_UPDATE (the original asks that of set-ups
//! and of the target of a batch merge alone), transient segments need a token at all, and both ends of a merge are checked.
//! A token for a mark stream allows to read only, and one for the stream of a reader group, which READ on the group earns, what
//! readers do there: they write down where they are, and drop what is behind them. Making, sealing, merging and deleting its
//! segment is for the controller. Reader groups need READ on the group, too, and a group that holds back retention READ_UPDATE on
//! its streams.

use std::fmt;

use crate::delegation::{Claims, TokenError};
use crate::grants::{Grants, Level, Resource, TABLE};

/// What a row asks for a permission on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum On {
    /// Nothing: also for those who did not say who they are.
    Nothing,
    Root,
    Scope,
    Stream,
    Table,
    /// A reader group; its scope has to be readable besides.
    Group,
}

/// How much of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    Look,
    Change,
    /// By what the caller says it is going to do: to look if that is nothing, else to change.
    ByAccess,
    /// To change; for what is kept for a reader group or stream, to look is enough, also at the group or stream.
    ByKind,
    /// Decided by [`token_grants`], which says what the token grants.
    Token,
}

/// What a caller says it is going to do with the answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Access {
    /// Nothing; no token is wanted.
    None,
    /// Read.
    Read,
    /// Write, or it does not say.
    #[default]
    Change,
}

/// What an operation is about, as the client named it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Target<'a> {
    /// The scope; empty if the operation has none.
    pub scope: &'a str,
    /// The stream, table or group; empty if the operation has none.
    pub name: &'a str,
    /// Only of those that say so.
    pub access: Access,
}

/// It is not granted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{operation} needs {level} on {resource}")]
pub struct Denied {
    /// What was asked for.
    pub operation: &'static str,
    /// What is missing.
    pub level: Level,
    /// On what.
    pub resource: String,
}

fn decide(
    operation: &'static str,
    (on, need): (On, Need),
    grants: Option<&Grants>,
    target: &Target<'_>,
) -> Result<(), Denied> {
    // Nobody has to prove anything on this server.
    let Some(grants) = grants else { return Ok(()) };
    let (scope, stream) = (Resource::Scope(target.scope), Resource::Stream(target.scope, target.name));
    let group = Resource::ReaderGroup(target.scope, target.name);
    let is_kept_for_another = need == Need::ByKind && stream.is_kept_for_another();
    let level = match (need, target.access) {
        (Need::Look, _) | (Need::ByAccess, Access::None) => Level::Read,
        (Need::Change, _) | (Need::ByAccess, Access::Read | Access::Change) => Level::ReadUpdate,
        (Need::ByKind, _) if is_kept_for_another => Level::Read,
        (Need::ByKind, _) => Level::ReadUpdate,
        (Need::Token, _) => return token_grants(grants, target).map(|_| ()),
    };
    let (resource, besides) = match on {
        On::Nothing => return Ok(()),
        On::Root => (Resource::Root, None),
        On::Scope => (scope, is_kept_for_another.then_some((stream, level))),
        On::Stream => (stream, None),
        On::Table => (Resource::Table(target.scope, target.name), None),
        On::Group => (group, Some((scope, Level::Read))),
    };
    let needed = besides.into_iter().chain([(resource, level)]);
    match needed.into_iter().find(|(resource, level)| !grants.allow(*resource, *level)) {
        None => Ok(()),
        Some((missing, level)) => Err(Denied { operation, level, resource: missing.to_string() }),
    }
}

macro_rules! rpcs {
    ($($variant:ident $path:literal $on:ident $need:ident)*) => {
        /// Every call of the controller.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum Rpc {
            $(#[doc = concat!("`", $path, "`")] $variant,)*
        }

        impl Rpc {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name, which is also the last part of its HTTP/2 path.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $path,)* }
            }

            fn row(self) -> (On, Need) {
                match self { $(Self::$variant => (On::$on, Need::$need),)* }
            }
        }
    };
}

rpcs! {
    GetControllerServerList          "getControllerServerList"          Nothing Look
    CreateScope                      "createScope"                      Root    Change
    DeleteScope                      "deleteScope"                      Root    Change
    DeleteScopeRecursive             "deleteScopeRecursive"             Root    Change
    GetControllerToBucketMapping     "getControllerToBucketMapping"     Root    Change
    ListScopes                       "listScopes"                       Root    Look
    CheckScopeExists                 "checkScopeExists"                 Scope   Look
    ListStreamsInScope               "listStreamsInScope"               Scope   Look
    ListStreamsInScopeForTag         "listStreamsInScopeForTag"         Scope   Look
    ListKeyValueTablesInScope        "listKeyValueTablesInScope"        Scope   Look
    CreateStream                     "createStream"                     Scope   ByKind
    UpdateStream                     "updateStream"                     Stream  Change
    TruncateStream                   "truncateStream"                   Stream  Change
    SealStream                       "sealStream"                       Stream  Change
    DeleteStream                     "deleteStream"                     Stream  Change
    Scale                            "scale"                            Stream  Change
    GetEpochSegments                 "getEpochSegments"                 Stream  Change
    GetCurrentSegments               "getCurrentSegments"               Stream  ByAccess
    GetSegments                      "getSegments"                      Stream  ByAccess
    GetSegmentsImmediatlyFollowing   "getSegmentsImmediatlyFollowing"   Stream  Look
    GetSegmentsImmediatelyFollowing  "getSegmentsImmediatelyFollowing"  Stream  Look
    GetSegmentsBetween               "getSegmentsBetween"               Stream  Look
    GetUri                           "getURI"                           Stream  Look
    IsSegmentValid                   "isSegmentValid"                   Stream  Look
    IsStreamCutValid                 "isStreamCutValid"                 Stream  Look
    CheckScale                       "checkScale"                       Stream  Look
    CheckStreamExists                "checkStreamExists"                Stream  Look
    GetStreamConfiguration           "getStreamConfiguration"           Stream  Look
    CreateTransaction                "createTransaction"                Stream  Change
    CommitTransaction                "commitTransaction"                Stream  Change
    AbortTransaction                 "abortTransaction"                 Stream  Change
    PingTransaction                  "pingTransaction"                  Stream  Change
    CheckTransactionState            "checkTransactionState"            Stream  Look
    ListCompletedTransactions        "listCompletedTransactions"        Stream  Look
    NoteTimestampFromWriter          "noteTimestampFromWriter"          Stream  Change
    RemoveWriter                     "removeWriter"                     Stream  Change
    ListSubscribers                  "listSubscribers"                  Stream  Change
    UpdateSubscriberStreamCut        "updateSubscriberStreamCut"        Stream  Change
    CreateReaderGroup                "createReaderGroup"                Group   Look
    UpdateReaderGroup                "updateReaderGroup"                Group   Look
    DeleteReaderGroup                "deleteReaderGroup"                Group   Look
    GetReaderGroupConfig             "getReaderGroupConfig"             Group   Look
    CreateKeyValueTable              "createKeyValueTable"              Scope   Change
    GetCurrentSegmentsKeyValueTable  "getCurrentSegmentsKeyValueTable"  Table   Change
    DeleteKeyValueTable              "deleteKeyValueTable"              Table   Change
    GetKeyValueTableConfiguration    "getKeyValueTableConfiguration"    Table   Look
    GetDelegationToken               "getDelegationToken"               Stream  Token
}

impl Rpc {
    /// By its name in the HTTP/2 path.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rpc| rpc.name() == name)
    }

    /// Whether also those are answered who did not say who they are.
    pub fn is_open(self) -> bool {
        self.row().0 == On::Nothing
    }

    /// Whether somebody may do it. `grants` is `None` on a server where nobody has to prove anything.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(self, grants: Option<&Grants>, target: &Target<'_>) -> Result<(), Denied> {
        decide(self.name(), self.row(), grants, target)
    }
}

/// What a delegation token for a target may grant: nothing, if nothing is wanted.
///
/// # Errors
/// [`Denied`] if less is granted than is wanted.
pub fn token_grants<'a>(grants: &Grants, target: &Target<'a>) -> Result<Vec<(Resource<'a>, Level)>, Denied> {
    let (stream, table) = (Resource::Stream(target.scope, target.name), Resource::Table(target.scope, target.name));
    let level = match target.access {
        Access::None => return Ok(Vec::new()),
        Access::Read => Level::Read,
        Access::Change => Level::ReadUpdate,
    };
    if stream.is_kept_for_another() {
        // Readers write down where they are. The time of a stream they only read, although they ask to write it: nobody
        // but the controller writes there.
        let granted = if stream.is_written_by_readers() { Level::ReadUpdate } else { Level::Read };
        return match grants.allow(stream, Level::Read) {
            true => Ok(vec![(stream, granted)]),
            false => Err(Denied { operation: "getDelegationToken", level: Level::Read, resource: stream.to_string() }),
        };
    }
    let mut listed = Vec::new();
    if grants.allow(stream, level) {
        listed.push((stream, level));
    }
    // Java clients ask for a table as if it were a stream, and the claim of a stream covers the table of its name, unless
    // there is one for the table.
    let segments = format!("{}{TABLE}", target.name);
    let of_table = grants.level(Resource::Stream(target.scope, &segments)).min(level);
    if of_table == level || !listed.is_empty() {
        listed.push((table, of_table));
    }
    if listed.is_empty() {
        return Err(Denied { operation: "getDelegationToken", level, resource: stream.to_string() });
    }
    Ok(listed)
}

macro_rules! wire_commands {
    ($($variant:ident $need:ident)*) => {
        /// Every command of the segment store protocol that asks for something. Appends are covered by their set-up.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        #[allow(missing_docs, reason = "they have the names of the protocol's commands")]
        pub enum WireCommand {
            $($variant,)*
        }

        impl WireCommand {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// What it needs on every segment that it names.
            pub fn level(self) -> Level {
                match self { $(Self::$variant => wire_commands!(@level $need),)* }
            }

            /// Whether readers do it in the stream of their group.
            fn is_of_readers(self) -> bool {
                match self { $(Self::$variant => wire_commands!(@readers $need),)* }
            }
        }
    };
    (@level Look) => { Level::Read };
    (@level Note) => { Level::ReadUpdate };
    (@level Change) => { Level::ReadUpdate };
    (@readers Look) => { true };
    (@readers Note) => { true };
    (@readers Change) => { false };
}

wire_commands! {
    SetupAppend            Note
    ReadSegment            Look
    GetStreamSegmentInfo   Look
    CreateSegment          Change
    SealSegment            Change
    DeleteSegment          Change
    UpdateSegmentPolicy    Change
    GetSegmentAttribute    Look
    UpdateSegmentAttribute Note
    TruncateSegment        Note
    CreateTransientSegment Change
    LocateOffset           Look
    MergeSegments          Change
    MergeSegmentsBatch     Change
    GetTableSegmentInfo    Look
    CreateTableSegment     Change
    DeleteTableSegment     Change
    UpdateTableEntries     Change
    RemoveTableKeys        Change
    ReadTable              Look
    ReadTableKeys          Look
    ReadTableEntries       Look
    ReadTableEntriesDelta  Look
    ListStorageChunks      Look
    FlushToStorage         Change
}

/// Whether a segment is one in which the readers of a group write down where they are.
fn is_written_by_readers(segment: &str) -> bool {
    segment.split_once('/').is_some_and(|(scope, stream)| Resource::Stream(scope, stream).is_written_by_readers())
}

impl WireCommand {
    /// Whether a token allows it on all segments that it names. One that names none is about everything there is, and so, in the
    /// stream of a reader group, is what readers do not do.
    ///
    /// # Errors
    /// Any [`TokenError`].
    pub fn check(self, claims: &Claims, segments: &[&str], now: i64) -> Result<(), TokenError> {
        claims.is_good(now)?;
        let level = self.level();
        let is_granted = match segments {
            [] => claims.level_of_all() >= level,
            several => several.iter().all(|segment| {
                let is_for_claims = self.is_of_readers() || !is_written_by_readers(segment);
                level <= if is_for_claims { claims.level(segment) } else { claims.level_of_all() }
            }),
        };
        if is_granted { Ok(()) } else { Err(TokenError::Refused) }
    }
}

macro_rules! http_routes {
    ($($variant:ident $method:literal $path:literal $on:ident $need:ident)*) => {
        /// Every route of the HTTP listener.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum HttpRoute {
            $(#[doc = concat!("`", $method, " ", $path, "`")] $variant,)*
        }

        impl HttpRoute {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its method.
            pub fn method(self) -> &'static str {
                match self { $(Self::$variant => $method,)* }
            }

            /// Its path; parts in braces stand for any text, and `scope`, `stream` and `group` among them for its target.
            pub fn path(self) -> &'static str {
                match self { $(Self::$variant => $path,)* }
            }

            fn name(self) -> &'static str {
                match self { $(Self::$variant => concat!($method, " ", $path),)* }
            }

            fn row(self) -> (On, Need) {
                match self { $(Self::$variant => (On::$on, Need::$need),)* }
            }
        }
    };
}

http_routes! {
    About           "GET"    "/"                                            Nothing Look
    OpenApi         "GET"    "/openapi.json"                                Nothing Look
    Ping            "GET"    "/ping"                                        Nothing Look
    Healthz         "GET"    "/healthz"                                     Nothing Look
    Readyz          "GET"    "/readyz"                                      Nothing Look
    Metrics         "GET"    "/metrics"                                     Root    Look
    Health          "GET"    "/v1/health"                                   Root    Look
    HealthOf        "GET"    "/v1/health/{id}"                              Root    Look
    Readiness       "GET"    "/v1/health/readiness"                         Root    Look
    ReadinessOf     "GET"    "/v1/health/readiness/{id}"                    Root    Look
    Liveness        "GET"    "/v1/health/liveness"                          Root    Look
    LivenessOf      "GET"    "/v1/health/liveness/{id}"                     Root    Look
    HealthDetails   "GET"    "/v1/health/details"                           Root    Look
    HealthDetailsOf "GET"    "/v1/health/details/{id}"                      Root    Look
    HealthStatus    "GET"    "/v1/health/status"                            Root    Look
    HealthStatusOf  "GET"    "/v1/health/status/{id}"                       Root    Look
    BeginBackup     "POST"   "/v1/backups"                                  Root    Change
    EndBackup       "DELETE" "/v1/backups/{id}"                             Root    Change
    ListBackup      "GET"    "/v1/backups/{id}/files"                       Root    Change
    ReadBackup      "GET"    "/v1/backups/{id}/files/{*name}"               Root    Change
    OpenTransactions "GET"   "/v1/transactions"                             Root    Look
    ListScopes      "GET"    "/v1/scopes"                                   Root    Look
    CreateScope     "POST"   "/v1/scopes"                                   Root    Change
    GetScope        "GET"    "/v1/scopes/{scope}"                           Scope   Look
    DeleteScope     "DELETE" "/v1/scopes/{scope}"                           Root    Change
    ListStreams     "GET"    "/v1/scopes/{scope}/streams"                   Scope   Look
    CreateStream    "POST"   "/v1/scopes/{scope}/streams"                   Scope   Change
    GetStream       "GET"    "/v1/scopes/{scope}/streams/{stream}"          Stream  Look
    UpdateStream    "PUT"    "/v1/scopes/{scope}/streams/{stream}"          Stream  Change
    DeleteStream    "DELETE" "/v1/scopes/{scope}/streams/{stream}"          Stream  Change
    SealStream      "PUT"    "/v1/scopes/{scope}/streams/{stream}/state"    Stream  Change
    ScalingEvents   "GET"    "/v1/scopes/{scope}/streams/{stream}/scaling-events" Stream Look
    RetentionPlan   "GET"    "/v1/scopes/{scope}/streams/{stream}/retention"    Stream Look
    SegmentHeat     "GET"    "/v1/scopes/{scope}/streams/{stream}/heat"         Stream Look
    Epochs          "GET"    "/v1/scopes/{scope}/streams/{stream}/epochs"       Stream Look
    Transactions    "GET"    "/v1/scopes/{scope}/streams/{stream}/transactions" Stream Look
    ListGroups      "GET"    "/v1/scopes/{scope}/readergroups"              Scope   Look
    GetGroup        "GET"    "/v1/scopes/{scope}/readergroups/{group}"      Group   Look
    DeleteGroup     "DELETE" "/v1/scopes/{scope}/readergroups/{group}"      Group   Change
    GroupLag        "GET"    "/v1/scopes/{scope}/readergroups/{group}/lag"  Group   Look
}

impl HttpRoute {
    /// Whether also those are answered who did not say who they are.
    pub fn is_open(self) -> bool {
        self.row().0 == On::Nothing
    }

    /// What it needs, in words for its users: a resource, `{…}` standing for what its path names, and a level. `None` if it
    /// is open.
    pub fn need(self) -> Option<(&'static str, Level)> {
        let (on, need) = self.row();
        let resource = match on {
            On::Nothing => return None,
            On::Root => "prn::/",
            On::Scope => "prn::/scope:{scope}",
            On::Stream => "prn::/scope:{scope}/stream:{stream}",
            On::Table => "prn::/scope:{scope}/key-value-table:{table}",
            On::Group => "prn::/scope:{scope}/reader-group:{group}",
        };
        let level = match need {
            Need::Look => Level::Read,
            Need::Change | Need::ByAccess | Need::ByKind | Need::Token => Level::ReadUpdate,
        };
        Some((resource, level))
    }

    /// Whether somebody may do it. `grants` is `None` on a server where nobody has to prove anything.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn check(self, grants: Option<&Grants>, target: &Target<'_>) -> Result<(), Denied> {
        decide(self.name(), self.row(), grants, target)
    }
}

impl fmt::Display for HttpRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delegation::Key;
    use crate::grants::Grant;

    fn grants(texts: &[&str]) -> Grants {
        Grants::new(texts.iter().map(|text| Grant::parse(text).unwrap()).collect())
    }

    fn on<'a>(name: &'a str, access: Access) -> Target<'a> {
        Target { scope: "s", name, access }
    }

    #[test]
    fn nothing_is_granted_to_those_who_were_granted_nothing() {
        let nothing = grants(&[]);
        for rpc in Rpc::ALL {
            assert_eq!(rpc.check(Some(&nothing), &on("t", Access::Change)).is_ok(), rpc.is_open(), "{rpc:?}");
        }
        for route in HttpRoute::ALL {
            assert_eq!(route.check(Some(&nothing), &Target::default()).is_ok(), route.is_open(), "{route}");
        }
    }

    #[test]
    fn whoever_may_only_read_a_scope_changes_nothing_of_its_streams() {
        let reader = grants(&["prn::/,READ", "prn::/scope:s,READ", "prn::/scope:s/*,READ"]);
        for rpc in Rpc::ALL {
            let allowed = rpc.check(Some(&reader), &on("t", Access::Change)).is_ok();
            let (resource, need) = rpc.row();
            assert_eq!(allowed, resource == On::Nothing || need == Need::Look, "{rpc:?}");
        }
        assert!(Rpc::GetSegments.check(Some(&reader), &on("t", Access::None)).is_ok());
        assert!(Rpc::CreateStream.check(Some(&reader), &on("_RGg", Access::Change)).is_ok());
        assert!(Rpc::GetDelegationToken.check(Some(&reader), &on("t", Access::Read)).is_ok());
    }

    #[test]
    fn a_group_that_is_denied_is_denied_to_those_who_may_use_groups_of_its_scope() {
        let all_but_g = grants(&["prn::/scope:s,READ", "prn::/scope:s/*,READ", "prn::/scope:s/reader-group:g,NONE"]);
        for rpc in [Rpc::CreateReaderGroup, Rpc::UpdateReaderGroup, Rpc::DeleteReaderGroup, Rpc::GetReaderGroupConfig] {
            assert!(rpc.check(Some(&all_but_g), &on("h", Access::Change)).is_ok(), "{rpc:?}");
            let denied = rpc.check(Some(&all_but_g), &on("g", Access::Change)).unwrap_err();
            assert_eq!(denied.resource, "prn::/scope:s/reader-group:g", "{rpc:?}");
            let of_group = grants(&["prn::/scope:s/reader-group:g,READ"]);
            assert!(rpc.check(Some(&of_group), &on("g", Access::Change)).is_err(), "{rpc:?} without the scope");
        }
        assert!(Rpc::CreateStream.check(Some(&all_but_g), &on("_RGh", Access::Change)).is_ok());
        assert!(Rpc::CreateStream.check(Some(&all_but_g), &on("_RGg", Access::Change)).is_err());
    }

    #[test]
    fn whoever_may_only_look_changes_nothing_over_http() {
        let reader = grants(&["prn::*,READ"]);
        for route in HttpRoute::ALL {
            let allowed = route.check(Some(&reader), &on("t", Access::Change)).is_ok();
            let looks = route.need().is_none_or(|(_, level)| level == Level::Read);
            assert_eq!(allowed, looks, "{route}");
            // A backup is read with GET and yet is everything there is.
            assert!(route.method() == "GET" || !looks, "{route}");
        }
        let of_group = grants(&["prn::/scope:s,READ", "prn::/scope:s/reader-group:g,READ_UPDATE"]);
        assert!(HttpRoute::DeleteGroup.check(Some(&of_group), &on("g", Access::Change)).is_ok());
        assert!(HttpRoute::DeleteGroup.check(Some(&of_group), &on("h", Access::Change)).is_err());
    }

    #[test]
    fn a_token_grants_no_more_than_was_granted() {
        let check = |texts: &[&str], name: &str, access, expected: Option<&[(&str, Level)]>| {
            let listed = token_grants(&grants(texts), &on(name, access)).ok();
            let listed = listed.map(|listed| listed.iter().map(|(r, l)| (r.to_string(), *l)).collect::<Vec<_>>());
            let expected = expected.map(|some| some.iter().map(|(r, l)| (format!("prn::/scope:s/{r}"), *l)).collect());
            assert_eq!(listed, expected, "{texts:?} {name} {access:?}");
        };
        let (read, change) = (Level::Read, Level::ReadUpdate);
        let stream: &[_] = &["prn::/scope:s/stream:t,READ_UPDATE"];
        check(stream, "t", Access::Change, Some(&[("stream:t", change), ("key-value-table:t", change)]));
        check(stream, "t", Access::Read, Some(&[("stream:t", read), ("key-value-table:t", read)]));
        check(stream, "t", Access::None, Some(&[]));
        check(stream, "u", Access::Read, None);
        check(&["prn::/scope:s/stream:t,READ"], "t", Access::Change, None);
        check(
            &["prn::/scope:s/key-value-table:t,READ_UPDATE"],
            "t",
            Access::Change,
            Some(&[("key-value-table:t", change)]),
        );
        let but_the_table: &[_] = &["prn::/scope:s/*,READ_UPDATE", "prn::/scope:s/key-value-table:t,NONE"];
        let expected: &[_] = &[("stream:t", change), ("key-value-table:t", Level::None)];
        check(but_the_table, "t", Access::Change, Some(expected));
        check(&["prn::/scope:s/reader-group:g,READ"], "_RGg", Access::Change, Some(&[("stream:_RGg", change)]));
        check(&["prn::/scope:s/stream:t,READ"], "_MARKt", Access::Change, Some(&[("stream:_MARKt", read)]));
        check(stream, "_MARKt", Access::Change, Some(&[("stream:_MARKt", read)]));
        check(&["prn::*,READ_UPDATE"], "_MARKt", Access::Change, Some(&[("stream:_MARKt", read)]));
        check(&["prn::/scope:s/stream:u,READ"], "_MARKt", Access::Read, None);
    }

    #[test]
    fn in_the_stream_of_a_group_readers_do_what_readers_do() {
        const SEGMENT: &str = "s/_RGg/0.#epoch.0";
        let key = Key::new(&[7; 64]).unwrap();
        let token = |resource| key.verify(&key.sign(&[(resource, Level::ReadUpdate)], 0, 600).unwrap()).unwrap();
        let (of_group, of_stream) = (token(Resource::Stream("s", "_RGg")), token(Resource::Stream("s", "t")));
        for command in WireCommand::ALL {
            let allowed = command.check(&of_group, &[SEGMENT], 0).is_ok();
            let is_of_readers = matches!(
                command,
                WireCommand::SetupAppend | WireCommand::UpdateSegmentAttribute | WireCommand::TruncateSegment
            );
            assert_eq!(allowed, is_of_readers || command.level() == Level::Read, "{command:?}");
            assert!(command.check(&of_stream, &["s/t/0.#epoch.0"], 0).is_ok(), "{command:?}");
            assert!(command.check(&of_stream, &[SEGMENT], 0).is_err(), "{command:?}");
        }
    }

    #[test]
    fn no_two_operations_share_a_name() {
        let names: std::collections::BTreeSet<_> = Rpc::ALL.iter().map(|rpc| rpc.name()).collect();
        assert_eq!(names.len(), 47);
        let routes: std::collections::BTreeSet<_> = HttpRoute::ALL.iter().map(|route| route.name()).collect();
        assert_eq!(routes.len(), HttpRoute::ALL.len());
    }
}
