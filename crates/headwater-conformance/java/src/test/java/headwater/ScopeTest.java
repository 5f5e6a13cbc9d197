package headwater;

import io.pravega.client.admin.KeyValueTableManager;
import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.ReaderGroupConfig;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.Stream;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.client.tables.KeyValueTableConfiguration;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("whole scopes")
class ScopeTest extends InScope {
    private static final StreamConfiguration ONE =
        StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(1)).build();

    /** A scope with open and sealed streams, a group and a table. */
    private String full() {
        String full = scope + "-full";
        assertTrue(streams.createScope(full));
        for (int i = 0; i < 5; i++) {
            assertTrue(streams.createStream(full, "s-" + i, ONE));
        }
        assertTrue(streams.sealStream(full, "s-0"));
        ReaderGroupManager groups = open(ReaderGroupManager.withScope(full, client));
        assertTrue(groups.createReaderGroup("g", ReaderGroupConfig.builder().stream(Stream.of(full, "s-1")).build()));
        KeyValueTableManager tables = open(KeyValueTableManager.create(client));
        assertTrue(tables.createKeyValueTable(full, "t",
            KeyValueTableConfiguration.builder().partitionCount(1).primaryKeyLength(4).build()));
        return full;
    }

    private void assertGone(String full) {
        assertFalse(streams.checkScopeExists(full));
        assertFalse(streams.checkStreamExists(full, "s-3"));
        assertTrue(streams.createScope(full), "its name is free");
        assertFalse(streams.listStreams(full).hasNext());
        assertTrue(streams.deleteScope(full), "it is empty");
    }

    @Test
    @DisplayName("a scope is deleted with everything in it")
    void recursive() throws Exception {
        String full = full();
        assertTrue(streams.deleteScopeRecursive(full));
        assertGone(full);
        assertTrue(streams.deleteScopeRecursive(full), "one that does not exist is gone as well");
    }

    @Test
    @DisplayName("a scope is deleted by force, the older way")
    @SuppressWarnings("deprecation")
    void forced() throws Exception {
        String full = full();
        assertTrue(streams.deleteScope(full, true));
        assertGone(full);
    }
}
