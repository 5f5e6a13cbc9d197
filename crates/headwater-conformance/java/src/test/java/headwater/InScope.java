package headwater;

import io.pravega.client.BatchClientFactory;
import io.pravega.client.ClientConfig;
import io.pravega.client.EventStreamClientFactory;
import io.pravega.client.admin.StreamManager;
import io.pravega.client.batch.SegmentIterator;
import io.pravega.client.batch.SegmentRange;
import io.pravega.client.control.impl.Controller;
import io.pravega.client.control.impl.ControllerImpl;
import io.pravega.client.control.impl.ControllerImplConfig;
import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.Serializer;
import io.pravega.client.stream.Stream;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.client.stream.StreamCut;
import io.pravega.client.stream.impl.UTF8StringSerializer;
import java.net.URI;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.TestInfo;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** A scope of its own for every test. What a test opens is closed after it, newest first. */
abstract class InScope {
    /** The longest that anything is waited for, unless the client's own timers need more. */
    static final Duration LIMIT = Duration.ofSeconds(30);
    static final Serializer<String> TEXT = new UTF8StringSerializer();

    private final Deque<AutoCloseable> opened = new ArrayDeque<>();
    /** Named after the test. */
    protected String scope;
    protected ClientConfig client;
    protected StreamManager streams;
    /** The calls of the controller that the managers have no method for. */
    protected Controller controller;
    protected ScheduledExecutorService executor;

    @BeforeEach
    void openScope(TestInfo test) {
        String method = test.getTestMethod().orElseThrow().getName();
        scope = getClass().getSimpleName() + "-" + method;
        client = connection();
        executor = Executors.newScheduledThreadPool(4);
        opened.push(executor::shutdownNow);
        controller = open(new ControllerImpl(ControllerImplConfig.builder().clientConfig(client).build(), executor));
        streams = open(StreamManager.create(client));
        assertTrue(streams.createScope(scope), "the scope is new");
    }

    @AfterEach
    void closeAll() throws Exception {
        while (!opened.isEmpty()) {
            opened.pop().close();
        }
    }

    /** How the server under test is reached. */
    protected ClientConfig connection() {
        String address = System.getProperty("headwater.controller");
        assertNotNull(address, "no server: start one and give -Dheadwater.controller=HOST:PORT");
        return ClientConfig.builder().controllerURI(URI.create("tcp://" + address)).build();
    }

    /** Closed after the test. */
    protected <T extends AutoCloseable> T open(T resource) {
        opened.push(resource);
        return resource;
    }

    protected EventStreamClientFactory events() {
        return open(EventStreamClientFactory.withScope(scope, client));
    }

    protected Stream stream(String name) {
        return Stream.of(scope, name);
    }

    /** Makes a stream that does not scale by itself. */
    protected void createStream(String name, int segments) {
        StreamConfiguration fixed = StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(segments)).build();
        assertTrue(streams.createStream(scope, name, fixed), "the stream is new");
    }

    /** Writes `count` events of each key, numbered from `from`, and waits until all are acknowledged. */
    protected void write(String stream, int keys, int from, int count) throws Exception {
        try (EventStreamWriter<String> writer = events().createEventWriter(stream, TEXT, patient())) {
            List<CompletableFuture<Void>> acknowledged = new ArrayList<>();
            for (int number = from; number < from + count; number++) {
                for (int key = 0; key < keys; key++) {
                    acknowledged.add(writer.writeEvent("key-" + key, event(key, number)));
                }
            }
            for (CompletableFuture<Void> one : acknowledged) {
                one.get(LIMIT.toSeconds(), TimeUnit.SECONDS);
            }
        }
    }

    static EventWriterConfig patient() {
        return EventWriterConfig.builder().build();
    }

    static String event(int key, int number) {
        return key + "/" + number;
    }

    /** Every event of every key, each once, and those of one key in the order in which they were written. */
    static void assertComplete(List<String> read, int keys, int count) {
        Map<Integer, Integer> next = new HashMap<>();
        for (String event : read) {
            String[] parts = event.split("/");
            int key = Integer.parseInt(parts[0]);
            int expected = next.merge(key, 1, Integer::sum) - 1;
            assertEquals(event(key, expected), event, "the next event of its key");
        }
        assertEquals(keys * count, read.size(), "events");
        for (int key = 0; key < keys; key++) {
            assertEquals(count, next.getOrDefault(key, 0), "events of key " + key);
        }
    }

    /** All events between two cuts, segment by segment, older segments first. */
    protected <T> List<T> readSegments(String stream, Serializer<T> serializer, StreamCut from, StreamCut to) {
        List<T> read = new ArrayList<>();
        BatchClientFactory batch = open(BatchClientFactory.withScope(scope, client));
        var segments = batch.getSegments(stream(stream), from, to).getIterator();
        while (segments.hasNext()) {
            SegmentRange range = segments.next();
            try (SegmentIterator<T> iterator = batch.readSegment(range, serializer)) {
                iterator.forEachRemaining(read::add);
            }
        }
        return read;
    }

    /** All events of a stream of texts. */
    protected List<String> readSegments(String stream) {
        return readSegments(stream, TEXT, StreamCut.UNBOUNDED, StreamCut.UNBOUNDED);
    }

    /** The end of a stream, now. */
    protected StreamCut tail(String stream) throws Exception {
        return within(streams.fetchStreamInfo(scope, stream)).getTailStreamCut();
    }

    /** Replaces all segments by `segments` equal ones and waits until that is done. */
    protected void scale(String stream, int segments) throws Exception {
        List<Long> now = new ArrayList<>();
        within(controller.getCurrentSegments(scope, stream)).getSegments().forEach(s -> now.add(s.getSegmentId()));
        Map<Double, Double> ranges = new HashMap<>();
        for (int i = 0; i < segments; i++) {
            ranges.put(i / (double) segments, i + 1 == segments ? 1.0 : (i + 1) / (double) segments);
        }
        assertTrue(within(controller.scaleStream(stream(stream), now, ranges, executor).getFuture()), "scaled");
        assertEquals(segments, within(controller.getCurrentSegments(scope, stream)).getNumberOfSegments());
    }

    static <T> T within(CompletableFuture<T> future) throws Exception {
        return future.get(LIMIT.toSeconds(), TimeUnit.SECONDS);
    }

    /** Asks until it is so. */
    static void until(String what, Duration limit, Callable<Boolean> so) throws Exception {
        long end = System.nanoTime() + limit.toNanos();
        while (!so.call()) {
            assertTrue(System.nanoTime() < end, "waited " + limit + " until " + what);
            Thread.sleep(50);
        }
    }
}
