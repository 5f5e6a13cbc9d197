package headwater;

import io.pravega.client.stream.Checkpoint;
import io.pravega.client.stream.EventRead;
import io.pravega.client.stream.EventStreamReader;
import io.pravega.client.stream.EventStreamWriter;
import io.pravega.client.stream.Position;
import io.pravega.client.stream.ReaderGroup;
import io.pravega.client.stream.ReinitializationRequiredException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.parallel.Isolated;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

/**
 * Readers that join, leave and die, checkpoints, resets, splits and kills of the server, one after the other in an order of
 * chance, while events are written. No merges: readers of a group that was reset into the midst of one wait for ever for
 * a segment that was read before, which no server can help.
 */
@Isolated
@DisplayName("reader groups")
class GroupChurnTest extends InGroup {
    private static final Duration CHURN = Duration.ofSeconds(14);
    private static final int READERS_MAX = 4;
    private static final int SEGMENTS_MAX = 8;

    /** What was seen, in its order: an event of a key, a checkpoint by a reader, or something that happened to the group. */
    private record Seen(String reader, int key, int number, String what) {
        static Seen happened(String reader, String what) {
            return new Seen(reader, -1, -1, what);
        }
    }

    private final List<Seen> seen = Collections.synchronizedList(new ArrayList<>());
    private final Map<String, Member> members = new HashMap<>();
    /** Keys of the open segments. */
    private final Map<Long, double[]> ranges = new TreeMap<>();
    private final Random chance = new Random();
    private final AtomicBoolean enough = new AtomicBoolean();
    private ReaderGroup group;
    private int joined;

    /** A reader at work. */
    private final class Member {
        final String id;
        final EventStreamReader<String> reader;
        final CompletableFuture<Boolean> ended;
        private final AtomicBoolean stop = new AtomicBoolean();
        private volatile Position last;

        Member() {
            id = "r" + joined++;
            reader = open(reader(id));
            ended = CompletableFuture.supplyAsync(this::read, threads);
        }

        /** True at the end of the stream, false if it was stopped or the group was reset. */
        private boolean read() {
            while (!stop.get()) {
                EventRead<String> next;
                try {
                    next = reader.readNextEvent(200);
                } catch (ReinitializationRequiredException reset) {
                    return false;
                }
                last = next.getPosition();
                if (next.isCheckpoint()) {
                    seen.add(Seen.happened(id, next.getCheckpointName()));
                } else if (next.getEvent() != null) {
                    String[] parts = next.getEvent().split("/");
                    seen.add(new Seen(id, Integer.parseInt(parts[0]), Integer.parseInt(parts[1]), null));
                } else if (next.isReadCompleted()) {
                    return true;
                }
            }
            return false;
        }

        void stop() throws Exception {
            stop.set(true);
            ended.get(60, TimeUnit.SECONDS);
        }
    }

    private Member any() {
        List<Member> all = new ArrayList<>(members.values());
        return all.get(chance.nextInt(all.size()));
    }

    private void join() {
        Member member = new Member();
        members.put(member.id, member);
    }

    private void leave() throws Exception {
        Member member = any();
        member.stop();
        member.reader.close();
        members.remove(member.id);
        seen.add(Seen.happened(member.id, "left"));
    }

    /** It says nothing any more; somebody else says for the group that it is gone, and perhaps how far it was. */
    private void die(boolean isPositionKnown) throws Exception {
        Member member = any();
        member.stop();
        Position last = isPositionKnown ? member.last : null;
        members.remove(member.id);
        seen.add(Seen.happened(member.id, last == null ? "back" : "left"));
        group.readerOffline(member.id, last);
    }

    private Checkpoint checkpoint(String name) throws Exception {
        Checkpoint made = group.initiateCheckpoint(name, executor).get(60, TimeUnit.SECONDS);
        seen.add(Seen.happened(null, name));
        return made;
    }

    private void reset(Checkpoint to) throws Exception {
        // Until they look at the group again they hand out what is not theirs any more.
        members.keySet().forEach(id -> seen.add(Seen.happened(id, "gone")));
        members.clear();
        seen.add(Seen.happened(null, "back"));
        if (to == null) {
            group.resetReaderGroup();
        } else {
            group.resetReaderGroup(checkpointing().startFromCheckpoint(to).build());
        }
        join();
        join();
    }

    /** Halves one of the segments. */
    private void split() throws Exception {
        if (ranges.size() == SEGMENTS_MAX) {
            return;
        }
        List<Long> current = new ArrayList<>(ranges.keySet());
        long sealed = current.get(chance.nextInt(current.size()));
        double[] range = ranges.remove(sealed);
        double middle = (range[0] + range[1]) / 2;
        Map<Double, Double> halves = Map.of(range[0], middle, middle, range[1]);
        assertTrue(within(controller.scaleStream(stream("s"), List.of(sealed), halves, executor).getFuture()), "scaled");
        // The lower half has the lower number.
        List<Long> made = segments();
        made.removeAll(ranges.keySet());
        assertEquals(2, made.size());
        ranges.put(made.get(0), new double[] {range[0], middle});
        ranges.put(made.get(1), new double[] {middle, range[1]});
    }

    private List<Long> segments() throws Exception {
        var current = within(controller.getCurrentSegments(scope, "s")).getSegments().stream();
        return new ArrayList<>(current.map(segment -> segment.getSegmentId()).sorted().toList());
    }

    /** Writes events of all keys until it is enough. Returns how many of each. */
    private int write() {
        try (EventStreamWriter<String> writer = events().createEventWriter("s", TEXT, patient())) {
            List<CompletableFuture<Void>> acknowledged = new ArrayList<>();
            int number = 0;
            for (; !enough.get(); number++) {
                for (int key = 0; key < KEYS; key++) {
                    acknowledged.add(writer.writeEvent("key-" + key, event(key, number)));
                }
                Thread.sleep(20);
            }
            for (CompletableFuture<Void> one : acknowledged) {
                one.get(60, TimeUnit.SECONDS);
            }
            return number;
        } catch (Exception error) {
            throw new IllegalStateException("an event was not stored", error);
        }
    }

    /**
     * Events of a key come one after the other without a gap. They come again only after a reset, or after a reader whose
     * position nobody knew, once each time, and from behind the last checkpoint that had been made by then.
     */
    private static void judge(List<Seen> seen, int count) {
        int[] last = filled();
        int[] floor = filled();
        int[] settled = filled();
        int[] since = filled();
        boolean[] mayGoBack = new boolean[KEYS];
        Map<String, int[]> ofReaders = new HashMap<>();
        Map<String, int[]> ofCheckpoints = new HashMap<>();
        List<String> gone = new ArrayList<>();
        for (Seen it : seen) {
            if (it.reader != null && gone.contains(it.reader)) {
                continue;
            }
            if (it.what == null) {
                int key = it.key;
                if (it.number != last[key] + 1) {
                    String what = it + " after " + last[key];
                    assertTrue(it.number <= last[key], "a gap: " + what);
                    assertTrue(mayGoBack[key], "again, and nothing has happened: " + what);
                    assertTrue(it.number > since[key], "again, from before the checkpoint behind " + since[key] + ": " + what);
                    mayGoBack[key] = false;
                }
                last[key] = it.number;
                ofReaders.computeIfAbsent(it.reader, reader -> filled())[key] = it.number;
                continue;
            }
            switch (it.what) {
                case "gone" -> gone.add(it.reader);
                case "left" -> {
                    raise(settled, ofReaders.getOrDefault(it.reader, filled()));
                    gone.add(it.reader);
                }
                case "back" -> {
                    for (int key = 0; key < KEYS; key++) {
                        since[key] = mayGoBack[key] ? Math.min(since[key], floor[key]) : floor[key];
                        mayGoBack[key] = true;
                    }
                    settled = floor.clone();
                    if (it.reader != null) {
                        gone.add(it.reader);
                    }
                }
                default -> {
                    if (it.reader == null) {
                        // All readers have passed it.
                        floor = ofCheckpoints.getOrDefault(it.what, floor).clone();
                    } else {
                        // What it has read, and those who are gone, lies before it.
                        int[] before = settled.clone();
                        raise(before, ofReaders.getOrDefault(it.reader, filled()));
                        raise(ofCheckpoints.computeIfAbsent(it.what, name -> filled()), before);
                    }
                }
            }
        }
        int[] all = new int[KEYS];
        Arrays.fill(all, count - 1);
        assertEquals(Arrays.toString(all), Arrays.toString(last), "the last event of each key");
    }

    private static int[] filled() {
        int[] numbers = new int[KEYS];
        Arrays.fill(numbers, -1);
        return numbers;
    }

    private static void raise(int[] numbers, int[] to) {
        for (int i = 0; i < numbers.length; i++) {
            numbers[i] = Math.max(numbers[i], to[i]);
        }
    }

    @Test
    @Timeout(value = 170, unit = TimeUnit.SECONDS)
    @DisplayName("a group whose readers come, go and die misses nothing over checkpoints, resets, splits and two kills of the server")
    void churn() throws Exception {
        long seed = System.nanoTime() % 1_000_000;
        chance.setSeed(seed);
        createStream("s", 2);
        ranges.put(segments().get(0), new double[] {0, 0.5});
        ranges.put(segments().get(1), new double[] {0.5, 1});
        group = group(checkpointing().stream(stream("s")).build());
        CompletableFuture<Integer> writing = CompletableFuture.supplyAsync(this::write, threads);
        join();
        join();
        long end = System.nanoTime() + CHURN.toNanos();
        Checkpoint last = checkpoint("c0");
        int kills = 0;
        Map<String, Integer> done = new HashMap<>();
        for (int step = 1; System.nanoTime() < end; step++) {
            Thread.sleep(200 + chance.nextInt(300));
            // Both come in any case, early enough to be judged.
            int what = step == 5 ? 90 : step == 9 ? 55 : chance.nextInt(100);
            String said = "nothing";
            if (kills < 2 && end - System.nanoTime() < CHURN.toNanos() * (2 - kills) / 3) {
                RestartTest.restart();
                // The client's pauses after a kill are not part of the churn.
                kills++;
                end += Duration.ofSeconds(2).toNanos();
                said = "kill";
            } else if (members.size() < 2 || what < 25 && members.size() < READERS_MAX) {
                join();
                said = "join";
            } else if (what < 40) {
                leave();
                said = "leave";
            } else if (what < 60) {
                die(what < 50);
                said = what < 50 ? "die" : "die at an unknown position";
            } else if (what < 75) {
                last = checkpoint("c" + step);
                said = "checkpoint";
            } else if (what < 88) {
                split();
                said = "split";
            } else {
                // The last that was made by hand; by itself the group has made others since.
                reset(what < 94 ? last : null);
                said = "reset";
            }
            done.merge(said, 1, Integer::sum);
        }
        enough.set(true);
        int count = writing.get(60, TimeUnit.SECONDS);
        assertTrue(streams.sealStream(scope, "s"));
        for (Member member : members.values()) {
            assertTrue(member.ended.get(60, TimeUnit.SECONDS), "a reader comes to the end; seed " + seed);
        }
        try {
            judge(List.copyOf(seen), count);
        } catch (AssertionError error) {
            throw new AssertionError("seed " + seed + ": " + done, error);
        }
        assertTrue(count > 200 && kills == 2, count + " events of each key and " + kills + " kills are no churn");
    }
}
