package io.pravega.client.stream.impl;

import io.pravega.client.segment.impl.Segment;
import io.pravega.client.state.Revision;
import io.pravega.client.state.impl.RevisionImpl;
import io.pravega.client.stream.Stream;
import io.pravega.common.util.ByteArraySegment;
import java.io.DataOutputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;

/**
 * Writes down what the published Java client makes of a reader group's stream, and how it writes single objects.
 *
 * For each argument `x`, `x.rg` holds the bytes of the segment `_RG…/0.#epoch.0`. `x.states` gets, for each event in it, the
 * client's compacted state after that event: a length of four bytes, then the record. `objects.txt` gets the objects.
 */
public class Record {
    public static void main(String[] names) throws Exception {
        for (String name : names) {
            states(name);
        }
        objects();
    }

    private static Revision revision(long offset, int index) throws Exception {
        var constructor = RevisionImpl.class.getDeclaredConstructor(Segment.class, long.class, int.class);
        constructor.setAccessible(true);
        return constructor.newInstance(Segment.fromScopedName("s/_RGg/0.#epoch.0"), offset, index);
    }

    private static ByteArraySegment take(ByteBuffer from, int count) {
        byte[] bytes = new byte[count];
        from.get(bytes);
        return new ByteArraySegment(bytes);
    }

    private static void states(String name) throws Exception {
        var initials = new ReaderGroupState.ReaderGroupInitSerializer();
        var updates = new ReaderGroupState.ReaderGroupUpdateSerializer();
        ByteBuffer events = ByteBuffer.wrap(Files.readAllBytes(Path.of(name + ".rg")));
        ReaderGroupState state = null;
        try (var out = new DataOutputStream(Files.newOutputStream(Path.of(name + ".states")))) {
            while (events.hasRemaining()) {
                if (events.getInt() != 0) {
                    throw new IllegalStateException("no event at " + events.position());
                }
                int length = events.getInt();
                int end = events.position() + length;
                if (events.getInt() == 1) {
                    state = initials.deserialize(take(events, end - events.position())).create("s/_RGg", revision(end, 0));
                } else {
                    for (int index = 0; events.position() < end; index++) {
                        state = updates.deserialize(take(events, events.getInt())).applyTo(state, revision(end, index));
                    }
                }
                byte[] record = initials.serialize(new ReaderGroupState.CompactReaderGroupState(state)).getCopy();
                out.writeInt(record.length);
                out.write(record);
            }
        }
    }

    private static String hex(ByteBuffer bytes) {
        byte[] array = new byte[bytes.remaining()];
        bytes.duplicate().get(array);
        return HexFormat.of().formatHex(array);
    }

    private static void objects() throws Exception {
        Segment first = Segment.fromScopedName("scope/stream/0.#epoch.0");
        Segment second = Segment.fromScopedName("scope/stream/1.#epoch.1");
        var cut = new StreamCutImpl(Stream.of("scope/stream"), Map.of(first, 123_456_789_012L, second, -1L));
        var ranged = new SegmentWithRange(first, 0.25, 0.5);
        List<String> lines = new ArrayList<>();
        lines.add("cut " + hex(cut.toBytes()));
        lines.add("text " + cut.asText());
        lines.add("position " + hex(new PositionImpl(Map.of(ranged, 28L, new SegmentWithRange(second, null), -1L)).toBytes()));
        lines.add("pointer " + hex(new EventPointerImpl(first, 1L << 40, 70_000).toBytes()));
        lines.add("checkpoint " + hex(new CheckpointImpl("näme", Map.of(first, 5L, second, 6L)).toBytes()));
        var updates = new ReaderGroupState.ReaderGroupUpdateSerializer();
        for (boolean published : new boolean[] {true, false}) {
            var update = new ReaderGroupState.UpdateCheckpointPublished(published);
            lines.add("published-" + published + " " + HexFormat.of().formatHex(updates.serialize(update).getCopy()));
        }
        Files.write(Path.of("objects.txt"), lines);
    }
}
