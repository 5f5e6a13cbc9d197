package headwater;

import io.pravega.client.stream.Checkpoint;
import io.pravega.client.stream.EventRead;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.Position;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroup;
import io.pravega.client.stream.ReinitializationRequiredException;
import io.pravega.client.stream.Stream;
import io.pravega.client.stream.StreamCut;
import io.pravega.client.stream.TruncatedDataException;
import io.pravega.client.stream.impl.ByteArraySerializer;
import io.pravega.client.stream.impl.MaxNumberOfCheckpointsExceededException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("reader groups")
class ReaderGroupTest extends InGroup {
    private ReaderGroup group() {
        return group(brisk().stream(stream("s")).build());
    }

    /** Reads until `count` events are there. Returns them; the last position is left in `last`. */
    private static List<String> read(EventStreamReader<String> reader, int count, Position[] last) {
        List<String> read = new ArrayList<>();
        long end = System.nanoTime() + LIMIT.toNanos();
        while (read.size() < count) {
            EventRead<String> next = reader.readNextEvent(1_000);
            if (next.getEvent() != null) {
                read.add(next.getEvent());
                last[0] = next.getPosition();
            }
            assertTrue(System.nanoTime() < end, read.size() + " of " + count + " events were read");
        }
        return read;
    }

    private static List<String> read(EventStreamReader<String> reader, int count) {
        return read(reader, count, new Position[1]);
    }

    @Test
    @DisplayName("readers share the segments and read each event once, in order per key")
    void share() throws Exception {
        createStream("s", 6);
        ReaderGroup group = group();
        List<String> all = shared();
        List<Reading> readings = reading(all, "a", "b", "c");
        untilAssigned(group, 3, 1);
        assertEquals(Set.of("a", "b", "c"), group.getOnlineReaders());
        assertEquals(Set.of(scope + "/s"), group.getStreamNames());
        write("s", KEYS, 0, 200);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 200);
        for (Reading reading : readings) {
            assertFalse(reading.finish());
        }
        assertComplete(all, KEYS, 200);
        assertEquals(Set.of(), group.getOnlineReaders());
    }

    @Test
    @DisplayName("a reader that joins gets its share at the next checkpoints")
    void rebalance() throws Exception {
        createStream("s", 4);
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        List<String> all = shared();
        Reading first = reading(all, "first").get(0);
        untilAssigned(group, 1, 4);
        write("s", KEYS, 0, 50);
        Reading second = reading(all, "second").get(0);
        // Two each, or three for the second: a reader that lags more, by the client's reckoning, keeps fewer.
        untilAssigned(group, 2, 1);
        write("s", KEYS, 50, 50);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 100);
        first.finish();
        second.finish();
        assertComplete(all, KEYS, 100);
        assertFalse(first.checkpoints.isEmpty(), "it shares at a checkpoint that it made by itself");
        assertFalse(second.events.isEmpty());
    }

    @Test
    @DisplayName("several streams are read by one group")
    void streams() throws Exception {
        createStream("s", 2);
        createStream("t", 3);
        ReaderGroup group = group(brisk().stream(stream("s")).stream(stream("t")).build());
        write("s", KEYS, 0, 20);
        write("t", KEYS, 20, 20);
        try (EventStreamReader<String> reader = reader("a")) {
            List<String> read = read(reader, KEYS * 40);
            List<String> of = read.stream().filter(event -> Integer.parseInt(event.split("/")[1]) < 20).toList();
            assertComplete(of, KEYS, 20);
        }
        assertEquals(Set.of(stream("s"), stream("t")), group.getStreamCuts().keySet());
    }

    @Test
    @DisplayName("readers follow splits and merges while events are written")
    void scaling() throws Exception {
        createStream("s", 1);
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        List<String> all = shared();
        List<Reading> readings = reading(all, "a", "b");
        int written = 0;
        for (int segments : new int[] {3, 6, 2, 1}) {
            write("s", KEYS, written, 30);
            scale("s", segments);
            written += 30;
        }
        write("s", KEYS, written, 30);
        int expected = KEYS * (written + 30);
        until("all is read", LIMIT, () -> all.size() >= expected);
        for (Reading reading : readings) {
            reading.finish();
        }
        assertComplete(all, KEYS, written + 30);
        assertNotNull(group.getStreamCuts().get(stream("s")));
    }

    @Test
    @DisplayName("a group is reset to a checkpoint and reads on from there")
    void checkpoint() throws Exception {
        createStream("s", 3);
        ReaderGroup group = group();
        List<String> all = shared();
        List<Reading> readings = reading(all, "a", "b");
        untilAssigned(group, 2, 1);
        write("s", KEYS, 0, 40);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 40);
        Checkpoint checkpoint = within(group.initiateCheckpoint("here", executor));
        assertEquals("here", checkpoint.getName());
        for (Reading reading : readings) {
            assertEquals(List.of("here"), reading.checkpoints);
        }
        write("s", KEYS, 40, 40);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 80);
        Checkpoint kept = Checkpoint.fromBytes(checkpoint.toBytes());
        group.resetReaderGroup(brisk().startFromCheckpoint(kept).build());
        for (Reading reading : readings) {
            ExecutionException thrown = assertThrows(ExecutionException.class, () -> within(reading.ended));
            assertInstanceOf(ReinitializationRequiredException.class, thrown.getCause());
        }
        assertComplete(all, KEYS, 80);
        try (EventStreamReader<String> reader = reader("c")) {
            List<String> again = read(reader, KEYS * 40);
            assertEquals(KEYS * 40, again.stream().filter(e -> Integer.parseInt(e.split("/")[1]) >= 40).distinct().count());
            assertNull(reader.readNextEvent(500).getEvent());
        }
    }

    @Test
    @DisplayName("a group is reset to its last automatic checkpoint")
    void lastCheckpoint() throws Exception {
        createStream("s", 2);
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        write("s", KEYS, 0, 40);
        List<String> all = shared();
        Reading reading = reading(all, "a").get(0);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 40);
        int before = reading.checkpoints.size();
        // Two more: the one that was under way may lie before the last event.
        until("it is checkpointed", LIMIT, () -> reading.checkpoints.size() >= before + 3);
        reading.finish();
        write("s", KEYS, 40, 10);
        group.resetReaderGroup();
        try (EventStreamReader<String> reader = reader("b")) {
            List<String> next = read(reader, KEYS * 10);
            assertEquals(KEYS * 10, next.stream().filter(e -> Integer.parseInt(e.split("/")[1]) >= 40).distinct().count());
        }
    }

    @Test
    @DisplayName("more checkpoints at once than allowed are refused, and all can be called off")
    void tooManyCheckpoints() throws Exception {
        createStream("s", 1);
        ReaderGroup group = group(brisk().maxOutstandingCheckpointRequest(1).stream(stream("s")).build());
        try (EventStreamReader<String> reader = reader("a")) {
            assertNull(reader.readNextEvent(500).getEvent());
            CompletableFuture<Checkpoint> first = group.initiateCheckpoint("one", executor);
            ExecutionException thrown =
                assertThrows(ExecutionException.class, () -> within(group.initiateCheckpoint("two", executor)));
            assertInstanceOf(MaxNumberOfCheckpointsExceededException.class, thrown.getCause());
            group.cancelOutstandingCheckpoints();
            assertThrows(ExecutionException.class, () -> within(first));
            CompletableFuture<Checkpoint> third = group.initiateCheckpoint("three", executor);
            until("the third is there", LIMIT, () -> {
                EventRead<String> next = reader.readNextEvent(500);
                return next.isCheckpoint() && next.getCheckpointName().equals("three");
            });
            reader.readNextEvent(100);
            assertEquals("three", within(third).getName());
        }
    }

    @Test
    @DisplayName("stream cuts are taken silently, and a group is reset to one")
    void cuts() throws Exception {
        createStream("s", 3);
        ReaderGroup group = group();
        List<String> all = shared();
        write("s", KEYS, 0, 30);
        Reading reading = reading(all, "a").get(0);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 30);
        Map<Stream, StreamCut> cuts = within(group.generateStreamCuts(executor));
        assertEquals(List.of(), reading.checkpoints);
        assertEquals(tail("s"), cuts.get(stream("s")));
        write("s", KEYS, 30, 30);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 60);
        reading.finish();
        group.resetReaderGroup(brisk().startFromStreamCuts(cuts).build());
        try (EventStreamReader<String> reader = reader("b")) {
            List<String> again = read(reader, KEYS * 30);
            assertEquals(KEYS * 30, again.stream().filter(e -> Integer.parseInt(e.split("/")[1]) >= 30).distinct().count());
        }
    }

    @Test
    @DisplayName("a group reads from one cut to another and ends")
    void bounds() throws Exception {
        createStream("s", 2);
        write("s", KEYS, 0, 10);
        StreamCut from = tail("s");
        write("s", KEYS, 10, 10);
        scale("s", 4);
        write("s", KEYS, 20, 10);
        StreamCut to = tail("s");
        write("s", KEYS, 30, 10);
        group(checkpointing().stream(stream("s"), from, to).build());
        List<String> read;
        try (EventStreamReader<String> reader = reader("a")) {
            read = read(reader, KEYS * 20);
            assertNull(reader.readNextEvent(1_500).getEvent());
        }
        assertComplete(read.stream().map(e -> e.split("/")).map(p ->
            event(Integer.parseInt(p[0]), Integer.parseInt(p[1]) - 10)).toList(), KEYS, 20);
        // The client asks for no more bytes at the end cut and so never learns that it is there. Who takes over does.
        List<String> none = shared();
        assertTrue(within(reading(none, "b").get(0).ended), "it ends by itself");
        assertEquals(List.of(), none);
    }

    @Test
    @DisplayName("readers of a sealed stream come to its end")
    void sealed() throws Exception {
        createStream("s", 3);
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        write("s", KEYS, 0, 20);
        List<String> all = shared();
        List<Reading> readings = reading(all, "a", "b");
        untilAssigned(group, 2, 1);
        assertTrue(streams.sealStream(scope, "s"));
        for (Reading reading : readings) {
            assertTrue(within(reading.ended), "it ends by itself");
        }
        assertComplete(all, KEYS, 20);
    }

    @Test
    @DisplayName("what a dead reader had is read by others, from its last position")
    void offline() throws Exception {
        createStream("s", 2);
        ReaderGroup group = group();
        write("s", KEYS, 0, 30);
        EventStreamReader<String> dying = open(reader("dying"));
        Position[] last = new Position[1];
        List<String> all = new ArrayList<>(read(dying, KEYS * 10, last));
        // It never says goodbye: the group learns of its end from somebody else.
        group.readerOffline("dying", last[0]);
        assertEquals(Set.of(), group.getOnlineReaders());
        try (EventStreamReader<String> heir = reader("heir")) {
            all.addAll(read(heir, KEYS * 20));
            assertNull(heir.readNextEvent(300).getEvent());
        }
        assertComplete(all, KEYS, 30);
        // It has events in its buffers and may go on with them until it looks at the group's state.
        assertThrows(ReinitializationRequiredException.class, () -> {
            for (long end = System.nanoTime() + LIMIT.toNanos(); System.nanoTime() < end; ) {
                dying.readNextEvent(100);
            }
        });
    }

    @Test
    @DisplayName("what a reader of unknown position had is read again from the last checkpoint")
    void offlineUnknown() throws Exception {
        createStream("s", 1);
        ReaderGroup group = group();
        write("s", 1, 0, 10);
        EventStreamReader<String> dying = open(reader("dying"));
        read(dying, 10);
        CompletableFuture<Checkpoint> checkpoint = group.initiateCheckpoint("c", executor);
        until("the checkpoint is there", LIMIT, () -> dying.readNextEvent(500).isCheckpoint());
        dying.readNextEvent(100);
        within(checkpoint);
        write("s", 1, 10, 10);
        read(dying, 10);
        group.readerOffline("dying", null);
        try (EventStreamReader<String> heir = reader("heir")) {
            List<String> again = read(heir, 10);
            assertEquals(event(0, 10), again.get(0));
            assertEquals(event(0, 19), again.get(9));
        }
    }

    @Test
    @DisplayName("a reader closed at a position leaves the rest to others")
    void closeAt() throws Exception {
        createStream("s", 1);
        group();
        write("s", 1, 0, 20);
        EventStreamReader<String> first = reader("first");
        Position[] at = new Position[1];
        read(first, 5, at);
        read(first, 10);
        first.closeAt(at[0]);
        assertEquals(at[0], Position.fromBytes(at[0].toBytes()));
        try (EventStreamReader<String> second = reader("second")) {
            assertEquals(event(0, 5), read(second, 15).get(0));
        }
    }

    @Test
    @DisplayName("unread bytes go down to none")
    void unread() throws Exception {
        createStream("s", 2);
        ReaderGroup group = group();
        write("s", KEYS, 0, 20);
        long bytes = tail("s").asImpl().getPositions().values().stream().mapToLong(Long::longValue).sum();
        assertEquals(bytes, group.getMetrics().unreadBytes());
        List<String> all = shared();
        Reading reading = reading(all, "a").get(0);
        until("all is read", LIMIT, () -> all.size() >= KEYS * 20);
        within(group.initiateCheckpoint("c", executor));
        assertEquals(0, group.getMetrics().unreadBytes());
        scale("s", 3);
        write("s", KEYS, 20, 10);
        long more = readSegments("s").stream().mapToLong(event -> event.length() + 8).sum() - bytes;
        assertEquals(more, group.getMetrics().unreadBytes(), "since the checkpoint, over the scale");
        reading.finish();
    }

    @Test
    @DisplayName("an event is fetched by its pointer until it is truncated")
    void pointer() throws Exception {
        createStream("s", 1);
        group();
        write("s", 1, 0, 10);
        try (EventStreamReader<String> reader = reader("a")) {
            EventRead<String> third = null;
            for (int i = 0; i < 3; ) {
                third = reader.readNextEvent(1_000);
                i += third.getEvent() == null ? 0 : 1;
            }
            assertEquals(event(0, 2), reader.fetchEvent(third.getEventPointer()));
            assertEquals(event(0, 2), within(streams.fetchEvent(third.getEventPointer(), TEXT)));
            assertTrue(streams.truncateStream(scope, "s", tail("s")));
            var gone = third.getEventPointer();
            assertThrows(Exception.class, () -> reader.fetchEvent(gone));
        }
    }

    @Test
    @DisplayName("a reader behind a truncation is told once and goes on at the new head")
    void truncated() throws Exception {
        createStream("s", 1);
        group();
        write("s", 1, 0, 50);
        StreamCut cut = tail("s");
        write("s", 1, 50, 5);
        try (EventStreamReader<String> reader = reader("a")) {
            assertTrue(streams.truncateStream(scope, "s", cut));
            // It may be told at the very first read, as it begins behind the head of the group's making.
            assertThrows(TruncatedDataException.class, () -> reader.readNextEvent(5_000));
            List<String> rest = read(reader, 5);
            assertEquals(event(0, 50), rest.get(0));
        }
    }

    @Test
    @DisplayName("large events reach readers whole")
    void large() throws Exception {
        createStream("s", 1);
        group();
        byte[] sent = EventWriterTest.noise(20 * 1024 * 1024, 11);
        EventWriterConfig large = EventWriterConfig.builder().enableLargeEvents(true).build();
        try (var writer = events().createEventWriter("s", new ByteArraySerializer(), large);
             var reader = events().createReader("a", "g", new ByteArraySerializer(), ReaderConfig.builder().build())) {
            within(writer.writeEvent("one", sent));
            byte[][] read = new byte[1][];
            until("it is read", LIMIT, () -> (read[0] = reader.readNextEvent(2_000).getEvent()) != null);
            assertArrayEquals(sent, read[0]);
        }
    }

    @Test
    @DisplayName("events of a transaction reach readers when it is committed, in order")
    void transactions() throws Exception {
        createStream("s", 2);
        group();
        try (var writer = events().createTransactionalEventWriter("w", "s", TEXT, EventWriterConfig.builder().build());
             EventStreamReader<String> reader = reader("a")) {
            List<String> all = new ArrayList<>();
            for (int round = 0; round < 3; round++) {
                var transaction = writer.beginTxn();
                for (int number = round * 10; number < round * 10 + 10; number++) {
                    for (int key = 0; key < KEYS; key++) {
                        transaction.writeEvent("key-" + key, event(key, number));
                    }
                }
                transaction.flush();
                assertNull(reader.readNextEvent(300).getEvent());
                transaction.commit();
                all.addAll(read(reader, KEYS * 10));
            }
            assertComplete(all, KEYS, 30);
        }
    }

    @Test
    @DisplayName("listeners are told of more segments than before, and of the end")
    void notifications() throws Exception {
        createStream("s", 1);
        ReaderGroup group = group(checkpointing().stream(stream("s")).build());
        List<Integer> segments = Collections.synchronizedList(new ArrayList<>());
        AtomicBoolean ended = new AtomicBoolean();
        group.getSegmentNotifier(executor).registerListener(told -> segments.add(told.getNumOfSegments()));
        group.getEndOfDataNotifier(executor).registerListener(told -> ended.set(true));
        Reading reading = reading(shared(), "a").get(0);
        write("s", 1, 0, 1);
        scale("s", 3);
        until("three segments are told", LIMIT, () -> segments.contains(3));
        assertFalse(ended.get());
        assertTrue(streams.sealStream(scope, "s"));
        until("the end is told", LIMIT, ended::get);
        assertTrue(within(reading.ended));
    }

    @Test
    @DisplayName("positions and cuts survive their bytes")
    void bytes() throws Exception {
        createStream("s", 2);
        ReaderGroup group = group();
        write("s", 4, 0, 5);
        try (EventStreamReader<String> reader = reader("a")) {
            Position[] last = new Position[1];
            read(reader, 20, last);
            assertEquals(last[0], Position.fromBytes(last[0].toBytes()));
        }
        StreamCut cut = group.getStreamCuts().get(stream("s"));
        ByteBuffer bytes = cut.toBytes();
        assertEquals(cut, StreamCut.fromBytes(bytes));
        assertEquals(cut, StreamCut.from(cut.asText()));
        Map<Stream, StreamCut> map = new HashMap<>(group.getStreamCuts());
        assertEquals(new TreeSet<>(Set.of("s")), new TreeSet<>(map.keySet().stream().map(Stream::getStreamName).toList()));
    }
}
