// Asks in TLS by HTTP/1.1 and by HTTP/2, and sends and gets a long body.
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpClient.Version;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Arrays;
import java.util.stream.IntStream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        try (var pem = new FileInputStream(arguments[1])) {
            var factory = CertificateFactory.getInstance("X.509");
            store.setCertificateEntry("server", factory.generateCertificate(pem));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        for (Version version : new Version[] {Version.HTTP_1_1, Version.HTTP_2}) {
            HttpClient client = HttpClient.newBuilder().sslContext(context).version(version).build();
            // It reads nothing before all of its body is sent; its window for a stream of HTTP/2 is 16 MB.
            int length = version == Version.HTTP_2 ? 10_000_000 : 60_000;
            byte[] body = "java".repeat(length / 4).getBytes();
            var request = HttpRequest.newBuilder(URI.create(arguments[0] + "/test/echo"))
                .POST(BodyPublishers.ofByteArray(body));
            var echo = client.send(request.build(), BodyHandlers.ofByteArray());
            System.out.println(echo.version() + " " + echo.statusCode() + " " + Arrays.equals(echo.body(), body));
            var stream = HttpRequest.newBuilder(URI.create(arguments[0] + "/test/stream?bytes=100000000"));
            int received = client.send(stream.build(), BodyHandlers.ofByteArray()).body().length;
            if (received != 100_000_000) throw new AssertionError(received);
            var health = HttpRequest.newBuilder(URI.create(arguments[0] + "/health")).build();
            IntStream.range(0, 100)
                .mapToObj(i -> client.sendAsync(health, BodyHandlers.ofString()))
                .toList()
                .forEach(answer -> {
                    if (!answer.join().body().equals("ok\n")) throw new AssertionError(answer);
                });
        }
    }
}
