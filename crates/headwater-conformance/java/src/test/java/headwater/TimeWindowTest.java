package headwater;

import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.TimeWindow;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("time windows")
class TimeWindowTest extends InScope {
    /** The server writes marks every ten seconds, and the reader looks at them when it reports its position. */
    static final Duration MARKS = Duration.ofSeconds(60);

    private EventStreamReader<String> reader(boolean windows) {
        ReaderGroupManager groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
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
