"""Calls the orders behind the address in the first argument, and fails where an answer is not what it should be."""

import sys
import threading

import grpc

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)])
WAIT = 60


def unary(method):
    return channel.unary_unary(f"/shop.Orders/{method}")


def passing():
    """What is not guarded passes as if nothing were in between."""
    answer, call = unary("Echo").with_call(b"hello", timeout=WAIT, metadata=(("x-sent", "seen"),))
    assert answer == b"hello" and dict(call.trailing_metadata())["x-seen"] == "seen"
    big = bytes(range(256)) * 4096 * 3
    assert unary("Echo")(big[: 3 << 20], timeout=WAIT) == big[: 3 << 20]

    numbers = channel.unary_stream("/shop.Orders/Numbers")(b"1000", timeout=WAIT)
    assert [int(number) for number in numbers] == list(range(1000))

    total = channel.stream_unary("/shop.Orders/Total")
    assert total((str(number).encode() for number in range(1000)), timeout=WAIT) == b"499500"

    # Each side waits for the other: nothing may be held back in between.
    answered = threading.Semaphore(1)

    def questions():
        for number in range(50):
            answered.acquire(timeout=WAIT)
            yield str(number).encode()

    said = []
    for answer in channel.stream_stream("/shop.Orders/Chat")(questions(), timeout=WAIT):
        said.append(answer)
        answered.release()
    assert said == [b"re: %d" % number for number in range(50)], said

    half = channel.unary_stream("/shop.Orders/Half")(b"", timeout=WAIT)
    assert next(half) == b"0"
    refused(lambda: next(half), grpc.StatusCode.DATA_LOSS, "the rest is lost")

    refused(lambda: unary("Nowhere")(b"", timeout=WAIT), grpc.StatusCode.UNIMPLEMENTED, None)
    refused(lambda: unary("Slow")(b"", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED, None)

    called_off = channel.stream_stream("/shop.Orders/Chat")(iter([]), timeout=WAIT)
    called_off.cancel()
    assert called_off.code() == grpc.StatusCode.CANCELLED
    assert unary("Echo")(b"still there", timeout=WAIT) == b"still there"


def guarded():
    """A repeat gets the first call's message, metadata and status; the server has run once."""
    create = unary("Create")
    first, call = create.with_call(b"book", timeout=WAIT, metadata=key("one"))
    assert first == b"order 1 of book", first
    assert not marked(call)
    for _ in range(3):
        repeat, again = create.with_call(b"book", timeout=WAIT, metadata=key("one"))
        assert repeat == first and marked(again)
        trailers = dict(again.trailing_metadata())
        assert (trailers["x-run"], trailers["x-run-bin"]) == ("1", bytes([1, 0, 255])), trailers
        assert dict(again.initial_metadata())["x-order"] == "1"
    assert create(b"book", timeout=WAIT, metadata=key("two")) == b"order 2 of book"
    assert unary("Count")(b"", timeout=WAIT) == b"2"

    # A failure is an answer too: its HTTP status is 200.
    for attempt in range(2):
        failed = refused(
            lambda: unary("Fail")(b"", timeout=WAIT, metadata=key("three")),
            grpc.StatusCode.ALREADY_EXISTS,
            "run 3: snowman \u2603",
        )
        assert dict(failed.trailing_metadata())["x-run"] == "3"
    assert unary("Count")(b"", timeout=WAIT) == b"3"

    # Unless the backend says that it is none.
    for attempt in (4, 5):
        refused(
            lambda: unary("Later")(b"", timeout=WAIT, metadata=key("four")),
            grpc.StatusCode.UNAVAILABLE,
            f"run {attempt}",
        )

    # The sidecar's own answers are HTTP, of which gRPC makes statuses: this one is a 422.
    refused(lambda: create(b"another book", timeout=WAIT, metadata=key("one")), grpc.StatusCode.UNKNOWN, None)
    assert unary("Count")(b"", timeout=WAIT) == b"5"


def key(key):
    return (("idempotency-key", key), ("authorization", "Bearer alice"))


def marked(call):
    return dict(call.initial_metadata()).get("idempotent-replayed") == "true"


def refused(work, code, details):
    try:
        work()
    except grpc.RpcError as error:
        assert error.code() == code, error
        assert details is None or error.details() == details, error
        return error
    raise AssertionError(f"no {code}")


{"passing": passing, "guarded": guarded}[sys.argv[2]]()
print("as it should be")
