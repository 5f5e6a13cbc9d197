package headwater;

import io.pravega.client.admin.StreamManager;
import io.pravega.shared.protocol.netty.WireCommands;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import org.junit.platform.engine.TestExecutionResult;
import org.junit.platform.engine.TestTag;
import org.junit.platform.launcher.TestExecutionListener;
import org.junit.platform.launcher.TestIdentifier;
import org.junit.platform.launcher.TestPlan;

/**
 * Appends one JSON object per line to the file that `headwater.results` names: first the client's version, then every
 * feature as it ends, with how long it took and, if it failed, why.
 */
public final class Results implements TestExecutionListener {
    /** Of a test that the client has no way to ask for something: worth a line only once it has. */
    static final String ABSENT = "absent";

    private static final String FILE = System.getProperty("headwater.results");

    private final Map<String, Long> started = new ConcurrentHashMap<>();
    private TestPlan plan;

    @Override
    public void testPlanExecutionStarted(TestPlan tests) {
        plan = tests;
        String version = StreamManager.class.getPackage().getImplementationVersion();
        Map<String, String> line = new TreeMap<>();
        line.put("client", version == null ? System.getProperty("headwater.client", "unknown") : version);
        line.put("wire", Integer.toString(WireCommands.WIRE_VERSION));
        write(line);
    }

    @Override
    public void executionStarted(TestIdentifier test) {
        started.put(test.getUniqueId(), System.nanoTime());
    }

    @Override
    public void executionFinished(TestIdentifier test, TestExecutionResult result) {
        boolean passed = result.getStatus() == TestExecutionResult.Status.SUCCESSFUL;
        // A container is worth a line only if it broke: then its tests did not run.
        if (passed && (test.isContainer() || test.getTags().contains(TestTag.create(ABSENT)))) {
            return;
        }
        Map<String, String> line = new TreeMap<>();
        line.put("group", plan.getParent(test).map(TestIdentifier::getDisplayName).orElse(""));
        line.put("feature", test.getDisplayName());
        line.put("result", passed ? "passed" : "failed");
        long nanos = System.nanoTime() - started.getOrDefault(test.getUniqueId(), System.nanoTime());
        line.put("seconds", String.format("%.1f", nanos / 1e9));
        result.getThrowable().ifPresent(thrown -> line.put("why", describe(thrown)));
        write(line);
    }

    @Override
    public void executionSkipped(TestIdentifier test, String reason) {
        Map<String, String> line = new TreeMap<>();
        line.put("group", plan.getParent(test).map(TestIdentifier::getDisplayName).orElse(""));
        line.put("feature", test.getDisplayName());
        line.put("result", "skipped");
        line.put("why", reason);
        write(line);
    }

    private static String describe(Throwable thrown) {
        StringBuilder text = new StringBuilder(thrown.toString());
        for (StackTraceElement element : thrown.getStackTrace()) {
            if (element.getClassName().startsWith("headwater.")) {
                text.append("\n  at ").append(element);
            }
        }
        for (Throwable cause = thrown.getCause(); cause != null; cause = cause.getCause()) {
            text.append("\n  because ").append(cause);
        }
        return text.toString();
    }

    private static synchronized void write(Map<String, String> fields) {
        if (FILE == null) {
            return;
        }
        StringBuilder line = new StringBuilder("{");
        fields.forEach((name, value) -> {
            line.append(line.length() > 1 ? "," : "").append(quoted(name)).append(':').append(quoted(value));
        });
        line.append("}\n");
        try {
            Files.writeString(Path.of(FILE), line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
