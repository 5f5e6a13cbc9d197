package headwater;

import io.pravega.client.admin.StreamInfo;
import io.pravega.client.stream.RetentionPolicy;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.Stream;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.client.stream.StreamCut;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("stream manager")
class StreamManagerTest extends InScope {
    private static final StreamConfiguration ONE =
        StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(1)).build();

    @Test
    @DisplayName("streams are created once, sealed, deleted and made anew")
    void life() throws Exception {
        assertFalse(streams.checkStreamExists(scope, "s"));
        assertTrue(streams.createStream(scope, "s", ONE));
        assertFalse(streams.createStream(scope, "s", ONE), "it exists already");
        assertTrue(streams.checkStreamExists(scope, "s"));
        write("s", 1, 0, 10);
        assertFalse(within(streams.fetchStreamInfo(scope, "s")).isSealed());
        assertThrows(IllegalArgumentException.class, () -> streams.deleteStream(scope, "s"), "not sealed");
        assertTrue(streams.sealStream(scope, "s"));
        assertTrue(streams.sealStream(scope, "s"), "sealing again changes nothing");
        assertTrue(within(streams.fetchStreamInfo(scope, "s")).isSealed());
        assertThrows(UnsupportedOperationException.class, () -> streams.updateStream(scope, "s", ONE), "sealed");
        assertTrue(streams.deleteStream(scope, "s"));
        assertFalse(streams.deleteStream(scope, "s"));
        assertFalse(streams.checkStreamExists(scope, "s"));
        assertTrue(streams.createStream(scope, "s", ONE));
        assertEquals(List.of(), readSegments("s"));
        write("s", 1, 0, 3);
        assertComplete(readSegments("s"), 1, 3);
    }

    @Test
    @DisplayName("policies and tags are stored and replaced")
    void configuration() throws Exception {
        StreamConfiguration first = StreamConfiguration.builder()
            .scalingPolicy(ScalingPolicy.byEventRate(100, 2, 3))
            .retentionPolicy(RetentionPolicy.byTime(Duration.ofHours(1), Duration.ofHours(5)))
            .tag("red").tag("blue").build();
        assertTrue(streams.createStream(scope, "s", first));
        assertEquals(first, within(streams.fetchStreamInfo(scope, "s")).getStreamConfiguration());
        assertEquals(Set.of("red", "blue"), Set.copyOf(streams.getStreamTags(scope, "s")));
        StreamConfiguration second = StreamConfiguration.builder()
            .scalingPolicy(ScalingPolicy.byDataRate(500, 4, 5))
            .retentionPolicy(RetentionPolicy.bySizeBytes(1_000_000, 9_000_000))
            .tag("blue").tag("green").build();
        assertTrue(streams.updateStream(scope, "s", second));
        assertEquals(second, within(streams.fetchStreamInfo(scope, "s")).getStreamConfiguration());
        assertEquals(Set.of("blue", "green"), Set.copyOf(streams.getStreamTags(scope, "s")));
        assertEquals(5, within(controller.getCurrentSegments(scope, "s")).getNumberOfSegments(), "the new minimum");
        // The manager leaves these two out; the controller's own call does not.
        StreamConfiguration third = StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(2))
            .timestampAggregationTimeout(12_345).rolloverSizeBytes(1 << 20).build();
        assertTrue(within(controller.updateStream(scope, "s", third)));
        assertEquals(third, within(controller.getStreamConfiguration(scope, "s")));
    }

    @Test
    @DisplayName("streams are listed, all and by tag")
    void listing() {
        Set<String> all = new TreeSet<>();
        Set<String> even = new TreeSet<>();
        for (int i = 0; i < 40; i++) {
            String name = "stream-" + i;
            all.add(name);
            StreamConfiguration.StreamConfigurationBuilder config = ONE.toBuilder().tag("any");
            if (i % 2 == 0) {
                config = config.tag("even");
                even.add(name);
            }
            assertTrue(streams.createStream(scope, name, config.build()));
        }
        assertEquals(all, names(streams.listStreams(scope)));
        assertEquals(all, names(streams.listStreams(scope, "any")));
        assertEquals(even, names(streams.listStreams(scope, "even")));
        assertEquals(Set.of(), names(streams.listStreams(scope, "none")));
        assertTrue(streams.updateStream(scope, "stream-0", ONE));
        even.remove("stream-0");
        assertEquals(even, names(streams.listStreams(scope, "even")));
        assertTrue(streams.sealStream(scope, "stream-2") && streams.deleteStream(scope, "stream-2"));
        even.remove("stream-2");
        assertEquals(even, names(streams.listStreams(scope, "even")));
    }

    /** Without those that the server keeps for itself, each once. */
    private static Set<String> names(Iterator<Stream> streams) {
        List<String> names = new ArrayList<>();
        streams.forEachRemaining(stream -> names.add(stream.getStreamName()));
        names.removeIf(name -> name.startsWith("_"));
        Set<String> distinct = new TreeSet<>(names);
        assertEquals(distinct.size(), names.size(), "none is listed twice");
        return distinct;
    }

    @Test
    @DisplayName("a stream truncated at a cut starts there, and its head and tail are known")
    void truncate() throws Exception {
        createStream("s", 2);
        write("s", 9, 0, 30);
        StreamInfo before = within(streams.fetchStreamInfo(scope, "s"));
        assertTrue(before.getHeadStreamCut().asImpl().getPositions().values().stream().allMatch(offset -> offset == 0));
        StreamCut cut = before.getTailStreamCut();
        scale("s", 3);
        write("s", 9, 30, 30);
        assertTrue(streams.truncateStream(scope, "s", cut));
        assertTrue(streams.truncateStream(scope, "s", cut), "the same cut again changes nothing");
        StreamInfo after = within(streams.fetchStreamInfo(scope, "s"));
        assertEquals(cut, after.getHeadStreamCut());
        assertEquals(3, after.getTailStreamCut().asImpl().getPositions().size());
        assertEquals(9 * 30, readSegments("s").size());
        StreamCut tail = after.getTailStreamCut();
        assertTrue(streams.truncateStream(scope, "s", tail));
        assertEquals(tail, within(streams.fetchStreamInfo(scope, "s")).getHeadStreamCut());
        assertEquals(List.of(), readSegments("s"));
    }

    @Test
    @DisplayName("scopes are created, listed and deleted only when empty")
    void scopes() {
        String other = scope + "-other";
        assertFalse(streams.checkScopeExists(other));
        assertTrue(streams.createScope(other));
        assertFalse(streams.createScope(other));
        assertTrue(streams.checkScopeExists(other));
        Set<String> listed = new TreeSet<>();
        streams.listScopes().forEachRemaining(listed::add);
        assertTrue(listed.containsAll(List.of(scope, other)), listed.toString());
        assertTrue(streams.createStream(other, "s", ONE));
        assertThrows(IllegalStateException.class, () -> streams.deleteScope(other));
        assertTrue(streams.sealStream(other, "s") && streams.deleteStream(other, "s"));
        assertTrue(streams.deleteScope(other));
        assertFalse(streams.deleteScope(other));
        assertFalse(streams.checkScopeExists(other));
    }

    @Test
    @DisplayName("what does not exist and what is not allowed is refused by name")
    void refusals() {
        assertThrows(IllegalArgumentException.class, () -> streams.createStream("no-such-scope", "s", ONE));
        assertThrows(IllegalArgumentException.class, () -> streams.updateStream(scope, "none", ONE));
        assertThrows(io.pravega.client.stream.InvalidStreamException.class, () -> streams.sealStream(scope, "none"));
        assertThrows(IllegalArgumentException.class, () -> streams.createStream(scope, "no/slash", ONE));
        assertThrows(Exception.class, () -> within(streams.fetchStreamInfo(scope, "none")));
        assertThrows(Exception.class, () -> streams.listStreams("no-such-scope").hasNext());
    }
}
