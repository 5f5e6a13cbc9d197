package headwater;

import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.Checkpoint;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroup;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.CompletableFuture;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** What the server tells over HTTP about reader groups, which it reads out of what the client keeps for itself. */
@DisplayName("groups over HTTP")
class HttpTest extends InScope {
    private static final int KEYS = 4;
    private static final Pattern UNREAD = Pattern.compile("^.*?\"unreadBytes\":(\\d+)");

    private String ask(String path) throws Exception {
        URI uri = URI.create(System.getProperty("headwater.http") + "/v1/scopes/" + scope + "/readergroups" + path);
        HttpResponse<String> answer = HttpClient.newHttpClient()
                .send(HttpRequest.newBuilder(uri).build(), HttpResponse.BodyHandlers.ofString());
        assertEquals(200, answer.statusCode(), answer.body());
        return answer.body();
    }

    private long lag() throws Exception {
        String lag = ask("/g/lag");
        Matcher unread = UNREAD.matcher(lag);
        assertTrue(unread.find(), lag);
        return Long.parseLong(unread.group(1));
    }

    /** Reads until `count` events are there. Readers go on to the successors of a segment after a checkpoint only. */
    private void read(ReaderGroup group, EventStreamReader<String> reader, int count) throws Exception {
        int read = 0;
        long end = System.nanoTime() + LIMIT.toNanos();
        for (int round = 0; read < count; round++) {
            CompletableFuture<Checkpoint> checkpoint = group.initiateCheckpoint("c" + count + "-" + round, executor);
            while (!checkpoint.isDone()) {
                read += reader.readNextEvent(200).getEvent() == null ? 0 : 1;
                assertTrue(System.nanoTime() < end, read + " of " + count + " events were read");
            }
        }
        // What was read last is told at the next one.
        CompletableFuture<Checkpoint> last = group.initiateCheckpoint("c" + count, executor);
        while (!last.isDone()) {
            assertNull(reader.readNextEvent(200).getEvent());
        }
    }

    @Test
    @DisplayName("streams, online readers and unread bytes, over checkpoints, a scaling and a reader that goes")
    void lagFollowsTheGroup() throws Exception {
        createStream("s", 2);
        write("s", KEYS, 0, 25);
        ReaderGroupManager groups = open(ReaderGroupManager.withScope(scope, client));
        groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build());
        ReaderGroup group = open(groups.getReaderGroup("g"));
        assertTrue(ask("").contains("{\"readerGroupName\":\"g\"}"), ask(""));
        long all = lag();
        assertTrue(all > 0, "all is unread");

        EventStreamReader<String> reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build());
        read(group, reader, 25 * KEYS);
        assertTrue(ask("/g").contains("\"streamList\":[\"s\"],\"onlineReaderIds\":[\"r\"]"), ask("/g"));
        assertEquals(0, lag(), "everything is read up to the checkpoint");

        write("s", KEYS, 25, 1);
        scale("s", 3);
        write("s", KEYS, 26, 1);
        long two = lag();
        assertTrue(0 < two && two < all, two + " of " + all);
        read(group, reader, 2 * KEYS);
        assertEquals(0, lag(), "everything is read over the scaling");

        write("s", KEYS, 27, 1);
        long one = lag();
        assertTrue(0 < one && one < two, one + " of " + two);
        reader.close();
        assertEquals(one, lag(), "the reader had not read it");
        assertTrue(ask("/g").contains("\"onlineReaderIds\":[]"), ask("/g"));
    }
}
