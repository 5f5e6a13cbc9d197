package headwater;

import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.pravega.client.ClientConfig;
import io.pravega.client.EventStreamClientFactory;
import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.admin.StreamManager;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.client.stream.StreamCut;
import io.pravega.client.stream.Transaction.Status;
import io.pravega.common.util.RetriesExhaustedException;
import io.pravega.shared.security.auth.AccessOperation;
import io.pravega.shared.security.auth.DefaultCredentials;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.function.Executable;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Against a server of its own with TLS, users and tokens that end after ten seconds. */
@DisplayName("authentication")
class AuthTest extends InScope {
    private static final StreamConfiguration ONE =
        StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(1)).build();

    @Override
    protected ClientConfig connection() {
        return as("user", "password");
    }

    private static ClientConfig as(String user, String password) {
        String address = System.getProperty("headwater.auth.controller");
        assertNotNull(address, "no server: start one with --auth-passwords and give -Dheadwater.auth.controller=HOST:PORT");
        return ClientConfig.builder().controllerURI(URI.create("tls://" + address))
            .trustStore(System.getProperty("headwater.auth.trust")).validateHostName(true)
            .credentials(new DefaultCredentials(password, user)).build();
    }

    /** How long a token for the segment store is good, as the server makes them. */
    private Duration lifetime() throws Exception {
        String token = within(controller.getOrRefreshDelegationTokenFor(scope, "s", AccessOperation.READ));
        String claims = new String(Base64.getUrlDecoder().decode(token.split("\\.")[1]), StandardCharsets.UTF_8);
        return Duration.ofSeconds(number(claims, "exp") - number(claims, "iat"));
    }

    private static long number(String claims, String name) {
        Matcher found = Pattern.compile("\"" + name + "\":(\\d+)").matcher(claims);
        assertTrue(found.find(), claims);
        return Long.parseLong(found.group(1));
    }

    @Test
    @DisplayName("a writer, a transaction and a reader of a group outlive their tokens")
    void renewal() throws Exception {
        createStream("s", 2);
        Duration lifetime = lifetime();
        assertTrue(lifetime.toSeconds() <= 10, "tokens are good for " + lifetime);
        long end = System.nanoTime() + lifetime.toNanos() * 3 / 2;
        var groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        List<String> read = new ArrayList<>();
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build());
             var writer = events().createEventWriter("s", TEXT, patient());
             var transactions = events().createTransactionalEventWriter("w", "s", TEXT, patient())) {
            var transaction = transactions.beginTxn();
            int written = 0;
            for (; System.nanoTime() < end; written++) {
                within(writer.writeEvent("key-0", event(0, written)));
                transaction.writeEvent("key-1", event(1, written));
                readAll(reader, read, written + 1);
                Thread.sleep(100);
            }
            transaction.commit();
            until("it is committed", LIMIT, () -> transaction.checkStatus() == Status.COMMITTED);
            readAll(reader, read, 2 * written);
            assertComplete(read, 2, written);
        }
    }

    @Test
    @DisplayName("who may only read a stream reads it through a group, and neither writes nor changes it")
    void readOnly() throws Exception {
        createStream("s", 2);
        write("s", 8, 0, 20);
        StreamCut end = tail("s");
        ClientConfig who = as("reader", "reads");
        var groups = open(ReaderGroupManager.withScope(scope, who));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        var events = open(EventStreamClientFactory.withScope(scope, who));
        try (var reader = events.createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            List<String> read = new ArrayList<>();
            readAll(reader, read, 8 * 20);
            assertComplete(read, 8, 20);
        }
        // A writer asks for its token when it connects, ten times over some minutes unless told otherwise.
        EventWriterConfig brief = EventWriterConfig.builder().retryAttempts(2).build();
        var refused = events.createEventWriter("s", TEXT, brief);
        Throwable thrown = assertThrows(ExecutionException.class, () -> within(refused.writeEvent("k", "e"))).getCause();
        assertEquals(RetriesExhaustedException.class, thrown.getClass());
        assertEquals(Code.PERMISSION_DENIED, code(thrown));
        assertThrows(RetriesExhaustedException.class, refused::close);
        try (var writer = events.createTransactionalEventWriter("w", "s", TEXT, brief)) {
            assertDenied(writer::beginTxn);
        }
        StreamManager manager = open(StreamManager.create(who));
        assertDenied(() -> manager.createStream(scope, "t", ONE));
        assertDenied(() -> manager.updateStream(scope, "s", ONE));
        assertDenied(() -> manager.truncateStream(scope, "s", end));
        assertDenied(() -> manager.sealStream(scope, "s"));
        assertDenied(() -> manager.deleteStream(scope, "s"));
        assertFalse(streams.checkStreamExists(scope, "t"));
        assertEquals(end, tail("s"));
        write("s", 8, 20, 1);
        assertComplete(readSegments("s"), 8, 21);
    }

    @Test
    @DisplayName("a wrong password, an unknown user and who says nothing are refused")
    void unknown() {
        ClientConfig nobody = ClientConfig.builder().controllerURI(client.getControllerURI())
            .trustStore(client.getTrustStore()).validateHostName(true).build();
        for (ClientConfig who : List.of(as("user", "passwore"), as("user", ""), as("another", "password"), nobody)) {
            StreamManager manager = open(StreamManager.create(who));
            assertRefused(Code.UNAUTHENTICATED, () -> manager.createScope(scope + "-other"));
            assertRefused(Code.UNAUTHENTICATED, () -> manager.listScopes().hasNext());
            assertRefused(Code.UNAUTHENTICATED, () -> manager.checkStreamExists(scope, "s"));
        }
        assertFalse(streams.checkScopeExists(scope + "-other"));
    }

    @Test
    @DisplayName("who was granted nothing in a scope neither makes nor sees anything there")
    void stranger() throws Exception {
        createStream("s", 1);
        ClientConfig who = as("stranger", "elsewhere");
        StreamManager manager = open(StreamManager.create(who));
        assertDenied(() -> manager.createStream(scope, "t", ONE));
        assertDenied(() -> manager.createScope(scope + "-other"));
        assertDenied(() -> manager.deleteScope(scope));
        assertDenied(() -> manager.checkStreamExists(scope, "s"));
        assertDenied(() -> manager.listStreams(scope).hasNext());
        assertDenied(() -> within(manager.fetchStreamInfo(scope, "s")));
        var groups = open(ReaderGroupManager.withScope(scope, who));
        assertDenied(() -> groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        assertFalse(streams.checkStreamExists(scope, "t"));
        assertFalse(streams.checkScopeExists(scope + "-other"));
        assertTrue(streams.checkStreamExists(scope, "s"));
    }

    /** Reads until `count` events are in `read`. */
    static void readAll(EventStreamReader<String> reader, List<String> read, int count) {
        long end = System.nanoTime() + LIMIT.toNanos();
        while (read.size() < count) {
            assertTrue(System.nanoTime() < end, () -> "waited " + LIMIT + " for " + count + " events, got " + read.size());
            String event = reader.readNextEvent(1_000).getEvent();
            if (event != null) {
                read.add(event);
            }
        }
    }

    static void assertDenied(Executable call) {
        assertRefused(Code.PERMISSION_DENIED, call);
    }

    /** The client has no exception of its own for it and hands on what its transport throws. */
    static void assertRefused(Code code, Executable call) {
        assertEquals(code, code(assertThrows(Exception.class, call)));
    }

    /** Of the first status among the causes. */
    static Code code(Throwable thrown) {
        for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
            if (cause instanceof StatusRuntimeException status) {
                return status.getStatus().getCode();
            }
        }
        throw new AssertionError("no status of a call", thrown);
    }
}
