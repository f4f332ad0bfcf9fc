"""http.client writes a whole body before it looks for an answer."""

import http.client
import sys

host, rounds = sys.argv[1], int(sys.argv[2])
REFUSED = [("/orders", {"Idempotency-Key": "k"}, 413), ("/required", {}, 400), ("/upload", {}, 413)]
SIZES = [66 << 10, 2 << 20, 10 << 20, 30 << 20]
PIECE = bytes(64 << 10)


def pieces(size):
    for _ in range(size // len(PIECE)):
        yield PIECE


kept = http.client.HTTPConnection(host, timeout=60)
for size in SIZES:
    for _ in range(rounds if size <= 2 << 20 else 2):
        for path, headers, status in REFUSED:
            # A guarded body that is not too large is sent on, and the backend refuses it: nobody's repeat.
            if path == "/orders" and size <= 1 << 20:
                continue
            for body in (bytes(size), pieces(size)):
                fresh = http.client.HTTPConnection(host, timeout=60)
                # A connection that is kept is opened again where its answer said that it would be closed.
                for connection in (fresh, kept):
                    body = bytes(size) if isinstance(body, bytes) else pieces(size)
                    connection.request("POST", path, body, headers)
                    answer = connection.getresponse()
                    text = answer.read()
                    if answer.status != status or not text:
                        sys.exit(f"{path}, {size} bytes: {answer.status} {text[:200]!r}")
                fresh.close()
                # What the backend said early may end the connection without a word before it.
                if path == "/upload":
                    kept.close()
print("all as they should be")
