"""Orders over gRPC, without a schema: messages are bytes. It counts what it runs, and knows nothing of keys."""

from concurrent import futures
import threading
import time

import grpc

runs = 0
lock = threading.Lock()


def run():
    global runs
    with lock:
        runs += 1
        return runs


def create(request, context):
    number = run()
    context.send_initial_metadata((("x-order", str(number)),))
    context.set_trailing_metadata((("x-run", str(number)), ("x-run-bin", bytes([number, 0, 255]))))
    return b"order " + str(number).encode() + b" of " + request


def fail(request, context):
    number = run()
    context.set_trailing_metadata((("x-run", str(number)),))
    context.abort(grpc.StatusCode.ALREADY_EXISTS, f"run {number}: snowman \u2603")


def later(request, context):
    """Not now, as the sidecar is told in its own words."""
    number = run()
    context.send_initial_metadata((("onlyonce-outcome", "release"),))
    context.abort(grpc.StatusCode.UNAVAILABLE, f"run {number}")


def count(request, context):
    return str(runs).encode()


def echo(request, context):
    seen = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-seen", seen.get("x-sent", "")),))
    return request


def slow(request, context):
    time.sleep(30)
    return b"late"


def numbers(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def half(request, context):
    yield b"0"
    context.abort(grpc.StatusCode.DATA_LOSS, "the rest is lost")


def total(requests, context):
    return str(sum(int(request) for request in requests)).encode()


def chat(requests, context):
    for request in requests:
        yield b"re: " + request


methods = {
    "Create": grpc.unary_unary_rpc_method_handler(create),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Later": grpc.unary_unary_rpc_method_handler(later),
    "Count": grpc.unary_unary_rpc_method_handler(count),
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
    "Numbers": grpc.unary_stream_rpc_method_handler(numbers),
    "Half": grpc.unary_stream_rpc_method_handler(half),
    "Total": grpc.stream_unary_rpc_method_handler(total),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=20))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Orders", methods),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("port", port, flush=True)
server.wait_for_termination()
