package headwater;

import io.pravega.client.stream.Checkpoint;
import io.pravega.client.stream.ReaderGroup;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** A reader of Headwater's own client, which its command line runs, in one group with readers of the Java client. */
@DisplayName("groups shared with Headwater's own client")
class MixedGroupTest extends InGroup {
    /** `headwater group read` at work. What it prints is what it has read. */
    private final class Ours implements AutoCloseable {
        final List<String> events = Collections.synchronizedList(new ArrayList<>());
        private final Process process;
        private final CompletableFuture<Void> printed;

        Ours(List<String> all) throws IOException {
            String binary = System.getProperty("headwater.binary");
            assertNotNull(binary, "no command line: give -Dheadwater.binary=FILE");
            ProcessBuilder command = new ProcessBuilder(binary, "group", "read", scope + "/g", "--reader", "ours",
                "--server", "tcp://" + System.getProperty("headwater.controller"));
            process = command.redirectError(new File(System.getProperty("headwater.log") + "." + scope)).start();
            printed = CompletableFuture.runAsync(() -> {
                var lines = new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8);
                try (BufferedReader reader = new BufferedReader(lines)) {
                    for (String line = reader.readLine(); line != null; line = reader.readLine()) {
                        events.add(line);
                        all.add(line);
                    }
                } catch (IOException e) {
                    throw new UncheckedIOException(e);
                }
            }, threads);
        }

        boolean isAtWork() {
            return process.isAlive();
        }

        /** Waits until it has come to the end of the group. */
        void finish() throws Exception {
            assertTrue(process.waitFor(LIMIT.toSeconds(), TimeUnit.SECONDS), "it comes to the end");
            within(printed);
            assertEquals(0, process.exitValue());
        }

        @Override
        public void close() {
            process.destroyForcibly();
        }
    }

    /** Each event once. Which of two readers came first nobody can say: what one has read takes a while to be seen. */
    private static void assertOnce(List<String> all, int count) {
        List<String> expected = new ArrayList<>();
        for (int key = 0; key < KEYS; key++) {
            for (int number = 0; number < count; number++) {
                expected.add(event(key, number));
            }
        }
        Collections.sort(expected);
        List<String> read = new ArrayList<>(all);
        Collections.sort(read);
        assertEquals(expected, read);
    }

    /** What one reader has read of a key is in order. */
    private static void assertOrdered(List<String> read) {
        Map<String, Integer> last = new HashMap<>();
        for (String event : read) {
            String[] parts = event.split("/");
            int number = Integer.parseInt(parts[1]);
            assertTrue(last.getOrDefault(parts[0], -1) < number, event);
            last.put(parts[0], number);
        }
    }

    @Test
    @DisplayName("each event is read once by either, over a scale and a checkpoint")
    void share() throws Exception {
        createStream("s", 4);
        // Java's readers share anew only at a checkpoint.
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        List<String> all = shared();
        Reading java = reading(all, "java").get(0);
        Ours ours = open(new Ours(all));
        untilAssigned(group, 2, 1);
        assertEquals(Set.of("java", "ours"), group.getOnlineReaders());
        write("s", KEYS, 0, 100);
        scale("s", 6);
        Checkpoint checkpoint = within(group.initiateCheckpoint("both", executor));
        assertEquals("both", checkpoint.getName());
        assertTrue(java.checkpoints.contains("both"));
        write("s", KEYS, 100, 100);
        untilAssigned(group, 2, 1);
        write("s", KEYS, 200, 100);
        assertTrue(streams.sealStream(scope, "s"));
        assertTrue(within(java.ended), "it comes to the end");
        ours.finish();
        assertOnce(all, 300);
        assertFalse(java.events.isEmpty(), "Java's reader read");
        assertEquals(KEYS * 300 - java.events.size(), ours.events.size());
        assertOrdered(ours.events);
        assertFalse(ours.events.isEmpty(), "Headwater's reader read");
        assertEquals(Set.of(), group.getOnlineReaders());
    }

    @Test
    @DisplayName("what Java's reader leaves Headwater's reads on, and nothing twice")
    void leave() throws Exception {
        createStream("s", 4);
        // Java's readers share anew only at a checkpoint.
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        List<String> all = shared();
        Reading java = reading(all, "java").get(0);
        Ours ours = open(new Ours(all));
        untilAssigned(group, 2, 1);
        write("s", KEYS, 0, 100);
        until("half is read", LIMIT, () -> all.size() >= KEYS * 50);
        java.finish();
        write("s", KEYS, 100, 100);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 200);
        assertEquals(Set.of("ours"), group.getOnlineReaders());
        assertTrue(ours.isAtWork());
        assertTrue(streams.sealStream(scope, "s"));
        ours.finish();
        assertOnce(all, 200);
    }

    @Test
    @DisplayName("Java declares a killed reader of Headwater's offline, and reads on where it stopped last")
    void offline() throws Exception {
        createStream("s", 4);
        // Java's readers share anew only at a checkpoint.
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        List<String> all = shared();
        Reading java = reading(all, "java").get(0);
        Ours ours = open(new Ours(all));
        untilAssigned(group, 2, 1);
        write("s", KEYS, 0, 100);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 100);
        ours.close();
        group.readerOffline("ours", null);
        write("s", KEYS, 100, 100);
        assertTrue(streams.sealStream(scope, "s"));
        assertTrue(within(java.ended), "it comes to the end");
        // At least once: what the dead one had read since the last checkpoint is read again.
        Set<String> distinct = new TreeSet<>(all);
        assertEquals(KEYS * 200, distinct.size());
        assertEquals(Set.of(), group.getOnlineReaders());
    }
}
