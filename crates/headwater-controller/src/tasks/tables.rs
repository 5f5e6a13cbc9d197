//! Key-value tables: their partitions are table segments, and that is all there is to them. They neither scale nor
//! seal.

use std::sync::Arc;

use headwater_types::{Name, SegmentName};
use tracing::info;

use super::items::{Item, item_name};
use super::{Inner, Result, fan_out, put};
use crate::codec::{Decoder, Encoder};
use crate::model::{ControllerError, CreateTable, DeleteTable, Listing, SegmentRange, TableConfig};
use crate::state::keys;
use crate::state::tables::{Life, Table};

/// Segments of the partitions.
fn partitions(item: &Item, table: &Table) -> Vec<SegmentName> {
    let names = table.partitions().into_iter().map(|partition| {
        let name = format!("{}/{}_kvtable/{}", item.scope, item.name, partition.id);
        SegmentName::parse(&name).expect("names of scopes and tables are short and printable")
    });
    names.collect()
}

impl Inner {
    pub(super) async fn create_table(
        self: &Arc<Self>,
        scope: Name,
        name: &str,
        config: TableConfig,
    ) -> Result<CreateTable> {
        config.check()?;
        let Some(name) = item_name(name) else { return Ok(CreateTable::InvalidName) };
        let item = Item::table(&scope, &name);
        let _alone = self.lock_item(&item).await;
        if self.settled_table(&item).await?.is_some() {
            return Ok(CreateTable::Exists);
        }
        let table = Table { life: Life::Creating, config, first_number: self.first_table_number(&item).await? };
        if table.first_number.checked_add(config.partitions).is_none() {
            return Err(ControllerError::Exhausted(format!("segment numbers of {item} are used up")));
        }
        // Rust and Python clients make tables of such names by themselves, with keys of any length.
        let segments = Arc::clone(&self.ports.segments);
        for segment in partitions(&item, &table) {
            if segments.segment_exists(&segment).await? {
                return Ok(CreateTable::Taken);
            }
        }
        if !self.begin_item(&item, table.encode()).await? {
            return Ok(CreateTable::ScopeNotFound);
        }
        self.settle_table(&item, table).await?;
        info!(%item, "created");
        Ok(CreateTable::Success)
    }

    pub(super) async fn delete_table(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<DeleteTable> {
        let item = Item::table(scope, name);
        let _alone = self.lock_item(&item).await;
        let Some(table) = self.settled_table(&item).await? else { return Ok(DeleteTable::NotFound) };
        self.note_item(&item).await?;
        let deleting = Table { life: Life::Deleting, ..table };
        self.put_item(&item, deleting.encode()).await?;
        self.settle_table(&item, deleting).await?;
        info!(%item, "deleted");
        Ok(DeleteTable::Success)
    }

    pub(super) async fn table_config(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<Option<TableConfig>> {
        Ok(self.existing_table(scope, name).await?.map(|table| table.config))
    }

    pub(super) async fn table_partitions(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<Vec<SegmentRange>> {
        match self.existing_table(scope, name).await? {
            Some(table) => Ok(table.partitions()),
            None => Err(ControllerError::NotFound(format!("key-value table {scope}/{name}"))),
        }
    }

    pub(super) async fn list_tables(&self, scope: &Name, token: &str) -> Result<Listing> {
        self.list_items(scope, keys::TABLE_PREFIX, token, |record| Ok(Table::decode(record)?.life == Life::Active))
            .await
    }

    pub(super) async fn resume_table(self: &Arc<Self>, item: &Item) -> Result<()> {
        let _alone = self.lock_item(item).await;
        self.settled_table(item).await?;
        self.forget_item_note(item).await
    }

    async fn existing_table(self: &Arc<Self>, scope: &Name, name: &Name) -> Result<Option<Table>> {
        let item = Item::table(scope, name);
        match self.table_record(&item).await? {
            Some(table) if table.life == Life::Active => Ok(Some(table)),
            None => Ok(None),
            Some(_) => {
                let _alone = self.lock_item(&item).await;
                self.settled_table(&item).await
            }
        }
    }

    async fn table_record(&self, item: &Item) -> Result<Option<Table>> {
        Ok(self.item_record(item).await?.map(|record| Table::decode(&record)).transpose()?)
    }

    /// The table after what was begun is finished; `None` if there is none. The caller holds its lock.
    async fn settled_table(self: &Arc<Self>, item: &Item) -> Result<Option<Table>> {
        match self.table_record(item).await? {
            Some(table) => self.settle_table(item, table).await,
            None => Ok(None),
        }
    }

    async fn settle_table(self: &Arc<Self>, item: &Item, table: Table) -> Result<Option<Table>> {
        match table.life {
            Life::Active => Ok(Some(table)),
            Life::Creating => {
                let (key_bytes, rollover) = (table.config.key_bytes(), table.config.rollover_bytes.unsigned_abs());
                fan_out(partitions(item, &table), |segment| {
                    let segments = Arc::clone(&self.ports.segments);
                    async move { segments.create_table_segment(&segment, key_bytes, rollover).await }
                })
                .await?;
                let table = Table { life: Life::Active, ..table };
                self.put_item(item, table.encode()).await?;
                self.forget_item_note(item).await?;
                Ok(Some(table))
            }
            Life::Deleting => {
                fan_out(partitions(item, &table), |segment| {
                    let segments = Arc::clone(&self.ports.segments);
                    async move { segments.delete_table_segment(&segment).await }
                })
                .await?;
                let mut encoder = Encoder::new(1);
                encoder.i32(table.last_number());
                let key = keys::deleted_table(&item.scope, &item.name);
                self.ports.tables.commit(keys::DELETED, vec![put(key, encoder.finish())]).await?;
                self.remove_item(item).await?;
                self.forget_item_note(item).await?;
                Ok(None)
            }
        }
    }

    /// As for streams: clients may still remember the segments of a deleted table of this name.
    async fn first_table_number(&self, item: &Item) -> Result<i32> {
        let key = keys::deleted_table(&item.scope, &item.name);
        let found = self.ports.tables.read(keys::DELETED, &[key]).await?.pop().flatten();
        let Some(entry) = found else { return Ok(0) };
        let mut decoder = Decoder::new("deleted table", 1, &entry.value)?;
        let last = decoder.i32()?;
        decoder.finish()?;
        last.checked_add(1).ok_or_else(|| ControllerError::Exhausted(format!("segment numbers of {item} are used up")))
    }
}
