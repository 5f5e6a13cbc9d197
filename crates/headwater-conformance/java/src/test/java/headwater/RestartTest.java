package headwater;

import io.pravega.client.admin.KeyValueTableManager;
import io.pravega.client.KeyValueTableFactory;
import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.EventRead;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroup;
import io.pravega.client.stream.Transaction.Status;
import io.pravega.client.tables.KeyValueTableClientConfiguration;
import io.pravega.client.tables.KeyValueTableConfiguration;
import io.pravega.client.tables.Put;
import io.pravega.client.tables.TableKey;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Assumptions;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.parallel.Isolated;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Runs alone: what it does to the server, no other test could stand. */
@Isolated
@DisplayName("a server that is killed and started again")
class RestartTest extends InScope {
    private static final int KEYS = 8;
    /** The client waits up to 20 s between attempts that failed. */
    private static final Duration BACK = Duration.ofSeconds(60);

    /** Has the server killed and started again by whoever started these tests. */
    static void restart() throws Exception {
        String file = System.getProperty("headwater.restart");
        Assumptions.assumeTrue(file != null, "nobody restarts the server: -Dheadwater.restart names no file");
        Path wanted = Path.of(file);
        Files.writeString(wanted, "");
        until("the server is back", BACK, () -> !Files.exists(wanted));
    }

    @Test
    @DisplayName("a group, its readers and its writers go on over two kills")
    void group() throws Exception {
        createStream("s", 3);
        ReaderGroupManager groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        ReaderGroup group = open(groups.getReaderGroup("g"));
        List<String> all = Collections.synchronizedList(new ArrayList<>());
        AtomicBoolean stop = new AtomicBoolean();
        List<CompletableFuture<Void>> readers = new ArrayList<>();
        for (String id : List.of("a", "b")) {
            EventStreamReader<String> reader = events().createReader(id, "g", TEXT, ReaderConfig.builder().build());
            readers.add(CompletableFuture.runAsync(() -> {
                try (reader) {
                    while (!stop.get()) {
                        EventRead<String> next = reader.readNextEvent(200);
                        if (next.getEvent() != null) {
                            all.add(next.getEvent());
                        }
                    }
                }
            }));
        }
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT, patient()));
        int written = 0;
        for (int kill = 0; kill < 2; kill++) {
            List<CompletableFuture<Void>> acknowledged = new ArrayList<>();
            for (int end = written + 200; written < end; written++) {
                for (int key = 0; key < KEYS; key++) {
                    acknowledged.add(writer.writeEvent("key-" + key, event(key, written)));
                }
            }
            // Some of them are under way when the server dies; the client sends those again.
            acknowledged.get(acknowledged.size() / 4).get();
            restart();
            for (CompletableFuture<Void> one : acknowledged) {
                one.get(BACK.toSeconds(), TimeUnit.SECONDS);
            }
        }
        int expected = KEYS * written;
        until("all is read", BACK, () -> all.size() >= expected);
        var checkpoint = group.initiateCheckpoint("after", executor);
        assertEquals("after", checkpoint.get(BACK.toSeconds(), TimeUnit.SECONDS).getName());
        assertEquals(0, group.getMetrics().unreadBytes());
        stop.set(true);
        for (CompletableFuture<Void> reader : readers) {
            within(reader);
        }
        assertComplete(all, KEYS, written);
    }

    @Test
    @Timeout(value = 150, unit = TimeUnit.SECONDS)
    @DisplayName("times that writers note before and after a kill move a reader's window")
    void times() throws Exception {
        createStream("s", 1);
        ReaderGroupManager groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        EventStreamReader<String> reader = open(events().createReader("r", "g", TEXT,
            ReaderConfig.builder().disableTimeWindows(false).build()));
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT, patient()));
        TimeWindowTest.Noting noting = time -> {
            within(writer.writeEvent("key", Long.toString(time)));
            writer.noteTime(time);
        };
        long before = TimeWindowTest.untilPassed(reader, stream("s"), noting, 0);
        restart();
        assertTrue(TimeWindowTest.untilPassed(reader, stream("s"), noting, before + 1_000) > before, "it goes on");
    }

    @Test
    @DisplayName("an open transaction and a table are as they were")
    void kept() throws Exception {
        createStream("s", 2);
        var tables = open(KeyValueTableManager.create(client));
        assertTrue(tables.createKeyValueTable(scope, "t",
            KeyValueTableConfiguration.builder().partitionCount(2).primaryKeyLength(4).build()));
        var table = open(open(KeyValueTableFactory.withScope(scope, client))
            .forKeyValueTable("t", KeyValueTableClientConfiguration.builder().build()));
        TableKey key = new TableKey(ByteBuffer.wrap(new byte[] {1, 2, 3, 4}));
        var version = within(table.update(new Put(key, ByteBuffer.wrap(new byte[] {5}))));
        var writer = open(events().createTransactionalEventWriter("w", "s", TEXT, EventWriterConfig.builder().build()));
        var transaction = writer.beginTxn();
        for (int k = 0; k < KEYS; k++) {
            transaction.writeEvent("key-" + k, event(k, 0));
        }
        transaction.flush();
        restart();
        assertEquals(Status.OPEN, transaction.checkStatus());
        for (int k = 0; k < KEYS; k++) {
            transaction.writeEvent("key-" + k, event(k, 1));
        }
        transaction.commit();
        until("it is committed", BACK, () -> transaction.checkStatus() == Status.COMMITTED);
        assertComplete(readSegments("s"), KEYS, 2);
        assertEquals(version, within(table.get(key)).getVersion());
        within(table.update(new Put(key, ByteBuffer.wrap(new byte[] {6}), version)));
        assertEquals(ByteBuffer.wrap(new byte[] {6}), within(table.get(key)).getValue());
    }
}
