package headwater;

import io.pravega.client.BatchClientFactory;
import io.pravega.client.batch.SegmentIterator;
import io.pravega.client.batch.SegmentRange;
import io.pravega.client.batch.impl.BatchClientFactoryImpl;
import io.pravega.client.stream.StreamCut;
import io.pravega.client.stream.TruncatedDataException;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.ObjectInputStream;
import java.io.ObjectOutputStream;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("batch client")
class BatchTest extends InScope {
    private static final int KEYS = 12;

    @Test
    @DisplayName("ranges between two cuts hold exactly what was written between them, across scales")
    void between() throws Exception {
        createStream("s", 2);
        write("s", KEYS, 0, 50);
        StreamCut first = tail("s");
        write("s", KEYS, 50, 50);
        scale("s", 5);
        write("s", KEYS, 100, 50);
        scale("s", 3);
        write("s", KEYS, 150, 50);
        StreamCut second = tail("s");
        write("s", KEYS, 200, 50);

        assertComplete(readSegments("s"), KEYS, 250);
        assertComplete(readSegments("s", TEXT, StreamCut.UNBOUNDED, first), KEYS, 50);
        assertComplete(readSegments("s", TEXT, StreamCut.UNBOUNDED, second), KEYS, 200);
        List<String> middle = readSegments("s", TEXT, first, second).stream().map(BatchTest::minusFifty).toList();
        assertComplete(middle, KEYS, 150);
        List<String> cut = readSegments("s", TEXT, StreamCut.from(first.asText()), StreamCut.fromBytes(second.toBytes()));
        assertEquals(KEYS * 150, cut.size(), "a cut survives its text and its bytes");
        assertEquals(List.of(), readSegments("s", TEXT, second, second));
    }

    private static String minusFifty(String event) {
        String[] parts = event.split("/");
        return event(Integer.parseInt(parts[0]), Integer.parseInt(parts[1]) - 50);
    }

    @Test
    @DisplayName("a range survives serialization and says where it is")
    void ranges() throws Exception {
        createStream("s", 1);
        write("s", 1, 0, 100);
        BatchClientFactory batch = open(BatchClientFactory.withScope(scope, client));
        var found = batch.getSegments(stream("s"), StreamCut.UNBOUNDED, StreamCut.UNBOUNDED);
        SegmentRange range = found.getIterator().next();
        assertEquals(0, range.getStartOffset());
        assertEquals(tail("s").asImpl().getPositions().values().iterator().next(), range.getEndOffset());
        assertEquals(tail("s"), found.getEndStreamCut());
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (ObjectOutputStream out = new ObjectOutputStream(bytes)) {
            out.writeObject(range);
        }
        SegmentRange again;
        try (ObjectInputStream in = new ObjectInputStream(new ByteArrayInputStream(bytes.toByteArray()))) {
            again = (SegmentRange) in.readObject();
        }
        // More is written later: the range ends where it ended.
        write("s", 1, 100, 10);
        List<String> read = new ArrayList<>();
        try (SegmentIterator<String> events = batch.readSegment(again, TEXT)) {
            while (events.hasNext()) {
                assertTrue(events.getOffset() < range.getEndOffset());
                read.add(events.next());
            }
            assertEquals(range.getEndOffset(), events.getOffset());
        }
        assertComplete(read, 1, 100);
    }

    @Test
    @DisplayName("a truncated stream begins at the cut, a range from before it is refused")
    void truncated() throws Exception {
        createStream("s", 2);
        write("s", KEYS, 0, 20);
        BatchClientFactory batch = open(BatchClientFactory.withScope(scope, client));
        SegmentRange old = batch.getSegments(stream("s"), StreamCut.UNBOUNDED, StreamCut.UNBOUNDED).getIterator().next();
        StreamCut cut = tail("s");
        write("s", KEYS, 20, 20);
        assertTrue(streams.truncateStream(scope, "s", cut));
        assertEquals(KEYS * 20, readSegments("s").size());
        assertEquals(readSegments("s", TEXT, cut, StreamCut.UNBOUNDED), readSegments("s"));
        try (SegmentIterator<String> events = batch.readSegment(old, TEXT)) {
            assertThrows(TruncatedDataException.class, events::next);
        }
    }

    /** The page says that there is no such API. Once there is, that has to become a test of it. */
    @Test
    @Tag(Results.ABSENT)
    @DisplayName("cuts by distance: this release has no way to ask for them")
    void noNextStreamCut() {
        List<String> found = new ArrayList<>();
        for (Class<?> one : List.of(BatchClientFactory.class, BatchClientFactoryImpl.class)) {
            for (Method method : one.getMethods()) {
                if (method.getName().toLowerCase(Locale.ROOT).contains("nextstreamcut")) {
                    found.add(method.toString());
                }
            }
        }
        assertEquals(List.of(), found);
    }
}
