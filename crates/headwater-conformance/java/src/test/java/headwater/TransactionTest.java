package headwater;

import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.Transaction;
import io.pravega.client.stream.Transaction.Status;
import io.pravega.client.stream.TransactionInfo;
import io.pravega.client.stream.TransactionalEventStreamWriter;
import io.pravega.client.stream.TxnFailedException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.stream.Collectors;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("transactions")
class TransactionTest extends InScope {
    private static final int KEYS = 8;

    private TransactionalEventStreamWriter<String> writer(String id) {
        return writer(id, EventWriterConfig.builder().transactionTimeoutTime(60_000).build());
    }

    private TransactionalEventStreamWriter<String> writer(String id, EventWriterConfig config) {
        return open(events().createTransactionalEventWriter(id, "s", TEXT, config));
    }

    private static void fill(Transaction<String> transaction, int from, int count) throws TxnFailedException {
        for (int number = from; number < from + count; number++) {
            for (int key = 0; key < KEYS; key++) {
                transaction.writeEvent("key-" + key, event(key, number));
            }
        }
    }

    private static void becomes(Transaction<?> transaction, Status status) throws Exception {
        until("the transaction is " + status, LIMIT, () -> transaction.checkStatus() == status);
    }

    @Test
    @DisplayName("what was committed is there whole and in order, and nothing of it before")
    void commit() throws Exception {
        createStream("s", 4);
        Transaction<String> transaction = writer("w").beginTxn();
        fill(transaction, 0, 200);
        transaction.flush();
        assertEquals(Status.OPEN, transaction.checkStatus());
        assertEquals(List.of(), readSegments("s"));
        transaction.commit();
        becomes(transaction, Status.COMMITTED);
        assertComplete(readSegments("s"), KEYS, 200);
    }

    @Test
    @DisplayName("what was aborted is never there")
    void abort() throws Exception {
        createStream("s", 4);
        TransactionalEventStreamWriter<String> writer = writer("w");
        Transaction<String> aborted = writer.beginTxn();
        aborted.writeEvent("key-0", "never");
        aborted.flush();
        aborted.abort();
        becomes(aborted, Status.ABORTED);
        assertThrows(TxnFailedException.class, () -> aborted.writeEvent("key-0", "later"));
        assertThrows(TxnFailedException.class, aborted::commit);
        Transaction<String> committed = writer.beginTxn();
        fill(committed, 0, 1);
        committed.commit(1_000);
        becomes(committed, Status.COMMITTED);
        assertComplete(readSegments("s"), KEYS, 1);
    }

    @Test
    @DisplayName("a transaction that nobody pings is aborted after its lease")
    void lease() throws Exception {
        createStream("s", 1);
        var shortest = EventWriterConfig.builder().transactionTimeoutTime(10_000).build();
        TransactionalEventStreamWriter<String> abandoning = writer("gone", shortest);
        Transaction<String> abandoned = abandoning.beginTxn();
        abandoned.writeEvent("key", "never");
        abandoned.flush();
        // Another writer's, of the same lease, is pinged and lives on.
        Transaction<String> kept = writer("here", shortest).beginTxn();
        kept.writeEvent("key", "kept");
        long closed = System.nanoTime();
        abandoning.close();
        until("the lease is over", Duration.ofSeconds(40), () -> abandoned.checkStatus() != Status.OPEN);
        assertTrue(System.nanoTime() - closed >= Duration.ofSeconds(7).toNanos(), "not long before the lease is over");
        becomes(abandoned, Status.ABORTED);
        assertThrows(TxnFailedException.class, abandoned::commit);
        assertEquals(Status.OPEN, kept.checkStatus());
        kept.commit();
        becomes(kept, Status.COMMITTED);
        assertEquals(List.of("kept"), readSegments("s"));
    }

    @Test
    @DisplayName("fifty open at once, some committed and some aborted, around a scale")
    void many() throws Exception {
        createStream("s", 2);
        TransactionalEventStreamWriter<String> writer = writer("w");
        List<Transaction<String>> open = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            Transaction<String> transaction = writer.beginTxn();
            transaction.writeEvent("key-" + i % KEYS, "txn " + i);
            transaction.flush();
            open.add(transaction);
        }
        scale("s", 3);
        Transaction<String> afterwards = writer.beginTxn();
        afterwards.writeEvent("key-0", "txn 50");
        afterwards.commit();
        for (int i = 0; i < open.size(); i++) {
            if (i % 2 == 0) {
                open.get(i).commit();
            } else {
                open.get(i).abort();
            }
        }
        open.add(afterwards);
        for (int i = 0; i < open.size(); i++) {
            becomes(open.get(i), i % 2 == 0 ? Status.COMMITTED : Status.ABORTED);
        }
        List<String> expected = new ArrayList<>();
        for (int i = 0; i <= 50; i += 2) {
            expected.add("txn " + i);
        }
        assertEquals(expected.stream().sorted().toList(), readSegments("s").stream().sorted().toList());
    }

    @Test
    @DisplayName("an open one is taken over by another writer, a finished one cannot be")
    void reattach() throws Exception {
        createStream("s", 3);
        Transaction<String> begun = writer("first").beginTxn();
        fill(begun, 0, 10);
        begun.flush();
        TransactionalEventStreamWriter<String> second = writer("second");
        Transaction<String> taken = second.getTxn(begun.getTxnId());
        assertEquals(Status.OPEN, taken.checkStatus());
        fill(taken, 10, 10);
        taken.commit();
        becomes(taken, Status.COMMITTED);
        assertComplete(readSegments("s"), KEYS, 20);
        Transaction<String> finished = second.getTxn(begun.getTxnId());
        assertEquals(Status.COMMITTED, finished.checkStatus());
        assertThrows(TxnFailedException.class, () -> finished.writeEvent("key-0", "late"));
    }

    /** It begins where a segment is older than its epoch: who takes it up names that segment otherwise than who began it. */
    @Test
    @DisplayName("one begun before a scale is taken over after it, written to and committed")
    void reattachAfterScale() throws Exception {
        createStream("s", 2);
        assertTrue(within(controller.scaleStream(stream("s"), List.of(1L), Map.of(0.5, 0.75, 0.75, 1.0), executor)
            .getFuture()), "one half is split");
        Transaction<String> begun = writer("first").beginTxn();
        fill(begun, 0, 10);
        begun.flush();
        scale("s", 4);
        Transaction<String> taken = writer("second").getTxn(begun.getTxnId());
        assertEquals(Status.OPEN, taken.checkStatus());
        fill(taken, 10, 10);
        taken.flush();
        assertEquals(List.of(), readSegments("s"), "nothing is seen of it");
        taken.commit();
        becomes(begun, Status.COMMITTED);
        assertComplete(readSegments("s"), KEYS, 20);
        write("s", KEYS, 20, 5);
        assertComplete(readSegments("s"), KEYS, 25);
    }

    @Test
    @DisplayName("sealing a stream aborts what is open on it")
    void sealed() throws Exception {
        createStream("s", 1);
        TransactionalEventStreamWriter<String> writer = writer("w");
        Transaction<String> transaction = writer.beginTxn();
        transaction.writeEvent("key", "never");
        transaction.flush();
        assertTrue(streams.sealStream(scope, "s"));
        becomes(transaction, Status.ABORTED);
        assertThrows(TxnFailedException.class, transaction::commit);
    }

    @Test
    @DisplayName("completed transactions are listed with how they ended")
    void completed() throws Exception {
        createStream("s", 1);
        TransactionalEventStreamWriter<String> writer = writer("w");
        Map<UUID, Status> expected = new java.util.HashMap<>();
        for (int i = 0; i < 6; i++) {
            Transaction<String> transaction = writer.beginTxn();
            transaction.writeEvent("key", "txn " + i);
            if (i % 3 == 0) {
                transaction.abort();
            } else {
                transaction.commit();
            }
            Status end = i % 3 == 0 ? Status.ABORTED : Status.COMMITTED;
            becomes(transaction, end);
            expected.put(transaction.getTxnId(), end);
        }
        Transaction<String> open = writer.beginTxn();
        Map<UUID, Status> listed = streams.listCompletedTransactions(stream("s")).stream()
            .collect(Collectors.toMap(TransactionInfo::getTransactionId, TransactionInfo::getTransactionStatus));
        assertEquals(expected, listed);
        open.abort();
    }
}
