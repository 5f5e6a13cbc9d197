//! The calls about key-value tables.

use headwater_controller::model::{CreateTable, DeleteTable, Listing, Page, TableConfig};
use headwater_proto::controller as proto;
use headwater_types::{Name, ScopedStream};
use tonic::Status;

use super::ControllerGrpc;
use super::messages::{Answer, answer, missing, name, ranges, status, token};

/// `None` for a table that cannot exist.
fn table(info: &proto::KeyValueTableInfo) -> Result<Option<(Name, Name)>, Status> {
    let (scope, table) = (name(&info.scope, "scope")?, name(&info.kvt_name, "kvtName")?);
    Ok(scope.zip(table))
}

impl ControllerGrpc {
    pub(super) async fn create_table(
        &self,
        request: proto::KeyValueTableConfig,
    ) -> Answer<proto::CreateKeyValueTableStatus> {
        use proto::create_key_value_table_status::Status as Wire;
        let config = TableConfig {
            partitions: request.partition_count,
            primary_key_bytes: request.primary_key_length,
            secondary_key_bytes: request.secondary_key_length,
            rollover_bytes: request.rollover_size_bytes,
        };
        let outcome = self.controller.create_table(&request.scope, &request.kvt_name, config).await;
        let status = match outcome.map_err(status)? {
            CreateTable::Success => Wire::Success,
            CreateTable::Exists => Wire::TableExists,
            CreateTable::ScopeNotFound => Wire::ScopeNotFound,
            CreateTable::InvalidName => Wire::InvalidTableName,
            CreateTable::Taken => Wire::Failure,
        };
        answer(proto::CreateKeyValueTableStatus { status: status.into() })
    }

    /// Segment ids carry the table's name; clients put the suffix of its segments there themselves.
    pub(super) async fn table_segments(&self, request: proto::KeyValueTableInfo) -> Answer<proto::SegmentRanges> {
        let (scope, table) =
            table(&request)?.ok_or_else(|| Status::not_found("a table of such a name does not exist"))?;
        let partitions = self.controller.table_partitions(&scope, &table).await.map_err(status)?;
        answer(ranges(&ScopedStream { scope, stream: table }, partitions))
    }

    pub(super) async fn list_tables(
        &self,
        request: proto::KvTablesInScopeRequest,
    ) -> Answer<proto::KvTablesInScopeResponse> {
        use proto::kv_tables_in_scope_response::Status as Wire;
        let scope = request.scope.ok_or_else(|| missing("scope"))?.scope;
        let found = match name(&scope, "scope")? {
            None => Listing::ScopeNotFound,
            Some(scope) => {
                self.controller.list_tables(&scope, &token(request.continuation_token)).await.map_err(status)?
            }
        };
        let (page, status) = match found {
            Listing::Page(page) => (page, Wire::Success),
            Listing::ScopeNotFound => (Page::default(), Wire::ScopeNotFound),
        };
        let info = |kvt_name| proto::KeyValueTableInfo { scope: scope.clone(), kvt_name };
        answer(proto::KvTablesInScopeResponse {
            kvtables: page.names.into_iter().map(info).collect(),
            continuation_token: Some(proto::ContinuationToken { token: page.token }),
            status: status.into(),
        })
    }

    pub(super) async fn table_configuration(
        &self,
        request: proto::KeyValueTableInfo,
    ) -> Answer<proto::KeyValueTableConfigResponse> {
        use proto::key_value_table_config_response::Status as Wire;
        let found = match table(&request)? {
            None => None,
            Some((scope, table)) => self.controller.table_configuration(&scope, &table).await.map_err(status)?,
        };
        let status = if found.is_some() { Wire::Success } else { Wire::TableNotFound };
        let config = found.map(|config| proto::KeyValueTableConfig {
            scope: request.scope,
            kvt_name: request.kvt_name,
            partition_count: config.partitions,
            primary_key_length: config.primary_key_bytes,
            secondary_key_length: config.secondary_key_bytes,
            rollover_size_bytes: config.rollover_bytes,
        });
        answer(proto::KeyValueTableConfigResponse { config, status: status.into() })
    }

    pub(super) async fn delete_table(&self, request: proto::KeyValueTableInfo) -> Answer<proto::DeleteKvTableStatus> {
        use proto::delete_kv_table_status::Status as Wire;
        let outcome = match table(&request)? {
            None => DeleteTable::NotFound,
            Some((scope, table)) => self.controller.delete_table(&scope, &table).await.map_err(status)?,
        };
        let status = match outcome {
            DeleteTable::Success => Wire::Success,
            DeleteTable::NotFound => Wire::TableNotFound,
        };
        answer(proto::DeleteKvTableStatus { status: status.into() })
    }
}
