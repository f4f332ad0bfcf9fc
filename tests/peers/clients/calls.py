"""What the clients in Python have in common. `python CLIENT.py http://HOST:PORT KEY[=AMOUNT]...` creates one thing for each
key, and prints what the caller saw of it, as one line of JSON."""

import json
import sys
import time

base, *calls = sys.argv[1:]
token = "secret"


def timeout(key):
    """Who asks for something slow does not wait for it."""
    return 3 if key.startswith("slow") else 60


class Refused(Exception):
    """A response that is no success, where the client raises nothing by itself."""

    def __init__(self, status, body):
        self.status = status
        try:
            self.code = json.loads(body).get("code")
        except ValueError:
            self.code = None


def each(create, told=lambda error: {}):
    """`create(key, amount)` gives the id of what was created; `told(error)` says what an exception carries."""
    for call in calls:
        key, _, amount = call.partition("=")
        began = time.monotonic()
        try:
            saw = {"id": create(key, int(amount or 1))}
        except Refused as refused:
            saw = {"status": refused.status, "code": refused.code}
        except Exception as error:
            saw = {"raised": type(error).__name__, **told(error)}
        print(json.dumps({"key": key, **saw, "ms": round(1000 * (time.monotonic() - began))}), flush=True)


def patiently(send):
    """The loop that people write around a client that does not repeat by itself."""
    for tries in range(1, 5):
        retry_after = None
        try:
            status, body, retry_after = send()
        except Exception:
            if tries == 4:
                raise
        else:
            if status < 300:
                return json.loads(body)["id"]
            if tries == 4 or not (status >= 500 or (status == 409 and retry_after)):
                raise Refused(status, body)
        time.sleep(float(retry_after or 0.25 * tries))


def order(key, amount):
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, "Authorization": f"Bearer {token}"}
    return headers, json.dumps({"amount": amount, "note": "n" * amount})
