//! Index streams: fixed-size records with growing fields, binary search, truncation, an upgrade of the fields.

use crate::context::{soon, within, Arguments, Context, PATIENCE};
use anyhow::{anyhow, ensure, Result};
use futures::StreamExt;
use pravega_client::index::IndexReader;
use pravega_client_macros::Fields;

/// The client's own default size of a record.
const RECORD_BYTES: u64 = 4096;

#[derive(Fields, Debug, PartialOrd, PartialEq)]
struct Plain {
    id: u64,
    time: u64,
}

#[derive(Fields, Debug, PartialOrd, PartialEq)]
struct Upgraded {
    id: u64,
    time: u64,
    extra: u64,
}

fn plain(i: u64) -> Plain {
    Plain { id: i, time: 1000 + 10 * i }
}

fn data(i: u64) -> Vec<u8> {
    format!("record-{i}").into_bytes()
}

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let records: u64 = arguments.optional("--records", 60)?;
    let (stream, created) = context.create_stream("index", 1).await?;
    ensure!(created, "{stream} existed");

    let mut writer = soon("index writer", context.factory.create_index_writer::<Plain>(stream.clone())).await?;
    for i in 0..records {
        writer.append(plain(i), data(i)).await.map_err(|e| anyhow!("append record {i}: {e}"))?;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    let reader = soon("index reader", context.factory.create_index_reader(stream.clone())).await?;
    let (head, tail) = ends(&reader).await?;
    ensure!(head == 0 && tail == records * RECORD_BYTES, "{records} records lie between {head} and {tail}");
    read(&reader, 0, tail, 0..records).await?;
    context.held("records come back in order");

    for i in [0, 1, records / 2, records - 1] {
        for (field, value) in [("id", i), ("time", 1000 + 10 * i), ("time", (1000 + 10 * i).saturating_sub(9))] {
            let offset =
                reader.search_offset((field, value)).await.map_err(|e| anyhow!("search {field} {value}: {e}"))?;
            ensure!(offset == i * RECORD_BYTES, "{field} ≥ {value} was found at {offset}, not at record {i}");
        }
    }
    ensure!(reader.search_offset(("id", records)).await.is_err(), "a value above all records was found");
    let first = reader.first_record_data().await.map_err(|e| anyhow!("first record: {e}"))?;
    let last = reader.last_record_data().await.map_err(|e| anyhow!("last record: {e}"))?;
    ensure!(first == data(0) && last == data(records - 1), "first or last record is another one");
    context.held("a binary search finds records by any field");

    let half = records / 2;
    soon("truncate", writer.truncate(half * RECORD_BYTES)).await?.map_err(|e| anyhow!("truncate: {e}"))?;
    let (head, tail) = ends(&reader).await?;
    ensure!(head == half * RECORD_BYTES, "after a truncation before record {half} the head is {head}");
    let first = reader.first_record_data().await.map_err(|e| anyhow!("first record: {e}"))?;
    ensure!(first == data(half), "the first record after a truncation is another one");
    let offset = reader.search_offset(("id", 0)).await.map_err(|e| anyhow!("search below the head: {e}"))?;
    ensure!(offset == head, "a value below the head is found at {offset}");
    read(&reader, head, tail, half..records).await?;
    context.held("a truncated index starts at its new head");

    drop(writer);
    let mut writer = soon("index writer", context.factory.create_index_writer::<Upgraded>(stream.clone())).await?;
    for i in records..records + 5 {
        let fields = Upgraded { id: i, time: 1000 + 10 * i, extra: i };
        writer.append(fields, data(i)).await.map_err(|e| anyhow!("append with one more field: {e}"))?;
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    let (_, tail) = ends(&reader).await?;
    read(&reader, half * RECORD_BYTES, tail, half..records + 5).await?;
    let offset = reader.search_offset(("extra", records)).await.map_err(|e| anyhow!("search the new field: {e}"))?;
    ensure!(offset == records * RECORD_BYTES, "the new field was found at {offset}");
    context.held("a second writer continues with one more field");
    Ok(())
}

async fn ends(reader: &IndexReader) -> Result<(u64, u64)> {
    let head = reader.head_offset().await.map_err(|e| anyhow!("head: {e}"))?;
    let tail = reader.tail_offset().await.map_err(|e| anyhow!("tail: {e}"))?;
    Ok((head, tail))
}

async fn read(reader: &IndexReader, from: u64, to: u64, expected: std::ops::Range<u64>) -> Result<()> {
    let records = reader.read(from, to).map_err(|e| anyhow!("read: {e}"))?;
    let mut records = Box::pin(records);
    for i in expected {
        let next = within(PATIENCE, "read an index record", records.next()).await?;
        let record = next.ok_or_else(|| anyhow!("the index ends before record {i}"))?.map_err(|e| anyhow!("{e}"))?;
        ensure!(record == data(i), "record {i} is {:?}", String::from_utf8_lossy(&record));
    }
    let end = within(PATIENCE, "end of the index", records.next()).await?;
    ensure!(end.is_none(), "the index goes on after its last record");
    Ok(())
}
