package headwater;

import io.pravega.client.ByteStreamClientFactory;
import io.pravega.client.byteStream.ByteStreamReader;
import io.pravega.client.byteStream.ByteStreamWriter;
import java.io.IOException;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("byte streams")
class ByteStreamTest extends InScope {
    private static final byte[] BYTES = EventWriterTest.noise(5 * 1024 * 1024, 7);

    private ByteStreamClientFactory bytes;

    @BeforeEach
    void openStream() {
        createStream("b", 1);
        bytes = open(ByteStreamClientFactory.withScope(scope, client));
    }

    @Test
    @DisplayName("bytes written singly and in bulk come back, also from the middle")
    void seek() throws Exception {
        try (ByteStreamWriter writer = bytes.createByteStreamWriter("b")) {
            for (int i = 0; i < 5_000; i++) {
                writer.write(BYTES[i]);
            }
            writer.write(BYTES, 5_000, BYTES.length - 5_000);
            writer.flush();
            assertEquals(BYTES.length, writer.fetchTailOffset());
        }
        try (ByteStreamReader reader = bytes.createByteStreamReader("b")) {
            assertArrayEquals(BYTES, exactly(reader, BYTES.length));
            assertEquals(BYTES.length, reader.getOffset());
            reader.seekToOffset(1_234_567);
            assertEquals(BYTES[1_234_567] & 0xff, reader.read());
            assertEquals(1_000_000, reader.skip(1_000_000));
            assertArrayEquals(Arrays.copyOfRange(BYTES, 2_234_568, 2_334_568), exactly(reader, 100_000));
            assertEquals(0, reader.fetchHeadOffset());
            assertEquals(BYTES.length, reader.fetchTailOffset());
        }
    }

    @Test
    @DisplayName("a second writer goes on where the first ended")
    void append() throws Exception {
        for (int part = 0; part < 4; part++) {
            try (ByteStreamWriter writer = bytes.createByteStreamWriter("b")) {
                writer.write(BYTES, part * 1_000, 1_000);
            }
        }
        try (ByteStreamReader reader = bytes.createByteStreamReader("b")) {
            assertArrayEquals(Arrays.copyOf(BYTES, 4_000), exactly(reader, 4_000));
        }
    }

    @Test
    @DisplayName("a reader at the tail gets what comes")
    void tail() throws Exception {
        try (ByteStreamWriter writer = bytes.createByteStreamWriter("b");
             ByteStreamReader reader = bytes.createByteStreamReader("b")) {
            CompletableFuture<byte[]> read = CompletableFuture.supplyAsync(() -> {
                try {
                    return exactly(reader, 3_000);
                } catch (IOException error) {
                    throw new IllegalStateException(error);
                }
            }, executor);
            for (int part = 0; part < 3; part++) {
                Thread.sleep(150);
                assertTrue(!read.isDone(), "nobody reads what was not written");
                writer.write(BYTES, part * 1_000, 1_000);
                writer.flush();
            }
            assertArrayEquals(Arrays.copyOf(BYTES, 3_000), within(read));
        }
    }

    @Test
    @DisplayName("what was truncated is gone, the rest keeps its offsets")
    void truncate() throws Exception {
        try (ByteStreamWriter writer = bytes.createByteStreamWriter("b")) {
            writer.write(BYTES, 0, 100_000);
            writer.flush();
            writer.truncateDataBefore(40_000);
            assertEquals(40_000, writer.fetchHeadOffset());
            writer.write(BYTES, 100_000, 10);
            writer.flush();
            assertEquals(100_010, writer.fetchTailOffset());
        }
        try (ByteStreamReader reader = bytes.createByteStreamReader("b")) {
            assertEquals(40_000, reader.fetchHeadOffset());
            reader.seekToOffset(40_000);
            assertArrayEquals(Arrays.copyOfRange(BYTES, 40_000, 100_010), exactly(reader, 60_010));
        }
        try (ByteStreamReader reader = bytes.createByteStreamReader("b")) {
            reader.seekToOffset(10);
            assertThrows(IOException.class, () -> reader.read(new byte[10]));
        }
    }

    @Test
    @DisplayName("a sealed one ends")
    void seal() throws Exception {
        ByteStreamWriter writer = bytes.createByteStreamWriter("b");
        writer.write(BYTES, 0, 10_000);
        writer.closeAndSeal();
        try (ByteStreamReader reader = bytes.createByteStreamReader("b")) {
            assertArrayEquals(Arrays.copyOf(BYTES, 10_000), exactly(reader, 10_000));
            assertEquals(-1, reader.read(new byte[1]));
            assertEquals(-1, reader.read());
        }
    }

    @Test
    @DisplayName("a reader is told how much there is to read as soon as there is, and a writer when all is stored")
    void told() throws Exception {
        ByteStreamWriter writer = bytes.createByteStreamWriter("b");
        try (ByteStreamReader reader = bytes.createByteStreamReader("b")) {
            CompletableFuture<Integer> something = reader.onDataAvailable();
            Thread.sleep(150);
            assertFalse(something.isDone(), "nothing was written");
            assertEquals(0, reader.available());
            writer.write(BYTES, 0, 3_000);
            within(writer.flushAsync());
            assertEquals(3_000, reader.fetchTailOffset());
            assertTrue(within(something) > 0, "bytes are there");
            for (int read = 0; read < 3_000; ) {
                // Not by what tells of data: if all of it came between the two, the client would wait for what comes after.
                until("bytes are there", LIMIT, () -> reader.available() != 0);
                int ready = reader.available();
                assertTrue(ready > 0 && ready <= 3_000 - read, ready + " bytes at " + read);
                assertArrayEquals(Arrays.copyOfRange(BYTES, read, read + ready), exactly(reader, ready));
                read += ready;
            }
            assertEquals(0, reader.available());
            CompletableFuture<Integer> end = reader.onDataAvailable();
            writer.closeAndSeal();
            assertEquals(-1, within(end));
            assertEquals(-1, reader.available());
        }
    }

    /** As many as asked for, in as many reads as it takes. */
    static byte[] exactly(ByteStreamReader reader, int count) throws IOException {
        byte[] read = new byte[count];
        int filled = 0;
        while (filled < count) {
            int more = reader.read(read, filled, count - filled);
            assertTrue(more > 0, more + " bytes read at " + filled + " of " + count);
            filled += more;
        }
        return read;
    }
}
