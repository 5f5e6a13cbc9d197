package headwater;

import io.pravega.client.KeyValueTableFactory;
import io.pravega.client.admin.KeyValueTableInfo;
import io.pravega.client.admin.KeyValueTableManager;
import io.pravega.client.tables.BadKeyVersionException;
import io.pravega.client.tables.Insert;
import io.pravega.client.tables.IteratorItem;
import io.pravega.client.tables.KeyValueTable;
import io.pravega.client.tables.KeyValueTableClientConfiguration;
import io.pravega.client.tables.KeyValueTableConfiguration;
import io.pravega.client.tables.KeyValueTableIterator;
import io.pravega.client.tables.Put;
import io.pravega.client.tables.Remove;
import io.pravega.client.tables.TableEntry;
import io.pravega.client.tables.TableKey;
import io.pravega.client.tables.TableModification;
import io.pravega.client.tables.Version;
import io.pravega.common.util.AsyncIterator;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.function.IntPredicate;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("key-value tables")
class KeyValueTableTest extends InScope {
    private static final int PRIMARY = 40;
    private static final int SECONDARY = 10;
    private static final KeyValueTableConfiguration CONFIG = KeyValueTableConfiguration.builder()
        .partitionCount(4).primaryKeyLength(4).secondaryKeyLength(4).rolloverSizeBytes(1 << 20).build();

    private KeyValueTableManager tables;

    @BeforeEach
    void openTables() {
        tables = open(KeyValueTableManager.create(client));
    }

    private KeyValueTable table() {
        assertTrue(tables.createKeyValueTable(scope, "t", CONFIG));
        return handle("t");
    }

    private KeyValueTable handle(String name) {
        KeyValueTableFactory factory = open(KeyValueTableFactory.withScope(scope, client));
        return open(factory.forKeyValueTable(name, KeyValueTableClientConfiguration.builder().build()));
    }

    private static ByteBuffer number(int value) {
        return ByteBuffer.allocate(4).putInt(0, value);
    }

    private static TableKey key(int primary, int secondary) {
        return new TableKey(number(primary), number(secondary));
    }

    private static ByteBuffer text(String text) {
        return ByteBuffer.wrap(text.getBytes(java.nio.charset.StandardCharsets.UTF_8));
    }

    private static String read(KeyValueTable table, TableKey key) throws Exception {
        TableEntry entry = within(table.get(key));
        return entry == null ? null : java.nio.charset.StandardCharsets.UTF_8.decode(entry.getValue()).toString();
    }

    private static <T> void refused(Class<? extends Exception> how, CompletableFuture<T> update) {
        ExecutionException error = assertThrows(ExecutionException.class, () -> within(update));
        Throwable cause = error.getCause();
        while (cause instanceof java.util.concurrent.CompletionException && cause.getCause() != null) {
            cause = cause.getCause();
        }
        assertEquals(how, cause.getClass());
    }

    @Test
    @DisplayName("tables are created once, listed, deleted and made anew")
    void life() throws Exception {
        assertTrue(tables.createKeyValueTable(scope, "t", CONFIG));
        assertFalse(tables.createKeyValueTable(scope, "t", CONFIG));
        assertTrue(tables.createKeyValueTable(scope, "u", CONFIG));
        assertEquals(CONFIG, within(controller.getKeyValueTableConfiguration(scope, "t")));
        Set<String> listed = new TreeSet<>();
        tables.listKeyValueTables(scope).forEachRemaining((KeyValueTableInfo info) -> {
            assertEquals(scope, info.getScope());
            assertTrue(listed.add(info.getKeyValueTableName()));
        });
        assertEquals(Set.of("t", "u"), listed);
        assertThrows(IllegalStateException.class, () -> streams.deleteScope(scope), "not empty");
        within(handle("t").update(new Put(key(1, 1), text("old"))));
        assertTrue(tables.deleteKeyValueTable(scope, "t"));
        assertFalse(tables.deleteKeyValueTable(scope, "t"));
        assertTrue(tables.createKeyValueTable(scope, "t", CONFIG));
        assertNull(within(handle("t").get(key(1, 1))));
        assertThrows(IllegalArgumentException.class, () -> tables.createKeyValueTable("no-such-scope", "t", CONFIG));
    }

    @Test
    @DisplayName("entries are put, replaced, got one by one and together, and removed")
    void entries() throws Exception {
        KeyValueTable table = table();
        assertNull(within(table.get(key(1, 1))));
        assertFalse(within(table.exists(key(1, 1))));
        Version first = within(table.update(new Put(key(1, 1), text("one"))));
        assertEquals("one", read(table, key(1, 1)));
        assertTrue(within(table.exists(key(1, 1))));
        assertEquals(first, within(table.get(key(1, 1))).getVersion());
        Version second = within(table.update(new Put(key(1, 1), text("two"))));
        assertNotEquals(first, second);
        assertEquals("two", read(table, key(1, 1)));
        within(table.update(new Put(key(2, 1), text(""))));
        assertEquals("", read(table, key(2, 1)));
        byte[] greatest = EventWriterTest.noise(KeyValueTable.MAXIMUM_VALUE_LENGTH, 5);
        within(table.update(new Put(key(3, 1), ByteBuffer.wrap(greatest))));
        assertEquals(ByteBuffer.wrap(greatest), within(table.get(key(3, 1))).getValue());
        List<TableEntry> all = within(table.getAll(List.of(key(2, 1), key(9, 9), key(1, 1))));
        assertEquals(3, all.size());
        assertEquals(key(2, 1), all.get(0).getKey());
        assertNull(all.get(1));
        assertEquals(second, all.get(2).getVersion());
        within(table.update(new Remove(key(1, 1))));
        assertNull(within(table.get(key(1, 1))));
        // Nothing is there to be removed, and that is fine.
        within(table.update(new Remove(key(1, 1))));
    }

    @Test
    @DisplayName("conditions hold: insert, put and remove at a version")
    void conditions() throws Exception {
        KeyValueTable table = table();
        Version one = within(table.update(new Insert(key(1, 1), text("one"))));
        refused(BadKeyVersionException.class, table.update(new Insert(key(1, 1), text("again"))));
        refused(BadKeyVersionException.class, table.update(new Put(key(1, 1), text("again"), Version.NOT_EXISTS)));
        Version two = within(table.update(new Put(key(1, 1), text("two"), one)));
        refused(BadKeyVersionException.class, table.update(new Put(key(1, 1), text("stale"), one)));
        refused(BadKeyVersionException.class, table.update(new Remove(key(1, 1), one)));
        assertEquals("two", read(table, key(1, 1)));
        assertEquals(two, Version.fromString(two.toString()));
        within(table.update(new Put(key(1, 1), text("three"), Version.NO_VERSION)));
        Version three = within(table.get(key(1, 1))).getVersion();
        within(table.update(new Remove(key(1, 1), three)));
        // Not NoSuchKeyException: tables of keys of one length tell a missing key by its version only.
        refused(BadKeyVersionException.class, table.update(new Remove(key(1, 1), three)));
        refused(BadKeyVersionException.class, table.update(new Put(key(1, 1), text("four"), three)));
        assertNotNull(within(table.update(new Put(key(1, 1), text("five"), Version.NOT_EXISTS))));
        assertEquals("five", read(table, key(1, 1)));
    }

    @Test
    @DisplayName("several entries of one primary key change together or not at all")
    void together() throws Exception {
        KeyValueTable table = table();
        List<TableModification> inserts = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            inserts.add(new Insert(key(7, i), text("value " + i)));
        }
        List<Version> versions = within(table.update(inserts));
        assertEquals(20, versions.size());
        for (int i = 0; i < 20; i++) {
            TableEntry entry = within(table.get(key(7, i)));
            assertEquals(versions.get(i), entry.getVersion());
            assertEquals(text("value " + i), entry.getValue());
        }
        refused(BadKeyVersionException.class, table.update(List.<TableModification>of(
            new Put(key(7, 0), text("changed")), new Insert(key(7, 100), text("new")), new Insert(key(7, 1), text("there")))));
        assertEquals("value 0", read(table, key(7, 0)));
        assertNull(within(table.get(key(7, 100))));
        within(table.update(List.<TableModification>of(new Put(key(7, 0), text("changed"), versions.get(0)),
            new Insert(key(7, 100), text("new")), new Put(key(7, 1), text("also")))));
        assertEquals(List.of("changed", "new", "also"),
            List.of(read(table, key(7, 0)), read(table, key(7, 100)), read(table, key(7, 1))));
        refused(BadKeyVersionException.class, table.update(List.<TableModification>of(
            new Remove(key(7, 2), versions.get(2)), new Remove(key(7, 0), versions.get(0)))));
        assertEquals("value 2", read(table, key(7, 2)));
        within(table.update(List.<TableModification>of(new Remove(key(7, 2), versions.get(2)), new Remove(key(7, 0)))));
        assertNull(within(table.get(key(7, 0))));
        assertNull(within(table.get(key(7, 2))));
    }

    @Test
    @DisplayName("clients that count by comparing versions lose nothing")
    void races() throws Exception {
        table();
        List<CompletableFuture<Void>> running = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            KeyValueTable mine = handle("t");
            running.add(CompletableFuture.runAsync(() -> {
                for (int done = 0; done < 25; ) {
                    TableEntry now = mine.get(key(0, 0)).join();
                    TableModification next = now == null
                        ? new Insert(key(0, 0), number(1))
                        : new Put(key(0, 0), number(now.getValue().getInt(0) + 1), now.getVersion());
                    if (mine.update(next).handle((version, error) -> error == null).join()) {
                        done++;
                    }
                }
            }, executor));
        }
        for (CompletableFuture<Void> one : running) {
            within(one);
        }
        assertEquals(number(100), within(handle("t").get(key(0, 0))).getValue());
    }

    @Test
    @DisplayName("iterators go over all partitions in the order of the keys")
    void all() throws Exception {
        KeyValueTable table = filled();
        expect(table.iterator().maxIterationSize(7).all(), 7, primary -> true, secondary -> true);
        expect(table.iterator().maxIterationSize(1_000).all(), 1_000, primary -> true, secondary -> true);
    }

    @Test
    @DisplayName("iterators keep to a range and to a prefix of primary keys")
    void primaries() throws Exception {
        KeyValueTable table = filled();
        expect(table.iterator().maxIterationSize(9).forRange(number(5), number(17)), 9, p -> p >= 5 && p <= 17, s -> true);
        expect(table.iterator().maxIterationSize(9).forRange(null, number(17)), 9, p -> p <= 17, s -> true);
        expect(table.iterator().maxIterationSize(9).forRange(number(33), null), 9, p -> p >= 33, s -> true);
        // The first three bytes of all the numbers are zero.
        expect(table.iterator().maxIterationSize(50).forPrefix(ByteBuffer.wrap(new byte[3])), 50, p -> true, s -> true);
        expect(table.iterator().maxIterationSize(50).forPrefix(ByteBuffer.wrap(new byte[] {1})), 50, p -> false, s -> true);
        expect(table.iterator().maxIterationSize(50).forPrefix(number(3)), 50, p -> p == 3, s -> true);
    }

    @Test
    @DisplayName("iterators keep to one primary key and to its secondary ones")
    void secondaries() throws Exception {
        KeyValueTable table = filled();
        expect(table.iterator().maxIterationSize(3).forPrimaryKey(number(8)), 3, p -> p == 8, s -> true);
        expect(table.iterator().maxIterationSize(3).forPrimaryKey(number(8), number(2), number(6)), 3, p -> p == 8,
            s -> s >= 2 && s <= 6);
        expect(table.iterator().maxIterationSize(3).forPrimaryKey(number(8), number(4)), 3, p -> p == 8, s -> s == 4);
        expect(table.iterator().maxIterationSize(3).forPrimaryKey(number(8), ByteBuffer.wrap(new byte[2])), 3,
            p -> p == 8, s -> true);
        expect(table.iterator().maxIterationSize(3).forPrimaryKey(number(99)), 3, p -> false, s -> true);
    }

    @Test
    @DisplayName("a table without secondary keys")
    void primaryOnly() throws Exception {
        assertTrue(tables.createKeyValueTable(scope, "p",
            KeyValueTableConfiguration.builder().partitionCount(1).primaryKeyLength(8).secondaryKeyLength(0).build()));
        KeyValueTable table = handle("p");
        List<ByteBuffer> keys = new ArrayList<>();
        for (long i = 0; i < 50; i++) {
            // Bytes above 127 sort behind the others.
            keys.add(ByteBuffer.allocate(8).putLong(0, i * 0x0505050505050505L));
        }
        for (int i = keys.size() - 1; i >= 0; i--) {
            within(table.update(new Insert(new TableKey(keys.get(i)), number(i))));
        }
        List<ByteBuffer> seen = new ArrayList<>();
        for (TableEntry entry : collect(table.iterator().maxIterationSize(6).all().entries(), 6)) {
            assertEquals(number(seen.size()), entry.getValue());
            seen.add(entry.getKey().getPrimaryKey());
        }
        assertEquals(keys, seen);
        assertThrows(IllegalArgumentException.class, () -> table.get(key(1, 1)), "the client checks the lengths");
    }

    /** Entries of 40 primary keys with 10 secondary keys each; the value says which. */
    private KeyValueTable filled() throws Exception {
        KeyValueTable table = table();
        List<CompletableFuture<?>> updates = new ArrayList<>();
        for (int primary = PRIMARY - 1; primary >= 0; primary--) {
            List<TableModification> entries = new ArrayList<>();
            for (int secondary = SECONDARY - 1; secondary >= 0; secondary--) {
                entries.add(new Put(key(primary, secondary), text(primary + "/" + secondary)));
            }
            updates.add(table.update(entries));
        }
        for (CompletableFuture<?> update : updates) {
            within(update);
        }
        return table;
    }

    private static void expect(KeyValueTableIterator iterator, int atOnce, IntPredicate primaries, IntPredicate secondaries)
        throws Exception {
        List<String> expected = new ArrayList<>();
        List<TableKey> keys = new ArrayList<>();
        for (int primary = 0; primary < PRIMARY; primary++) {
            for (int secondary = 0; secondary < SECONDARY; secondary++) {
                if (primaries.test(primary) && secondaries.test(secondary)) {
                    expected.add(primary + "/" + secondary);
                    keys.add(key(primary, secondary));
                }
            }
        }
        assertEquals(keys, collect(iterator.keys(), atOnce));
        List<String> values = new ArrayList<>();
        for (TableEntry entry : collect(iterator.entries(), atOnce)) {
            assertEquals(keys.get(values.size()), entry.getKey());
            values.add(java.nio.charset.StandardCharsets.UTF_8.decode(entry.getValue()).toString());
        }
        assertEquals(expected, values);
    }

    private static <T> List<T> collect(AsyncIterator<IteratorItem<T>> iterator, int atOnce) throws Exception {
        List<T> items = new ArrayList<>();
        for (IteratorItem<T> next = within(iterator.getNext()); next != null; next = within(iterator.getNext())) {
            assertTrue(next.getItems().size() <= atOnce, next.getItems().size() + " at once");
            items.addAll(next.getItems());
        }
        return items;
    }
}
