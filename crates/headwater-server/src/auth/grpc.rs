//! The controller's calls, guarded: who calls is found out before a message is read, what they may do before it is
//! carried out.
//!
//! ```text
//!   HTTP/2 ─► Authenticated ─► decoding ─► Guarded ─► ControllerGrpc
//!                  │                          │
//!           UNAUTHENTICATED          PERMISSION_DENIED
//! ```
//!
//! Guarantees:
//! * a call that the service has and this file has not does not compile
//! * lists have only what the caller may read, and so have the places to go on at; a page is empty only at the end, since
//!   clients take it for that
//! * tokens in answers grant no more than the caller was granted

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http;
use headwater_auth::operations::token_grants;
use headwater_auth::{Access, Level, Resource, Rpc, Target};
use headwater_proto::controller as proto;
use headwater_proto::controller::controller_service_server::{ControllerService, ControllerServiceServer};
use proto::reader_group_configuration::RetentionType;
use proto::stream_info::AccessOperation;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status};

use super::{Caller, Guard, Origin, Unknown};
use crate::grpc::ControllerGrpc;

/// Source of both texts: what Pravega's controller says.
fn unauthenticated() -> Status {
    Status::unauthenticated("Authentication failed")
}

fn denied() -> Status {
    Status::permission_denied("Authorization failed")
}

/// Whatever bytes come as a message are its sender's doing, while tonic calls it a failure of its own: clients would
/// try that again for a minute and more.
fn blamed(answer: http::Response<Body>) -> http::Response<Body> {
    let Some(status) = Status::from_header_map(answer.headers()) else { return answer };
    let is_theirs = ["failed to decode Protobuf message", "Missing request message"];
    if status.code() == Code::Internal && is_theirs.iter().any(|text| status.message().starts_with(text)) {
        return Status::invalid_argument(status.message()).into_http();
    }
    answer
}

/// A service whose callers were identified before their messages are read.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated<S> {
    inner: S,
    guard: Guard,
}

/// The controller service behind both guards.
pub(crate) fn guarded(
    controller: ControllerGrpc,
    limits: impl FnOnce(ControllerServiceServer<Guarded>) -> ControllerServiceServer<Guarded>,
    guard: Guard,
) -> Authenticated<ControllerServiceServer<Guarded>> {
    let service = Guarded { inner: controller, guard: guard.clone() };
    Authenticated { inner: limits(ControllerServiceServer::new(service)), guard }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Authenticated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Answering {
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let guard = self.guard.clone();
        Box::pin(async move {
            let name = request.uri().path().rsplit('/').next().unwrap_or_default();
            let is_open = Rpc::named(name).is_some_and(Rpc::is_open);
            let origin = request.extensions().get::<Origin>().copied().unwrap_or_default();
            match guard.identify(request.headers(), origin).await {
                Ok(caller) if is_open || !caller.is_nobody() => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await.map(blamed)
                }
                Ok(_) | Err(Unknown::Refused) => Ok(unauthenticated().into_http()),
                // What all clients come back after.
                Err(Unknown::Busy) => Ok(Status::unavailable("too many others prove who they are").into_http()),
            }
        })
    }
}

/// What a message is about.
trait About {
    fn target(&self) -> Target<'_>;
}

fn scope(scope: &str) -> Target<'_> {
    Target { scope, ..Target::default() }
}

fn named<'a>(scope: &'a str, name: &'a str) -> Target<'a> {
    Target { scope, name, access: Access::Change }
}

/// Nothing was named: nothing but a grant of everything covers that.
fn stream(info: Option<&proto::StreamInfo>) -> Target<'_> {
    info.map_or_else(Target::default, About::target)
}

impl About for proto::StreamInfo {
    fn target(&self) -> Target<'_> {
        let access = match self.access_operation() {
            AccessOperation::None => Access::None,
            AccessOperation::Read => Access::Read,
            AccessOperation::Unspecified
            | AccessOperation::Any
            | AccessOperation::Write
            | AccessOperation::ReadWrite => Access::Change,
        };
        Target { scope: &self.scope, name: &self.stream, access }
    }
}

macro_rules! about {
    ($($message:ident: $this:ident => $target:expr;)*) => {
        $(impl About for proto::$message {
            fn target(&self) -> Target<'_> {
                let $this = self;
                $target
            }
        })*
    };
}

about! {
    ServerRequest: _this => Target::default();
    ScopesRequest: _this => Target::default();
    ControllerToBucketMappingRequest: _this => Target::default();
    ScopeInfo: this => scope(&this.scope);
    StreamsInScopeRequest: this => this.scope.as_ref().map_or_else(Target::default, About::target);
    StreamsInScopeWithTagRequest: this => this.scope.as_ref().map_or_else(Target::default, About::target);
    KvTablesInScopeRequest: this => this.scope.as_ref().map_or_else(Target::default, About::target);
    StreamConfig: this => stream(this.stream_info.as_ref());
    StreamCut: this => stream(this.stream_info.as_ref());
    StreamCutRange: this => stream(this.stream_info.as_ref());
    GetEpochSegmentsRequest: this => stream(this.stream_info.as_ref());
    GetSegmentsRequest: this => stream(this.stream_info.as_ref());
    SegmentId: this => stream(this.stream_info.as_ref());
    ScaleRequest: this => stream(this.stream_info.as_ref());
    ScaleStatusRequest: this => stream(this.stream_info.as_ref());
    CreateTxnRequest: this => stream(this.stream_info.as_ref());
    TxnRequest: this => stream(this.stream_info.as_ref());
    PingTxnRequest: this => stream(this.stream_info.as_ref());
    ListCompletedTxnRequest: this => stream(this.stream_info.as_ref());
    RemoveWriterRequest: this => stream(this.stream.as_ref());
    TimestampFromWriter: this => this.position.as_ref().map_or_else(Target::default, About::target);
    SubscriberStreamCut: this => this.stream_cut.as_ref().map_or_else(Target::default, About::target);
    ReaderGroupConfiguration: this => named(&this.scope, &this.reader_group_name);
    ReaderGroupInfo: this => named(&this.scope, &this.reader_group);
    KeyValueTableConfig: this => named(&this.scope, &this.kvt_name);
    KeyValueTableInfo: this => named(&this.scope, &this.kvt_name);
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    inner: ControllerGrpc,
    guard: Guard,
}

impl Guarded {
    /// Who calls, if they may.
    fn admit<T: About>(&self, rpc: Rpc, request: &Request<T>) -> Result<Caller, Status> {
        // Whoever came round the first guard is nobody.
        let unknown = if self.guard.is_on() { Caller::Nobody } else { Caller::Anyone };
        let caller = request.extensions().get::<Caller>().cloned().unwrap_or(unknown);
        check(rpc, &caller, &request.get_ref().target()).map(|()| caller)
    }

    /// The same for the configuration of a group: one that holds back retention needs on each of its streams what
    /// telling the retention a position needs.
    fn admit_group(&self, rpc: Rpc, request: &Request<proto::ReaderGroupConfiguration>) -> Result<Caller, Status> {
        let caller = self.admit(rpc, request)?;
        admit_to_held(&caller, request.get_ref())?;
        Ok(caller)
    }

    /// The same for what a group holds back by now, which it returns: what it lets go of, retention drops for good. Nothing if
    /// nobody needs to be asked.
    async fn admit_to_stored(
        &self,
        caller: &Caller,
        scope: &str,
        group: &str,
    ) -> Result<Option<proto::ReaderGroupConfiguration>, Status> {
        if caller.grants().is_none() {
            return Ok(None);
        }
        let info = proto::ReaderGroupInfo { scope: scope.into(), reader_group: group.into(), ..Default::default() };
        let found = self.inner.get_reader_group_config(Request::new(info)).await?.into_inner();
        found.config.iter().try_for_each(|config| admit_to_held(caller, config))?;
        Ok(found.config)
    }

    /// Where a list goes on, for its caller alone to come back with.
    fn sealed(&self, list: Rpc, place: Option<proto::ContinuationToken>) -> Option<proto::ContinuationToken> {
        place.map(|place| proto::ContinuationToken { token: self.guard.seal(list.name(), place.token) })
    }

    fn unsealed(
        &self,
        list: Rpc,
        place: Option<proto::ContinuationToken>,
    ) -> Result<Option<proto::ContinuationToken>, Status> {
        let Some(proto::ContinuationToken { token }) = place else { return Ok(None) };
        let token = self.guard.unseal(list.name(), token);
        let token = token.ok_or_else(|| Status::invalid_argument("the continuation token is none of ours"))?;
        Ok(Some(proto::ContinuationToken { token }))
    }

    /// A token for a stream at a level that was checked.
    fn token(&self, info: Option<&proto::StreamInfo>, caller: &Caller, access: Access) -> String {
        let (Some(info), Some(grants)) = (info, caller.grants()) else { return String::new() };
        let target = Target { access, ..info.target() };
        let granted = token_grants(grants, &target).unwrap_or_default();
        if granted.is_empty() { String::new() } else { self.guard.issue(&granted).unwrap_or_default() }
    }
}

/// Whether a caller may tell the retention of all streams that a group holds back where it is.
fn admit_to_held(caller: &Caller, config: &proto::ReaderGroupConfiguration) -> Result<(), Status> {
    let holds_back = config.retention_type != i32::from(RetentionType::None);
    let mut streams = config.starting_stream_cuts.iter().filter(|_| holds_back);
    streams.try_for_each(|cut| check(Rpc::UpdateSubscriberStreamCut, caller, &cut.target()))
}

/// Whether a caller may do something.
fn check(rpc: Rpc, caller: &Caller, target: &Target<'_>) -> Result<(), Status> {
    match rpc.check(caller.grants(), target) {
        Ok(()) => Ok(()),
        Err(_) if caller.is_nobody() => Err(unauthenticated()),
        Err(missing) => {
            if let Caller::Known { name, .. } = caller {
                tracing::debug!(%name, %missing, "denied");
            }
            Err(denied())
        }
    }
}

/// Pages until one has something in it that the caller sees, or the list ends.
macro_rules! visible_page {
    ($self:ident, $request:ident, $rpc:ident, $method:ident, $items:ident, $item:ident => $resource:expr) => {{
        let caller = $self.admit(Rpc::$rpc, &$request)?;
        let mut request = $request.into_inner();
        request.continuation_token = $self.unsealed(Rpc::$rpc, request.continuation_token)?;
        loop {
            let mut page = $self.inner.$method(Request::new(request.clone())).await?.into_inner();
            let is_end = page.$items.is_empty();
            page.$items.retain(|$item| caller.sees($resource));
            if is_end || !page.$items.is_empty() {
                page.continuation_token = $self.sealed(Rpc::$rpc, page.continuation_token);
                return Ok(Response::new(page));
            }
            request.continuation_token = page.continuation_token;
        }
    }};
}

macro_rules! controller_service {
    (plain { $($method:ident($request:ident) -> $response:ident = $rpc:ident;)* } special { $($special:tt)* }) => {
        #[tonic::async_trait]
        impl ControllerService for Guarded {
            $(async fn $method(
                &self,
                request: Request<proto::$request>,
            ) -> Result<Response<proto::$response>, Status> {
                self.admit(Rpc::$rpc, &request)?;
                self.inner.$method(request).await
            })*

            $($special)*
        }
    };
}

controller_service! {
plain {
    get_controller_server_list(ServerRequest) -> ServerResponse = GetControllerServerList;
    create_stream(StreamConfig) -> CreateStreamStatus = CreateStream;
    update_stream(StreamConfig) -> UpdateStreamStatus = UpdateStream;
    truncate_stream(StreamCut) -> UpdateStreamStatus = TruncateStream;
    seal_stream(StreamInfo) -> UpdateStreamStatus = SealStream;
    delete_stream(StreamInfo) -> DeleteStreamStatus = DeleteStream;
    get_segments_immediatly_following(SegmentId) -> SuccessorResponse = GetSegmentsImmediatlyFollowing;
    get_segments_immediately_following(SegmentId) -> SuccessorResponse = GetSegmentsImmediatelyFollowing;
    scale(ScaleRequest) -> ScaleResponse = Scale;
    check_scale(ScaleStatusRequest) -> ScaleStatusResponse = CheckScale;
    get_uri(SegmentId) -> NodeUri = GetUri;
    is_segment_valid(SegmentId) -> SegmentValidityResponse = IsSegmentValid;
    is_stream_cut_valid(StreamCut) -> StreamCutValidityResponse = IsStreamCutValid;
    commit_transaction(TxnRequest) -> TxnStatus = CommitTransaction;
    abort_transaction(TxnRequest) -> TxnStatus = AbortTransaction;
    ping_transaction(PingTxnRequest) -> PingTxnStatus = PingTransaction;
    check_transaction_state(TxnRequest) -> TxnState = CheckTransactionState;
    list_completed_transactions(ListCompletedTxnRequest) -> ListCompletedTxnResponse = ListCompletedTransactions;
    create_scope(ScopeInfo) -> CreateScopeStatus = CreateScope;
    check_scope_exists(ScopeInfo) -> ExistsResponse = CheckScopeExists;
    check_stream_exists(StreamInfo) -> ExistsResponse = CheckStreamExists;
    delete_scope(ScopeInfo) -> DeleteScopeStatus = DeleteScope;
    delete_scope_recursive(ScopeInfo) -> DeleteScopeStatus = DeleteScopeRecursive;
    remove_writer(RemoveWriterRequest) -> RemoveWriterResponse = RemoveWriter;
    note_timestamp_from_writer(TimestampFromWriter) -> TimestampResponse = NoteTimestampFromWriter;
    create_key_value_table(KeyValueTableConfig) -> CreateKeyValueTableStatus = CreateKeyValueTable;
    get_key_value_table_configuration(KeyValueTableInfo) -> KeyValueTableConfigResponse = GetKeyValueTableConfiguration;
    delete_key_value_table(KeyValueTableInfo) -> DeleteKvTableStatus = DeleteKeyValueTable;
    list_subscribers(StreamInfo) -> SubscribersResponse = ListSubscribers;
    update_subscriber_stream_cut(SubscriberStreamCut) -> UpdateSubscriberStatus = UpdateSubscriberStreamCut;
    get_reader_group_config(ReaderGroupInfo) -> ReaderGroupConfigResponse = GetReaderGroupConfig;
    get_stream_configuration(StreamInfo) -> StreamConfig = GetStreamConfiguration;
    get_controller_to_bucket_mapping(ControllerToBucketMappingRequest) -> ControllerToBucketMappingResponse
        = GetControllerToBucketMapping;
}
special {

    async fn list_scopes(
        &self,
        request: Request<proto::ScopesRequest>,
    ) -> Result<Response<proto::ScopesResponse>, Status> {
        visible_page!(self, request, ListScopes, list_scopes, scopes, scope => Resource::Scope(scope))
    }

    async fn list_streams_in_scope(
        &self,
        request: Request<proto::StreamsInScopeRequest>,
    ) -> Result<Response<proto::StreamsInScopeResponse>, Status> {
        visible_page!(self, request, ListStreamsInScope, list_streams_in_scope, streams, info =>
            Resource::Stream(&info.scope, &info.stream))
    }

    async fn list_streams_in_scope_for_tag(
        &self,
        request: Request<proto::StreamsInScopeWithTagRequest>,
    ) -> Result<Response<proto::StreamsInScopeResponse>, Status> {
        visible_page!(self, request, ListStreamsInScopeForTag, list_streams_in_scope_for_tag, streams, info =>
            Resource::Stream(&info.scope, &info.stream))
    }

    async fn list_key_value_tables_in_scope(
        &self,
        request: Request<proto::KvTablesInScopeRequest>,
    ) -> Result<Response<proto::KvTablesInScopeResponse>, Status> {
        visible_page!(self, request, ListKeyValueTablesInScope, list_key_value_tables_in_scope, kvtables, info =>
            Resource::Table(&info.scope, &info.kvt_name))
    }

    async fn get_current_segments(
        &self,
        request: Request<proto::StreamInfo>,
    ) -> Result<Response<proto::SegmentRanges>, Status> {
        let caller = self.admit(Rpc::GetCurrentSegments, &request)?;
        let info = request.get_ref().clone();
        let mut answer = self.inner.get_current_segments(request).await?;
        if info.target().access != Access::None {
            answer.get_mut().delegation_token = self.token(Some(&info), &caller, Access::Change);
        }
        Ok(answer)
    }

    async fn get_current_segments_key_value_table(
        &self,
        request: Request<proto::KeyValueTableInfo>,
    ) -> Result<Response<proto::SegmentRanges>, Status> {
        let caller = self.admit(Rpc::GetCurrentSegmentsKeyValueTable, &request)?;
        let target = named(&request.get_ref().scope, &request.get_ref().kvt_name);
        let table = [(Resource::Table(target.scope, target.name), Level::ReadUpdate)];
        let token = if caller.grants().is_some() { self.guard.issue(&table).unwrap_or_default() } else { String::new() };
        let mut answer = self.inner.get_current_segments_key_value_table(request).await?;
        answer.get_mut().delegation_token = token;
        Ok(answer)
    }

    async fn get_epoch_segments(
        &self,
        request: Request<proto::GetEpochSegmentsRequest>,
    ) -> Result<Response<proto::SegmentRanges>, Status> {
        let caller = self.admit(Rpc::GetEpochSegments, &request)?;
        let info = request.get_ref().stream_info.clone();
        let mut answer = self.inner.get_epoch_segments(request).await?;
        answer.get_mut().delegation_token = self.token(info.as_ref(), &caller, Access::Change);
        Ok(answer)
    }

    async fn get_segments(
        &self,
        request: Request<proto::GetSegmentsRequest>,
    ) -> Result<Response<proto::SegmentsAtTime>, Status> {
        let caller = self.admit(Rpc::GetSegments, &request)?;
        let info = request.get_ref().stream_info.clone();
        let wanted = if stream(info.as_ref()).access == Access::None { Access::Read } else { Access::Change };
        let mut answer = self.inner.get_segments(request).await?;
        answer.get_mut().delegation_token = self.token(info.as_ref(), &caller, wanted);
        Ok(answer)
    }

    async fn get_segments_between(
        &self,
        request: Request<proto::StreamCutRange>,
    ) -> Result<Response<proto::StreamCutRangeResponse>, Status> {
        let caller = self.admit(Rpc::GetSegmentsBetween, &request)?;
        let info = request.get_ref().stream_info.clone();
        let mut answer = self.inner.get_segments_between(request).await?;
        answer.get_mut().delegation_token = self.token(info.as_ref(), &caller, Access::Read);
        Ok(answer)
    }

    async fn create_transaction(
        &self,
        request: Request<proto::CreateTxnRequest>,
    ) -> Result<Response<proto::CreateTxnResponse>, Status> {
        let caller = self.admit(Rpc::CreateTransaction, &request)?;
        let info = request.get_ref().stream_info.clone();
        let mut answer = self.inner.create_transaction(request).await?;
        answer.get_mut().delegation_token = self.token(info.as_ref(), &caller, Access::Change);
        Ok(answer)
    }

    async fn create_reader_group(
        &self,
        request: Request<proto::ReaderGroupConfiguration>,
    ) -> Result<Response<proto::CreateReaderGroupResponse>, Status> {
        self.admit_group(Rpc::CreateReaderGroup, &request)?;
        self.inner.create_reader_group(request).await
    }

    async fn update_reader_group(
        &self,
        request: Request<proto::ReaderGroupConfiguration>,
    ) -> Result<Response<proto::UpdateReaderGroupResponse>, Status> {
        let caller = self.admit_group(Rpc::UpdateReaderGroup, &request)?;
        let config = request.get_ref();
        let stored = self.admit_to_stored(&caller, &config.scope, &config.reader_group_name).await?;
        // An update of what was not looked at would find it held by somebody else meanwhile.
        if stored.is_some_and(|stored| stored.generation != config.generation) {
            let status = proto::update_reader_group_response::Status::InvalidConfig.into();
            return Ok(Response::new(proto::UpdateReaderGroupResponse { status, generation: config.generation }));
        }
        self.inner.update_reader_group(request).await
    }

    async fn delete_reader_group(
        &self,
        request: Request<proto::ReaderGroupInfo>,
    ) -> Result<Response<proto::DeleteReaderGroupStatus>, Status> {
        let caller = self.admit(Rpc::DeleteReaderGroup, &request)?;
        let info = request.get_ref();
        self.admit_to_stored(&caller, &info.scope, &info.reader_group).await?;
        self.inner.delete_reader_group(request).await
    }

    /// For whatever name it is asked: also for tables and groups, which need not exist yet.
    async fn get_delegation_token(
        &self,
        request: Request<proto::StreamInfo>,
    ) -> Result<Response<proto::DelegationToken>, Status> {
        let caller = self.admit(Rpc::GetDelegationToken, &request)?;
        let info = request.into_inner();
        let Some(grants) = caller.grants() else {
            return Ok(Response::new(proto::DelegationToken { delegation_token: String::new() }));
        };
        if info.access_operation() == AccessOperation::Any {
            return Err(Status::invalid_argument("no token grants access of the kind ANY"));
        }
        let granted = token_grants(grants, &info.target()).map_err(|_| denied())?;
        let delegation_token = match granted.as_slice() {
            [] => String::new(),
            some => self.guard.issue(some).ok_or_else(|| Status::invalid_argument("scope or stream is no name"))?,
        };
        Ok(Response::new(proto::DelegationToken { delegation_token }))
    }
}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The interface as it is published, method by method.
    const INTERFACE: &str = include_str!("../../../headwater-proto/proto/controller.proto");

    #[test]
    fn every_call_of_the_interface_has_a_row_and_no_row_is_without_a_call() {
        let calls = INTERFACE.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next());
        let calls: std::collections::BTreeSet<_> = calls.collect();
        let rows: std::collections::BTreeSet<_> = Rpc::ALL.iter().map(|rpc| rpc.name()).collect();
        assert_eq!(calls, rows);
    }
}
