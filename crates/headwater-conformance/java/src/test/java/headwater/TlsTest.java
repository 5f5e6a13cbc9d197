package headwater;

import io.pravega.client.ByteStreamClientFactory;
import io.pravega.client.ClientConfig;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.Transaction.Status;
import java.net.URI;
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
    protected ClientConfig config() {
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
