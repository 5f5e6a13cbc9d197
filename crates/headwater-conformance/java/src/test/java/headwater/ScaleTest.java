package headwater;

import io.pravega.client.stream.EventStreamWriter;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertTrue;

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
}
