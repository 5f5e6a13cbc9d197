package headwater;

import io.pravega.client.ByteStreamClientFactory;
import io.pravega.client.ClientConfig;
import io.pravega.client.KeyValueTableFactory;
import io.pravega.client.admin.KeyValueTableManager;
import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.Transaction.Status;
import io.pravega.client.tables.KeyValueTableClientConfiguration;
import io.pravega.client.tables.KeyValueTableConfiguration;
import io.pravega.client.tables.Put;
import io.pravega.client.tables.TableKey;
import java.net.URI;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Against a server of its own, whose certificate the client trusts by a PEM file and checks against the address. */
@DisplayName("TLS")
class TlsTest extends InScope {
    @Override
    protected ClientConfig connection() {
        String address = System.getProperty("headwater.tls.controller");
        assertNotNull(address, "no server: start one with --tls self-signed and give -Dheadwater.tls.controller=HOST:PORT");
        return ClientConfig.builder().controllerURI(URI.create("tls://" + address))
            .trustStore(System.getProperty("headwater.tls.trust")).validateHostName(true).build();
    }

    @Test
    @DisplayName("events and transactions are written and read")
    void written() throws Exception {
        createStream("s", 3);
        write("s", 8, 0, 200);
        try (var writer = events().createTransactionalEventWriter("w", "s", TEXT, EventWriterConfig.builder().build())) {
            var transaction = writer.beginTxn();
            for (int key = 0; key < 8; key++) {
                transaction.writeEvent("key-" + key, event(key, 200));
            }
            transaction.commit();
            until("it is committed", LIMIT, () -> transaction.checkStatus() == Status.COMMITTED);
        }
        scale("s", 4);
        write("s", 8, 201, 20);
        assertComplete(readSegments("s"), 8, 221);
    }

    @Test
    @DisplayName("a group reads and a table keeps")
    void groupsAndTables() throws Exception {
        createStream("s", 2);
        write("s", 8, 0, 20);
        var groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            List<String> read = new ArrayList<>();
            until("all is read", LIMIT, () -> {
                String event = reader.readNextEvent(1_000).getEvent();
                return event != null && read.add(event) && read.size() == 8 * 20;
            });
            assertComplete(read, 8, 20);
        }
        var tables = open(KeyValueTableManager.create(client));
        assertTrue(tables.createKeyValueTable(scope, "t",
            KeyValueTableConfiguration.builder().partitionCount(2).primaryKeyLength(4).build()));
        var table = open(open(KeyValueTableFactory.withScope(scope, client))
            .forKeyValueTable("t", KeyValueTableClientConfiguration.builder().build()));
        TableKey key = new TableKey(ByteBuffer.wrap(new byte[] {1, 2, 3, 4}));
        var version = within(table.update(new Put(key, ByteBuffer.wrap(new byte[] {5}))));
        assertEquals(version, within(table.get(key)).getVersion());
    }

    @Test
    @DisplayName("megabytes go through whole, and a reader at the tail gets them")
    void bytes() throws Exception {
        createStream("b", 1);
        byte[] sent = EventWriterTest.noise(9 * 1024 * 1024, 3);
        var bytes = open(ByteStreamClientFactory.withScope(scope, client));
        try (var writer = bytes.createByteStreamWriter("b"); var reader = bytes.createByteStreamReader("b")) {
            CompletableFuture<byte[]> read = CompletableFuture.supplyAsync(() -> {
                byte[] got = new byte[sent.length];
                try {
                    for (int at = 0; at < got.length; ) {
                        int more = reader.read(got, at, got.length - at);
                        assertTrue(more > 0, more + " bytes at " + at);
                        at += more;
                    }
                } catch (java.io.IOException error) {
                    throw new java.io.UncheckedIOException(error);
                }
                return got;
            }, executor);
            writer.write(sent);
            writer.flush();
            assertArrayEquals(sent, within(read));
            assertEquals(sent.length, writer.fetchTailOffset());
        }
    }
}
