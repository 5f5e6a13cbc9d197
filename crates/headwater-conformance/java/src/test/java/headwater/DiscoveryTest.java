package headwater;

import io.pravega.client.ClientConfig;
import io.pravega.client.control.impl.Controller;
import io.pravega.client.control.impl.ControllerImpl;
import io.pravega.client.control.impl.ControllerImplConfig;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Queue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import org.junit.jupiter.api.DisplayName;
import org.junit.jupiter.api.Test;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

/** A client that is told one address, and asks there for those of the controllers. */
@DisplayName("discovery of controllers")
class DiscoveryTest extends InScope {
    /** Of the bytes with which a client begins HTTP/2; TLS begins otherwise. */
    private static final String PLAIN = "PRI * HTTP/2.0";

    /** With this TLS begins to say that it does not understand. */
    private static final int ALERT = 21;
    /** A connection that ends without an answer. */
    private static final int SILENCE = -1;

    private Carrier carrier;

    /** Stands before a server. What a connection and the answer begin with is kept, and whatever comes is carried on. */
    private static final class Carrier implements AutoCloseable {
        private final ServerSocket listener;
        private final String to;
        private final Queue<Socket> sockets = new ConcurrentLinkedQueue<>();
        private final CompletableFuture<String> begins = new CompletableFuture<>();
        private final CompletableFuture<Integer> answers = new CompletableFuture<>();

        Carrier(String to) throws IOException {
            this.to = to;
            listener = new ServerSocket(0, 0, InetAddress.getLoopbackAddress());
            start(() -> {
                while (true) {
                    Socket from = keep(listener.accept());
                    start(() -> carry(from));
                }
            });
        }

        String address() {
            return listener.getInetAddress().getHostAddress() + ":" + listener.getLocalPort();
        }

        private void carry(Socket from) throws IOException {
            byte[] first = from.getInputStream().readNBytes(PLAIN.length());
            begins.complete(new String(first, StandardCharsets.ISO_8859_1));
            int colon = to.lastIndexOf(':');
            Socket server = keep(new Socket(to.substring(0, colon), Integer.parseInt(to.substring(colon + 1))));
            server.getOutputStream().write(first);
            start(() -> from.getInputStream().transferTo(server.getOutputStream()));
            int answer = answer(server);
            answers.complete(answer);
            if (answer != SILENCE) {
                from.getOutputStream().write(answer);
                server.getInputStream().transferTo(from.getOutputStream());
            }
        }

        /** The first byte. */
        private static int answer(Socket server) {
            try {
                return server.getInputStream().read();
            } catch (IOException ended) {
                return SILENCE;
            }
        }

        private Socket keep(Socket socket) {
            sockets.add(socket);
            return socket;
        }

        /** Ends without a word when a socket is closed. */
        private static void start(Carrying work) {
            Thread thread = new Thread(() -> {
                try {
                    work.run();
                } catch (IOException closed) {
                    // Whoever waits for what comes over it is told by its own end.
                }
            });
            thread.setDaemon(true);
            thread.start();
        }

        @Override
        public void close() throws IOException {
            listener.close();
            for (Socket socket : sockets) {
                socket.close();
            }
        }
    }

    private interface Carrying {
        void run() throws IOException;
    }

    @Override
    protected ClientConfig connection() {
        String address = System.getProperty("headwater.controller");
        assertNotNull(address, "no server: start one and give -Dheadwater.controller=HOST:PORT");
        try {
            carrier = open(new Carrier(address));
        } catch (IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
        return ClientConfig.builder().controllerURI(URI.create("pravega://" + carrier.address())).build();
    }

    @Test
    @DisplayName("a client that is told an address with pravega:// goes to the controllers that are named there")
    void discovered() throws Exception {
        createStream("s", 2);
        write("s", 8, 0, 20);
        assertEquals(PLAIN, within(carrier.begins));
        within(controller.getCurrentSegments(scope, "s"));
        try (var writer = events().createEventWriter("s", TEXT, patient())) {
            within(writer.writeEvent("key-0", event(0, 20)));
            // Both know by now where the controller is, and go on without who told them.
            carrier.close();
            scale("s", 3);
            within(writer.writeEvent("key-0", event(0, 21)));
        }
        assertTrue(streams.checkStreamExists(scope, "s"));
        assertEquals(3, within(controller.getCurrentSegments(scope, "s")).getNumberOfSegments());
        secret();
    }

    /** `pravegas://` as well is asked in plain text; only who is named there would be spoken to over TLS. */
    private void secret() throws Exception {
        try (Carrier before = new Carrier(System.getProperty("headwater.tls.controller"))) {
            ClientConfig config = ClientConfig.builder().controllerURI(URI.create("pravegas://" + before.address()))
                .trustStore(System.getProperty("headwater.tls.trust")).validateHostName(true).build();
            assertTrue(config.isEnableTls());
            try (Controller other =
                     new ControllerImpl(ControllerImplConfig.builder().clientConfig(config).build(), executor)) {
                other.createScope(scope + "-secret");
                assertEquals(PLAIN, within(before.begins));
                // Whoever understood that would begin with a zero, of the length of a frame.
                int answer = within(before.answers);
                assertTrue(answer == ALERT || answer == SILENCE, "a server with TLS answers " + answer);
            }
        }
    }
}
