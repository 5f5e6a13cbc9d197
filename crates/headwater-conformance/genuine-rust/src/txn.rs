//! Transactions: commit, abort, several open at once, events around a scale, the end of the stream and of a lease.

use crate::admin::scale_to;
use crate::context::{
    expect_silence, order_per_key, read_all, same_elements, soon, texts, Arguments, Context, PATIENCE,
};
use anyhow::{anyhow, bail, ensure, Result};
use pravega_client::event::reader::EventReader;
use pravega_client::event::transactional_writer::{Transaction, TransactionalEventWriter};
use pravega_client::event::EventWriter;
use pravega_client_shared::{ScopedStream, Timestamp, TransactionStatus, TxId, WriterId};
use std::time::{Duration, Instant};

const QUIET: Duration = Duration::from_secs(2);
/// The shortest that servers grant.
pub const SHORTEST_LEASE: Duration = Duration::from_secs(10);

pub async fn run(context: &Context, arguments: &mut Arguments) -> Result<()> {
    one_after_the_other(context).await?;
    several_open(context).await?;
    context.outlive(arguments).await?;
    around_a_scale(context).await
}

/// Looks at a transaction that another client began and nobody ended: it is aborted, or is being.
pub async fn aborted(context: &Context, arguments: &mut Arguments) -> Result<()> {
    let stream = context.stream(&arguments.required::<String>("--stream")?);
    let id = TxId(arguments.required("--id")?);
    let start = Instant::now();
    loop {
        let status = soon("check a transaction", context.controller().check_transaction_status(&stream, id)).await?;
        match status.map_err(|e| anyhow!("check a transaction: {}", e.error))? {
            TransactionStatus::Aborted => return Ok(()),
            TransactionStatus::Aborting => {}
            other => bail!("transaction {} of {stream}, which nobody committed or pinged, is {other:?}", id.0),
        }
        ensure!(start.elapsed() < PATIENCE, "transaction {} of {stream} stays aborting", id.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Transactions that nobody ends.
pub async fn ends(context: &Context, _arguments: &mut Arguments) -> Result<()> {
    sealed(context).await?;
    lease(context).await
}

async fn reader(context: &Context, stream: &ScopedStream) -> EventReader {
    let group = context.factory.create_reader_group(format!("{}-group", stream.stream.name), stream.clone()).await;
    group.create_reader("reader".into()).await
}

async fn begin(writer: &mut TransactionalEventWriter) -> Result<Transaction> {
    soon("begin a transaction", writer.begin()).await?.map_err(|e| anyhow!("begin: {e}"))
}

/// Writes `key:number` for each number, five keys in turn.
async fn write(transaction: &mut Transaction, numbers: std::ops::Range<u64>) -> Result<Vec<String>> {
    let mut written = Vec::new();
    for number in numbers {
        let (key, text) = event(number);
        soon("write into a transaction", transaction.write_event(Some(key), text.clone().into_bytes()))
            .await?
            .map_err(|e| anyhow!("write into a transaction: {e}"))?;
        written.push(text);
    }
    Ok(written)
}

fn event(number: u64) -> (String, String) {
    (format!("key-{}", number % 5), format!("key-{}:{number}", number % 5))
}

async fn write_plain(writer: &mut EventWriter, numbers: std::ops::Range<u64>) -> Result<Vec<String>> {
    let mut written = Vec::new();
    for number in numbers {
        let (key, text) = event(number);
        let _ = writer.write_event_by_routing_key(key, text.clone().into_bytes()).await;
        written.push(text);
    }
    soon("flush", writer.flush()).await?.map_err(|e| anyhow!("flush: {e}"))?;
    Ok(written)
}

async fn commit(transaction: &mut Transaction) -> Result<()> {
    soon("commit", transaction.commit(Timestamp(0))).await?.map_err(|e| anyhow!("commit: {e}"))?;
    reaches(transaction, TransactionStatus::Committed, TransactionStatus::Committing).await
}

async fn abort(transaction: &mut Transaction) -> Result<()> {
    // An abort does not wait for what was written before, and the client's background task panics when it finds its
    // segments gone while it still sets up its connections.
    tokio::time::sleep(Duration::from_millis(500)).await;
    soon("abort", transaction.abort()).await?.map_err(|e| anyhow!("abort: {e}"))?;
    reaches(transaction, TransactionStatus::Aborted, TransactionStatus::Aborting).await
}

async fn status(transaction: &Transaction) -> Result<TransactionStatus> {
    soon("check a transaction", transaction.check_status()).await?.map_err(|e| anyhow!("check a transaction: {e}"))
}

async fn reaches(transaction: &Transaction, end: TransactionStatus, before: TransactionStatus) -> Result<()> {
    let start = Instant::now();
    loop {
        let now = status(transaction).await?;
        if now == end {
            return Ok(());
        }
        ensure!(now == before, "a transaction on its way to {end:?} is {now:?}");
        ensure!(start.elapsed() < PATIENCE, "a transaction stays {now:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Nobody asked for it: until somebody else's decision is carried out, it may still be open.
async fn is_aborted_by_itself(transaction: &Transaction) -> Result<()> {
    let start = Instant::now();
    while status(transaction).await? == TransactionStatus::Open {
        ensure!(start.elapsed() < PATIENCE, "a transaction stays open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    reaches(transaction, TransactionStatus::Aborted, TransactionStatus::Aborting).await
}

/// Whoever asks for it. A refusal is taken for a failure that passes, and the commit repeated ten times.
async fn cannot_be_committed(context: &Context, transaction: &Transaction) -> Result<()> {
    let (controller, stream, id) = (context.controller(), transaction.stream(), transaction.txn_id());
    let committed =
        soon("an answer to a late commit", controller.commit_transaction(&stream, id, WriterId(7), Timestamp(0)));
    ensure!(committed.await?.is_err(), "a transaction that was aborted is committed");
    ensure!(status(transaction).await? == TransactionStatus::Aborted, "a transaction that was aborted is alive again");
    Ok(())
}

async fn one_after_the_other(context: &Context) -> Result<()> {
    let (stream, created) = context.create_stream("txn-simple", 2).await?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_transactional_event_writer(stream.clone(), WriterId(1)).await;
    let mut reader = reader(context, &stream).await;

    let mut transaction = begin(&mut writer).await?;
    ensure!(status(&transaction).await? == TransactionStatus::Open, "a new transaction is not open");
    let committed = write(&mut transaction, 0..100).await?;
    expect_silence(&mut reader, QUIET, "before the commit").await?;
    commit(&mut transaction).await?;
    let seen = texts(&read_all(&mut reader, 100, QUIET).await?)?;
    order_per_key(&seen, "committed transaction")?;
    same_elements(seen, committed, "committed transaction")?;
    context.held("nothing is visible before the commit, everything after it");

    let mut transaction = begin(&mut writer).await?;
    write(&mut transaction, 100..150).await?;
    abort(&mut transaction).await?;
    expect_silence(&mut reader, QUIET, "after an abort").await?;
    ensure!(transaction.commit(Timestamp(0)).await.is_err(), "an aborted transaction was committed");
    let mut empty = begin(&mut writer).await?;
    commit(&mut empty).await?;
    expect_silence(&mut reader, QUIET, "after an empty transaction").await?;
    context.held("an aborted transaction leaves nothing, an empty one commits");

    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    Ok(())
}

async fn several_open(context: &Context) -> Result<()> {
    let (stream, created) = context.create_stream("txn-several", 1).await?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_transactional_event_writer(stream.clone(), WriterId(2)).await;
    let mut reader = reader(context, &stream).await;

    let mut first = begin(&mut writer).await?;
    let mut second = begin(&mut writer).await?;
    let mut third = begin(&mut writer).await?;
    ensure!(first.txn_id() != second.txn_id() && second.txn_id() != third.txn_id(), "two transactions share an id");
    let (mut of_first, mut of_third) = (Vec::new(), Vec::new());
    for round in 0..10 {
        of_first.extend(write(&mut first, 1000 + 10 * round..1010 + 10 * round).await?);
        write(&mut second, 2000 + 10 * round..2010 + 10 * round).await?;
        of_third.extend(write(&mut third, 3000 + 10 * round..3010 + 10 * round).await?);
    }
    // Fetched by id, as a second process would.
    let mut found = soon("find a transaction", writer.get_txn(third.txn_id())).await?.map_err(|e| anyhow!("{e}"))?;
    of_third.extend(write(&mut third, 3100..3110).await?);
    commit(&mut third).await?;
    ensure!(status(&found).await? == TransactionStatus::Committed, "a transaction found by id has another state");
    ensure!(found.commit(Timestamp(0)).await.is_ok() || status(&found).await? == TransactionStatus::Committed, "lost");
    abort(&mut second).await?;
    commit(&mut first).await?;

    let seen = texts(&read_all(&mut reader, of_first.len() + of_third.len(), QUIET).await?)?;
    let expected: Vec<String> = of_third.into_iter().chain(of_first).collect();
    ensure!(
        seen == expected,
        "transactions must follow one another in the order of their commits, each in one piece: {} events, {} expected",
        seen.len(),
        expected.len()
    );
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    context.held("several open transactions commit whole, in the order of their commits");
    Ok(())
}

async fn around_a_scale(context: &Context) -> Result<()> {
    // Created with one segment, the least it may ever have, and scaled up.
    let (stream, created) = context.create_stream("txn-scale", 1).await?;
    ensure!(created, "{stream} existed");
    scale_to(context, &stream, 2).await?;
    let mut transactions = context.factory.create_transactional_event_writer(stream.clone(), WriterId(3)).await;
    let mut plain = context.factory.create_event_writer(stream.clone());
    let mut reader = reader(context, &stream).await;
    let mut expected = Vec::new();

    expected.extend(write_plain(&mut plain, 0..50).await?);
    let mut early = begin(&mut transactions).await?;
    let mut doomed = begin(&mut transactions).await?;
    let mut of_early = write(&mut early, 200..250).await?;
    write(&mut doomed, 5000..5050).await?;
    scale_to(context, &stream, 4).await?;
    // Found again, and no more: who takes up a transaction of another, this client lets neither write nor end it.
    let mut found =
        soon("find a transaction", transactions.get_txn(early.txn_id())).await?.map_err(|e| anyhow!("{e}"))?;
    ensure!(status(&found).await? == TransactionStatus::Open, "a transaction found after a scale is not open");
    ensure!(found.write_event(None, b"late:0".to_vec()).await.is_err(), "the client writes to what another began");
    ensure!(found.commit(Timestamp(0)).await.is_err(), "the client commits what another began");
    ensure!(found.abort().await.is_err(), "the client aborts what another began");
    drop(found);
    of_early.extend(write(&mut early, 250..300).await?);
    // Visible before the transaction commits, so its numbers are lower.
    expected.extend(write_plain(&mut plain, 50..100).await?);
    let mut late = begin(&mut transactions).await?;
    let of_late = write(&mut late, 400..450).await?;
    commit(&mut early).await?;
    expected.extend(of_early);
    abort(&mut doomed).await?;
    expected.extend(write_plain(&mut plain, 300..400).await?);
    commit(&mut late).await?;
    expected.extend(of_late);
    scale_to(context, &stream, 1).await?;
    expected.extend(write_plain(&mut plain, 450..500).await?);
    let mut last = begin(&mut transactions).await?;
    let of_last = write(&mut last, 500..550).await?;
    commit(&mut last).await?;
    expected.extend(of_last);
    context.held("a transaction begun before a scale commits after it");

    let seen = texts(&read_all(&mut reader, expected.len(), QUIET).await?)?;
    order_per_key(&seen, "events and transactions around a scale")?;
    same_elements(seen, expected, "events and transactions around a scale")?;
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    context.held("events and transactions around two scales: exactly once, in order per key");
    Ok(())
}

/// Transactions that are open when their stream ends.
async fn sealed(context: &Context) -> Result<()> {
    let (stream, created) = context.create_stream("txn-sealed", 2).await?;
    ensure!(created, "{stream} existed");
    let mut writer = context.factory.create_transactional_event_writer(stream.clone(), WriterId(4)).await;
    let mut before = begin(&mut writer).await?;
    let expected = write(&mut before, 0..50).await?;
    commit(&mut before).await?;
    let mut written = begin(&mut writer).await?;
    write(&mut written, 50..100).await?;
    let empty = begin(&mut writer).await?;
    // For the same reason as before an abort.
    tokio::time::sleep(Duration::from_millis(500)).await;
    context.controller().seal_stream(&stream).await.map_err(|e| anyhow!("seal: {}", e.error))?;
    for transaction in [&written, &empty] {
        is_aborted_by_itself(transaction).await?;
        cannot_be_committed(context, transaction).await?;
    }
    let mut reader = reader(context, &stream).await;
    let seen = texts(&read_all(&mut reader, expected.len(), QUIET).await?)?;
    same_elements(seen, expected, "a stream that was sealed under transactions")?;
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    context.held("sealing a stream aborts what is open on it");
    Ok(())
}

/// Two transactions of the shortest lease: the writer of one is gone, that of the other lives and does nothing.
async fn lease(context: &Context) -> Result<()> {
    let (stream, created) = context.create_stream("txn-lease", 1).await?;
    ensure!(created, "{stream} existed");
    let mut gone = context.factory.create_transactional_event_writer(stream.clone(), WriterId(5)).await;
    let mut here = context.factory.create_transactional_event_writer(stream.clone(), WriterId(6)).await;
    let mut reader = reader(context, &stream).await;
    let mut kept = begin(&mut here).await?;
    let mut expected = write(&mut kept, 0..50).await?;
    let mut abandoned = begin(&mut gone).await?;
    write(&mut abandoned, 100..150).await?;
    let begun = Instant::now();
    // With the writer ends whoever pings its transactions.
    drop(gone);
    is_aborted_by_itself(&abandoned).await?;
    let lasted = begun.elapsed();
    ensure!(lasted >= SHORTEST_LEASE, "a transaction with a lease of {SHORTEST_LEASE:?} was aborted after {lasted:?}");
    cannot_be_committed(context, &abandoned).await?;
    ensure!(status(&kept).await? == TransactionStatus::Open, "a transaction that is pinged ends");
    expected.extend(write(&mut kept, 50..100).await?);
    commit(&mut kept).await?;
    let seen = texts(&read_all(&mut reader, expected.len(), QUIET).await?)?;
    order_per_key(&seen, "after the end of a lease")?;
    same_elements(seen, expected, "after the end of a lease")?;
    soon("reader offline", reader.reader_offline()).await?.map_err(|e| anyhow!("{e}"))?;
    context.held("a transaction that nobody pings is aborted after its lease");
    Ok(())
}
