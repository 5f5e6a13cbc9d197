package headwater;

import io.pravega.client.ClientConfig;
import io.pravega.client.EventStreamClientFactory;
import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.admin.StreamManager;
import io.pravega.client.stream.EventRead;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.EventWriterConfig;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroupConfig;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.Serializer;
import io.pravega.client.stream.Stream;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.client.stream.impl.ByteBufferSerializer;
import java.io.IOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.Semaphore;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;

/** The client's part in {@code headwater bench clients}: writes as fast as it can, then at a rate, and reads from memory. */
final class Load {
    private static final Serializer<ByteBuffer> BYTES = new ByteBufferSerializer();
    private static final int READINGS = 5;

    private final Map<String, String> options;
    private final String scope;
    private final String stream;
    private final int size;
    private final byte[] event;
    private final EventStreamClientFactory factory;
    private final AtomicReference<Throwable> failure = new AtomicReference<>();

    private Load(Map<String, String> options, EventStreamClientFactory factory) {
        this.options = options;
        this.factory = factory;
        scope = options.get("--scope");
        stream = options.get("--stream");
        size = (int) number("--size", 1024);
        event = new byte[size];
        new Random(5).nextBytes(event);
    }

    public static void main(String[] words) throws Exception {
        if (words.length % 2 != 1 || !words[0].equals("load")) {
            System.err.println("usage: load --controller HOST:PORT --scope S --stream S [--size N] [--seconds N] …");
            System.exit(2);
        }
        Map<String, String> options = new HashMap<>();
        for (int i = 1; i < words.length; i += 2) {
            options.put(words[i], words[i + 1]);
        }
        URI address = URI.create("tcp://" + options.get("--controller"));
        ClientConfig config = ClientConfig.builder().controllerURI(address).build();
        String scope = options.get("--scope");
        String stream = options.get("--stream");
        StreamConfiguration one = StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(1)).build();
        try (StreamManager streams = StreamManager.create(config);
                ReaderGroupManager groups = ReaderGroupManager.withScope(scope, config);
                EventStreamClientFactory factory = EventStreamClientFactory.withScope(scope, config)) {
            streams.createScope(scope);
            if (!streams.createStream(scope, stream, one) || !streams.createStream(scope, stream + "-read", one)) {
                throw new IllegalStateException(stream + " exists");
            }
            System.out.println(new Load(options, factory).run(groups));
        }
        // The client's threads may live on.
        System.exit(0);
    }

    private double number(String option, double otherwise) {
        String text = options.get(option);
        return text == null ? otherwise : Double.parseDouble(text);
    }

    private String run(ReaderGroupManager groups) throws Exception {
        Latencies write = new Latencies();
        Latencies rate = new Latencies();
        long[] written = {0};
        atRate(rate, written);
        double perSecond = asFastAsItCan(write, written);
        long count = (((long) number("--read-mib", 64) << 20) + size - 1) / size;
        double readPerSecond = read(groups, count);
        if (failure.get() != null) {
            throw new IllegalStateException("an event was not stored", failure.get());
        }
        return String.format(
                "{\"written\":%d,\"write_events_per_second\":%.3f,\"write_p50_us\":%.3f,\"write_p99_us\":%.3f,"
                        + "\"rate_p50_us\":%.3f,\"rate_p99_us\":%.3f,\"read\":%d,\"read_events_per_second\":%.3f,"
                        + "\"resident_bytes\":%d}",
                written[0], perSecond, write.at(0.5), write.at(0.99), rate.at(0.5), rate.at(0.99), count, readPerSecond,
                peakBytes());
    }

    private double asFastAsItCan(Latencies latencies, long[] written) throws Exception {
        int inFlight = (int) number("--in-flight", 20_000);
        Semaphore room = new Semaphore(inFlight);
        long warmup = (long) (number("--warmup", 1) * 1e9);
        long counted = (long) (number("--seconds", 3) * 1e9);
        Counter acknowledged = new Counter();
        try (EventStreamWriter<ByteBuffer> writer = writer(stream)) {
            long begun = System.nanoTime();
            long since = 0;
            long before = 0;
            while (true) {
                long now = System.nanoTime();
                if (since == 0 && now - begun >= warmup) {
                    since = now;
                    before = acknowledged.get();
                    acknowledged.latencies = latencies;
                }
                if (since != 0 && now - since >= counted) {
                    double rate = (acknowledged.get() - before) / ((now - since) / 1e9);
                    writer.flush();
                    return rate;
                }
                // In steps: looking at the clock for every event would be part of the figure.
                for (int i = 0; i < 256; i++) {
                    room.acquire();
                    writer.writeEvent("key", ByteBuffer.wrap(event)).whenComplete((done, error) -> {
                        acknowledged.add(System.nanoTime() - now, error);
                        room.release();
                    });
                    written[0]++;
                }
            }
        }
    }

    /** Latencies count from when an event was due. */
    private void atRate(Latencies latencies, long[] written) {
        double rate = number("--rate", 1000);
        long count = (long) Math.ceil(rate * number("--seconds", 3));
        Counter acknowledged = new Counter();
        acknowledged.latencies = latencies;
        try (EventStreamWriter<ByteBuffer> writer = writer(stream)) {
            long begun = System.nanoTime();
            for (long i = 0; i < count; i++) {
                long due = begun + (long) (i / rate * 1e9);
                for (long rest = due - System.nanoTime(); rest > 0; rest = due - System.nanoTime()) {
                    LockSupport.parkNanos(rest);
                }
                writer.writeEvent("key", ByteBuffer.wrap(event))
                        .whenComplete((done, error) -> acknowledged.add(System.nanoTime() - due, error));
                written[0]++;
            }
            writer.flush();
        }
    }

    /** Writes what fits into memory and reads it through groups of one reader: events per second. */
    private double read(ReaderGroupManager groups, long count) {
        String name = stream + "-read";
        try (EventStreamWriter<ByteBuffer> writer = writer(name)) {
            for (long i = 0; i < count; i++) {
                writer.writeEvent("key", ByteBuffer.wrap(event));
            }
            writer.flush();
        }
        double[] rates = new double[READINGS];
        for (int reading = 0; reading < READINGS; reading++) {
            String group = name + "-" + reading;
            groups.createReaderGroup(group, ReaderGroupConfig.builder().stream(Stream.of(scope, name)).build());
            try (EventStreamReader<ByteBuffer> reader =
                    factory.createReader("reader", group, BYTES, ReaderConfig.builder().build())) {
                long read = 0;
                long since = 0;
                while (read < count) {
                    EventRead<ByteBuffer> found = reader.readNextEvent(2000);
                    if (found.getEvent() != null) {
                        // Joining the group is not reading.
                        since = read++ == 0 ? System.nanoTime() : since;
                    }
                }
                rates[reading] = count / ((System.nanoTime() - since) / 1e9);
            }
        }
        Arrays.sort(rates);
        return rates[READINGS / 2];
    }

    private EventStreamWriter<ByteBuffer> writer(String name) {
        return factory.createEventWriter(name, BYTES, EventWriterConfig.builder().build());
    }

    private static long peakBytes() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("[^0-9]", "")) << 10;
            }
        }
        return 0;
    }

    /** Counts acknowledgements, and their latencies as soon as somewhere to put them is given. */
    private final class Counter {
        private long count;
        private volatile Latencies latencies;

        synchronized void add(long nanos, Throwable error) {
            if (error != null) {
                failure.compareAndSet(null, error);
                return;
            }
            count++;
            if (latencies != null) {
                latencies.add(nanos);
            }
        }

        synchronized long get() {
            return count;
        }
    }

    /** Only one thread adds at a time, and nobody looks before it is done. */
    private static final class Latencies {
        private long[] nanos = new long[1 << 16];
        private int count;

        void add(long latency) {
            if (count == nanos.length) {
                nanos = Arrays.copyOf(nanos, count * 2);
            }
            nanos[count++] = latency;
        }

        /** In microseconds. */
        double at(double quantile) {
            long[] sorted = Arrays.copyOf(nanos, count);
            Arrays.sort(sorted);
            return count == 0 ? 0 : sorted[(int) Math.min(count - 1, count * quantile)] / 1e3;
        }
    }
}
