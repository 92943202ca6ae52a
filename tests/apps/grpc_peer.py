"""A server of gRPC behind the gateway, and its client; without generated code, so that messages are bytes.

    grpc_peer.py serve                                  says "listening 127.0.0.1:PORT" and serves until it is ended
    grpc_peer.py calls TARGET TOKEN CA                  makes calls of every kind as alice; says "done" at the end
    grpc_peer.py status TARGET CA METHOD [NAME=VALUE…]  one call: the name of its status, then what it says

TARGET is host:port. CA is a file with the certificate to believe, or "-" without TLS."""

import queue
import sys
import threading
from concurrent import futures

import grpc

WAIT = 10
SEEN = queue.Queue()


def plain(metadata):
    return {key: value for key, value in metadata}


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        name = details.method
        if name == "/public.Test/Unary":
            return grpc.unary_unary_rpc_method_handler(unary)
        if name == "/test.Test/Unary":
            return grpc.unary_unary_rpc_method_handler(unary)
        if name == "/admin.Test/Unary":
            return grpc.unary_unary_rpc_method_handler(unary)
        if name == "/test.Test/Collect":
            return grpc.stream_unary_rpc_method_handler(collect)
        if name == "/test.Test/Count":
            return grpc.unary_stream_rpc_method_handler(count)
        if name == "/test.Test/Talk":
            return grpc.stream_stream_rpc_method_handler(talk)
        if name == "/test.Test/Fail":
            return grpc.unary_stream_rpc_method_handler(fail)
        if name == "/test.Test/Hang":
            return grpc.unary_stream_rpc_method_handler(hang)
        if name == "/test.Test/Seen":
            return grpc.unary_unary_rpc_method_handler(seen)
        return None


def unary(request, context):
    asked = plain(context.invocation_metadata())
    context.send_initial_metadata([("first", asked.get("mine", "-")), ("raw-bin", asked.get("raw-bin", b""))])
    context.set_trailing_metadata([("last", "x"), ("x-forwarded-user", "root")])
    known = [f"{name}={asked[name]}" for name in ("x-forwarded-user", "authorization", "cookie") if name in asked]
    return request + b"|" + ",".join(known).encode()


def collect(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def talk(requests, context):
    for request in requests:
        yield request[::-1]


def fail(request, context):
    yield b"one"
    context.set_trailing_metadata([("why", "so")])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "so it is: 100% ü")


def hang(request, context):
    """Says how much time there is, and then nothing more until the call is given up."""
    over = threading.Event()
    context.add_callback(over.set)
    left = context.time_remaining()
    yield ("inf" if left is None else f"{left:.3f}").encode()
    SEEN.put("over" if over.wait(WAIT) else "never")


def seen(request, context):
    return SEEN.get(timeout=WAIT).encode()


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=20))
    server.add_generic_rpc_handlers([Service()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening 127.0.0.1:{port}", file=sys.stderr, flush=True)
    server.wait_for_termination()


def channel_to(target, ca):
    options = [("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0)]
    if ca == "-":
        return grpc.insecure_channel(target, options)
    with open(ca, "rb") as file:
        trust = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(target, trust, options + [("grpc.ssl_target_name_override", "app.example")])


def calls(target, token, ca):
    with channel_to(target, ca) as channel:
        metadata = [("authorization", f"Bearer {token}"), ("x-forwarded-user", "root"), ("mine", "1")]
        every_kind(channel, metadata)
        failures(channel, metadata)
        given_up(channel, metadata)
    print("done")


def every_kind(channel, metadata):
    binary = metadata + [("raw-bin", bytes(range(256)))]
    answer, call = channel.unary_unary("/test.Test/Unary").with_call(b"hello", metadata=binary, timeout=WAIT)
    assert answer == b"hello|x-forwarded-user=alice", answer
    first, last = plain(call.initial_metadata()), plain(call.trailing_metadata())
    assert first["first"] == "1" and first["raw-bin"] == bytes(range(256)), first
    assert last == {"last": "x"}, last
    assert call.code() == grpc.StatusCode.OK

    large = channel.unary_unary("/test.Test/Unary")(b"x" * 3_000_000, metadata=metadata, timeout=WAIT)
    assert large.startswith(b"x" * 3_000_000)
    pieces = (b"x" * 50_000 for _ in range(100))
    assert channel.stream_unary("/test.Test/Collect")(pieces, metadata=metadata, timeout=WAIT) == b"5000000"
    numbers = channel.unary_stream("/test.Test/Count")(b"1000", metadata=metadata, timeout=WAIT)
    assert list(numbers) == [str(number).encode() for number in range(1000)]

    # Each message is sent when the answer to the one before is there.
    say = queue.Queue()
    said = channel.stream_stream("/test.Test/Talk")(iter(say.get, None), metadata=metadata, timeout=WAIT)
    for word in (b"abc", b"", b"xyz" * 40_000):
        say.put(word)
        assert next(said) == word[::-1]
    say.put(None)
    assert list(said) == [] and said.code() == grpc.StatusCode.OK


def failures(channel, metadata):
    call = channel.unary_stream("/test.Test/Fail")(b"", metadata=metadata, timeout=WAIT)
    assert next(call) == b"one"
    try:
        next(call)
        raise AssertionError("it fails")
    except grpc.RpcError:
        pass
    assert call.code() == grpc.StatusCode.FAILED_PRECONDITION and call.details() == "so it is: 100% ü", call
    assert plain(call.trailing_metadata())["why"] == "so"
    try:
        channel.unary_unary("/test.Test/Nothing")(b"", metadata=metadata, timeout=WAIT)
        raise AssertionError("it fails")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def given_up(channel, metadata):
    seen = channel.unary_unary("/test.Test/Seen")
    call = channel.unary_stream("/test.Test/Hang")(b"", metadata=metadata, timeout=2)
    left = float(next(call))
    # The client rounds up what it sends.
    assert 0 < left < 2.5, left
    try:
        next(call)
        raise AssertionError("it fails")
    except grpc.RpcError:
        assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED, call
    assert seen(b"", metadata=metadata, timeout=WAIT) == b"over"
    call = channel.unary_stream("/test.Test/Hang")(b"", metadata=metadata)
    assert float(next(call)) > 3600, "no deadline"
    call.cancel()
    assert seen(b"", metadata=metadata, timeout=WAIT) == b"over"


def status(target, ca, method, *fields):
    metadata = [tuple(field.split("=", 1)) for field in fields]
    with channel_to(target, ca) as channel:
        try:
            channel.unary_unary(method)(b"hello", metadata=metadata, timeout=WAIT)
            print("OK")
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}")


if __name__ == "__main__":
    {"serve": serve, "calls": calls, "status": status}[sys.argv[1]](*sys.argv[2:])
