package headwater;

import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.control.impl.ReaderGroupConfigRejectedException;
import io.pravega.client.stream.ConfigMismatchException;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.ReaderGroup;
import io.pravega.client.stream.ReaderGroupConfig;
import io.pravega.client.stream.ReaderGroupConfig.StreamDataRetention;
import io.pravega.client.stream.ReaderGroupNotFoundException;
import io.pravega.client.stream.StreamCut;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

@DisplayName("reader group manager and subscribers")
class ReaderGroupManagerTest extends InScope {
    private ReaderGroupManager groups;

    @BeforeEach
    void openGroups() {
        groups = open(ReaderGroupManager.withScope(scope, client));
    }

    private ReaderGroupConfig.ReaderGroupConfigBuilder config() {
        return InGroup.brisk().stream(stream("s"));
    }

    private List<String> subscribers() throws Exception {
        return within(controller.listSubscribers(scope, "s"));
    }

    @Test
    @DisplayName("groups are created, found, deleted and made anew")
    void life() throws Exception {
        createStream("s", 2);
        assertThrows(ReaderGroupNotFoundException.class, () -> groups.getReaderGroup("g"));
        assertTrue(groups.createReaderGroup("g", config().build()));
        assertTrue(groups.createReaderGroup("g", config().build()), "the same again; the client says true until a reset");
        ReaderGroupConfig first = within(controller.getReaderGroupConfig(scope, "g"));
        assertEquals(config().build(), first);
        assertEquals(0, first.getGeneration());
        ReaderGroup group = open(groups.getReaderGroup("g"));
        assertEquals("g", group.getGroupName());
        assertEquals(scope, group.getScope());
        write("s", 1, 0, 10);
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            until("an event is read", LIMIT, () -> reader.readNextEvent(1_000).getEvent() != null);
        }
        List<String> internal = new ArrayList<>();
        streams.listStreams(scope).forEachRemaining(stream -> internal.add(stream.getStreamName()));
        assertTrue(internal.contains("_RGg"), internal.toString());
        assertThrows(IllegalStateException.class, () -> streams.deleteScope(scope), "the group is in it");

        groups.deleteReaderGroup("g");
        assertThrows(ReaderGroupNotFoundException.class, () -> groups.getReaderGroup("g"));
        assertThrows(Exception.class, () -> groups.deleteReaderGroup("g"));
        assertTrue(groups.createReaderGroup("g", config().build()));
        assertNotEquals(first.getReaderGroupId(), within(controller.getReaderGroupConfig(scope, "g")).getReaderGroupId());
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            String[] read = new String[1];
            until("an event is read", LIMIT, () -> (read[0] = reader.readNextEvent(1_000).getEvent()) != null);
            assertEquals(event(0, 0), read[0], "the new group begins at the head");
        }
    }

    @Test
    @DisplayName("another configuration for a group that exists is refused")
    void mismatch() throws Exception {
        createStream("s", 2);
        ReaderGroupConfig full = config().automaticCheckpointIntervalMillis(7_000).maxOutstandingCheckpointRequest(5)
            .retentionType(StreamDataRetention.MANUAL_RELEASE_AT_USER_STREAMCUT).build();
        assertTrue(groups.createReaderGroup("g", full));
        assertEquals(full, within(controller.getReaderGroupConfig(scope, "g")));
        ConfigMismatchException thrown = assertThrows(ConfigMismatchException.class,
            () -> groups.createReaderGroup("g", config().groupRefreshTimeMillis(4_321).build()));
        assertTrue(thrown.getMessage().contains("g"), thrown.getMessage());
        assertEquals(full, within(controller.getReaderGroupConfig(scope, "g")), "nothing changed");
        // With cuts on both sides: all of it comes back as it was sent.
        write("s", 4, 0, 10);
        StreamCut middle = tail("s");
        write("s", 4, 10, 10);
        ReaderGroupConfig bounded = InGroup.brisk().stream(stream("s"), middle, tail("s")).build();
        assertTrue(groups.createReaderGroup("h", bounded));
        assertEquals(bounded, within(controller.getReaderGroupConfig(scope, "h")));
    }

    @Test
    @DisplayName("a reset raises the generation, an older one is refused")
    void generations() throws Exception {
        createStream("s", 1);
        assertTrue(groups.createReaderGroup("g", config().build()));
        ReaderGroup group = open(groups.getReaderGroup("g"));
        ReaderGroupConfig before = within(controller.getReaderGroupConfig(scope, "g"));
        group.resetReaderGroup(config().groupRefreshTimeMillis(700).build());
        ReaderGroupConfig after = within(controller.getReaderGroupConfig(scope, "g"));
        assertEquals(1, after.getGeneration());
        assertEquals(before.getReaderGroupId(), after.getReaderGroupId());
        assertEquals(700, after.getGroupRefreshTimeMillis());
        Exception refused = assertThrows(Exception.class, () -> within(controller.updateReaderGroup(scope, "g", before)));
        assertEquals(ReaderGroupConfigRejectedException.class, refused.getCause().getClass());
        Exception missing = assertThrows(Exception.class, () -> within(controller.updateReaderGroup(scope, "none", before)));
        assertEquals(ReaderGroupNotFoundException.class, missing.getCause().getClass());
        Exception foreign = assertThrows(Exception.class, () -> within(controller.updateReaderGroup(scope, "g",
            ReaderGroupConfig.cloneConfig(after, UUID.randomUUID(), 1))));
        assertEquals(ReaderGroupConfigRejectedException.class, foreign.getCause().getClass());
    }

    @Test
    @DisplayName("groups that hold data back are subscribers, and release it by hand")
    void manual() throws Exception {
        createStream("s", 2);
        assertTrue(groups.createReaderGroup("none", config().build()));
        assertEquals(List.of(), subscribers());
        ReaderGroupConfig.ReaderGroupConfigBuilder manual =
            config().retentionType(StreamDataRetention.MANUAL_RELEASE_AT_USER_STREAMCUT);
        assertTrue(groups.createReaderGroup("g", manual.build()));
        assertEquals(List.of(scope + "/g"), subscribers());
        ReaderGroup group = open(groups.getReaderGroup("g"));
        write("s", 4, 0, 10);
        StreamCut first = tail("s");
        write("s", 4, 10, 10);
        StreamCut second = tail("s");
        group.updateRetentionStreamCut(Map.of(stream("s"), second));
        group.updateRetentionStreamCut(Map.of(stream("s"), second));
        assertThrows(IllegalArgumentException.class,
            () -> group.updateRetentionStreamCut(Map.of(stream("s"), first)), "it never goes back");
        ReaderGroup other = open(groups.getReaderGroup("none"));
        assertThrows(UnsupportedOperationException.class,
            () -> other.updateRetentionStreamCut(Map.of(stream("s"), second)));
        // A group that no longer holds back is no subscriber.
        group.resetReaderGroup(config().build());
        assertEquals(List.of(), subscribers());
        group.resetReaderGroup(manual.build());
        assertEquals(List.of(scope + "/g"), subscribers());
        groups.deleteReaderGroup("g");
        assertEquals(List.of(), subscribers());
    }

    @Test
    @DisplayName("groups release by themselves what lies before their last checkpoint")
    void automatic() throws Exception {
        createStream("s", 1);
        assertTrue(groups.createReaderGroup("g",
            config().retentionType(StreamDataRetention.AUTOMATIC_RELEASE_AT_LAST_CHECKPOINT).build()));
        assertEquals(List.of(scope + "/g"), subscribers());
        ReaderGroup group = open(groups.getReaderGroup("g"));
        ReaderGroupConfig config = within(controller.getReaderGroupConfig(scope, "g"));
        write("s", 1, 0, 5);
        StreamCut before = tail("s");
        write("s", 1, 5, 5);
        try (var reader = events().createReader("r", "g", TEXT, ReaderConfig.builder().build())) {
            for (int read = 0; read < 10; ) {
                read += reader.readNextEvent(1_000).getEvent() == null ? 0 : 1;
            }
            var checkpoint = group.initiateCheckpoint("c", executor);
            until("the checkpoint is there", LIMIT, () -> reader.readNextEvent(500).isCheckpoint());
            // Its position is reported when the next read shows that the checkpoint was taken.
            until("it is released", LIMIT, () -> {
                reader.readNextEvent(200);
                try {
                    within(controller.updateSubscriberStreamCut(scope, "s", scope + "/g", config.getReaderGroupId(),
                        config.getGeneration(), before));
                    return false;
                } catch (java.util.concurrent.ExecutionException refused) {
                    return refused.getCause() instanceof IllegalArgumentException;
                }
            });
            assertEquals("c", within(checkpoint).getName());
        }
    }

    @Test
    @DisplayName("a release of a group that is none, or of another generation, is refused")
    void refusals() throws Exception {
        createStream("s", 1);
        write("s", 1, 0, 5);
        StreamCut cut = tail("s");
        assertTrue(groups.createReaderGroup("g",
            config().retentionType(StreamDataRetention.MANUAL_RELEASE_AT_USER_STREAMCUT).build()));
        UUID id = within(controller.getReaderGroupConfig(scope, "g")).getReaderGroupId();
        String group = scope + "/g";
        for (Runnable refused : List.<Runnable>of(
            () -> controller.updateSubscriberStreamCut(scope, "s", scope + "/none", id, 0, cut).join(),
            () -> controller.updateSubscriberStreamCut(scope, "s", group, UUID.randomUUID(), 0, cut).join(),
            () -> controller.updateSubscriberStreamCut(scope, "s", group, id, 7, cut).join(),
            () -> controller.updateSubscriberStreamCut(scope, "none", group, id, 0, cut).join())) {
            Exception thrown = assertThrows(Exception.class, refused::run);
            assertEquals(IllegalArgumentException.class, thrown.getCause().getClass(), thrown.toString());
        }
        assertTrue(within(controller.updateSubscriberStreamCut(scope, "s", group, id, 0, cut)));
    }
}
