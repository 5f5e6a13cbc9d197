//! T9: many transactions, whose calls of the controller are lost, late and repeated, over scales and kills; and what becomes
//! of those that nobody ends.

use super::{PATIENCE, Stage, client};
use crate::chance::Chance;
use anyhow::{Context, Result, bail, ensure};
use headwater_client::{
    Client, Committing, ErrorKind, Transaction, TransactionId, TransactionOptions, TransactionState,
};
use headwater_proto::controller as proto;
use headwater_proto::controller::controller_service_client::ControllerServiceClient;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

/// So many are open at any time.
const OPEN: u64 = 24;
const KEYS: u64 = 8;
const EVENTS_MAX: u64 = 12;
/// Longer than the storm: what nobody decides stays open.
const LEASE: Duration = Duration::from_secs(300);
/// The shortest that servers grant. They wait half as long again, and a server that starts grants all of it anew.
const SHORTEST_LEASE: Duration = Duration::from_secs(10);
/// One in so many has it.
const SHORT_ONES: u64 = 10;

pub(super) async fn run(stage: Stage) -> Result<(String, Leases)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("listen before the controller")?;
    let through = listener.local_addr().context("listen before the controller")?.to_string();
    tokio::spawn(carry_all(listener, stage.controller.clone(), stage.chance(50)));
    let scaling = tokio::spawn(stage.clone().scale(Duration::from_millis(300)));
    let owner = client(&through)?;
    let owning = (0..OPEN).map(|number| tokio::spawn(own(stage.clone(), owner.clone(), number)));
    let mut told = BTreeMap::new();
    for owning in owning.collect::<Vec<_>>() {
        told.extend(owning.await??);
    }
    let scales = scaling.await??;
    for (label, Told { fate, .. }) in &mut told {
        fate.settle(&stage).await.with_context(|| format!("transaction {label}"))?;
    }
    for (label, Told { fate, .. }) in &told {
        fate.lasts(&stage).await.with_context(|| format!("transaction {label}"))?;
    }
    check(&stage, &told).await?;
    let count = |wanted: fn(&Fate) -> bool| told.values().filter(|told| wanted(&told.fate)).count();
    let committed = count(|fate| matches!(fate, Fate::Committed(_)));
    ensure!(committed as u64 >= OPEN, "only {committed} transactions were committed: that was no storm");
    let said = format!(
        "{committed} transactions committed, {} aborted, {} left open, {} in doubt; {scales} scales",
        count(|fate| matches!(fate, Fate::Aborted)),
        count(|fate| matches!(fate, Fate::Open | Fate::Left { .. } | Fate::Kept(_))),
        count(|fate| matches!(fate, Fate::Doubtful(_))),
    );
    Ok((said, Leases(told)))
}

/// Transactions that a storm has left to their leases, among all of it.
pub(super) struct Leases(BTreeMap<String, Told>);

impl Leases {
    /// Waits until those have ended that nobody pings; then commits the others of the same lease.
    pub(super) async fn end(self, stage: &Stage) -> Result<String> {
        let Self(mut told) = self;
        let mut late = late(stage)?;
        let mut chance = stage.chance(300);
        let (mut ended, mut kept) = (0, 0);
        for (label, Told { fate, .. }) in &mut told {
            let Fate::Left { id, .. } = *fate else { continue };
            let aborted = async {
                while stage.client.transaction_state(&stage.stream, id).await? != TransactionState::Aborted {
                    sleep(Duration::from_millis(20)).await;
                }
                anyhow::Ok(())
            };
            let aborted = timeout(PATIENCE, aborted).await;
            aborted.with_context(|| format!("transaction {label} outlives its lease"))??;
            come_late(&mut late, stage, id, false, &mut chance).await?;
            *fate = Fate::Aborted;
            ended += 1;
        }
        for (label, Told { fate, .. }) in &mut told {
            if !matches!(fate, Fate::Kept(_)) {
                continue;
            }
            let Fate::Kept(transaction) = std::mem::replace(fate, Fate::Open) else { unreachable!("it was just seen") };
            let committing = transaction.commit(None).await;
            let committing = committing.with_context(|| format!("transaction {label} was pinged all the time"))?;
            *fate = Fate::Committed(committing);
            fate.settle(stage).await.with_context(|| format!("transaction {label}"))?;
            kept += 1;
        }
        ensure!(ended > 0 && kept > 0, "{ended} transactions were left to their leases and {kept} kept: too few");
        check(stage, &told).await?;
        Ok(format!("{ended} ended by their leases, {kept} of the same lease were committed after that"))
    }
}

fn late(stage: &Stage) -> Result<ControllerServiceClient<Channel>> {
    let endpoint = Endpoint::from_shared(format!("http://{}", stage.controller)).context("the controller's address")?;
    Ok(ControllerServiceClient::new(endpoint.connect_lazy()))
}

/// A transaction as its owner knows it.
struct Told {
    /// For each event its key; they have the numbers from 0 on.
    keys: Vec<u64>,
    fate: Fate,
}

enum Fate {
    Committed(Committing),
    Aborted,
    /// Nobody decided anything, and its lease is a long one.
    Open,
    /// The same, with the shortest lease, and nobody pings it.
    Left {
        id: TransactionId,
        since: Instant,
    },
    /// With the same lease. It is pinged as long as this is here.
    Kept(Transaction),
    /// Something was asked for, and no answer came.
    Doubtful(TransactionId),
}

impl Fate {
    /// Waits until nothing changes any more.
    async fn settle(&mut self, stage: &Stage) -> Result<()> {
        match self {
            Self::Committed(committing) => {
                timeout(PATIENCE, committing.committed()).await.context("it does not become readable")??;
            }
            Self::Doubtful(id) => {
                let moving = [TransactionState::Committing, TransactionState::Aborting];
                let settled = async {
                    while moving.contains(&stage.client.transaction_state(&stage.stream, *id).await?) {
                        sleep(Duration::from_millis(20)).await;
                    }
                    anyhow::Ok(())
                };
                timeout(PATIENCE, settled).await.context("it is not carried out")??;
            }
            Self::Aborted | Self::Open | Self::Left { .. } | Self::Kept(_) => {}
        }
        Ok(())
    }

    /// Nothing ends before its lease does.
    async fn lasts(&self, stage: &Stage) -> Result<()> {
        let (id, since) = match self {
            Self::Left { id, since } => (*id, Some(*since)),
            Self::Kept(transaction) => (transaction.id(), None),
            Self::Committed(_) | Self::Aborted | Self::Open | Self::Doubtful(_) => return Ok(()),
        };
        let state = stage.client.transaction_state(&stage.stream, id).await?;
        let may_be_over = since.is_some_and(|since| since.elapsed() >= SHORTEST_LEASE);
        ensure!(may_be_over || state == TransactionState::Open, "its lease is not over, and it is {state}");
        Ok(())
    }
}

/// One transaction after the other, and now and then a late call about one that is over.
async fn own(stage: Stage, client: Client, number: u64) -> Result<Vec<(String, Told)>> {
    let writer = client.transaction_writer(&stage.stream, TransactionOptions::default().lease(LEASE));
    let hasty = client.transaction_writer(&stage.stream, TransactionOptions::default().lease(SHORTEST_LEASE));
    let mut late = late(&stage)?;
    let mut chance = stage.chance(100 + number);
    let (mut told, mut decided) = (Vec::new(), Vec::new());
    // One for each of half of them; of the others the first of a short lease is left to it.
    let mut keeps = number % 2 == 1;
    while !stage.is_over() {
        // The first of all: a slow machine has not many.
        let is_short = told.is_empty() || chance.below(SHORT_ONES) == 0;
        let begun = if is_short { hasty.begin().await } else { writer.begin().await };
        let transaction = match begun {
            Ok(transaction) => transaction,
            Err(error) if error.kind() == ErrorKind::Unavailable => continue,
            Err(error) => bail!("begin: {error}"),
        };
        let id = transaction.id();
        let label = format!("{number}.{}", told.len());
        let mut keys = Vec::new();
        for event in 0..=chance.below(EVENTS_MAX) {
            let key = chance.below(KEYS);
            // Whether all are stored is asked by the commit.
            let _later = transaction.write(&key.to_string(), format!("{label} {event}")).await?;
            keys.push(key);
            sleep(Duration::from_millis(chance.below(20))).await;
        }
        let fate = if !is_short {
            decide(transaction, &mut chance).await.with_context(|| format!("transaction {label}"))?
        } else if keeps {
            Fate::Left { id, since: Instant::now() }
        } else {
            keeps = true;
            Fate::Kept(transaction)
        };
        match fate {
            Fate::Committed(_) => decided.push((id, true)),
            Fate::Aborted => decided.push((id, false)),
            Fate::Open | Fate::Left { .. } | Fate::Kept(_) | Fate::Doubtful(_) => {}
        }
        told.push((label, Told { keys, fate }));
        if !decided.is_empty() {
            let (id, is_committed) = decided[chance.below(decided.len() as u64) as usize];
            come_late(&mut late, &stage, id, is_committed, &mut chance).await?;
        }
    }
    Ok(told)
}

async fn decide(transaction: Transaction, chance: &mut Chance) -> Result<Fate> {
    let id = transaction.id();
    let (fate, error) = match chance.below(10) {
        0..6 => match transaction.commit(None).await {
            Ok(committing) => return Ok(Fate::Committed(committing)),
            Err(error) => (Fate::Doubtful(id), error),
        },
        6..9 => match transaction.abort().await {
            Ok(()) => return Ok(Fate::Aborted),
            Err(error) => (Fate::Doubtful(id), error),
        },
        _ => return Ok(Fate::Open),
    };
    // Nobody else decides about it, so that nothing but a lost answer is an excuse.
    if error.kind() == ErrorKind::Unavailable { Ok(fate) } else { Err(error.into()) }
}

/// A call about a transaction that is decided comes once more, or one that was never made.
async fn come_late(
    late: &mut ControllerServiceClient<Channel>,
    stage: &Stage,
    id: TransactionId,
    is_committed: bool,
    chance: &mut Chance,
) -> Result<()> {
    use proto::txn_status::Status;
    let (high_bits, low_bits) = id.halves();
    let txn_id = Some(proto::TxnId { high_bits, low_bits });
    let stream_info = Some(proto::StreamInfo {
        scope: stage.stream.scope.to_string(),
        stream: stage.stream.stream.to_string(),
        access_operation: 0,
    });
    let asked = proto::TxnRequest { stream_info, txn_id, writer_id: String::new(), timestamp: i64::MIN };
    let (asked_to_commit, answer) = match chance.below(3) {
        0 => (true, late.commit_transaction(asked).await),
        1 => (false, late.abort_transaction(asked).await),
        _ => {
            let proto::TxnRequest { stream_info, txn_id, .. } = asked;
            // Whatever the answer is: it must not come alive again, which is seen at the end.
            let _ = late.ping_transaction(proto::PingTxnRequest { stream_info, txn_id, lease: 30_000 }).await;
            return Ok(());
        }
    };
    // No answer: the server was killed.
    let Ok(answer) = answer else { return Ok(()) };
    ensure!(
        asked_to_commit == is_committed || answer.into_inner().status() != Status::Success,
        "the opposite of what was decided about {id} was granted"
    );
    Ok(())
}

/// Compares what can be read with what was told.
async fn check(stage: &Stage, told: &BTreeMap<String, Told>) -> Result<()> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for slice in stage.client.slices(&stage.stream).await? {
        let (mut reader, mut current, mut ended) = (stage.client.read_slice(&slice), None, BTreeSet::new());
        while let Some((offset, event)) = reader.next().await? {
            let (label, number) = super::parsed(&event)?;
            if current.as_ref() != Some(&label) {
                ended.extend(current.replace(label.clone()));
                ensure!(!ended.contains(&label), "{label} is in pieces at {offset} of segment {}", slice.segment);
            }
            found.entry(label).or_default().push(number);
        }
    }
    for (label, numbers) in &found {
        let Told { keys, .. } = told.get(label).with_context(|| format!("nobody knows of {label}"))?;
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for number in numbers {
            let key = keys.get(*number as usize).with_context(|| format!("{label} has no event {number}"))?;
            let before = last.insert(*key, *number);
            ensure!(before.is_none_or(|before| before < *number), "{label}: {number} of key {key} after {before:?}");
        }
    }
    for (label, Told { keys, fate }) in told {
        let all: BTreeSet<u64> = (0..keys.len() as u64).collect();
        let numbers = found.remove(label).unwrap_or_default();
        let is_whole = numbers.len() == keys.len() && numbers.iter().copied().collect::<BTreeSet<_>>() == all;
        match fate {
            Fate::Committed(_) => ensure!(is_whole, "{label} was committed, of {} events are {numbers:?}", keys.len()),
            Fate::Aborted => ensure!(numbers.is_empty(), "{label} was aborted, and there are {numbers:?}"),
            Fate::Open | Fate::Left { .. } | Fate::Kept(_) => {
                ensure!(numbers.is_empty(), "{label} was left open, and there are {numbers:?}");
            }
            Fate::Doubtful(_) => {
                ensure!(is_whole || numbers.is_empty(), "{label} is neither whole nor gone: {numbers:?}")
            }
        }
    }
    Ok(())
}

/// Carries calls to the controller and answers back; some wait, and now and then a connection is lost with what is on it.
async fn carry_all(listener: TcpListener, to: String, mut chance: Chance) {
    while let Ok((client, _)) = listener.accept().await {
        let (to, chance) = (to.clone(), Chance::new(chance.draw()));
        tokio::spawn(async move {
            // Whoever asks while the server is away finds the connection closed.
            if let Ok(server) = TcpStream::connect(to).await {
                carry(client, server, chance).await;
            }
        });
    }
}

async fn carry(client: TcpStream, server: TcpStream, mut chance: Chance) {
    let back = Chance::new(chance.draw());
    let ((mut asking, mut to_client), (mut answering, mut to_server)) = (client.into_split(), server.into_split());
    // Whichever way ends first takes the other with it.
    tokio::select! {
        () = one_way(&mut asking, &mut to_server, chance) => {}
        () = one_way(&mut answering, &mut to_client, back) => {}
    }
}

async fn one_way(
    from: &mut (impl tokio::io::AsyncRead + Unpin),
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    mut chance: Chance,
) {
    let mut piece = vec![0; 16 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut piece).await else { return };
        if chance.below(8) == 0 {
            sleep(Duration::from_millis(chance.below(30))).await;
        }
        // Lost before it arrives, or right after it.
        let fate = chance.below(300);
        if fate == 0 || to.write_all(&piece[..length]).await.is_err() || fate == 1 {
            return;
        }
    }
}
