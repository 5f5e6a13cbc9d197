package headwater;

import io.pravega.client.SynchronizerClientFactory;
import io.pravega.client.state.InitialUpdate;
import io.pravega.client.state.Revision;
import io.pravega.client.state.Revisioned;
import io.pravega.client.state.RevisionedStreamClient;
import io.pravega.client.state.StateSynchronizer;
import io.pravega.client.state.SynchronizerConfig;
import io.pravega.client.state.Update;
import io.pravega.client.stream.TruncatedDataException;
import io.pravega.client.stream.impl.JavaSerializer;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("revisioned streams and state synchronizers")
class StateTest extends InScope {
    private static final SynchronizerConfig CONFIG = SynchronizerConfig.builder().build();

    private SynchronizerClientFactory factory;

    @BeforeEach
    void openStream() {
        createStream("state", 1);
        factory = open(SynchronizerClientFactory.withScope(scope, client));
    }

    private RevisionedStreamClient<String> revisioned() {
        return open(factory.createRevisionedStreamClient("state", TEXT, CONFIG));
    }

    private static List<String> values(RevisionedStreamClient<String> stream, Revision from) {
        List<String> values = new ArrayList<>();
        stream.readFrom(from).forEachRemaining(entry -> values.add(entry.getValue()));
        return values;
    }

    @Test
    @DisplayName("a conditional write holds only at the latest revision")
    void conditional() {
        RevisionedStreamClient<String> one = revisioned();
        RevisionedStreamClient<String> other = revisioned();
        Revision empty = one.fetchLatestRevision();
        Revision first = one.writeConditionally(empty, "a");
        assertNotNull(first);
        assertNull(other.writeConditionally(empty, "refused"));
        other.writeUnconditionally("b");
        assertNull(one.writeConditionally(first, "refused too"));
        Revision third = one.writeConditionally(one.fetchLatestRevision(), "c");
        assertEquals(third, other.fetchLatestRevision());
        assertEquals(List.of("a", "b", "c"), values(other, empty));
        assertEquals(List.of("b", "c"), values(one, first));
        List<String> range = new ArrayList<>();
        one.readRange(empty, first).forEachRemaining(entry -> range.add(entry.getValue()));
        assertEquals(List.of("a"), range);
        assertEquals(first, Revision.fromString(first.toString()));
    }

    @Test
    @DisplayName("conditional writes and unconditional ones of one client take turns")
    void turns() {
        RevisionedStreamClient<String> stream = revisioned();
        Revision start = stream.fetchLatestRevision();
        List<String> expected = new ArrayList<>();
        for (int i = 0; i < 100; i++) {
            String value = "value " + i;
            if (i % 3 == 0) {
                stream.writeUnconditionally(value);
            } else {
                assertNotNull(stream.writeConditionally(stream.fetchLatestRevision(), value), value);
            }
            expected.add(value);
        }
        assertEquals(expected, values(revisioned(), start));
    }

    @Test
    @DisplayName("the mark is set only if it was as expected")
    void mark() {
        RevisionedStreamClient<String> stream = revisioned();
        assertNull(stream.getMark());
        Revision start = stream.fetchLatestRevision();
        Revision one = stream.writeConditionally(start, "a");
        assertTrue(stream.compareAndSetMark(null, one));
        assertFalse(stream.compareAndSetMark(null, start));
        assertEquals(one, revisioned().getMark());
        assertTrue(stream.compareAndSetMark(one, start));
        assertEquals(start, stream.getMark());
        assertTrue(stream.compareAndSetMark(start, null));
        assertNull(stream.getMark());
    }

    @Test
    @DisplayName("what is before the oldest revision is gone")
    void truncate() {
        RevisionedStreamClient<String> stream = revisioned();
        Revision start = stream.fetchOldestRevision();
        Revision one = stream.writeConditionally(start, "a");
        stream.writeConditionally(one, "b");
        stream.truncateToRevision(one);
        assertEquals(one, stream.fetchOldestRevision());
        assertThrows(TruncatedDataException.class, () -> stream.readFrom(start));
        assertEquals(List.of("b"), values(stream, one));
    }

    @Test
    @DisplayName("synchronizers that race agree")
    void synchronizer() throws Exception {
        int clients = 4;
        int rounds = 25;
        List<CompletableFuture<Void>> running = new ArrayList<>();
        for (int i = 0; i < clients; i++) {
            String name = "counter-" + i;
            running.add(CompletableFuture.runAsync(() -> {
                StateSynchronizer<Counters> mine = synchronizers();
                for (int round = 0; round < rounds; round++) {
                    mine.updateState((state, updates) -> {
                        // Each adds one to what it saw: a lost update would show in the sum.
                        updates.add(new SetTo("shared", state.values.getOrDefault("shared", 0) + 1));
                        updates.add(new SetTo(name, state.values.getOrDefault(name, 0) + 1));
                    });
                }
            }, executor));
        }
        for (CompletableFuture<Void> one : running) {
            within(one);
        }
        StateSynchronizer<Counters> later = synchronizers();
        later.fetchUpdates();
        assertEquals(clients * rounds, later.getState().values.get("shared"));
        for (int i = 0; i < clients; i++) {
            assertEquals(rounds, later.getState().values.get("counter-" + i));
        }
    }

    @Test
    @DisplayName("a compacted state is the same for old and new synchronizers")
    void compact() {
        StateSynchronizer<Counters> old = synchronizers();
        StateSynchronizer<Counters> compacting = synchronizers();
        for (int i = 0; i < 20; i++) {
            old.updateStateUnconditionally(new SetTo("value", i));
        }
        RevisionedStreamClient<String> revisioned = revisioned();
        Revision oldest = revisioned.fetchOldestRevision();
        compacting.fetchUpdates();
        assertTrue(compacting.bytesWrittenSinceCompaction() > 0);
        // What is before a compaction goes with the next one: others may still be reading it.
        for (int i = 1; i <= 2; i++) {
            compacting.compact(state -> new Initial(new HashMap<>(state.values)));
            compacting.fetchUpdates();
            compacting.updateStateUnconditionally(new SetTo("after", i));
            compacting.fetchUpdates();
        }
        StateSynchronizer<Counters> fresh = synchronizers();
        for (StateSynchronizer<Counters> one : List.of(old, compacting, fresh)) {
            one.fetchUpdates();
            assertEquals(Map.of("value", 19, "after", 2), one.getState().values);
        }
        assertTrue(revisioned.fetchOldestRevision().compareTo(oldest) > 0, "what was compacted is gone");
    }

    private StateSynchronizer<Counters> synchronizers() {
        StateSynchronizer<Counters> made = factory.createStateSynchronizer("state", new JavaSerializer<SetTo>(),
            new JavaSerializer<Initial>(), CONFIG);
        synchronized (this) {
            open(made);
        }
        made.initialize(new Initial(new HashMap<>()));
        return made;
    }

    /** The state: numbers by name. */
    private static final class Counters implements Revisioned {
        private final String name;
        private final Revision revision;
        private final Map<String, Integer> values;

        Counters(String name, Revision revision, Map<String, Integer> values) {
            this.name = name;
            this.revision = revision;
            this.values = values;
        }

        @Override
        public String getScopedStreamName() {
            return name;
        }

        @Override
        public Revision getRevision() {
            return revision;
        }
    }

    private record SetTo(String name, int value) implements Update<Counters>, Serializable {
        @Override
        public Counters applyTo(Counters old, Revision revision) {
            Map<String, Integer> values = new HashMap<>(old.values);
            values.put(name, value);
            return new Counters(old.name, revision, values);
        }
    }

    private record Initial(HashMap<String, Integer> values) implements InitialUpdate<Counters>, Serializable {
        @Override
        public Counters create(String name, Revision revision) {
            return new Counters(name, revision, new HashMap<>(values));
        }
    }
}
