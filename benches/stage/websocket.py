"""WebSocket messages (RFC 6455): a server that sends each text message back, and clients that wait for each. Slow, as it is
Python; what is measured is the CPU time of the proxy between them."""

import asyncio
import base64
import hashlib
import os
import sys

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SIZE = 64


def accept(key):
    return base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())


def frame(payload, mask=b""):
    """One whole text message of less than 126 bytes."""
    head = bytes([0x81, len(payload) | (0x80 if mask else 0)])
    return head + mask + (turned(payload, mask) if mask else payload)


def turned(payload, mask):
    whole = (mask * (len(payload) // 4 + 1))[:len(payload)]
    return (int.from_bytes(payload) ^ int.from_bytes(whole)).to_bytes(len(payload))


def server(port):
    return [sys.executable, __file__, str(port)]


async def echo(reader, writer):
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        pairs = (line.partition(b":") for line in head.split(b"\r\n")[1:])
        given = {name.lower(): value.strip() for name, _, value in pairs}
        assert given[b"upgrade"].lower() == b"websocket", head
        key = given[b"sec-websocket-key"]
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                     + accept(key) + b"\r\n\r\n")
        while True:
            first, second = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            payload = turned(await reader.readexactly(second & 0x7F), mask)
            assert first == 0x81, first
            writer.write(frame(payload))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def open_one(port, path, headers):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16))
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 f"Sec-WebSocket-Version: 13\r\n{extra}Sec-WebSocket-Key: ".encode() + key + b"\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ")[1])
    assert status != 101 or accept(key) in head, head
    return status, reader, writer


async def talk(streams, messages):
    """Every client sends as many messages, each after the answer to the one before, and compares them whole."""
    async def one(reader, writer):
        for _ in range(messages):
            text, mask = base64.b64encode(os.urandom(SIZE * 3 // 4)), os.urandom(4)
            writer.write(frame(text, mask))
            answer = await reader.readexactly(2 + SIZE)
            assert answer == frame(text), answer

    await asyncio.gather(*(one(reader, writer) for _, reader, writer in streams))


def refused(port, path):
    """The status of someone who comes without a token."""
    async def ask():
        status, _, writer = await open_one(port, path, [])
        writer.close()
        return status

    return asyncio.run(ask())


def exchange(port, path, headers, clients, messages, around):
    """`around(run)` is called with what sends all messages, once every client is connected."""
    async def all_of_it():
        streams = [await open_one(port, path, headers) for _ in range(clients)]
        assert all(status == 101 for status, _, _ in streams), streams[0][0]
        await talk(streams, max(1, messages // 10))
        before = around()
        await talk(streams, messages)
        after = around()
        for _, _, writer in streams:
            writer.close()
        return before, after

    return asyncio.run(all_of_it())


async def main(port):
    async with await asyncio.start_server(echo, "127.0.0.1", port) as listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
