package headwater;

import io.grpc.Status.Code;
import io.pravega.client.ByteStreamClientFactory;
import io.pravega.client.ClientConfig;
import io.pravega.client.EventStreamClientFactory;
import io.pravega.client.KeyValueTableFactory;
import io.pravega.client.admin.KeyValueTableManager;
import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.admin.StreamManager;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.Transaction.Status;
import io.pravega.client.tables.KeyValueTable;
import io.pravega.client.tables.KeyValueTableClientConfiguration;
import io.pravega.client.tables.KeyValueTableConfiguration;
import io.pravega.client.tables.Put;
import io.pravega.client.tables.TableKey;
import io.pravega.common.util.RetriesExhaustedException;
import io.pravega.shared.security.auth.AccessOperation;
import io.pravega.shared.security.auth.Credentials;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Supplier;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static headwater.AuthTest.assertDenied;
import static headwater.AuthTest.assertRefused;
import static headwater.AuthTest.code;
import static headwater.AuthTest.readAll;
import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Against a server of its own with TLS that believes an OpenID Connect issuer, and whose tokens end after ten seconds. */
@DisplayName("bearer tokens of an OpenID Connect issuer, over TLS")
class BearerTest extends InScope {
    private static final String ALL = "prn::/,READ_UPDATE prn::/scope:BearerTest-*,READ_UPDATE";
    private static final String READ = "prn::/scope:BearerTest-*,READ";
    /** The server allows for clocks that differ by half a minute. */
    private static final int SKEW_SECONDS = 30;

    /** What a team with an issuer of its own writes: a token is fetched, and another one before it ends. */
    private static final class Fetched implements Credentials {
        private static final Pattern TOKEN = Pattern.compile("\"access_token\"\\s*:\\s*\"([^\"]+)\"");

        private final String grants;
        private final int seconds;
        private final AtomicInteger count = new AtomicInteger();
        private transient String token;
        private transient long renewAt;

        /** Tokens are used for a third of their time; `seconds` are counted to where the server refuses them. */
        Fetched(String grants, int seconds) {
            this.grants = grants;
            this.seconds = seconds;
        }

        @Override
        public String getAuthenticationType() {
            return "Bearer";
        }

        @Override
        public synchronized String getAuthenticationToken() {
            if (token == null || System.nanoTime() - renewAt >= 0) {
                token = fetch(grants, "lifetime", Integer.toString(seconds - SKEW_SECONDS));
                renewAt = System.nanoTime() + seconds * 1_000_000_000L / 3;
                count.incrementAndGet();
            }
            return token;
        }

        /** As a service gets one for itself. */
        static String fetch(String grants, String... more) {
            StringBuilder form = new StringBuilder("grant_type=client_credentials&scope=").append(encoded(grants));
            for (int i = 0; i < more.length; i += 2) {
                form.append('&').append(more[i]).append('=').append(encoded(more[i + 1]));
            }
            try {
                HttpResponse<String> answer = HttpClient.newHttpClient().send(
                    HttpRequest.newBuilder(URI.create(System.getProperty("headwater.issuer") + "/token"))
                        .header("Content-Type", "application/x-www-form-urlencoded")
                        .POST(HttpRequest.BodyPublishers.ofString(form.toString())).build(),
                    HttpResponse.BodyHandlers.ofString());
                Matcher found = TOKEN.matcher(answer.body());
                assertTrue(found.find(), () -> answer.statusCode() + " " + answer.body());
                return found.group(1);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            } catch (InterruptedException error) {
                throw new IllegalStateException(error);
            }
        }

        private static String encoded(String text) {
            return URLEncoder.encode(text, StandardCharsets.UTF_8);
        }
    }

    /** Says always the same. */
    private record Fixed(String getAuthenticationToken) implements Credentials {
        @Override
        public String getAuthenticationType() {
            return "Bearer";
        }
    }

    private final Fetched mine = new Fetched(ALL, 6);

    @Override
    protected ClientConfig connection() {
        return as(mine);
    }

    private static ClientConfig as(Credentials credentials) {
        String address = System.getProperty("headwater.bearer.controller");
        assertNotNull(address, "no server: start one with --auth-issuer and give -Dheadwater.bearer.controller=HOST:PORT");
        return ClientConfig.builder().controllerURI(URI.create("tls://" + address))
            .trustStore(System.getProperty("headwater.bearer.trust")).validateHostName(true)
            .credentials(credentials).build();
    }

    private KeyValueTable table(ClientConfig who) {
        return open(open(KeyValueTableFactory.withScope(scope, who))
            .forKeyValueTable("t", KeyValueTableClientConfiguration.builder().build()));
    }

    private void createTable() {
        assertTrue(open(KeyValueTableManager.create(client)).createKeyValueTable(scope, "t",
            KeyValueTableConfiguration.builder().partitionCount(2).primaryKeyLength(4).build()));
    }

    private static TableKey key(int number) {
        return new TableKey(ByteBuffer.allocate(4).putInt(0, number));
    }

    private static ByteBuffer value(int number) {
        return ByteBuffer.allocate(4).putInt(0, number);
    }

    /** By calls that a wrong caller gets refused at once. */
    private void assertUnknown(String what, Supplier<Credentials> credentials) {
        StreamManager manager = open(StreamManager.create(as(credentials.get())));
        assertRefused(Code.UNAUTHENTICATED, () -> manager.createScope(scope + "-other"));
        assertRefused(Code.UNAUTHENTICATED, () -> manager.listScopes().hasNext());
        assertFalse(streams.checkScopeExists(scope + "-other"), what);
    }

    @Test
    @DisplayName("a writer, a transaction, a group, a byte stream and a table outlive several tokens of both kinds")
    void renewal() throws Exception {
        createStream("s", 2);
        createStream("b", 1);
        createTable();
        KeyValueTable table = table(client);
        ByteStreamClientFactory bytes = open(ByteStreamClientFactory.withScope(scope, client));
        // One that is not renewed, to show that it would have to be.
        String first = mine.getAuthenticationToken();
        long end = System.nanoTime() + 15_000_000_000L;
        var groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        List<String> read = new ArrayList<>();
        int written = 0;
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build());
             var writer = events().createEventWriter("s", TEXT, patient());
             var transactions = events().createTransactionalEventWriter("w", "s", TEXT, patient());
             var into = bytes.createByteStreamWriter("b");
             var from = bytes.createByteStreamReader("b")) {
            var transaction = transactions.beginTxn();
            for (; System.nanoTime() < end; written++) {
                within(writer.writeEvent("key-0", event(0, written)));
                transaction.writeEvent("key-1", event(1, written));
                byte[] sent = value(written).array();
                into.write(sent);
                within(into.flushAsync());
                assertArrayEquals(sent, ByteStreamTest.exactly(from, sent.length));
                within(table.update(new Put(key(written % 7), value(written))));
                assertTrue(streams.checkStreamExists(scope, "s"), "calls of the controller go on");
                readAll(reader, read, written + 1);
                Thread.sleep(100);
            }
            transaction.commit();
            until("it is committed", LIMIT, () -> transaction.checkStatus() == Status.COMMITTED);
            readAll(reader, read, 2 * written);
        }
        assertComplete(read, 2, written);
        assertEquals(value(written - 1), within(table.get(key((written - 1) % 7))).getValue());
        assertTrue(mine.count.get() >= 3, mine.count + " tokens were fetched");
        assertUnknown("a token is good after its end", () -> new Fixed(first));
    }

    @Test
    @DisplayName("who is granted to read reads a stream through a group and a table, and changes neither")
    void readOnly() throws Exception {
        createStream("s", 2);
        createTable();
        write("s", 8, 0, 20);
        within(table(client).update(new Put(key(1), value(1))));
        ClientConfig who = as(new Fetched(READ, 60));
        var groups = open(ReaderGroupManager.withScope(scope, who));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        var events = open(EventStreamClientFactory.withScope(scope, who));
        try (var reader = events.createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            List<String> read = new ArrayList<>();
            readAll(reader, read, 8 * 20);
            assertComplete(read, 8, 20);
        }
        EventWriterConfig brief = EventWriterConfig.builder().retryAttempts(2).build();
        var refused = events.createEventWriter("s", TEXT, brief);
        Throwable thrown = assertThrows(ExecutionException.class, () -> within(refused.writeEvent("k", "e"))).getCause();
        assertEquals(Code.PERMISSION_DENIED, code(thrown));
        assertThrows(RetriesExhaustedException.class, refused::close);
        StreamManager manager = open(StreamManager.create(who));
        assertDenied(() -> manager.sealStream(scope, "s"));
        assertDenied(() -> manager.createScope(scope + "-other"));
        // Its client asks for a token to read and write before it does either.
        assertDenied(() -> within(table(who).get(key(1))));
        assertEquals(value(1), within(table(client).get(key(1))).getValue());
        write("s", 8, 20, 1);
        assertComplete(readSegments("s"), 8, 21);
    }

    @Test
    @DisplayName("who is granted to read is told a stream's time, where nobody is granted to write")
    void time() throws Exception {
        createStream("s", 1);
        ClientConfig who = as(new Fetched(READ, 60));
        var groups = open(ReaderGroupManager.withScope(scope, who));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        var theirs = open(EventStreamClientFactory.withScope(scope, who));
        try (var reader = theirs.createReader("r", "g", TEXT, ReaderConfig.builder().build());
             var writer = events().createEventWriter("s", TEXT, patient())) {
            AtomicInteger time = new AtomicInteger();
            until("a time was passed", TimeWindowTest.MARKS, () -> {
                within(writer.writeEvent("key", Integer.toString(time.addAndGet(1_000))));
                writer.noteTime(time.get());
                reader.readNextEvent(500);
                return reader.getCurrentTimeWindow(stream("s")).getLowerTimeBound() != null;
            });
        }
        String token = within(controller.getOrRefreshDelegationTokenFor(scope, "_MARKs", AccessOperation.READ_WRITE));
        String claims = new String(Base64.getUrlDecoder().decode(token.split("\\.")[1]), StandardCharsets.UTF_8);
        assertTrue(claims.contains("stream:_MARKs\":\"READ\""), claims);
    }

    @Test
    @DisplayName("tokens that have ended, were changed, are signed by nobody or are for another audience are refused")
    void refused() {
        String good = Fetched.fetch(ALL);
        assertTrue(open(StreamManager.create(as(new Fixed(good)))).checkScopeExists(scope), "it is good as it is");
        String[] parts = good.split("\\.");
        String none = Base64.getUrlEncoder().withoutPadding()
            .encodeToString("{\"alg\":\"none\",\"typ\":\"JWT\"}".getBytes(StandardCharsets.UTF_8));
        String claims = new String(Base64.getUrlDecoder().decode(parts[1]), StandardCharsets.UTF_8);
        String more = Base64.getUrlEncoder().withoutPadding()
            .encodeToString(claims.replace("BearerTest-*", "*").getBytes(StandardCharsets.UTF_8));
        assertUnknown("ended", () -> new Fixed(Fetched.fetch(ALL, "lifetime", Integer.toString(-SKEW_SECONDS - 1))));
        assertUnknown("changed", () -> new Fixed(parts[0] + "." + more + "." + parts[2]));
        assertUnknown("without a signature", () -> new Fixed(none + "." + parts[1] + "."));
        assertUnknown("for another", () -> new Fixed(Fetched.fetch(ALL, "audience", "another-service")));
        assertUnknown("no token at all", () -> new Fixed("token"));
    }

    @Test
    @DisplayName("who was granted nothing in a scope neither makes nor sees anything there")
    void stranger() throws Exception {
        createStream("s", 1);
        createTable();
        ClientConfig who = as(new Fetched("prn::/scope:elsewhere*,READ_UPDATE", 60));
        StreamManager manager = open(StreamManager.create(who));
        assertDenied(() -> manager.checkStreamExists(scope, "s"));
        assertDenied(() -> manager.listStreams(scope).hasNext());
        assertDenied(() -> manager.deleteScope(scope));
        assertDenied(() -> open(KeyValueTableManager.create(who)).deleteKeyValueTable(scope, "t"));
        assertDenied(() -> open(ReaderGroupManager.withScope(scope, who))
            .createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        assertTrue(streams.checkStreamExists(scope, "s"));
        within(table(client).update(new Put(key(1), value(1))));
    }
}
