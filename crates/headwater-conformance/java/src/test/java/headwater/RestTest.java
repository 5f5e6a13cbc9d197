package headwater;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.exc.UnrecognizedPropertyException;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.pravega.client.admin.ReaderGroupManager;
import io.pravega.client.stream.ReaderConfig;
import io.pravega.client.stream.RetentionPolicy;
import io.pravega.client.stream.ScalingPolicy;
import io.pravega.client.stream.StreamConfiguration;
import io.pravega.controller.server.rest.generated.model.CreateScopeRequest;
import io.pravega.controller.server.rest.generated.model.CreateStreamRequest;
import io.pravega.controller.server.rest.generated.model.ReaderGroupProperty;
import io.pravega.controller.server.rest.generated.model.ReaderGroupsList;
import io.pravega.controller.server.rest.generated.model.RetentionConfig;
import io.pravega.controller.server.rest.generated.model.ScaleMetadata;
import io.pravega.controller.server.rest.generated.model.ScalingConfig;
import io.pravega.controller.server.rest.generated.model.ScopeProperty;
import io.pravega.controller.server.rest.generated.model.ScopesList;
import io.pravega.controller.server.rest.generated.model.StreamProperty;
import io.pravega.controller.server.rest.generated.model.StreamState;
import io.pravega.controller.server.rest.generated.model.StreamsList;
import io.pravega.controller.server.rest.generated.model.TagsList;
import io.pravega.controller.server.rest.generated.model.UpdateStreamRequest;
import io.pravega.shared.health.bindings.generated.model.HealthResult;
import io.pravega.shared.health.bindings.generated.model.HealthStatus;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.time.Duration;
import java.util.List;
import java.util.stream.Collectors;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** Speaks Pravega's interface for administrators with the classes that Pravega's own server has for it. */
@DisplayName("REST models of the original")
class RestTest extends InScope {
    /** What a class does not know fails. */
    private static final ObjectMapper JSON = new ObjectMapper()
        .enable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
        .enable(DeserializationFeature.FAIL_ON_NULL_FOR_PRIMITIVES)
        .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    private static String send(String method, String path, Object body, int status) throws Exception {
        HttpRequest.BodyPublisher publisher = body == null ? HttpRequest.BodyPublishers.noBody()
            : HttpRequest.BodyPublishers.ofString(JSON.writeValueAsString(body));
        HttpResponse<String> answer = HttpClient.newHttpClient().send(
            HttpRequest.newBuilder(URI.create(System.getProperty("headwater.http") + "/v1" + path))
                .header("Content-Type", "application/json").method(method, publisher).build(),
            HttpResponse.BodyHandlers.ofString());
        assertEquals(status, answer.statusCode(), answer.body());
        return answer.body();
    }

    private static <T> T ask(String path, Class<T> model) throws Exception {
        return JSON.readValue(send("GET", path, null, 200), model);
    }

    private static List<String> names(StreamsList list) {
        return list.getStreams().stream().map(StreamProperty::getStreamName).collect(Collectors.toList());
    }

    @Test
    @DisplayName("scopes and streams are made, listed, changed and sealed")
    void streams() throws Exception {
        String made = scope + "-made";
        CreateScopeRequest wanted = new CreateScopeRequest();
        wanted.setScopeName(made);
        assertEquals(made, JSON.readValue(send("POST", "/scopes", wanted, 201), ScopeProperty.class).getScopeName());
        assertEquals(made, ask("/scopes/" + made, ScopeProperty.class).getScopeName());
        assertTrue(ask("/scopes", ScopesList.class).getScopes().stream().anyMatch(s -> s.getScopeName().equals(made)));
        assertEquals(List.of(), names(ask("/scopes/" + made + "/streams", StreamsList.class)));

        ScalingConfig scaling = new ScalingConfig();
        scaling.setType(ScalingConfig.TypeEnum.BY_RATE_IN_EVENTS_PER_SEC);
        scaling.setTargetRate(100);
        scaling.setScaleFactor(2);
        scaling.setMinSegments(3);
        RetentionConfig retention = new RetentionConfig();
        retention.setType(RetentionConfig.TypeEnum.LIMITED_DAYS);
        retention.setValue(7L);
        TagsList tags = new TagsList();
        tags.addAll(List.of("a", "b c"));
        CreateStreamRequest stream = new CreateStreamRequest();
        stream.setStreamName("s");
        stream.setScalingPolicy(scaling);
        stream.setRetentionPolicy(retention);
        stream.setStreamTags(tags);
        stream.setTimestampAggregationTimeout(5L);
        stream.setRolloverSizeBytes(1L << 20);
        String streams = "/scopes/" + made + "/streams";
        StreamProperty created = JSON.readValue(send("POST", streams, stream, 201), StreamProperty.class);
        assertEquals(created, ask(streams + "/s", StreamProperty.class));
        assertEquals(made, created.getScopeName());
        assertEquals(scaling, created.getScalingPolicy());
        assertEquals(RetentionConfig.TypeEnum.LIMITED_DAYS, created.getRetentionPolicy().getType());
        assertEquals(7, created.getRetentionPolicy().getValue());
        assertEquals(List.of("a", "b c"), created.getTags());
        assertEquals(5, created.getTimestampAggregationTimeout());
        assertEquals(1 << 20, created.getRolloverSizeBytes());
        // The client that Java programs use sees the same.
        var seen = within(controller.getStreamConfiguration(made, "s"));
        assertEquals(ScalingPolicy.byEventRate(100, 2, 3), seen.getScalingPolicy());
        assertEquals(RetentionPolicy.byTime(Duration.ofDays(7)), seen.getRetentionPolicy());
        assertEquals(List.of("s"), names(ask(streams, StreamsList.class)));
        assertEquals(List.of("_MARKs"), names(ask(streams + "?filter_type=showInternalStreams", StreamsList.class)));
        assertEquals(List.of("s"), names(ask(streams + "?filter_type=tag&filter_value=a", StreamsList.class)));

        scaling.setType(ScalingConfig.TypeEnum.FIXED_NUM_SEGMENTS);
        scaling.setTargetRate(null);
        scaling.setScaleFactor(null);
        UpdateStreamRequest change = new UpdateStreamRequest();
        change.setScalingPolicy(scaling);
        StreamProperty changed = JSON.readValue(send("PUT", streams + "/s", change, 200), StreamProperty.class);
        assertEquals(ScalingConfig.TypeEnum.FIXED_NUM_SEGMENTS, changed.getScalingPolicy().getType());
        assertNull(changed.getRetentionPolicy());

        StreamState sealed = new StreamState();
        sealed.setStreamState(StreamState.StreamStateEnum.SEALED);
        assertEquals(sealed, JSON.readValue(send("PUT", streams + "/s/state", sealed, 200), StreamState.class));
        send("DELETE", streams + "/s", null, 204);
        send("DELETE", "/scopes/" + made, null, 204);
    }

    @Test
    @DisplayName("sizes and parts of days that are kept come back as they were said")
    void retention() throws Exception {
        assertTrue(streams.createStream(scope, "size", StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(1))
            .retentionPolicy(RetentionPolicy.bySizeBytes(3 << 20)).build()));
        assertTrue(streams.createStream(scope, "time", StreamConfiguration.builder().scalingPolicy(ScalingPolicy.fixed(1))
            .retentionPolicy(RetentionPolicy.byTime(Duration.ofMinutes(62))).build()));
        RetentionConfig size = ask("/scopes/" + scope + "/streams/size", StreamProperty.class).getRetentionPolicy();
        assertEquals(RetentionConfig.TypeEnum.LIMITED_SIZE_MB, size.getType());
        assertEquals(3, size.getValue());
        RetentionConfig time = ask("/scopes/" + scope + "/streams/time", StreamProperty.class).getRetentionPolicy();
        assertEquals(RetentionConfig.TypeEnum.LIMITED_DAYS, time.getType());
        assertEquals(1, time.getTimeBasedRetention().getHours());
        assertEquals(2, time.getTimeBasedRetention().getMinutes());
    }

    @Test
    @DisplayName("scaling events, but for the two fields and the fractions that the original's server sends besides")
    void scaling() throws Exception {
        createStream("s", 1);
        scale("s", 2);
        String events = send("GET", "/scopes/" + scope + "/streams/s/scaling-events?from=0&to=" + Long.MAX_VALUE, null, 200);
        List<ScaleMetadata> none = List.of();
        TypeReference<List<ScaleMetadata>> list = new TypeReference<>() { };
        // Its server answers with another class than the one that describes the answer; that one has these two.
        assertThrows(UnrecognizedPropertyException.class, () -> JSON.readValue(events, list));
        JsonNode tree = JSON.readTree(events);
        for (JsonNode event : tree) {
            assertTrue(event.get("splits").isNumber() && event.get("merges").isNumber(), events);
            ((ObjectNode) event).remove(List.of("splits", "merges"));
        }
        List<ScaleMetadata> read = JSON.readValue(tree.toString(), list);
        assertTrue(!read.equals(none) && read.get(read.size() - 1).getSegmentList().size() == 2, events);
        assertTrue(read.get(read.size() - 1).getTimestamp() >= read.get(0).getTimestamp(), events);
    }

    @Test
    @DisplayName("reader groups and their online readers")
    void groups() throws Exception {
        createStream("s", 1);
        ReaderGroupManager groups = open(ReaderGroupManager.withScope(scope, client));
        assertTrue(groups.createReaderGroup("g", InGroup.brisk().stream(stream("s")).build()));
        open(events().createReader("r", "g", TEXT, ReaderConfig.builder().build()));
        ReaderGroupsList list = ask("/scopes/" + scope + "/readergroups", ReaderGroupsList.class);
        assertEquals("g", list.getReaderGroups().get(0).getReaderGroupName());
        ReaderGroupProperty group = ask("/scopes/" + scope + "/readergroups/g", ReaderGroupProperty.class);
        assertEquals(scope, group.getScopeName());
        assertEquals("g", group.getReaderGroupName());
        assertEquals(List.of("s"), group.getStreamList());
        assertEquals(List.of("r"), group.getOnlineReaderIds());
    }

    @Test
    @DisplayName("health of the whole and of its parts")
    void health() throws Exception {
        HealthResult health = ask("/health", HealthResult.class);
        assertEquals(HealthStatus.UP, health.getStatus());
        assertTrue(health.getReadiness() && health.getLiveness());
        assertTrue(health.getChildren().keySet().containsAll(List.of("store", "controller")), health.toString());
        for (String part : health.getChildren().keySet()) {
            assertEquals(HealthStatus.UP, ask("/health/" + part, HealthResult.class).getStatus());
            assertEquals(HealthStatus.UP, ask("/health/status/" + part, HealthStatus.class));
        }
        assertEquals(HealthStatus.UP, ask("/health/status", HealthStatus.class));
        assertTrue(ask("/health/readiness", Boolean.class) && ask("/health/liveness", Boolean.class));
        assertThrows(JsonProcessingException.class, () -> JSON.readValue("{\"nane\": \"x\"}", HealthResult.class));
    }
}
