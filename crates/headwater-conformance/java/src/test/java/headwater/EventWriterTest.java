package headwater;

import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.Serializer;
import io.pravega.client.stream.StreamCut;
import io.pravega.client.stream.impl.ByteArraySerializer;
import io.pravega.client.stream.impl.StreamSegments;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("event writers")
class EventWriterTest extends InScope {
    private static final int KEYS = 16;

    @Test
    @DisplayName("events with routing keys are stored once each, in order per key")
    void keys() throws Exception {
        createStream("s", 4);
        write("s", KEYS, 0, 500);
        assertComplete(readSegments("s"), KEYS, 500);
        StreamSegments segments = within(controller.getCurrentSegments(scope, "s"));
        long used = IntStream.range(0, KEYS).mapToObj(k -> segments.getSegmentForKey("key-" + k)).distinct().count();
        assertEquals(used, within(streams.fetchStreamInfo(scope, "s")).getTailStreamCut().asImpl().getPositions()
            .values().stream().filter(end -> end > 0).count(), "segments with events");
    }

    @Test
    @DisplayName("events without keys are stored once each")
    void noKeys() throws Exception {
        createStream("s", 3);
        List<String> sent = IntStream.range(0, 3_000).mapToObj(Integer::toString).toList();
        List<String> read;
        try (EventStreamWriter<String> writer = events().createEventWriter("s", TEXT, patient())) {
            CompletableFuture<?>[] acknowledged = sent.stream().map(writer::writeEvent).toArray(CompletableFuture[]::new);
            writer.flush();
            // The client completes the futures a little after it lets a flush return.
            read = readSegments("s");
            within(CompletableFuture.allOf(acknowledged));
        }
        read.sort((a, b) -> Integer.compare(Integer.parseInt(a), Integer.parseInt(b)));
        assertEquals(sent, read);
    }

    @Test
    @DisplayName("several events of one key are written as one")
    void batch() throws Exception {
        createStream("s", 2);
        List<String> together = IntStream.range(0, 200).mapToObj(Integer::toString).toList();
        try (EventStreamWriter<String> writer = events().createEventWriter("s", TEXT, patient())) {
            writer.writeEvents("one", together).get(LIMIT.toSeconds(), TimeUnit.SECONDS);
        }
        assertEquals(together, readSegments("s"));
    }

    @Test
    @DisplayName("writers share connections")
    void pooled() throws Exception {
        createStream("s", 4);
        EventWriterConfig shared = EventWriterConfig.builder().enableConnectionPooling(true).build();
        var factory = events();
        List<EventStreamWriter<String>> writers = new ArrayList<>();
        for (int key = 0; key < KEYS; key++) {
            writers.add(open(factory.createEventWriter("s", TEXT, shared)));
        }
        for (int number = 0; number < 100; number++) {
            for (int key = 0; key < KEYS; key++) {
                writers.get(key).writeEvent("key-" + key, event(key, number));
            }
        }
        writers.forEach(EventStreamWriter::flush);
        assertComplete(readSegments("s"), KEYS, 100);
    }

    @Test
    @DisplayName("an event of the greatest size and an empty one come back")
    void sizes() throws Exception {
        createStream("s", 1);
        List<byte[]> sent = List.of(noise(Serializer.MAX_EVENT_SIZE, 1), new byte[0], noise(1, 2), noise(70_000, 3));
        try (var writer = events().createEventWriter("s", new ByteArraySerializer(), patient())) {
            for (byte[] event : sent) {
                writer.writeEvent("one", event).get(LIMIT.toSeconds(), TimeUnit.SECONDS);
            }
        }
        assertSame(sent, readSegments("s", new ByteArraySerializer(), StreamCut.UNBOUNDED, StreamCut.UNBOUNDED));
    }

    @Test
    @DisplayName("large events are uploaded in pieces and come back whole, in order")
    void large() throws Exception {
        createStream("s", 1);
        EventWriterConfig large = EventWriterConfig.builder().enableLargeEvents(true).build();
        List<byte[]> sent = List.of(noise(10, 1), noise(Serializer.MAX_EVENT_SIZE + 1, 2), noise(20, 3),
            noise(20 * 1024 * 1024, 4), noise(30, 5));
        try (var writer = events().createEventWriter("s", new ByteArraySerializer(), large)) {
            List<CompletableFuture<Void>> acknowledged = new ArrayList<>();
            sent.forEach(event -> acknowledged.add(writer.writeEvent("one", event)));
            for (CompletableFuture<Void> one : acknowledged) {
                one.get(LIMIT.toSeconds(), TimeUnit.SECONDS);
            }
        }
        assertSame(sent, readSegments("s", new ByteArraySerializer(), StreamCut.UNBOUNDED, StreamCut.UNBOUNDED));
    }

    @Test
    @DisplayName("a writer of a stream that was sealed is told")
    void sealed() throws Exception {
        createStream("s", 2);
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT, patient()));
        within(writer.writeEvent("one", "before"));
        assertTrue(streams.sealStream(scope, "s"));
        Throwable refused = assertThrows(Throwable.class, () -> {
            for (int i = 0; i < 10; i++) {
                writer.writeEvent("one", "after").get(LIMIT.toSeconds(), TimeUnit.SECONDS);
            }
        });
        while (refused instanceof ExecutionException) {
            refused = refused.getCause();
        }
        assertTrue(refused.toString().toLowerCase().contains("seal"), refused.toString());
        assertEquals(Collections.singletonList("before"), readSegments("s", TEXT, StreamCut.UNBOUNDED, headAfter("before")));
    }

    /** A cut behind the first event of the one segment that has any. */
    private StreamCut headAfter(String event) throws Exception {
        var head = within(streams.fetchStreamInfo(scope, "s")).getHeadStreamCut();
        var positions = new java.util.HashMap<>(head.asImpl().getPositions());
        var written = within(controller.getEpochSegments(scope, "s", 0)).getSegmentForKey("one");
        positions.put(written, 8L + event.length());
        return new io.pravega.client.stream.impl.StreamCutImpl(stream("s"), positions);
    }

    static byte[] noise(int size, long seed) {
        byte[] bytes = new byte[size];
        new Random(seed).nextBytes(bytes);
        return bytes;
    }

    private static void assertSame(List<byte[]> sent, List<byte[]> read) {
        assertEquals(sent.size(), read.size(), "events");
        for (int i = 0; i < sent.size(); i++) {
            assertArrayEquals(sent.get(i), read.get(i), "event " + i);
        }
    }
}
