// Java's HttpClient with its defaults, in a loop: on clear text it offers h2c with each request.
// java HttpClientInALoop.java http://HOST:PORT KEY[=AMOUNT]...

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

class HttpClientInALoop {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static String base;

    static HttpResponse<String> post(String key, int amount) throws IOException, InterruptedException {
        String body = "{\"amount\":" + amount + ",\"note\":\"" + "n".repeat(amount) + "\"}";
        HttpRequest request = HttpRequest.newBuilder(URI.create(base + "/orders"))
                .header("Content-Type", "application/json")
                .header("Idempotency-Key", key)
                .header("Authorization", "Bearer secret")
                // Who asks for something slow does not wait for it.
                .timeout(Duration.ofMillis(key.startsWith("slow") ? 3000 : 60000))
                .POST(BodyPublishers.ofString(body))
                .build();
        return CLIENT.send(request, BodyHandlers.ofString());
    }

    // The loop that people write around a client that does not repeat by itself.
    static HttpResponse<String> patiently(String key, int amount) throws IOException, InterruptedException {
        for (int tries = 1;; tries++) {
            String retryAfter = null;
            try {
                HttpResponse<String> response = post(key, amount);
                retryAfter = response.headers().firstValue("Retry-After").orElse(null);
                int status = response.statusCode();
                if (tries == 4 || !(status >= 500 || (status == 409 && retryAfter != null))) {
                    return response;
                }
            } catch (IOException error) {
                if (tries == 4) {
                    throw error;
                }
            }
            Thread.sleep(retryAfter == null ? 250 * tries : 1000 * Long.parseLong(retryAfter));
        }
    }

    static String member(String name, String json) {
        Matcher matcher = Pattern.compile("\"" + name + "\":\"([^\"]*)\"").matcher(json);
        return matcher.find() ? "\"" + matcher.group(1) + "\"" : "null";
    }

    public static void main(String[] arguments) throws InterruptedException {
        base = arguments[0];
        for (int i = 1; i < arguments.length; i++) {
            String[] call = arguments[i].split("=");
            long began = System.nanoTime();
            String saw;
            try {
                HttpResponse<String> response = patiently(call[0], call.length > 1 ? Integer.parseInt(call[1]) : 1);
                saw = response.statusCode() < 300
                        ? "\"id\":" + member("id", response.body())
                        : "\"status\":" + response.statusCode() + ",\"code\":" + member("code", response.body());
            } catch (IOException error) {
                saw = "\"raised\":\"" + error.getClass().getSimpleName() + "\"";
            }
            long spent = (System.nanoTime() - began) / 1_000_000;
            System.out.println("{\"key\":\"" + call[0] + "\"," + saw + ",\"ms\":" + spent + "}");
        }
    }
}
