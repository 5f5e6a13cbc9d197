package headwater;

import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroup;
import io.pravega.client.stream.ReaderGroupConfig;
import io.pravega.client.stream.ReaderGroupConfig.StreamDataRetention;
import io.pravega.client.stream.RetentionPolicy;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.client.stream.StreamCut;
import io.pravega.client.stream.TruncatedDataException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Waits for the server's run of retention, once a minute at most, and so begins before all others. */
@DisplayName("retention")
@Order(1)
@Timeout(value = 180, unit = TimeUnit.SECONDS)
class RetentionTest extends InScope {
    private static final Duration RUN = Duration.ofSeconds(75);
    private static final int KEYS = 4;

    private ReaderGroupManager groups;

    @BeforeEach
    void openGroups() {
        groups = open(ReaderGroupManager.withScope(scope, client));
    }

    /** One byte is to be kept: everything that was released may go. */
    private void createRetained(String name) {
        assertTrue(streams.createStream(scope, name, StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(2))
            .retentionPolicy(RetentionPolicy.bySizeBytes(1)).build()));
    }

    private ReaderGroup group(String name, String stream, StreamDataRetention retention) {
        ReaderGroupConfig config = InGroup.brisk().stream(stream(stream)).retentionType(retention).build();
        assertTrue(groups.createReaderGroup(name, config));
        return open(groups.getReaderGroup(name));
    }

    private StreamCut head(String stream) throws Exception {
        return within(streams.fetchStreamInfo(scope, stream)).getHeadStreamCut();
    }

    /** All that is left are the events from number `from` to `to`, without `to`, of every key. */
    private void assertLeft(String stream, int from, int to) {
        List<String> left = readSegments(stream);
        for (int key = 0; key < KEYS; key++) {
            for (int number = from; number < to; number++) {
                assertTrue(left.contains(event(key, number)), event(key, number) + " is gone");
            }
        }
        assertEquals(KEYS * (to - from), left.size(), left.toString());
    }

    private void createAged(String name, Duration age) {
        assertTrue(streams.createStream(scope, name, StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(2))
            .retentionPolicy(RetentionPolicy.byTime(age)).build()));
    }

    @Test
    @DisplayName("what is older than the policy's time goes, what is younger stays, and readers go on at the new head")
    void byTime() throws Exception {
        createAged("aged", Duration.ofSeconds(30));
        createAged("days", Duration.ofDays(2));
        // Nothing of this one is kept, so it tells when a run has been; its name comes after the others.
        createAged("run", Duration.ZERO);
        ReaderGroup group = group("g", "aged", StreamDataRetention.NONE);
        StreamCut begin = head("aged");
        StreamCut days = head("days");
        write("days", KEYS, 0, 10);
        write("aged", KEYS, 0, 10);
        StreamCut first = tail("aged");
        write("run", KEYS, 0, 1);
        StreamCut run = tail("run");
        until("retention has run", RUN, () -> head("run").equals(run));
        // Where it ended then is known now, and will be older than the policy's time at the next run.
        assertEquals(begin, head("aged"));
        write("aged", KEYS, 10, 10);
        until("retention has run again", RUN, () -> !head("aged").equals(begin));
        assertEquals(first, head("aged"));
        assertLeft("aged", 10, 20);
        assertEquals(days, head("days"));
        assertLeft("days", 0, 10);
        assertEquals(0, readSegments("run").size());
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            List<String> read = new ArrayList<>();
            while (read.size() < KEYS * 10) {
                try {
                    String event = reader.readNextEvent(1_000).getEvent();
                    if (event != null) {
                        read.add(event);
                    }
                } catch (TruncatedDataException gone) {
                    assertTrue(read.isEmpty(), "told before anything is read");
                }
            }
            assertTrue(read.contains(event(0, 10)) && !read.contains(event(0, 9)), read.toString());
            assertEquals(Set.of("r"), group.getOnlineReaders());
        }
    }

    @Test
    @DisplayName("a stream begins where the slowest group has released it by hand, and one that nobody released is kept whole")
    void manual() throws Exception {
        createRetained("s");
        // A run goes through the streams by their names, and is done with this one when it comes to the other.
        createRetained("held");
        ReaderGroup fast = group("fast", "s", StreamDataRetention.MANUAL_RELEASE_AT_USER_STREAMCUT);
        ReaderGroup slow = group("slow", "s", StreamDataRetention.MANUAL_RELEASE_AT_USER_STREAMCUT);
        group("idle", "s", StreamDataRetention.NONE);
        group("holds", "held", StreamDataRetention.MANUAL_RELEASE_AT_USER_STREAMCUT);
        write("held", KEYS, 0, 10);
        StreamCut begin = head("s");
        write("s", KEYS, 0, 10);
        StreamCut first = tail("s");
        write("s", KEYS, 10, 10);
        StreamCut second = tail("s");
        write("s", KEYS, 20, 10);
        // Slow before fast: with fast's alone the stream would begin too late.
        slow.updateRetentionStreamCut(Map.of(stream("s"), first));
        fast.updateRetentionStreamCut(Map.of(stream("s"), second));
        until("retention has run", RUN, () -> !head("s").equals(begin));
        assertEquals(first, head("s"));
        assertLeft("s", 10, 30);
        assertLeft("held", 0, 10);
    }

    @Test
    @DisplayName("a stream begins at the last checkpoint of a group that releases by itself, however far it has read")
    void automatic() throws Exception {
        createRetained("s");
        StreamCut begin = head("s");
        ReaderGroup group = group("g", "s", StreamDataRetention.AUTOMATIC_RELEASE_AT_LAST_CHECKPOINT);
        write("s", KEYS, 0, 10);
        StreamCut middle = tail("s");
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            for (int read = 0; read < KEYS * 10; ) {
                read += reader.readNextEvent(1_000).getEvent() == null ? 0 : 1;
            }
            var checkpoint = group.initiateCheckpoint("c", executor);
            until("the checkpoint is there", LIMIT, () -> reader.readNextEvent(500).isCheckpoint());
            write("s", KEYS, 10, 10);
            int[] read = {0};
            until("retention has run", RUN, () -> {
                read[0] += reader.readNextEvent(200).getEvent() == null ? 0 : 1;
                return !head("s").equals(begin);
            });
            assertEquals("c", within(checkpoint).getName());
            assertEquals(middle, head("s"));
            assertLeft("s", 10, 20);
            while (read[0] < KEYS * 10) {
                read[0] += reader.readNextEvent(1_000).getEvent() == null ? 0 : 1;
            }
        }
    }
}
