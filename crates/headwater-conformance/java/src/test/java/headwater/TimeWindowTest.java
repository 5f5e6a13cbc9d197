package headwater;

import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroupConfig;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.Stream;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.client.stream.TimeWindow;
import java.time.Duration;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

@Order(1)
@Timeout(value = 150, unit = TimeUnit.SECONDS)
@DisplayName("time windows")
class TimeWindowTest extends InScope {
    /** The server writes marks every ten seconds, and the reader looks at them when it reports its position. */
    static final Duration MARKS = Duration.ofSeconds(60);

    private EventStreamReader<String> reader(boolean windows) {
        return reader(InGroup.brisk(), windows);
    }

    private EventStreamReader<String> reader(ReaderGroupConfig.ReaderGroupConfigBuilder config, boolean windows) {
        ReaderGroupManager groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", config.stream(stream("s")).build()));
        return open(events().createReader("r", "g", TEXT, ReaderConfig.builder().disableTimeWindows(!windows).build()));
    }

    @Test
    @DisplayName("readers see between which times of the writers they are")
    void noted() throws Exception {
        createStream("s", 2);
        EventStreamReader<String> reader = reader(true);
        assertNull(reader.getCurrentTimeWindow(stream("s")).getLowerTimeBound());
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT, patient()));
        AtomicInteger noted = new AtomicInteger();
        TimeWindow[] seen = new TimeWindow[1];
        until("a time was passed", MARKS, () -> {
            int time = noted.incrementAndGet() * 1_000;
            within(writer.writeEvent("key-" + time, Integer.toString(time)));
            writer.noteTime(time);
            String event = reader.readNextEvent(500).getEvent();
            seen[0] = reader.getCurrentTimeWindow(stream("s"));
            Long lower = seen[0].getLowerTimeBound();
            Long upper = seen[0].getUpperTimeBound();
            assertTrue(lower == null || lower % 1_000 == 0 && lower <= noted.get() * 1_000L, "noted: " + lower);
            assertTrue(lower == null || upper == null || lower <= upper, lower + " to " + upper);
            if (lower != null && event != null) {
                // Everything before the lower bound was read: what comes now is not older.
                assertTrue(Long.parseLong(event) >= lower, event + " was read after " + lower + " was passed");
            }
            return lower != null && lower > 1_000;
        });
        assertNotNull(seen[0].getLowerTimeBound());
    }

    @Test
    @DisplayName("writers note the time by themselves")
    void automatic() throws Exception {
        createStream("s", 1);
        EventStreamReader<String> reader = reader(true);
        long begun = System.currentTimeMillis();
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT,
            EventWriterConfig.builder().automaticallyNoteTime(true).build()));
        until("a time was passed", MARKS, () -> {
            within(writer.writeEvent("key", "event"));
            reader.readNextEvent(500);
            Long lower = reader.getCurrentTimeWindow(stream("s")).getLowerTimeBound();
            assertTrue(lower == null || lower >= begun && lower <= System.currentTimeMillis(), "now: " + lower);
            return lower != null;
        });
    }

    /** How a time gets to the server. */
    interface Noting {
        void note(long time) throws Exception;
    }

    /**
     * Notes times in steps of 1,000, from behind `from` on, until the reader's window begins behind `from`, and checks the
     * events, which are times, against it. Returns the last time.
     */
    static long untilPassed(EventStreamReader<String> reader, Stream stream, Noting noting, long from) throws Exception {
        long[] time = {from};
        until("a time behind " + from + " was passed", MARKS, () -> {
            noting.note(time[0] += 1_000);
            String event = reader.readNextEvent(500).getEvent();
            TimeWindow now = reader.getCurrentTimeWindow(stream);
            Long lower = now.getLowerTimeBound();
            Long upper = now.getUpperTimeBound();
            assertTrue(lower == null || lower % 1_000 == 0 && lower <= time[0], "noted: " + lower);
            assertTrue(lower == null || upper == null || lower <= upper, lower + " to " + upper);
            assertTrue(lower == null || event == null || Long.parseLong(event) >= lower, event + " after " + lower);
            return lower != null && lower > from;
        });
        return time[0];
    }

    @Test
    @DisplayName("commits with a time alone move the window")
    void committed() throws Exception {
        createStream("s", 2);
        EventStreamReader<String> reader = reader(true);
        var writer = open(events().createTransactionalEventWriter("w", "s", TEXT, EventWriterConfig.builder().build()));
        Noting committing = time -> {
            var transaction = writer.beginTxn();
            transaction.writeEvent("key-" + time, Long.toString(time));
            transaction.commit(time);
        };
        long first = untilPassed(reader, stream("s"), committing, 0);
        untilPassed(reader, stream("s"), committing, first);
    }

    @Test
    @DisplayName("a writer that falls silent holds the window for as long as the stream says")
    void silent() throws Exception {
        Duration patience = Duration.ofSeconds(10);
        // The manager leaves the time-out out.
        assertTrue(within(controller.createStream(scope, "s", StreamConfiguration.builder()
            .scalingPolicy(ScalingPolicy.fixed(1)).timestampAggregationTimeout(patience.toMillis()).build())));
        EventStreamReader<String> reader = reader(true);
        EventStreamWriter<String> busy = open(events().createEventWriter("busy", "s", TEXT, patient()));
        EventStreamWriter<String> silent = open(events().createEventWriter("silent", "s", TEXT, patient()));
        long last = untilPassed(reader, stream("s"), time -> {
            within(busy.writeEvent("key", Long.toString(time)));
            busy.noteTime(time);
            silent.noteTime(time);
        }, 0);
        long since = System.nanoTime();
        untilPassed(reader, stream("s"), time -> {
            within(busy.writeEvent("key", Long.toString(time)));
            busy.noteTime(time);
        }, last);
        Duration waited = Duration.ofNanos(System.nanoTime() - since);
        assertTrue(waited.compareTo(patience) >= 0, "the window went on after " + waited);
    }

    @Test
    @DisplayName("the window goes on over splits and merges")
    void scaled() throws Exception {
        createStream("s", 1);
        // Readers go on to the next segments at checkpoints only.
        EventStreamReader<String> reader = reader(InGroup.checkpointing(), true);
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT, patient()));
        Noting noting = time -> {
            within(writer.writeEvent("key-" + time, Long.toString(time)));
            writer.noteTime(time);
        };
        long time = 0;
        for (int segments : new int[] {3, 1}) {
            scale("s", segments);
            time = untilPassed(reader, stream("s"), noting, time);
        }
    }

    @Test
    @DisplayName("a reader that wants no windows has none")
    void disabled() throws Exception {
        createStream("s", 1);
        EventStreamReader<String> reader = reader(false);
        write("s", 1, 0, 1);
        until("it is read", LIMIT, () -> reader.readNextEvent(500).getEvent() != null);
        assertEquals(new TimeWindow(null, null), reader.getCurrentTimeWindow(stream("s")));
    }
}
