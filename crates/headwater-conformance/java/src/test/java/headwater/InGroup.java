package headwater;

import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.EventRead;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroup;
import io.pravega.client.stream.ReaderGroupConfig;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.BeforeEach;

import static org.junit.jupiter.api.Assertions.assertTrue;

/** A test of readers that share a group "g" of its scope. */
abstract class InGroup extends InScope {
    static final int KEYS = 16;

    protected ReaderGroupManager groups;
    protected ExecutorService threads;

    @BeforeEach
    void openGroups() {
        threads = Executors.newCachedThreadPool();
        open(threads::shutdownNow);
        groups = open(ReaderGroupManager.withScope(scope, client));
    }

    /** Looks at the group's state twice a second and makes no checkpoints by itself. */
    static ReaderGroupConfig.ReaderGroupConfigBuilder brisk() {
        return ReaderGroupConfig.builder().groupRefreshTimeMillis(500).disableAutomaticCheckpoints();
    }

    /** Makes a checkpoint every second. Readers go from a segment to its successors only at one, and share only there. */
    protected static ReaderGroupConfig.ReaderGroupConfigBuilder checkpointing() {
        return brisk().automaticCheckpointIntervalMillis(1_000);
    }

    protected ReaderGroup group(ReaderGroupConfig config) {
        assertTrue(groups.createReaderGroup("g", config));
        return open(groups.getReaderGroup("g"));
    }

    protected EventStreamReader<String> reader(String id) {
        return events().createReader(id, "g", TEXT, ReaderConfig.builder().build());
    }

    /** A reader at work in a thread of its own. */
    protected final class Reading {
        final List<String> events = Collections.synchronizedList(new ArrayList<>());
        final List<String> checkpoints = Collections.synchronizedList(new ArrayList<>());
        final AtomicBoolean stop = new AtomicBoolean();
        final CompletableFuture<Boolean> ended;

        protected Reading(EventStreamReader<String> reader, List<String> all) {
            ended = CompletableFuture.supplyAsync(() -> {
                try (reader) {
                    while (!stop.get()) {
                        EventRead<String> next = reader.readNextEvent(200);
                        if (next.isCheckpoint()) {
                            checkpoints.add(next.getCheckpointName());
                        } else if (next.getEvent() != null) {
                            events.add(next.getEvent());
                            all.add(next.getEvent());
                        } else if (next.isReadCompleted()) {
                            return true;
                        }
                    }
                    return false;
                }
            }, threads);
        }

        /** Lets it close its reader. True if it had come to the end of its data. */
        boolean finish() throws Exception {
            stop.set(true);
            return within(ended);
        }
    }

    /**
     * Readers of these names, all of which the group knows before the first of them takes its share: without
     * checkpoints it would keep all. `all` gets every event in the order in which they read.
     */
    protected List<Reading> reading(List<String> all, String... ids) {
        List<EventStreamReader<String>> readers = new ArrayList<>();
        for (String id : ids) {
            readers.add(reader(id));
        }
        return readers.stream().map(reader -> new Reading(reader, all)).toList();
    }

    protected static List<String> shared() {
        return Collections.synchronizedList(new ArrayList<>());
    }

    protected void untilAssigned(ReaderGroup group, int readers, int leastEach) throws Exception {
        until(readers + " readers have all segments and " + leastEach + " each at least", LIMIT, () -> {
            var distribution = group.getReaderSegmentDistribution();
            return distribution.getUnassignedSegments() == 0
                && distribution.getReaderSegmentDistribution().size() == readers
                && distribution.getReaderSegmentDistribution().values().stream().allMatch(n -> n >= leastEach);
        });
    }
}
