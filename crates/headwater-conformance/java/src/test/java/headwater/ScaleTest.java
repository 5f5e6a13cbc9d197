package headwater;

import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.StreamConfiguration;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Order;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

import static org.junit.jupiter.api.Assertions.assertTrue;

@Order(1)
@DisplayName("scaling")
class ScaleTest extends InScope {
    private static final int KEYS = 24;

    @Test
    @DisplayName("writers follow splits and merges and keep the order of every key")
    void writers() throws Exception {
        createStream("s", 1);
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT, patient()));
        AtomicBoolean stop = new AtomicBoolean();
        CompletableFuture<Integer> writing = CompletableFuture.supplyAsync(() -> {
            List<CompletableFuture<Void>> acknowledged = new ArrayList<>();
            int number = 0;
            while (!stop.get()) {
                for (int key = 0; key < KEYS; key++) {
                    acknowledged.add(writer.writeEvent("key-" + key, event(key, number)));
                }
                number++;
                if (acknowledged.size() > 10_000) {
                    acknowledged.removeIf(one -> one.isDone() && one.join() == null);
                }
            }
            writer.flush();
            acknowledged.forEach(CompletableFuture::join);
            return number;
        }, executor);
        for (int segments : new int[] {5, 1, 8, 3}) {
            Thread.sleep(200);
            scale("s", segments);
        }
        Thread.sleep(200);
        stop.set(true);
        int count = within(writing);
        assertTrue(count > 100, count + " events of each key are no load");
        assertComplete(readSegments("s"), KEYS, count);
    }

    /** By the server's rule in 45 s: the load is many times the target in eight of its looks in a row. */
    @Test
    @DisplayName("a stream by rate splits by itself under a lasting overload: every event once, in order per key")
    @Timeout(value = 150, unit = TimeUnit.SECONDS)
    void byLoad() throws Exception {
        assertTrue(streams.createStream(scope, "s", StreamConfiguration.builder()
            .scalingPolicy(ScalingPolicy.byEventRate(10, 2, 1)).build()));
        EventStreamWriter<String> writer = open(events().createEventWriter("s", TEXT, patient()));
        List<CompletableFuture<Void>> acknowledged = new ArrayList<>();
        AtomicInteger count = new AtomicInteger();
        Runnable round = () -> {
            int number = count.getAndIncrement();
            for (int key = 0; key < KEYS; key++) {
                acknowledged.add(writer.writeEvent("key-" + key, event(key, number)));
            }
        };
        until("it splits", Duration.ofSeconds(120), () -> {
            round.run();
            Thread.sleep(50);
            return within(controller.getCurrentSegments(scope, "s")).getNumberOfSegments() > 1;
        });
        for (int more = 0; more < 20; more++) {
            round.run();
        }
        for (CompletableFuture<Void> one : acknowledged) {
            within(one);
        }
        assertComplete(readSegments("s"), KEYS, count.get());
    }
}
